//! A runtime that runs nothing: what the node agent's tests drive it with.
//!
//! It keeps the contract of [`Runtime`] (idempotent calls, sandboxes before containers, an event for every change) in memory, records every call,
//! fails on demand, and lets a test play the workload: exit it, lose it, make it complain. What is run in it with `exec` is one of a few scripted programs (`script`);
//! attached to, it says what it is told; its ports, all but 1, do the same. A scripted fake was preferred to a mocking library
//! because the agent is tested by what becomes of pods, not by the exact calls it made.
//!
//! Cloning gives another handle on the same "machine": drop the agent under test, build a new one on a clone, and it finds what was running.

use crate::{
    ContainerId, ContainerSpec, ContainerStatus, Duplex, Error, Event, ExecSpec, ImageConfig, ImageContent, LocalImage, PodRef, PodStats, Resources,
    Runtime, SandboxId, SandboxSpec, SandboxStatus, Session, Standard, State, Stats,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{io::AsyncWriteExt, sync::Notify};

/// One recorded call: the operation's name (`start_container`, …) and what it was about (digest, sandbox or container id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The trait method.
    pub op: &'static str,
    /// Image digest, sandbox id or container id.
    pub on: String,
}

/// What a container of a given image does once started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until stopped, or until [`MockRuntime::exit`]. The default.
    Runs,
    /// Exits at once with this code.
    Exits(i32),
    /// Ignores the polite stop: it exits only when the grace period is over.
    Stubborn,
}

#[derive(Default)]
struct Machine {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    events: VecDeque<Event>,
    calls: Vec<Call>,
    failures: Vec<(&'static str, Option<usize>, Error)>,
    behaviours: BTreeMap<String, Behaviour>,
    kept: Vec<String>,
}

struct Sandbox {
    spec: SandboxSpec,
    containers: BTreeMap<ContainerId, Container>,
    listeners: Vec<(SocketAddr, u16)>,
}

struct Container {
    spec: ContainerSpec,
    state: State,
    stats: Stats,
}

impl Container {
    fn status(&self) -> ContainerStatus {
        self.spec.status(self.state.clone())
    }
}

/// See the module. Cheap to clone; clones share the machine.
#[derive(Clone)]
pub struct MockRuntime {
    name: &'static str,
    machine: Arc<Mutex<Machine>>,
    woken: Arc<Notify>,
}

impl MockRuntime {
    /// A machine on which nothing runs. `name` is the RuntimeClass handler: `wasm` takes .wasm images, anything else OCI ones.
    pub fn new(name: &'static str) -> Self {
        Self { name, machine: Arc::default(), woken: Arc::default() }
    }

    /// Containers of this image reference behave so from their next start on.
    pub fn behave(&self, reference: &str, behaviour: Behaviour) {
        self.machine.lock().behaviours.insert(reference.to_owned(), behaviour);
    }

    /// The next `times` calls of `op` fail (`None`: every call from now on).
    pub fn fail(&self, op: &'static str, times: Option<usize>, error: Error) {
        self.machine.lock().failures.push((op, times, error));
    }

    /// Takes back what [`fail`](Self::fail) ordered for `op`.
    pub fn heal(&self, op: &'static str) {
        self.machine.lock().failures.retain(|(name, ..)| *name != op);
    }

    /// The workload of `id` exits by itself. False when it is not running.
    pub fn exit(&self, id: &str, code: i32, reason: &str) -> bool {
        let mut machine = self.machine.lock();
        let done = machine.exit(id, code, reason);
        drop(machine);
        self.woken.notify_waiters();
        done
    }

    /// The sandbox disappears with everything in it, as when its host process dies for good.
    pub fn lose(&self, sandbox: &str, message: &str) {
        let mut machine = self.machine.lock();
        machine.sandboxes.remove(sandbox);
        machine.events.push_back(Event::SandboxLost { sandbox: sandbox.to_owned(), message: message.to_owned() });
        drop(machine);
        self.woken.notify_waiters();
    }

