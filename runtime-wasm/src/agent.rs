//! The runtime as the node agent sees it: [`WasmRuntime`].
//!
//! It keeps little: containers that were created but not started. What runs is the supervisor's knowledge, asked for when needed, so that a
//! restarted agent knows the same. The supervisor is started when first needed and whenever it is gone.

pub mod listen;

use crate::{
    artifact::Artifacts,
    supervisor::SOCKET,
    wire::{Answer, Ask, Happened, Kind, Listed, ListedContainer, Page, Start, VERSION, bounds},
};
use async_trait::async_trait;
use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerStatus, Duplex, Error, Event, ImageContent, LocalImage, Runtime, SandboxId, SandboxSpec, SandboxStatus,
    State, Stats, log, wire,
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, Permissions},
    io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener, net::UnixStream},
    },
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// Where a component that answers requests listens when its container declares no port.
const DEFAULT_PORT: u16 = 8080;
/// A host has this much longer than its grace to say that a container ended.
const BEYOND_GRACE: Duration = Duration::from_secs(20);

/// To the supervisor.
pub type Connection = wire::connection::Connection<Ask, Answer>;
/// Before connecting again to a supervisor that cut us off, or did not answer; doubled each time.
const RECONNECT: Duration = Duration::from_millis(500);
const RECONNECT_AT_MOST: Duration = Duration::from_secs(30);

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
}

impl Options {
    /// This binary, a host for each core, uid and gid 65533 if root.
    pub fn new(data_dir: PathBuf) -> io::Result<Self> {
        let hosts = std::thread::available_parallelism().map_or(1, usize::from);
        let root = nix::unistd::geteuid().is_root();
        Ok(Self { data_dir, exe: std::env::current_exe()?, hosts, drop_to: root.then_some((65533, 65533)) })
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
    connection: tokio::sync::Mutex<Option<(Arc<Connection>, usize)>>,
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
        let artifacts = Artifacts::new(cache.clone(), options.exe.clone(), options.drop_to, options.hosts.div_ceil(2));
        let artifacts = artifacts.map_err(|error| failed("making the artifact cache", &cache, &error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options,
            artifacts,
            run_dir,
            created: Mutex::default(),
            known: Mutex::default(),
            sandboxes: Mutex::default(),
            connection: tokio::sync::Mutex::new(None),
            events: sender,
        });
        if let Ok(stream) = UnixStream::connect(shared.run_dir.join(SOCKET)) {
            _ = shared.clone().adopt(stream).await;
        }
        Ok(Self { shared, events: tokio::sync::Mutex::new(receiver) })
    }

    /// Ends every wasm pod of this node, hosts and supervisor included. (A stopped agent leaves them; this is for taking a node down.)
    pub async fn shutdown(&self) {
        let connection = self.shared.connection.lock().await.take();
        if let Some((connection, _)) = connection {
            _ = connection.ask(Ask::Shutdown, Vec::new()).await;
        }
    }
}

impl Drop for WasmRuntime {
    fn drop(&mut self) {
        // Hang up, so that what listens to the supervisor ends with us; what runs does not.
        if let Ok(mut held) = self.shared.connection.try_lock()
            && let Some((connection, _)) = held.take()
        {
            connection.dismiss();
        }
    }
}

/// Everything that is there, page by page. `None` when the supervisor is gone, or is not understood.
pub async fn list(connection: &Connection) -> Option<Vec<Listed>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let Ok(Answer::List(Page { items, next })) = connection.ask(Ask::List(after), Vec::new()).await? else { return None };
        all.extend(items);
        after = Some(match next {
            Some(next) => next,
            None => return Some(all),
        });
    }
}

impl Shared {
    /// Takes over a running supervisor, unless another task has connected meanwhile; what it runs. None: there is none that could be talked with.
    async fn adopt(self: Arc<Self>, stream: UnixStream) -> Result<Option<Vec<Listed>>, Error> {
        let mut held = self.connection.lock().await;
        if held.as_ref().is_none_or(|(connection, _)| connection.is_lost()) {
            *held = self.greet(stream).await?;
        }
        match &*held {
            Some((connection, _)) => self.learn(connection).await.map(Some),
            None => Ok(None),
        }
    }

