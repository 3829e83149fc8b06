//! When the machine runs short: kubelet's signals and hard thresholds (`--eviction-hard`), and the pressures that they mean.
//!
//! Source: Kubernetes' "Node-pressure Eviction". What is decided is pure ([`Thresholds::pressure`]); [`Observed::read`] looks at the machine.

use crate::registration::Pressure;
use coracle_api::quantity::Quantity;
use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

/// What is watched. Images and everything else are on one file system: that of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`, bytes.
    MemoryAvailable,
    /// `nodefs.available`, bytes.
    NodeFsAvailable,
    /// `nodefs.inodesFree`.
    NodeFsInodesFree,
    /// `imagefs.available`, bytes.
    ImageFsAvailable,
    /// `imagefs.inodesFree`.
    ImageFsInodesFree,
    /// `pid.available`.
    PidAvailable,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::MemoryAvailable, Self::NodeFsAvailable, Self::NodeFsInodesFree, Self::ImageFsAvailable, Self::ImageFsInodesFree, Self::PidAvailable];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }
}

/// How little is too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or process ids.
    Count(u64),
    /// Of what the machine has.
    Percent(f64),
}

impl Amount {
    /// In units of the signal, of a machine that has `capacity`.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

/// Hard thresholds: at most one a signal; a signal without one is never short.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Amount>);

/// Why a text gives no thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `SIGNAL<AMOUNT`.
    #[error("invalid eviction threshold syntax {0}, expected SIGNAL<AMOUNT such as nodefs.available<5% or memory.available<100Mi")]
    Syntax(String),
    /// A signal that there is none of.
    #[error("unsupported eviction signal {0}; there are {names}", names = Signal::ALL.map(Signal::name).join(", "))]
    Signal(String),
    /// Twice the same.
    #[error("found duplicate eviction threshold for signal {0}")]
    Duplicate(&'static str),
    /// No quantity, and no percentage from 0 to 100.
    #[error("invalid eviction threshold amount {0}: give a quantity such as 100Mi, or a percentage from 0% to 100%")]
    Amount(String),
}

impl Default for Thresholds {
    /// Kubelet's for memory; for disks, which are large today, 5 %.
    fn default() -> Self {
        let percent = Amount::Percent;
        Self(BTreeMap::from([
            (Signal::MemoryAvailable, Amount::Count(100 << 20)),
            (Signal::NodeFsAvailable, percent(5.0)),
            (Signal::NodeFsInodesFree, percent(5.0)),
            (Signal::ImageFsAvailable, percent(5.0)),
            (Signal::ImageFsInodesFree, percent(5.0)),
            (Signal::PidAvailable, percent(10.0)),
        ]))
    }
}

impl FromStr for Thresholds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut thresholds = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part.split_once('<').ok_or_else(|| Error::Syntax(part.into()))?;
            let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name).ok_or_else(|| Error::Signal(name.into()))?;
            let amount = match amount.strip_suffix('%') {
                Some(percent) => percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(Amount::Percent),
                None => Quantity::parse(amount).ok().and_then(|amount| u64::try_from(amount.units()).ok()).map(Amount::Count),
            };
            let amount = amount.ok_or_else(|| Error::Amount(part.into()))?;
            if thresholds.insert(signal, amount).is_some() {
                return Err(Error::Duplicate(signal.name()));
            }
        }
        Ok(Self(thresholds))
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (signal, amount)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match amount {
                Amount::Count(count) => write!(f, "{comma}{}<{count}", signal.name())?,
                Amount::Percent(percent) => write!(f, "{comma}{}<{percent}%", signal.name())?,
            }
        }
        Ok(())
    }
}

/// How much is left of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub available: u64,
    /// What there is.
    pub capacity: u64,
}

/// A look at the machine. What cannot be read is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed(BTreeMap<Signal, Level>);

