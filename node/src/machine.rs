//! What this machine has, and what of it pods may have: capacity less reserve, as kubelet reckons (`--system-reserved`, `--kube-reserved`, `--eviction-hard`).

use crate::eviction::{Signal, Thresholds};
use coracle_api::{
    amounts::{Amounts, quantity},
    quantity::Quantity,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

/// Operating system and architecture as Go names them.
pub const PLATFORM: &str = if cfg!(target_arch = "x86_64") {
    "linux/amd64"
} else if cfg!(target_arch = "aarch64") {
    "linux/arm64"
} else {
    "linux/unknown"
};

/// Resources set aside, `RESOURCE=QUANTITY` with commas between: `cpu=100m,memory=200Mi,ephemeral-storage=1Gi,pid=1000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserve(BTreeMap<String, String>);

/// Why a text is no reserve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `RESOURCE=QUANTITY`.
    #[error("invalid reserve {0}, expected RESOURCE=QUANTITY such as memory=200Mi")]
    Syntax(String),
    /// Something that cannot be set aside.
    #[error("cannot reserve \"{0}\" resource; cpu, memory, ephemeral-storage and pid can be")]
    Resource(String),
    /// No quantity, or a negative one.
    #[error("resource quantity for \"{0}\" cannot be {1}: give one such as 200Mi, not below zero")]
    Quantity(String, String),
}

impl FromStr for Reserve {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part.split_once('=').ok_or_else(|| Error::Syntax(part.into()))?;
            if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name) {
                return Err(Error::Resource(name.into()));
            }
            if !Quantity::parse(amount).is_ok_and(|amount| !amount.is_negative()) {
                return Err(Error::Quantity(name.into(), amount.into()));
            }
            found.insert(name.to_owned(), amount.to_owned());
        }
        Ok(Self(found))
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl Reserve {
    /// What kubelet would have for itself here: the agent and the shims of some pods.
    pub fn of_agent() -> Self {
        Self(BTreeMap::from([("memory".into(), "64Mi".into())]))
    }

    /// Resource and quantity, as they are written.
    pub fn to_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    fn of(&self, name: &str) -> Quantity {
        self.0.get(name).map_or(Quantity::ZERO, |amount| quantity(&json!(amount)))
    }
}

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Cores.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system that the data directory is on.
    pub disk: i64,
    /// Huge pages: bytes by resource name (`hugepages-2Mi`).
    pub huge_pages: BTreeMap<String, i64>,
    /// Bytes of swap.
    pub swap: i64,
    /// Of `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// Of `/etc/os-release`.
    pub os_image: String,
    /// Of `/etc/machine-id`.
    pub machine_id: String,
    /// Of the firmware; the machine id where that has none.
    pub system_uuid: String,
    /// Of the running kernel.
    pub boot_id: String,
}

impl Machine {
    /// Reads this machine.
    pub fn read(data_dir: &Path) -> Self {
        let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
        let disk = rustix::fs::statvfs(data_dir).map_or(0, |stat| i64::try_from(stat.f_blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX));
        let release = line("/etc/os-release");
        let os_image = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let now = crate::stats::machine::Machine::read();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            memory: i64::try_from(now.memory).unwrap_or(i64::MAX),
            disk,
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            swap: i64::try_from(now.swap.0).unwrap_or(i64::MAX),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_string()),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// All of it, as scheduler and nodes reckon.
    fn amounts(&self) -> Amounts {
        let others = self.huge_pages.iter().map(|(name, bytes)| (name.as_str().into(), *bytes)).collect();
        Amounts { cpu: self.cpus.saturating_mul(1000), memory: self.memory, storage: self.disk, others }
    }

    /// What pods may have together: less the reserves, less what eviction would not let them have, less huge pages, which are memory of their own.
    pub fn allocatable(&self, reserves: [&Reserve; 2], eviction: &Thresholds) -> Amounts {
        let mut left = self.amounts();
        for reserve in reserves {
            left.cpu = left.cpu.saturating_sub(reserve.of("cpu").millis());
            left.memory = left.memory.saturating_sub(reserve.of("memory").units());
            left.storage = left.storage.saturating_sub(reserve.of("ephemeral-storage").units());
        }
        let kept = |signal: Signal, capacity: i64| {
            let kept = eviction.of(signal, u64::try_from(capacity).unwrap_or(0));
            kept.map_or(0, |kept| i64::try_from(kept).unwrap_or(i64::MAX))
        };
        left.memory = left.memory.saturating_sub(kept(Signal::MemoryAvailable, self.memory)).saturating_sub(self.huge_pages.values().sum());
        left.storage = left.storage.saturating_sub(kept(Signal::NodeFsAvailable, self.disk));
        (left.cpu, left.memory, left.storage) = (left.cpu.max(0), left.memory.max(0), left.storage.max(0));
        left
    }

