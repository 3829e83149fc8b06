//! The pure part, played without a runtime: tables of what happens and what follows, and any order of events at all.

use super::{
    adopt::adopt,
    machine::{Action, Deletion, Event, Eviction, Exit, Machine, Note, Run, Sandbox, Why},
    observe,
    probes::Kind,
    spec::Pod,
    status, step,
    time::{Due, Time},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::IpAddr;

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A pod and a clock.
struct Play {
    pod: Pod,
    machine: Machine,
    now: Time,
    notes: Vec<Note>,
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 2 }, "spec": spec })).unwrap()
}

impl Play {
    fn new(spec: Value) -> Self {
        let pod = pod(spec);
        let now = Time(1_700_000_000_000);
        let machine = Machine::new(&pod, now);
        Self { pod, machine, now, notes: Vec::new() }
    }

    fn one() -> Self {
        Self::new(json!({ "containers": [{ "name": "c", "image": "i" }] }))
    }

    /// What is wanted now, marked as begun.
    fn next(&mut self) -> Vec<Action> {
        let actions = step::step(&self.pod, &self.machine, self.now);
        for action in &actions {
            observe::begin(&self.pod, &mut self.machine, action, self.now, &mut self.notes);
        }
        actions
    }

    fn tell(&mut self, event: Event) {
        observe::observe(&self.pod, &mut self.machine, event, self.now, &mut self.notes);
    }

    /// Answers every action with success until nothing more is wanted now. Returns the actions in order.
    fn settle(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..100 {
            let actions = self.next();
            if actions.is_empty() {
                return all;
            }
            for action in actions {
                all.push(action.clone());
                if let Some(event) = success(&action, self.now) {
                    self.tell(event);
                }
            }
        }
        panic!("it does not come to rest: {:?}", &all[all.len() - 8..]);
    }

    fn exit(&mut self, container: usize, code: i32) {
        let attempt = self.machine.containers[container].attempt;
        let reason = if code == 0 { "Completed" } else { "Error" };
        let exit = Exit { code, reason: reason.into(), message: String::new(), started: None, finished: self.now };
        self.tell(Event::Exited { container, attempt, exit });
    }

    fn wait(&mut self, millis: i64) {
        self.now = self.now.after(millis);
    }

    fn status(&mut self) -> Value {
        status::status(&self.pod, &mut self.machine, HOST, self.now)
    }

    fn phase(&mut self) -> String {
        self.status()["phase"].as_str().unwrap().to_string()
    }

    fn condition(&mut self, kind: &str) -> Value {
        let status = self.status();
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).cloned().unwrap()
    }

    fn starts(actions: &[Action]) -> Vec<usize> {
        actions.iter().filter_map(|a| if let Action::Start { container, .. } = a { Some(*container) } else { None }).collect()
    }

    fn reasons(&self) -> Vec<&str> {
        self.notes.iter().map(|n| n.reason.as_str()).collect()
    }
}

fn success(action: &Action, now: Time) -> Option<Event> {
    Some(match action.clone() {
        Action::Setup => Event::SetUp { ip: [10, 0, 0, 9].into(), refresh: None },
        Action::Pull { container } => Event::ImageReady { container, digest: "sha256:d".into() },
        Action::Start { container, attempt } => Event::Started { container, attempt },
        Action::Stop { container, attempt, .. } => {
            let exit = Exit { code: 143, reason: "Error".into(), message: String::new(), started: None, finished: now };
            Event::Exited { container, attempt, exit }
        }
        Action::Probe { container, attempt, kind } => Event::Probed { container, attempt, kind, outcome: Ok(()) },
        Action::PostStart { container, attempt } => Event::Hooked { container, attempt, well: true },
        Action::Refresh => Event::Refreshed(None),
        Action::Teardown | Action::Leave => Event::TornDown,
        Action::Delete => Event::Deleted(true),
        Action::Fail(_) | Action::Forget => return None,
    })
}

