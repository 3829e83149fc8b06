//! What pods and containers use of the machine.

use std::path::PathBuf;

/// A pod's use of the machine.
#[derive(Clone, Debug, Default)]
pub struct PodStats {
    /// Of all containers together and what holds them; none where only containers are measured.
    pub whole: Option<Stats>,
    /// By container name: those that run.
    pub containers: Vec<(String, Stats)>,
    /// The pod's network devices but loopback; none for a pod without a network of its own.
    pub interfaces: Vec<Interface>,
}

/// Use so far, and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since it started.
    pub cpu_nanos: u64,
    /// Memory in use now without what could be dropped at once: the working set.
    pub memory_bytes: u64,
    /// What only processes have.
    pub group: Option<Group>,
    /// The directory that holds what was written to the container's own file system.
    pub written: Option<PathBuf>,
}

/// What a control group counts besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Where it is below the root of each tree: `/coracle/burstable/pod…/main-0`.
    pub path: PathBuf,
    /// Memory in use, files included.
    pub usage_bytes: u64,
    /// The most that ever was.
    pub peak_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// Files in memory.
    pub cache_bytes: u64,
    /// Files that are mapped.
    pub mapped_bytes: u64,
    /// Page faults, and those that waited for a disk.
    pub faults: (u64, u64),
    /// How often the limit of memory was met.
    pub memory_limit_hits: u64,
    /// How often the out-of-memory killer struck.
    pub oom_kills: u64,
    /// Periods of the CPU quota; those in which it was used up; nanoseconds that were waited then.
    pub throttled: (u64, u64, u64),
    /// Processes and threads.
    pub tasks: u64,
}

/// A network device: what came in and went out since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Received.
    pub received: Traffic,
    /// Sent.
    pub sent: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Reads `/proc/net/dev` (proc_net(5)) of whichever namespace it is of; loopback is left out.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [bytes, packets, errors, dropped, _, _, _, _, sent_bytes, sent_packets, sent_errors, sent_dropped, ..] = counts[..] else { return None };
        Some(Interface {
            name: name.trim().into(),
            received: Traffic { bytes, packets, errors, dropped },
            sent: Traffic { bytes: sent_bytes, packets: sent_packets, errors: sent_errors, dropped: sent_dropped },
        })
    };
    text.lines().filter_map(one).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_but_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\nodd: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].received), ("eth0", Traffic { bytes: 10, packets: 2, errors: 3, dropped: 4 }));
        assert_eq!(found[0].sent, Traffic { bytes: 50, packets: 6, errors: 7, dropped: 8 });
    }
}
