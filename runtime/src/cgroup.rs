//! Control groups, both layouts: version 2 as one tree, version 1 as one tree for each controller.
//!
//! `/coracle/<class>/pod<uid>/<container>`, as kubelet's own are (class left out for Guaranteed). Containers' groups are made by libcontainer; this is the pod's level, and what
//! is read and ended at either.

use crate::{Qos, Reclaim, Resources};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub mod pages;
mod resize;
mod stats;

pub use resize::{Limit, room};

const ROOT: &str = "/sys/fs/cgroup";
/// Kernel's period of CPU quotas, microseconds.
pub const PERIOD: u64 = 100_000;
/// The smallest weight the kernel takes, which is what a container without a request has.
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;
/// The kernel takes no quota below a millisecond.
const LEAST_QUOTA: u64 = 1000;
/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group of all that a node runs, below the root of each tree.
pub const BASE: &str = "/coracle";

/// A pod's group below the root of each tree.
pub fn of_pod(uid: &str, qos: Qos) -> PathBuf {
    let base = Path::new(BASE);
    let class = match qos {
        Qos::Guaranteed => base.to_path_buf(),
        Qos::Burstable => base.join("burstable"),
        Qos::BestEffort => base.join("besteffort"),
    };
    class.join(format!("pod{uid}"))
}

/// CPU shares of a request: 1,024 for a core.
pub fn shares(millis: Option<u64>) -> u64 {
    (millis.unwrap_or(0).saturating_mul(1024) / 1000).clamp(LEAST_SHARES, MOST_SHARES)
}

/// CPU quota of a limit, microseconds in each [`PERIOD`].
pub fn quota(millis: u64) -> u64 {
    (millis.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA)
}

/// Version 2's weight for version 1's shares, by the formula of KEP-2254.
fn weight(shares: u64) -> u64 {
    1 + shares.saturating_sub(2) * 9999 / 262_142
}

/// The machine's trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trees {
    /// One tree for each controller (some have two).
    V1(Vec<PathBuf>),
    /// One tree.
    V2(PathBuf),
}

