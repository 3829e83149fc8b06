//! The runtime as the node agent sees it: [`WasmRuntime`].
//!
//! It keeps little: containers that were created but not started. What runs is the supervisor's knowledge, asked for when needed, so that a
//! restarted agent knows the same. The supervisor is started when first needed and whenever it is gone.

mod contact;
pub mod group;
pub mod listen;
mod programs;
mod volume;

pub use contact::{Connection, list};

use crate::{
    artifact::Artifacts,
    compile,
    supervisor::SOCKET,
    wire::{Answer, Ask, Kind, Listed, ListedContainer, Start, bounds},
};
use async_trait::async_trait;
use contact::Contact;
use coracle_runtime::{
    ContainerId, ContainerSpec, Duplex, Error, Event, ExecSpec, Identity, ImageContent, LocalImage, PodStats, Resources, Runtime, SandboxId,
    SandboxSpec, SandboxStatus, Session, State, Stats, files, log, program::NOBODY,
};
use group::Group;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    net::{IpAddr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// Where a component that answers requests listens when its container declares no port.
const DEFAULT_PORT: u16 = 8080;
/// A host has this much longer than its grace to say that a container ended.
const BEYOND_GRACE: Duration = Duration::from_secs(20);
/// This very binary: still there when another took its place on disk, or none.
const OURSELVES: &str = "/proc/self/exe";

/// How to set the runtime up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's data directory. Used: `run/wasm/`, `wasm/artifacts/`.
    pub data_dir: PathBuf,
    /// The binary whose `main` calls [`crate::hidden_command`].
    pub exe: PathBuf,
    /// Host processes: one a core.
    pub hosts: usize,
    /// As root: the user and group that hosts and compiler become.
    pub drop_to: Option<(u32, u32)>,
    /// How long the supervisor may take to answer what needs no time. One that does not is connected again, and replaced if it does not even greet.
    pub patience: Duration,
    /// What compiling one file may take.
    pub compile: compile::Limits,
}

impl Options {
    /// This binary, a host for each core, uid and gid 65533 if root.
    pub fn new(data_dir: PathBuf) -> Self {
        let hosts = std::thread::available_parallelism().map_or(1, usize::from);
        let root = nix::unistd::geteuid().is_root();
        Self {
            data_dir,
            exe: OURSELVES.into(),
            hosts,
            drop_to: root.then_some((NOBODY, NOBODY)),
            patience: Duration::from_secs(15),
            compile: compile::Limits::default(),
        }
    }
}

/// See the module.
pub struct WasmRuntime {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
}

struct Shared {
    options: Options,
    artifacts: Artifacts,
    run_dir: PathBuf,
    /// Created, not started.
    created: Mutex<HashMap<ContainerId, ContainerSpec>>,
    /// Started, as far as this agent has heard: for events and rotation.
    known: Mutex<HashMap<ContainerId, ListedContainer>>,
    /// Sandboxes that are there, with their addresses.
    sandboxes: Mutex<HashMap<SandboxId, IpAddr>>,
    contact: tokio::sync::Mutex<Option<Contact>>,
    /// Of the hosts; none where there can be none.
    group: Option<Group>,
    events: mpsc::UnboundedSender<Event>,
}

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::again("RunContainerError", format!("{what} {} failed: {error}", path.display()))
}

impl WasmRuntime {
    /// Makes its folders, and looks for a supervisor that is still there from an earlier agent. Within a tokio runtime.
    pub async fn new(options: Options) -> Result<Self, Error> {
        let run_dir = options.data_dir.join("run/wasm");
        fs::create_dir_all(&run_dir).map_err(|error| failed("making", &run_dir, &error))?;
        fs::set_permissions(&run_dir, Permissions::from_mode(0o700)).map_err(|error| failed("protecting", &run_dir, &error))?;
        let cache = options.data_dir.join("wasm/artifacts");
        // An ordinary user has none to give.
        let group = options.drop_to.and_then(|_| match Group::make(&run_dir, options.hosts) {
            Ok(group) => Some(group),
            Err(error) => {
                tracing::warn!(%error, "the wasm hosts are in no control group: what pods request of the CPU is not kept for them");
                None
            }
        });
        let place = crate::place(group.as_ref().map(|group| group.path.as_path()), options.drop_to);
        let artifacts = Artifacts::new(cache.clone(), options.exe.clone(), place, options.compile, options.hosts.div_ceil(2));
        let artifacts = artifacts.map_err(|error| failed("making the artifact cache", &cache, &error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options,
            artifacts,
            run_dir,
            created: Mutex::default(),
            known: Mutex::default(),
            sandboxes: Mutex::default(),
            contact: tokio::sync::Mutex::new(None),
            group,
            events: sender,
        });
        if let Ok(stream) = UnixStream::connect(shared.run_dir.join(SOCKET)) {
            _ = shared.clone().adopt(stream).await;
        }
        Ok(Self { shared, events: tokio::sync::Mutex::new(receiver) })
    }

