//! What the machine uses as a whole, from /proc.

/// Use so far, and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all cores since the machine started, nanoseconds.
    pub cpu_nanos: u64,
    /// Memory that is not available to others, bytes.
    pub memory: u64,
}

/// The unit of /proc/stat, nanoseconds: a hundredth of a second on every architecture (USER_HZ).
const TICK: u64 = 10_000_000;

/// Reads the machine; None where /proc does not tell.
pub fn read() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(Usage { cpu_nanos: cpu(&stat)?, memory: memory(&meminfo)? })
}

/// User, nice, system, interrupts and stolen time; idling and waiting for disks is no use. (A guest's time is in the user's already.)
fn cpu(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some([user, nice, system, irq, softirq, steal].into_iter().fold(0_u64, u64::saturating_add).saturating_mul(TICK))
}

fn memory(meminfo: &str) -> Option<u64> {
    let kilobytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(kilobytes("MemTotal:")?.saturating_sub(kilobytes("MemAvailable:")?).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(cpu("cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 1 1 1 1\n"), Some(25 * TICK));
        assert_eq!(cpu("cpu  10 1\n"), None);
        assert_eq!(memory("MemTotal:       2048 kB\nMemFree:         1 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        assert!(read().is_some_and(|usage| usage.cpu_nanos > 0 && usage.memory > 0), "this machine");
    }
}