impl Trees {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// Control groups are not mounted at `/sys/fs/cgroup`.
    pub fn find() -> io::Result<Self> {
        let root = PathBuf::from(ROOT);
        if statfs(&root)?.filesystem_type() == CGROUP2_SUPER_MAGIC {
            return Ok(Self::V2(root));
        }
        let mut trees = BTreeSet::new();
        for entry in fs::read_dir(&root)?.flatten() {
            // Names such as cpu are links where controllers share a tree.
            let Ok(path) = entry.path().canonicalize() else { continue };
            if path.join("cgroup.procs").exists() && statfs(&path).is_ok_and(|fs| fs.filesystem_type() != CGROUP2_SUPER_MAGIC) {
                trees.insert(path);
            }
        }
        if trees.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no control groups are mounted below {ROOT}")));
        }
        Ok(Self::V1(trees.into_iter().collect()))
    }

    /// Those of some controllers alone, where each has a tree of its own (in version 2 the one tree has all of them).
    #[must_use]
    pub fn of(self, controllers: &[&str]) -> Self {
        let has = |tree: &PathBuf| {
            let name = tree.file_name().unwrap_or_default().to_string_lossy();
            name.split(',').any(|controller| controllers.contains(&controller))
        };
        match self {
            Self::V1(trees) => Self::V1(trees.into_iter().filter(has).collect()),
            one @ Self::V2(_) => one,
        }
    }

    fn paths(&self, group: &Path) -> Vec<PathBuf> {
        let below = group.strip_prefix("/").unwrap_or(group);
        match self {
            Self::V1(trees) => trees.iter().map(|tree| tree.join(below)).collect(),
            Self::V2(root) => vec![root.join(below)],
        }
    }

    /// The file of that name, in the tree whose controller has it.
    fn file(&self, group: &Path, name: &str) -> Option<PathBuf> {
        self.paths(group).into_iter().map(|path| path.join(name)).find(|path| path.exists())
    }

    fn read(&self, group: &Path, name: &str) -> Option<String> {
        fs::read_to_string(self.file(group, name)?).ok()
    }

    /// Writes where the controller is there; what it refuses is an error.
    fn set(&self, group: &Path, name: &str, value: impl ToString) -> io::Result<()> {
        match self.file(group, name) {
            Some(path) => {
                let value = value.to_string();
                fs::write(&path, &value).map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))
            }
            None => Ok(()),
        }
    }

    /// Makes a pod's group with what the pod as a whole may use. `limited`: every container has the limit, so that the sums mean something.
    ///
    /// # Errors
    /// The kernel refuses the group or a value.
    pub fn make(&self, group: &Path, resources: &Resources, pids: Option<u64>) -> io::Result<()> {
        for path in self.paths(group) {
            // Twice: an agent that goes takes the empty groups above it away.
            let made = fs::create_dir_all(&path).or_else(|_| fs::create_dir_all(&path));
            made.map_err(|error| io::Error::new(error.kind(), format!("make {}: {error}", path.display())))?;
        }
        if let Self::V1(trees) = self {
            for tree in trees {
                inherit_cpuset(tree, group)?;
            }
        }
        if let Self::V2(root) = self {
            enable(root, group)?;
            // Kubernetes' default: pods do not swap (KEP-2400, NoSwap).
            self.set(group, "memory.swap.max", 0)?;
        }
        if let Some(millis) = resources.cpu_limit_millis {
            self.set_quota(group, millis)?;
        }
        if let Some(bytes) = resources.memory_limit {
            self.set_memory(group, bytes)?;
        }
        self.weigh(group, resources.cpu_request_millis)?;
        self.limit_pages(group, &resources.huge_pages)?;
        self.protect(group, resources.reclaim)?;
        match pids {
            Some(pids) => self.set(group, "pids.max", pids),
            None => Ok(()),
        }
    }

    /// Its share of the CPU beside its neighbours, by what is requested.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn weigh(&self, group: &Path, request_millis: Option<u64>) -> io::Result<()> {
        let shares = shares(request_millis);
        match self {
            Self::V1(_) => self.set(group, "cpu.shares", shares),
            Self::V2(_) => self.set(group, "cpu.weight", weight(shares)),
        }
    }

    /// What the kernel may take back of the group's memory. Version 1 has nothing of the kind.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn protect(&self, group: &Path, reclaim: Reclaim) -> io::Result<()> {
        let Self::V2(_) = self else { return Ok(()) };
        self.set(group, "memory.min", reclaim.min)?;
        self.set(group, "memory.low", reclaim.low)?;
        self.set(group, "memory.high", reclaim.high.map_or_else(|| "max".into(), |bytes| bytes.to_string()))
    }

    /// Moves this process into the group, in each tree that has it.
    ///
    /// # Errors
    /// The kernel refuses, or no tree has it, as for a container that has ended.
    pub fn enter(&self, group: &Path) -> io::Result<()> {
        // A thread that moves alone does not wait, as a process does, until no process of the machine is being forked (a grace period of the kernel's, some 15 ms).
        let alone = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
        let members = if matches!(self, Self::V1(_)) && alone { "tasks" } else { "cgroup.procs" };
        let mut entered = Err(io::ErrorKind::NotFound.into());
        for path in self.paths(group).into_iter().filter(|path| path.is_dir()) {
            fs::write(path.join(members), "0").map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            entered = Ok(());
        }
        entered
    }

    /// Moves this process to where it is, and so waits for the kernel's lock on the making of processes, as whoever moves another one does. To be had for the first time it takes a
    /// grace period, some 15 ms; who asks for it soon after does not wait.
    pub fn rehearse(&self) {
        _ = self.own().map(|own| fs::write(own.join("cgroup.procs"), "0"));
    }

    /// Where this process is, in one of the trees.
    fn own(&self) -> Option<PathBuf> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let tree = match self {
                Self::V1(trees) => trees.iter().find(|tree| tree.file_name().is_some_and(|name| name == controllers))?,
                Self::V2(root) => Some(root).filter(|_| controllers.is_empty())?,
            };
            Some(tree.join(path.trim_start_matches('/')))
        })
    }

    /// As [`enter`](Self::enter), beside the container's first process `pid`: version 2 takes no process into a group that hands controllers down, so where the container has
    /// divided its own, it is the one that the first process is in.
    ///
    /// # Errors
    /// As for [`enter`](Self::enter).
    pub fn join(&self, group: &Path, pid: i32) -> io::Result<()> {
        let refused = match self.enter(group) {
            Err(error) if matches!(self, Self::V2(_)) => error,
            done => return done,
        };
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // The number may be another's by now: nothing but a part of the container's own group counts.
        match unified_group(&groups).filter(|own| own.starts_with(group) && *own != group) {
            Some(own) => self.enter(own),
            None => Err(refused),
        }
    }

    /// Processes in the group and in those below.
    fn processes(&self, group: &Path) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for path in self.paths(group) {
            collect(&path, &mut found);
        }
        found
    }

    /// Kills everything in the group and below; returns whether it is empty. What was killed may take a moment to be gone.
    pub fn kill(&self, group: &Path) -> bool {
        let mut found = self.processes(group);
        if found.is_empty() {
            return true;
        }
        if let Self::V2(_) = self {
            // Since Linux 5.14; nothing can fork away from it.
            _ = self.set(group, "cgroup.kill", 1);
            return false;
        }
        // What does not run does not fork. (Killed, it ends when it runs again.)
        _ = self.set(group, "freezer.state", "FROZEN");
        found.append(&mut self.processes(group));
        for pid in &found {
            signal_member(group, *pid, Signal::KILL);
        }
        _ = self.set(group, "freezer.state", "THAWED");
        false
    }

    /// Sends a signal to all processes of the group.
    pub fn signal(&self, group: &Path, signal: Signal) {
        for pid in self.processes(group) {
            signal_member(group, pid, signal);
        }
    }

    /// What version 2 has for a container: the out-of-memory killer takes all of its processes, as for kubelet (`singleProcessOOMKill` is false).
    pub fn die_together(&self, group: &Path) {
        if let Self::V2(_) = self {
            _ = self.set(group, "memory.oom.group", 1);
        }
    }

    /// How much of the processors the classes have between them when there are not enough: best-effort pods next to nothing, burstable ones what they ask for together. And what of
    /// all pods' memory together stays theirs: the kernel keeps no more of a part than of the whole.
    pub fn weigh_classes(&self, burstable_millis: u64, reclaim: Reclaim) {
        for (qos, millis) in [(Qos::BestEffort, None), (Qos::Burstable, Some(burstable_millis))] {
            if let Some(class) = of_pod("", qos).parent() {
                _ = self.weigh(class, millis);
            }
        }
        _ = self.protect(Path::new(BASE), reclaim);
        if let Some(class) = of_pod("", Qos::Burstable).parent() {
            _ = self.protect(class, Reclaim { min: 0, ..reclaim });
        }
    }

    /// Takes our own groups away, as far as there is nothing in them.
    pub fn prune(&self) {
        for group in ["besteffort", "burstable", ""] {
            for path in self.paths(&Path::new(BASE).join(group)) {
                _ = fs::remove_dir(path);
            }
        }
    }

    /// Kills everything and removes the group and those below. Blocks until that is so, ten seconds at the most: what was killed is gone when it has run once more, which takes its
    /// time on a machine that has too much to do.
    ///
    /// # Errors
    /// Something could not be killed, or a group could not be removed. It may be tried again.
    pub fn end(&self, group: &Path) -> io::Result<()> {
        let late = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            // A group with processes in it is kept by the kernel.
            let removed =
                if self.kill(group) { self.paths(group).iter().try_for_each(|path| remove(path)) } else { Err(ErrorKind::ResourceBusy.into()) };
            match removed {
                Err(error) if Instant::now() >= late => {
                    let left = self.processes(group);
                    return Err(io::Error::new(error.kind(), format!("{}: {error}; processes: {left:?}", group.display())));
                }
                Err(_) => std::thread::sleep(pause),
                Ok(()) => return Ok(()),
            }
            pause = (pause * 2).min(Duration::from_millis(256));
        }
    }

    /// How often the out-of-memory killer struck in that group alone.
    pub fn oom_kills(&self, group: &Path) -> u64 {
        let name = if let Self::V2(_) = self { "memory.events" } else { "memory.oom_control" };
        let text = self.read(group, name).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Trees {
    /// Pods that have a group: uid and group.
    pub fn pods(&self) -> Vec<(String, PathBuf)> {
        let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(|qos| of_pod("", qos));
        let mut found = Vec::new();
        for class in classes.iter().filter_map(|group| group.parent()) {
            let Some(tree) = self.paths(class).into_iter().find(|path| path.is_dir()) else { continue };
            let names = fs::read_dir(tree).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
            found.extend(names.filter_map(|name| Some((name.strip_prefix("pod")?.to_owned(), class.join(&name)))));
        }
        found
    }

    /// How often processes of that group and those right below it were refused another process or thread. Some kernels count it where the limit is, others where the process is.
    pub fn refused_forks(&self, group: &Path) -> u64 {
        let Some(own) = self.file(group, "pids.events") else { return 0 };
        let below = own.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten().map(|entry| entry.path().join("pids.events"));
        std::iter::once(own.clone()).chain(below).map(|file| refused(&fs::read_to_string(file).unwrap_or_default())).sum()
    }

    /// How many processes and threads the group may have.
    pub fn most_pids(&self, group: &Path) -> Option<u64> {
        self.read(group, "pids.max")?.trim().parse().ok()
    }
}

/// What `pids.events` counts.
fn refused(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok()).unwrap_or(0)
}

