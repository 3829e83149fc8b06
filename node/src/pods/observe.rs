//! What an action or an event does to a pod's machine, and what it says on the pod's event list. Pure.

use super::{
    machine::{
        Action, ContainerState, Deletion, Event, Eviction, Exit, FIRST_DELAY, Hook, Image, LONGEST_DELAY, Machine, Note, Run, Sandbox, Why, doubling,
    },
    probe::Trouble,
    probes, resize, restart,
    spec::{Container, Pod},
    step,
    time::{Due, Time},
};

fn note(container: Option<usize>, warning: bool, reason: &str, message: impl Into<String>) -> Note {
    Note { container, warning, reason: reason.into(), message: message.into() }
}

/// Marks an action as under way.
pub fn begin(pod: &Pod, machine: &mut Machine, action: &Action, now: Time, notes: &mut Vec<Note>) {
    match action {
        Action::Setup => machine.sandbox = Sandbox::Settling,
        Action::Teardown | Action::Leave => machine.sandbox = Sandbox::Leaving,
        Action::Delete => machine.deletion = Deletion::Asked,
        Action::Forget => machine.forgotten = true,
        Action::Refresh => machine.refreshing = true,
        Action::Resize(_) => machine.resize.begin(),
        Action::Restart => restart::begin(pod, machine, now),
        Action::Fail(verdict) => {
            notes.push(note(None, true, &verdict.reason, verdict.message.clone()));
            machine.verdict = Some(verdict.clone());
        }
        Action::Pull { container } => {
            if let Some(state) = machine.containers.get_mut(*container) {
                state.image = Image::Pulling;
            }
        }
        Action::Start { container, attempt } => {
            let Some(state) = machine.containers.get_mut(*container) else { return };
            if let Run::Exited(exit) = &state.run {
                let exit = exit.clone();
                state.back_off(exit.finished, now);
                state.last = Some(exit);
                state.created = false;
            }
            state.attempt = *attempt;
            state.run = Run::Starting;
            state.given = pod.container(*container).map(|c| c.resources.clone()).unwrap_or_default();
            state.probes = Default::default();
            state.image_ref = pod.container(*container).map(|c| c.image.clone()).unwrap_or_default();
        }
        Action::Stop { container, grace, why, .. } => {
            let Some(state) = machine.containers.get_mut(*container) else { return };
            let name = pod.container(*container).map_or("", |c| c.name.as_str());
            if let Run::Running { stopping, .. } = &mut state.run {
                if stopping.is_none() {
                    let message = match why {
                        Why::PodEnds => format!("Stopping container {name}"),
                        Why::Changed => format!("Container {name} definition changed, will be restarted"),
                        Why::Resized => format!("Container {name} resize requires restart"),
                        Why::Hook => "FailedPostStartHook".into(),
                        Why::Restarted => "killing".into(),
                        Why::Probe(kind) => {
                            let ending = if step::restarts(pod, *container, 1) { ", will be restarted" } else { "" };
                            format!("Container {name} failed {} probe{ending}", kind.title().to_lowercase())
                        }
                    };
                    notes.push(note(Some(*container), false, "Killing", message));
                }
                *stopping = Some(now.after(*grace));
            }
        }
        Action::PostStart { container, .. } => {
            if let Some(state) = machine.containers.get_mut(*container) {
                state.hook = Hook::UnderWay;
            }
        }
        Action::Probe { container, kind, .. } => {
            if let Some(state) = machine.containers.get_mut(*container) {
                state.probes[*kind as usize].in_flight = true;
            }
        }
    }
}

/// Takes in what happened.
pub fn observe(pod: &Pod, machine: &mut Machine, event: Event, now: Time, notes: &mut Vec<Note>) {
    take_in(pod, machine, event, now, notes);
    resize::settle(pod, machine, notes);
}

