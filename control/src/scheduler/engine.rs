//! The scheduler without its tasks: changes go in, decisions come out.

use super::{
    cluster::Cluster,
    plugins::Attempt,
    pod::Pod,
    queue::Queue,
    select::{NoFit, select},
};
use crate::controllers::view::{condition, parse, parse_bytes};
use coracle_store::{Key, Object};
use serde::Deserialize;
use serde_json::value::RawValue;
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
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Engine {
    cluster: Cluster,
    queue: Queue,
    /// Pods of the queue.
    waiting: HashMap<Key, Arc<Object>>,
    turn: usize,
}

impl Engine {
    /// A node came, changed or went.
    pub fn node(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>, now: Instant) {
        match (prev, new) {
            (_, Some(new)) => match self.cluster.set_node(new) {
                Ok(true) => self.queue.cluster_changed(now),
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error.message, "the scheduler leaves a node out"),
            },
            (Some(prev), None) => {
                self.cluster.remove_node(&prev.key.name);
                // Rules about other nodes' pods may be met now, and the message changes.
                self.queue.cluster_changed(now);
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
            if !prev.is_some_and(|prev| self.cluster.places(&new.key) && alike(prev, new)) {
                let new_place = !self.cluster.places(&new.key);
                self.cluster.place(new, &pod, &pod.spec.node_name);
                if prev.is_some() || new_place {
                    // Labels or requests of a running pod changed, or one came that others want to be near.
                    self.queue.cluster_changed(now);
                }
            }
        } else if !pod.ours() || !pod.spec.scheduling_gates.is_empty() || pod.metadata.deleting() {
            self.queue.remove(&new.key);
            self.waiting.remove(&new.key);
        } else {
            let known = self.waiting.insert(new.key.clone(), Arc::clone(new));
            self.queue.add(new.key.clone(), pod.spec.priority, now);
            if known.is_some_and(|known| !alike(&known, new)) {
                self.queue.changed(&new.key, now);
            }
        }
    }

    fn forget(&mut self, key: &Key, now: Instant) {
        self.queue.remove(key);
        self.waiting.remove(key);
        if self.cluster.remove_pod(key) {
            self.queue.cluster_changed(now);
        }
    }

    /// The next decision, if there is one to make now.
    pub fn decide(&mut self, now: Instant) -> Option<Decision> {
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
            let attempt = Attempt::new(&pod, &object.meta, &self.cluster);
            match select(&attempt, &self.cluster, self.turn) {
                Ok(node) => {
                    self.turn = self.turn.wrapping_add(1);
                    self.cluster.place(&object, &pod, &node);
                    return Some(Decision::Bind { pod: object, node });
                }
                Err(NoFit(message)) => {
                    self.queue.failed(&key, now);
                    let told = condition(&pod.status.conditions, "PodScheduled");
                    if told.is_some_and(|c| c.status == "False" && c.reason == "Unschedulable" && *c.message == *message) {
                        continue;
                    }
                    return Some(Decision::Unschedulable { pod: object, message });
                }
            }
        }
    }

    /// A binding came to its end. After success the watch brings the bound pod; after a failure the place is given back and, if the pod
    /// still waits, it is tried again.
    pub fn bound(&mut self, pod: &Arc<Object>, succeeded: bool, now: Instant) {
        let key = &pod.key;
        if succeeded || !self.queue.contains(key) {
            return;
        }
        self.cluster.remove_pod(key);
        self.queue.cluster_changed(now);
        self.queue.retry(key, now);
    }

    /// When [`Engine::decide`] may have something to say without any change.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// Forgets everything, for a new start from a list.
    pub fn reset(&mut self) {
        *self = Self { turn: self.turn, ..Self::default() };
    }
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
    a.meta.labels == b.meta.labels && spec(a) == spec(b)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
