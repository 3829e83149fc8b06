//! The runtime as the node agent sees it: [`OciRuntime`].
//!
//! It keeps little: containers that were created but not started. What runs is known by each pod's shim, asked when needed, so that a restarted agent knows
//! the same. A shim's directory is `<pod's directory>/runtime/oci`.

mod connect;
pub mod exe;
mod files;
mod programs;
mod remains;
mod sessions;
mod shims;

use crate::{
    cgroup,
    cgroup::Trees,
    config,
    shim::STATE,
    wire::{Answer, Ask, Pod},
    worker,
};
use async_trait::async_trait;
use coracle_runtime::{
    ContainerId, ContainerSpec, Duplex, Error, Event, ExecSpec, Identity, ImageContent, LocalImage, PodStats, Programs, Resources, Runtime,
    SandboxId, SandboxSpec, SandboxStatus, Session, Standard, State, Stats,
    program::RESIZED,
    stats,
    wire::{connection, socket::AsyncLink},
};
use parking_lot::Mutex;
use sessions::Sessions;
use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

type Connection = connection::Connection<Ask, Answer>;

/// A shim answers at once, or makes a container meanwhile.
const PATIENCE: Duration = Duration::from_secs(75);
/// A shim has this much longer than the grace to say that a container ended.
const BEYOND_GRACE: Duration = Duration::from_secs(20);

/// How to set the runtime up.
#[derive(Clone)]
pub struct Options {
    /// The node's data directory. Used: `run/oci/`, `pods/<uid>/runtime/oci/`.
    pub data_dir: PathBuf,
    /// The binary whose `main` calls [`crate::hidden_command`].
    pub exe: PathBuf,
    /// What runs images of other kinds in pods of this runtime, if there is any.
    pub programs: Option<Arc<dyn Programs>>,
}

impl Options {
    /// This binary, and containers alone.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn new(data_dir: PathBuf) -> io::Result<Self> {
        Ok(Self { data_dir, exe: std::env::current_exe()?, programs: None })
    }
}

/// See the module.
pub struct OciRuntime {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
}

struct Shared {
    options: Options,
    trees: Trees,
    nursery: tokio::sync::Mutex<Option<AsyncLink>>,
    /// Created, not started.
    created: Mutex<HashMap<ContainerId, ContainerSpec>>,
    shims: Mutex<HashMap<SandboxId, Shim>>,
    events: mpsc::UnboundedSender<Event>,
}

/// A shim that is listened to.
#[derive(Clone)]
struct Shim {
    connection: Arc<Connection>,
    spec: Arc<SandboxSpec>,
    /// The process, whose namespaces are the pod's.
    pid: i32,
    /// Started, as far as this agent has heard.
    known: Arc<Mutex<HashMap<ContainerId, ContainerSpec>>>,
    sessions: Arc<Sessions>,
}

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::again("FailedCreatePodSandBox", format!("{what} {} failed: {error}", path.display()))
}

impl OciRuntime {
    /// Makes its folder, and finds out what control groups there are. Pods of an earlier agent are found by [`Runtime::list`].
    ///
    /// # Errors
    /// No root, no control groups, or no folder.
    pub async fn new(options: Options) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::fatal(
                "FailedCreatePodSandBox",
                "containers need root: namespaces, mounts and control groups are the machine's".into(),
            ));
        }
        let run_dir = options.data_dir.join("run/oci");
        let made = fs::create_dir_all(run_dir.join("empty")).and_then(|()| fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o700)));
        made.map_err(|error| failed("making", &run_dir, &error))?;
        let trees = Trees::find().map_err(|error| failed("looking at control groups below", Path::new("/sys/fs/cgroup"), &error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared =
            Shared { options, trees, nursery: tokio::sync::Mutex::new(None), created: Mutex::default(), shims: Mutex::default(), events: sender };
        Ok(Self { shared: Arc::new(shared), events: tokio::sync::Mutex::new(receiver) })
    }
}

