//! The agent's side of the shims: how one is born, greeted and listened to, and what is done when it was killed.

use super::{Connection, PATIENCE, Shared, Shim, ask, blocking, exe, failed, remains};
use crate::{
    SHIM, cgroup,
    nursery::Birth,
    shim::SOCKET,
    wire::{Answer, Ask, Happened, Pod, VERSION},
    worker,
};
use coracle_runtime::{
    ContainerSpec, ContainerStatus, ContainerUser, Error, Event, Qos, Reclaim, SandboxSpec, State,
    wire::socket::{AsyncLink, Link},
};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::sync::mpsc;

/// A path to a socket in `dir`, however long the directory's name is (a socket's address takes 107 bytes). Valid while the descriptor is open.
fn socket(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// What is told of a container whose pod's files are in `dir`. Who its process is was written down by the worker that made it.
pub(super) fn status(dir: &Path, spec: &ContainerSpec, state: State) -> ContainerStatus {
    #[derive(Deserialize)]
    struct Config {
        process: Process,
    }
    #[derive(Deserialize)]
    struct Process {
        user: ContainerUser,
    }
    // Components have none.
    let config = fs::read(worker::bundle(dir, spec).join("config.json")).ok();
    let config: Option<Config> = config.and_then(|json| serde_json::from_slice(&json).ok());
    ContainerStatus { user: config.map(|config| config.process.user), ..spec.status(state) }
}

/// Connects to the shim of that directory.
///
/// # Errors
/// There is none.
pub(super) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(socket(&dir))
}