    /// `status.capacity` with so many pods.
    pub fn capacity(&self, pods: u32) -> Value {
        resources(&self.amounts(), pods)
    }
}

/// A ResourceList.
pub fn resources(amounts: &Amounts, pods: u32) -> Value {
    let mut list = Map::new();
    let mut say = |name: &str, quantity: Quantity| drop(list.insert(name.into(), json!(quantity.to_string())));
    say("cpu", Quantity::from_millis(amounts.cpu));
    say("memory", Quantity::from_bytes(amounts.memory / 1024 * 1024));
    say("ephemeral-storage", Quantity::from_bytes(amounts.storage / 1024 * 1024));
    say("pods", Quantity::from_units(i64::from(pods)));
    for (name, amount) in &amounts.others {
        say(name, Quantity::from_bytes(*amount));
    }
    Value::Object(list)
}

/// Bytes that are set aside as huge pages, by size: `hugepages-2048kB/nr_hugepages`.
fn huge_pages(dir: &Path) -> BTreeMap<String, i64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let bytes = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok()?.checked_mul(1024)?;
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse::<i64>().ok()?;
        Some((format!("hugepages-{}", Quantity::from_bytes(bytes)), bytes.saturating_mul(count)))
    };
    entries.filter_map(one).collect()
}

/// Go's names for machine architectures, which images and labels use.
pub fn architecture() -> &'static str {
    PLATFORM.strip_prefix("linux/").filter(|name| *name != "unknown").unwrap_or(std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_are_written_as_kubelets() {
        let read = |text: &str| text.parse::<Reserve>();
        assert_eq!(read("cpu=100m, memory=200Mi,pid=1000").unwrap().to_string(), "cpu=100m,memory=200Mi,pid=1000");
        assert_eq!(read("").unwrap(), Reserve::default());
        assert_eq!(read("cpu"), Err(Error::Syntax("cpu".into())));
        assert_eq!(read("gpu=1"), Err(Error::Resource("gpu".into())));
        assert_eq!(read("memory=-1"), Err(Error::Quantity("memory".into(), "-1".into())));
        assert_eq!(read("memory=lots"), Err(Error::Quantity("memory".into(), "lots".into())));
    }

    #[test]
    fn pods_have_what_is_left() {
        let machine =
            Machine { cpus: 4, memory: 8 << 30, disk: 100 << 30, huge_pages: [("hugepages-2Mi".into(), 1 << 30)].into(), ..Machine::default() };
        let (system, kube) = ("cpu=500m,memory=1Gi".parse().unwrap(), "memory=512Mi,ephemeral-storage=5Gi".parse().unwrap());
        let left = machine.allocatable([&system, &kube], &"memory.available<512Mi,nodefs.available<10%".parse().unwrap());
        assert_eq!((left.cpu, left.memory, left.storage), (3500, 5 << 30, 85 << 30));
        assert_eq!(
            resources(&left, 110),
            json!({ "cpu": "3500m", "memory": "5Gi", "ephemeral-storage": "85Gi", "pods": "110", "hugepages-2Mi": "1Gi" })
        );
        let all = machine.allocatable([&"cpu=9,memory=9Gi".parse().unwrap(), &Reserve::default()], &Thresholds::none());
        assert_eq!((all.cpu, all.memory), (0, 0), "never below nothing");
        assert_eq!(machine.capacity(110)["memory"], "8Gi");
    }

    #[test]
    fn huge_pages_are_counted_by_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n"), ("else", "1")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(huge_pages(dir.path()), [("hugepages-1Gi".to_string(), 0), ("hugepages-2Mi".to_string(), 6 << 20)].into());
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.disk > 0 && !machine.kernel.is_empty() && !machine.boot_id.is_empty());
    }
}
