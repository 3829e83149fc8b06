//! The next steps of a pod: a pure function of its object, what is known of it, and the time.
//!
//! Call [`step`], mark each action as begun ([`super::observe::begin`]), carry it out, feed what happened into
//! [`super::observe::observe`], and call again. An action that is under way is visible in the machine, so calling twice never asks
//! for the same thing twice.

use super::{
    machine::{Action, ContainerState, Deletion, Hook, Image, Machine, Run, Sandbox, Verdict, Why},
    probes::{self, Kind},
    resize, restart,
    spec::{Container, Pod},
    time::Time,
};
use std::ops::Range;

/// `status.reason` of a pod that took more of its node than it may.
pub const EVICTED: &str = "Evicted";

/// How a pod has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every container ended with 0.
    Succeeded,
    /// One did not, or the pod failed as a whole.
    Failed,
}

/// Whether the pod is over, whatever its sandbox does.
pub fn end(pod: &Pod, machine: &Machine) -> Option<End> {
    if machine.verdict.is_some() {
        return Some(End::Failed);
    }
    if machine.restarting {
        return None;
    }
    if !machine.initialized {
        let failed = (0..pod.inits())
            .zip(&machine.containers)
            .any(|(index, state)| matches!(&state.run, Run::Exited(exit) if exit.code != 0 && !restarts(pod, index, exit.code)));
        return failed.then_some(End::Failed);
    }
    let mut result = End::Succeeded;
    for (index, state) in machine.containers.iter().enumerate().take(pod.mains().end).skip(pod.inits()) {
        match &state.run {
            Run::Exited(exit) if !restarts(pod, index, exit.code) => {
                if exit.code != 0 {
                    result = End::Failed;
                }
            }
            _ => return None,
        }
    }
    Some(result)
}

/// Whether a container that ended so is started again: by its own rules and policy (KEP-5307), or else its pod's. Sidecars always are, init containers that
/// succeeded and ephemeral ones never.
pub fn restarts(pod: &Pod, index: usize, code: i32) -> bool {
    let Some(container) = pod.container(index).filter(|_| !pod.is_ephemeral(index)) else { return false };
    if container.restart_policy.is_some() && container.restart_rules.iter().any(|rule| rule.restarts(code)) {
        return true;
    }
    match container.restart_policy.as_ref().unwrap_or(&pod.spec.restart_policy).as_str() {
        "Never" => false,
        "OnFailure" => code != 0,
        _ if index < pod.inits() && !container.is_sidecar() => code != 0,
        _ => true,
    }
}

/// What is to be done now.
pub fn step(pod: &Pod, machine: &Machine, now: Time) -> Vec<Action> {
    if machine.forgotten {
        return Vec::new();
    }
    let deletion = pod.deletion_grace();
    let over = end(pod, machine).is_some();
    if machine.gone || machine.leaving.is_some() || deletion.is_some() || over {
        // A pod that is over gets its ordinary grace for what still runs (sidecars); a removed object has nobody left to wait for it.
        let mut grace = deletion.unwrap_or_else(|| pod.grace());
        if machine.verdict.as_ref().is_some_and(|verdict| verdict.reason == EVICTED) {
            grace = grace.min(machine.evicted.map_or(1_000, |(grace, _)| grace));
        }
        if machine.gone {
            grace = grace.min(2_000);
        }
        return finish(pod, machine, machine.leaving.map_or(grace, |bound| grace.min(bound)), now);
    }
    if let Some(seconds) = pod.spec.active_deadline_seconds
        && now.since(machine.start_time) >= seconds.saturating_mul(1000)
    {
        return vec![Action::Fail(Verdict {
            reason: "DeadlineExceeded".into(),
            message: "Pod was active on the node longer than the specified deadline".into(),
        })];
    }
    advance(pod, machine, now)
}

