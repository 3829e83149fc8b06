//! The compiler: a process of its own that reads WebAssembly and writes a native artifact.
//!
//! Compiling is the one place where a file someone sent us meets a large program, and wasmtime does not guard against exhaustion there. So it happens in
//! a process that is limited in memory and CPU time, sees no network, may not exec, and is an unprivileged uid; the agent limits
//! the time on the wall. Wasm comes in on stdin, the artifact goes out on stdout (both opened by the agent), and one line of JSON on
//! stderr says what it is or why not.

use crate::{
    agent,
    classify::{self, Verdict},
    confine, engine,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    path::PathBuf,
    time::Duration,
};

/// What one compilation may take of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Address space, bytes.
    pub memory: u64,
    /// CPU time, seconds.
    pub cpu_seconds: u64,
    /// Time on the clock.
    pub patience: Duration,
}

impl Default for Limits {
    /// A Python component (18 MB) takes about 1.5 GiB; JavaScript and Python components some 10 s on a current core.
    fn default() -> Self {
        Self { memory: 6 << 30, cpu_seconds: 180, patience: Duration::from_secs(300) }
    }
}

/// The largest wasm that is looked at.
pub const MAX_WASM: u64 = 256 << 20;

/// What the compiler says, on stderr.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The artifact is complete.
    Compiled(Verdict),
    /// It cannot run here; why, and the remedy.
    Refused(String),
    /// Nothing is known of it: the machine was the trouble (a full disk, say), and trying again may help.
    Failed(String),
}

/// The process. `group` and `drop_to` as for hosts. Returns the exit code.
pub fn main(limits: Limits, group: Option<PathBuf>, drop_to: Option<(u32, u32)>) -> i32 {
    // Where that cannot be, the agent has said so.
    _ = group.map(|group| agent::group::enter(&group));
    _ = nix::sys::prctl::set_name(c"coracle-compile");
    // Running pods come first.
    _ = rustix::process::nice(5);
    let report = match confine::compiler(drop_to, limits.memory, limits.cpu_seconds) {
        Ok(()) => compile(),
        Err(error) => Err(Report::Failed(format!("the compiler process could not be confined: {error}"))),
    };
    let (report, code) = match report {
        Ok(verdict) => (Report::Compiled(verdict), 0),
        Err(why) => (why, 3),
    };
    if let Ok(line) = serde_json::to_string(&report) {
        _ = writeln!(std::io::stderr(), "{line}");
    }
    code
}

fn compile() -> Result<Verdict, Report> {
    let failed = |what: &str, error: std::io::Error| Report::Failed(format!("{what} failed: {error}"));
    let mut wasm = Vec::new();
    std::io::stdin().lock().take(MAX_WASM + 1).read_to_end(&mut wasm).map_err(|error| failed("reading the wasm file", error))?;
    if wasm.len() as u64 > MAX_WASM {
        return Err(Report::Refused(format!("the wasm file is larger than {} MiB; strip it or split it", MAX_WASM >> 20)));
    }
    let verdict = classify::look(&wasm).map_err(Report::Refused)?;
    let engine = engine::compiler().map_err(|error| Report::Failed(format!("wasmtime could not be set up: {error:#}")))?;
    let artifact = classify::compile(&engine, &wasm, verdict.kind).map_err(Report::Refused)?;
    std::io::stdout().lock().write_all(&artifact).map_err(|error| failed("writing the artifact", error))?;
    Ok(verdict)
}
