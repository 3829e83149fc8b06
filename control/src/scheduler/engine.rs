//! The scheduler without its tasks: changes go in, decisions come out.

use super::{
    cluster::{Cluster, Placed},
    plugins::{Attempt, change},
    pod::Pod,
    preempt::{Refused, Victim, preempt},
    profile::Profile,
    queue::Queue,
    select::{NoFit, select},
    volumes,
};
use crate::controllers::action::Action;
use coracle_apiserver::{
    telemetry::Pending,
    view::{condition, parse, parse_bytes},
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{collections::HashMap, sync::Arc, time::Instant};

/// What is to be done about a pod.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Bind it to this node. The result is reported with [`Engine::bound`].
    Bind {
        /// The pod.
        pod: Arc<Object>,
        /// The node's name.
        node: Arc<str>,
    },
    /// It fits nowhere: tell so.
    Unschedulable {
        /// The pod.
        pod: Arc<Object>,
        /// Why, as condition and event say it.
        message: String,
        /// Whether its `nominatedNodeName` is of no use any more.
        give_up: bool,
    },
    /// It fits nowhere yet: make room. Reported with [`Engine::waits`].
    Preempt {
        /// The pod.
        pod: Arc<Object>,
        /// Why it does not fit.
        message: String,
        /// Where room is made.
        node: Arc<str>,
        /// Who has to go.
        victims: Vec<Victim>,
        /// Pods of less priority that lose the room that was made for them there.
        outdone: Vec<Key>,
        /// What it then waits for.
        hears: u8,
    },
    /// Its volumes are to be bound first, for this node. Reported with [`Engine::waits`].
    Prepare {
        /// The pod.
        pod: Arc<Object>,
        /// Merge patches of claims and volumes.
        patches: Vec<(Key, Value)>,
        /// What it then waits for.
        hears: u8,
    },
    /// Its claims of devices are written first: what they are given, whom they are for, or that they have nothing any more. Reported with [`Engine::claimed`].
    Claim {
        /// The pod.
        pod: Arc<Object>,
        /// In order.
        steps: Vec<Action>,
        /// Claims whose devices are spoken for until this is done.
        promised: Vec<Key>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    profiles: Arc<[Profile]>,
    cluster: Cluster,
    queue: Queue,
    /// Pods of the queue.
    waiting: HashMap<Key, Arc<Object>>,
    turn: usize,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(profiles: Arc<[Profile]>) -> Self {
        Self { profiles, cluster: Cluster::default(), queue: Queue::default(), waiting: HashMap::new(), turn: 0 }
    }

    /// A node came, changed or went.
    pub fn node(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>, now: Instant) {
        match (prev, new) {
            (_, Some(new)) => match self.cluster.set_node(new) {
                Ok(true) => self.queue.cluster_changed(change::NODE, now),
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error.message, "the scheduler leaves a node out"),
            },
            (Some(prev), None) => {
                self.cluster.remove_node(&prev.key.name);
                // Rules about other nodes' pods may be met now, and the message changes.
                self.queue.cluster_changed(change::NODE, now);
            }
            (None, None) => {}
        }
    }

    /// A namespace came, changed or went.
    pub fn namespace(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        match (prev, new) {
            (_, Some(new)) => drop(self.cluster.namespaces.insert(new.key.name.clone(), Arc::clone(&new.meta))),
            (Some(prev), None) => drop(self.cluster.namespaces.remove(&prev.key.name)),
            (None, None) => {}
        }
    }

    /// A Service came, changed or went.
    pub fn service(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(object) = new.or(prev) else { return };
        if let Err(error) = self.cluster.set_service(&object.key, new.map(|new| &**new)) {
            tracing::warn!(error = %error.message, "the scheduler leaves a Service out");
        }
    }

    /// A claim, a volume, a storage class, or what nodes have of volumes came, changed or went.
    pub fn volume(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>, now: Instant) {
        self.cluster.volume_changed(prev, new);
        self.queue.cluster_changed(change::VOLUME, now);
    }

    /// A claim of devices, a class or a slice came, changed or went.
    pub fn devices(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>, now: Instant) {
        if let Some(object) = new.or(prev) {
            self.cluster.changed(object.key.clone());
        }
        self.queue.cluster_changed(change::DEVICE, now);
    }

    /// A pod came, changed or went.
    pub fn pod(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>, now: Instant) {
        let Some(new) = new else {
            if let Some(prev) = prev {
                self.forget(&prev.key, now);
            }
            return;
        };
        let pod: Pod<'_> = match parse(new) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::warn!(error = %error.message, "the scheduler leaves a pod out");
                return;
            }
        };
        if pod.terminal() {
            self.forget(&new.key, now);
        } else if !pod.spec.node_name.is_empty() {
            self.queue.remove(&new.key);
            self.waiting.remove(&new.key);
            self.placed(prev, new, &pod, now);
        } else if !self.ours(&pod) || !pod.spec.scheduling_gates.is_empty() || pod.metadata.deleting() {
            self.forget(&new.key, now);
        } else {
            let known = self.waiting.insert(new.key.clone(), Arc::clone(new));
            let nominated = &*pod.status.nominated_node_name;
            let before = known.as_ref().and_then(|known| parse::<Pod<'_>>(known).ok()).map(|pod| pod.status.nominated_node_name.to_string());
            // What was nominated here just now may not be written yet: only a change counts.
            if before.as_deref().unwrap_or_default() != nominated && self.cluster.nominate(&new.key, nominated, || Placed::of(new, &pod)) {
                self.queue.cluster_changed(change::GONE, now);
            }
            self.queue.add(new.key.clone(), pod.spec.priority, now);
            if known.is_some_and(|known| !alike(&known, new)) {
                self.queue.changed(&new.key, now);
            }
        }
    }

    /// A pod that is bound.
    fn placed(&mut self, prev: Option<&Arc<Object>>, new: &Arc<Object>, pod: &Pod<'_>, now: Instant) {
        let known = self.cluster.placed_mut(&new.key);
        let bound = |prev: &Arc<Object>| parse::<Pod<'_>>(prev).is_ok_and(|prev| !prev.spec.node_name.is_empty());
        match known {
            // Decided here and counted since, or the same to the scheduler but for its status.
            Some(placed) if prev.is_some_and(|prev| alike(prev, new) || !bound(prev)) && placed.meta.labels == new.meta.labels => {
                let going = pod.metadata.deleting() && !placed.deleting;
                placed.deleting = pod.metadata.deleting();
                placed.preempted = pod.preempted();
                if *placed.started != *pod.status.start_time {
                    placed.started = (*pod.status.start_time).into();
                }
                if going {
                    // Pods that go do not count where pods are spread.
                    self.queue.cluster_changed(change::PLACED, now);
                }
            }
            _ => {
                self.cluster.place(&new.key, Placed::of(new, pod), &pod.spec.node_name);
                self.queue.cluster_changed(change::PLACED, now);
            }
        }
    }

    fn ours(&self, pod: &Pod<'_>) -> bool {
        self.profiles.iter().any(|profile| *profile.name == *pod.scheduler())
    }

    fn forget(&mut self, key: &Key, now: Instant) {
        self.queue.remove(key);
        self.waiting.remove(key);
        if self.cluster.remove_pod(key) {
            self.queue.cluster_changed(change::GONE, now);
        }
    }

    /// The next decision, if there is one to make now. What is not kept here is looked up in the snapshot: claims, volumes, owners and
    /// disruption budgets.
    pub fn decide(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Decision> {
        self.cluster.read(snapshot);
        loop {
            let key = self.queue.take(now)?;
            let Some(object) = self.waiting.get(&key).cloned() else {
                self.queue.remove(&key);
                continue;
            };
            let Ok(pod) = parse::<Pod<'_>>(&object) else {
                self.queue.remove(&key);
                continue;
            };
            let profiles = Arc::clone(&self.profiles);
            let Some(profile) = profiles.iter().find(|profile| *profile.name == *pod.scheduler()) else {
                self.queue.remove(&key);
                continue;
            };
            let attempt = Attempt::with(&object, &pod, &self.cluster, snapshot, &profile.args);
            let decision = match select(&attempt, &self.cluster, profile, self.turn) {
                Ok(node) => self.found(&object, &attempt, node, snapshot, now),
                Err(no) => self.stuck(&object, &attempt, &no, profile, snapshot, now),
            };
            if decision.is_some() {
                return decision;
            }
        }
    }

    /// A node was found.
    fn found(&mut self, object: &Arc<Object>, attempt: &Attempt<'_, '_>, node: Arc<str>, snapshot: &Snapshot, now: Instant) -> Option<Decision> {
        let pod = attempt.pod;
        let steps = volumes::steps(&object.key, pod, self.cluster.node(&node)?, snapshot);
        if steps.waiting.is_empty() {
            let (steps, promised) = attempt.devices.steps(self.cluster.node(&node)?);
            if !steps.is_empty() {
                let claims = promised.iter().map(|(claim, _)| claim.clone()).collect();
                self.cluster.promised.extend(promised);
                return Some(Decision::Claim { pod: Arc::clone(object), steps, promised: claims });
            }
            self.turn = self.turn.wrapping_add(1);
            self.cluster.place(&object.key, Placed::of(object, pod), &node);
            return Some(Decision::Bind { pod: Arc::clone(object), node });
        }
        let hears = change::VOLUME | change::NODE;
        if !steps.patches.is_empty() {
            return Some(Decision::Prepare { pod: Arc::clone(object), patches: steps.patches, hears });
        }
        self.queue.failed(&object.key, hears, now);
        let names: Vec<String> = steps.waiting.iter().map(|name| format!("\"{name}\"")).collect();
        tell(object, pod, format!("waiting for volumes to be bound for node {node}: persistentvolumeclaim {}", names.join(", ")), false)
    }

    /// No node was found.
    fn stuck(
        &mut self,
        object: &Arc<Object>,
        attempt: &Attempt<'_, '_>,
        no: &NoFit,
        profile: &Profile,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Decision> {
        let (key, pod, mut message) = (&object.key, attempt.pod, no.message());
        let mut give_up = false;
        if no.mistake.is_some() {
            self.queue.failed(key, no.hears, now);
            return tell(object, pod, message, give_up);
        }
        if let Some(step) = attempt.devices.release(|reason| no.has(reason)) {
            return Some(Decision::Claim { pod: Arc::clone(object), steps: vec![step], promised: Vec::new() });
        }
        if profile.preempts && no.total() > 0 {
            match preempt(attempt, no, &self.cluster, profile, snapshot, self.turn) {
                Ok(room) => {
                    self.turn = self.turn.wrapping_add(1);
                    let lower = self.cluster.nominees(&room.node).filter(|(other, placed)| placed.priority < pod.spec.priority && *other != key);
                    let outdone: Vec<Key> = lower.map(|(other, _)| other.clone()).collect();
                    for other in &outdone {
                        self.cluster.give_back(other);
                    }
                    self.cluster.nominate(key, &room.node, || Placed::of(object, pod));
                    let victims = room.victims.into_iter().filter(|victim| !victim.deleting).collect();
                    return Some(Decision::Preempt { pod: Arc::clone(object), message, node: room.node, victims, outdone, hears: no.hears });
                }
                Err(Refused { why, give_up: no_use }) => {
                    message = format!("{message} {why}");
                    give_up = no_use && !pod.status.nominated_node_name.is_empty();
                }
            }
        }
        self.queue.failed(key, no.hears, now);
        tell(object, pod, message, give_up)
    }

    /// A binding came to its end. After success the watch brings the bound pod; after a failure the place is given back and, if the pod
    /// still waits, it is tried again.
    pub fn bound(&mut self, pod: &Arc<Object>, succeeded: bool, now: Instant) {
        let key = &pod.key;
        if succeeded || !self.queue.contains(key) {
            return;
        }
        self.cluster.remove_pod(key);
        self.queue.cluster_changed(change::GONE, now);
        self.queue.retry(key, now);
    }

    /// What a pod needs first was asked for: it waits for changes of these kinds, or is tried again if that failed.
    pub fn waits(&mut self, pod: &Arc<Object>, hears: u8, succeeded: bool, now: Instant) {
        match succeeded {
            true => self.queue.failed(&pod.key, hears, now),
            false => self.queue.retry(&pod.key, now),
        }
    }

    /// How many pods have no node yet.
    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }

    /// A pod's claims of devices were written, or not: it is looked at again.
    pub fn claimed(&mut self, pod: &Arc<Object>, promised: &[Key], succeeded: bool, now: Instant) {
        for claim in promised {
            self.cluster.promised.remove(claim);
            // The watch may bring it later than the pod that is looked at next.
            self.cluster.changed(claim.clone());
        }
        match succeeded {
            true => self.queue.again(&pod.key),
            false => self.queue.retry(&pod.key, now),
        }
        // Others may have waited for what was spoken for.
        self.queue.cluster_changed(change::DEVICE, now);
    }

    /// When [`Engine::decide`] may have something to say without any change.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// Forgets everything, for a new start from a list.
    pub fn reset(&mut self) {
        *self = Self { turn: self.turn, ..Self::new(Arc::clone(&self.profiles)) };
    }
}

