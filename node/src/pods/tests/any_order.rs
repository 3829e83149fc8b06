//! Any order of events at all.

use super::*;
use proptest::prelude::*;

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
    fn any_order_of_events_converges(blows in proptest::collection::vec(blow(), 0..60), policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")], all in prop::bool::ANY) {
        let rules = json!([{ "action": if all { "RestartAllContainers" } else { "Restart" }, "exitCodes": { "operator": "In", "values": [1] } }]);
        let mut play = Play::new(json!({ "restartPolicy": policy,
            "initContainers": [{ "name": "i", "image": "i" }, { "name": "s", "image": "i", "restartPolicy": "Always" }],
            "containers": [{ "name": "c", "image": "i", "restartPolicy": policy, "restartPolicyRules": rules, "lifecycle": { "postStart": { "sleep": { "seconds": 1 } } }, "livenessProbe": { "tcpSocket": { "port": 1 } }, "readinessProbe": { "tcpSocket": { "port": 1 } } }] }));
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
