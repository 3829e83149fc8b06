//! A root of its own for a host alone: nothing of the machine's files is there, not even by name. What it needs it has as descriptors.
//!
//! One thing is there: a /proc, since descriptors are opened again and written pages are found through it. It shows who may be traced, which is this process alone
//! (where the kernel has Landlock; in a PID namespace of its own nobody else is there at all), nothing of the machine, and nothing that can be written.

use nix::{
    mount::{MntFlags, umount2},
    unistd::{chdir, pivot_root},
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount},
    thread::UnshareFlags,
};
use std::{fs, io};

/// Where it is mounted before nothing else is left: a place that every machine has.
const PLACE: &str = "/proc";

/// Leaves the root that this process began with, for good. As root, in a process with one thread.
pub fn leave() -> io::Result<()> {
    // SAFETY: there is one thread, and FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("host", PLACE, "tmpfs", flags, Some(c"size=4k,nr_inodes=2,mode=555"))?;
    let proc = format!("{PLACE}/proc");
    fs::create_dir(&proc)?;
    mount("proc", &proc, "proc", flags | MountFlags::RDONLY, Some(c"hidepid=ptraceable,subset=pid"))?;
    mount_remount(PLACE, flags | MountFlags::RDONLY, c"")?;
    chdir(PLACE)?;
    // The old root is put over the new one, and is taken away from there: pivot_root(2).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}
