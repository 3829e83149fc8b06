//! The state at one revision: persistent ordered maps, so that keeping an old one costs only what changed since.
//!
//! Everything here is pure: applying a transaction uses no clock, no randomness and no serializer, so every member comes to the same bytes.

use crate::object::{Place, Position};
use crate::{Change, Committed, Key, Object, Op, Snapshot, Txn};
use imbl::{OrdMap, OrdSet};
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// All objects of one resource.
#[derive(Clone, Default)]
struct Table {
    /// Keyed by strings and not a set of objects: the tree keeps copies of keys in its branches, and those must not keep old documents alive.
    objects: OrdMap<Place, Arc<Object>>,
    /// Namespace → how many objects it holds. Also where namespace strings are shared from.
    namespaces: OrdMap<Arc<str>, usize>,
}

/// One edge of the garbage collector's graph: an owner's uid and the key of what it owns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    owner: Arc<str>,
    dependent: Key,
}

/// Where the edges of an owner begin (`after` false) or end.
struct EdgeOf<'a> {
    owner: &'a str,
    after: bool,
}
impl equivalent::Equivalent<Edge> for EdgeOf<'_> {
    fn equivalent(&self, _: &Edge) -> bool {
        false
    }
}
impl equivalent::Comparable<Edge> for EdgeOf<'_> {
    fn compare(&self, edge: &Edge) -> Ordering {
        self.owner.cmp(&edge.owner).then(if self.after { Ordering::Greater } else { Ordering::Less })
    }
}

/// The state at one revision. Cloning is a few pointers.
#[derive(Clone, Default)]
pub(crate) struct Root {
    pub revision: u64,
    tables: OrdMap<Arc<str>, Table>,
    edges: OrdSet<Edge>,
}

/// What applying a transaction did.
pub(crate) struct Effect {
    pub committed: Committed,
    /// Empty when nothing changed; then the revision did not move.
    pub changes: Vec<Change>,
}

/// Op `op` found `current` instead of what it expected.
#[derive(Debug)]
pub(crate) struct Refused {
    pub op: usize,
    pub current: Option<Arc<Object>>,
}

