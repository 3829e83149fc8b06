//! What is left of pods on disk and in the kernel: found after a restart, removed at the end.

use crate::{
    cgroup::{Trees, of_pod},
    shim::STATE,
    wire::Pod,
};
use coracle_runtime::{Qos, remove::remove_tree};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a shim wrote down.
pub fn read(state: &Path) -> Option<Pod> {
    serde_json::from_slice(&fs::read(state).ok()?).ok()
}

/// Every pod that has or had a shim, with the shim's directory.
pub fn pods(data_dir: &Path) -> Vec<(PathBuf, Pod)> {
    let entries = fs::read_dir(data_dir.join("pods")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let dir = entry.path().join("runtime/oci");
            read(&dir.join(STATE)).map(|pod| (dir, pod))
        })
        .collect()
}

/// A shim that does not end when it is asked to.
pub fn kill_shim(pid: i32) {
    let Some(held) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    // Looked at while it is held: the number may have been given away before.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() == "coracle-shim" {
        _ = pidfd_send_signal(held, Signal::KILL);
    }
}

/// Everything of a pod. Mounts, namespaces and devices were its processes' own and go with them. Blocks.
///
/// # Errors
/// A process that cannot be killed, or the file system's.
pub fn remove(trees: &Trees, group: &Path, dir: &Path) -> io::Result<()> {
    trees.end(group)?;
    remove_tree(dir)
}

/// The same for a pod of which nothing was written down, so that its class is not known. Blocks.
///
/// # Errors
/// As for [`remove`].
pub fn remove_unknown(trees: &Trees, uid: &str, dir: &Path) -> io::Result<()> {
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        trees.end(&of_pod(uid, qos))?;
    }
    remove_tree(dir)
}

/// Everything of a container but its log. Blocks.
///
/// # Errors
/// As for [`remove`].
pub fn remove_container(trees: &Trees, group: &Path, bundle: &Path) -> io::Result<()> {
    trees.end(group)?;
    remove_tree(bundle)
}
