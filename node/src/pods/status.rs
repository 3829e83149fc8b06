//! `PodStatus` out of a pod's machine, as kubelet's `generateAPIPodStatus` words it.

use super::{
    machine::{ContainerState, Exit, Image, Machine, Run, Sandbox},
    probes, resize, restart,
    spec::{Container, Pod, VolumeMount},
    step::{self, End},
    time::Time,
    whole,
};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The phase. The last one is told when nothing of the pod runs any more: until then it has what may be its alone (kubelet's `mergePodStatus`).
pub fn phase(pod: &Pod, machine: &Machine) -> &'static str {
    match over(pod, machine) {
        Some(End::Succeeded) => return "Succeeded",
        Some(End::Failed) => return "Failed",
        None => {}
    }
    let never_ran = |state: &ContainerState| !state.created && state.last.is_none();
    if !machine.initialized || machine.containers.iter().take(pod.mains().end).skip(pod.inits()).any(never_ran) { "Pending" } else { "Running" }
}

/// How the pod has ended, when it has nothing left to end.
fn over(pod: &Pod, machine: &Machine) -> Option<End> {
    step::end(pod, machine).filter(|_| !machine.containers.iter().any(ContainerState::alive))
}

/// Ready in the sense of the `Ready` condition without gates: every container is.
pub fn containers_ready(pod: &Pod, machine: &Machine) -> bool {
    unready(pod, machine).is_empty() && step::end(pod, machine).is_none()
}

fn unready(pod: &Pod, machine: &Machine) -> Vec<String> {
    let inits = pod.inits();
    let mut names = Vec::new();
    for (index, (container, state)) in pod.all_containers().zip(&machine.containers).enumerate() {
        if (index >= inits || container.is_sidecar()) && !pod.is_ephemeral(index) && !probes::ready(container, state) {
            names.push(container.name.clone());
        }
    }
    names
}

/// The whole status, as a strategic merge patch of `status`: what is absent is null. Condition times are kept in the machine.
pub fn status(pod: &Pod, machine: &mut Machine, host_ip: IpAddr, now: Time) -> Value {
    let phase = phase(pod, machine);
    let inits = pod.inits();
    let mut status = Map::new();
    status.insert("observedGeneration".into(), json!(pod.metadata.generation));
    status.insert("phase".into(), json!(phase));
    let verdict = machine.verdict.clone().filter(|_| over(pod, machine).is_some());
    status.insert("reason".into(), verdict.as_ref().map_or(Value::Null, |v| json!(v.reason)));
    status.insert("message".into(), verdict.as_ref().map_or(Value::Null, |v| json!(v.message)));
    status.insert("startTime".into(), json!(machine.start_time.rfc3339()));
    status.insert("hostIP".into(), json!(host_ip.to_string()));
    // These lists merge by address, so an earlier one (from before a restart) would stay, and may be another pod's by now.
    let only = |ip: IpAddr| json!([{ "ip": ip.to_string() }, { "$patch": "replace" }]);
    status.insert("hostIPs".into(), only(host_ip));
    if let Some(ip) = machine.ip {
        status.insert("podIP".into(), json!(ip.to_string()));
        status.insert("podIPs".into(), only(ip));
    }
    status.insert("conditions".into(), conditions(pod, machine, now));
    if verdict.is_some() && !machine.containers.iter().any(|c| c.created || c.last.is_some()) {
        // Refused as a whole: kubelet says nothing of containers that never were, and kubectl then shows the reason.
        status.insert("containerStatuses".into(), Value::Null);
        status.insert("initContainerStatuses".into(), Value::Null);
        return Value::Object(status);
    }
    for (name, value) in whole::status(pod, phase == "Running") {
        status.insert(name.into(), value);
    }
    let states: Vec<Value> = pod
        .all_containers()
        .zip(&machine.containers)
        .enumerate()
        .map(|(index, (container, state))| container_status(pod, machine, index, container, state, now))
        .collect();
    let (init, others) = states.split_at(inits.min(states.len()));
    let (main, ephemeral) = others.split_at(pod.spec.containers.len().min(others.len()));
    status.insert("containerStatuses".into(), json!(main));
    if !ephemeral.is_empty() {
        status.insert("ephemeralContainerStatuses".into(), json!(ephemeral));
    }
    if !init.is_empty() {
        status.insert("initContainerStatuses".into(), json!(init));
    }
    Value::Object(status)
}