/// What is to be told of a pod that does not fit; nothing if it was told so before.
fn tell(object: &Arc<Object>, pod: &Pod<'_>, message: String, give_up: bool) -> Option<Decision> {
    let told = condition(&pod.status.conditions, "PodScheduled");
    let same = told.is_some_and(|c| c.status == "False" && c.reason == "Unschedulable" && *c.message == *message);
    (!same || give_up).then(|| Decision::Unschedulable { pod: Arc::clone(object), message, give_up })
}

/// Whether two versions of a pod are the same to the scheduler: most changes are of status.
fn alike(a: &Object, b: &Object) -> bool {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        spec: Option<&'a RawValue>,
    }
    fn spec(object: &Object) -> Option<&str> {
        parse_bytes::<Raw<'_>>(&object.json).ok()?.spec.map(RawValue::get)
    }
    #[derive(Deserialize)]
    struct Claims<'a> {
        #[serde(borrow, default)]
        status: Told<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Told<'a> {
        #[serde(borrow, default)]
        resource_claim_statuses: Option<&'a RawValue>,
    }
    fn claims(object: &Object) -> Option<&str> {
        parse_bytes::<Claims<'_>>(&object.json).ok()?.status.resource_claim_statuses.map(RawValue::get)
    }
    a.meta.labels == b.meta.labels && spec(a) == spec(b) && claims(a) == claims(b)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
