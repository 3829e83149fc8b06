//! What processes use: proportional memory and processor time, as the kernel counts them.

use anyhow::{Context, Result};
use std::{fs, time::Duration};

/// Proportional set size of the processes, in KiB.
pub fn pss(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| one(*pid)).sum()
}

fn one(pid: u32) -> Result<u64> {
    sum(&format!("/proc/{pid}/smaps_rollup"), &["Pss:"])
}

/// What no other process has, in KiB.
pub fn private(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| sum(&format!("/proc/{pid}/smaps_rollup"), &["Private_Clean:", "Private_Dirty:"])).sum()
}

/// What the kernel holds for processes, namespaces, devices and control groups, in KiB.
pub fn kernel() -> Result<u64> {
    sum("/proc/meminfo", &["Slab:", "KernelStack:", "PageTables:", "Percpu:"])
}

/// Sum of the lines of a file of /proc that begin so.
fn sum(file: &str, names: &[&str]) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let one = |name: &&str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {file}"))?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()?)
    };
    names.iter().map(one).sum()
}

/// User and system time of the processes so far.
pub fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = text.rsplit_once(')').context("odd stat")?.1.split_whitespace().collect();
        for index in [11, 12] {
            ticks += fields.get(index).context("odd stat")?.parse::<u64>()?;
        }
    }
    // USER_HZ is 100 on every Linux that runs this.
    Ok(Duration::from_millis(ticks * 10))
}