impl Root {
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.tables.get(&*key.resource)?.objects.get(&Position::of(key))
    }

    /// The first operation whose precondition does not hold here.
    pub fn refuses(&self, txn: &Txn) -> Option<Refused> {
        txn.ops.iter().enumerate().find_map(|(op, it)| {
            let current = self.get(it.key());
            (!it.expect().holds(current)).then(|| Refused { op, current: current.cloned() })
        })
    }

    /// Applies a transaction: all of it, or none.
    pub fn apply(&mut self, txn: &Txn) -> Result<Effect, Refused> {
        if let Some(refused) = self.refuses(txn) {
            return Err(refused);
        }
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(txn.ops.len());
        let mut objects = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            let prev = self.get(op.key()).cloned();
            match op {
                Op::Check { .. } => objects.push(None),
                Op::Put { draft, .. } if prev.as_ref().is_some_and(|o| o.same_as(draft)) => objects.push(prev),
                Op::Put { key, draft, .. } => {
                    let new = Object::from_draft(self.shared_key(key, prev.as_ref()), draft, revision);
                    self.set(prev.as_ref(), Some(&new));
                    objects.push(Some(new.clone()));
                    changes.push(Change { revision, prev, new: Some(new) });
                }
                Op::Delete { .. } => {
                    objects.push(prev.as_ref().map(|o| o.at_revision(revision)));
                    if prev.is_some() {
                        self.set(prev.as_ref(), None);
                        changes.push(Change { revision, prev, new: None });
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
        }
        Ok(Effect { committed: Committed { revision: self.revision, objects }, changes })
    }

    /// Takes a change back; the caller sets the revision.
    pub fn undo(&mut self, change: &Change) {
        self.set(change.new.as_ref(), change.prev.as_ref());
    }

    /// Puts an object in as it is.
    pub fn put(&mut self, object: Arc<Object>) {
        let old = self.get(&object.key).cloned();
        self.set(old.as_ref(), Some(&object));
    }

    /// Replaces `old` (what is there now) by `new`; both are of the same key.
    fn set(&mut self, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(key) = new.or(old).map(|o| &o.key) else { return };
        if !self.tables.contains_key(&*key.resource) {
            self.tables.insert(key.resource.clone(), Table::default());
        }
        let Some(table) = self.tables.get_mut(&*key.resource) else { return };
        match (old, new) {
            (_, Some(new)) => {
                table.objects.insert(Place::of(key), new.clone());
            }
            (Some(_), None) => {
                table.objects.remove(&Position::of(key));
            }
            (None, None) => {}
        }
        match (old, new) {
            (None, Some(_)) => match table.namespaces.get_mut(&*key.namespace) {
                Some(count) => *count += 1,
                None => {
                    table.namespaces.insert(key.namespace.clone(), 1);
                }
            },
            (Some(_), None) => {
                let left = table.namespaces.get_mut(&*key.namespace).map(|count| {
                    *count = count.saturating_sub(1);
                    *count
                });
                if left == Some(0) {
                    table.namespaces.remove(&*key.namespace);
                }
                if table.objects.is_empty() {
                    let resource = key.resource.clone();
                    self.tables.remove(&*resource);
                }
            }
            _ => {}
        }
        let owners = |o: Option<&Arc<Object>>| o.map(|o| o.meta.clone());
        let (before, after) = (owners(old), owners(new));
        let before = before.as_ref().map_or(&[][..], |m| &m.owners);
        let after = after.as_ref().map_or(&[][..], |m| &m.owners);
        if before != after {
            for owner in before {
                self.edges.remove(&Edge { owner: (&**owner).into(), dependent: key.clone() });
            }
            for owner in after {
                self.edges.insert(Edge { owner: (&**owner).into(), dependent: key.clone() });
            }
        }
    }

    /// The same key made of strings that are held already, so that ten thousand objects do not hold ten thousand copies of `pods`.
    fn shared_key(&self, key: &Key, prev: Option<&Arc<Object>>) -> Key {
        if let Some(prev) = prev {
            return prev.key.clone();
        }
        let Some((resource, table)) = self.tables.get_key_value(&*key.resource) else { return key.clone() };
        let namespace = table.namespaces.get_key_value(&*key.namespace).map_or_else(|| key.namespace.clone(), |(k, _)| k.clone());
        Key { resource: resource.clone(), namespace, name: key.name.clone() }
    }

    pub fn range<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a + Send> {
        let Some(table) = self.tables.get(resource) else { return Box::new(std::iter::empty()) };
        let after = after.map(|(namespace, name)| Position { namespace, name: Some(name) });
        let (low, high) = match namespace {
            None => (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded),
            Some(namespace) => {
                let high = Position { namespace, name: None };
                let low = match after {
                    Some(place) if place.namespace > namespace => return Box::new(std::iter::empty()),
                    Some(place) if place.namespace == namespace => Bound::Excluded(place),
                    // Names are never empty, so the empty name stands before all of them.
                    _ => Bound::Included(Position { namespace, name: Some("") }),
                };
                (low, Bound::Excluded(high))
            }
        };
        Box::new(table.objects.range((low, high)).map(|(_, object)| object))
    }

    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        let Some(table) = self.tables.get(resource) else { return 0 };
        match namespace {
            None => table.objects.len(),
            Some(namespace) => table.namespaces.get(namespace).copied().unwrap_or(0),
        }
    }

    pub fn dependents(&self, owner: &str) -> Vec<Arc<Object>> {
        let range = (Bound::Included(EdgeOf { owner, after: false }), Bound::Excluded(EdgeOf { owner, after: true }));
        self.edges.range(range).filter_map(|edge| self.get(&edge.dependent).cloned()).collect()
    }

    pub fn resources(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.tables.iter().map(|(name, table)| (name, table.objects.len()))
    }

    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.tables.iter().flat_map(|(_, table)| table.objects.values())
    }
}

impl From<Arc<Root>> for Snapshot {
    fn from(root: Arc<Root>) -> Snapshot {
        Snapshot { root }
    }
}