#[test]
fn a_pod_is_set_up_and_its_image_looked_for_at_the_same_time() {
    let mut play = Play::one();
    assert_eq!(play.next(), [Action::Setup, Action::Pull { container: 0 }]);
    assert_eq!(play.next(), [], "what is under way is not asked for again");
    play.tell(Event::ImageReady { container: 0, digest: "d".into() });
    assert_eq!(play.next(), []);
    play.tell(Event::SetUp { ip: [10, 0, 0, 9].into(), refresh: None });
    assert_eq!(play.next(), [Action::Start { container: 0, attempt: 0 }]);
    assert_eq!(play.phase(), "Pending");
    play.tell(Event::Started { container: 0, attempt: 0 });
    assert_eq!(play.phase(), "Running");
    assert_eq!(play.condition("Ready")["status"], "True");
    assert_eq!(play.reasons(), ["Created", "Started"]);
    assert_eq!(step::wake(&play.pod, &play.machine, play.now), None, "an idle pod has no timer");
}

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
fn init_containers_run_in_order_and_hold_the_others_back() {
    let mut play = Play::new(
        json!({ "initContainers": [{ "name": "i1", "image": "i" }, { "name": "i2", "image": "i" }], "containers": [{ "name": "c", "image": "i" }] }),
    );
    assert_eq!(Play::starts(&play.settle()), [0]);
    assert_eq!(play.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(play.condition("Initialized")["message"], "containers with incomplete status: [i1 i2]");
    play.exit(0, 1);
    assert_eq!(Play::starts(&play.settle()), [0], "a failed one is tried again");
    play.exit(0, 0);
    assert_eq!(Play::starts(&play.settle()), [1]);
    assert_eq!(play.condition("Initialized")["message"], "containers with incomplete status: [i2]");
    play.exit(1, 0);
    assert_eq!(Play::starts(&play.settle()), [2]);
    assert_eq!(play.condition("Initialized")["status"], "True");
    assert_eq!(play.phase(), "Running");
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut play = Play::new(
        json!({ "restartPolicy": "Never", "initContainers": [{ "name": "i", "image": "i" }], "containers": [{ "name": "c", "image": "i" }] }),
    );
    play.settle();
    play.exit(0, 7);
    assert_eq!(play.settle(), [Action::Teardown]);
    assert_eq!(play.phase(), "Failed");
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
    let stops: Vec<usize> =
        play.settle().iter().filter_map(|a| if let Action::Stop { container, .. } = a { Some(*container) } else { None }).collect();
    assert_eq!(stops, [1, 0], "in reverse order, one after another");
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
        [Action::Stop { container: 0, attempt: 0, grace: 7000, why: super::machine::Why::PodEnds, hook: true }, Action::Teardown, Action::Delete]
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
    assert_eq!(play.next(), [Action::Stop { container: 0, attempt: 0, grace: 0, why: super::machine::Why::PodEnds, hook: false }]);
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
fn post_start_holds_the_container_back_and_stops_it_when_it_fails() {
    let spec = json!({ "containers": [{ "name": "c", "image": "i", "lifecycle": { "postStart": { "httpGet": { "port": 80 } } },
        "readinessProbe": { "tcpSocket": { "port": 1 } } }] });
    let mut play = Play::new(spec.clone());
    for _ in 0..2 {
        for action in play.next() {
            play.tell(success(&action, play.now).unwrap());
        }
    }
    assert_eq!(play.next(), [Action::PostStart { container: 0, attempt: 0 }], "and no probe beside it");
    assert_eq!(play.next(), []);
    assert_eq!(play.status()["containerStatuses"][0]["started"], false);
    // What it does after the container has ended is of no account.
    play.tell(Event::Hooked { container: 0, attempt: 7, well: false });
    assert_eq!(play.next(), []);
    play.tell(Event::Hooked { container: 0, attempt: 0, well: true });
    assert_eq!(play.next(), [Action::Probe { container: 0, attempt: 0, kind: Kind::Readiness }]);
    assert_eq!(play.status()["containerStatuses"][0]["started"], true);

    let mut play = Play::new(spec);
    for _ in 0..2 {
        for action in play.next() {
            play.tell(success(&action, play.now).unwrap());
        }
    }
    assert_eq!(play.next().len(), 1);
    play.tell(Event::Hooked { container: 0, attempt: 0, well: false });
    assert_eq!(play.next(), [Action::Stop { container: 0, attempt: 0, grace: 30_000, why: Why::Hook, hook: true }]);
    let told: Vec<(&str, &str)> = play.notes.iter().rev().take(2).map(|note| (note.reason.as_str(), note.message.as_str())).collect();
    assert_eq!(told, [("Killing", "FailedPostStartHook"), ("FailedPostStartHook", "PostStartHook failed")]);
    play.exit(0, 143);
    let again = play.settle();
    assert!(again.contains(&Action::PostStart { container: 0, attempt: 1 }), "{again:?}");
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
fn an_evicted_pod_fails_at_once_and_stays_failed() {
    let mut play = Play::one();
    play.settle();
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    for _ in 0..2 {
        play.tell(Event::Evicted(Eviction::of(message.into())));
    }
    assert_eq!(play.notes.iter().filter(|note| note.reason == "Evicted").count(), 1);
    assert_eq!(play.settle(), [Action::Stop { container: 0, attempt: 0, grace: 1000, why: Why::PodEnds, hook: true }, Action::Teardown]);
    let status = play.status();
    assert_eq!((&status["phase"], &status["reason"], &status["message"]), (&json!("Failed"), &json!("Evicted"), &json!(message)));
    let disrupted = |play: &mut Play| play.status()["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").cloned();
    assert_eq!(disrupted(&mut play), None, "its own fault");
    // The node saves itself: the pod has the grace that it is given, and is told.
    let mut saved = Play::one();
    saved.settle();
    saved.tell(Event::Evicted(Eviction { grace: 5_000, disruption: true, ..Eviction::of("The node was low on resource: memory. ".into()) }));
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
fn images_that_are_not_to_be_had_are_asked_for_again_with_back_off() {
    let mut play = Play::one();
    play.next();
    play.tell(Event::SetUp { ip: [10, 0, 0, 9].into(), refresh: None });
    let fail = |play: &mut Play| play.tell(Event::ImageFailed { container: 0, reason: "ErrImagePull".into(), message: "no such host".into() });
    fail(&mut play);
    let state = |play: &mut Play| play.status()["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(state(&mut play)["reason"], "ErrImagePull");
    play.now = step::wake(&play.pod, &play.machine, play.now).unwrap();
    assert_eq!(state(&mut play)["reason"], "ImagePullBackOff");
    assert_eq!(state(&mut play)["message"], "Back-off pulling image \"i\": ErrImagePull: no such host");
    let mut waits = Vec::new();
    for _ in 0..6 {
        let from = play.now;
        while play.next() != [Action::Pull { container: 0 }] {
            play.wait(500);
        }
        waits.push((play.now.since(from) + 1999) / 10_000 * 10);
        fail(&mut play);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300]);
    // A new reference is tried at once.
    play.pod.spec.containers[0].image = "j".into();
    play.tell(Event::SpecChanged { volume: false });
    assert_eq!(play.next(), [Action::Pull { container: 0 }]);
}

#[test]
fn what_cannot_be_created_waits_and_what_never_can_waits_for_the_spec() {
    let mut play = Play::one();
    for action in play.next() {
        play.tell(success(&action, play.now).unwrap());
    }
    play.next();
    play.tell(Event::Refused {
        container: 0,
        attempt: 0,
        reason: "CreateContainerConfigError".into(),
        message: "configmap \"x\" not found".into(),
        fatal: false,
    });
    assert_eq!(play.status()["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"x\" not found");
    assert_eq!(play.status()["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(play.notes.last().unwrap().message, "Error: configmap \"x\" not found");
    assert_eq!(play.next(), []);
    play.tell(Event::DependencyChanged { volume: false });
    // While it is tried again, the reason stays.
    for _ in 0..2 {
        let actions = play.next();
        assert_eq!(play.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "CreateContainerConfigError", "{actions:?}");
        for action in actions {
            play.tell(success(&action, play.now).unwrap());
        }
    }
    assert_eq!(play.phase(), "Running");

    let mut play = Play::one();
    for action in play.next() {
        play.tell(success(&action, play.now).unwrap());
    }
    play.next();
    play.tell(Event::Refused { container: 0, attempt: 0, reason: "InvalidImage".into(), message: "no".into(), fatal: true });
    play.wait(3_600_000);
    assert_eq!(play.next(), []);
    assert_eq!(step::wake(&play.pod, &play.machine, play.now), None);
    play.pod.spec.containers[0].image = "j".into();
    play.tell(Event::SpecChanged { volume: false });
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
fn a_deadline_fails_the_pod() {
    let mut play = Play::new(json!({ "activeDeadlineSeconds": 60, "containers": [{ "name": "c", "image": "i" }] }));
    play.settle();
    assert_eq!(step::wake(&play.pod, &play.machine, play.now), Some(play.now.after(60_000)));
    play.wait(60_000);
    let actions = play.settle();
    assert!(matches!(actions.as_slice(), [Action::Fail(_), Action::Stop { .. }, Action::Teardown]), "{actions:?}");
    let status = play.status();
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("DeadlineExceeded")));
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

#[test]
fn a_reboot_restarts_what_ran_and_keeps_what_ended() {
    let stored = |state: Value, policy: &str| -> Machine {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "c", "restartCount": 3, "containerID": "wasm://u/c/3", "imageID": "i@sha256:d", "state": state }] },
        }))
        .unwrap();
        adopt(&pod, None, |_| None, Time(5000))
    };
    let running = || json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    let ended = json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": "2026-01-01T00:00:00Z" } });
    for (state, policy, end) in [
        (running(), "Always", None),
        (running(), "OnFailure", None),
        (running(), "Never", Some(step::End::Failed)),
        (ended.clone(), "OnFailure", Some(step::End::Succeeded)),
        (ended, "Always", None),
    ] {
        let pod = pod(json!({ "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] }));
        let machine = stored(state, policy);
        assert_eq!(step::end(&pod, &machine), end, "{policy}");
        assert_eq!(machine.containers[0].next_attempt(), 4);
        assert_eq!(machine.containers[0].digest, "sha256:d");
    }
    // Logs know more than a status that was never reported.
    let pod = pod(json!({ "containers": [{ "name": "c", "image": "i" }] }));
    assert_eq!(adopt(&pod, None, |_| Some(6), Time(0)).containers[0].next_attempt(), 7);
}

/// What may happen to a pod from outside, or go wrong.
#[derive(Clone, Debug)]
enum Blow {
    /// The n-th action under way succeeds.
    Succeed(usize),
    /// It fails.
    Fail(usize),
    Exit(usize, i32),
    Lose,
    Change,
    Dependency,
    Wait(i64),
    Delete(i64),
    Evict,
    Gone,
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        6 => (0_usize..4).prop_map(Blow::Succeed),
        3 => (0_usize..4).prop_map(Blow::Fail),
        2 => (0_usize..3, 0..2).prop_map(|(c, code)| Blow::Exit(c, code)),
        1 => Just(Blow::Lose),
        1 => Just(Blow::Change),
        1 => Just(Blow::Dependency),
        3 => (0_i64..400_000).prop_map(Blow::Wait),
        1 => (0_i64..60).prop_map(Blow::Delete),
        1 => Just(Blow::Evict),
        1 => Just(Blow::Gone),
    ]
}

fn failure(action: &Action, now: Time) -> Option<Event> {
    Some(match action.clone() {
        Action::Setup => Event::SetupFailed { reason: "FailedMount".into(), message: "x".into(), ip: None, fatal: false },
        Action::Pull { container } => Event::ImageFailed { container, reason: "ErrImagePull".into(), message: "x".into() },
        Action::Start { container, attempt } if attempt % 2 == 0 => {
            Event::StartFailed { container, attempt, reason: "StartError".into(), message: "x".into() }
        }
        Action::Start { container, attempt } => {
            Event::Refused { container, attempt, reason: "CreateContainerError".into(), message: "x".into(), fatal: false }
        }
        Action::Probe { container, attempt, kind } => Event::Probed { container, attempt, kind, outcome: Err("x".into()) },
        Action::PostStart { container, attempt } => Event::Hooked { container, attempt, well: false },
        Action::Teardown | Action::Leave => Event::TeardownFailed("x".into()),
        Action::Delete => Event::Deleted(false),
        other => return success(&other, now),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens, in whatever order: once things go well again the pod runs (or has ended), and once it is deleted it goes.
    #[test]
    fn any_order_of_events_converges(blows in proptest::collection::vec(blow(), 0..60), policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")]) {
        let mut play = Play::new(json!({ "restartPolicy": policy,
            "initContainers": [{ "name": "i", "image": "i" }, { "name": "s", "image": "i", "restartPolicy": "Always" }],
            "containers": [{ "name": "c", "image": "i", "lifecycle": { "postStart": { "sleep": { "seconds": 1 } } }, "livenessProbe": { "tcpSocket": { "port": 1 } }, "readinessProbe": { "tcpSocket": { "port": 1 } } }] }));
        let mut under_way: Vec<Action> = Vec::new();
        let mut forgotten = false;
        for blow in blows {
            let actions = play.next();
            for action in &actions {
                // Nothing is under way twice (a stop may be hastened).
                let stop = matches!(action, Action::Stop { .. });
                prop_assert!(stop || !under_way.contains(action), "{action:?} is under way already");
                if let Action::Start { .. } = action {
                    prop_assert_eq!(&play.machine.sandbox, &Sandbox::Ready);
                }
                forgotten |= *action == Action::Forget;
            }
            under_way.extend(actions.into_iter().filter(|a| success(a, play.now).is_some()));
            match blow {
                Blow::Succeed(n) if n < under_way.len() => {
                    let action = under_way.remove(n);
                    play.tell(success(&action, play.now).unwrap());
                    if matches!(action, Action::Start { container: 0, .. }) {
                        play.exit(0, 0);
                    }
                }
                Blow::Fail(n) if n < under_way.len() => {
                    let action = under_way.remove(n);
                    play.tell(failure(&action, play.now).unwrap());
                }
                Blow::Exit(container, code) => play.exit(container, code),
                Blow::Lose => play.tell(Event::SandboxLost("x".into())),
                Blow::Change => {
                    play.pod.spec.containers[0].image.push('x');
                    play.tell(Event::SpecChanged { volume: false });
                }
                Blow::Dependency => play.tell(Event::DependencyChanged { volume: true }),
                Blow::Wait(millis) => play.wait(millis),
                Blow::Delete(grace) => {
                    play.pod.metadata.deletion_timestamp = Some("x".into());
                    play.pod.metadata.deletion_grace_period_seconds = Some(grace);
                    play.tell(Event::SpecChanged { volume: false });
                }
                Blow::Evict => play.tell(Event::Evicted(Eviction::of("x".into()))),
                Blow::Gone => play.tell(Event::Gone),
                _ => {}
            }
            let _ = play.status();
        }
        // From here on all goes well.
        let ends = |play: &Play| play.machine.gone || play.pod.deletion_grace().is_some();
        let calm = |play: &mut Play, under_way: &mut Vec<Action>, forgotten: &mut bool| {
            for _ in 0..400 {
                let actions = play.next();
                *forgotten |= actions.contains(&Action::Forget);
                under_way.extend(actions.into_iter().filter(|a| success(a, play.now).is_some()));
                if under_way.is_empty() {
                    match step::wake(&play.pod, &play.machine, play.now) {
                        Some(wake) => play.now = wake,
                        None => play.wait(1),
                    }
                }
                for action in std::mem::take(under_way) {
                    play.tell(success(&action, play.now).unwrap());
                    if matches!(action, Action::Start { container: 0, .. }) {
                        play.exit(0, 0);
                    }
                }
            }
        };
        calm(&mut play, &mut under_way, &mut forgotten);
        if !ends(&play) {
            let ended = step::end(&play.pod, &play.machine).is_some();
            let running = matches!(play.machine.containers[2].run, Run::Running { .. }) && play.condition("Ready")["status"] == "True";
            prop_assert!(ended || running, "{:#?}", play.machine);
            play.pod.metadata.deletion_timestamp = Some("x".into());
            calm(&mut play, &mut under_way, &mut forgotten);
        }
        prop_assert!(play.machine.containers.iter().all(|c| !c.alive()), "{:#?}", play.machine);
        prop_assert_eq!(&play.machine.sandbox, &Sandbox::Gone);
        play.tell(Event::Gone);
        calm(&mut play, &mut under_way, &mut forgotten);
        prop_assert!(forgotten);
    }
}
