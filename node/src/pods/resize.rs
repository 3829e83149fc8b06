//! In-place changes of cpu and memory (KEP-1287), as kubelet's allocation manager and runtime manager see to them. Pure.
//!
//! Three sets of resources: what the API wants (`spec.containers[].resources`), what this node has set aside (`allocatedResources`; the agent's copy of the pod has it in place of the
//! wanted, so that everything else here goes by it), and what a running container was given ([`ContainerState::given`]). What is wanted is granted when there is room, and what was
//! granted is given by [`Action::Resize`] or by a restart.

use super::{
    machine::{Action, ContainerState, Machine, Note, Run},
    spec::{Container, Pod, PodSpec, Resources},
    time::{Due, Time},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `PodResizePending`: it cannot be done here at all.
pub const INFEASIBLE: &str = "Infeasible";
/// `PodResizePending`: there is no room yet.
pub const DEFERRED: &str = "Deferred";

/// What failed is tried again after so long, milliseconds.
const AGAIN: i64 = 10_000;
/// The two that can be changed.
const NAMES: [&str; 2] = ["cpu", "memory"];

/// Where a pod's change stands.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// What the API wants, by the order of [`each`], where it is not what was granted.
    wanted: Option<Vec<Resources>>,
    pending: Option<Pending>,
    progress: Option<Progress>,
}

#[derive(Clone, Debug)]
struct Pending {
    reason: &'static str,
    message: String,
    generation: i64,
}

#[derive(Clone, Debug)]
struct Progress {
    generation: i64,
    /// The pod as a whole has what was granted.
    whole: bool,
    under_way: bool,
    /// What went wrong last, and when it is tried again.
    failed: Option<(String, Due)>,
}

/// What a container needs to have what was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    None,
    /// Other limits.
    Update,
    /// Its policy is to begin anew.
    Restart,
}

impl Resize {
    /// The API wants this; none: what was granted.
    pub fn want(&mut self, wanted: Option<Vec<Resources>>) {
        if wanted.is_none() {
            self.pending = None;
        }
        self.wanted = wanted;
    }

    /// What is wanted and not granted.
    pub fn wanted(&self) -> Option<&[Resources]> {
        self.wanted.as_deref()
    }

    /// It may be granted when there is more room.
    pub fn waits(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.reason == DEFERRED)
    }

    /// What `pod` has is granted.
    pub fn grant(&mut self, pod: &Pod) -> Note {
        let generation = pod.metadata.generation;
        (self.wanted, self.pending) = (None, None);
        self.progress = Some(Progress { generation, whole: false, under_way: false, failed: None });
        note(false, "ResizeStarted", "Pod resize started", pod, generation, "")
    }

    /// What `pod` has is not granted; a note when that is news.
    pub fn refuse(&mut self, pod: &Pod, reason: &'static str, message: String) -> Option<Note> {
        let generation = pod.metadata.generation;
        let news = self.pending.as_ref().is_none_or(|old| old.reason != reason || old.generation != generation);
        let note = news.then(|| note(true, &format!("Resize{reason}"), &format!("Pod resize {reason}"), pod, generation, &message));
        self.pending = Some(Pending { reason, message, generation });
        note
    }

    /// It is being given.
    pub fn begin(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.under_way = true;
        }
    }

    /// The pod as a whole has not yet what was granted, so that nothing is started with it. What could not be given holds nobody up.
    pub fn comes_first(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| !progress.whole && progress.failed.is_none())
    }

    /// When what failed is tried again.
    pub fn retry(&self) -> Option<Due> {
        self.progress.as_ref().filter(|progress| !progress.under_way)?.failed.as_ref().map(|(_, due)| *due)
    }
}

fn runs(state: &ContainerState) -> bool {
    matches!(state.run, Run::Running { stopping: None, .. })
}

/// What a container that runs needs.
pub fn need(container: &Container, state: &ContainerState) -> Need {
    if !runs(state) {
        return Need::None;
    }
    let mut need = Need::None;
    for name in NAMES {
        let (new, old) = (&container.resources, &state.given);
        if new.limits.get(name) == old.limits.get(name) && new.requests.get(name) == old.requests.get(name) {
            continue;
        }
        if container.resize_policy.iter().any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer") {
            return Need::Restart;
        }
        need = Need::Update;
    }
    need
}

