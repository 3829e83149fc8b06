//! Raft, revisions, snapshots and watch. Knows bytes and keys, not kinds.
//!
//! SKELETON: these signatures are the contract that other crates are written against.
#![allow(unused, missing_docs, clippy::all)]

use bytes::Bytes;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Where an object lives. Order is (resource, namespace, name), which is also list order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Resource id as `coracle_api::Resource::id()` gives it: `pods`, `deployments.apps`; internal ones begin with `~`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}
impl Key {
    pub fn new(resource: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// What the store indexes and what watchers match on; fixed by the proposer. All lists sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub uid: Box<str>,
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// uids of ownerReferences
    pub owners: Vec<Box<str>>,
    /// selectable fields: dotted path → value (`spec.nodeName` → `n1`)
    pub fields: Vec<(Box<str>, Box<str>)>,
}

/// Canonical JSON with a hole: the decimal revision is inserted at `hole` when the entry is applied.
#[derive(Clone, Debug)]
pub struct Draft {
    pub json: Bytes,
    pub hole: u32,
    pub meta: Arc<Meta>,
}

/// A stored object: its exact bytes (what GET, LIST and WATCH send), shared.
#[derive(Debug)]
pub struct Object {
    pub key: Key,
    /// The revision of its last write, which is its `metadata.resourceVersion`.
    pub revision: u64,
    pub json: Bytes,
    pub meta: Arc<Meta>,
    hole: u32,
}
impl Object {
    /// The same object carrying another resourceVersion (DELETED events; objects that leave a selector).
    pub fn at_revision(&self, revision: u64) -> Arc<Object> {
        unimplemented!()
    }
    /// Another encoding of this object, made once and shared by all readers. `slot` 0..4 is chosen by the caller (0 = table row cells, 1 = protobuf, …).
    pub fn encoding(&self, slot: usize, make: impl FnOnce() -> Bytes) -> Bytes {
        unimplemented!()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must be at this revision.
    Revision(u64),
    /// No condition.
    Any,
}

#[derive(Clone, Debug)]
pub enum Op {
    Put {
        key: Key,
        expect: Expect,
        draft: Draft,
    },
    Delete {
        key: Key,
        expect: Expect,
    },
    /// Only a precondition on another key.
    Check {
        key: Key,
        expect: Expect,
    },
}

/// All ops or none; all changed objects get the same new revision. At most 128 ops and 8 MiB.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub ops: Vec<Op>,
}

#[derive(Clone, Debug)]
pub struct Committed {
    pub revision: u64,
    /// One per op: the object written; for a delete the deleted object at the new revision; for a check None.
    pub objects: Vec<Option<Arc<Object>>>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Op `op` failed its precondition; `current` is what is there now.
    #[error("precondition of operation {op} failed")]
    Precondition { op: usize, current: Option<Arc<Object>> },
    /// The revision is no longer (or not yet) held: 410 for clients.
    #[error("revision {wanted} is not held any more (oldest is {oldest})")]
    Gone { wanted: u64, oldest: u64 },
    #[error("not the leader")]
    NotLeader,
    #[error("transaction too large: {0}")]
    TooLarge(String),
    #[error("the disk under the data directory is full: {0}")]
    DiskFull(String),
    #[error("the store is shutting down")]
    Closed,
    #[error("{0}")]
    Failed(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for `log.redb` and `state.redb`.
    pub dir: PathBuf,
    /// redb cache of each file, bytes.
    pub cache: usize,
    /// How long and how large the history (roots and watch ring) is kept in memory.
    pub history_age: Duration,
    pub history_bytes: usize,
}

/// Cheap clone. The store's tasks end when `shutdown` is called.
#[derive(Clone)]
pub struct Store {}

/// One consistent revision of everything; a pointer, O(1) to take and to hold.
#[derive(Clone)]
pub struct Snapshot {}

impl Store {
    pub async fn open(options: Options) -> Result<Store, Error> {
        unimplemented!()
    }
    /// Propose; returns once the entry is on disk on a majority and applied.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, Error> {
        unimplemented!()
    }
    /// Linearizable: returns once everything acknowledged before the call is applied here.
    pub async fn barrier(&self) -> Result<(), Error> {
        unimplemented!()
    }
    /// Latest applied state (after `barrier` for a linearizable read).
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    /// An exact older revision.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Error> {
        unimplemented!()
    }
    /// Waits until `revision` is applied (resourceVersion "not older than").
    pub async fn applied(&self, revision: u64, within: Duration) -> Result<Snapshot, Error> {
        unimplemented!()
    }
    /// Changes after revision `after`. Gone when that is older than the ring.
    pub fn watch(&self, scope: Scope, after: u64) -> Result<Watch, Error> {
        unimplemented!()
    }
    /// The current state of the scope and every change after it, without a gap between.
    pub fn list_watch(&self, scope: Scope) -> (Snapshot, Watch) {
        unimplemented!()
    }
    /// Moves the revision counter forward to at least this (restore).
    pub async fn shutdown(&self) {}
}

impl Snapshot {
    pub fn revision(&self) -> u64 {
        unimplemented!()
    }
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        unimplemented!()
    }
    /// In key order, of one resource, in one namespace or all, strictly after (namespace, name).
    pub fn range<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a + Send> {
        unimplemented!()
    }
    /// Number of objects of a resource, O(1) per resource or O(log n + namespace).
    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        unimplemented!()
    }
    /// Everything that names this uid as an owner, any resource.
    pub fn dependents(&self, owner_uid: &str) -> Vec<Arc<Object>> {
        unimplemented!()
    }
}

/// What a watcher is woken for. Indexed, so that a watcher of one namespace, name or node costs nothing for others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// None watches every resource (garbage collector).
    pub resource: Option<Arc<str>>,
    pub namespace: Option<Arc<str>>,
    pub name: Option<Arc<str>>,
    /// An indexed field that must be equal in the previous or the new object, such as ("spec.nodeName", "n1").
    pub field: Option<(Arc<str>, Arc<str>)>,
}

/// One change: create (prev None), update (both), delete (new None; `deleted` is prev at the new revision).
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub prev: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

pub struct Watch {}
impl Watch {
    /// Next batch of matching changes, in revision order, never empty. `Gone` when this watcher fell too far behind. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Error> {
        unimplemented!()
    }
    /// Every change up to this revision has been returned by `next` (bookmarks).
    pub fn progress(&self) -> u64 {
        unimplemented!()
    }
}