    /// Greets a supervisor and listens to it from then on. None when it cannot be talked with; it is asked to end then.
    async fn greet(self: &Arc<Self>, stream: UnixStream) -> Result<Option<(Arc<Connection>, usize)>, Error> {
        stream.set_nonblocking(true).map_err(|error| failed("using", &self.run_dir, &error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let connection = Connection::new(stream.into(), sender).map_err(|error| failed("using", &self.run_dir, &error))?;
        let hello = connection.ask(Ask::Hello { version: VERSION }, Vec::new()).await;
        let Some(Ok(Answer::Hello { version, hosts, pid, engine })) = hello else { return Ok(None) };
        let ours = self.artifacts.engine();
        if (version, engine.as_str()) != (VERSION, ours) {
            // Its hosts could load nothing that is compiled from now on: no pod of theirs could be restarted, and none be added.
            tracing::warn!(
                pid,
                version,
                engine,
                ours,
                "the wasm supervisor found here is of another build, with another protocol or engine: it is ended, its pods start anew"
            );
            _ = connection.ask(Ask::Shutdown, Vec::new()).await;
            return Ok(None);
        }
        self.learn(&connection).await.inspect_err(|_| connection.dismiss())?;
        tokio::spawn(self.clone().follow(connection.clone(), receiver));
        Ok(Some((connection, hosts)))
    }

    /// Asks what is there, and remembers it.
    async fn learn(&self, connection: &Connection) -> Result<Vec<Listed>, Error> {
        let list = list(connection).await.ok_or_else(|| {
            Error::again(
                "ListError",
                "the wasm supervisor cut the connection instead of listing its pods; see supervisor.log in its run directory".to_owned(),
            )
        })?;
        let mut known = self.known.lock();
        let mut sandboxes = self.sandboxes.lock();
        for item in &list {
            match item {
                Listed::Sandbox(spec) => _ = sandboxes.insert(spec.pod.uid.clone(), spec.ip),
                Listed::Container(container) => _ = known.insert(container.status.id.clone(), (**container).clone()),
            }
        }
        Ok(list)
    }

    /// Turns what the supervisor says into events, until it is gone.
    /// (Boxed, since it may connect again, which begins another of its kind.)
    fn follow(self: Arc<Self>, connection: Arc<Connection>, happened: mpsc::UnboundedReceiver<Happened>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.follow_on(connection, happened))
    }

    async fn follow_on(self: Arc<Self>, connection: Arc<Connection>, mut happened: mpsc::UnboundedReceiver<Happened>) {
        let began = tokio::time::Instant::now();
        while let Some(happened) = happened.recv().await {
            match happened {
                Happened::Superseded => return,
                Happened::State { container, state } => {
                    let Some(ListedContainer { sandbox, status, .. }) = self.known.lock().get(&container).cloned() else { continue };
                    _ = self.events.send(Event::Container { sandbox, status: ContainerStatus { state, ..status } });
                }
                Happened::Notice { container, warning, reason, message } => {
                    let Some(ListedContainer { sandbox, status, .. }) = self.known.lock().get(&container).cloned() else { continue };
                    let kind = if warning { "Warning" } else { "Normal" };
                    _ = self.events.send(Event::Notice { sandbox, container: status.name, kind, reason, message });
                }
                Happened::LogFull(container) => {
                    let Some(ListedContainer { log, .. }) = self.known.lock().get(&container).cloned() else { continue };
                    match log::rotate(&log.path, log.max_bytes, log.max_files) {
                        Ok(file) => _ = connection.ask(Ask::Log(container), vec![Arc::new(file.into())]).await,
                        Err(error) => tracing::warn!(container, %error, "a log could not be rotated"),
                    }
                }
            }
        }
        // The channel ends with the connection.
        if connection.is_dismissed() {
            return;
        }
        // Either it cut us off (out of descriptors, most likely) and goes on, or it is gone with everything that ran.
        let mut pause = RECONNECT;
        if began.elapsed() < RECONNECT * 4 {
            // Connecting again at once would only be cut off again.
            tokio::time::sleep(pause).await;
        }
        let before: Vec<SandboxId> = self.sandboxes.lock().keys().cloned().collect();
        self.known.lock().clear();
        let found = loop {
            let Ok(stream) = UnixStream::connect(self.run_dir.join(SOCKET)) else { break Vec::new() };
            match self.clone().adopt(stream).await {
                Ok(found) => break found.unwrap_or_default(),
                // It is there and runs its pods: they are not said to be lost because it cannot be heard just now.
                Err(error) => tracing::warn!(%error, ?pause, "the wasm supervisor is there but does not answer; it is asked again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_AT_MOST);
        };
        let mut there = HashSet::new();
        for item in &found {
            match item {
                Listed::Sandbox(spec) => _ = there.insert(spec.pod.uid.as_str()),
                // What was said meanwhile is lost: the states are told again.
                Listed::Container(container) => {
                    _ = self.events.send(Event::Container { sandbox: container.sandbox.clone(), status: container.status.clone() });
                }
            }
        }
        for sandbox in before.into_iter().filter(|id| !there.contains(id.as_str())) {
            self.sandboxes.lock().remove(&sandbox);
            let message = "the wasm supervisor process ended and its pods with it".to_owned();
            _ = self.events.send(Event::SandboxLost { sandbox, message });
        }
    }

    /// The connection, made or made anew if need be; and the number of hosts.
    async fn connection(self: &Arc<Self>) -> Result<(Arc<Connection>, usize), Error> {
        let mut held = self.connection.lock().await;
        if let Some((connection, hosts)) = &*held
            && !connection.is_lost()
        {
            return Ok((connection.clone(), *hosts));
        }
        let socket = self.run_dir.join(SOCKET);
        if let Ok(stream) = UnixStream::connect(&socket)
            && let Some(found) = self.greet(stream).await?
        {
            *held = Some(found.clone());
            return Ok(found);
        }
        self.spawn_supervisor(&socket)?;
        let stream = UnixStream::connect(&socket).map_err(|error| failed("connecting to", &socket, &error))?;
        let found = self.greet(stream).await?;
        let found =
            found.ok_or_else(|| failed("talking to the wasm supervisor on", &socket, &"it ended at once; see supervisor.log beside the socket"))?;
        *held = Some(found.clone());
        Ok(found)
    }

    fn spawn_supervisor(&self, socket: &Path) -> Result<(), Error> {
        if let Err(error) = fs::remove_file(socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("removing", socket, &error));
        }
        let listener = UnixListener::bind(socket).map_err(|error| failed("listening on", socket, &error))?;
        let log = self.run_dir.join("supervisor.log");
        let file = File::create(&log).map_err(|error| failed("writing", &log, &error))?;
        let errors = file.try_clone().map_err(|error| failed("writing", &log, &error))?;
        let mut command = tokio::process::Command::new(&self.options.exe);
        command.arg(crate::SUPERVISOR).arg(&self.run_dir).arg(self.options.hosts.to_string()).arg(self.artifacts.engine());
        if let Some((uid, gid)) = self.options.drop_to {
            command.args([uid.to_string(), gid.to_string()]);
        }
        command.env_clear().stdin(Stdio::from(OwnedFd::from(listener))).stdout(file).stderr(errors);
        let mut child = command.spawn().map_err(|error| failed("starting", &self.options.exe, &error))?;
        // Reaped if it ends before us; otherwise it stays.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    async fn ask(self: &Arc<Self>, ask: Ask, fds: Vec<Arc<OwnedFd>>) -> Result<Answer, Error> {
        let (connection, _) = self.connection().await?;
        match connection.ask(ask, fds).await {
            Some(answer) => answer.map_err(Error::from),
            None => Err(Error::again("RunContainerError", "the wasm supervisor cut the connection during a request; it is connected again, or started (if this stays, it may be out of descriptors: raise ulimit -n)".to_owned())),
        }
    }

    async fn artifact(&self, image: &LocalImage) -> Result<crate::artifact::Artifact, Error> {
        match &image.content {
            ImageContent::Wasm { path, digest } => self.artifacts.get(path, digest).await,
            ImageContent::Oci { .. } => Err(not_wasm(image)),
        }
    }
}

fn not_wasm(image: &LocalImage) -> Error {
    Error::fatal(
        "InvalidImage",
        format!(
            "image {} holds an OCI file system, not one WebAssembly component; this node runs wasm only: build the image as a component, or use a node with the oci runtime",
            image.reference
        ),
    )
}

/// Follows no link: the path was resolved when it was checked, and what is one now was put there by a guest that writes the volume.
fn open_volume(mount: &coracle_runtime::Mount) -> Result<Arc<OwnedFd>, Error> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat2(CWD, &mount.host_path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    fd.map(Arc::new).map_err(|error| failed("opening volume", &mount.host_path, &error))
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
        self.shared.ask(Ask::RunSandbox(Box::new(spec)), Vec::new()).await?;
        self.shared.sandboxes.lock().insert(uid, ip);
        Ok(None)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        self.shared.ask(Ask::RemoveSandbox(id.clone()), Vec::new()).await?;
        self.shared.sandboxes.lock().remove(id);
        self.shared.created.lock().retain(|_, spec| spec.sandbox != *id);
        self.shared.known.lock().retain(|_, spec| spec.sandbox != *id);
        Ok(())
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        bounds::container(&spec)?;
        let artifact = self.shared.artifact(&spec.image).await?;
        if let Some(limit) = spec.resources.memory_limit
            && artifact.verdict.memory > limit
        {
            return Err(Error::fatal(
                "CreateContainerError",
                format!("an instance begins with {} bytes of memory, more than limits.memory ({limit}); raise the limit", artifact.verdict.memory),
            ));
        }
        for mount in &spec.mounts {
            if !fs::metadata(&mount.host_path).map_err(|error| failed("looking at volume", &mount.host_path, &error))?.is_dir() {
                return Err(Error::fatal(
                    "CreateContainerConfigError",
                    format!("{} is a single file: WebAssembly can be given directories only; mount the volume without subPath", mount.container_path),
                ));
            }
        }
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
            fds.push(open_volume(mount)?);
        }
        for port in &ports {
            let address = SocketAddr::new(ip, *port);
            fds.extend(listen::listeners(address, hosts, "containerPort").map_err(|why| Error::again("RunContainerError", why))?);
        }
        // Before it runs, so that no event of it comes too early.
        self.shared.known.lock().insert(id.clone(), ListedContainer::new(&spec, State::Created));
        let patience = spec.request_timeout + BEYOND_GRACE;
        let start = Start { spec, kind: artifact.verdict.kind, artifact: artifact.key, ports };
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
        self.shared.ask(Ask::RemoveContainer(id.clone()), Vec::new()).await?;
        self.shared.created.lock().remove(id);
        self.shared.known.lock().remove(id);
        Ok(())
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
        self.shared.ask(Ask::Listeners(id.clone(), had), fds).await?;
        // One address that cannot be had is no reason to leave the others unheard.
        if refused.is_empty() { Ok(()) } else { Err(Error::again("ServiceListenError", refused.join("; "))) }
    }

