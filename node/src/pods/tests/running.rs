//! What a pod does while it runs: restarts, probes, conditions, volumes.

use super::*;

#[test]
fn restarts_back_off_from_ten_seconds_to_five_minutes_and_are_forgiven() {
    let mut play = Play::one();
    play.settle();
    let mut waits = Vec::new();
    for _ in 0..8 {
        play.wait(1000);
        play.exit(0, 1);
        let mut waited = 0;
        while Play::starts(&play.settle()).is_empty() {
            play.wait(1000);
            waited += 1;
            assert!(waited <= 300, "it must start again");
        }
        waits.push(waited);
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    play.wait(600_001);
    play.exit(0, 1);
    assert_eq!(Play::starts(&play.settle()), [0], "it ran for ten minutes: the next restart is at once");
    assert_eq!(play.machine.containers[0].attempt, 9);
}

#[test]
fn a_pod_has_the_addresses_it_has_now_and_no_others() {
    let mut play = Play::one();
    play.settle();
    let status = play.status();
    for (one, list) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        assert_eq!(status[list], serde_json::json!([{ "ip": status[one] }, { "$patch": "replace" }]), "they merge by address otherwise");
    }
}

#[test]
fn waiting_reasons_and_phases_while_crashing() {
    let mut play = Play::one();
    play.settle();
    play.exit(0, 1);
    play.settle();
    play.exit(0, 2);
    play.settle();
    let status = play.status();
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["state"]["waiting"]["message"], "back-off 10s restarting failed container=c pod=p_ns(u)");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!(container["restartCount"], 1);
    assert_eq!(status["phase"], "Running");
    assert_eq!(play.condition("Ready")["message"], "containers with unready status: [c]");
    assert_eq!(play.notes.last().unwrap().message, "Back-off restarting failed container c in pod p_ns(u)");
    let wake = step::wake(&play.pod, &play.machine, play.now).unwrap();
    assert_eq!(wake, play.now.after(10_000));
}