impl Drop for OciRuntime {
    fn drop(&mut self) {
        // Hang up, so that what listens to shims ends with us; what runs does not.
        for (_, shim) in self.shared.shims.lock().drain() {
            shim.connection.dismiss();
        }
        // With the last pod go the groups above it.
        self.shared.trees.prune();
    }
}

impl Shared {
    fn dir(&self, spec: &SandboxSpec) -> PathBuf {
        spec.dir.join("runtime/oci")
    }

    fn shim(&self, id: &str) -> Option<Shim> {
        self.shims.lock().get(id).filter(|shim| !shim.connection.is_lost()).cloned()
    }

    fn shim_of(&self, container: &str) -> Result<Shim, Error> {
        let pod = container.split('/').next().unwrap_or_default();
        self.shim(pod).ok_or_else(|| Error::again("RunContainerError", format!("there is no sandbox {pod}; run it first")))
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Error> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| Error::again("KillPodSandboxError", error.to_string()))
}

async fn ask(connection: &Connection, ask: Ask, patience: Duration) -> Result<Answer, Error> {
    ask_with(connection, ask, Vec::new(), patience).await
}

async fn ask_with(connection: &Connection, ask: Ask, fds: Vec<Arc<OwnedFd>>, patience: Duration) -> Result<Answer, Error> {
    match tokio::time::timeout(patience, connection.ask(ask, fds)).await {
        Ok(Some(answer)) => answer.map_err(Error::from),
        Ok(None) => Err(Error::again("RunContainerError", "the pod's shim process ended".into())),
        Err(_) => Err(Error::again("RunContainerError", format!("the pod's shim process did not answer within {patience:?}"))),
    }
}

#[async_trait]
impl Runtime for OciRuntime {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn supports(&self, image: &LocalImage) -> Result<(), Error> {
        match &image.content {
            ImageContent::Oci { .. } => Ok(()),
            ImageContent::Wasm { .. } => self.shared.programs(image)?.supports(image),
        }
    }

