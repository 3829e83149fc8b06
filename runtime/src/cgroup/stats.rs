//! What a group used, as cAdvisor and kubelet read it from the kernel's files (cgroup-v1/memory, cgroup-v2 in the kernel's documentation).

use super::Trees;
use crate::{Stats, stats::Group};
use std::{collections::HashMap, path::Path};

/// The files of one group.
#[derive(Debug, Default)]
struct Files {
    /// Version 1: `cpuacct.usage`, nanoseconds.
    cpuacct: Option<u64>,
    cpu_stat: HashMap<String, u64>,
    memory_usage: Option<u64>,
    memory_peak: Option<u64>,
    memory_stat: HashMap<String, u64>,
    /// Version 1: `memory.failcnt`.
    failures: Option<u64>,
    /// `memory.oom_control` or `memory.events`.
    events: HashMap<String, u64>,
    pids: Option<u64>,
}

impl Trees {
    /// What the group and those below it used so far and use now; nothing where it is not there.
    pub fn stats(&self, group: &Path) -> Option<Stats> {
        let number = |name: &str| self.read(group, name)?.trim().parse::<u64>().ok();
        let table = |name: &str| table(&self.read(group, name).unwrap_or_default());
        let two = matches!(self, Self::V2(_));
        let files = Files {
            cpuacct: if two { None } else { number("cpuacct.usage") },
            cpu_stat: table("cpu.stat"),
            memory_usage: number(if two { "memory.current" } else { "memory.usage_in_bytes" }),
            memory_peak: number(if two { "memory.peak" } else { "memory.max_usage_in_bytes" }),
            memory_stat: table("memory.stat"),
            failures: if two { None } else { number("memory.failcnt") },
            events: table(if two { "memory.events" } else { "memory.oom_control" }),
            pids: number("pids.current"),
        };
        files.stats(group, two)
    }
}

impl Files {
    fn stats(&self, group: &Path, two: bool) -> Option<Stats> {
        let get = |map: &HashMap<String, u64>, one: &str, other: &str| map.get(if two { other } else { one }).copied().unwrap_or(0);
        let memory = |one: &str, other: &str| get(&self.memory_stat, one, other);
        let usage_bytes = self.memory_usage?;
        let throttled = get(&self.cpu_stat, "throttled_time", "throttled_usec").saturating_mul(if two { 1000 } else { 1 });
        let cpu_nanos = match self.cpuacct {
            Some(nanos) => nanos,
            None => self.cpu_stat.get("usage_usec")?.saturating_mul(1000),
        };
        Some(Stats {
            cpu_nanos,
            memory_bytes: usage_bytes.saturating_sub(memory("total_inactive_file", "inactive_file")),
            group: Some(Group {
                path: group.to_path_buf(),
                usage_bytes,
                peak_bytes: self.memory_peak.unwrap_or(0),
                rss_bytes: memory("total_rss", "anon"),
                cache_bytes: memory("total_cache", "file"),
                mapped_bytes: memory("total_mapped_file", "file_mapped"),
                faults: (memory("total_pgfault", "pgfault"), memory("total_pgmajfault", "pgmajfault")),
                memory_limit_hits: self.failures.or_else(|| self.events.get("max").copied()).unwrap_or(0),
                oom_kills: self.events.get("oom_kill").copied().unwrap_or(0),
                throttled: (get(&self.cpu_stat, "nr_periods", "nr_periods"), get(&self.cpu_stat, "nr_throttled", "nr_throttled"), throttled),
                tasks: self.pids.unwrap_or(0),
            }),
            written: None,
        })
    }
}

/// Lines of a name and a number.
fn table(text: &str) -> HashMap<String, u64> {
    text.lines().filter_map(|line| line.split_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let one = Files {
            cpuacct: Some(5_000),
            cpu_stat: table("nr_periods 3\nnr_throttled 2\nthrottled_time 9000\n"),
            memory_usage: Some(100),
            memory_peak: Some(200),
            memory_stat: table(
                "rss 1\ntotal_rss 40\ntotal_cache 50\ntotal_mapped_file 7\ntotal_pgfault 8\ntotal_pgmajfault 9\ntotal_inactive_file 30\n",
            ),
            failures: Some(4),
            events: table("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            pids: Some(6),
        };
        let two = Files {
            cpuacct: None,
            cpu_stat: table("usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 9\n"),
            memory_stat: table("anon 40\nfile 50\nfile_mapped 7\npgfault 8\npgmajfault 9\ninactive_file 30\n"),
            failures: None,
            events: table("low 0\nmax 4\noom 2\noom_kill 1\n"),
            ..Files { memory_usage: Some(100), memory_peak: Some(200), pids: Some(6), ..Files::default() }
        };
        let (one, two) = (one.stats(Path::new("/g"), false).unwrap(), two.stats(Path::new("/g"), true).unwrap());
        assert_eq!(one, two);
        assert_eq!((one.cpu_nanos, one.memory_bytes), (5_000, 70));
        let group = one.group.unwrap();
        assert_eq!((group.rss_bytes, group.memory_limit_hits, group.throttled, group.tasks), (40, 4, (3, 2, 9000), 6));
        assert_eq!(Files::default().stats(Path::new("/g"), true), None);
    }
}