fn conditions(pod: &Pod, machine: &mut Machine, now: Time) -> Value {
    let end = step::end(pod, machine);
    let done = end.map(|end| if end == End::Succeeded { "PodCompleted" } else { "PodFailed" });
    // What was initialized once stays so, also while init containers run again (KEP-5532).
    let was = machine.conditions.get("Initialized").is_some_and(|(value, _)| value == "True");
    let waiting: Vec<String> = if machine.initialized || was {
        Vec::new()
    } else {
        pod.spec
            .init_containers
            .iter()
            .zip(&machine.containers)
            .filter(|(c, s)| if c.is_sidecar() { !probes::started(c, s) } else { !matches!(&s.run, Run::Exited(e) if e.code == 0) })
            .map(|(c, _)| c.name.clone())
            .collect()
    };
    let succeeded = end == Some(End::Succeeded);
    let initialized = if succeeded || waiting.is_empty() {
        (true, if succeeded { "PodCompleted" } else { "" }, String::new())
    } else {
        (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", waiting.join(" ")))
    };
    let unready = unready(pod, machine);
    let containers = match done {
        Some(reason) => (false, reason, String::new()),
        None if unready.is_empty() => (true, "", String::new()),
        None => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let ready = if containers.0 { gates(pod, machine) } else { containers.clone() };
    let sandbox = machine.sandbox == Sandbox::Ready;
    let disruption = machine.evicted.filter(|(_, disruption)| *disruption && over(pod, machine).is_some()).and(machine.verdict.as_ref());
    let disruption = disruption.map(|verdict| ("DisruptionTarget", (true, "TerminationByKubelet", verdict.message.clone())));
    let restarting = match done {
        _ if !restart::possible(pod) => None,
        Some(reason) => Some((false, reason, String::new())),
        None if machine.restarting => Some((true, "RestartAllContainersStarted", "container exited with restart policy rule".into())),
        None => Some((false, "", String::new())),
    };
    let restarting = restarting.map(|what| (restart::CONDITION, what));
    let list = [
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", (true, "", String::new())),
    ];
    let mut conditions = Vec::new();
    for (kind, (value, reason, message)) in list.into_iter().chain(restarting).chain(disruption) {
        let value = if value { "True" } else { "False" };
        let since = match machine.conditions.get(kind) {
            Some((old, since)) if old == value => *since,
            _ => {
                machine.conditions.insert(kind.into(), (value.into(), now));
                now
            }
        };
        conditions.push(json!({
            "type": kind, "status": value, "lastProbeTime": null, "lastTransitionTime": since.rfc3339(),
            "observedGeneration": pod.metadata.generation,
            // Null removes what an earlier report said: the patch merges conditions by type.
            "reason": (!reason.is_empty()).then_some(reason), "message": (!message.is_empty()).then_some(message),
        }));
    }
    conditions.extend(resize::conditions(pod, machine, now));
    Value::Array(conditions)
}

fn gates(pod: &Pod, machine: &Machine) -> (bool, &'static str, String) {
    let mut wrong = Vec::new();
    for gate in &pod.spec.readiness_gates {
        let name = &gate.condition_type;
        match machine.conditions.get(name) {
            None => wrong.push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
            Some((value, _)) if value == "True" => {}
            Some((value, _)) => wrong.push(format!("the status of pod readiness gate \"{name}\" is not \"True\", but {value}")),
        }
    }
    if wrong.is_empty() { (true, "", String::new()) } else { (false, "ReadinessGatesNotReady", wrong.join(", ")) }
}

fn container_status(pod: &Pod, machine: &Machine, index: usize, container: &Container, state: &ContainerState, now: Time) -> Value {
    // A container that is not made again yet is still the one before it.
    let number = if remade(state) { state.attempt.saturating_sub(1) } else { state.attempt };
    let id = format!("coracle://{}/{}/{number}", pod.metadata.uid, container.name);
    let (current, last) = states(pod, machine, index, container, state, &id, now);
    let init = index < pod.inits() && !container.is_sidecar();
    let ready = if init { matches!(&state.run, Run::Exited(exit) if exit.code == 0) } else { probes::ready(container, state) };
    let started = if init { matches!(state.run, Run::Running { .. }) } else { probes::started(container, state) };
    let image = if state.image_ref.is_empty() || state.digest.is_empty() { &container.image } else { &state.image_ref };
    let mut status = json!({
        "name": container.name, "image": image, "imageID": image_id(image, &state.digest), "ready": ready, "started": started,
        "restartCount": number, "state": current, "lastState": last,
    });
    if state.created || remade(state) {
        status["containerID"] = json!(id);
        resize::status(container, state, &mut status);
    }
    if !container.volume_mounts.is_empty() {
        status["volumeMounts"] = container.volume_mounts.iter().map(volume_mount).collect();
    }
    if pod.is_ephemeral(index) {
        // Nothing waits for it: it is neither ready nor started.
        (status["ready"], status["started"]) = (json!(false), Value::Null);
    }
    if let Some(user) = &state.user {
        status["user"] = json!({ "linux": user });
    }
    status
}

/// It ended and is being made again, or could not be: the number is taken, and nothing has it yet. (Those that begin again all together are counted at once, as kubelet counts them.)
fn remade(state: &ContainerState) -> bool {
    let ended = state.last.as_ref().is_some_and(|last| last.reason != restart::REASON);
    ended && !state.created && matches!(state.run, Run::Starting | Run::Refused { .. })
}

/// `VolumeMountStatus` (KEP-3857): what `IfPossible` came to is said, which is what can be had here.
fn volume_mount(mount: &VolumeMount) -> Value {
    let mut status = json!({ "name": mount.name, "mountPath": mount.mount_path });
    if mount.read_only {
        let all = matches!(&*mount.recursive_read_only, "Enabled" | "IfPossible");
        status["readOnly"] = json!(true);
        status["recursiveReadOnly"] = json!(if all { "Enabled" } else { "Disabled" });
    }
    status
}

/// `REPOSITORY@DIGEST`, as container runtimes name what they run; empty until the image is here.
fn image_id(image: &str, digest: &str) -> String {
    if digest.is_empty() {
        return String::new();
    }
    let name = image.split('@').next().unwrap_or(image);
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    format!("{repository}@{digest}")
}

/// Why a container waits, and in which words; none while it runs or when it is over.
pub fn waiting(pod: &Pod, machine: &Machine, index: usize, container: &Container, state: &ContainerState, now: Time) -> Option<(String, String)> {
    let over = step::end(pod, machine).is_some() || pod.deletion_grace().is_some();
    let image = match &state.image {
        Image::Pulling | Image::Ready if !over => state.complaint.clone(),
        Image::Failed { reason, message, fresh, .. } if !over => Some(if reason == "ErrImagePull" && fresh.reached(now) {
            ("ImagePullBackOff".into(), format!("Back-off pulling image \"{}\": {reason}: {message}", container.image))
        } else {
            (reason.clone(), message.clone())
        }),
        _ => None,
    };
    let backs_off = |delay: i64| {
        let message = format!("back-off {} restarting failed container={} pod={}", duration(delay), container.name, pod.long_name());
        ("CrashLoopBackOff".to_owned(), message)
    };
    match &state.run {
        Run::Running { .. } => None,
        Run::Exited(exit) if over || !step::restarts(pod, index, exit.code) => None,
        Run::Exited(exit) => image.or_else(|| state.restart_due(exit).map(|due| backs_off(due.delay))),
        Run::Refused { reason, message, .. } => Some((reason.clone(), message.clone())),
        Run::Starting if remade(state) => image.or_else(|| state.backoff.map(|backoff| backoff.waited).filter(|waited| *waited > 0).map(backs_off)),
        Run::Idle | Run::Starting => image.or_else(|| {
            let reason = if pod.inits() == 0 { "ContainerCreating" } else { "PodInitializing" };
            Some((reason.to_owned(), String::new()))
        }),
    }
}

/// (state, lastState).
fn states(pod: &Pod, machine: &Machine, index: usize, container: &Container, state: &ContainerState, id: &str, now: Time) -> (Value, Value) {
    let most = WORDS / pod.all_containers().count().max(1);
    let previous = state.attempt.checked_sub(1).filter(|_| !remade(state)).map(|n| format!("coracle://{}/{}/{n}", pod.metadata.uid, container.name));
    let last = state.last.as_ref().map_or_else(|| json!({}), |exit| terminated(exit, previous.as_deref().unwrap_or(id), most));
    let waits = waiting(pod, machine, index, container, state, now).map(|(reason, message)| {
        let mut waiting = json!({ "reason": reason });
        if !message.is_empty() {
            waiting["message"] = json!(message);
        }
        json!({ "waiting": waiting })
    });
    match (&state.run, waits) {
        (Run::Running { since, .. }, _) => (json!({ "running": { "startedAt": since.rfc3339() } }), last),
        // The one that ended is the last one already.
        (Run::Exited(exit), Some(waits)) => (waits, terminated(exit, id, most)),
        (Run::Exited(exit), None) => (terminated(exit, id, most), last),
        // Made again at once: the one that ended is what there is.
        (Run::Starting, None) => (last, json!({})),
        (_, waits) => (waits.unwrap_or_default(), last),
    }
}

/// Last words of all containers of a pod together, bytes; each may have its share, as with kubelet.
const WORDS: usize = 12 << 10;

/// The beginning of a text that is no longer than so many bytes.
fn bounded(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

fn terminated(exit: &Exit, id: &str, most: usize) -> Value {
    let mut terminated = json!({
        "exitCode": exit.code, "reason": exit.reason, "containerID": id, "finishedAt": exit.finished.rfc3339(),
        "startedAt": exit.started.unwrap_or(exit.finished).rfc3339(),
    });
    if !exit.message.is_empty() {
        terminated["message"] = json!(bounded(&exit.message, most));
    }
    json!({ "terminated": terminated })
}

/// Milliseconds as Go's `time.Duration` prints them: `10s`, `1m20s`, `5m0s`.
pub fn duration(millis: i64) -> String {
    let (minutes, seconds) = (millis / 60_000, millis / 1000 % 60);
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}
