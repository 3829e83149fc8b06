//! How a pod ends: by itself, deleted, evicted, with its agent.

use super::*;

#[test]
fn the_restart_policy_decides_how_a_pod_ends() {
    for (policy, code, phase, starts) in [
        ("Always", 0, "Running", 1),
        ("Always", 1, "Running", 1),
        ("OnFailure", 0, "Succeeded", 0),
        ("OnFailure", 1, "Running", 1),
        ("Never", 0, "Succeeded", 0),
        ("Never", 1, "Failed", 0),
    ] {
        let mut play = Play::new(json!({ "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] }));
        play.settle();
        play.exit(0, code);
        let actions = play.settle();
        assert_eq!(Play::starts(&actions).len(), starts, "{policy} {code}");
        assert_eq!(play.phase(), phase, "{policy} {code}");
        assert_eq!(actions.contains(&Action::Teardown), phase != "Running", "{policy} {code}");
    }
}

#[test]
fn a_container_may_have_a_policy_of_its_own() {
    let rule = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    for (pod, own, rules, code, phase) in [
        ("Never", "Always", json!([]), 0, "Running"),
        ("Always", "Never", json!([]), 1, "Failed"),
        ("Always", "OnFailure", json!([]), 0, "Succeeded"),
        ("Never", "OnFailure", json!([]), 1, "Running"),
        ("Never", "Never", rule.clone(), 42, "Running"),
        ("Never", "Never", rule, 1, "Failed"),
    ] {
        let container = json!({ "name": "c", "image": "i", "restartPolicy": own, "restartPolicyRules": rules });
        let mut play = Play::new(json!({ "restartPolicy": pod, "containers": [container] }));
        play.settle();
        play.exit(0, code);
        assert_eq!(Play::starts(&play.settle()).len(), usize::from(phase == "Running"), "{pod} {own} {code}");
        assert_eq!(play.phase(), phase, "{pod} {own} {code}");
    }
    let init = json!([{ "name": "i", "image": "i", "restartPolicy": "Never" }]);
    let mut play = Play::new(json!({ "initContainers": init, "containers": [{ "name": "c", "image": "i" }] }));
    play.settle();
    play.exit(0, 1);
    play.settle();
    assert_eq!(play.phase(), "Failed", "an init container that is not started again ends its pod");
}

#[test]
fn one_of_two_containers_does_not_end_the_pod() {
    let mut play = Play::new(json!({ "restartPolicy": "Never", "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }] }));
    play.settle();
    play.exit(0, 1);
    assert_eq!(play.settle(), []);
    assert_eq!(play.phase(), "Running");
    play.exit(1, 0);
    assert_eq!(play.settle(), [Action::Teardown]);
    assert_eq!(play.phase(), "Failed");
    assert_eq!(play.condition("Ready")["reason"], "PodFailed");
}

#[test]
fn sidecars_start_before_restart_alone_and_stop_last() {
    let mut play = Play::new(json!({
        "restartPolicy": "Never",
        "initContainers": [
            { "name": "s1", "image": "i", "restartPolicy": "Always", "startupProbe": { "tcpSocket": { "port": 1 } } },
            { "name": "s2", "image": "i", "restartPolicy": "Always" }, { "name": "i", "image": "i" } ],
        "containers": [{ "name": "c", "image": "i" }] }));
    let started = play.settle();
    assert_eq!(Play::starts(&started), [0, 1, 2], "{started:?}");
    assert!(started.contains(&Action::Probe { container: 0, attempt: 0, kind: Kind::Startup }));
    play.exit(2, 0);
    assert_eq!(Play::starts(&play.settle()), [3]);
    play.exit(1, 1);
    assert_eq!(Play::starts(&play.settle()), [1], "a sidecar restarts whatever the pod's policy");
    play.exit(3, 0);
    assert_eq!((play.phase(), play.condition("Ready")["reason"].clone()), ("Running".into(), json!("PodCompleted")), "the others run still");
    let stop = |container, attempt| Action::Stop { container, attempt, grace: 30_000, why: Why::PodEnds, hook: true };
    assert_eq!(play.next(), [stop(0, 0), stop(1, 1)], "within one grace");
    let after: Vec<_> = (0..4).map(|index| step::stops_after(&play.pod, index)).collect();
    assert_eq!(after, [1..4, 2..4, 0..0, 0..0], "in reverse order");
    play.exit(1, 0);
    play.exit(0, 0);
    play.settle();
    assert_eq!(play.phase(), "Succeeded");
    assert_eq!(play.machine.sandbox, Sandbox::Gone);
}

#[test]
fn a_deleted_pod_stops_gives_back_reports_and_goes_in_this_order() {
    let mut play = Play::one();
    play.settle();
    play.pod.metadata.deletion_timestamp = Some("x".into());
    play.pod.metadata.deletion_grace_period_seconds = Some(7);
    assert_eq!(
        play.settle(),
        [Action::Stop { container: 0, attempt: 0, grace: 7000, why: Why::PodEnds, hook: true }, Action::Teardown, Action::Delete]
    );
    assert_eq!(play.machine.deletion, Deletion::Done);
    play.tell(Event::Gone);
    assert_eq!(play.settle(), [Action::Forget]);
    assert_eq!(play.notes.last().unwrap().message, "Stopping container c");
}

#[test]
fn a_shorter_grace_is_passed_on_and_the_same_one_is_not() {
    let mut play = Play::one();
    play.settle();
    play.pod.metadata.deletion_timestamp = Some("x".into());
    play.pod.metadata.deletion_grace_period_seconds = Some(30);
    assert_eq!(play.next().len(), 1);
    play.wait(2000);
    assert_eq!(play.next(), []);
    play.pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(play.next(), [Action::Stop { container: 0, attempt: 0, grace: 0, why: Why::PodEnds, hook: false }]);
}

#[test]
fn a_pod_that_ends_is_asked_whether_it_is_ready_and_no_more() {
    let probe = json!({ "tcpSocket": { "port": 1 }, "failureThreshold": 1 });
    let mut play = Play::new(json!({ "containers": [{ "name": "c", "image": "i", "livenessProbe": probe, "readinessProbe": probe }] }));
    play.settle();
    play.pod.metadata.deletion_timestamp = Some("x".into());
    play.pod.metadata.deletion_grace_period_seconds = Some(30);
    assert!(matches!(&*play.next(), [Action::Stop { .. }]));
    assert_eq!(play.condition("Ready")["status"], "True", "it answers still");
    let wake = step::wake(&play.pod, &play.machine, play.now).unwrap();
    play.now = wake;
    assert_eq!(play.next(), [Action::Probe { container: 0, attempt: 0, kind: Kind::Readiness }]);
    play.tell(Event::Probed { container: 0, attempt: 0, kind: Kind::Readiness, outcome: Err("no".into()) });
    assert_eq!((play.condition("Ready")["status"].clone(), play.phase()), (json!("False"), "Running".into()));
    // Nobody is to be told of one whose object is gone.
    play.tell(Event::Gone);
    play.wait(60_000);
    assert!(!play.next().iter().any(|action| matches!(action, Action::Probe { .. })));
}

#[test]
fn a_pod_that_is_deleted_while_it_is_being_made_is_given_back() {
    let mut play = Play::one();
    assert_eq!(play.next().len(), 2);
    play.pod.metadata.deletion_timestamp = Some("x".into());
    assert_eq!(play.next(), [], "set-up is under way");
    play.tell(Event::SetUp { ip: [10, 0, 0, 9].into(), refresh: None });
    assert_eq!(play.settle(), [Action::Teardown, Action::Delete]);
}

#[test]
fn a_pod_that_comes_back_with_its_agent_keeps_its_volumes() {
    let mut play = Play::one();
    play.settle();
    play.tell(Event::Leave(3_000));
    assert_eq!(play.settle(), [Action::Stop { container: 0, attempt: 0, grace: 3_000, why: Why::PodEnds, hook: true }, Action::Leave]);
    // One that has ended, or whose object goes, has no use for them.
    let mut over = Play::new(json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] }));
    over.settle();
    over.exit(0, 0);
    over.tell(Event::Leave(3_000));
    assert_eq!(over.settle(), [Action::Teardown]);
    let mut gone = Play::one();
    gone.settle();
    gone.tell(Event::Leave(3_000));
    gone.tell(Event::Gone);
    assert!(gone.settle().contains(&Action::Teardown));
}

#[test]
fn an_evicted_pod_fails_when_it_has_stopped_and_stays_failed() {
    let mut play = Play::one();
    play.settle();
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    for _ in 0..2 {
        play.tell(Event::Evicted(Eviction::of(message.into())));
    }
    assert_eq!(play.notes.iter().filter(|note| note.reason == "Evicted").count(), 1);
    let status = play.status();
    assert_eq!((&status["phase"], &status["reason"], &status["message"]), (&json!("Running"), &Value::Null, &Value::Null), "while it runs");
    assert_eq!(play.settle(), [Action::Stop { container: 0, attempt: 0, grace: 1000, why: Why::PodEnds, hook: true }, Action::Teardown]);
    let status = play.status();
    assert_eq!((&status["phase"], &status["reason"], &status["message"]), (&json!("Failed"), &json!("Evicted"), &json!(message)));
    let disrupted = |play: &mut Play| play.status()["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").cloned();
    assert_eq!(disrupted(&mut play), None, "its own fault");
    // The node saves itself: the pod has the grace that it is given, and is told.
    let mut saved = Play::one();
    saved.settle();
    saved.tell(Event::Evicted(Eviction { grace: 5_000, disruption: true, ..Eviction::of("The node was low on resource: memory. ".into()) }));
    assert_eq!(disrupted(&mut saved), None, "with the phase");
    assert!(saved.settle().contains(&Action::Stop { container: 0, attempt: 0, grace: 5_000, why: Why::PodEnds, hook: true }));
    let condition = disrupted(&mut saved).unwrap();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert_eq!(condition["message"], "The node was low on resource: memory. ");
    // One that has ended by itself is not evicted any more.
    let mut over = Play::new(json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] }));
    over.settle();
    over.exit(0, 0);
    over.tell(Event::Evicted(Eviction::of(message.into())));
    assert_eq!(over.phase(), "Succeeded");
}

#[test]
fn a_deadline_fails_the_pod() {
    let mut play = Play::new(json!({ "activeDeadlineSeconds": 60, "containers": [{ "name": "c", "image": "i" }] }));
    play.settle();
    assert_eq!(step::wake(&play.pod, &play.machine, play.now), Some(play.now.after(60_000)));
    play.exit(0, 1);
    play.settle();
    assert!(!play.reasons().contains(&"BackOff"), "the first restart is at once");
    play.wait(60_000);
    let actions = play.settle();
    assert!(!play.reasons().contains(&"BackOff"), "what ends with its pod is not started again");
    assert!(matches!(actions.as_slice(), [Action::Fail(_), Action::Stop { .. }, Action::Teardown]), "{actions:?}");
    let status = play.status();
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("DeadlineExceeded")));
}