    /// The runtime has something to say about a container.
    pub fn notice(&self, sandbox: &str, container: &str, kind: &'static str, reason: &str, message: &str) {
        self.machine.lock().events.push_back(Event::Notice {
            sandbox: sandbox.to_owned(),
            container: container.to_owned(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
        self.woken.notify_waiters();
    }

    /// What `stats` answers for a container from now on.
    pub fn set_stats(&self, id: &str, stats: Stats) {
        if let Some(container) = self.machine.lock().container(id) {
            container.stats = stats;
        }
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.machine.lock().calls.clone()
    }

    /// How often `op` was called.
    pub fn count(&self, op: &str) -> usize {
        self.machine.lock().calls.iter().filter(|call| call.op == op).count()
    }

    /// The specs of the containers that were started and have not exited.
    pub fn running(&self) -> Vec<ContainerSpec> {
        let machine = self.machine.lock();
        let containers = machine.sandboxes.values().flat_map(|sandbox| sandbox.containers.values());
        containers.filter(|container| matches!(container.state, State::Running { .. })).map(|container| container.spec.clone()).collect()
    }

    /// What `set_service_listeners` last said about a sandbox.
    pub fn service_listeners(&self, sandbox: &str) -> Vec<(SocketAddr, u16)> {
        self.machine.lock().sandboxes.get(sandbox).map(|sandbox| sandbox.listeners.clone()).unwrap_or_default()
    }

    /// The digests the last `collect_garbage` was told to keep.
    pub fn kept(&self) -> Vec<String> {
        self.machine.lock().kept.clone()
    }

    fn call(&self, op: &'static str, on: &str) -> Result<(), Error> {
        let mut machine = self.machine.lock();
        machine.calls.push(Call { op, on: on.to_owned() });
        let Some(at) = machine.failures.iter().position(|(name, ..)| *name == op) else { return Ok(()) };
        let error = machine.failures[at].2.clone();
        if let Some(times) = &mut machine.failures[at].1 {
            *times = times.saturating_sub(1);
            if *times == 0 {
                machine.failures.remove(at);
            }
        }
        Err(error)
    }
}

impl Machine {
    fn container(&mut self, id: &str) -> Option<&mut Container> {
        self.sandboxes.values_mut().find_map(|sandbox| sandbox.containers.get_mut(id))
    }

    fn change(&mut self, id: &str, state: State) {
        let Some(container) = self.container(id) else { return };
        container.state = state;
        let event = Event::Container { sandbox: container.spec.sandbox.clone(), status: container.status() };
        self.events.push_back(event);
    }

    fn exit(&mut self, id: &str, code: i32, reason: &str) -> bool {
        let Some(Container { state: State::Running { started }, .. }) = self.container(id) else { return false };
        let started = Some(*started);
        let (reason, message) = (reason.to_owned(), String::new());
        self.change(id, State::Exited { code, reason, message, started, finished: SystemTime::now() });
        true
    }
}

/// A machine's first running container, made from next to nothing: for tests of what reaches into it.
///
/// # Panics
/// It was told to fail.
#[allow(clippy::unwrap_used, reason = "for tests")]
pub async fn running(machine: &MockRuntime) -> ContainerSpec {
    let pod = PodRef { namespace: "default".into(), name: "pod".into(), uid: "u1".into() };
    let sandbox = SandboxSpec::new(pod, [127, 0, 0, 1].into(), PathBuf::new());
    machine.run_sandbox(sandbox).await.unwrap();
    let content = if machine.name == "wasm" {
        ImageContent::Wasm { path: PathBuf::new(), digest: String::new() }
    } else {
        ImageContent::Oci { layers: Vec::new() }
    };
    let image = LocalImage { reference: "image".into(), digest: "sha256:00".into(), content, config: ImageConfig::default() };
    let spec = ContainerSpec::new("u1", "main", image);
    let id = machine.create_container(spec.clone()).await.unwrap();
    machine.start_container(&id).await.unwrap();
    spec
}

fn missing(what: &str, id: &str) -> Error {
    Error::again("RunContainerError", format!("no {what} {id} here; create it first"))
}

#[async_trait]
impl Runtime for MockRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn supports(&self, image: &LocalImage) -> Result<(), Error> {
        match (&image.content, self.name == "wasm") {
            (ImageContent::Wasm { .. }, true) | (ImageContent::Oci { .. }, false) => Ok(()),
            _ => Err(Error::fatal("InvalidImage", format!("{} is not an image for the {} runtime", image.reference, self.name))),
        }
    }

    async fn prepare(&self, image: &LocalImage) -> Result<(), Error> {
        self.call("prepare", &image.digest)
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Option<PathBuf>, Error> {
        self.call("run_sandbox", &spec.pod.uid)?;
        let mut machine = self.machine.lock();
        let fresh = Sandbox { spec: spec.clone(), containers: BTreeMap::new(), listeners: Vec::new() };
        machine.sandboxes.entry(spec.pod.uid).or_insert(fresh);
        Ok(None)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        self.call("remove_sandbox", id)?;
        self.machine.lock().sandboxes.remove(id);
        Ok(())
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        let id = spec.id();
        self.call("create_container", &id)?;
        let mut machine = self.machine.lock();
        let sandbox = machine.sandboxes.get_mut(&spec.sandbox).ok_or_else(|| missing("sandbox", &spec.sandbox))?;
        sandbox.containers.entry(id.clone()).or_insert(Container { spec, state: State::Created, stats: Stats::default() });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.call("start_container", id)?;
        let mut machine = self.machine.lock();
        let container = machine.container(id).ok_or_else(|| missing("container", id))?;
        if container.state != State::Created {
            return Ok(());
        }
        let reference = container.spec.image.reference.clone();
        machine.change(id, State::Running { started: SystemTime::now() });
        if let Some(Behaviour::Exits(code)) = machine.behaviours.get(&reference).cloned() {
            machine.exit(id, code, if code == 0 { "Completed" } else { "Error" });
        }
        drop(machine);
        self.woken.notify_waiters();
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        self.call("stop_container", id)?;
        let stubborn = {
            let mut machine = self.machine.lock();
            let Some(container) = machine.container(id) else { return Ok(()) };
            let reference = container.spec.image.reference.clone();
            machine.behaviours.get(&reference) == Some(&Behaviour::Stubborn)
        };
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        let code = if stubborn { 137 } else { 143 };
        self.exit(id, code, "Error");
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.call("remove_container", id)?;
        let mut machine = self.machine.lock();
        machine.exit(id, 137, "Error");
        for sandbox in machine.sandboxes.values_mut() {
            sandbox.containers.remove(id);
        }
        drop(machine);
        self.woken.notify_waiters();
        Ok(())
    }

    fn holds(&self, id: &str) -> bool {
        self.machine.lock().sandboxes.contains_key(id)
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, Error> {
        self.call("list", "")?;
        let machine = self.machine.lock();
        let status = |sandbox: &Sandbox| SandboxStatus {
            spec: sandbox.spec.clone(),
            ready: true,
            containers: sandbox.containers.values().map(Container::status).collect(),
        };
        Ok(machine.sandboxes.values().map(status).collect())
    }

    async fn next_event(&self) -> Event {
        loop {
            let woken = self.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some(event) = self.machine.lock().events.pop_front() {
                return event;
            }
            woken.await;
        }
    }

    async fn set_service_listeners(&self, id: &SandboxId, listeners: Vec<(SocketAddr, u16)>) -> Result<(), Error> {
        self.call("set_service_listeners", id)?;
        let mut machine = self.machine.lock();
        machine.sandboxes.get_mut(id).ok_or_else(|| missing("sandbox", id))?.listeners = listeners;
        Ok(())
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Session, Error> {
        self.call("exec", &spec.container)?;
        match self.machine.lock().container(&spec.container) {
            Some(Container { state: State::Running { .. }, .. }) => Ok(script::start(&spec)?),
            _ => Err(missing("running container", &spec.container)),
        }
    }

    async fn attach(&self, id: &ContainerId, streams: Standard) -> Result<Session, Error> {
        self.call("attach", id)?;
        let spec = match self.machine.lock().container(id) {
            Some(Container { state: State::Running { .. }, spec, .. }) => spec.clone(),
            _ => return Err(missing("running container", id)),
        };
        script::start(&ExecSpec { container: id.clone(), command: vec!["cat".into()], streams, tty: spec.tty, timeout: None })
    }

    async fn connect(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, Error> {
        self.call("connect", id)?;
        if !self.machine.lock().sandboxes.contains_key(id) {
            return Err(missing("sandbox", id));
        }
        if port == 1 {
            return Err(Error::again("ConnectError", format!("connecting to localhost port {port} in the pod failed: connection refused")));
        }
        let (ours, theirs) = tokio::io::duplex(script::BUFFER);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            _ = tokio::io::copy(&mut read, &mut write).await;
            _ = write.shutdown().await;
        });
        Ok(Box::new(ours))
    }

    async fn stats(&self, id: &SandboxId) -> Result<PodStats, Error> {
        let machine = self.machine.lock();
        let sandbox = machine.sandboxes.get(id).ok_or_else(|| missing("sandbox", id))?;
        let containers = sandbox.containers.values().map(|container| (container.spec.name.clone(), container.stats.clone())).collect();
        Ok(PodStats { containers, ..PodStats::default() })
    }

    async fn resize(&self, id: &SandboxId, _: Resources, containers: Vec<(ContainerId, Resources)>) -> Result<(), Error> {
        self.call("resize", id)?;
        let mut machine = self.machine.lock();
        for (id, resources) in containers {
            machine.container(&id).ok_or_else(|| missing("container", &id))?.spec.resources = resources;
        }
        Ok(())
    }

    async fn collect_garbage(&self, keep: &[String]) -> Result<(), Error> {
        self.call("collect_garbage", "")?;
        self.machine.lock().kept = keep.to_vec();
        Ok(())
    }
}

mod script;

#[cfg(test)]
mod tests;
