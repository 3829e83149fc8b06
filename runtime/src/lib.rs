//! The CRI-like trait between the node agent and what runs pods. Sandbox and container as plain data.
//!
//! The shape follows Kubernetes' Container Runtime Interface (sandbox, then containers in it, every call idempotent), because the agent's
//! pod lifecycle is the same for all runtimes. It is an in-process trait and not CRI's gRPC: our runtimes are crates of this binary, and what must
//! outlive the agent are their host and shim processes, each with a protocol of its own that fits it.
//!
//! [`mock`] is the runtime that the agent's tests use.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub mod cgroup;
pub mod exec;
pub mod files;
pub mod linux;
pub mod log;
pub mod mock;
pub mod program;
pub mod remove;
pub mod stats;
pub mod wire;

pub use exec::{Duplex, ExecSpec, Resize, Session, Standard};
pub use linux::{LinuxSandbox, Propagation, Qos, Reclaim, Seccomp, Security, Users};
pub use program::{Identity, Program, Programs};
pub use stats::{PodStats, Stats};

/// A pod's identity; the sandbox id is its uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// Container id: `<pod uid>/<container name>/<attempt>`.
pub type ContainerId = String;
/// Pod uid.
pub type SandboxId = String;

/// What a pod's containers share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Whose sandbox it is.
    pub pod: PodRef,
    /// The pod's hostname; with `domain` at its end if the pod asked for that.
    pub hostname: String,
    /// The pod's domain in cluster DNS; empty if it has none.
    #[serde(default)]
    pub domain: String,
    /// The pod's own address, already assigned (and routed) by the agent.
    pub ip: IpAddr,
    /// How names resolve in the pod.
    pub dns: Dns,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// `<data-dir>/pods/<uid>`; the runtime may keep its own files under `runtime/` there.
    pub dir: PathBuf,
    /// What only pods of processes have.
    #[serde(default)]
    pub linux: LinuxSandbox,
}

impl SandboxSpec {
    /// One with its pod's name as its hostname, the node's own resolver, and nothing else.
    pub fn new(pod: PodRef, ip: IpAddr, dir: PathBuf) -> Self {
        let hostname = pod.name.clone();
        let (domain, dns, linux) = (String::new(), Dns::default(), LinuxSandbox::default());
        SandboxSpec { pod, hostname, domain, ip, dns, labels: BTreeMap::new(), annotations: BTreeMap::new(), dir, linux }
    }
}

/// The content of the pod's resolv.conf (resolv.conf(5)); no servers: the node's own resolver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Tried in order. Processes can be told addresses alone, so what they ask is at port 53.
    pub servers: Vec<SocketAddr>,
    /// Suffixes tried for names with fewer dots than `ndots`.
    pub searches: Vec<String>,
    /// Such as `ndots:5`.
    pub options: Vec<String>,
}

/// One container of a pod, everything resolved: environment, volumes on this machine's disk, image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The sandbox it runs in, which exists.
    pub sandbox: SandboxId,
    /// The container's name in the pod.
    pub name: String,
    /// Counts restarts, from 0.
    pub attempt: u32,
    /// What to run.
    pub image: LocalImage,
    /// Empty: the image's own.
    pub command: Vec<String>,
    /// Arguments; they replace the image's own.
    pub args: Vec<String>,
    /// The container's environment without the image's.
    pub env: Vec<(String, String)>,
    /// Where it starts; none: the image's own.
    pub working_dir: Option<String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// `ports` of the container.
    pub ports: Vec<Port>,
    /// Limits to enforce and requests to weigh by.
    pub resources: Resources,
    /// CRI log file (`<time> stdout|stderr F|P <line>`), appended and rotated (`.1` …) by the runtime.
    pub log_path: PathBuf,
    /// Size at which the log is rotated.
    pub log_max_bytes: u64,
    /// How many files are kept, the current one included.
    pub log_max_files: u32,
    /// Time-out of one request for components that serve HTTP.
    pub request_timeout: Duration,
    /// What a process may do.
    #[serde(default)]
    pub security: Security,
    /// Standard input stays open for whoever attaches; otherwise it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// The end of the first attachment that held standard input is the end of that input.
    #[serde(default)]
    pub stdin_once: bool,
    /// All streams are one terminal.
    #[serde(default)]
    pub tty: bool,
    /// Where its last words are.
    #[serde(default)]
    pub termination: Termination,
    /// The container of the same pod, which runs, whose processes it sees and is one of.
    #[serde(default)]
    pub joins: Option<ContainerId>,
}

/// What becomes the message of [`State::Exited`], at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Termination {
    /// The file on this machine that is mounted at the container's `terminationMessagePath`.
    pub message: Option<PathBuf>,
    /// The end of the log, when that is empty and the container has failed.
    pub fallback_to_logs: bool,
}

