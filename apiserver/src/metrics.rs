//! What pods and nodes use of their machines, in memory only: what `metrics.k8s.io` answers with and autoscalers decide on.
//!
//! Agents tell how much CPU time each container has used so far and how much memory it uses now; two readings make a rate. They are asked every fifteen seconds, as
//! upstream's metrics-server does, but only while somebody wants to know: whoever asks first after a silence waits for two readings a second apart. (Pushing samples from every node
//! all the time was rejected: it costs idle clusters something, and the control plane knows best what it needs.)

use crate::{nodes, pipeline::Core};
use coracle_api::quantity::Quantity;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Time between readings.
const PERIOD: Duration = Duration::from_secs(15);
/// Between the first two of them.
const FIRST: Duration = Duration::from_secs(1);
/// How long readings go on after somebody asked.
const WANTED: Duration = Duration::from_secs(5 * 60);
/// How long somebody waits for the first two.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one node may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Nodes that are read at once.
const AT_ONCE: usize = 16;

/// Use so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Total {
    cpu_nanos: u64,
    memory: u64,
}

/// Use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a CPU.
    pub cpu_nanos: u64,
    /// Bytes.
    pub memory: u64,
}

impl Usage {
    /// Thousandths of a CPU, or of a byte; None for what is not measured.
    pub fn millis(&self, resource: &str) -> Option<i64> {
        match resource {
            "cpu" => i64::try_from(self.cpu_nanos.div_ceil(1_000_000)).ok(),
            "memory" => i64::try_from(self.memory).ok()?.checked_mul(1000),
            _ => None,
        }
    }

    /// The two as quantities, as metrics-server writes them: `12345n` and `6789Ki`.
    pub fn quantities(&self) -> (String, String) {
        let (mut count, mut unit) = (self.cpu_nanos, "n");
        for larger in ["u", "m", ""] {
            if count % 1000 != 0 {
                break;
            }
            (count, unit) = (count / 1000, larger);
        }
        let cpu = if self.cpu_nanos == 0 { "0".into() } else { format!("{count}{unit}") };
        (cpu, Quantity::from_bytes(i64::try_from(self.memory).unwrap_or(i64::MAX)).to_string())
    }

    /// The sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self { cpu_nanos: self.cpu_nanos.saturating_add(other.cpu_nanos), memory: self.memory.saturating_add(other.memory) }
    }
}

/// What was measured of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Over what time.
    pub window: SignedDuration,
    /// By container name.
    pub containers: Vec<(Box<str>, Usage)>,
}

/// What was measured of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSample {
    /// When.
    pub at: Timestamp,
    /// Over what time.
    pub window: SignedDuration,
    /// All of it.
    pub usage: Usage,
}

/// One answer of a node.
#[derive(Debug)]
struct Reading {
    at: Timestamp,
    node: Total,
    /// By uid.
    pods: HashMap<Box<str>, Vec<(Box<str>, Total)>>,
}

