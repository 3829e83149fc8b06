//! What this node and its pods use: looked at when somebody asks, and rendered for whoever asks.
//!
//! A [`Snapshot`] is one look; [`summary`] words it as kubelet's `stats/summary`, [`metrics`] as the Prometheus text of kubelet and cAdvisor, and eviction
//! ranks pods by it. Nothing is sampled in the background: what nobody asks for costs nothing. (A rate is therefore that of the time between two questions.)

pub mod counters;
pub mod disk;
pub mod machine;
pub mod metrics;
pub mod summary;
mod text;

use crate::pods::{
    time::Time,
    views::{ContainerView, View, Views},
};
use coracle_runtime::{PodStats, Runtime, Stats};
use disk::{Cache, FileSystem, OnDisk, Places};
use futures::StreamExt;
use machine::{Agent, Machine};
use parking_lot::Mutex;
use std::{collections::HashMap, path::PathBuf, sync::Arc};

/// Pods that are asked for at once.
const AT_ONCE: usize = 32;
/// A rate is taken over at least so many milliseconds.
const WINDOW: i64 = 2_000;

/// A container that runs.
#[derive(Clone, Debug)]
pub struct ContainerUse {
    /// What is known of it.
    pub view: ContainerView,
    /// What it uses.
    pub stats: Stats,
    /// Thousand-millionths of a core, between this look and one before.
    pub nano_cores: Option<u64>,
}

/// A pod of which something runs.
#[derive(Clone, Debug)]
pub struct PodUse {
    /// What is known of it.
    pub view: Arc<View>,
    /// Its containers that run.
    pub containers: Vec<ContainerUse>,
    /// All of it together, where that is measured; the sum, where not.
    pub whole: Stats,
    /// As for containers.
    pub nano_cores: Option<u64>,
    /// Its devices.
    pub interfaces: Vec<coracle_runtime::stats::Interface>,
    /// What it holds on disk, if that was asked for.
    pub disk: Option<Arc<OnDisk>>,
}

/// One look at everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub at: Time,
    /// The Node's name.
    pub node: String,
    /// The machine.
    pub machine: Machine,
    /// As for containers.
    pub nano_cores: Option<u64>,
    /// This process.
    pub agent: Agent,
    /// The file system of the data directory.
    pub disk: Option<FileSystem>,
    /// Process ids: how many there may be, and how many there are.
    pub pids: Option<(u64, u64)>,
    /// Bytes of images.
    pub images: u64,
    /// Pods of which something runs.
    pub pods: Vec<PodUse>,
}

/// Takes snapshots.
pub struct Collector {
    data_dir: PathBuf,
    node: String,
    views: Views,
    runtimes: Vec<Arc<dyn Runtime>>,
    images: crate::images::Images,
    disks: Cache,
    rates: Mutex<Rates>,
}

/// CPU time as it was, by whose it is.
#[derive(Debug, Default)]
struct Rates(HashMap<String, Rate>);

#[derive(Debug)]
struct Rate {
    at: Time,
    nanos: u64,
    rate: Option<u64>,
    round: u64,
}

impl Rates {
    /// The rate since an earlier look, none at the first one.
    fn take(&mut self, whose: String, nanos: u64, at: Time, round: u64) -> Option<u64> {
        let entry = self.0.entry(whose).or_insert(Rate { at, nanos, rate: None, round });
        entry.round = round;
        let passed = at.since(entry.at);
        if nanos < entry.nanos {
            // It began anew.
            *entry = Rate { at, nanos, rate: None, round };
        } else if passed >= WINDOW {
            let rate = u128::from(nanos - entry.nanos) * 1000 / u128::from(passed.unsigned_abs());
            *entry = Rate { at, nanos, rate: u64::try_from(rate).ok(), round };
        }
        entry.rate
    }

    /// Forgets who was not there.
    fn end(&mut self, round: u64) {
        self.0.retain(|_, rate| rate.round == round);
    }
}

impl Collector {
    /// Over these views and runtimes.
    pub fn new(data_dir: PathBuf, node: String, views: Views, runtimes: Vec<Arc<dyn Runtime>>, images: crate::images::Images) -> Self {
        Self { data_dir, node, views, runtimes, images, disks: Cache::default(), rates: Mutex::default() }
    }