/// A process's group of version 2, out of its `/proc/<pid>/cgroup`.
fn unified_group(groups: &str) -> Option<&Path> {
    let path = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    path.components().all(|part| !matches!(part, std::path::Component::ParentDir)).then_some(path)
}

/// Signals that process if it is still one of the group's: its number may have been given away.
fn signal_member(group: &Path, pid: i32, signal: Signal) {
    let held = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(held) = held else { return };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if groups.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(|path| Path::new(path).starts_with(group))) {
        _ = pidfd_send_signal(held, signal);
    }
}

fn collect(dir: &Path, found: &mut BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::new(error.kind(), format!("remove {}: {error}", dir.display()))),
        _ => Ok(()),
    }
}

/// Version 1's cpuset begins with no processor and no memory at all.
fn inherit_cpuset(tree: &Path, group: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if !tree.join(name).exists() {
            return Ok(());
        }
        let mut path = tree.to_path_buf();
        let mut value = fs::read_to_string(path.join(name))?;
        for part in group.strip_prefix("/").unwrap_or(group) {
            path.push(part);
            let own = fs::read_to_string(path.join(name))?;
            if own.trim().is_empty() {
                fs::write(path.join(name), value.trim())?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

/// Version 2 wants each controller switched on at every level above.
fn enable(root: &Path, group: &Path) -> io::Result<()> {
    let mut path = root.to_path_buf();
    for part in group.strip_prefix("/").unwrap_or(group) {
        let controllers = fs::read_to_string(path.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            // One by one: a controller that cannot be had here must not keep the others away.
            _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        path.push(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_with_what_they_were_refused() {
        let root = tempfile::tempdir().unwrap();
        let trees = Trees::V2(root.path().into());
        for (group, events) in
            [("podfree", "max 0\n"), ("burstable/podbomb", "max 0\n"), ("burstable/podbomb/main-0", "max 3\n"), ("besteffort/podold", "max 4\n")]
        {
            let dir = root.path().join("coracle").join(group);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("pids.events"), events).unwrap();
            fs::write(dir.join("pids.max"), "100\n").unwrap();
        }
        let mut pods: Vec<_> = trees.pods().into_iter().map(|(uid, group)| (trees.refused_forks(&group), trees.most_pids(&group), uid)).collect();
        pods.sort();
        assert_eq!(pods, [(0, Some(100), "free".to_owned()), (3, Some(100), "bomb".to_owned()), (4, Some(100), "old".to_owned())]);
    }

    #[test]
    fn shares_quota_and_weight_are_as_kubelet_has_them() {
        assert_eq!([shares(None), shares(Some(1)), shares(Some(250)), shares(Some(2000))], [2, 2, 256, 2048]);
        assert_eq!([quota(1), quota(500), quota(2500)], [1000, 50_000, 250_000]);
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
        assert_eq!(of_pod("u", Qos::Guaranteed), Path::new("/coracle/podu"));
        assert_eq!(of_pod("u", Qos::BestEffort), Path::new("/coracle/besteffort/podu"));
    }

    #[test]
    fn a_group_of_version_2_is_read() {
        assert_eq!(unified_group("12:cpu:/a\n0::/coracle/podu/c/init\n"), Some(Path::new("/coracle/podu/c/init")));
        assert_eq!(unified_group("12:cpu:/a\n"), None);
        assert_eq!(unified_group("0::/coracle/podu/../other"), None);
    }

    #[test]
    fn trees_are_chosen_by_controller() {
        let trees = Trees::V1(["/c/cpu,cpuacct", "/c/memory", "/c/pids", "/c/systemd"].map(PathBuf::from).to_vec());
        assert_eq!(trees.of(&["cpu", "pids"]), Trees::V1(["/c/cpu,cpuacct", "/c/pids"].map(PathBuf::from).to_vec()));
        assert_eq!(Trees::V2("/c".into()).of(&["cpu"]), Trees::V2("/c".into()));
    }
}
