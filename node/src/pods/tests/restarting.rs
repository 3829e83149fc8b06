//! All containers of a pod begin again (KEP-5532).

use super::*;
use coracle_runtime::{PodRef, SandboxSpec};
use std::time::SystemTime;

fn rules(operator: &str, codes: Value) -> Value {
    json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": operator, "values": codes } }])
}

/// An init container, a sidecar, two containers; the one of this name asks for it with 42.
fn four(source: &str) -> Play {
    let mut spec = json!({ "restartPolicy": "Never",
        "initContainers": [{ "name": "init", "image": "i" }, { "name": "side", "image": "i", "restartPolicy": "Always" }],
        "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }] });
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().unwrap() {
            if container["name"] == source {
                container["restartPolicyRules"] = rules("In", json!([42]));
                container["restartPolicy"] = if source == "side" { "Always" } else { "Never" }.into();
            }
        }
    }
    Play::new(spec)
}

fn stops(actions: &[Action]) -> Vec<usize> {
    let stop = |action: &Action| match action {
        Action::Stop { container, grace: 2_000, why: Why::Restarted, hook: false, .. } => Some(*container),
        _ => None,
    };
    actions.iter().filter_map(stop).collect()
}

/// (restartCount, exit code and reason of the one before), of all containers.
fn counts(play: &mut Play) -> Vec<(u64, i64, String)> {
    let status = play.status();
    let all = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array().cloned().unwrap_or_default()).concat();
    let count = |one: &Value| {
        let last = &one["lastState"]["terminated"];
        let reason = last["reason"].as_str().unwrap_or_default().to_string();
        (one["restartCount"].as_u64().unwrap(), last["exitCode"].as_i64().unwrap_or(-1), reason)
    };
    all.iter().map(count).collect()
}

#[test]
fn all_begin_again_with_the_init_containers_first() {
    for (source, index, victims) in [("a", 2, vec![3, 1]), ("side", 1, vec![2, 3])] {
        let mut play = four(source);
        play.settle();
        play.exit(0, 0);
        play.settle();
        assert_eq!((play.phase(), play.condition("AllContainersRestarting")["status"].clone()), ("Running".into(), json!("False")));
        play.exit(index, 42);
        let condition = play.condition("AllContainersRestarting");
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("RestartAllContainersStarted")));
        assert_eq!(play.phase(), "Running", "{source}");
        let actions = play.settle();
        assert_eq!(stops(&actions), victims, "{source}");
        assert!(!actions.contains(&Action::Setup) && !actions.contains(&Action::Teardown), "the sandbox stays: {actions:?}");
        assert_eq!(Play::starts(&actions), [0], "{source}");
        assert!(actions.contains(&Action::Start { container: 0, attempt: 1 }));
        assert_eq!((play.phase(), play.condition("AllContainersRestarting")["status"].clone()), ("Pending".into(), json!("False")));
        assert_eq!(play.condition("Initialized")["status"], "True", "what was initialized stays so");
        assert_eq!(counts(&mut play), vec![(1, 137, "RestartingAllContainers".into()); 4], "{source}");
        play.exit(0, 0);
        assert_eq!(Play::starts(&play.settle()), [1, 2, 3]);
        assert_eq!(play.phase(), "Running");
        assert_eq!(counts(&mut play), vec![(1, 137, "RestartingAllContainers".into()); 4], "{source}");
    }
}

#[test]
fn an_init_container_may_ask_for_it() {
    let mut play = four("init");
    play.settle();
    play.exit(0, 42);
    let actions = play.settle();
    assert_eq!((stops(&actions), Play::starts(&actions)), (vec![], vec![0]), "nothing else ran");
    play.exit(0, 1);
    play.settle();
    assert_eq!(play.phase(), "Failed", "only 42 does");
    assert_eq!(play.condition("AllContainersRestarting")["reason"], "PodFailed");
    // Also with 0, which is the end of any other.
    let mut spec =
        json!({ "initContainers": [{ "name": "i", "image": "i", "restartPolicy": "Never" }], "containers": [{ "name": "c", "image": "i" }] });
    spec["initContainers"][0]["restartPolicyRules"] = rules("NotIn", json!([7]));
    let mut play = Play::new(spec);
    play.settle();
    play.exit(0, 0);
    assert_eq!(Play::starts(&play.settle()), [0]);
    assert_eq!(play.phase(), "Pending");
}

