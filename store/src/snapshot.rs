//! What readers hold: one revision of everything.

use crate::root::{Refused, Root};
use crate::{Committed, Error, Key, Object, Txn};
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
    /// A state made of given objects, for pure decisions and their tests. Of two with one key the later counts.
    pub fn of(revision: u64, objects: impl IntoIterator<Item = Arc<Object>>) -> Snapshot {
        let mut root = Root::default();
        objects.into_iter().for_each(|object| root.put(object));
        root.revision = revision;
        Arc::new(root).into()
    }

    /// What a transaction would make of this state; nothing is proposed (dry runs).
    pub fn with(&self, txn: &Txn) -> Result<(Snapshot, Committed), Error> {
        txn.check()?;
        let mut root = (*self.root).clone();
        let effect = root.apply(txn).map_err(|Refused { op, current }| Error::Precondition { op, current })?;
        Ok((Arc::new(root).into(), effect.committed))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Expect, Meta, Op};
    use bytes::Bytes;

    fn put(name: &str, owners: &[&str], expect: Expect) -> Txn {
        let meta = Meta { owners: owners.iter().map(|o| (*o).into()).collect(), ..Meta::default() };
        let draft = Draft { json: Bytes::from_static(b"\"\""), hole: 1, meta: Arc::new(meta) };
        Txn { ops: vec![Op::Put { key: Key::new("pods", "a", name), expect, draft }] }
    }

    #[test]
    fn made_of_objects_and_carried_on() {
        let (first, done) = Snapshot::of(9, []).with(&put("x", &["u1"], Expect::Absent)).unwrap();
        assert_eq!((done.revision, first.revision()), (10, 10));
        let x = first.get(&Key::new("pods", "a", "x")).unwrap();
        let again = Snapshot::of(20, [x.clone(), x]);
        assert_eq!((again.revision(), again.count("pods", Some("a")), again.dependents("u1").len()), (20, 1, 1));
        assert!(matches!(again.with(&put("x", &[], Expect::Absent)), Err(Error::Precondition { op: 0, current: Some(_) })));
        let (moved, _) = again.with(&put("x", &["u2", "u3"], Expect::Revision(10))).unwrap();
        assert_eq!([1, 2, 3].map(|n| moved.dependents(&format!("u{n}")).len()), [0, 1, 1]);
        assert_eq!(again.dependents("u1").len(), 1, "the one it came from did not move");
    }
}