    async fn prepare(&self, image: &LocalImage) -> Result<(), Error> {
        match &image.content {
            ImageContent::Oci { .. } => Ok(()),
            ImageContent::Wasm { .. } => self.shared.programs(image)?.prepare(image).await,
        }
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Option<PathBuf>, Error> {
        let shared = &self.shared;
        let namespace = |pid: i32| (!spec.linux.host_network).then(|| PathBuf::from(format!("/proc/{pid}/ns/net")));
        if let Some(shim) = shared.shim(&spec.pod.uid) {
            return Ok(namespace(shim.pid));
        }
        let dir = shared.dir(&spec);
        // What an agent or a shim that was killed left there.
        shared.clear(&spec).await?;
        files::write(&spec, &dir).map_err(|error| failed("writing the pod's files in", &dir, &error))?;
        let stream = shared.birth(&dir).await?;
        if let Err(why) = shared.greet(stream, Some(spec.clone()), &dir).await {
            // A shim that could not make the sandbox ends with its directory.
            shared.clear(&spec).await?;
            return Err(why);
        }
        // The first container's process will be moved into its group: the long wait for that begins now, beside all that is done until then.
        let trees = shared.trees.clone();
        drop(tokio::task::spawn_blocking(move || trees.rehearse()));
        Ok(shared.shim(&spec.pod.uid).and_then(|shim| namespace(shim.pid)))
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        let shared = &self.shared;
        shared.created.lock().retain(|_, spec| spec.sandbox != *id);
        let shim = shared.shims.lock().remove(id);
        let spec = match &shim {
            Some(shim) => SandboxSpec::clone(&shim.spec),
            None => {
                let dir = shared.options.data_dir.join("pods").join(id).join("runtime/oci");
                match remains::read(&dir.join(STATE)) {
                    Some(pod) => pod.spec,
                    // An agent was killed before its shim had written anything down.
                    None if dir.exists() => {
                        let (trees, id) = (shared.trees.clone(), id.clone());
                        return blocking(move || remains::remove_unknown(&trees, &id, &dir)).await;
                    }
                    None => return Ok(()),
                }
            }
        };
        if let Some(shim) = shim {
            // One that does not answer is removed like one that was killed.
            if let Err(why) = ask(&shim.connection, Ask::Remove, BEYOND_GRACE).await {
                tracing::debug!(%why, sandbox = %id, "a shim did not end by itself");
                remains::kill_shim(shim.pid);
            }
            shim.connection.dismiss();
        }
        shared.weigh();
        shared.clear(&spec).await
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        self.supports(&spec.image)?;
        let id = spec.id();
        self.shared.created.lock().insert(id.clone(), spec);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        let shim = self.shared.shim_of(id)?;
        let Some(spec) = self.shared.created.lock().get(id).cloned() else {
            // Started already, by us or by an agent before us.
            return if shim.known.lock().contains_key(id) {
                Ok(())
            } else {
                Err(Error::again("RunContainerError", format!("there is no container {id}; create it first")))
            };
        };
        // Before it runs, so that no event of it comes too early.
        shim.known.lock().insert(id.clone(), spec.clone());
        let (dir, group) = (self.shared.dir(&shim.spec), config::group(&spec, &shim.spec));
        let bundle = worker::bundle(&dir, &spec);
        let result = match programs::start(&self.shared, &shim.spec, &spec).await {
            Ok((start, fds)) => ask_with(&shim.connection, start, fds, PATIENCE).await,
            Err(why) => Err(why),
        };
        self.shared.created.lock().remove(id);
        if result.is_err() {
            shim.known.lock().remove(id);
            let trees = self.shared.trees.clone();
            _ = blocking(move || remains::remove_container(&trees, &group, &bundle)).await;
        }
        result.map(|_| ())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        let Ok(shim) = self.shared.shim_of(id) else { return Ok(()) };
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let stopped = ask(&shim.connection, Ask::Stop(id.clone(), millis), grace + BEYOND_GRACE).await;
        stopped.map(|_| ()).map_err(|why| Error::again("KillContainerError", why.message))
    }

    async fn resize(&self, id: &SandboxId, whole: Resources, containers: Vec<(ContainerId, Resources)>) -> Result<(), Error> {
        let shim = self.shared.shim_of(id)?;
        let programs::Groups { containers, programs, own } = programs::groups(&shim.known.lock(), &shim.spec, containers);
        let trees = self.shared.trees.clone();
        let group = cgroup::of_pod(id, shim.spec.linux.qos);
        let given = Resources { memory_limit: whole.memory_limit.map(|limit| limit.saturating_add(own)), ..whole.clone() };
        let done = tokio::task::spawn_blocking(move || {
            trees.resize((&group, &given), &containers)?;
            programs.iter().for_each(|group| trees.signal(group, RESIZED));
            Ok(())
        })
        .await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Error::again("ResizeError", error.to_string()))?;
        if let Some(shim) = self.shared.shims.lock().get_mut(id) {
            Arc::make_mut(&mut shim.spec).linux.resources = whole;
        }
        self.shared.weigh();
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.stop_container(id, Duration::ZERO).await?;
        self.shared.created.lock().remove(id);
        let Ok(shim) = self.shared.shim_of(id) else { return Ok(()) };
        ask(&shim.connection, Ask::RemoveContainer(id.clone()), PATIENCE).await?;
        let Some(spec) = shim.known.lock().remove(id) else { return Ok(()) };
        let (trees, dir, group) = (self.shared.trees.clone(), self.shared.dir(&shim.spec), config::group(&spec, &shim.spec));
        blocking(move || remains::remove_container(&trees, &group, &worker::bundle(&dir, &spec))).await
    }