/// When [`step`] wants to be called again if nothing happens before.
pub fn wake(pod: &Pod, machine: &Machine, now: Time) -> Option<Time> {
    let mut earliest: Option<Time> = None;
    // What is due already and not done waits for something else, and must not hide a later timer.
    let mut consider = |time: Time| {
        if time > now {
            earliest = Some(earliest.map_or(time, |e| e.min(time)));
        }
    };
    match machine.sandbox {
        Sandbox::Failed(due) | Sandbox::Stuck(due) => consider(due.at),
        _ => {}
    }
    if let Deletion::Failed(due) = machine.deletion {
        consider(due.at);
    }
    if let Some(due) = machine.refresh.filter(|_| !machine.refreshing && machine.sandbox == Sandbox::Ready) {
        consider(due.at);
    }
    if let Some(seconds) = pod.spec.active_deadline_seconds.filter(|_| end(pod, machine).is_none()) {
        consider(machine.start_time.after(seconds.saturating_mul(1000)));
    }
    if let Some(due) = machine.resize.retry() {
        consider(due.at);
    }
    for (container, state) in pod.all_containers().zip(&machine.containers) {
        if let Image::Failed { retry, fresh, .. } = &state.image {
            consider(if fresh.reached(now) { retry.at } else { fresh.at });
        }
        match &state.run {
            Run::Refused { retry: Some(retry), .. } => consider(retry.at),
            Run::Exited(exit) => {
                if let Some(due) = state.restart_due(exit) {
                    consider(due.at);
                }
            }
            Run::Running { .. } => {
                for kind in Kind::ALL {
                    if let Some(due) = probes::due(kind, container, state) {
                        consider(due.at);
                    }
                }
            }
            _ => {}
        }
    }
    earliest
}

fn advance(pod: &Pod, machine: &Machine, now: Time) -> Vec<Action> {
    let mut actions = Vec::new();
    let order = turn(pod, machine);
    let images_first = !machine.runtime_known;
    let settled = !images_first || machine.containers.iter().take(pod.mains().end).all(|c| c.image == Image::Ready || c.created);
    match machine.sandbox {
        Sandbox::Absent if settled => actions.push(Action::Setup),
        Sandbox::Failed(due) if due.reached(now) && settled => actions.push(Action::Setup),
        _ => {}
    }
    if machine.sandbox == Sandbox::Ready && !machine.refreshing && machine.refresh.is_some_and(|due| due.reached(now)) {
        actions.push(Action::Refresh);
    }
    if machine.restarting {
        actions.extend(restart::actions(pod, machine, now));
    } else if machine.sandbox == Sandbox::Ready {
        actions.extend(resize::action(pod, machine, now));
    }
    for (index, (container, state)) in pod.all_containers().zip(&machine.containers).enumerate() {
        let due = match &state.run {
            Run::Idle => true,
            Run::Refused { retry, .. } => retry.is_some_and(|due| due.reached(now)),
            Run::Exited(exit) => restarts(pod, index, exit.code) && state.restart_due(exit).is_none_or(|due| due.reached(now)),
            Run::Starting => false,
            Run::Running { stopping, .. } => {
                if stopping.is_none() && !machine.restarting {
                    watch_over(pod, index, container, state, now, &mut actions);
                } else {
                    probe(index, container, state, now, &mut actions);
                }
                false
            }
        };
        if !due || !(order.contains(&index) || images_first && machine.sandbox == Sandbox::Absent) {
            continue;
        }
        match &state.image {
            Image::Unknown => actions.push(Action::Pull { container: index }),
            Image::Failed { retry, .. } if retry.reached(now) => actions.push(Action::Pull { container: index }),
            Image::Ready if machine.sandbox == Sandbox::Ready && order.contains(&index) && !machine.resize.comes_first() => {
                actions.push(Action::Start { container: index, attempt: state.next_attempt() });
            }
            _ => {}
        }
    }
    actions
}

/// Whose turn it is to run: ephemeral containers at any time, init containers one after another, sidecars from their turn on, then all others.
fn turn(pod: &Pod, machine: &Machine) -> Vec<usize> {
    let mut order: Vec<usize> = (pod.mains().end..machine.containers.len()).collect();
    if machine.restarting {
        return order;
    }
    for (index, (container, state)) in pod.spec.init_containers.iter().zip(&machine.containers).enumerate() {
        if container.is_sidecar() {
            order.push(index);
            if !machine.initialized && !probes::started(container, state) {
                return order;
            }
        } else if !machine.initialized && !matches!(&state.run, Run::Exited(exit) if exit.code == 0) {
            order.push(index);
            return order;
        }
    }
    order.extend(pod.mains());
    order
}