#[test]
fn those_that_are_killed_for_it_ask_for_nothing() {
    let mut containers = json!([{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }]);
    for container in containers.as_array_mut().unwrap() {
        (container["restartPolicy"], container["restartPolicyRules"]) = ("Never".into(), rules("NotIn", json!([0])));
    }
    let mut play = Play::new(json!({ "restartPolicy": "Never", "containers": containers }));
    play.settle();
    play.exit(0, 1);
    assert_eq!(Play::starts(&play.settle()), [0, 1]);
    assert_eq!(play.settle(), []);
    assert_eq!(play.phase(), "Running");
    play.exit(0, 0);
    play.exit(1, 0);
    play.settle();
    assert_eq!((play.phase(), play.condition("AllContainersRestarting")["reason"].clone()), ("Succeeded".into(), json!("PodCompleted")));
}

#[test]
fn the_back_off_of_the_one_that_asks_holds() {
    let mut play = four("a");
    play.settle();
    play.exit(0, 0);
    play.settle();
    play.exit(2, 42);
    play.settle();
    play.exit(0, 0);
    play.settle();
    play.exit(2, 42);
    let actions = play.settle();
    assert_eq!((stops(&actions), Play::starts(&actions)), (vec![3, 1], vec![]), "the second time it waits, with nothing running");
    assert_eq!(play.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(play.condition("AllContainersRestarting")["status"], "True");
    let due = step::wake(&play.pod, &play.machine, play.now).expect("a timer");
    assert_eq!(due.since(play.now), 10_000);
    play.now = due;
    assert_eq!(Play::starts(&play.settle()), [0]);
}

#[test]
fn a_pod_that_ends_does_not_begin_again() {
    let mut play = four("a");
    play.settle();
    play.exit(0, 0);
    play.settle();
    play.pod.metadata.deletion_timestamp = Some("x".into());
    play.exit(2, 42);
    let actions = play.settle();
    assert!(Play::starts(&actions).is_empty() && actions.ends_with(&[Action::Teardown, Action::Delete]), "{actions:?}");
}

#[test]
fn a_look_inside_goes_on() {
    let mut play = four("a");
    play.pod.spec.ephemeral_containers = serde_json::from_value(json!([{ "name": "e", "image": "i" }])).unwrap();
    play.machine.containers.push(Default::default());
    play.settle();
    play.exit(0, 0);
    play.settle();
    play.exit(2, 42);
    let actions = play.settle();
    assert!(!stops(&actions).contains(&4) && matches!(play.machine.containers[4].run, Run::Running { .. }), "{actions:?}");
}

/// What the runtime still has of a container: its number and how it ended; without a code it runs.
fn live(name: &str, attempt: u32, code: Option<i32>) -> coracle_runtime::ContainerStatus {
    let state = match code {
        None => coracle_runtime::State::Running { started: SystemTime::UNIX_EPOCH },
        Some(code) => coracle_runtime::State::Exited {
            code,
            reason: "Error".into(),
            message: String::new(),
            started: Some(SystemTime::UNIX_EPOCH),
            finished: SystemTime::UNIX_EPOCH,
        },
    };
    let (id, name, image, image_digest) = (format!("u/{name}/{attempt}"), name.into(), "i".into(), "sha256:d".into());
    coracle_runtime::ContainerStatus { id, name, attempt, image, image_digest, state, user: None }
}

/// The play goes on with another agent, which knows what was reported and what the runtime has.
fn another_agent(mut play: Play, containers: Vec<coracle_runtime::ContainerStatus>) -> Play {
    let mut status = play.status();
    for list in ["hostIPs", "podIPs"] {
        status[list] = json!([]);
    }
    play.pod.status = serde_json::from_value(without_nulls(status)).unwrap();
    let pod = PodRef { namespace: "ns".into(), name: "p".into(), uid: "u".into() };
    let spec = SandboxSpec::new(pod, HOST, "/nowhere".into());
    play.machine = adopt(&play.pod, Some(&coracle_runtime::SandboxStatus { spec, ready: true, containers }), |_| None, play.now);
    play
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, without_nulls(value))).collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn who_a_container_is_is_told_and_known_to_the_next_agent() {
    let mut play = Play::one();
    play.settle();
    assert_eq!(play.status()["containerStatuses"][0].get("user"), None, "a component is nobody");
    let who = coracle_runtime::ContainerUser { uid: 7, gid: 8, groups: vec![8, 9] };
    play.tell(Event::Running { container: 0, attempt: 1, since: play.now, user: Some(coracle_runtime::ContainerUser { uid: 1, ..who.clone() }) });
    play.tell(Event::Running { container: 0, attempt: 0, since: play.now, user: Some(who) });
    play.tell(Event::Running { container: 0, attempt: 0, since: play.now, user: None });
    let user = json!({ "linux": { "uid": 7, "gid": 8, "supplementalGroups": [8, 9] } });
    assert_eq!(play.status()["containerStatuses"][0]["user"], user);
    let scheduled = play.condition("PodScheduled");
    assert_eq!((&scheduled["status"], &scheduled["observedGeneration"]), (&json!("True"), &json!(play.pod.metadata.generation)));
    let mut play = another_agent(play, vec![live("c", 0, None)]);
    assert_eq!(play.status()["containerStatuses"][0]["user"], user);
}

