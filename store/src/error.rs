//! What can go wrong, with what was tried and what to do.

use crate::Object;
use std::sync::Arc;

/// Errors of the store. `Precondition` and `Gone` are part of normal life; the others name their remedy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Op `op` failed its precondition; `current` is what is there now. Retry from `current`.
    #[error("precondition of operation {op} failed")]
    Precondition {
        /// Index in `Txn::ops`.
        op: usize,
        /// What is there now.
        current: Option<Arc<Object>>,
    },
    /// The revision is no longer (or not yet) held: 410 for clients. List anew.
    #[error("revision {wanted} is not held (the oldest is {oldest})")]
    Gone {
        /// The revision asked for.
        wanted: u64,
        /// The oldest that could have been asked for.
        oldest: u64,
    },
    /// This member cannot take writes now; retry with the leader.
    #[error("this member is not the leader; retry with the leader")]
    NotLeader,
    /// Split the transaction.
    #[error("transaction too large: {0}")]
    TooLarge(String),
    /// Nothing was written; free space, then retry. Deletions are accepted a little longer than writes.
    #[error("the disk under the data directory is full: {0}")]
    DiskFull(String),
    /// The store is shutting down. What had been proposed and was not answered may or may not have taken place.
    #[error("the store is shutting down")]
    Closed,
    /// Anything else, said in full.
    #[error("{0}")]
    Failed(String),
}
