//! When the machine runs short: kubelet's signals and thresholds (`--eviction-hard`, `--eviction-soft`), the pressures that they mean, and who goes.
//!
//! Source: Kubernetes' "Node-pressure Eviction". What is decided is pure: [`state`] says which threshold is to be acted on, [`rank`] whom that costs;
//! [`Observed::read`] looks at the machine, and [`manager`] carries it out.

pub mod manager;
pub mod rank;
pub mod state;

use crate::{
    registration::Pressure,
    stats::{disk::FileSystem, machine::Machine, pids},
};
use coracle_api::quantity::Quantity;
use std::{collections::BTreeMap, fmt, path::Path, str::FromStr, time::Duration};

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

    /// What there is too little of.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable => Resource::Memory,
            Self::NodeFsAvailable | Self::ImageFsAvailable => Resource::Disk,
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }

    /// An amount of it, as it is written.
    pub fn quantity(self, amount: u64) -> Quantity {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        match self.resource() {
            Resource::Memory | Resource::Disk => Quantity::from_bytes(amount),
            Resource::Inodes | Resource::Pids => Quantity::from_units(amount),
        }
    }
}

/// What a node runs short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of memory.
    Memory,
    /// Bytes of disk.
    Disk,
    /// Files and directories.
    Inodes,
    /// Process ids.
    Pids,
}

impl Resource {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
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

/// Everything that flags say of eviction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Acted on at once.
    pub hard: Thresholds,
    /// Acted on once they were met for as long as their grace; see [`Self::check`].
    pub soft: Option<Thresholds>,
    /// How long a soft threshold may be met, by signal.
    pub soft_grace: Graces,
    /// How much more than the threshold is to be there before it is over with, by signal.
    pub minimum_reclaim: Option<Reclaims>,
    /// How long a pressure is told of after it was last seen.
    pub transition: Transition,
    /// The longest grace of a pod that a soft threshold costs, seconds.
    pub max_pod_grace_seconds: i64,
}

impl Config {
    /// Every soft threshold has a grace.
    ///
    /// # Errors
    /// Which one has not.
    pub fn check(&self) -> Result<(), Error> {
        let soft = self.soft.iter().flat_map(|soft| soft.0.keys());
        match soft.into_iter().find(|signal| !self.soft_grace.0.contains_key(signal)) {
            Some(signal) => Err(Error::Grace(signal.name())),
            None => Ok(()),
        }
    }
}

/// How long a pressure is told of after it was last seen: kubelet's five minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition(pub Duration);

impl Default for Transition {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

/// `SIGNAL=DURATION`, with commas between; durations as Go writes them (`1m30s`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graces(BTreeMap<Signal, Duration>);

/// `SIGNAL=AMOUNT`, with commas between.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reclaims(BTreeMap<Signal, Amount>);

/// Reads what is written between commas as a signal, `mark` and something.
fn pairs<T>(text: &str, mark: char, read: impl Fn(&str) -> Option<T>) -> Result<BTreeMap<Signal, T>, Error> {
    let mut found = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once(mark).ok_or_else(|| Error::Syntax(part.into()))?;
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name).ok_or_else(|| Error::Signal(name.into()))?;
        let value = read(value).ok_or_else(|| Error::Amount(part.into()))?;
        if found.insert(signal, value).is_some() {
            return Err(Error::Duplicate(signal.name()));
        }
    }
    Ok(found)
}

fn amount(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(Amount::Percent),
        None => Quantity::parse(text).ok().and_then(|amount| u64::try_from(amount.units()).ok()).map(Amount::Count),
    }
}

/// A duration as Go writes them: `90s`, `1m30s`, `1h`, `500ms`.
///
/// # Errors
/// It is none.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let wrong = || Error::Amount(text.into());
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(wrong()),
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())?).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

impl FromStr for Graces {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        pairs(text, '=', |value| duration(value).ok()).map(Self)
    }
}

impl FromStr for Reclaims {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        pairs(text, '=', amount).map(Self)
    }
}

impl FromStr for Transition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        duration(text).map(Self)
    }
}

/// Thresholds: at most one a signal; a signal without one is never short.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Amount>);

/// Why a text gives no thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `SIGNAL<AMOUNT`.
    #[error("invalid eviction threshold syntax {0}, expected SIGNAL<AMOUNT such as nodefs.available<5% (graces and minimum reclaims: SIGNAL=VALUE)")]
    Syntax(String),
    /// A signal that there is none of.
    #[error("unsupported eviction signal {0}; there are {names}", names = Signal::ALL.map(Signal::name).join(", "))]
    Signal(String),
    /// Twice the same.
    #[error("found duplicate eviction threshold for signal {0}")]
    Duplicate(&'static str),
    /// No quantity, and no percentage from 0 to 100.
    #[error("invalid eviction amount {0}: give a quantity such as 100Mi or a percentage from 0% to 100%; a time as 1m30s")]
    Amount(String),
    /// A soft threshold that is to be met for nobody knows how long.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    Grace(&'static str),
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
        let mut thresholds = pairs(text, '<', amount)?;
        // As upstream: 0 % is never met, and who writes 100 % wants none.
        thresholds.retain(|_, amount| !matches!(amount, Amount::Percent(percent) if *percent == 0.0 || *percent == 100.0));
        Ok(Self(thresholds))
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.to_map().into_iter().map(|(signal, amount)| format!("{signal}<{amount}")).collect();
        f.write_str(&parts.join(","))
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
        let machine = Machine::read();
        if machine.memory > 0 {
            levels.insert(Signal::MemoryAvailable, Level { available: machine.available, capacity: machine.memory });
        }
        if let Some(disk) = FileSystem::of(data_dir) {
            let bytes = Level { available: disk.available, capacity: disk.capacity };
            levels.extend([(Signal::NodeFsAvailable, bytes), (Signal::ImageFsAvailable, bytes)]);
            // Some file systems have no fixed number of inodes and say 0.
            if disk.inodes > 0 {
                let inodes = Level { available: disk.inodes_free, capacity: disk.inodes };
                levels.extend([(Signal::NodeFsInodesFree, inodes), (Signal::ImageFsInodesFree, inodes)]);
            }
        }
        if let Some((capacity, running)) = pids() {
            levels.insert(Signal::PidAvailable, Level { available: capacity.saturating_sub(running), capacity });
        }
        Self(levels)
    }
}