    /// Ends every wasm pod of this node, hosts and supervisor included. (A stopped agent leaves them; this is for taking a node down.)
    pub async fn shutdown(&self) {
        if let Some(contact) = self.shared.contact.lock().await.take() {
            contact.end(self.shared.options.patience).await;
        }
        let shared = self.shared.clone();
        _ = tokio::task::spawn_blocking(move || shared.group.as_ref().map(Group::end)).await;
    }
}

impl Drop for WasmRuntime {
    fn drop(&mut self) {
        // Hang up, so that what listens to the supervisor ends with us; what runs does not.
        if let Ok(mut held) = self.shared.contact.try_lock()
            && let Some(contact) = held.take()
        {
            contact.connection.dismiss();
        }
    }
}

impl Shared {
    /// Asks for what takes as long as it takes.
    async fn ask(self: &Arc<Self>, ask: Ask, fds: Vec<Arc<OwnedFd>>) -> Result<Answer, Error> {
        let (connection, _) = self.connection().await?;
        match connection.ask(ask, fds).await {
            Some(answer) => answer.map_err(Error::from),
            None => Err(Error::again("RunContainerError", "the wasm supervisor cut the connection during a request; it is connected again, or started (if this stays, it may be out of descriptors: raise ulimit -n)".to_owned())),
        }
    }

    /// Asks for what needs no time.
    async fn ask_at_once(self: &Arc<Self>, ask: Ask, fds: Vec<Arc<OwnedFd>>) -> Result<Answer, Error> {
        let patience = self.options.patience;
        match tokio::time::timeout(patience, self.ask(ask, fds)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.give_up().await;
                Err(contact::silent(patience))
            }
        }
    }

    async fn artifact(&self, image: &LocalImage) -> Result<crate::artifact::Artifact, Error> {
        match &image.content {
            ImageContent::Wasm { path, digest } => self.artifacts.get(path, digest).await,
            ImageContent::Oci { .. } => Err(not_wasm(image)),
        }
    }

    /// Refuses a container that could never run; gives what it would run.
    async fn check(&self, spec: &ContainerSpec) -> Result<crate::artifact::Artifact, Error> {
        bounds::container(spec)?;
        let artifact = self.artifact(&spec.image).await?;
        bounds::beginning(artifact.verdict.memory, &spec.resources).map_err(|why| Error::fatal("CreateContainerError", why))?;
        for mount in &spec.mounts {
            if !mount.layers.is_empty() {
                return Err(volume::no_image(mount));
            }
            if !fs::metadata(&mount.host_path).map_err(|error| failed("looking at volume", &mount.host_path, &error))?.is_dir() {
                return Err(Error::fatal(
                    "CreateContainerConfigError",
                    format!("{} is a single file: WebAssembly can be given directories only; mount the volume without subPath", mount.container_path),
                ));
            }
        }
        Ok(artifact)
    }
}

fn not_wasm(image: &LocalImage) -> Error {
    Error::fatal(
        "InvalidImage",
        format!(
            "image {} is a container's, not one WebAssembly component, and the runtime of this pod is wasm: remove runtimeClassName where the node runs containers, or build it as a component",
            image.reference
        ),
    )
}