impl Shared {
    /// Has a shim born for the directory.
    pub(super) async fn birth(&self, dir: &Path) -> Result<UnixStream, Error> {
        let wrong = |error: io::Error| failed("starting a shim in", dir, &error);
        let held = File::open(dir).map_err(wrong)?;
        if let Err(error) = fs::remove_file(dir.join(SOCKET))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(wrong(error));
        }
        let listener = UnixListener::bind(socket(&held)).map_err(wrong)?;
        let log = File::options().create(true).append(true).open(dir.join("shim.log")).map_err(wrong)?;
        let fds: Vec<Arc<OwnedFd>> = vec![Arc::new(listener.into()), Arc::new(log.into())];
        let stream = UnixStream::connect(socket(&held)).map_err(wrong)?;
        let mut nursery = self.nursery.lock().await;
        for attempt in 0..2 {
            if nursery.is_none() {
                *nursery = Some(self.nursery().map_err(wrong)?);
            }
            let Some(link) = nursery.as_mut() else { continue };
            let message = Birth { dir: dir.to_path_buf() };
            let sent = link.link().send(&message, fds.clone()).and_then(|()| link.flush());
            match sent {
                Ok(()) => return Ok(stream),
                // It was killed; another one serves as well.
                Err(error) if attempt > 0 => return Err(wrong(error)),
                Err(_) => *nursery = None,
            }
        }
        Err(wrong(io::Error::other("no process to start it from")))
    }

    fn nursery(&self) -> io::Result<AsyncLink> {
        let exe = exe::open(&self.options.exe, &self.options.data_dir.join("run/oci/empty"))?;
        let (ours, theirs) = Link::pair()?;
        let log = File::options().create(true).append(true).open(self.options.data_dir.join("run/oci/shims.log"))?;
        let stdin = theirs.into_fd();
        let mut command = tokio::process::Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
        command.arg0("coracle").arg(SHIM).env_clear().stdin(Stdio::from(stdin)).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        drop(exe);
        tokio::spawn(async move { child.wait().await });
        AsyncLink::new(ours)
    }

    /// Greets a shim and listens to it from then on.
    pub(super) async fn greet(self: &Arc<Self>, stream: UnixStream, spec: Option<SandboxSpec>, dir: &Path) -> Result<Option<Pod>, Error> {
        let wrong = |why: &dyn std::fmt::Display| failed("talking with the shim in", dir, why);
        stream.set_nonblocking(true).map_err(|error| wrong(&error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let connection = Connection::new(stream.into(), sender).map_err(|error| wrong(&error))?;
        let Answer::Hello { version, pid } = ask(&connection, Ask::Hello { version: VERSION }, PATIENCE).await? else {
            return Err(wrong(&"it answered something else to a greeting"));
        };
        if version != VERSION {
            return Err(wrong(&format!("it is of version {version}, this agent of version {VERSION}")));
        }
        let pod = match spec {
            Some(spec) => {
                ask(&connection, Ask::RunSandbox(Box::new(spec.clone())), PATIENCE).await?;
                Some(Pod { spec, containers: Vec::new() })
            }
            None => match ask(&connection, Ask::List, PATIENCE).await? {
                Answer::Pod(pod) => pod.map(|pod| *pod),
                _ => return Err(wrong(&"it answered something else to a list")),
            },
        };
        if let Some(pod) = &pod {
            let known = pod.containers.iter().map(|(spec, ..)| (spec.id(), spec.clone())).collect();
            let shim = Shim { connection, spec: Arc::new(pod.spec.clone()), pid, known: Arc::new(Mutex::new(known)), sessions: Arc::default() };
            self.shims.lock().insert(pod.spec.pod.uid.clone(), shim.clone());
            self.weigh();
            tokio::spawn(self.clone().follow(shim, receiver));
        }
        Ok(pod)
    }

    /// Turns what a shim says into events, until it is gone.
    async fn follow(self: Arc<Self>, shim: Shim, mut happened: mpsc::UnboundedReceiver<Happened>) {
        let sandbox = &shim.spec.pod.uid;
        while let Some(happened) = happened.recv().await {
            match happened {
                Happened::Superseded => return shim.sessions.lost(),
                Happened::Notice { container, warning, reason, message } => {
                    let Some(container) = shim.known.lock().get(&container).map(|spec| spec.name.clone()) else { continue };
                    let kind = if warning { "Warning" } else { "Normal" };
                    _ = self.events.send(Event::Notice { sandbox: sandbox.clone(), container, kind, reason, message });
                }
                Happened::Ended { session, code } => shim.sessions.ended(session, code),
                Happened::State { container, state } => {
                    let Some(spec) = shim.known.lock().get(&container).cloned() else { continue };
                    if let State::Exited { code, .. } = &state {
                        shim.sessions.container_ended(&container, *code);
                    }
                    let status = status(&self.dir(&shim.spec), &spec, state);
                    _ = self.events.send(Event::Container { sandbox: sandbox.clone(), status });
                }
            }
        }
        shim.sessions.lost();
        let ours = self.shims.lock().get(sandbox).is_some_and(|known| Arc::ptr_eq(&known.connection, &shim.connection));
        if shim.connection.is_dismissed() || !ours {
            return;
        }
        // It was killed. What it was the parent of has no one to tell its end, so it ends now.
        self.shims.lock().remove(sandbox);
        if let Err(why) = self.clear(&shim.spec).await {
            tracing::warn!(%why, sandbox, "clean up after a shim");
        }
        let message = "the pod's shim process ended, and its containers were killed".to_owned();
        _ = self.events.send(Event::SandboxLost { sandbox: sandbox.clone(), message });
    }

    /// Weighs the classes against each other anew: a pod has come or gone.
    pub(super) fn weigh(&self) {
        let (mut millis, mut reclaim) = (0, Reclaim::default());
        for shim in self.shims.lock().values() {
            let resources = &shim.spec.linux.resources;
            if shim.spec.linux.qos == Qos::Burstable {
                millis += resources.cpu_request_millis.unwrap_or(0);
            }
            reclaim.min += resources.reclaim.min;
            reclaim.low += resources.reclaim.low;
        }
        self.trees.weigh_classes(millis, reclaim);
    }

    /// Kills and removes what is left of a pod whose shim is not there.
    pub(super) async fn clear(&self, spec: &SandboxSpec) -> Result<(), Error> {
        let (trees, dir) = (self.trees.clone(), self.dir(spec));
        let group = cgroup::of_pod(&spec.pod.uid, spec.linux.qos);
        blocking(move || remains::remove(&trees, &group, &dir)).await
    }
}
