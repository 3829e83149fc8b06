//! Pods as OCI containers, on youki's `libcontainer`.
//!
//! Four kinds of process. The **agent** ([`OciRuntime`], in the node's process) never makes a container: it has threads, and libcontainer changes what belongs to the whole process. The **nursery** ([`nursery`]) is a small process of the agent's that forks a
//! **shim** ([`shim`]) for each pod: parent of the pod's containers, in the pod's namespaces, holder of their streams; it outlives the agent. A **worker**
//! ([`worker`]) is a fork of the shim that makes one container and goes.
//!
//! All of them are the same binary: its `main` must call [`hidden_command`] before it starts a thread or anything heavy.

pub mod agent;
pub mod config;
pub mod groups;
pub mod image;
pub mod nursery;
pub mod rootfs;
pub mod shim;
pub mod user;
pub mod volumes;
pub mod wire;
pub mod worker;

pub use agent::{OciRuntime, Options};
pub use coracle_runtime::cgroup;

use std::ffi::OsString;

/// The hidden subcommand of the shims' parent.
pub const SHIM: &str = "shim";

/// Runs one of this crate's processes if the command line (program name first) asks for one; returns its exit code when it is over.
/// To be called first thing in `main`: these processes fork, which only a process with one thread may.
pub fn hidden_command(args: impl IntoIterator<Item = OsString>) -> Option<i32> {
    (args.into_iter().nth(1)? == SHIM).then(nursery::main)
}
