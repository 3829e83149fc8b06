//! Groups that run are given other limits.

use super::{PERIOD, Trees, quota};
use crate::Resources;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Version 1 says "no limit" with the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

/// Refuses a limit of memory that is lower than it was and no more than what is used, in kubelet's words. `limits`: as it is, and as it is to be.
///
/// # Errors
/// Says so.
pub fn room(what: &str, limits: (Option<u64>, Option<u64>), used: Option<u64>) -> Result<(), String> {
    match (limits, used) {
        ((now, Some(wanted)), Some(used)) if now.is_none_or(|now| now > wanted) && used >= wanted => {
            Err(format!("cannot decrease memory limits: attempting to set {what} memory limit ({wanted}) below current usage ({used})"))
        }
        _ => Ok(()),
    }
}

/// Bytes, out of the file of a limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
}

/// This process's own limit of memory, which it may read when it sees no files any more.
#[derive(Debug)]
pub struct Limit(File);

impl Limit {
    /// Of the group that it is in.
    ///
    /// # Errors
    /// There are no groups of memory here, or it is in none.
    pub fn own() -> io::Result<Self> {
        let trees = Trees::find()?.of(&["memory"]);
        let own = trees.own().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this process is in no control group of memory"))?;
        Ok(Self(File::open(own.join(trees.of_memory()))?))
    }

    /// As it is now; none: there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn now(&self) -> io::Result<Option<u64>> {
        let mut text = [0; 32];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(limit(&String::from_utf8_lossy(text.get(..length).unwrap_or_default())))
    }
}

impl Trees {
    /// Gives a pod's group and its containers' groups other limits and weights; what is not said stays as it is. A part never has more than the whole (version 1 refuses that for
    /// processor time), so what grows grows from above, and what shrinks from below.
    ///
    /// # Errors
    /// A limit of memory that is no more than what is used: then nothing is changed. Or the kernel refuses.
    pub fn resize(&self, pod: (&Path, &Resources), containers: &[(PathBuf, Resources)]) -> io::Result<()> {
        let (group, whole) = pod;
        self.room(group, whole.memory_limit, "pod")?;
        for (group, resources) in containers {
            let name = group.file_name().unwrap_or_default().to_string_lossy();
            self.room(group, resources.memory_limit, &format!("container {:?}", name.rsplit_once('-').map_or(&*name, |(name, _)| name)))?;
        }
        if let Some(bytes) = whole.memory_limit.filter(|bytes| self.memory_limit(group).is_some_and(|now| now < *bytes)) {
            self.set_memory(group, bytes)?;
        }
        if let Some(millis) = whole.cpu_limit_millis.filter(|millis| self.quota(group).is_some_and(|now| now < quota(*millis))) {
            self.set_quota(group, millis)?;
        }
        for (group, resources) in containers {
            self.limit(group, resources)?;
        }
        self.limit(group, whole)
    }

    fn limit(&self, group: &Path, resources: &Resources) -> io::Result<()> {
        if let Some(bytes) = resources.memory_limit {
            self.set_memory(group, bytes)?;
        }
        if let Some(millis) = resources.cpu_limit_millis {
            self.set_quota(group, millis)?;
        }
        self.weigh(group, resources.cpu_request_millis)?;
        self.protect(group, resources.reclaim)
    }

    /// A limit below what is used would have the kernel kill for it.
    fn room(&self, group: &Path, wanted: Option<u64>, what: &str) -> io::Result<()> {
        let name = if let Self::V2(_) = self { "memory.current" } else { "memory.usage_in_bytes" };
        let used = self.read(group, name).and_then(|text| text.trim().parse().ok());
        room(what, (self.memory_limit(group), wanted), used).map_err(io::Error::other)
    }

    /// Gives a group that has a limit of memory so much more.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn widen(&self, group: &Path, more: u64) -> io::Result<()> {
        self.memory_limit(group).map_or(Ok(()), |now| self.set_memory(group, now.saturating_add(more)))
    }

    fn memory_limit(&self, group: &Path) -> Option<u64> {
        limit(&self.read(group, self.of_memory())?)
    }

    /// The file that has a group's limit of memory.
    fn of_memory(&self) -> &'static str {
        if let Self::V2(_) = self { "memory.max" } else { "memory.limit_in_bytes" }
    }

    fn quota(&self, group: &Path) -> Option<u64> {
        let name = if let Self::V2(_) = self { "cpu.max" } else { "cpu.cfs_quota_us" };
        self.read(group, name)?.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn set_memory(&self, group: &Path, bytes: u64) -> io::Result<()> {
        if let Self::V2(_) = self {
            return self.set(group, "memory.max", bytes);
        }
        // Memory and swap together is never less than memory. Not every kernel counts it.
        let grows = self.memory_limit(group).is_some_and(|now| now < bytes);
        let both = "memory.memsw.limit_in_bytes";
        let names = if grows { [both, "memory.limit_in_bytes"] } else { ["memory.limit_in_bytes", both] };
        names.into_iter().try_for_each(|name| self.set(group, name, bytes))
    }

    pub(super) fn set_quota(&self, group: &Path, millis: u64) -> io::Result<()> {
        match self {
            Self::V2(_) => self.set(group, "cpu.max", format!("{} {PERIOD}", quota(millis))),
            Self::V1(_) => {
                self.set(group, "cpu.cfs_period_us", PERIOD)?;
                self.set(group, "cpu.cfs_quota_us", quota(millis))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_limit_is_lowered_to_more_than_what_is_used_only() {
        let mib = |count: u64| Some(count << 20);
        assert_eq!(room("pod", (mib(64), mib(32)), mib(31)), Ok(()));
        assert_eq!(room("pod", (mib(64), mib(128)), mib(200)), Ok(()), "it grows");
        assert_eq!(room("pod", (mib(64), None), mib(64)), Ok(()), "nothing is said of it");
        assert_eq!(room("pod", (mib(64), mib(32)), None), Ok(()), "nobody knows");
        let why = "cannot decrease memory limits: attempting to set pod memory limit (33554432) below current usage (33554432)";
        assert_eq!([room("pod", (mib(64), mib(32)), mib(32)), room("pod", (None, mib(32)), mib(32))], [Err(why.to_owned()), Err(why.to_owned())]);
    }

    #[test]
    fn what_has_a_limit_is_widened() {
        let root = tempfile::tempdir().unwrap();
        let trees = Trees::V2(root.path().into());
        for (group, before, after) in [("bounded", "1000\n", "1200"), ("free", "max\n", "max\n")] {
            let file = root.path().join(group).join("memory.max");
            fs::create_dir(root.path().join(group)).unwrap();
            fs::write(&file, before).unwrap();
            trees.widen(Path::new(group), 200).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
        }
    }
}