impl Thresholds {
    /// Signal and amount, as they are written.
    pub fn to_map(&self) -> BTreeMap<&'static str, String> {
        let text = |signal: &Signal, amount: &Amount| match amount {
            Amount::Count(count) => signal.quantity(*count).to_string(),
            Amount::Percent(percent) => format!("{percent}%"),
        };
        self.0.iter().map(|(signal, amount)| (signal.name(), text(signal, amount))).collect()
    }

    /// No threshold at all.
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// How much of a signal has to be left, on a machine that has `capacity`; none without a threshold.
    pub fn of(&self, signal: Signal, capacity: u64) -> Option<u64> {
        self.0.get(&signal).map(|amount| amount.of(capacity))
    }

    /// The signals that are below their thresholds.
    pub fn met(&self, observed: &Observed) -> Vec<Signal> {
        let low = |(signal, amount): (&Signal, &Amount)| {
            let level = observed.0.get(signal)?;
            (level.available < amount.of(level.capacity)).then_some(*signal)
        };
        self.0.iter().filter_map(low).collect()
    }
}

impl Pressure {
    /// With what a signal means.
    fn with(self, signal: Signal) -> Self {
        match signal.resource() {
            Resource::Memory => Self { memory: true, ..self },
            Resource::Disk | Resource::Inodes => Self { disk: true, ..self },
            Resource::Pids => Self { pid: true, ..self },
        }
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
        assert_eq!(thresholds.to_string(), "memory.available<100Mi,nodefs.available<5%,pid.available<1k");
        assert_eq!(read(&Thresholds::default().to_string()).unwrap(), Thresholds::default());
        assert_eq!(read("memory.available<0%,nodefs.available<100%").unwrap(), Thresholds::none());
        assert_eq!(read("").unwrap().met(&seen(Signal::MemoryAvailable, 0, 1)), []);
        assert_eq!(read("memory.available=1"), Err(Error::Syntax("memory.available=1".into())));
        assert_eq!(read("swap.available<1"), Err(Error::Signal("swap.available".into())));
        assert_eq!(read("pid.available<1,pid.available<2"), Err(Error::Duplicate("pid.available")));
        for amount in ["pid.available<-1", "pid.available<101%", "pid.available<NaN%", "pid.available<", "pid.available<some"] {
            assert_eq!(read(amount), Err(Error::Amount(amount.into())));
        }
    }

    #[test]
    fn graces_reclaims_and_times() {
        assert_eq!("memory.available=1m30s".parse::<Graces>(), Ok(Graces(BTreeMap::from([(Signal::MemoryAvailable, Duration::from_secs(90))]))));
        assert_eq!(
            "memory.available=0Mi,nodefs.available=5%".parse::<Reclaims>().unwrap().0,
            [(Signal::MemoryAvailable, Amount::Count(0)), (Signal::NodeFsAvailable, Amount::Percent(5.0))].into()
        );
        for wrong in ["", "1", "m", "1x", "-1s", "1s1", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!([duration("500ms"), duration("1.5h")], [Ok(Duration::from_millis(500)), Ok(Duration::from_secs(5400))]);
        let config = Config { soft: Some("memory.available<1Gi".parse().unwrap()), ..Config::default() };
        assert_eq!(config.check(), Err(Error::Grace("memory.available")));
        assert_eq!(Config { soft_grace: "memory.available=1s".parse().unwrap(), ..config }.check(), Ok(()));
    }

    #[test]
    fn what_is_low_is_a_pressure() {
        let thresholds: Thresholds = "memory.available<100,nodefs.inodesFree<10%,pid.available<5".parse().unwrap();
        let pressure = |observed: &Observed| thresholds.met(observed).into_iter().fold(Pressure::default(), Pressure::with);
        assert_eq!(pressure(&seen(Signal::MemoryAvailable, 99, 1000)), Pressure { memory: true, ..Pressure::default() });
        assert_eq!(pressure(&seen(Signal::MemoryAvailable, 100, 1000)), Pressure::default());
        assert_eq!(pressure(&seen(Signal::NodeFsInodesFree, 99, 1000)), Pressure { disk: true, ..Pressure::default() });
        assert_eq!(pressure(&seen(Signal::NodeFsInodesFree, 100, 1000)), Pressure::default());
        assert_eq!(pressure(&seen(Signal::PidAvailable, 4, 1000)), Pressure { pid: true, ..Pressure::default() });
        assert_eq!(pressure(&seen(Signal::NodeFsAvailable, 0, 1000)), Pressure::default());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let observed = Observed::read(Path::new("/"));
        assert!(observed.0.contains_key(&Signal::MemoryAvailable) && observed.0.contains_key(&Signal::NodeFsAvailable));
        assert!(observed.0.values().all(|level| level.available <= level.capacity));
    }
}