    fn holds(&self, id: &str) -> bool {
        self.shared.shims.lock().contains_key(id)
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, Error> {
        let shared = &self.shared;
        let mut list = Vec::new();
        for (dir, left) in remains::pods(&shared.options.data_dir) {
            let uid = left.spec.pod.uid.clone();
            let pod = match shared.shim(&uid) {
                Some(shim) => match ask(&shim.connection, Ask::List, PATIENCE).await? {
                    Answer::Pod(pod) => pod.map(|pod| *pod),
                    _ => None,
                },
                None => match shims::connect(&dir) {
                    Ok(stream) => shared.greet(stream, None, &dir).await.unwrap_or_else(|why| {
                        tracing::warn!(%why, dir = %dir.display(), "a shim is not understood; its pod starts anew");
                        None
                    }),
                    Err(_) => None,
                },
            };
            match pod {
                Some(Pod { spec, containers }) => {
                    let mut containers: Vec<_> =
                        containers.into_iter().map(|(container, state, _)| shims::status(&shared.dir(&spec), &container, state)).collect();
                    let created = shared.created.lock();
                    containers.extend(created.values().filter(|spec| spec.sandbox == uid).map(|spec| spec.status(State::Created)));
                    list.push(SandboxStatus { spec, ready: true, containers });
                }
                // Its shim was killed while no agent was there to see it, or the machine was.
                None => {
                    if let Err(why) = shared.clear(&left.spec).await {
                        tracing::warn!(%why, dir = %dir.display(), "clean up after a shim");
                    }
                }
            }
        }
        Ok(list)
    }

    async fn next_event(&self) -> Event {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            // The sender lives in `shared`.
            None => std::future::pending().await,
        }
    }

    async fn set_service_listeners(&self, _: &SandboxId, _: Vec<(SocketAddr, u16)>) -> Result<(), Error> {
        // As root the kernel serves Services; and only root has containers.
        Ok(())
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Session, Error> {
        let shim = self.shared.shim_of(&spec.container)?;
        let component = shim.known.lock().get(&spec.container).filter(|known| programs::hosted(known)).cloned();
        if let Some(component) = component {
            return coracle_runtime::files::run(spec, component.mounts, Some(Identity::of(&component.security)));
        }
        sessions::exec(&shim, spec).await
    }

    async fn attach(&self, id: &ContainerId, streams: Standard) -> Result<Session, Error> {
        let shim = self.shared.shim_of(id)?;
        sessions::attach(&shim, id, streams).await
    }

    async fn connect(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let Some(shim) = self.shared.shim(id) else { return Err(Error::again("ConnectError", format!("pod {id} does not run here"))) };
        let socket = connect::localhost(shim.pid, port).await;
        socket.map_err(|error| Error::again("ConnectError", format!("connecting to localhost port {port} in the pod failed: {error}")))
    }

    async fn stats(&self, id: &SandboxId) -> Result<PodStats, Error> {
        let Some(shim) = self.shared.shim(id) else { return Ok(PodStats::default()) };
        let mut latest: HashMap<String, ContainerSpec> = HashMap::new();
        for spec in shim.known.lock().values() {
            if latest.get(&spec.name).is_none_or(|other| other.attempt < spec.attempt) {
                latest.insert(spec.name.clone(), spec.clone());
            }
        }
        let (trees, dir) = (&self.shared.trees, self.shared.dir(&shim.spec));
        let usage = |spec: ContainerSpec| {
            let stats = trees.stats(&config::group(&spec, &shim.spec))?;
            let written = Some(worker::bundle(&dir, &spec).join("upper"));
            Some((spec.name, Stats { written, ..stats }))
        };
        let containers = latest.into_values().filter_map(usage).collect();
        let whole = trees.stats(&cgroup::of_pod(id, shim.spec.linux.qos));
        // The shim's namespace is the pod's.
        let devices = (!shim.spec.linux.host_network).then(|| fs::read_to_string(format!("/proc/{}/net/dev", shim.pid)).ok()).flatten();
        Ok(PodStats { whole, containers, interfaces: devices.map_or_else(Vec::new, |text| stats::interfaces(&text)) })
    }

    async fn collect_garbage(&self, _: &[String]) -> Result<(), Error> {
        // Layers belong to the images module; what containers wrote goes with them.
        Ok(())
    }
}