/// All init containers are done and all sidecars have started.
pub fn initialized(pod: &Pod, machine: &Machine) -> bool {
    machine.initialized
        || pod.spec.init_containers.iter().zip(&machine.containers).all(|(container, state)| {
            if container.is_sidecar() { probes::started(container, state) } else { matches!(&state.run, Run::Exited(exit) if exit.code == 0) }
        })
}

fn watch_over(pod: &Pod, index: usize, container: &Container, state: &ContainerState, now: Time, actions: &mut Vec<Action>) {
    let attempt = state.attempt;
    let stop = |why: Why, grace: i64| Action::Stop { container: index, attempt, grace, why, hook: true };
    if !state.image_ref.is_empty() && state.image_ref != container.image {
        actions.push(stop(Why::Changed, pod.grace()));
        return;
    }
    if resize::need(container, state) == resize::Need::Restart {
        actions.push(stop(Why::Resized, pod.grace()));
        return;
    }
    match state.hook {
        Hook::Due => actions.push(Action::PostStart { container: index, attempt }),
        Hook::Failed => actions.push(stop(Why::Hook, pod.grace())),
        Hook::UnderWay | Hook::Done => {}
    }
    if state.hook != Hook::Done {
        return;
    }
    for kind in [Kind::Startup, Kind::Liveness] {
        if state.probes[kind as usize].verdict == Some(false)
            && let Some(probe) = kind.of(container)
        {
            let grace = probe.termination_grace_period_seconds.map_or_else(|| pod.grace(), |s| s.max(0).saturating_mul(1000));
            actions.push(stop(Why::Probe(kind), grace));
            return;
        }
    }
    probe(index, container, state, now, actions);
}

/// The probes that are due.
fn probe(index: usize, container: &Container, state: &ContainerState, now: Time, actions: &mut Vec<Action>) {
    for kind in Kind::ALL {
        if probes::due(kind, container, state).is_some_and(|due| due.reached(now)) {
            actions.push(Action::Probe { container: index, attempt: state.attempt, kind });
        }
    }
}

/// Whose end a container waits for before it is asked to stop with its pod, as long as there is grace left: a sidecar for that of all that began after it
/// (kubelet's `terminationOrdering`, KEP-753).
pub fn stops_after(pod: &Pod, index: usize) -> Range<usize> {
    let sidecar = index < pod.inits() && pod.container(index).is_some_and(Container::is_sidecar);
    if sidecar { index + 1..pod.mains().end } else { 0..0 }
}

/// Stops what runs, all of it within one grace ([`stops_after`] says in what order), then gives everything back; a pod that comes back keeps its volumes.
fn finish(pod: &Pod, machine: &Machine, grace: i64, now: Time) -> Vec<Action> {
    let mut actions = Vec::new();
    let told = !machine.gone && machine.leaving.is_none();
    for (index, (container, state)) in pod.all_containers().zip(&machine.containers).enumerate() {
        let Run::Running { stopping, .. } = state.run else { continue };
        // A shorter grace than the one under way counts; the same one is not asked for twice.
        if stopping.is_none_or(|kill_at| kill_at > now.after(grace.saturating_add(1000))) {
            let hook = stopping.is_none();
            actions.push(Action::Stop { container: index, attempt: state.attempt, grace, why: Why::PodEnds, hook });
        } else if told {
            probe(index, container, state, now, &mut actions);
        }
    }
    if machine.refreshing || machine.containers.iter().any(ContainerState::alive) {
        return actions;
    }
    let comes_back = machine.leaving.is_some() && !machine.gone && pod.deletion_grace().is_none() && end(pod, machine).is_none();
    let last = if comes_back { Action::Leave } else { Action::Teardown };
    match machine.sandbox {
        Sandbox::Absent | Sandbox::Ready | Sandbox::Failed(_) => actions.push(last),
        Sandbox::Stuck(due) if due.reached(now) => actions.push(last),
        Sandbox::Settling | Sandbox::Leaving | Sandbox::Stuck(_) => {}
        Sandbox::Gone if machine.gone => actions.push(Action::Forget),
        Sandbox::Gone if machine.leaving.is_some() => {}
        Sandbox::Gone => match machine.deletion {
            _ if pod.deletion_grace().is_none() => {}
            Deletion::Open => actions.push(Action::Delete),
            Deletion::Failed(due) if due.reached(now) => actions.push(Action::Delete),
            _ => {}
        },
    }
    actions
}
