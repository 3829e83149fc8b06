//! The control group of the hosts: their share of the CPU, and how many threads they may be.
//!
//! One for the supervisor, its hosts and the compilers of a data directory, beside the groups of OCI pods: `/coracle/wasm-<device>-<inode>`. Not one for each pod: all
//! pods share the hosts, where epochs share the CPU out among them, wasmtime bounds their memory and guests cannot make threads. Not the memory controller's either: what hosts
//! may use is the sum of what their pods may.

use coracle_runtime::{Resources, cgroup};
use parking_lot::Mutex;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Version 1's controllers that are used; version 2 has one tree.
const CONTROLLERS: [&str; 3] = ["cpu", "cpuacct", "pids"];
/// What starting pods and answering probes gets beside neighbours that request much, in thousandths of a core; what pods request comes on top.
const FLOOR: u64 = 250;
/// Threads that one host, or one compiler, may have.
const THREADS: u64 = 64;

fn trees() -> io::Result<cgroup::Trees> {
    cgroup::Trees::find().map(|trees| trees.of(&CONTROLLERS))
}

/// Moves the calling process into the group of that name.
///
/// # Errors
/// The kernel refuses it, or there are no groups here.
pub fn enter(path: &Path) -> io::Result<()> {
    trees()?.enter(path)
}

/// See the module.
pub struct Group {
    trees: cgroup::Trees,
    /// Below the root of each tree.
    pub path: PathBuf,
    requested: Mutex<u64>,
}

impl Group {
    /// Makes the group of a run directory's hosts, or finds it.
    ///
    /// # Errors
    /// Groups are not mounted, or may not be written.
    pub fn make(run_dir: &Path, hosts: usize) -> io::Result<Self> {
        let trees = trees()?;
        let place = fs::metadata(run_dir)?;
        let path = Path::new(cgroup::BASE).join(format!("wasm-{:x}-{:x}", place.dev(), place.ino()));
        let resources = Resources { cpu_request_millis: Some(FLOOR), ..Resources::default() };
        // The supervisor, a compiler for every two hosts, and one to spare.
        let processes = hosts as u64 + hosts.div_ceil(2) as u64 + 2;
        trees.make(&path, &resources, Some(processes * THREADS))?;
        Ok(Self { trees, path, requested: Mutex::new(0) })
    }

    /// What all pods request together, in thousandths of a core.
    pub fn weigh(&self, requested: u64) {
        let mut before = self.requested.lock();
        if *before == requested {
            return;
        }
        *before = requested;
        if let Err(error) = self.trees.weigh(&self.path, Some(FLOOR.saturating_add(requested))) {
            tracing::warn!(%error, "the CPU share of the wasm hosts stays what it was");
        }
    }

    /// Ends what is left in the group, and the group. Blocks, for some seconds at the most.
    pub fn end(&self) {
        if let Err(error) = self.trees.end(&self.path) {
            tracing::warn!(%error, "the control group of the wasm hosts is left behind");
        }
    }
}
