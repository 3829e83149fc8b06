//! Carrying out a pod's actions: the thin shell around the pure part. Each call ends in one event.

mod image;
mod last_words;
pub mod linux;
mod resize;
mod runtimes;
mod setup;
mod start;
mod stop;
mod teardown;
mod tokens;
mod users;

use super::{
    downward::Facts,
    fit::Room,
    machine::{Action, Event, Why},
    probe,
    spec::Pod,
    step,
    views::Views,
};
use crate::{
    agent::Options,
    events::{self, Recorder},
    images::Images,
    machine::Machine,
    mirror::Objects,
    network::{Backend, Frontend, HostPort, Listeners, Network, Protocol},
    registration::Pressure,
    session::Link,
    stats::counters::Counters,
    volumes::{self, limits::Limits},
};
use coracle_api::amounts::Amounts;
use coracle_runtime::Runtime;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};

/// How long a start waits for a config map or secret that the feed may bring a moment after the pod.
const LATECOMERS: Duration = Duration::from_millis(1000);
/// Starts (set-up, creation) under way at once: more would only make all of them late.
const STARTS: usize = 64;

/// What actions need. One for all pods.
pub struct Work {
    /// The agent's options.
    pub options: Arc<Options>,
    /// The mirror.
    pub objects: Arc<dyn Objects>,
    /// Addresses and services.
    pub network: Arc<dyn Network>,
    /// wasm, oci.
    pub runtimes: Vec<Arc<dyn Runtime>>,
    /// Images.
    pub images: Images,
    /// The API.
    pub link: Link,
    /// Event lists.
    pub recorder: Recorder,
    /// What others look at.
    pub views: Views,
    /// The machine's size.
    pub machine: Machine,
    /// What the node runs short of.
    pressed: watch::Receiver<Pressure>,
    /// What is counted.
    pub counters: Counters,
    /// Volumes that may grow only so large.
    pub limits: Limits,
    gate: Semaphore,
    /// Ranges of user ids are given out one after another.
    ranges: parking_lot::Mutex<()>,
    version: watch::Sender<u64>,
    services: watch::Sender<u64>,
}

struct Failure {
    reason: String,
    message: String,
    fatal: bool,
}

impl Work {
    /// Everything an action needs. Within a tokio runtime.
    #[allow(clippy::too_many_arguments, reason = "one for each part of the agent; a struct would repeat the fields")]
    pub fn new(
        options: Arc<Options>,
        objects: Arc<dyn Objects>,
        network: Arc<dyn Network>,
        runtimes: Vec<Arc<dyn Runtime>>,
        images: Images,
        link: Link,
        recorder: Recorder,
        views: Views,
        machine: Machine,
        pressed: watch::Receiver<Pressure>,
        counters: Counters,
    ) -> Self {
        let (gate, version, limits) = (Semaphore::new(STARTS), watch::Sender::new(0), Limits::new());
        let services = watch::Sender::new(0);
        Self {
            options,
            objects,
            network,
            runtimes,
            images,
            link,
            recorder,
            views,
            machine,
            pressed,
            counters,
            limits,
            gate,
            ranges: parking_lot::Mutex::default(),
            version,
            services,
        }
    }

