//! Wiring: from options to a running control plane, and its orderly end.

use crate::{
    controllers,
    scheduler::{self, profile::Profile},
};
use bytes::Bytes;
use coracle_api::Registry;
pub use coracle_apiserver::bootstrap::{dns_address, first_address};
use coracle_apiserver::{
    Tasks, admission, audit,
    auth::{self, Auth, User},
    bootstrap,
    client::{Client, events},
    custom, expiry, http,
    nodes::{self, Call, ServeCall, Sessions},
    pipeline::{Config, Core},
    resources,
    telemetry::Telemetry,
};
use coracle_link::{
    pki::{self, Authority, Identity},
    quic,
};
use coracle_schema::Schemas;
use coracle_store::{Key, Scope, Store};
use jiff::Timestamp;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long the tasks may take to end.
const STOP: Duration = Duration::from_secs(8);
/// A node's part of the pod range: 4,096 addresses, half of them for wasm pods.
pub const NODE_PREFIX: u8 = 20;

/// What a control plane is started with.
#[derive(Clone)]
pub struct Options {
    /// Holds `pki/` and `store/`.
    pub data_dir: PathBuf,
    /// Where the API is served.
    pub api_addr: SocketAddr,
    /// Where the link is served (UDP).
    pub link_addr: SocketAddr,
    /// Range of pod addresses.
    pub pod_cidr: String,
    /// Range of Service addresses.
    pub service_cidr: String,
    /// The cluster's certificate authority.
    pub authority: Authority,
    /// What may be set, and need not be.
    pub settings: Settings,
}