impl ContainerSpec {
    /// The first run of an image as it is, without a log and without limits.
    pub fn new(sandbox: impl Into<SandboxId>, name: impl Into<String>, image: LocalImage) -> Self {
        ContainerSpec {
            sandbox: sandbox.into(),
            name: name.into(),
            attempt: 0,
            image,
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            ports: Vec::new(),
            resources: Resources::default(),
            log_path: PathBuf::new(),
            log_max_bytes: 0,
            log_max_files: 0,
            request_timeout: Duration::ZERO,
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            termination: Termination::default(),
            joins: None,
        }
    }

    /// The container's id: pod uid, name and attempt, which no other container ever has.
    pub fn id(&self) -> ContainerId {
        format!("{}/{}/{}", self.sandbox, self.name, self.attempt)
    }

    /// Its status, given its state.
    pub fn status(&self, state: State) -> ContainerStatus {
        ContainerStatus {
            id: self.id(),
            name: self.name.clone(),
            attempt: self.attempt,
            image: self.image.reference.clone(),
            image_digest: self.image.digest.clone(),
            state,
            user: None,
        }
    }
}

/// `resources` of the container, in plain units.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory_limit: Option<u64>,
    /// Thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// Thousandths of a core.
    pub cpu_request_millis: Option<u64>,
    /// What the kernel's out-of-memory killer adds to a process's badness, -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: i32,
    /// Bytes of huge pages by the size of the page, bytes. Of sizes that are not here, none may be used.
    #[serde(default)]
    pub huge_pages: BTreeMap<u64, u64>,
    /// What the kernel may take back of its memory.
    #[serde(default)]
    pub reclaim: Reclaim,
}

/// A volume, already there on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// The directory (or file, for `subPath`) on this machine; of an image, the path in it.
    pub host_path: PathBuf,
    /// Where the container sees it.
    pub container_path: String,
    /// Writes are refused.
    pub read_only: bool,
    /// They are refused by all that is mounted below it, too.
    pub recursive_read_only: bool,
    /// What is mounted below it later.
    pub propagation: Propagation,
    /// It is the content of an image, whose layers these are, the topmost first.
    pub layers: Vec<PathBuf>,
}

/// A declared port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its name, if any.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// An image that is on this machine. What the images module hands over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocalImage {
    /// As the pod names it.
    pub reference: String,
    /// `sha256:…` of the manifest (imageID).
    pub digest: String,
    /// Where its bytes are.
    pub content: ImageContent,
    /// What it says of how it is run.
    #[serde(flatten)]
    pub config: ImageConfig,
}

/// The part of an image's config that is about running it (OCI image specification, `config`). Everything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// What a container's `command` replaces.
    pub entrypoint: Vec<String>,
    /// What a container's `args` replace; a `command` drops it too.
    pub cmd: Vec<String>,
    /// Names and values.
    pub env: Vec<(String, String)>,
    /// Absolute, or empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`, …, or empty: root.
    pub user: String,
    /// Such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Such as `SIGQUIT` or `3`, or empty: SIGTERM.
    pub stop_signal: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Paths at which the image wants volumes of its own.
    pub volumes: Vec<String>,
}

/// Where the image's bytes are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ImageContent {
    /// A single .wasm file (component or core module) and its own `sha256:…`.
    Wasm {
        /// The file.
        path: PathBuf,
        /// Of the file's bytes.
        digest: String,
    },
    /// A container image.
    Oci {
        /// Its unpacked layers as overlayfs takes them for `lowerdir`: the topmost first. They are shared between containers and never written to; the first
        /// one's own mode and owner are those of the root directory.
        layers: Vec<PathBuf>,
    },
}

/// The life of a container; it never goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Made, not started.
    Created,
    /// Started.
    Running {
        /// When.
        started: SystemTime,
    },
    /// Over.
    Exited {
        /// As of a process: 0, its own code, or 128 + signal.
        code: i32,
        /// As Kubernetes writes it: Completed, Error, OOMKilled, ContainerCannotRun, StartError.
        reason: String,
        /// For a human; may be empty.
        message: String,
        /// None when it never ran.
        started: Option<SystemTime>,
        /// When it was over.
        finished: SystemTime,
    },
}

/// What the runtime knows of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// See [`ContainerSpec::id`].
    pub id: ContainerId,
    /// The container's name in the pod.
    pub name: String,
    /// Counts restarts, from 0.
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// `sha256:…` of the manifest.
    pub image_digest: String,
    /// Where it is in its life.
    pub state: State,
    /// Who its first process is, where it is a process and the runtime knows.
    #[serde(default)]
    pub user: Option<ContainerUser>,
}

/// Who a container's first process is, as the container numbers users: `LinuxContainerUser` (KEP-3619), and the OCI runtime specification's `user`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    #[serde(default, rename = "supplementalGroups", alias = "additionalGids", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
}

