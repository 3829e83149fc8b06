//! What readers hold: one revision of everything.

use crate::root::Root;
use crate::{Key, Object};
use std::sync::Arc;

/// One consistent revision of everything; a pointer, O(1) to take and to hold.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) root: Arc<Root>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({})", self.revision())
    }
}

impl Snapshot {
    /// The revision this is the state of.
    pub fn revision(&self) -> u64 {
        self.root.revision
    }

    /// The object at a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.root.get(key).cloned()
    }

    /// In key order, of one resource, in one namespace or all, strictly after (namespace, name).
    pub fn range<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a + Send> {
        self.root.range(resource, namespace, after)
    }

    /// Number of objects of a resource, in one namespace or all; O(log n).
    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        self.root.count(resource, namespace)
    }

    /// Everything that names this uid as an owner, any resource; in key order.
    pub fn dependents(&self, owner_uid: &str) -> Vec<Arc<Object>> {
        self.root.dependents(owner_uid)
    }

    /// Every resource that has objects, with how many.
    pub fn resources(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.root.resources()
    }
}