/// What is to be given now. Containers that begin anew end first: what they do not use any more may be needed, and no part may have more than the whole.
pub fn action(pod: &Pod, machine: &Machine, now: Time) -> Option<Action> {
    let progress = machine.resize.progress.as_ref()?;
    if progress.under_way || progress.failed.as_ref().is_some_and(|(_, due)| !due.reached(now)) {
        return None;
    }
    let mut containers = Vec::new();
    for (index, (container, state)) in pod.all_containers().zip(&machine.containers).enumerate() {
        if matches!(state.run, Run::Running { stopping: Some(_), .. }) && state.given != container.resources {
            return None;
        }
        match need(container, state) {
            Need::Restart => return None,
            Need::Update => containers.push((index, state.attempt)),
            Need::None if !progress.whole && goes_by(pod, container) && runs(state) => containers.push((index, state.attempt)),
            Need::None => {}
        }
    }
    (!progress.whole || !containers.is_empty()).then_some(Action::Resize(containers))
}

/// A limit that it has not itself is the pod's, and changes with it.
fn goes_by(pod: &Pod, container: &Container) -> bool {
    NAMES.iter().any(|name| pod.spec.resources.limits.contains_key(*name) && !container.resources.limits.contains_key(*name))
}

/// It was given, or not.
pub fn resized(pod: &Pod, machine: &mut Machine, outcome: Result<Vec<(usize, u32, Resources)>, String>, now: Time, notes: &mut Vec<Note>) {
    if let Ok(given) = &outcome {
        for (index, attempt, resources) in given {
            if let Some(state) = machine.containers.get_mut(*index).filter(|state| state.attempt == *attempt) {
                state.given = resources.clone();
            }
        }
    }
    let Some(progress) = &mut machine.resize.progress else { return };
    progress.under_way = false;
    match outcome {
        Ok(_) => (progress.whole, progress.failed) = (true, None),
        Err(message) => {
            if progress.failed.as_ref().is_none_or(|(old, _)| *old != message) {
                notes.push(note(true, "ResizeError", "Pod resize error", pod, progress.generation, &message));
            }
            progress.failed = Some((message, Due::in_millis(now, AGAIN)));
        }
    }
}

/// When every container that runs has what was granted, it is done.
pub fn settle(pod: &Pod, machine: &mut Machine, notes: &mut Vec<Note>) {
    let Some(progress) = machine.resize.progress.as_ref().filter(|progress| progress.whole && !progress.under_way) else { return };
    let stopping = |state: &ContainerState| matches!(state.run, Run::Running { stopping: Some(_), .. } | Run::Starting);
    if pod.all_containers().zip(&machine.containers).all(|(container, state)| need(container, state) == Need::None && !stopping(state)) {
        notes.push(note(false, "ResizeCompleted", "Pod resize completed", pod, progress.generation, ""));
        machine.resize.progress = None;
    }
}

/// The pod with what is wanted.
pub fn with(pod: &Pod, wanted: &[Resources]) -> Pod {
    let mut pod = pod.clone();
    for (own, resources) in each(&mut pod).zip(wanted) {
        own.clone_from(resources);
    }
    pod
}

/// What the pod says of itself as a whole (KEP-5419), then its containers in the order of [`Pod::all_containers`].
fn each(pod: &mut Pod) -> impl Iterator<Item = &mut Resources> {
    let PodSpec { resources, init_containers, containers, .. } = &mut pod.spec;
    std::iter::once(resources).chain(init_containers.iter_mut().chain(containers).map(|container| &mut container.resources))
}

/// Gives a pod that has come anew what was granted to it before; what it wants instead, where that is something else.
pub fn keep(pod: &mut Pod, before: &Pod) -> Option<Vec<Resources>> {
    let of_containers = pod.all_containers().zip(before.all_containers()).map(|(new, old)| (new.name == old.name).then(|| old.resources.clone()));
    let granted = std::iter::once(Some(before.spec.resources.clone())).chain(of_containers).collect();
    exchange(pod, granted)
}

