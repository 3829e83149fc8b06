//! The CRI-like trait between the node agent and what runs pods. Sandbox and container as plain data.
//!
//! SKELETON: contract; the mock for tests lives beside it.
#![allow(unused, missing_docs)]

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A pod's identity; the sandbox id is its uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Container id: `<pod uid>/<container name>/<attempt>`.
pub type ContainerId = String;
/// Pod uid.
pub type SandboxId = String;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub pod: PodRef,
    pub hostname: String,
    /// The pod's own address, already assigned (and routed) by the agent.
    pub ip: IpAddr,
    pub dns: Dns,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `<data-dir>/pods/<uid>`; the runtime may keep its own files under `runtime/` there.
    pub dir: PathBuf,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<IpAddr>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub sandbox: SandboxId,
    pub name: String,
    pub attempt: u32,
    pub image: LocalImage,
    /// Empty: the image's own.
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub mounts: Vec<Mount>,
    pub ports: Vec<Port>,
    pub resources: Resources,
    /// CRI log file (`<time> stdout|stderr F|P <line>`), appended and rotated (`.1` …) by the runtime.
    pub log_path: PathBuf,
    pub log_max_bytes: u64,
    pub log_max_files: u32,
    /// Time-out of one request for components that serve HTTP.
    pub request_timeout: Duration,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    pub memory_limit: Option<u64>,
    pub cpu_limit_millis: Option<u64>,
    pub cpu_request_millis: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: String,
}

/// An image that is on this machine. What the images module hands over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocalImage {
    /// As the pod names it.
    pub reference: String,
    /// `sha256:…` of the manifest (imageID).
    pub digest: String,
    pub content: ImageContent,
    /// From the image's config, if it has one.
    pub entrypoint: Vec<String>,
    pub env: Vec<(String, String)>,
}
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ImageContent {
    /// A single .wasm file (component or core module) and its own `sha256:…`.
    Wasm { path: PathBuf, digest: String },
    /// Unpacked layers, lowest first.
    Oci { layers: Vec<PathBuf>, config: PathBuf },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Created,
    Running {
        started: SystemTime,
    },
    /// `reason` as Kubernetes writes it: Completed, Error, OOMKilled, ContainerCannotRun, StartError.
    Exited {
        code: i32,
        reason: String,
        message: String,
        started: Option<SystemTime>,
        finished: SystemTime,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: ContainerId,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub image_digest: String,
    pub state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub spec: SandboxSpec,
    pub ready: bool,
    pub containers: Vec<ContainerStatus>,
}

#[derive(Clone, Debug)]
pub enum Event {
    Container {
        sandbox: SandboxId,
        status: ContainerStatus,
    },
    /// Worth a Kubernetes event on the pod (type, reason, message), such as ("Warning", "MemoryLimitExceeded", …).
    Notice {
        sandbox: SandboxId,
        container: String,
        kind: &'static str,
        reason: String,
        message: String,
    },
    /// The whole sandbox is gone (its host died and could not bring it back).
    SandboxLost {
        sandbox: SandboxId,
        message: String,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

/// `reason` becomes the container's waiting reason and the event's reason: CreateContainerError, RunContainerError,
/// CreateContainerConfigError, InvalidImage, CompileError, … ; `fatal` means trying again cannot help until the spec changes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub reason: String,
    pub message: String,
    pub fatal: bool,
}

/// A kind of runtime. All calls are idempotent; all survive a restart of the agent (workloads do not live in it).
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// `wasm` or `oci`: the RuntimeClass handler.
    fn name(&self) -> &'static str;
    /// Can this runtime run that image? Says why not, with the remedy.
    fn supports(&self, image: &LocalImage) -> Result<(), Error>;
    /// Compile or unpack, once per digest; concurrent calls share the work.
    async fn prepare(&self, image: &LocalImage) -> Result<(), Error>;
    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<(), Error>;
    /// Kills what still runs and releases everything but the directory.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error>;
    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error>;
    async fn start_container(&self, id: &ContainerId) -> Result<(), Error>;
    /// Ask to stop, then kill after `grace`. Returns once it has exited.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error>;
    async fn remove_container(&self, id: &ContainerId) -> Result<(), Error>;
    /// Everything that is there, for adoption after a restart.
    async fn list(&self) -> Result<Vec<SandboxStatus>, Error>;
    /// The one receiver of events (the agent takes it once at start).
    async fn next_event(&self) -> Event;
    /// Additional listening addresses for a sandbox: Service addresses when there is no kernel proxy (ordinary user).
    /// Replaces the previous set. Connections to `0` are served by what listens on the pod's port `1`.
    async fn set_service_listeners(&self, id: &SandboxId, listeners: Vec<(SocketAddr, u16)>) -> Result<(), Error>;
    async fn stats(&self, id: &SandboxId) -> Result<Vec<(String, Stats)>, Error>;
    /// Removes compiled artifacts and so on that no digest of `keep` needs.
    async fn collect_garbage(&self, keep: &[String]) -> Result<(), Error>;
}
