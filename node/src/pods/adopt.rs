//! A pod that was there before this agent: its machine out of what the runtime still has, what the API last heard, and the logs on disk.
//!
//! Whoever is still running goes on running. What the API says ran but the runtime does not know died with the machine: init
//! containers run again (the sandbox is new), others by the restart policy, their numbers going on where the logs left off.

use super::{
    machine::{ContainerState, Exit, Machine, Run, Sandbox, Verdict},
    probes::Kind,
    restart,
    spec::{Pod, StoredContainer},
    step,
    time::Time,
};
use coracle_runtime::{SandboxStatus, State};

/// `highest_log(container name)` is the largest restart number that has a log file.
pub fn adopt(pod: &Pod, sandbox: Option<&SandboxStatus>, highest_log: impl Fn(&str) -> Option<u32>, now: Time) -> Machine {
    let mut machine = Machine::new(pod, now);
    let inits = pod.inits();
    for (index, container) in pod.all_containers().enumerate() {
        let stored = match index {
            _ if index < inits => &pod.status.init_container_statuses,
            _ if pod.is_ephemeral(index) => &pod.status.ephemeral_container_statuses,
            _ => &pod.status.container_statuses,
        };
        let stored = stored.iter().find(|s| s.name == container.name);
        let live = sandbox.and_then(|s| s.containers.iter().filter(|c| c.name == container.name).max_by_key(|c| c.attempt));
        let Some(state) = machine.containers.get_mut(index) else { continue };
        if let Some(stored) = stored {
            // Reported as REPOSITORY@DIGEST.
            state.digest = stored.image_id.rsplit('@').next().unwrap_or_default().to_string();
            state.user = stored.user.linux.clone();
            state.last = stored.last_state.terminated.as_ref().map(|t| t.exit());
        }
        state.given = stored.and_then(|stored| stored.resources.clone()).unwrap_or_else(|| container.resources.clone());
        if let Some(live) = live {
            take_live(state, live, stored);
        } else if sandbox.is_none() || stored.is_some_and(|s| s.state.terminated.is_some()) {
            let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            take_dead(state, stored, highest_log(&container.name), index < inits && !over, now);
        }
        state.image_ref = container.image.clone();
    }
    if let Some(sandbox) = sandbox {
        machine.ip = Some(sandbox.spec.ip);
        machine.sandbox = if sandbox.ready { Sandbox::Ready } else { Sandbox::Absent };
        machine.initialized |= machine.containers.iter().take(pod.mains().end).skip(inits).any(|c| c.created);
        // Tokens are looked at at once: the mount is idempotent and answers when they want renewal.
        machine.refresh = Some(super::time::Due::in_millis(now, 0));
    }
    if !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        machine.restarting = pod.status.conditions.iter().any(|one| one.r#type == restart::CONDITION && one.status == "True");
        for index in 0..pod.mains().end {
            if let Some(Run::Exited(exit)) = machine.containers.get(index).map(|state| state.run.clone()) {
                restart::ended(pod, &mut machine, index, exit.code);
            }
        }
    }
    match pod.status.phase.as_str() {
        "Failed" if step::end(pod, &machine).is_none() => {
            let reason = if pod.status.reason.is_empty() { "Error".into() } else { pod.status.reason.clone() };
            let known = &pod.status.message;
            let message = if known.is_empty() { "The pod had failed before the agent started" } else { known };
            machine.verdict = Some(Verdict { reason, message: message.into() });
        }
        "Succeeded" => machine.initialized = true,
        _ => {}
    }
    machine.initialized = step::initialized(pod, &machine);
    machine
}

fn take_live(state: &mut ContainerState, live: &coracle_runtime::ContainerStatus, stored: Option<&StoredContainer>) {
    state.attempt = live.attempt;
    state.digest = live.image_digest.clone();
    state.user = live.user.clone().or(state.user.take());
    match &live.state {
        // Created and not started: the number is not used up, creating is idempotent.
        State::Created => {}
        // All of the pod begin again, and this one has not yet.
        State::Exited { .. } if stored.is_some_and(|stored| stored.restart_count > live.attempt) => {
            state.attempt = stored.map_or(live.attempt, |stored| stored.restart_count);
        }
        State::Running { started } => {
            state.created = true;
            state.run = Run::Running { since: (*started).into(), stopping: None };
            // What its probes found holds until they find otherwise: a pod does not drop out of its Services because an agent came after another.
            if let Some(stored) = stored.filter(|stored| stored.restart_count == live.attempt) {
                for (kind, well) in [(Kind::Startup, stored.started), (Kind::Readiness, stored.ready)] {
                    state.probes[kind as usize].verdict = well.then_some(true);
                }
            }
        }
        State::Exited { code, reason, message, started, finished } => {
            state.created = true;
            state.run = Run::Exited(Exit {
                code: *code,
                reason: reason.clone(),
                message: message.clone(),
                started: started.map(Into::into),
                finished: (*finished).into(),
            });
        }
    }
    if stored.is_some_and(|s| s.restart_count < live.attempt) {
        state.last = None;
    }
}

fn take_dead(state: &mut ContainerState, stored: Option<&StoredContainer>, highest_log: Option<u32>, init: bool, now: Time) {
    let known = stored.filter(|s| !s.container_id.is_empty());
    let highest = known.map(|s| s.restart_count).max(highest_log);
    let Some(highest) = highest else { return };
    state.attempt = highest;
    state.created = true;
    let exit = match known.filter(|s| s.restart_count == highest).and_then(|s| s.state.terminated.as_ref()) {
        Some(terminated) => terminated.exit(),
        None => Exit {
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the agent started.".into(),
            started: known.and_then(|s| s.state.running.as_ref()).and_then(|r| r.started_at.as_deref()).and_then(Time::parse),
            finished: now,
        },
    };
    if init {
        state.last = Some(exit);
        state.run = Run::Idle;
    } else {
        state.run = Run::Exited(exit);
    }
}
