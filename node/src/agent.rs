//! The agent as a whole: what it is given, how its parts are put together, how it starts and stops.

use crate::{
    dns, events,
    eviction::{self, manager::Manager},
    images::{self, Images},
    kubelet::Kubelet,
    machine::{Machine, Reserve},
    mirror::{self, Change, Key, Mirror, Objects, Position},
    network::{self, Network, loopback::Loopback, sync::Sync},
    pods::{
        set::{Input, Set},
        statics::{self, mirrors::Mirrors},
        views::Views,
        work::Work,
    },
    registration::{Pressure, Reporter},
    report,
    session::{self, Session},
    stats::{Collector, counters::Counters},
    streams::Streams,
};
use coracle_api::amounts::Amounts;
use coracle_link::{Connection, Connector};
use coracle_runtime::Runtime;
use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the agent is given.
#[derive(Clone)]
pub struct Options {
    /// The agent's own directory: mirror, images, pods.
    pub data_dir: PathBuf,
    /// The Node's name.
    pub node_name: String,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// This node's pods, such as `127.42.0.0/16` without root.
    pub pod_cidr: String,
    /// The node's own address.
    pub node_ip: IpAddr,
    /// No root: loopback addresses, nothing is configured in the kernel.
    pub rootless: bool,
    /// What pods see in `KUBERNETES_SERVICE_HOST` and `_PORT`; `None`: the `kubernetes` Service's address.
    pub api_server: Option<SocketAddr>,
    /// `v1.36.0+coracle.…`
    pub version: String,
    /// `coracle://…`
    pub runtime_version: String,
    /// Pods that fit on the node.
    pub max_pods: u32,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The address of cluster DNS, which this node serves there; its port becomes the one that could be had. None: no cluster DNS.
    pub cluster_dns: Option<SocketAddr>,
    /// Ranges of Services and pods, whose addresses nobody outside can name.
    pub cluster_ranges: Vec<String>,
    /// The machine's own name servers, for what is none of the cluster's names.
    pub resolv_conf: PathBuf,
    /// CAs for every registry; `<data-dir>/certs.d/<registry>/ca.crt` is looked at besides.
    pub registry_cas: Vec<PathBuf>,
    /// Time-out of one request to a component that serves HTTP.
    pub request_timeout: Duration,
    /// A directory (or one file) with manifests of static pods.
    pub manifests: Option<PathBuf>,
    /// How long nothing may be said in a session with a program or a forwarded connection.
    pub streaming_idle: Duration,
    /// How little of the machine may be left before it is under pressure.
    pub eviction: eviction::Config,
    /// What of the machine is kept for everything else.
    pub system_reserved: Reserve,
    /// What of it is kept for the agent and what it starts besides containers.
    pub kube_reserved: Reserve,
    /// Memory QoS (KEP-2570), where control groups are of version 2: memory that pods asked for stays theirs, and who uses much more is slowed down.
    pub memory_qos: bool,
    /// Processes and threads that a pod of processes may have: one that forks without end must not take the machine's.
    pub pod_max_pids: Option<u64>,
    /// When images are removed for want of disk.
    pub image_gc: images::collect::Policy,
    /// A pull that takes so long is told of by an event, and again after twice as long each time.
    pub pull_events: Duration,
    /// Where this node listens for what its pods have to say to the API server: the `kubernetes` Service's address. None: somebody else does.
    pub api_listen: Option<SocketAddr>,
    /// `None`: [`Loopback`], which needs no root.
    pub network: Option<Arc<dyn Network>>,
}

impl Options {
    /// The usual values around a directory and a name.
    pub fn new(data_dir: impl Into<PathBuf>, node_name: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_name: node_name.into(),
            labels: BTreeMap::new(),
            pod_cidr: "127.42.0.0/16".into(),
            node_ip: Ipv4Addr::LOCALHOST.into(),
            rootless: true,
            api_server: None,
            version: concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION")).into(),
            runtime_version: concat!("coracle://", env!("CARGO_PKG_VERSION")).into(),
            max_pods: 2000,
            cluster_domain: "cluster.local".into(),
            cluster_dns: None,
            cluster_ranges: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            registry_cas: Vec::new(),
            request_timeout: Duration::from_secs(30),
            manifests: None,
            streaming_idle: Duration::from_secs(4 * 3600),
            eviction: eviction::Config::default(),
            system_reserved: Reserve::default(),
            kube_reserved: Reserve::of_agent(),
            memory_qos: false,
            pod_max_pids: Some(16_384),
            image_gc: images::collect::Policy::default(),
            pull_events: Duration::from_secs(10),
            api_listen: None,
            network: None,
        }
    }

    /// What of the machine pods may have.
    pub fn allocatable(&self, machine: &Machine) -> Amounts {
        machine.allocatable([&self.system_reserved, &self.kube_reserved], &self.eviction.hard)
    }
}