#[test]
fn what_probes_found_holds_for_the_next_agent() {
    let probe = json!({ "tcpSocket": { "port": 1 }, "failureThreshold": 2 });
    let container = json!({ "name": "c", "image": "i", "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe });
    let mut play = Play::new(json!({ "containers": [container] }));
    play.settle();
    assert_eq!(play.condition("Ready")["status"], "True");
    let began = play.condition("Ready")["lastTransitionTime"].clone();
    play.wait(60_000);
    let mut play = another_agent(play, vec![live("c", 0, None)]);
    let kinds = |actions: Vec<Action>| {
        let kind = |action| if let Action::Probe { kind, .. } = action { Some(kind) } else { None };
        actions.into_iter().filter_map(kind).collect::<Vec<_>>()
    };
    assert_eq!((play.condition("Ready")["status"].clone(), play.condition("Ready")["lastTransitionTime"].clone()), (json!("True"), began));
    assert_eq!(kinds(play.next()), [Kind::Liveness, Kind::Readiness], "it has started already");
    // They are asked as ever: this one is not ready any more.
    for _ in 0..2 {
        play.tell(Event::Probed { container: 0, attempt: 0, kind: Kind::Readiness, outcome: Err("no".into()) });
        play.wait(10_000);
        play.next();
    }
    assert_eq!(play.condition("Ready")["status"], "False");
    // Of a container that came after, nothing is known.
    let mut play = another_agent(play, vec![live("c", 1, None)]);
    assert_eq!((play.condition("Ready")["status"].clone(), kinds(play.next())), (json!("False"), vec![Kind::Startup]));
}

#[test]
fn the_next_agent_goes_on_with_it() {
    let ran = || {
        let mut play = four("a");
        play.settle();
        play.exit(0, 0);
        play.settle();
        play
    };
    // Nobody was there when it asked; or the condition is all that is left of it.
    let play = another_agent(ran(), vec![live("init", 0, Some(0)), live("side", 0, None), live("a", 0, Some(42)), live("b", 0, None)]);
    let mut asked = ran();
    asked.exit(2, 42);
    let told = another_agent(asked, vec![live("init", 0, Some(0)), live("side", 0, None), live("b", 0, None)]);
    for mut play in [play, told] {
        assert!(play.machine.restarting);
        let actions = play.settle();
        assert_eq!((stops(&actions), Play::starts(&actions)), (vec![3, 1], vec![0]));
    }
    // The first of them runs again: the others are not over because they were killed.
    let mut play = ran();
    play.exit(2, 42);
    play.settle();
    let containers = vec![live("init", 1, None), live("side", 0, Some(143)), live("a", 0, Some(42)), live("b", 0, Some(143))];
    let mut play = another_agent(play, containers);
    assert!(!play.machine.restarting);
    assert_eq!((Play::starts(&play.settle()), play.phase().as_str()), (vec![], "Pending"));
    play.exit(0, 0);
    let actions = play.settle();
    assert_eq!(Play::starts(&actions), [1, 2, 3]);
    assert_eq!((play.phase(), counts(&mut play)[2].0), ("Running".into(), 1));
}