impl Observed {
    /// Looks at this machine and at the file system of `data_dir`.
    pub fn read(data_dir: &Path) -> Self {
        let mut levels = BTreeMap::new();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        if let (Some(available), Some(capacity)) = (bytes("MemAvailable:"), bytes("MemTotal:")) {
            levels.insert(Signal::MemoryAvailable, Level { available, capacity });
        }
        if let Ok(disk) = rustix::fs::statvfs(data_dir) {
            let size = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            let bytes = Level { available: size(disk.f_bavail), capacity: size(disk.f_blocks) };
            levels.extend([(Signal::NodeFsAvailable, bytes), (Signal::ImageFsAvailable, bytes)]);
            // Some file systems have no fixed number of inodes and say 0.
            if disk.f_files > 0 {
                let inodes = Level { available: disk.f_ffree, capacity: disk.f_files };
                levels.extend([(Signal::NodeFsInodesFree, inodes), (Signal::ImageFsInodesFree, inodes)]);
            }
        }
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let running = std::fs::read_to_string("/proc/loadavg").ok().and_then(|line| number(line.split_whitespace().nth(3)?.split_once('/')?.1));
        let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| number(&text));
        if let (Some(running), Some(capacity)) = (running, most) {
            levels.insert(Signal::PidAvailable, Level { available: capacity.saturating_sub(running), capacity });
        }
        Self(levels)
    }
}

impl Thresholds {
    /// The signals that are below their thresholds.
    pub fn met(&self, observed: &Observed) -> Vec<Signal> {
        let low = |(signal, amount): (&Signal, &Amount)| {
            let level = observed.0.get(signal)?;
            (level.available < amount.of(level.capacity)).then_some(*signal)
        };
        self.0.iter().filter_map(low).collect()
    }

    /// What a node says of it.
    pub fn pressure(&self, observed: &Observed) -> Pressure {
        self.met(observed).into_iter().fold(Pressure::default(), |pressure, signal| match signal {
            Signal::MemoryAvailable => Pressure { memory: true, ..pressure },
            Signal::PidAvailable => Pressure { pid: true, ..pressure },
            Signal::NodeFsAvailable | Signal::NodeFsInodesFree | Signal::ImageFsAvailable | Signal::ImageFsInodesFree => {
                Pressure { disk: true, ..pressure }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(signal: Signal, available: u64, capacity: u64) -> Observed {
        Observed(BTreeMap::from([(signal, Level { available, capacity })]))
    }

    #[test]
    fn thresholds_are_read_as_kubelet_reads_them() {
        let read = |text: &str| text.parse::<Thresholds>();
        let thresholds = read("memory.available<100Mi,nodefs.available<5%, pid.available<1k").unwrap();
        assert_eq!(thresholds.to_string(), "memory.available<104857600,nodefs.available<5%,pid.available<1000");
        assert_eq!(read(&Thresholds::default().to_string()).unwrap(), Thresholds::default());
        assert_eq!(read("").unwrap().met(&seen(Signal::MemoryAvailable, 0, 1)), []);
        assert_eq!(read("memory.available=1"), Err(Error::Syntax("memory.available=1".into())));
        assert_eq!(read("swap.available<1"), Err(Error::Signal("swap.available".into())));
        assert_eq!(read("pid.available<1,pid.available<2"), Err(Error::Duplicate("pid.available")));
        for amount in ["pid.available<-1", "pid.available<101%", "pid.available<NaN%", "pid.available<", "pid.available<some"] {
            assert_eq!(read(amount), Err(Error::Amount(amount.into())));
        }
    }

    #[test]
    fn what_is_low_is_a_pressure() {
        let thresholds: Thresholds = "memory.available<100,nodefs.inodesFree<10%,pid.available<5".parse().unwrap();
        assert_eq!(thresholds.pressure(&seen(Signal::MemoryAvailable, 99, 1000)), Pressure { memory: true, ..Pressure::default() });
        assert_eq!(thresholds.pressure(&seen(Signal::MemoryAvailable, 100, 1000)), Pressure::default());
        assert_eq!(thresholds.pressure(&seen(Signal::NodeFsInodesFree, 99, 1000)), Pressure { disk: true, ..Pressure::default() });
        assert_eq!(thresholds.pressure(&seen(Signal::NodeFsInodesFree, 100, 1000)), Pressure::default());
        assert_eq!(thresholds.pressure(&seen(Signal::PidAvailable, 4, 1000)), Pressure { pid: true, ..Pressure::default() });
        assert_eq!(thresholds.pressure(&seen(Signal::NodeFsAvailable, 0, 1000)), Pressure::default());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let observed = Observed::read(Path::new("/"));
        assert!(observed.0.contains_key(&Signal::MemoryAvailable) && observed.0.contains_key(&Signal::NodeFsAvailable));
        assert!(observed.0.values().all(|level| level.available <= level.capacity));
    }
}