/// Why the agent cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its mirror.
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    /// Its images.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// Its pod range.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// Its cluster's domain.
    #[error("{0}")]
    Dns(String),
    /// Its directory.
    #[error("make {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The node agent.
pub struct Agent;

/// The running part.
pub struct Service {
    options: Arc<Options>,
    connector: Arc<dyn Connector>,
    runtimes: Vec<Arc<dyn Runtime>>,
    mirror: Mirror,
    position: Position,
    images: Images,
    network: Arc<dyn Network>,
    dns: Option<(dns::Service, dns::Names)>,
    machine: Machine,
    views: Views,
    link: session::Link,
    current: watch::Sender<Option<Arc<dyn Connection>>>,
    inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    adopted: watch::Sender<bool>,
}

/// Speaks to a running agent. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    views: Views,
    adopted: watch::Receiver<bool>,
    link: session::Link,
}

impl Agent {
    /// Opens everything on disk; nothing runs yet.
    #[allow(clippy::new_ret_no_self, reason = "there is no agent to keep, only its service and handle")]
    pub fn new(mut options: Options, connector: Arc<dyn Connector>, runtimes: Vec<Arc<dyn Runtime>>) -> Result<(Service, Handle), Error> {
        let pods = options.data_dir.join("pods");
        // Secrets and tokens lie below, in files that hosts of another uid read (through descriptors): this door is what keeps everybody else out.
        crate::volumes::paths::make(&pods, 0o700).map_err(|source| Error::Directory { path: pods, source })?;
        let (mirror, position) = Mirror::open(&options.data_dir)?;
        let images = Images::open(images::Options {
            data_dir: options.data_dir.clone(),
            registry_cas: options.registry_cas.clone(),
            silence: None,
            containers: runtimes.iter().any(|runtime| runtime.name() == "oci"),
            say: options.pull_events,
        })?;
        let network: Arc<dyn Network> = match &options.network {
            Some(network) => network.clone(),
            None => Arc::new(Loopback::new(&options.pod_cidr)?),
        };
        let dns = match options.cluster_dns {
            Some(SocketAddr::V4(at)) => {
                let kept = options.data_dir.join("dns-port");
                let made = dns::Service::new(*at.ip(), &options.cluster_domain, &options.cluster_ranges, options.resolv_conf.clone(), &kept, &mirror);
                let (service, names) = made.map_err(Error::Dns)?;
                options.cluster_dns = Some(service.address());
                Some((service, names))
            }
            _ => None,
        };
        let machine = Machine::read(&options.data_dir);
        let (link, current) = session::link();
        let inputs = mpsc::channel(1024);
        let views = Views::default();
        let adopted = watch::Sender::new(false);
        let handle = Handle { inputs: inputs.0.clone(), views: views.clone(), adopted: adopted.subscribe(), link: link.clone() };
        let options = Arc::new(options);
        let service =
            Service { options, connector, runtimes, mirror, position, images, network, dns, machine, views, link, current, inputs, adopted };
        Ok((service, handle))
    }
}

impl Service {
    /// Runs until cancelled. Pods go on running; [`Handle::stop_pods`] stops them.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { options, connector, runtimes, mirror, position, images, network, dns, machine, views, link, current, inputs, adopted } = self;
        let (inputs, receiver) = inputs;
        let tracker = TaskTracker::new();
        let names = dns.map(|(service, names)| {
            tracker.spawn(service.run(cancel.clone()));
            names
        });
        let (event_service, recorder) = events::new(link.clone(), &options.node_name);
        let (deleted, mut deletions) = mpsc::channel(256);
        let (report_service, reports) = report::new(link.clone(), deleted);
        let objects: Arc<dyn Objects> = Arc::new(mirror.clone());
        let (pressure, pressed) = watch::channel(Pressure::default());
        let counters = Counters::default();
        let work = Arc::new(Work::new(
            options.clone(),
            objects.clone(),
            network,
            runtimes.clone(),
            images.clone(),
            link.clone(),
            recorder.clone(),
            views.clone(),
            machine.clone(),
            pressed.clone(),
            counters.clone(),
        ));
        let collector =
            Arc::new(Collector::new(options.data_dir.clone(), options.node_name.clone(), views.clone(), runtimes.clone(), images.clone()));

