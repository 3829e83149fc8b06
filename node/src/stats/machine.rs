//! What the machine and this agent use, from /proc (proc(5)).

use coracle_runtime::stats::{Interface, interfaces};

/// The unit of /proc/stat, nanoseconds: a hundredth of a second on every architecture (USER_HZ).
const TICK: u64 = 10_000_000;

/// The machine as a whole. What cannot be read is zero or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPU time of all cores since it started, nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Of these, what is left for others.
    pub available: u64,
    /// Memory that is not free, files included.
    pub usage: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults, and those that waited for a disk.
    pub faults: (u64, u64),
    /// Bytes of swap, and what of it is free.
    pub swap: (u64, u64),
    /// Seconds since 1970 at which it started.
    pub booted: i64,
    /// Its devices but loopback.
    pub interfaces: Vec<Interface>,
    /// The one of the default route.
    pub uplink: Option<String>,
}

impl Machine {
    /// Reads this one.
    pub fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (stat, meminfo, vmstat) = (text("/proc/stat"), text("/proc/meminfo"), text("/proc/vmstat"));
        let bytes = |name: &str| kilobytes(&meminfo, name).unwrap_or(0);
        let count = |name: &str| number(&vmstat, name).unwrap_or(0);
        Self {
            cpu_nanos: cpu(&stat).unwrap_or(0),
            memory: bytes("MemTotal:"),
            available: bytes("MemAvailable:"),
            usage: bytes("MemTotal:").saturating_sub(bytes("MemFree:")),
            rss: bytes("AnonPages:"),
            faults: (count("pgfault"), count("pgmajfault")),
            swap: (bytes("SwapTotal:"), bytes("SwapFree:")),
            booted: number(&stat, "btime").and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
            interfaces: interfaces(&text("/proc/net/dev")),
            uplink: uplink(&text("/proc/net/route")),
        }
    }

    /// Memory that could not be had at once.
    pub fn working_set(&self) -> u64 {
        self.memory.saturating_sub(self.available)
    }
}

/// User, nice, system, interrupts and stolen time; idling and waiting for disks is no use. (A guest's time is in the user's already.)
fn cpu(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some([user, nice, system, irq, softirq, steal].into_iter().fold(0_u64, u64::saturating_add).saturating_mul(TICK))
}

/// The line of that name: kilobytes, as bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// The line of that name and a number.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The device of the route to everywhere.
fn uplink(routes: &str) -> Option<String> {
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, "00000000", _, _, _, _, _, "00000000", ..]).then(|| fields[0].to_owned())
    })
}

/// This process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// CPU time, nanoseconds.
    pub cpu_nanos: u64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Hundredths of a second from the machine's start to its own.
    pub started: u64,
}

impl Agent {
    /// Reads this process.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name may hold blanks and brackets.
        let fields: Vec<u64> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let field = |place: usize| fields.get(place).copied().unwrap_or(0);
        Self {
            cpu_nanos: field(11).saturating_add(field(12)).saturating_mul(TICK),
            rss: kilobytes(&status, "VmRSS:").unwrap_or(0),
            virtual_bytes: kilobytes(&status, "VmSize:").unwrap_or(0),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            started: field(19),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(cpu("cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 1 1 1 1\n"), Some(25 * TICK));
        assert_eq!(cpu("cpu  10 1\n"), None);
        let meminfo = "MemTotal:       2048 kB\nMemFree:         1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!((kilobytes(meminfo, "MemAvailable:"), kilobytes(meminfo, "SwapTotal:")), (Some(1 << 20), None));
        assert_eq!(number("btime 17\nbtimes 18\n", "btime"), Some(17));
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\nbr0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(uplink(routes).as_deref(), Some("eth0"));
        assert_eq!(uplink("Iface\n"), None);
        let (machine, agent) = (Machine::read(), Agent::read());
        assert!(machine.cpu_nanos > 0 && machine.available <= machine.memory && machine.booted > 0);
        assert!(agent.rss > 0 && agent.virtual_bytes > agent.rss && agent.descriptors > 2 && agent.started > 0);
    }
}
