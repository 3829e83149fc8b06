//! What the agent, the supervisor and the host processes say to each other: the messages, as plain data.
//!
//! Agent ↔ supervisor ↔ host, over Unix stream sockets. A frame is a fixed header (magic, version, length, number of descriptors) and a JSON body;
//! descriptors travel beside it (`SCM_RIGHTS`). Envelope and framing are [`coracle_runtime::wire`]'s. The supervisor may be older than the agent (it survives upgrades), so
//! unknown fields are ignored, fields are only ever added with a default, and the version is raised when that does not suffice.
//!
//! JSON rather than something denser because these are a few messages in a pod's life and one can read them with strace.

pub mod bounds;

use coracle_runtime::{ContainerSpec, ContainerStatus, Mount, Resources, SandboxSpec, State, wire};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::SystemTime,
};

/// Raised when an old supervisor could not understand a new agent.
pub const VERSION: u16 = 4;

/// What an artifact is, which decides how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component that exports `wasi:http/incoming-handler`.
    Http,
    /// A component that exports `wasi:cli/run`.
    Command,
    /// A core module of preview 1 with a `_start`.
    Module,
}

pub use coracle_runtime::wire::Refusal;

/// From the agent to the supervisor.
pub type Request = wire::Request<Ask>;
/// From the supervisor to the agent.
pub type Answered = wire::Answered<Answer, Happened>;
/// To a [`Request`].
pub type Reply = wire::Reply<Answer>;

/// The body of a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// First on a connection. Answered by [`Answer::Hello`].
    Hello {
        /// Of the agent.
        version: u16,
    },
    /// See `Runtime::run_sandbox`.
    RunSandbox(Box<SandboxSpec>),
    /// Stops what runs at once and forgets the sandbox.
    RemoveSandbox(String),
    /// Starts a container. Descriptors as [`Start`] tells.
    Start(Box<Start>),
    /// Stops a container, with this many milliseconds for what is in flight. Answered when it is over.
    Stop(String, u64),
    /// Gives containers that run other limits and requests: all of them, or none.
    Resize(Vec<(String, Resources)>),
    /// Forgets an exited container.
    RemoveContainer(String),
    /// One page of what is there: what comes after this id, or from the beginning. Answered by [`Answer::List`].
    List(Option<String>),
    /// Replaces the additional listeners of a sandbox. Descriptors: for each address, one listener a host.
    Listeners(String, Vec<(SocketAddr, u16)>),
    /// A fresh log file for a container after rotation. Descriptor: the file.
    Log(String),
    /// Answered by [`Answer::Stats`].
    Stats(String),
    /// Everything ends, the supervisor included. Not answered.
    Shutdown,
}

/// How to start one container. Descriptors, in this order: log file, artifact, one directory a mount (as in `spec.mounts`),
/// and for each of `ports`, one listener a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The container.
    pub spec: ContainerSpec,
    /// What the artifact is.
    pub kind: Kind,
    /// Names the artifact: containers with the same key share it within a host.
    pub artifact: String,
    /// Bytes of memory that an instance of it begins with.
    #[serde(default)]
    pub memory: u64,
    /// Ports with listeners, for [`Kind::Http`].
    pub ports: Vec<u16>,
}

/// A successful [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// To [`Ask::Hello`].
    Hello {
        /// Of the supervisor.
        version: u16,
        /// Number of host processes: as many listeners are needed for every address.
        hosts: usize,
        /// The supervisor's process id.
        pid: i32,
        /// The key of its hosts' engine: they load what was compiled for that one only.
        #[serde(default)]
        engine: String,
        /// Whether it and its hosts are in their control group, or why not.
        #[serde(default = "grouped")]
        group: Result<(), String>,
    },
    /// To [`Ask::List`].
    List(Page),
    /// To [`Ask::Stats`]: container name, CPU nanoseconds, bytes.
    Stats(Vec<(String, u64, u64)>),
}

fn grouped() -> Result<(), String> {
    Ok(())
}

/// A part of the list, of about [`PAGE`] bytes: the whole of it has no bound.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their ids; a sandbox comes before its containers.
    pub items: Vec<Listed>,
    /// There is more after this id.
    pub next: Option<String>,
}

/// A page ends with the item that makes it longer than this, in bytes of JSON.
pub const PAGE: usize = 1 << 20;

/// What the supervisor has.
#[derive(Debug, Serialize, Deserialize)]
pub enum Listed {
    /// A sandbox, as it was given.
    Sandbox(Box<SandboxSpec>),
    /// A container that was started.
    Container(Box<ListedContainer>),
}

/// What an agent must know of a container that it did not start: not its environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedContainer {
    /// The sandbox it runs in.
    pub sandbox: String,
    /// With its state.
    pub status: ContainerStatus,
    /// What to rotate.
    pub log: LogFile,
    /// Its part of the hosts' share of the CPU.
    #[serde(default)]
    pub cpu_request_millis: Option<u64>,
    /// What programs about files work on.
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

impl ListedContainer {
    /// Of a container in that state.
    pub fn new(spec: &ContainerSpec, state: State) -> Self {
        let log = LogFile { path: spec.log_path.clone(), max_bytes: spec.log_max_bytes, max_files: spec.log_max_files };
        let (sandbox, mounts) = (spec.sandbox.clone(), spec.mounts.clone());
        Self { sandbox, status: spec.status(state), log, cpu_request_millis: spec.resources.cpu_request_millis, mounts }
    }
}

/// A container's log, and when and how it is rotated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogFile {
    /// The current file.
    pub path: PathBuf,
    /// Size at which it is rotated.
    pub max_bytes: u64,
    /// How many files are kept, the current one included.
    pub max_files: u32,
}

/// What the agent is told unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Happened {
    /// A container is in a new state.
    State {
        /// Its id.
        container: String,
        /// The state.
        state: State,
    },
    /// Something worth an event on the pod.
    Notice {
        /// Container id.
        container: String,
        /// `Normal` or `Warning`.
        warning: bool,
        /// CamelCase.
        reason: String,
        /// For a human.
        message: String,
    },
    /// The log has reached its size: rotate it and send the new file.
    LogFull(String),
    /// Another agent has connected; this one is not listened to any more.
    Superseded,
}

/// From the supervisor to a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Descriptors: log, artifact, mounts, then this host's listener for each of `ports`.
    Start {
        /// The container.
        start: Box<Start>,
        /// Its sandbox.
        sandbox: Box<SandboxSpec>,
        /// Its row in the shared ledger.
        slot: usize,
    },
    /// Stop it; say [`Said::Exited`] when it is over.
    Stop(String, u64),
    /// Replaces a sandbox's additional listeners; its address, for what has to be carried on to it. Descriptors: this host's listener for each.
    Listeners(String, IpAddr, Vec<(SocketAddr, u16)>),
    /// Descriptor: the new log file.
    Log(String),
}

/// From a host to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Said {
    /// It is confined and waits for orders.
    Up,
    /// The container runs here.
    Started(String),
    /// It could not be started here.
    Failed(String, Refusal),
    /// It is over here.
    Exited {
        /// Container id.
        container: String,
        /// As of a process.
        code: i32,
        /// Completed, Error, OOMKilled.
        reason: String,
        /// For a human.
        message: String,
        /// When.
        finished: SystemTime,
    },
    /// See [`Happened::Notice`].
    Notice {
        /// Container id.
        container: String,
        /// `Normal` or `Warning`.
        warning: bool,
        /// CamelCase.
        reason: String,
        /// For a human.
        message: String,
    },
    /// See [`Happened::LogFull`].
    LogFull(String),
}
