//! Groups that run are given other limits.

use super::{PERIOD, Trees, quota};
use crate::Resources;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Version 1 says "no limit" with the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

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
        let Some(wanted) = wanted.filter(|wanted| self.memory_limit(group).is_none_or(|now| now > *wanted)) else { return Ok(()) };
        let name = if let Self::V2(_) = self { "memory.current" } else { "memory.usage_in_bytes" };
        match self.read(group, name).and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(used) if used >= wanted => Err(io::Error::other(format!(
                "cannot decrease memory limits: attempting to set {what} memory limit ({wanted}) below current usage ({used})"
            ))),
            _ => Ok(()),
        }
    }

    fn memory_limit(&self, group: &Path) -> Option<u64> {
        let name = if let Self::V2(_) = self { "memory.max" } else { "memory.limit_in_bytes" };
        self.read(group, name)?.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
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
