//! What a container sees of its control groups where they are of version 1: at `/sys/fs/cgroup` a directory for each tree, which is the container's own part of it.
//!
//! As runc shows them. libcontainer would, too, but for writing, and with thirty system calls for each directory.

use crate::{cgroup::Trees, rootfs::said, volumes};
use coracle_runtime::Mount;
use rustix::mount::{MountFlags, mount};
use std::{fs, io, os::unix::fs::symlink, path::Path};

/// The controllers whose groups libcontainer moves a container into.
const CONTROLLERS: [&str; 12] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "perf_event", "pids"];

/// Puts them together at `place`, in the worker's mounts; whether there is anything to see. The group is made, if need be.
///
/// # Errors
/// The kernel refuses.
pub fn place(trees: &Trees, group: &Path, place: &Path, writable: bool) -> io::Result<bool> {
    let Trees::V1(list) = trees.clone().of(&CONTROLLERS) else { return Ok(false) };
    fs::create_dir_all(place)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("cgroup", place, "tmpfs", flags, Some(c"mode=755,size=64k")).map_err(|error| said("mount at", place, error))?;
    let below = group.strip_prefix("/").unwrap_or(group);
    for tree in &list {
        let own = Mount { host_path: tree.join(below), recursive_read_only: !writable, ..Mount::default() };
        let target = place.join(tree.file_name().unwrap_or_default());
        fs::create_dir_all(&own.host_path).map_err(|error| said("make", &own.host_path, error))?;
        fs::create_dir(&target)?;
        volumes::attach(&own, None, &target)?;
    }
    // Controllers that share a tree are links to it.
    for entry in list.first().and_then(|tree| tree.parent()).map(fs::read_dir).transpose()?.into_iter().flatten().flatten() {
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, place.join(entry.file_name()))?;
        }
    }
    Ok(true)
}