#[test]
fn a_container_that_begins_again_is_the_one_before_until_it_runs() {
    let mut play = Play::one();
    play.settle();
    let seen = |play: &mut Play| {
        let one = play.status()["containerStatuses"][0].clone();
        let state = one["state"]["terminated"]["reason"].as_str().or(one["state"]["waiting"]["reason"].as_str()).unwrap_or("Running").to_string();
        (state, one["restartCount"].as_u64().unwrap(), one["containerID"].as_str().unwrap().to_string())
    };
    let start = |play: &mut Play| {
        play.next();
        play.tell(Event::ImageReady { container: 0, digest: "d".into() });
        assert_eq!(Play::starts(&play.next()), [0]);
    };
    play.exit(0, 1);
    assert_eq!(seen(&mut play), ("Error".into(), 0, "coracle://u/c/0".into()));
    start(&mut play);
    assert_eq!(seen(&mut play), ("Error".into(), 0, "coracle://u/c/0".into()), "the first restart is at once");
    play.tell(Event::Started { container: 0, attempt: 1 });
    assert_eq!(seen(&mut play), ("Running".into(), 1, "coracle://u/c/1".into()));
    play.exit(0, 1);
    play.settle();
    play.wait(10_000);
    assert_eq!(seen(&mut play), ("CrashLoopBackOff".into(), 1, "coracle://u/c/1".into()), "its time has come, and its image is looked for first");
    start(&mut play);
    assert_eq!(seen(&mut play), ("CrashLoopBackOff".into(), 1, "coracle://u/c/1".into()));
    let message = play.status()["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message, "back-off 10s restarting failed container=c pod=p_ns(u)");
    // One that cannot be made is none: the number stays its.
    for _ in 0..3 {
        play.tell(Event::Refused { container: 0, attempt: 2, reason: "CreateContainerError".into(), message: "no".into(), fatal: false });
        assert_eq!(seen(&mut play), ("CreateContainerError".into(), 1, "coracle://u/c/1".into()));
        assert_eq!(play.status()["containerStatuses"][0]["lastState"]["terminated"]["containerID"], "coracle://u/c/1");
        play.wait(300_000);
        start(&mut play);
    }
    play.tell(Event::Started { container: 0, attempt: 2 });
    assert_eq!(seen(&mut play), ("Running".into(), 2, "coracle://u/c/2".into()));
}

#[test]
fn liveness_restarts_startup_holds_back_readiness_takes_out() {
    let probe = |failures: i64| json!({ "httpGet": { "port": 80 }, "periodSeconds": 1, "failureThreshold": failures });
    let mut play = Play::new(
        json!({ "containers": [{ "name": "c", "image": "i", "startupProbe": probe(3), "livenessProbe": probe(2), "readinessProbe": probe(1) }] }),
    );
    let fail = |play: &mut Play, kind: Kind| {
        let attempt = play.machine.containers[0].attempt;
        play.tell(Event::Probed { container: 0, attempt, kind, outcome: Err("no".into()) });
    };
    for action in play.next() {
        play.tell(success(&action, play.now).unwrap());
    }
    for action in play.next() {
        play.tell(success(&action, play.now).unwrap());
    }
    assert_eq!(play.next(), [Action::Probe { container: 0, attempt: 0, kind: Kind::Startup }]);
    assert_eq!(play.status()["containerStatuses"][0]["started"], false);
    fail(&mut play, Kind::Startup);
    play.wait(1000);
    assert_eq!(play.next(), [Action::Probe { container: 0, attempt: 0, kind: Kind::Startup }]);
    play.tell(Event::Probed { container: 0, attempt: 0, kind: Kind::Startup, outcome: Ok(()) });
    let both = play.next();
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(play.condition("Ready")["status"], "False");
    play.tell(Event::Probed { container: 0, attempt: 0, kind: Kind::Readiness, outcome: Ok(()) });
    assert_eq!(play.condition("Ready")["status"], "True");
    fail(&mut play, Kind::Liveness);
    play.wait(1000);
    assert_eq!(play.next().len(), 2);
    fail(&mut play, Kind::Readiness);
    assert_eq!(play.condition("Ready")["status"], "False");
    fail(&mut play, Kind::Liveness);
    let stop = play.next();
    assert!(matches!(stop.as_slice(), [Action::Stop { grace: 30_000, .. }]), "{stop:?}");
    assert_eq!(play.notes.last().unwrap().message, "Container c failed liveness probe, will be restarted");
    assert_eq!(play.notes.iter().filter(|n| n.reason == "Unhealthy").count(), 4);
    assert!(play.notes.iter().any(|n| n.message == "Liveness probe failed: no"));
    play.exit(0, 143);
    assert_eq!(Play::starts(&play.settle()), [0]);
}

#[test]
fn a_changed_image_restarts_the_container() {
    let mut play = Play::one();
    play.settle();
    play.pod.spec.containers[0].image = "j".into();
    play.tell(Event::SpecChanged { volume: false });
    let actions = play.settle();
    assert!(matches!(actions.as_slice(), [Action::Stop { .. }, Action::Pull { .. }, Action::Start { attempt: 1, .. }]), "{actions:?}");
    assert_eq!(play.notes.iter().find(|n| n.reason == "Killing").unwrap().message, "Container c definition changed, will be restarted");
}

#[test]
fn a_lost_sandbox_is_made_again_and_init_containers_run_again() {
    let mut play = Play::new(json!({ "initContainers": [{ "name": "i", "image": "i" }], "containers": [{ "name": "c", "image": "i" }] }));
    play.settle();
    play.exit(0, 0);
    play.settle();
    play.wait(5000);
    play.tell(Event::SandboxLost("its host died".into()));
    let actions = play.settle();
    assert!(actions.contains(&Action::Setup));
    assert_eq!(Play::starts(&actions), [0]);
    play.exit(0, 0);
    assert_eq!(Play::starts(&play.settle()), [1]);
    assert_eq!(play.machine.containers[1].last.as_ref().unwrap().code, 137);
}

#[test]
fn volumes_are_written_again_when_something_changed_meanwhile() {
    let mut play = Play::one();
    play.settle();
    play.tell(Event::DependencyChanged { volume: true });
    assert_eq!(play.next(), [Action::Refresh]);
    play.tell(Event::DependencyChanged { volume: true });
    assert_eq!(play.next(), []);
    play.tell(Event::Refreshed(Some(Due::in_millis(play.now, 99))));
    assert_eq!(play.next(), [Action::Refresh], "the change came while it was being written");
    play.tell(Event::Refreshed(Some(Due::in_millis(play.now, 99))));
    assert_eq!(play.next(), []);
    assert_eq!(step::wake(&play.pod, &play.machine, play.now), Some(play.now.after(99)));
}

#[test]
fn late_and_stray_answers_change_nothing() {
    let mut play = Play::one();
    play.settle();
    play.exit(0, 1);
    play.settle();
    let before = play.machine.containers.clone();
    let exit = Exit { code: 9, reason: "Error".into(), message: String::new(), started: None, finished: play.now };
    play.tell(Event::Exited { container: 0, attempt: 0, exit: exit.clone() });
    play.tell(Event::Started { container: 0, attempt: 0 });
    play.tell(Event::Probed { container: 0, attempt: 0, kind: Kind::Liveness, outcome: Err("x".into()) });
    play.tell(Event::Exited { container: 7, attempt: 0, exit });
    assert_eq!(play.machine.containers, before);
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let mut play = Play::new(json!({ "readinessGates": [{ "conditionType": "example.com/x" }], "containers": [{ "name": "c", "image": "i" }] }));
    play.settle();
    assert_eq!(play.condition("ContainersReady")["status"], "True");
    assert_eq!(play.condition("Ready")["reason"], "ReadinessGatesNotReady");
    play.machine.conditions.insert("example.com/x".into(), ("True".into(), play.now));
    assert_eq!(play.condition("Ready")["status"], "True");
}

#[test]
fn transition_times_only_move_with_the_value() {
    let mut play = Play::one();
    let first = play.condition("Ready")["lastTransitionTime"].clone();
    play.wait(5000);
    assert_eq!(play.condition("Ready")["lastTransitionTime"], first);
    play.settle();
    assert_ne!(play.condition("Ready")["lastTransitionTime"], first);
}