    async fn connect(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let ip = self.shared.sandboxes.lock().get(id).copied();
        let Some(ip) = ip else { return Err(Error::again("ConnectError", format!("pod {id} does not run here"))) };
        let socket = tokio::net::TcpStream::connect((ip, port)).await;
        let socket = socket.map_err(|error| Error::again("ConnectError", format!("connecting to {ip} port {port} failed: {error}")))?;
        _ = socket.set_nodelay(true);
        Ok(Box::new(socket))
    }

    async fn stats(&self, id: &SandboxId) -> Result<Vec<(String, Stats)>, Error> {
        match self.shared.ask(Ask::Stats(id.clone()), Vec::new()).await? {
            Answer::Stats(stats) => Ok(stats.into_iter().map(|(name, cpu_nanos, memory_bytes)| (name, Stats { cpu_nanos, memory_bytes })).collect()),
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
        let mount = |host_path: PathBuf| coracle_runtime::Mount { host_path, container_path: "/v".into(), read_only: false };
        fs::create_dir_all(base.join("volume/data")).unwrap();
        assert!(open_volume(&mount(base.join("volume/data"))).is_ok());
        fs::remove_dir(base.join("volume/data")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("volume/data")).unwrap();
        assert!(open_volume(&mount(base.join("volume/data"))).is_err());
        assert!(open_volume(&mount(base.join("volume/data/ssl"))).is_err());
    }
}