/// What a node answers with, in the kubelet's form.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Summary {
    node: Measured,
    pods: Vec<PodSummary>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSummary {
    pod_ref: PodRef,
    containers: Vec<Measured>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct PodRef {
    uid: Box<str>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Measured {
    name: Box<str>,
    cpu: Cpu,
    memory: Memory,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Cpu {
    usage_core_nano_seconds: u64,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    working_set_bytes: u64,
}

impl Measured {
    fn total(&self) -> Total {
        Total { cpu_nanos: self.cpu.usage_core_nano_seconds, memory: self.memory.working_set_bytes }
    }
}

impl Reading {
    fn of(json: &[u8], at: Timestamp) -> Option<Self> {
        let summary: Summary = serde_json::from_slice(json).ok()?;
        let containers = |pod: PodSummary| (pod.pod_ref.uid, pod.containers.into_iter().map(|c| (c.name.clone(), c.total())).collect());
        Some(Self { at, node: summary.node.total(), pods: summary.pods.into_iter().map(containers).collect() })
    }
}

/// The use between two totals; None where what is counted began anew.
fn rate(before: Total, after: Total, window: SignedDuration) -> Option<Usage> {
    let used = after.cpu_nanos.checked_sub(before.cpu_nanos)?;
    let nanos = u128::try_from(window.as_nanos()).ok().filter(|nanos| *nanos > 0)?;
    let cpu_nanos = u64::try_from(u128::from(used) * 1_000_000_000 / nanos).ok()?;
    Some(Usage { cpu_nanos, memory: after.memory })
}

/// The last two readings of each node.
#[derive(Default)]
struct State {
    nodes: HashMap<Box<str>, (Option<Reading>, Reading)>,
    asked: Option<Instant>,
}

/// See the module.
pub struct Metrics {
    state: Mutex<State>,
    /// Readings since somebody began to ask; 0 while nobody does.
    rounds: watch::Sender<u64>,
    woken: tokio::sync::Notify,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { state: Mutex::default(), rounds: watch::Sender::new(0), woken: tokio::sync::Notify::new() }
    }
}

impl Metrics {
    /// Somebody wants to know, now and for a while. Returns when there are two readings, or it takes too long.
    pub async fn wanted(&self) {
        self.state.lock().asked = Some(Instant::now());
        let mut rounds = self.rounds.subscribe();
        self.woken.notify_one();
        let _ = tokio::time::timeout(PATIENCE, rounds.wait_for(|rounds| *rounds >= 2)).await;
    }

    /// What is known of a pod.
    pub fn pod(&self, node: &str, uid: &str) -> Option<Sample> {
        let state = self.state.lock();
        let (before, after) = state.nodes.get(node)?;
        let before = before.as_ref()?;
        let window = after.at.duration_since(before.at);
        let (then, now) = (before.pods.get(uid)?, after.pods.get(uid)?);
        let containers = now
            .iter()
            .filter_map(|(name, total)| {
                let (_, earlier) = then.iter().find(|(its, _)| its == name)?;
                Some((name.clone(), rate(*earlier, *total, window)?))
            })
            .collect();
        Some(Sample { at: after.at, window, containers })
    }

    /// What is known of a node.
    pub fn node(&self, name: &str) -> Option<NodeSample> {
        let state = self.state.lock();
        let (before, after) = state.nodes.get(name)?;
        let before = before.as_ref()?;
        let window = after.at.duration_since(before.at);
        Some(NodeSample { at: after.at, window, usage: rate(before.node, after.node, window)? })
    }

    fn still_wanted(&self) -> bool {
        self.state.lock().asked.is_some_and(|asked| asked.elapsed() < WANTED)
    }

    /// Takes in one round: nodes that did not answer are known nothing of. Whether there are some of which this was the first reading.
    fn take(&self, readings: Vec<(Box<str>, Reading)>) -> bool {
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.nodes);
        state.nodes = readings
            .into_iter()
            .map(|(name, reading)| {
                let earlier = before.remove(&name).map(|(_, last)| last);
                (name, (earlier, reading))
            })
            .collect();
        let new = state.nodes.values().any(|(before, _)| before.is_none());
        drop(state);
        self.rounds.send_modify(|rounds| *rounds += 1);
        new
    }

    fn forget(&self) {
        self.state.lock().nodes.clear();
        self.rounds.send_replace(0);
    }
}

/// Reads the nodes while somebody wants to know.
pub async fn run(core: Arc<Core>) {
    let metrics = &core.metrics;
    loop {
        metrics.woken.notified().await;
        while metrics.still_wanted() {
            let nodes = core.store.snapshot().range("nodes", None, None).map(|node| Box::from(&*node.key.name)).collect();
            let readings = read(&core, nodes).await;
            let new = metrics.take(readings);
            // A node's second reading follows its first closely, all others at the period.
            let pause = if new || *metrics.rounds.borrow() < 2 { FIRST } else { PERIOD };
            tokio::time::sleep(pause).await;
        }
        metrics.forget();
    }
}

async fn read(core: &Core, nodes: Vec<Box<str>>) -> Vec<(Box<str>, Reading)> {
    let each: Vec<_> = nodes.into_iter().map(|name| read_one(core, name)).collect();
    let read: Vec<Option<(Box<str>, Reading)>> = futures::stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    read.into_iter().flatten().collect()
}

/// One node; None for one that does not answer, which is what a node that is not connected does.
async fn read_one(core: &Core, name: Box<str>) -> Option<(Box<str>, Reading)> {
    let json = tokio::time::timeout(ANSWER, nodes::connect::stats(core, &name)).await.ok()?.ok()?;
    Some((name, Reading::of(&json, Timestamp::now())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: i64, cpu: u64, memory: u64) -> Reading {
        let json = format!(
            r#"{{"node":{{"cpu":{{"usageCoreNanoSeconds":{cpu}}},"memory":{{"workingSetBytes":{memory}}}}},"pods":[{{"podRef":{{"uid":"u"}},
            "containers":[{{"name":"c","cpu":{{"usageCoreNanoSeconds":{cpu}}},"memory":{{"workingSetBytes":{memory}}}}}]}}]}}"#
        );
        Reading::of(json.as_bytes(), Timestamp::from_second(seconds).expect("a time")).expect("a reading")
    }

    #[test]
    fn two_readings_make_a_rate() {
        let metrics = Metrics::default();
        metrics.take(vec![("n1".into(), reading(0, 1_000_000_000, 5))]);
        assert_eq!((metrics.pod("n1", "u"), metrics.node("n1")), (None, None), "one tells nothing");
        metrics.take(vec![("n1".into(), reading(10, 6_000_000_000, 4096))]);
        let usage = Usage { cpu_nanos: 500_000_000, memory: 4096 };
        let sample = metrics.pod("n1", "u").expect("a sample");
        assert_eq!((sample.window, &*sample.containers), (SignedDuration::from_secs(10), &[("c".into(), usage)][..]));
        assert_eq!(metrics.node("n1").map(|node| node.usage), Some(usage));
        metrics.take(vec![("n1".into(), reading(20, 1, 4096))]);
        assert_eq!(metrics.pod("n1", "u").map(|sample| sample.containers.len()), Some(0), "the container began anew");
        metrics.take(Vec::new());
        assert_eq!(metrics.node("n1"), None, "the node is silent");
        assert!(Reading::of(b"[", Timestamp::UNIX_EPOCH).is_none());
    }

    #[test]
    fn usage_is_written_as_upstream_does() {
        let quantities = |cpu_nanos, memory| Usage { cpu_nanos, memory }.quantities();
        assert_eq!(quantities(0, 0), ("0".into(), "0".into()));
        assert_eq!(quantities(12_345, 2048), ("12345n".into(), "2Ki".into()));
        assert_eq!(quantities(1_500_000_000, 1000), ("1500m".into(), "1k".into()));
        assert_eq!(quantities(2_000_000_000, 1 << 30), ("2".into(), "1Gi".into()));
        let usage = Usage { cpu_nanos: 1, memory: 3 };
        assert_eq!((usage.millis("cpu"), usage.millis("memory"), usage.millis("disk")), (Some(1), Some(3000), None));
    }
}