    /// The mirror changed: whoever waits for a latecomer looks again.
    pub fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }

    /// Tells when the mirror changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What the node runs short of.
    pub fn pressure(&self) -> Pressure {
        *self.pressed.borrow()
    }

    fn allocatable(&self) -> Amounts {
        self.options.allocatable(&self.machine)
    }

    fn node_of_pods(&self) -> linux::Node {
        let reclaims = self.options.memory_qos.then(|| self.allocatable().memory);
        linux::Node { memory: self.machine.memory, reclaims, pids: self.options.pod_max_pids }
    }

    /// Services, or ports of the node that lead to pods, are others now.
    pub fn services_changed(&self) {
        self.services.send_modify(|v| *v += 1);
    }

    /// Tells when they are.
    pub fn services(&self) -> watch::Receiver<u64> {
        self.services.subscribe()
    }

    /// A pod's directory.
    pub fn directory(&self, uid: &str) -> PathBuf {
        self.options.data_dir.join("pods").join(uid)
    }

    /// The highest restart number that has a log.
    pub fn highest_log(&self, uid: &str, container: &str) -> Option<u32> {
        let entries = std::fs::read_dir(self.directory(uid).join("logs").join(container)).ok()?;
        entries.filter_map(|e| e.ok()?.file_name().to_str()?.split('.').next()?.parse().ok()).max()
    }

    fn facts(&self, ip: Option<IpAddr>) -> Facts {
        let allocatable = self.allocatable();
        Facts {
            node_name: self.options.node_name.clone(),
            host_ip: self.options.node_ip,
            pod_ip: ip,
            cpu_millis: allocatable.cpu,
            memory: allocatable.memory,
            host_paths: false,
        }
    }

    /// What this node has for pods.
    pub fn room(&self) -> Room {
        Room { amounts: self.allocatable(), pods: self.options.max_pods }
    }

    /// The Node object, if the feed has brought it.
    pub fn node(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.objects.get("nodes", "", &self.options.node_name)?).ok()
    }

    /// Does what an action says.
    pub async fn carry_out(&self, pod: &Pod, action: Action, ip: Option<IpAddr>) -> Event {
        match action {
            Action::Setup => {
                self.counters.count(|counts| counts.pods += 1);
                self.set_up(pod, ip).await
            }
            Action::Pull { container } => self.pull(pod, container).await,
            Action::Start { container, attempt } => {
                let event = self.start(pod, container, attempt, ip).await;
                self.counters.count(|counts| {
                    counts.started += 1;
                    counts.start_errors += u64::from(!matches!(event, Event::Started { .. }));
                });
                event
            }
            Action::Stop { container, attempt, grace, why, hook } => {
                let after = if why == Why::PodEnds { step::stops_after(pod, container) } else { 0..0 };
                self.stop(pod, container, attempt, grace, ip.filter(|_| hook), after).await
            }
            Action::PostStart { container, attempt } => {
                let hook = pod.container(container).and_then(|c| Some((c, c.lifecycle.as_ref()?.post_start.as_ref()?))).zip(ip);
                let well = match hook {
                    Some(((spec, handler), ip)) => self.hook(pod, (container, attempt), spec, handler, ip).await,
                    None => true,
                };
                Event::Hooked { container, attempt, well }
            }
            Action::Probe { container, attempt, kind } => {
                let outcome = match (pod.container(container), ip) {
                    (Some(spec), Some(ip)) => match kind.of(spec) {
                        Some(check) => probe::probe(spec, check, ip, self.inside(pod, spec, attempt)).await.map(|warning| {
                            if let Some(warning) = warning {
                                let message = format!("{} probe warning: {warning}", kind.title());
                                self.note(pod, Some(container), true, "ProbeWarning", &message);
                            }
                        }),
                        None => Ok(()),
                    },
                    _ => Err("the pod has no address".into()),
                };
                if let Some(spec) = pod.container(container) {
                    self.counters.probed(pod, &spec.name, kind, outcome.is_ok());
                }
                Event::Probed { container, attempt, kind, outcome }
            }
            Action::Refresh => self.refresh(pod, ip).await,
            Action::Resize(containers) => Event::Resized(self.resize(pod, &containers).await),
            Action::Teardown => self.tear_down(pod, volumes::unmount).await,
            Action::Leave => self.tear_down(pod, volumes::leave).await,
            // Handled by the set itself.
            Action::Fail(_) | Action::Restart | Action::Delete | Action::Forget => Event::SpecChanged { volume: false },
        }
    }

    /// Tries again, for a moment, when what is missing may come with the next batch of the feed.
    async fn patiently<T, E, F: Future<Output = Result<T, E>>>(&self, mut attempt: impl FnMut() -> F, missing: impl Fn(&E) -> bool) -> Result<T, E> {
        let mut version = self.version.subscribe();
        let deadline = Instant::now() + LATECOMERS;
        loop {
            match attempt().await {
                Err(why) if missing(&why) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !matches!(tokio::time::timeout(left, version.changed()).await, Ok(Ok(()))) {
                        return Err(why);
                    }
                }
                other => return other,
            }
        }
    }

    /// Tells a pod's host which Service addresses it listens on. Whether it has them all; if not, an event says why, and it may be tried again.
    pub async fn listen(&self, pod: &Pod, listeners: Listeners) -> bool {
        let Ok(runtime) = self.runtime(pod) else { return true };
        match runtime.set_service_listeners(&pod.metadata.uid, listeners).await {
            Ok(()) => true,
            Err(why) => {
                self.note(pod, None, true, "ServiceListenError", &why.to_string());
                false
            }
        }
    }

    fn note(&self, pod: &Pod, container: Option<usize>, warning: bool, reason: &str, message: &str) {
        let about = events::About {
            kind: "Pod",
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            field_path: container.map(|index| pod.field_path(index)).unwrap_or_default(),
        };
        self.recorder.record(about, warning, reason, message);
    }
}

/// Ports of the node that lead to the pod; a pod on the machine's own network has them already.
pub fn host_ports(pod: &Pod, ip: IpAddr) -> Vec<HostPort> {
    let IpAddr::V4(ip) = ip else { return Vec::new() };
    if pod.spec.host_network {
        return Vec::new();
    }
    let asked = pod.host_ports().filter_map(|port| {
        let protocol = Protocol::parse(Some(&port.protocol))?;
        let at = port.host_ip.parse().ok().filter(|at: &Ipv4Addr| !at.is_unspecified());
        Some(HostPort { front: Frontend { ip: at, protocol, port: port.host_port }, to: Backend { ip, port: port.container_port } })
    });
    asked.collect()
}
