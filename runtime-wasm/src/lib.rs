//! Pods as WebAssembly components.
//!
//! Three kinds of process. The **agent** ([`WasmRuntime`], in the node's process) has power and runs no guest: it opens listeners, logs, volumes and
//! artifacts and passes descriptors on. The **supervisor** ([`supervisor`]) is a small parent that holds those descriptors and keeps the hosts alive. The
//! **hosts** ([`host`]), one a core, run the guests, unprivileged and confined, and see nothing but what was passed to them. A fourth, the
//! **compiler** ([`compile`]), lives as long as one compilation. A component in a pod
//! that is also of processes has a host of its own ([`container`]), whose parent is that pod's shim. The agent may die or be replaced at any time: functions go on answering, and
//! the next agent finds them through the supervisor's socket.
//!
//! All of them are the same binary: its `main` must call [`hidden_command`] before it starts a thread or anything heavy.

pub mod agent;
pub mod artifact;
pub mod classify;
pub mod compile;
mod confine;
pub mod container;
pub mod engine;
pub mod host;
pub mod ledger;
pub mod supervisor;
pub mod wire;

pub use agent::{Options, WasmRuntime};

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The hidden subcommand of the small parent.
pub const SUPERVISOR: &str = "wasm-supervisor";
/// The hidden subcommand of the compiler.
pub const COMPILER: &str = "wasm-compiler";

/// The hidden subcommand of a host in a pod of processes.
pub const CONTAINER: &str = "wasm-container";

/// What the hidden subcommands are told at the end of their command lines: the control group to enter, the user and group to become.
fn place(group: Option<&Path>, drop_to: Option<(u32, u32)>) -> Vec<OsString> {
    let mut args = vec![group.map_or_else(|| "-".into(), |path| path.as_os_str().to_owned())];
    args.extend(drop_to.into_iter().flat_map(|(uid, gid)| [uid.to_string().into(), gid.to_string().into()]));
    args
}

/// Runs one of this crate's processes if the command line (program name first) asks for one; returns its exit code when it is over.
/// To be called first thing in `main`: the supervisor forks, which only a process with one thread may.
pub fn hidden_command(args: impl IntoIterator<Item = OsString>) -> Option<i32> {
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    let name = args.first()?.to_str()?;
    let number = |at: usize| args.get(at).and_then(|arg| arg.to_str()).and_then(|arg| arg.parse::<u32>().ok());
    let drop_to = |at: usize| number(at).zip(number(at + 1));
    let group = |at: usize| args.get(at).filter(|arg| *arg != "-").map(PathBuf::from);
    match name {
        SUPERVISOR => {
            let (Some(run_dir), Some(hosts), Some(engine)) = (args.get(1), number(2), args.get(3)) else { return Some(2) };
            let (run_dir, engine) = (PathBuf::from(run_dir), engine.to_string_lossy().into_owned());
            Some(supervisor::main(supervisor::Setup { run_dir, hosts: hosts.max(1) as usize, engine, group: group(4), drop_to: drop_to(5) }))
        }
        COMPILER => {
            let word = |at: usize| args.get(at).and_then(|arg| arg.to_str()).and_then(|arg| arg.parse::<u64>().ok());
            let (Some(memory), Some(cpu_seconds)) = (word(1), word(2)) else { return Some(2) };
            let limits = compile::Limits { memory, cpu_seconds, ..Default::default() };
            Some(compile::main(limits, group(3), drop_to(4)))
        }
        CONTAINER => Some(container::main()),
        _ => None,
    }
}
