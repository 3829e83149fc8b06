//! The policies and bindings of one kind, compiled, as one snapshot has them.

use super::{Binding, Policy};
use crate::admission::attributes::Attributes;
use coracle_store::{Object, Snapshot};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What is kept: the set of the newest snapshot that was asked about.
pub(super) struct Cache {
    policies: &'static str,
    bindings: &'static str,
    known: Mutex<Arc<Set>>,
}

/// All policies of one kind with their bindings, by name.
#[derive(Default)]
pub(super) struct Set {
    /// The revision of every object that it was made of.
    stamp: Vec<u64>,
    /// By uid and generation, what is compiled.
    compiled: HashMap<(Box<str>, i64), Arc<Policy>>,
    /// Policies in the order of their names, each with its bindings.
    pub hooks: Vec<(Arc<Policy>, Vec<Arc<Binding>>)>,
}

impl Cache {
    pub fn new(policies: &'static str, bindings: &'static str) -> Cache {
        Cache { policies, bindings, known: Mutex::default() }
    }

    /// The set of a snapshot; made anew only when one of its objects changed, and then only what changed is compiled.
    pub fn of(&self, snapshot: &Snapshot) -> Arc<Set> {
        let objects = |resource: &'static str| snapshot.range(resource, None, None);
        let stamp = || objects(self.policies).chain(objects(self.bindings)).map(|object| object.revision);
        let known = self.known.lock().clone();
        if stamp().eq(known.stamp.iter().copied()) {
            return known;
        }
        let read = |object: &Arc<Object>| serde_json::from_slice::<Value>(&object.json).ok();
        let bindings: Vec<Arc<Binding>> = objects(self.bindings).filter_map(read).map(|object| Arc::new(Binding::of(&object))).collect();
        let mut set = Set { stamp: stamp().collect(), ..Set::default() };
        for object in objects(self.policies).filter_map(read) {
            let metadata = &object["metadata"];
            let key = (metadata["uid"].as_str().unwrap_or_default().into(), metadata["generation"].as_i64().unwrap_or_default());
            let policy = known.compiled.get(&key).cloned().unwrap_or_else(|| Arc::new(Policy::of(&object)));
            let bound: Vec<Arc<Binding>> = bindings.iter().filter(|binding| binding.policy == policy.name).cloned().collect();
            set.compiled.insert(key, policy.clone());
            if !bound.is_empty() {
                set.hooks.push((policy, bound));
            }
        }
        let set = Arc::new(set);
        *self.known.lock() = set.clone();
        set
    }
}

impl Set {
    /// Whether any policy may be about a request, as far as resources and labels decide.
    pub fn concerns(&self, a: &Attributes<'_>, namespace: &Value, registry: &coracle_api::registry::Registry) -> bool {
        self.hooks.iter().any(|(policy, _)| policy.constraints.as_ref().map_or(true, |constraints| constraints.matches(a, namespace, registry)))
    }
}