fn ports(spec: &ContainerSpec, kind: Kind) -> Vec<u16> {
    if kind != Kind::Http {
        return Vec::new();
    }
    let mut ports: Vec<u16> = Vec::new();
    for port in spec.ports.iter().filter(|port| port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP")) {
        if !ports.contains(&port.port) {
            ports.push(port.port);
        }
    }
    if ports.is_empty() {
        ports.push(DEFAULT_PORT);
    }
    ports
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn supports(&self, image: &LocalImage) -> Result<(), Error> {
        match &image.content {
            ImageContent::Wasm { .. } => Ok(()),
            ImageContent::Oci { .. } => Err(not_wasm(image)),
        }
    }

    async fn prepare(&self, image: &LocalImage) -> Result<(), Error> {
        self.shared.artifact(image).await.map(|_| ())
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Option<PathBuf>, Error> {
        let spec = bounds::sandbox(spec)?;
        let (uid, ip) = (spec.pod.uid.clone(), spec.ip);
        self.shared.ask_at_once(Ask::RunSandbox(Box::new(spec)), Vec::new()).await?;
        self.shared.sandboxes.lock().insert(uid, ip);
        Ok(None)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        // What runs in it is ended first, by its hosts.
        match tokio::time::timeout(BEYOND_GRACE, self.shared.ask(Ask::RemoveSandbox(id.clone()), Vec::new())).await {
            Ok(result) => _ = result?,
            Err(_) => {
                return Err(Error::again(
                    "KillPodSandboxError",
                    format!("sandbox {id} did not end within {BEYOND_GRACE:?}; its host process does not answer"),
                ));
            }
        }
        self.shared.sandboxes.lock().remove(id);
        self.shared.created.lock().retain(|_, spec| spec.sandbox != *id);
        self.shared.known.lock().retain(|_, spec| spec.sandbox != *id);
        self.shared.weigh();
        Ok(())
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        self.shared.check(&spec).await?;
        let id = spec.id();
        self.shared.created.lock().insert(id.clone(), spec);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        let spec = self.shared.created.lock().get(id).cloned();
        let Some(spec) = spec else {
            // Started already, by us or by an agent before us.
            if self.shared.known.lock().contains_key(id) {
                return Ok(());
            }
            return Err(Error::again("RunContainerError", format!("there is no container {id}; create it first")));
        };
        let artifact = self.shared.artifact(&spec.image).await?;
        let (_, hosts) = self.shared.connection().await?;
        let ip = self.shared.sandboxes.lock().get(&spec.sandbox).copied();
        let ip = ip.ok_or_else(|| Error::again("RunContainerError", format!("there is no sandbox {}; run it first", spec.sandbox)))?;
        let ports = ports(&spec, artifact.verdict.kind);
        bounds::descriptors(&spec, 2 + spec.mounts.len() + ports.len() * hosts)?;
        let code = File::open(&artifact.path).map_err(|error| failed("opening artifact", &artifact.path, &error))?;
        let log = log::open(&spec.log_path).map_err(|error| failed("opening log", &spec.log_path, &error))?;
        let mut fds: Vec<Arc<OwnedFd>> = vec![Arc::new(log.into()), Arc::new(code.into())];
        for mount in &spec.mounts {
            fds.push(volume::open(mount)?);
        }
        for port in &ports {
            let address = SocketAddr::new(ip, *port);
            fds.extend(listen::listeners(address, hosts, "containerPort").map_err(|why| Error::again("RunContainerError", why))?);
        }
        // Before it runs, so that no event of it comes too early.
        self.shared.known.lock().insert(id.clone(), ListedContainer::new(&spec, State::Created));
        self.shared.weigh();
        let patience = spec.request_timeout + BEYOND_GRACE;
        let start = Start { spec, kind: artifact.verdict.kind, artifact: artifact.key, memory: artifact.verdict.memory, ports };
        let result = match tokio::time::timeout(patience, self.shared.ask(Ask::Start(Box::new(start)), fds)).await {
            Ok(result) => result,
            Err(_) => Err(Error::again(
                "RunContainerError",
                format!("container {id} was not started within {patience:?}; the host processes do not answer, see supervisor.log"),
            )),
        };
        match &result {
            Ok(_) => _ = self.shared.created.lock().remove(id),
            Err(_) => _ = self.shared.known.lock().remove(id),
        }
        result.map(|_| ())
    }

    async fn resize(&self, _: &SandboxId, _: Resources, containers: Vec<(ContainerId, Resources)>) -> Result<(), Error> {
        let requests: Vec<_> = containers.iter().map(|(id, resources)| (id.clone(), resources.cpu_request_millis)).collect();
        self.shared.ask_at_once(Ask::Resize(containers), Vec::new()).await?;
        for (id, request) in requests {
            if let Some(known) = self.shared.known.lock().get_mut(&id) {
                known.cpu_request_millis = request;
            }
        }
        self.shared.weigh();
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        match tokio::time::timeout(grace + BEYOND_GRACE, self.shared.ask(Ask::Stop(id.clone(), millis), Vec::new())).await {
            Ok(result) => result.map(|_| ()),
            Err(_) => {
                Err(Error::again("KillContainerError", format!("container {id} did not end within {grace:?}; its host process does not answer")))
            }
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.stop_container(id, Duration::ZERO).await?;
        self.shared.ask_at_once(Ask::RemoveContainer(id.clone()), Vec::new()).await?;
        self.shared.created.lock().remove(id);
        self.shared.known.lock().remove(id);
        self.shared.weigh();
        Ok(())
    }

    fn holds(&self, id: &str) -> bool {
        self.shared.sandboxes.lock().contains_key(id)
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, Error> {
        let (connection, _) = self.shared.connection().await?;
        let list = self.shared.learn(&connection).await?;
        let mut sandboxes: Vec<SandboxStatus> = Vec::new();
        for item in list {
            match item {
                Listed::Sandbox(spec) => sandboxes.push(SandboxStatus { spec: *spec, ready: true, containers: Vec::new() }),
                // Those of a sandbox that went between two pages are gone as well.
                Listed::Container(container) => {
                    if let Some(sandbox) = sandboxes.last_mut().filter(|sandbox| sandbox.spec.pod.uid == container.sandbox) {
                        sandbox.containers.push(container.status);
                    }
                }
            }
        }
        let created = self.shared.created.lock();
        for sandbox in &mut sandboxes {
            let waiting = created.values().filter(|spec| spec.sandbox == sandbox.spec.pod.uid);
            sandbox.containers.extend(waiting.map(|spec| spec.status(State::Created)));
        }
        Ok(sandboxes)
    }

    async fn next_event(&self) -> Event {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            // The sender lives in `shared`.
            None => std::future::pending().await,
        }
    }

    async fn set_service_listeners(&self, id: &SandboxId, wanted: Vec<(SocketAddr, u16)>) -> Result<(), Error> {
        let (_, hosts) = self.shared.connection().await?;
        let (mut had, mut fds, mut refused) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len() * hosts), Vec::new());
        for (address, port) in wanted {
            match listen::listeners(address, hosts, "Service port") {
                Ok(sockets) => {
                    fds.extend(sockets);
                    had.push((address, port));
                }
                Err(why) => refused.push(why),
            }
        }
        self.shared.ask_at_once(Ask::Listeners(id.clone(), had), fds).await?;
        // One address that cannot be had is no reason to leave the others unheard.
        if refused.is_empty() { Ok(()) } else { Err(Error::again("ServiceListenError", refused.join("; "))) }
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Session, Error> {
        let mounts = self.shared.known.lock().get(&spec.container).map(|known| known.mounts.clone());
        let mounts = mounts.ok_or_else(|| Error::again("ExecError", format!("container {} does not run", spec.container)))?;
        files::run(spec, mounts, self.shared.options.drop_to.map(|(uid, gid)| Identity { uid, gid, groups: Vec::new() }))
    }

    async fn connect(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let ip = self.shared.sandboxes.lock().get(id).copied();
        let Some(ip) = ip else { return Err(Error::again("ConnectError", format!("pod {id} does not run here"))) };
        let socket = tokio::net::TcpStream::connect((ip, port)).await;
        let socket = socket.map_err(|error| Error::again("ConnectError", format!("connecting to {ip} port {port} failed: {error}")))?;
        _ = socket.set_nodelay(true);
        Ok(Box::new(socket))
    }

    async fn stats(&self, id: &SandboxId) -> Result<PodStats, Error> {
        match self.shared.ask_at_once(Ask::Stats(id.clone()), Vec::new()).await? {
            Answer::Stats(stats) => {
                let one = |(name, cpu_nanos, memory_bytes)| (name, Stats { cpu_nanos, memory_bytes, ..Stats::default() });
                Ok(PodStats { containers: stats.into_iter().map(one).collect(), ..PodStats::default() })
            }
            other => Err(Error::again("StatsError", format!("the wasm supervisor answered {other:?} to stats; this is a bug"))),
        }
    }

    async fn collect_garbage(&self, keep: &[String]) -> Result<(), Error> {
        self.shared.artifacts.collect(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_became_a_link_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let mount = |host_path: PathBuf| coracle_runtime::Mount { host_path, container_path: "/v".into(), read_only: false, ..Default::default() };
        fs::create_dir_all(base.join("volume/data")).unwrap();
        assert!(volume::open(&mount(base.join("volume/data"))).is_ok());
        fs::remove_dir(base.join("volume/data")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("volume/data")).unwrap();
        assert!(volume::open(&mount(base.join("volume/data"))).is_err());
        assert!(volume::open(&mount(base.join("volume/data/ssl"))).is_err());
    }
}