/// As [`keep`], for a pod that was there before this agent: what its containers were given is what was granted.
pub fn restore(pod: &mut Pod, machine: &Machine) -> Option<Vec<Resources>> {
    let of_containers = machine.containers.iter().map(|state| state.created.then(|| state.given.clone()));
    let created = machine.containers.iter().any(|state| state.created);
    let whole = pod.status.resources.as_ref().filter(|_| created).map(|told| as_told(&pod.spec.resources, told));
    let granted = std::iter::once(whole).chain(of_containers).collect();
    exchange(pod, granted)
}

/// What of the pod's own resources was granted, out of what was told, which has those of its containers, too.
fn as_told(own: &Resources, told: &Resources) -> Resources {
    let list = |own: &BTreeMap<String, Value>, told: &BTreeMap<String, Value>| {
        own.iter().map(|(name, value)| (name.clone(), told.get(name).unwrap_or(value).clone())).collect()
    };
    Resources { limits: list(&own.limits, &told.limits), requests: list(&own.requests, &told.requests) }
}

fn exchange(pod: &mut Pod, granted: Vec<Option<Resources>>) -> Option<Vec<Resources>> {
    let (mut wanted, mut differs) = (Vec::new(), false);
    for (own, granted) in each(pod).zip(granted) {
        wanted.push(own.clone());
        if let Some(granted) = granted.filter(|granted| granted != own) {
            *own = granted;
            differs = true;
        }
    }
    differs.then_some(wanted)
}

/// `resources` and `allocatedResources` of a container's status, once it was made: as kubelet has it, the former is there (and empty) where nothing is asked for, too, so that a
/// client may compare.
pub fn status(container: &Container, state: &ContainerState, status: &mut Value) {
    status["resources"] = lists(if matches!(state.run, Run::Running { .. }) { &state.given } else { &container.resources });
    if !container.resources.requests.is_empty() {
        status["allocatedResources"] = json!(container.resources.requests);
    }
}

/// `limits` and `requests`, where there are any.
fn lists(resources: &Resources) -> Value {
    let lists = [("limits", &resources.limits), ("requests", &resources.requests)];
    Value::Object(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name.to_owned(), json!(list))).collect())
}

/// `PodResizePending` and `PodResizeInProgress`, which are there only while they are true.
pub fn conditions(pod: &Pod, machine: &mut Machine, now: Time) -> Vec<Value> {
    let pending = machine.resize.pending.as_ref().map(|pending| (pending.generation, pending.reason, pending.message.clone()));
    let progress = machine.resize.progress.as_ref().map(|progress| match &progress.failed {
        Some((message, _)) => (progress.generation, "Error", message.clone()),
        None => (progress.generation, "", String::new()),
    });
    let over = super::step::end(pod, machine).is_some();
    let mut conditions = Vec::new();
    for (kind, now_is) in [("PodResizePending", pending), ("PodResizeInProgress", progress)] {
        let Some((generation, reason, message)) = now_is.filter(|_| !over) else {
            // One that an earlier report had goes. It is said with each report from then on, since any of them may be the first to arrive.
            if let Some(known) = machine.conditions.get_mut(kind) {
                known.0.clear();
                conditions.push(json!({ "type": kind, "$patch": "delete" }));
            }
            continue;
        };
        let since = machine.conditions.entry(kind.into()).or_insert_with(|| (String::new(), now));
        if since.0 != "True" {
            *since = ("True".into(), now);
        }
        conditions.push(json!({
            "type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": since.1.rfc3339(), "observedGeneration": generation,
            "reason": (!reason.is_empty()).then_some(reason), "message": (!message.is_empty()).then_some(message),
        }));
    }
    conditions
}

/// As kubelet words it: what it is about, and the resources of all containers as JSON.
fn note(warning: bool, reason: &str, what: &str, pod: &Pod, generation: i64, error: &str) -> Note {
    let list = |containers: &[Container]| -> Vec<Value> {
        containers.iter().map(|container| json!({ "name": container.name, "resources": lists(&container.resources) })).collect()
    };
    let mut summary = json!({ "containers": list(&pod.spec.containers), "generation": generation });
    if !pod.spec.init_containers.is_empty() {
        summary["initContainers"] = json!(list(&pod.spec.init_containers));
    }
    if !error.is_empty() {
        summary["error"] = json!(error);
    }
    Note { container: None, warning, reason: reason.into(), message: format!("{what}: {summary}") }
}

#[cfg(test)]
mod tests;
