//! Raft (openraft): the types we give it, and its storage, state machine and network.

mod log;
mod machine;
mod network;
mod thread;

pub(crate) use log::{LogStore, LogWriter};
pub(crate) use machine::{Flush, Machine};
pub(crate) use network::NoNetwork;
pub(crate) use thread::RaftThread;

use crate::{Committed, Error, Txn};
use std::fmt;
use std::sync::Arc;

/// What a log entry carries; shared, because the log keeps it until it is applied.
#[derive(Clone)]
pub(crate) struct Proposal(pub Arc<Txn>);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations", self.0.ops.len())
    }
}

/// What applying an entry gives its proposer; None for entries that carry no transaction.
pub(crate) type Outcome = Option<Result<Committed, Error>>;

#[allow(deprecated, reason = "the macro names its default runtime by a path that alpha.37 deprecates")]
mod config {
    openraft::declare_raft_types!(
        /// openraft's view of this crate.
        pub(crate) TypeConfig:
            D = super::Proposal,
            R = super::Outcome,
    );
}
pub(crate) use config::TypeConfig;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Node = openraft::alias::NodeOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