fn take_in(pod: &Pod, machine: &mut Machine, event: Event, now: Time, notes: &mut Vec<Note>) {
    match event {
        Event::SetUp { ip, refresh } => {
            machine.ip = Some(ip);
            machine.refresh = renewal(machine, refresh, now);
            machine.setup_failures = 0;
            if machine.sandbox == Sandbox::Settling {
                machine.sandbox = if std::mem::take(&mut machine.lost) { Sandbox::Absent } else { Sandbox::Ready };
            }
        }
        Event::SetupFailed { reason, message, ip, fatal } => {
            machine.ip = ip.or(machine.ip);
            machine.setup_failures = machine.setup_failures.saturating_add(1);
            let delay = if fatal { LONGEST_DELAY } else { 500_i64.saturating_mul(1 << machine.setup_failures.min(8)).min(122_000) };
            if machine.sandbox == Sandbox::Settling {
                machine.sandbox = Sandbox::Failed(Due::in_millis(now, delay));
            }
            notes.push(note(None, true, &reason, message));
        }
        Event::ImageReady { container, digest } => {
            if let Some(state) = machine.containers.get_mut(container) {
                state.image = Image::Ready;
                state.digest = digest;
                state.pull_failures = 0;
            }
        }
        Event::ImageFailed { container, reason, message } => image_failed(pod, machine, container, reason, message, now, notes),
        Event::Refused { container, attempt, reason, message, fatal } => {
            let Some(state) = machine.containers.get_mut(container) else { return };
            if state.run != Run::Starting || state.attempt != attempt {
                return;
            }
            notes.push(note(Some(container), true, "Failed", format!("Error: {message}")));
            // Nothing has begun that could crash: kubelet's pace for what could not be done (`backOffPeriod`).
            let retry = (!fatal).then(|| Due::in_millis(now, FIRST_DELAY));
            state.complaint = Some((reason.clone(), message.clone()));
            state.run = Run::Refused { reason, message, retry };
            state.image = Image::Unknown;
        }
        Event::StartFailed { container, attempt, reason, message } => {
            notes.push(note(Some(container), false, "Created", "Container created"));
            notes.push(note(Some(container), true, "Failed", format!("Error: {message}")));
            let exit = Exit { code: 128, reason, message, started: None, finished: now };
            exited(pod, machine, container, attempt, exit, now, notes);
        }
        Event::Started { container, attempt } => {
            let Some(state) = machine.containers.get_mut(container) else { return };
            if state.attempt != attempt {
                return;
            }
            notes.push(note(Some(container), false, "Created", "Container created"));
            notes.push(note(Some(container), false, "Started", "Container started"));
            running(state, pod.container(container), now);
            machine.initialized = step::initialized(pod, machine);
        }
        Event::Running { container, attempt, since, user } => {
            // `Started` says the same, in its own time; here it only matters for what was adopted or restarted by the runtime, and for who it is.
            let Some(state) = machine.containers.get_mut(container).filter(|state| state.attempt == attempt) else { return };
            state.user = user.or(state.user.take());
            if state.run == Run::Starting {
                running(state, pod.container(container), since);
                machine.initialized = step::initialized(pod, machine);
            }
        }
        Event::Exited { container, attempt, exit } => exited(pod, machine, container, attempt, exit, now, notes),
        Event::StopFailed { container, message, .. } => {
            // The shell goes on trying; the container counts as running until the runtime says otherwise.
            notes.push(note(Some(container), true, "FailedKillPod", format!("error killing pod: {message}")));
        }
        Event::Probed { container, attempt, kind, outcome } => {
            let Some(state) = machine.containers.get_mut(container) else { return };
            let Some(probe) = pod.container(container).and_then(|c| kind.of(c)) else { return };
            if state.attempt != attempt || !state.probes[kind as usize].in_flight {
                return;
            }
            let success = outcome.is_ok();
            match outcome {
                Ok(()) => {}
                Err(Trouble::Failed(message)) => {
                    notes.push(note(Some(container), true, "Unhealthy", format!("{} probe failed: {message}", kind.title())))
                }
                Err(Trouble::Unknown(message)) => {
                    let message = format!("{} probe errored and resulted in unknown state: {message}", kind.title());
                    notes.push(note(Some(container), true, "Unhealthy", message));
                    return probes::forgo(probe, &mut state.probes[kind as usize], now);
                }
            }
            probes::record(probe, kind, &mut state.probes[kind as usize], success, now);
            machine.initialized = step::initialized(pod, machine);
        }
        Event::Hooked { container, attempt, well } => {
            let Some(state) = machine.containers.get_mut(container) else { return };
            if state.attempt != attempt || state.hook != Hook::UnderWay || !state.alive() {
                return;
            }
            state.hook = if well { Hook::Done } else { Hook::Failed };
            if !well {
                // Without the answer, which may hold what is not for those who read events.
                notes.push(note(Some(container), true, "FailedPostStartHook", "PostStartHook failed"));
            }
            machine.initialized = step::initialized(pod, machine);
        }
        Event::Evicted(Eviction { verdict, grace, disruption }) => {
            if step::end(pod, machine).is_none() {
                notes.push(note(None, true, &verdict.reason, verdict.message.clone()));
                machine.verdict = Some(verdict);
                machine.evicted = Some((grace, disruption));
            }
        }
        Event::Resized(outcome) => resize::resized(pod, machine, outcome, now, notes),
        Event::Refreshed(next) => {
            machine.refreshing = false;
            machine.refresh = renewal(machine, next, now);
        }
        Event::SandboxLost(message) => {
            machine.lost = machine.sandbox == Sandbox::Settling;
            if machine.sandbox == Sandbox::Ready {
                machine.sandbox = Sandbox::Absent;
                notes.push(note(None, false, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."));
            }
            for container in 0..machine.containers.len() {
                if machine.containers.get(container).is_some_and(ContainerState::alive) {
                    let attempt = machine.containers[container].attempt;
                    let exit = Exit { code: 137, reason: "Error".into(), message: message.clone(), started: None, finished: now };
                    exited(pod, machine, container, attempt, exit, now, notes);
                }
            }
            // A new sandbox begins with its init containers; a pod that has ended does not begin again.
            if step::end(pod, machine).is_none() {
                machine.initialized = pod.inits() == 0;
                for state in machine.containers.iter_mut().take(pod.inits()) {
                    if let Run::Exited(exit) = &state.run {
                        state.last = Some(exit.clone());
                        state.run = Run::Idle;
                    }
                }
            }
        }
        Event::TornDown => machine.sandbox = Sandbox::Gone,
        Event::TeardownFailed(message) => {
            notes.push(note(None, true, "FailedKillPod", format!("error killing pod: {message}")));
            machine.sandbox = Sandbox::Stuck(Due::in_millis(now, 5_000));
        }
        Event::Deleted(true) => machine.deletion = Deletion::Done,
        Event::Deleted(false) => machine.deletion = Deletion::Failed(Due::in_millis(now, 2_000)),
        Event::DependencyChanged { volume } | Event::SpecChanged { volume } => {
            let known = machine.containers.len();
            machine.containers.extend(pod.all_containers().skip(known).map(|_| ContainerState::new()));
            if volume {
                machine.stale = machine.refreshing || machine.sandbox == Sandbox::Settling;
                machine.refresh = Some(Due::in_millis(now, 0));
            }
            // What failed for want of something may succeed now.
            if let Sandbox::Failed(due) = &mut machine.sandbox {
                due.at = now;
            }
            for (state, container) in machine.containers.iter_mut().zip(pod.all_containers()) {
                match &mut state.run {
                    Run::Refused { retry: Some(retry), reason, .. } if reason == "CreateContainerConfigError" => retry.at = now,
                    Run::Refused { retry, .. } if state.image_ref != container.image => *retry = Some(Due::in_millis(now, 0)),
                    _ => {}
                }
                if let Image::Failed { .. } = &state.image
                    && state.image_ref != container.image
                {
                    state.image = Image::Unknown;
                }
                if !state.alive() {
                    state.image_ref = container.image.clone();
                }
            }
        }
        Event::Gone => machine.gone = true,
        Event::Leave(bound) => machine.leaving = Some(bound),
    }
}

/// What changed while volumes were being written is written at once.
fn renewal(machine: &mut Machine, next: Option<Due>, now: Time) -> Option<Due> {
    if std::mem::take(&mut machine.stale) { Some(Due::in_millis(now, 0)) } else { next }
}

fn running(state: &mut ContainerState, container: Option<&Container>, since: Time) {
    state.created = true;
    state.complaint = None;
    if state.run == Run::Starting {
        state.run = Run::Running { since, stopping: None };
        let hook = container.and_then(|container| container.lifecycle.as_ref()).and_then(|lifecycle| lifecycle.post_start.as_ref());
        state.hook = if hook.is_some() { Hook::Due } else { Hook::Done };
    }
}

fn image_failed(pod: &Pod, machine: &mut Machine, container: usize, reason: String, message: String, now: Time, notes: &mut Vec<Note>) {
    let Some(state) = machine.containers.get_mut(container) else { return };
    state.pull_failures = state.pull_failures.saturating_add(1);
    let delay = doubling(state.pull_failures);
    // Why an image is not to be had has an event of its own; of what is wrong with the container this is the only one.
    let why = if reason == "CreateContainerConfigError" { &message } else { &reason };
    notes.push(note(Some(container), true, "Failed", format!("Error: {why}")));
    if reason == "ErrImagePull" {
        let image = pod.container(container).map_or("", |c| c.image.as_str());
        notes.push(note(Some(container), false, "BackOff", format!("Back-off pulling image \"{image}\"")));
        notes.push(note(Some(container), true, "Failed", "Error: ImagePullBackOff"));
    }
    state.complaint = Some(if reason == "ErrImagePull" {
        let image = pod.container(container).map_or("", |c| c.image.as_str());
        ("ImagePullBackOff".into(), format!("Back-off pulling image \"{image}\": {reason}: {message}"))
    } else {
        (reason.clone(), message.clone())
    });
    // A changed reference is seen by comparing with the one that failed.
    state.image_ref = pod.container(container).map(|c| c.image.clone()).unwrap_or_default();
    state.image = Image::Failed { reason, message, retry: Due::in_millis(now, delay), fresh: Due::in_millis(now, 1_500) };
}

fn exited(pod: &Pod, machine: &mut Machine, container: usize, attempt: u32, exit: Exit, _now: Time, notes: &mut Vec<Note>) {
    let Some(state) = machine.containers.get_mut(container) else { return };
    if state.attempt != attempt || !state.alive() {
        return;
    }
    let started = match state.run {
        Run::Running { since, .. } => Some(since),
        _ => None,
    };
    state.created = true;
    state.complaint = None;
    let exit = Exit { started: exit.started.or(started), ..exit };
    state.image = Image::Unknown;
    state.probes = Default::default();
    state.hook = Hook::Done;
    let waits = state.restart_due(&exit).is_some() && step::restarts(pod, container, exit.code);
    let code = exit.code;
    state.run = Run::Exited(exit);
    restart::ended(pod, machine, container, code);
    let ends = machine.gone || machine.leaving.is_some() || machine.verdict.is_some() || pod.deletion_grace().is_some();
    if waits && !ends {
        let name = pod.container(container).map_or("", |c| c.name.as_str());
        let message = format!("Back-off restarting failed container {name} in pod {}", pod.long_name());
        notes.push(note(Some(container), true, "BackOff", message));
    }
    machine.initialized = step::initialized(pod, machine);
}
