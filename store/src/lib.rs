//! Raft, revisions, snapshots and watch. Knows bytes and keys, not kinds.
//!
//! A write is a [`Txn`]: proposed, put in the log (`log.bin`; concurrent writes share its fsync, the only one a write waits for), then applied in memory to
//! persistent ordered maps. Every change gets the next revision, which is our own counter and the `resourceVersion` clients see. Readers hold a [`Snapshot`];
//! watchers get every [`Change`] that matches their [`Scope`], or [`Error::Gone`], never silence. The state on disk (`state.redb`) follows behind in steps, and
//! the log is cut only below it.
//!
//! Rejected: reading from disk (a cluster's objects fit in memory, and must be served at memory's speed), and the log index as revision (restoring a backup must
//! be able to move it forward, and entries that change nothing must not).

mod ballast;
mod disk;
mod error;
mod history;
mod hub;
mod object;
mod raft;
#[doc(hidden)]
pub mod record;
mod root;
mod snapshot;
mod state_file;
mod store;
mod txn;
mod watch;

pub use disk::Fatal;
pub use error::Error;
pub use object::{Change, Draft, Key, Meta, Object};
pub use snapshot::Snapshot;
pub use store::{Options, Seams, Stats, Store};
pub use txn::{Committed, Expect, MAX_BYTES, MAX_OPS, Op, Txn};
pub use watch::{Scope, Watch};
