//! The policies and bindings of one kind, compiled, as one snapshot has them.

use super::{Binding, Policy};
use crate::admission::{attributes::Attributes, cached::Cached};
use coracle_store::{Object, Snapshot};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The set of the newest snapshot that was asked about.
pub(super) type Cache = Cached<Set>;

/// All policies of one kind with their bindings, by name.
#[derive(Default)]
pub(super) struct Set {
    /// By uid and generation, what is compiled.
    compiled: HashMap<(Box<str>, i64), Arc<Policy>>,
    /// Policies in the order of their names, each with its bindings.
    pub hooks: Vec<(Arc<Policy>, Vec<Arc<Binding>>)>,
}

impl Set {
    /// The set of a snapshot; what `known` has compiled already stays.
    pub fn of(snapshot: &Snapshot, policies: &str, bindings: &str, known: &Set) -> Set {
        let read = |object: &Arc<Object>| serde_json::from_slice::<Value>(&object.json).ok();
        let bindings: Vec<Arc<Binding>> =
            snapshot.range(bindings, None, None).filter_map(read).map(|object| Arc::new(Binding::of(&object))).collect();
        let mut set = Set::default();
        for object in snapshot.range(policies, None, None).filter_map(read) {
            let metadata = &object["metadata"];
            let key = (metadata["uid"].as_str().unwrap_or_default().into(), metadata["generation"].as_i64().unwrap_or_default());
            let policy = known.compiled.get(&key).cloned().unwrap_or_else(|| Arc::new(Policy::of(&object)));
            let bound: Vec<Arc<Binding>> = bindings.iter().filter(|binding| binding.policy == policy.name).cloned().collect();
            set.compiled.insert(key, policy.clone());
            if !bound.is_empty() {
                set.hooks.push((policy, bound));
            }
        }
        set
    }

    /// Whether any policy may be about a request, as far as resources and labels decide.
    pub fn concerns(&self, a: &Attributes<'_>, namespace: &Value, registry: &coracle_api::registry::Registry) -> bool {
        self.hooks.iter().any(|(policy, _)| policy.constraints.as_ref().map_or(true, |constraints| constraints.matches(a, namespace, registry)))
    }
}