/// What has a default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A profile for every `schedulerName` that is served.
    pub profiles: Vec<Profile>,
    /// The audit log, if one is kept.
    pub audit: Option<audit::Options>,
    /// Requests worked on at once, of all priority levels that are not exempt.
    pub seats: usize,
    /// How long the server's own certificates live; they are made anew at two thirds of it.
    pub certificate_life: Duration,
    /// Names and addresses by which the API is reached, besides the one it is served at and those that every cluster's has: they are in its certificate, too.
    pub names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            audit: None,
            seats: http::inflight::SEATS,
            certificate_life: Authority::LEAF_VALID,
            names: Vec::new(),
        }
    }
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API's address or certificates.
    #[error(transparent)]
    Api(#[from] http::Error),
    /// The store.
    #[error("cannot open the store under {dir}: {error}")]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What the store says.
        error: coracle_store::Error,
    },
    /// The audit log's file.
    #[error("cannot write the audit log: {0}")]
    Audit(std::io::Error),
    /// What is told to monitoring.
    #[error("cannot count: {0}")]
    Telemetry(#[from] coracle_apiserver::telemetry::Error),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// The key of service-account tokens.
    #[error("cannot use the key that signs service-account tokens: {0}")]
    Tokens(#[from] auth::tokens::Error),
    /// The link's address or certificate.
    #[error("cannot serve the link to nodes: {0}")]
    Link(#[from] coracle_link::Error),
    /// The range of pod addresses.
    #[error("pod range: {0}")]
    PodRange(#[from] controllers::node_ipam::BadRange),
    /// The objects every cluster has.
    #[error("cannot make the objects every cluster has: {0}")]
    Bootstrap(coracle_api::Status),
}

/// A running control plane.
pub struct Control {
    client: Client,
    tasks: Tasks,
    api_addr: SocketAddr,
    service_addr: Option<SocketAddr>,
    link_addr: SocketAddr,
}

/// Names and addresses in the API server's certificate.
fn server_names(options: &Options) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", "::1"]
            .map(String::from)
            .to_vec();
    let at = options.api_addr.ip();
    names.extend((!at.is_unspecified()).then(|| at.to_string()));
    names.extend(options.settings.names.iter().cloned());
    names.extend(first_address(&options.service_cidr).map(|ip| ip.to_string()));
    names.sort();
    names.dedup();
    names
}

impl Control {
    /// Opens the store, makes what every cluster has, and serves. When it returns the API answers.
    pub async fn start(options: Options) -> Result<Control, Error> {
        let listener = http::bind(options.api_addr).await?;
        let api_addr = listener.address();
        let at_service = service_listener(&options.service_cidr, api_addr).await;
        let service_addr = at_service.as_ref().map(http::Listener::address);
        let store = open_store(&options).await?;
        let pki_dir = options.data_dir.join("pki");
        let issuer = "https://kubernetes.default.svc.cluster.local".to_string();
        let auth = Auth::open(auth::Options { store: store.clone(), pki_dir: pki_dir.clone(), issuer: issuer.clone(), audiences: Vec::new() })?;
        let tasks = Tasks::default();
        let ca_pem = options.authority.ca_pem().to_string();
        let registry = Registry::builtin();
        let core = Arc::new(Core {
            store: store.clone(),
            schemas: Schemas::builtin(),
            registry: registry.clone(),
            customs: custom::Kinds::new(store.clone(), registry.clone()),
            webhooks: Default::default(),
            aggregation: Default::default(),
            metrics: Default::default(),
            hooks: resources::Table::new(resources::builtin()),
            admission: admission::Admission::builtin(),
            auth: auth.clone(),
            config: Config {
                service_cidr: options.service_cidr.clone(),
                pod_cidr: options.pod_cidr.clone(),
                node_ports: (30_000, 32_767),
                domain: "cluster.local".into(),
                issuer,
                ca_pem: ca_pem.clone(),
                api_addr,
            },
            inflight: http::inflight::Limits::new(options.settings.seats)?,
            telemetry: Telemetry::new()?,
            audit: options.settings.audit.clone().map(audit::Log::open).transpose().map_err(Error::Audit)?,
            tasks: tasks.clone(),
            nodes: OnceLock::new(),
        });
        let proxy = core.aggregation.identify(Authority::open(&pki_dir.join("front-proxy"))?)?;
        tasks.spawn("front proxy's certificate", async move { proxy.keep().await });
        let (recorder, queue) = events::Recorder::new();
        let client = Client::new(core.clone(), Arc::new(User::masters()), recorder);

        bootstrap::run(&core).await.map_err(Error::Bootstrap)?;
        auth.reload();
        tasks.spawn("rbac rules", async move { auth.run().await });
        core.inflight.fairness.reload(&store);
        let fair = core.clone();
        tasks.spawn("priority levels", async move { fair.inflight.follow(&fair.store).await });
        tasks.spawn("event recorder", events::run(client.clone(), queue));
        tasks.spawn("metrics", coracle_apiserver::metrics::run(core.clone()));
        tasks.spawn("event expiry", expiry::run(store));
        let follower = core.clone();
        tasks.spawn("custom kinds", async move { follower.customs.run().await });
        let names = server_names(&options);
        let authority = options.authority.clone();
        let (signer, life) = (authority.clone(), options.settings.certificate_life);
        // Issued at every start: addresses may have changed, and it costs a millisecond. The link's name is always in it.
        let identity = Identity::new(life, move || signer.server(&names, life))?;
        let kept = identity.clone();
        tasks.spawn("server's certificate", async move { kept.keep().await });
        let link = quic::Server::bind(options.link_addr, &ca_pem, identity.clone())?;
        let link_addr = link.local_addr();
        serve_nodes(&core, link, &tasks);
        controllers::start(
            &client,
            controllers::Options {
                kinds: Arc::new(move || registry.kinds()),
                authority: authority.clone(),
                root_ca: ca_pem.clone(),
                service_range: options.service_cidr.clone(),
                pod_range: options.pod_cidr.parse()?,
                node_prefix: NODE_PREFIX,
                clock: Arc::new(Timestamp::now),
            },
            &tasks,
        );
        scheduler::start(&client, Arc::new(Timestamp::now), options.settings.profiles.clone(), &tasks);
        if let Some(listener) = at_service {
            listener.serve(core.clone(), identity.clone(), &ca_pem, &tasks)?;
        }
        listener.serve(core, identity, &ca_pem, &tasks)?;
        Ok(Control { client, tasks, api_addr, service_addr, link_addr })
    }

    /// Acts as `system:apiserver`, a member of `system:masters`.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The tracked tasks, for what else runs in this control plane.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Where the API is served, with its real port.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Where pods of an ordinary user's cluster reach the API: the `kubernetes` Service's address with the API's port. `None` where Services have
    /// addresses that the kernel carries on, and where that address could not be had.
    pub fn service_addr(&self) -> Option<SocketAddr> {
        self.service_addr
    }

    /// Where the link is served, with its real port.
    pub fn link_addr(&self) -> SocketAddr {
        self.link_addr
    }

    /// Waits until the node's `Ready` condition is True.
    ///
    /// # Errors
    /// The last thing known about the node, when it is not ready `within` that time.
    pub async fn node_ready(&self, name: &str, within: Duration) -> Result<(), String> {
        let scope = Scope { resource: Some("nodes".into()), namespace: None, name: Some(name.into()), field: None };
        let wait = async {
            loop {
                let (snapshot, mut watch) = self.client.store().list_watch(scope.clone());
                if snapshot.get(&Key::new("nodes", "", name)).is_some_and(|node| ready(&node.json)) {
                    return;
                }
                while let Ok(changes) = watch.next().await {
                    if changes.iter().filter_map(|change| change.new.as_ref()).any(|node| ready(&node.json)) {
                        return;
                    }
                }
            }
        };
        match tokio::time::timeout(within, wait).await {
            Ok(()) => Ok(()),
            Err(_) if self.client.get("nodes", "", name).is_none() => Err(format!("it did not register within {} s", within.as_secs())),
            Err(_) => Err(format!("it registered, but did not report Ready within {} s", within.as_secs())),
        }
    }

    /// Cancelled when the control plane stops.
    pub fn stopping(&self) -> &CancellationToken {
        self.tasks.token()
    }

    /// Ends everything; the names of tasks that were late.
    pub async fn stop(&self) -> Vec<&'static str> {
        let late = self.tasks.shutdown(STOP).await;
        self.client.store().shutdown().await;
        if let Some(log) = &self.client.core().audit {
            log.flush();
        }
        late
    }
}

/// With Services on loopback nothing carries connections to the `kubernetes` Service's address, and 127.0.0.1 is to a pod the pod itself: so the server
/// listens at that address too. (On its own port: 443 is root's.)
async fn service_listener(service_cidr: &str, api_addr: SocketAddr) -> Option<http::Listener> {
    let ip = first_address(service_cidr).filter(|ip| ip.is_loopback() && !api_addr.ip().is_unspecified() && *ip != api_addr.ip())?;
    let bound = http::bind(SocketAddr::new(ip, api_addr.port())).await;
    bound.inspect_err(|error| tracing::warn!(%error, "pods cannot reach the API by its Service's address")).ok()
}

/// Takes nodes in over the link; their calls go through the same pipeline as everybody's.
fn serve_nodes(core: &Arc<Core>, link: quic::Server, tasks: &Tasks) {
    let sessions = Sessions::default();
    if core.nodes.set(Arc::new(sessions.clone())).is_err() {
        tracing::error!("node sessions were started twice");
    }
    let weak = Arc::downgrade(core);
    let call: ServeCall = Arc::new(move |call: Call| {
        let core = weak.upgrade();
        Box::pin(async move {
            match core {
                Some(core) => http::serve_call(&core, call.user, &call.method, &call.path, &call.content_type, call.body).await,
                None => (503, Bytes::new()),
            }
        })
    });
    let options = nodes::Options { store: core.store.clone(), call, tasks: tasks.clone() };
    tasks.spawn("node sessions", async move { sessions.run(&link, &options).await });
}

/// Whether a Node's `Ready` condition is True.
fn ready(node: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Node<'a> {
        #[serde(borrow, default)]
        status: Status<'a>,
    }
    #[derive(serde::Deserialize, Default)]
    struct Status<'a> {
        #[serde(borrow, default)]
        conditions: Vec<Condition<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Condition<'a> {
        r#type: &'a str,
        status: &'a str,
    }
    serde_json::from_slice::<Node>(node).is_ok_and(|node| node.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True"))
}

async fn open_store(options: &Options) -> Result<Store, Error> {
    let dir = options.data_dir.join("store");
    Store::open(coracle_store::Options::new(dir.clone())).await.map_err(|error| Error::Store { dir, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_on_loopback_reach_the_api_at_its_services_address() {
        let dir = tempfile::tempdir().expect("a directory");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let options = Options {
            data_dir: dir.path().into(),
            api_addr: any,
            link_addr: any,
            pod_cidr: "127.244.0.0/16".into(),
            service_cidr: "127.96.0.0/16".into(),
            authority: Authority::open(&dir.path().join("pki")).expect("an authority"),
            settings: Default::default(),
        };
        let control = Control::start(options).await.expect("a control plane");
        let at: SocketAddr = format!("127.96.0.1:{}", control.api_addr().port()).parse().expect("an address");
        assert_eq!(control.service_addr(), Some(at));
        tokio::net::TcpStream::connect(at).await.expect("somebody listens");
        control.stop().await;
        assert!(service_listener("10.96.0.0/16", any).await.is_none(), "where the kernel carries connections on there is none");
    }
}
