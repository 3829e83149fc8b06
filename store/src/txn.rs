//! Transactions: compare-and-set over several keys, all or nothing.

use crate::{Draft, Error, Key, Object};
use std::collections::HashSet;
use std::sync::Arc;

/// Most operations of one transaction.
pub const MAX_OPS: usize = 128;
/// Most bytes of one transaction (documents, keys and metadata).
pub const MAX_BYTES: usize = 8 << 20;

/// A precondition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must be at this revision.
    Revision(u64),
    /// No condition.
    Any,
}

impl Expect {
    pub(crate) fn holds(&self, current: Option<&Arc<Object>>) -> bool {
        match self {
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.is_some_and(|o| o.revision == *revision),
            Expect::Any => true,
        }
    }
}

/// One operation. Preconditions of all operations are checked against the state before the transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Write a document. Writing what is stored already is no write: the object keeps its revision.
    Put {
        /// Where.
        key: Key,
        /// Precondition.
        expect: Expect,
        /// What.
        draft: Draft,
    },
    /// Remove a document. Removing what is absent (with [`Expect::Any`]) changes nothing.
    Delete {
        /// Where.
        key: Key,
        /// Precondition.
        expect: Expect,
    },
    /// Only a precondition on another key.
    Check {
        /// Where.
        key: Key,
        /// Precondition.
        expect: Expect,
    },
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => key,
        }
    }
    /// Its precondition.
    pub fn expect(&self) -> &Expect {
        match self {
            Op::Put { expect, .. } | Op::Delete { expect, .. } | Op::Check { expect, .. } => expect,
        }
    }
}

/// All ops or none; all changed objects get the same new revision. At most [`MAX_OPS`] ops and [`MAX_BYTES`] bytes; a key may be written once.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// The operations, in the order of [`Committed::objects`].
    pub ops: Vec<Op>,
}

impl Txn {
    /// Bytes it takes in memory and in the log, roughly.
    pub(crate) fn weight(&self) -> usize {
        let op = |op: &Op| {
            let key = op.key();
            let draft = if let Op::Put { draft, .. } = op { draft.json.len() + draft.meta.weight() } else { 0 };
            key.resource.len() + key.namespace.len() + key.name.len() + 64 + draft
        };
        self.ops.iter().map(op).sum()
    }

    /// Whether it only takes away, which is what a full disk needs.
    pub(crate) fn only_deletes(&self) -> bool {
        self.ops.iter().all(|op| !matches!(op, Op::Put { .. }))
    }

    /// What the proposer must get right, so that applying cannot meet it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.ops.len() > MAX_OPS {
            return Err(Error::TooLarge(format!("{} operations; split it, at most {MAX_OPS} are taken at once", self.ops.len())));
        }
        let weight = self.weight();
        if weight > MAX_BYTES {
            return Err(Error::TooLarge(format!("{weight} bytes; at most {MAX_BYTES} are taken at once")));
        }
        let mut written = HashSet::new();
        for op in &self.ops {
            let key = op.key();
            if [&key.resource, &key.namespace, &key.name].iter().any(|part| part.contains('\0')) {
                return Err(Error::Failed(format!("the key {key:?} holds a NUL character")));
            }
            if !matches!(op, Op::Check { .. }) && self.ops.len() > 1 && !written.insert(key) {
                return Err(Error::Failed(format!("{key} is written twice in one transaction")));
            }
            if let Op::Put { draft, .. } = op
                && draft.hole as usize > draft.json.len()
            {
                return Err(Error::Failed(format!("{key}: the hole at {} is past the end of a document of {} bytes", draft.hole, draft.json.len())));
            }
        }
        Ok(())
    }
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision it made, or, when it changed nothing, the revision it found.
    pub revision: u64,
    /// One per op: the object written; for a delete the deleted object at the new revision; for a check None.
    pub objects: Vec<Option<Arc<Object>>>,
}
