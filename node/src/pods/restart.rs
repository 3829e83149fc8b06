//! All containers of a pod begin again, in the sandbox and with the volumes they have: `RestartAllContainers`, an action of a container's restart rules (KEP-5532).
//!
//! What runs is killed (the pod's own before its init containers), then every container but the ephemeral ones counts as never started, with one more restart, and init
//! containers come first. The back-off of the container that asked for it holds: kubelet has none here, which where containers start in a millisecond would be a loop.

use super::{
    machine::{Action, Exit, Machine, Run, Why},
    spec::{Container, Pod},
    step,
    time::Time,
};
use std::ops::Range;

/// Type of the condition that says so.
pub const CONDITION: &str = "AllContainersRestarting";

/// What the status says a container ended with that was removed for it.
pub const REASON: &str = "RestartingAllContainers";

/// Grace of those that are killed, milliseconds: kubelet's minimum.
const GRACE: i64 = 2_000;

/// Some container of the pod may ask for it, so that its status has the condition.
pub fn possible(pod: &Pod) -> bool {
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    all.flat_map(|container| &container.restart_rules).any(|rule| rule.all())
}

/// Whether a container that ended so asks for it: the first rule that matches holds.
pub fn asked(container: &Container, code: i32) -> bool {
    container.restart_rules.iter().find(|rule| rule.restarts(code)).is_some_and(|rule| rule.all())
}

/// Takes note of a container's end.
pub fn ended(pod: &Pod, machine: &mut Machine, index: usize, code: i32) {
    let ends = machine.gone || machine.leaving.is_some() || machine.verdict.is_some() || pod.deletion_grace().is_some();
    if !ends && index < pod.mains().end && pod.container(index).is_some_and(|container| asked(container, code)) {
        machine.restarting = true;
    }
}

/// What has to stop, or, when nothing runs and no back-off holds, [`Action::Restart`].
pub fn actions(pod: &Pod, machine: &Machine, now: Time) -> Vec<Action> {
    let stop = |range: Range<usize>| {
        let (mut stops, mut alive) = (Vec::new(), false);
        for index in range {
            let Some(state) = machine.containers.get(index) else { continue };
            alive |= state.alive();
            if matches!(state.run, Run::Running { stopping, .. } if stopping.is_none_or(|kill_at| kill_at > now.after(GRACE))) {
                stops.push(Action::Stop { container: index, attempt: state.attempt, grace: GRACE, why: Why::Restarted, hook: false });
            }
        }
        alive.then_some(stops)
    };
    if let Some(stops) = stop(pod.mains()).or_else(|| stop(0..pod.inits())) {
        return stops;
    }
    let waits = pod.all_containers().zip(&machine.containers).take(pod.mains().end).any(|(container, state)| match &state.run {
        Run::Exited(exit) if asked(container, exit.code) => state.restart_due(exit).is_some_and(|due| !due.reached(now)),
        _ => false,
    });
    if waits { Vec::new() } else { vec![Action::Restart] }
}

/// Every container begins again.
pub fn begin(pod: &Pod, machine: &mut Machine, now: Time) {
    machine.restarting = false;
    for (container, state) in pod.all_containers().zip(&mut machine.containers).take(pod.mains().end) {
        let Run::Exited(exit) = &state.run else { continue };
        let (started, finished) = (exit.started, exit.finished);
        if asked(container, exit.code) {
            state.back_off(finished, now);
        }
        // As kubelet says of those it removes, whatever they ended with.
        let message = "The container is removed because RestartAllContainers in place".into();
        state.last = Some(Exit { code: 137, reason: REASON.into(), message, started, finished });
        state.attempt = state.next_attempt();
        state.created = false;
        state.run = Run::Idle;
    }
    machine.initialized = pod.inits() == 0;
    machine.initialized = step::initialized(pod, machine);
}
