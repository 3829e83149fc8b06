//! A container's control groups where they are of version 1: made, entered and shown by the worker.
//!
//! libcontainer would do all of that, too. But for each of twelve controllers it reads the table of mounts and its own groups again, then waits at each until no process of the machine
//! is being forked, and takes thirty system calls to show each to the container, for writing. So it is handed one of the trees as if that were the one of version 2.

use crate::{cgroup::Trees, config::devices::Rule, rootfs::said, volumes};
use coracle_runtime::{Mount, Resources};
use rustix::mount::{MountFlags, mount, mount_bind};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Where the machine's trees are, and where libcontainer looks for them.
const ROOT: &str = "/sys/fs/cgroup";
/// The controllers whose groups a container has.
const CONTROLLERS: [&str; 12] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "perf_event", "pids"];
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A container's groups, one in each tree.
pub struct Groups<'a> {
    /// That of memory first, so that what the worker takes itself is not the container's.
    trees: Vec<PathBuf>,
    /// Below the root of each.
    group: &'a Path,
}

impl<'a> Groups<'a> {
    /// None in version 2, where libcontainer does well.
    pub fn of(trees: &Trees, group: &'a Path) -> Option<Self> {
        let Trees::V1(mut trees) = trees.clone().of(&CONTROLLERS) else { return None };
        trees.sort_by_key(|tree| !tree.ends_with("memory"));
        Some(Self { trees, group })
    }

    fn below(&self) -> &Path {
        self.group.strip_prefix("/").unwrap_or(self.group)
    }

    /// Makes them, with what the container may use.
    ///
    /// # Errors
    /// The kernel refuses a group or a value.
    pub fn make(&self, resources: &Resources, devices: &[Rule]) -> io::Result<()> {
        Trees::V1(self.trees.clone()).make(self.group, resources, None)?;
        let Some(tree) = self.trees.iter().find(|tree| tree.ends_with("devices")) else { return Ok(()) };
        let open = |name: &str| {
            let path = tree.join(self.below()).join(name);
            OpenOptions::new().write(true).open(&path).map_err(|error| said("open", &path, error))
        };
        let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
        for rule in devices {
            // The kernel takes one rule in each write.
            let file: &mut File = if rule.allow { &mut allow } else { &mut deny };
            file.write_all(rule.line().as_bytes())
                .map_err(|error| io::Error::other(format!("devices of the control group: {}: {error}", rule.line())))?;
        }
        Ok(())
    }

    /// Puts together at `place`, in the worker's mounts, what the container sees of them, as runc shows it: a directory for each tree, which is its own part of it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn show(&self, place: &Path, writable: bool) -> io::Result<()> {
        fs::create_dir_all(place)?;
        mount("cgroup", place, "tmpfs", FLAGS, Some(c"mode=755,size=64k")).map_err(|error| said("mount at", place, error))?;
        for tree in &self.trees {
            let own = Mount { host_path: tree.join(self.below()), recursive_read_only: !writable, ..Mount::default() };
            let target = place.join(tree.file_name().unwrap_or_default());
            fs::create_dir(&target)?;
            volumes::attach(&own, None, &target)?;
        }
        // Controllers that share a tree are links to it.
        for entry in fs::read_dir(ROOT)?.flatten() {
            if entry.file_type()?.is_symlink() {
                symlink(fs::read_link(entry.path())?, place.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// Moves this process into them and leaves one for libcontainer to move its own into, which it also empties and removes when it fails. That one is mounted below `place`, and over
    /// the others, in the worker's mounts, the tree of version 2. Returns what to tell libcontainer for a path.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn hand_over(&self, place: &Path) -> io::Result<PathBuf> {
        let (handed, entered) = self.trees.split_first().ok_or_else(|| io::Error::other("the machine has no control groups of version 1"))?;
        if !entered.is_empty() {
            Trees::V1(entered.to_vec()).enter(self.group)?;
        }
        let (pod, name) = (self.below().parent().unwrap_or(Path::new("")), self.below().file_name().unwrap_or_default());
        fs::create_dir_all(place)?;
        mount_bind(handed.join(pod), place).map_err(|error| said("mount at", place, error))?;
        mount("cgroup2", ROOT, "cgroup2", FLAGS, None).map_err(|error| said("mount control groups of version 2 at", Path::new(ROOT), error))?;
        // It is taken as one below that.
        let up = Path::new(ROOT).components().skip(1).map(|_| "..").collect::<PathBuf>();
        Ok(Path::new("/").join(up).join(place.strip_prefix("/").unwrap_or(place)).join(name))
    }
}