    /// Looks at everything; at what is on disk too `with_disk`.
    pub async fn snapshot(&self, with_disk: bool) -> Snapshot {
        let active = self.views.all().into_iter().filter(|view| view.containers.iter().any(|container| container.alive));
        let looks = futures::stream::iter(active.map(|view| self.look(view, with_disk)));
        let mut pods: Vec<PodUse> = looks.buffer_unordered(AT_ONCE).collect().await;
        pods.sort_by(|a, b| (&a.view.namespace, &a.view.name).cmp(&(&b.view.namespace, &b.view.name)));
        let (at, machine) = (Time::now(), Machine::read());
        let nano_cores = self.rate(&mut pods, machine.cpu_nanos, at);
        Snapshot {
            at,
            node: self.node.clone(),
            machine,
            nano_cores,
            agent: Agent::read(),
            disk: FileSystem::of(&self.data_dir),
            pids: pids(),
            images: if with_disk { self.images.bytes() } else { 0 },
            pods,
        }
    }

    /// What a pod holds on disk.
    pub async fn disk(&self, view: &View, stats: &PodStats) -> Arc<OnDisk> {
        let written = stats.containers.iter().filter_map(|(name, stats)| Some((name.clone(), stats.written.clone()?))).collect();
        self.disks.of(&view.uid, Places { pod: self.data_dir.join("pods").join(&*view.uid), written }).await
    }

    /// What its runtimes say of a pod.
    pub async fn stats(&self, view: &View) -> PodStats {
        let mut found = PodStats::default();
        for runtime in &self.runtimes {
            let stats = runtime.stats(&view.uid.to_string()).await.unwrap_or_default();
            found.containers.extend(stats.containers);
            found.whole = found.whole.or(stats.whole);
            found.interfaces.extend(stats.interfaces);
        }
        found
    }

    async fn look(&self, view: Arc<View>, with_disk: bool) -> PodUse {
        let stats = self.stats(&view).await;
        let disk = if with_disk { Some(self.disk(&view, &stats).await) } else { None };
        let PodStats { whole, containers, interfaces } = stats;
        let mut found = Vec::new();
        for (name, stats) in containers {
            if let Some(container) = view.containers.iter().find(|container| container.name == name && container.alive) {
                found.push(ContainerUse { view: container.clone(), stats, nano_cores: None });
            }
        }
        let sum = || {
            found.iter().fold(Stats::default(), |sum, container| Stats {
                cpu_nanos: sum.cpu_nanos.saturating_add(container.stats.cpu_nanos),
                memory_bytes: sum.memory_bytes.saturating_add(container.stats.memory_bytes),
                ..sum
            })
        };
        let whole = whole.unwrap_or_else(sum);
        PodUse { view, whole, containers: found, nano_cores: None, interfaces, disk }
    }

    fn rate(&self, pods: &mut [PodUse], machine: u64, at: Time) -> Option<u64> {
        let mut rates = self.rates.lock();
        let round = rates.0.get("").map_or(0, |rate| rate.round.wrapping_add(1));
        for pod in pods {
            let uid = pod.view.uid.clone();
            pod.nano_cores = rates.take(uid.to_string(), pod.whole.cpu_nanos, at, round);
            for container in &mut pod.containers {
                let whose = format!("{uid}/{}/{}", container.view.name, container.view.attempt);
                container.nano_cores = rates.take(whose, container.stats.cpu_nanos, at, round);
            }
        }
        let whole = rates.take(String::new(), machine, at, round);
        rates.end(round);
        whole
    }
}

/// How many process ids there may be, and how many there are.
pub fn pids() -> Option<(u64, u64)> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let running = std::fs::read_to_string("/proc/loadavg").ok().and_then(|line| number(line.split_whitespace().nth(3)?.split_once('/')?.1))?;
    Some((std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| number(&text))?, running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_make_a_rate() {
        let mut rates = Rates::default();
        let mut take = |nanos, at, round| rates.take("c".into(), nanos, Time(at), round);
        assert_eq!(take(1_000_000_000, 0, 0), None);
        assert_eq!(take(1_000_000_500, 100, 1), None, "too soon");
        assert_eq!(take(2_000_000_000, 4_000, 2), Some(250_000_000));
        assert_eq!(take(2_000_000_000, 4_100, 3), Some(250_000_000), "the last one holds");
        assert_eq!(take(5, 9_000, 4), None, "it began anew");
        rates.end(5);
        assert!(rates.0.is_empty());
    }
}
