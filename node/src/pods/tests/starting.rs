//! How a pod comes up: set-up, images, init containers, hooks.

use super::*;

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
    play.next();
    play.tell(Event::ImageReady { container: 2, digest: "d".into() });
    play.next();
    assert_eq!(play.condition("Initialized")["status"], "True");
    assert_eq!(play.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing", "as long as it does not run");
    assert_eq!(play.machine.containers[2].run, Run::Starting);
    play.tell(Event::Started { container: 2, attempt: 0 });
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
fn events_say_why_a_container_waits() {
    for (reason, said) in [("CreateContainerConfigError", "Error: not in such a pod"), ("InvalidImage", "Error: InvalidImage")] {
        let mut play = Play::one();
        play.next();
        play.tell(Event::ImageFailed { container: 0, reason: reason.into(), message: "not in such a pod".into() });
        assert_eq!(play.notes.iter().map(|note| note.message.as_str()).collect::<Vec<_>>(), [said]);
    }
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
    for _ in 0..3 {
        assert_eq!(step::wake(&play.pod, &play.machine, play.now), Some(play.now.after(10_000)), "however often");
        play.wait(10_000);
        let pulled = play.next();
        play.tell(success(&pulled[0], play.now).unwrap());
        assert_eq!(Play::starts(&play.next()), [0]);
        let (reason, message) = ("CreateContainerConfigError".into(), "configmap \"x\" not found".into());
        play.tell(Event::Refused { container: 0, attempt: 0, reason, message, fatal: false });
    }
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
fn a_reboot_restarts_what_ran_and_keeps_what_ended() {
    let stored = |state: Value, policy: &str| -> Machine {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "c", "restartCount": 3, "containerID": "coracle://u/c/3", "imageID": "i@sha256:d", "state": state }] },
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