        // Registration and reports need the link only; they start first so that the node is Ready early.
        let kubelet = Kubelet {
            options: options.clone(),
            views: views.clone(),
            machine: machine.clone(),
            collector: collector.clone(),
            counters: counters.clone(),
            objects: objects.clone(),
        };
        let streams = Arc::new(Streams::new(options.clone(), views.clone(), runtimes.clone(), kubelet));
        let (changes, batches) = mpsc::channel(64);
        let session = Session::new(connector, current, mirror.clone(), position, changes, streams);
        tracker.spawn(session.run(cancel.clone()));
        tracker.spawn(event_service.run(cancel.clone()));
        tracker.spawn(report_service.run(cancel.clone()));
        let handlers = runtimes.iter().map(|runtime| runtime.name()).collect();
        let reporter = Reporter {
            options: options.clone(),
            machine,
            handlers,
            images: images.clone(),
            pressure: pressed,
            link: link.clone(),
            recorder: recorder.clone(),
        };
        tracker.spawn(reporter.run(cancel.clone()));

        if let Some(at) = options.api_listen {
            tracker.spawn(network::api::run(at, Arc::new(mirror.clone()), cancel.clone()));
        }
        let services = Sync {
            objects: Arc::new(mirror.clone()),
            network: work.network.clone(),
            node: options.node_name.clone(),
            recorder: recorder.clone(),
            inputs: inputs.clone(),
        };
        let services = services.run(work.services(), cancel.clone());
        let limits = work.limits.clone();
        tracker.spawn(images::collect::run(
            images.clone(),
            options.image_gc.clone(),
            Arc::new(mirror.clone()),
            recorder.clone(),
            options.node_name.clone(),
            cancel.clone(),
        ));
        let manager = Manager {
            config: options.eviction.clone(),
            data_dir: options.data_dir.clone(),
            node: options.node_name.clone(),
            objects,
            views,
            collector,
            images: images.clone(),
            image_age: options.image_gc.min_age,
            recorder: recorder.clone(),
            counters,
            pressure,
        };
        {
            let (inputs, cancel) = (inputs.clone(), cancel.clone());
            tracker.spawn(manager.run(cancel, async move |uid, eviction| _ = inputs.send(Input::Evict(uid, eviction)).await));
        }
        let mut set = Set::new(work.clone(), reports, recorder);
        let mirrors =
            Mirrors { objects: Arc::new(mirror.clone()), link, node: options.node_name.clone(), wanted: set.mirrors(), changed: work.changes() };
        let mut sandboxes = Vec::new();
        for runtime in &runtimes {
            match runtime.list().await {
                Ok(list) => sandboxes.extend(list),
                Err(why) => tracing::error!(runtime = runtime.name(), %why, "list what runs on this machine"),
            }
        }
        let statics = match &options.manifests {
            Some(path) => {
                let read = statics::files::first(path.clone(), options.node_name.clone());
                cancel.run_until_cancelled(read).await.unwrap_or_default()
            }
            None => Vec::new(),
        };
        set.adopt(sandboxes, statics).await;
        tracker.spawn(mirrors.run(cancel.clone()));
        if let Some(path) = options.manifests.clone() {
            let (inputs, cancel) = (inputs.clone(), cancel.clone());
            let follow = statics::files::follow(path, options.node_name.clone(), async move |pods| _ = inputs.send(Input::Files(pods)).await);
            tracker.spawn(async move { cancel.run_until_cancelled(follow).await });
        }
        adopted.send_replace(true);
        // Only now have adopted pods their addresses.
        tracker.spawn(services);

        for runtime in &runtimes {
            let (runtime, inputs, cancel) = (runtime.clone(), inputs.clone(), cancel.clone());
            tracker.spawn(async move {
                loop {
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        event = runtime.next_event() => if inputs.send(Input::Runtime(event)).await.is_err() { return },
                    }
                }
            });
        }
        {
            let (inputs, cancel) = (inputs.clone(), cancel.clone());
            // Said again while it holds, so a lost one does no harm.
            tracker.spawn(limits.run(cancel, async move |uid, eviction| _ = inputs.send(Input::Evict(uid, eviction)).await));
        }
        tracker.spawn(collect_garbage(runtimes.clone(), images, cancel.clone()));
        {
            let (answered, ended) = (inputs.clone(), cancel.clone());
            tracker.spawn(async move {
                while let Some(Some(deleted)) = ended.run_until_cancelled(deletions.recv()).await {
                    if answered.send(Input::Deleted(deleted)).await.is_err() {
                        return;
                    }
                }
            });
            let (inputs, cancel) = (inputs.clone(), cancel.clone());
            tracker.spawn(async move { cancel.run_until_cancelled(pass(batches, names, inputs)).await });
        }
        drop(inputs);
        set.run(receiver, cancel.clone()).await;
        tracker.close();
        // After a stop of all pods the rest goes on until it is cancelled: the control plane may still want logs.
        cancel.cancelled().await;
        tracker.wait().await;
        mirror.flush().await;
    }
}