/// What the runtime knows of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// As given to [`Runtime::run_sandbox`].
    pub spec: SandboxSpec,
    /// Containers can start in it.
    pub ready: bool,
    /// Its containers, exited ones included until they are removed.
    pub containers: Vec<ContainerStatus>,
}

/// What happens without being asked for.
#[derive(Clone, Debug)]
pub enum Event {
    /// A container is in a new state.
    Container {
        /// Its sandbox.
        sandbox: SandboxId,
        /// The new status.
        status: ContainerStatus,
    },
    /// Worth a Kubernetes event on the pod (type, reason, message), such as ("Warning", "MemoryLimitExceeded", …).
    Notice {
        /// Its sandbox.
        sandbox: SandboxId,
        /// The container's name.
        container: String,
        /// `Normal` or `Warning`.
        kind: &'static str,
        /// CamelCase.
        reason: String,
        /// For a human.
        message: String,
    },
    /// The whole sandbox is gone (its host died and could not bring it back).
    SandboxLost {
        /// Which.
        sandbox: SandboxId,
        /// Why.
        message: String,
    },
}

/// `reason` becomes the container's waiting reason and the event's reason: CreateContainerError, RunContainerError,
/// CreateContainerConfigError, InvalidImage, CompileError, … ; `fatal` means trying again cannot help until the spec changes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// CamelCase.
    pub reason: String,
    /// What was tried, on what, and the remedy.
    pub message: String,
    /// See above.
    pub fatal: bool,
}

impl Error {
    /// Trying again cannot help until the spec or the image changes.
    pub fn fatal(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, fatal: true }
    }

    /// Worth trying again, with back-off.
    pub fn again(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, fatal: false }
    }
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
    /// Makes what the pod's containers share. Returns the network namespace that wants the pod's address, for a sandbox that has one of its own.
    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Option<PathBuf>, Error>;
    /// Kills what still runs and releases everything but the directory.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error>;
    /// Readies a container: refuses at once what could never run.
    async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error>;
    /// Starts it; returns once it runs (its exit may follow at once) or could not be started.
    async fn start_container(&self, id: &ContainerId) -> Result<(), Error>;
    /// Gives containers that run other limits and requests, without their noticing, and the pod as a whole what it has with them.
    ///
    /// # Errors
    /// A limit below what is used, which is not set then; or the kernel refuses.
    async fn resize(&self, id: &SandboxId, whole: Resources, containers: Vec<(ContainerId, Resources)>) -> Result<(), Error>;
    /// Ask to stop, then kill after `grace`. Returns once it has exited.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error>;
    /// Forgets an exited container (one that still runs is killed). Logs stay.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), Error>;
    /// Whether it has that sandbox.
    fn holds(&self, id: &str) -> bool;
    /// Everything that is there, for adoption after a restart.
    async fn list(&self) -> Result<Vec<SandboxStatus>, Error>;
    /// The one receiver of events (the agent takes it once at start).
    async fn next_event(&self) -> Event;
    /// Additional listening addresses for a sandbox: Service addresses when there is no kernel proxy (ordinary user).
    /// Replaces the previous set. Connections to `0` are served by what listens on the pod's port `1`.
    ///
    /// # Errors
    /// Some of the addresses cannot be had; the others are listened on all the same.
    async fn set_service_listeners(&self, id: &SandboxId, listeners: Vec<(SocketAddr, u16)>) -> Result<(), Error>;
    /// Starts a program in a running container; returns once it runs.
    ///
    /// # Errors
    /// The container does not run, or the program cannot be started: the message says why.
    async fn exec(&self, spec: ExecSpec) -> Result<Session, Error> {
        Err(exec::no_programs(&spec.container))
    }
    /// The streams of a running container's own program, from now on. Standard input is there only for a container with [`ContainerSpec::stdin`]. Several may be
    /// attached, and each gets all output; the container waits for one that reads slowly, and one that does not read for some seconds is let go.
    ///
    /// # Errors
    /// The container does not run.
    async fn attach(&self, id: &ContainerId, streams: Standard) -> Result<Session, Error> {
        _ = streams;
        Err(exec::not_attachable(id))
    }
    /// A connection to a TCP port of a sandbox: on localhost in a network of its own, on its address where it has none.
    ///
    /// # Errors
    /// Nobody listens there, or the sandbox is not here.
    async fn connect(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, Error>;
    /// Use of the machine by the pod and its containers; nothing for a sandbox that is not there.
    async fn stats(&self, id: &SandboxId) -> Result<PodStats, Error>;
    /// Removes compiled artifacts and so on that no digest of `keep` needs.
    async fn collect_garbage(&self, keep: &[String]) -> Result<(), Error>;
}