/// Passes what the mirror brings on to cluster DNS at once, and to the pods when they have time. What waits for them is an object's last state: no more than
/// the mirror holds.
async fn pass(mut batches: mpsc::Receiver<Vec<Change>>, names: Option<dns::Names>, inputs: mpsc::Sender<Input>) {
    let mut waiting: Vec<Change> = Vec::new();
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            place = inputs.reserve(), if !waiting.is_empty() => match place {
                Ok(place) => {
                    place.send(Input::Changes(std::mem::take(&mut waiting)));
                    continue;
                }
                Err(_) => return,
            },
        };
        let Some(batch) = batch else { return };
        if let Some(names) = &names {
            names.apply(&batch);
        }
        if !waiting.is_empty() {
            let newer: HashSet<&Key> = batch.iter().map(|(key, _)| key).collect();
            waiting.retain(|(key, _)| !newer.contains(key));
        }
        waiting.extend(batch);
    }
}

/// Between two collections of what removed images left with the runtimes.
const COLLECT: Duration = Duration::from_secs(3600);

/// Images are removed by another process (`coracle image rm`), so what runtimes made of them is looked through now and then.
async fn collect_garbage(runtimes: Vec<Arc<dyn Runtime>>, images: Images, cancel: CancellationToken) {
    loop {
        match images.digests() {
            Ok(keep) => {
                for runtime in &runtimes {
                    if let Err(why) = runtime.collect_garbage(&keep).await {
                        tracing::warn!(runtime = runtime.name(), %why, "remove what removed images left behind");
                    }
                }
            }
            Err(why) => tracing::warn!(%why, "list the images; nothing is removed"),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(COLLECT) => {}
        }
    }
}

impl Handle {
    /// Stops all pods, containers with their grace but within `bound`; returns the names (`namespace/name`) of those that were late: killed before
    /// their own grace was over, or still there.
    /// They are not reported as ended: they come back when the agent does.
    pub async fn stop_pods(&self, bound: Duration) -> Vec<String> {
        let (answer, wait) = oneshot::channel();
        if self.inputs.send(Input::Stop { bound, answer }).await.is_err() {
            return Vec::new();
        }
        wait.await.unwrap_or_default()
    }

    /// Waits until what was there before has been taken over.
    pub async fn adopted(&self) {
        let mut adopted = self.adopted.clone();
        let _ = adopted.wait_for(|done| *done).await;
    }

    /// Waits until there is a link.
    pub async fn connected(&self) {
        self.link.connected().await;
    }

    /// What is known of the pods on this node.
    pub fn views(&self) -> &Views {
        &self.views
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::machine::Eviction;

    #[tokio::test]
    async fn what_waits_for_pods_is_each_objects_last_state() {
        let (feed, batches) = mpsc::channel(1);
        let (inputs, mut pods) = mpsc::channel(1);
        inputs.send(Input::Evict("busy".into(), Eviction::of("it is busy".into()))).await.unwrap();
        let passing = tokio::spawn(pass(batches, None, inputs));
        let change = |name: &str, state: &'static str| (Key::new("services", "d", name), Some(bytes::Bytes::from_static(state.as_bytes())));
        for batch in [vec![change("a", "1"), change("b", "1")], vec![change("a", "2")], vec![change("c", "1"), change("a", "3")]] {
            // Nobody takes anything meanwhile, and the feed does not wait.
            feed.send(batch).await.unwrap();
        }
        feed.reserve().await.unwrap();
        assert!(matches!(pods.recv().await, Some(Input::Evict(..))));
        let Some(Input::Changes(changes)) = pods.recv().await else { panic!("changes") };
        assert_eq!(changes, [change("b", "1"), change("c", "1"), change("a", "3")]);
        drop(feed);
        passing.await.unwrap();
    }
}
