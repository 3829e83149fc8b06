//! What the agent and a shim say to each other, in the envelope of [`coracle_runtime::wire`]. A shim may be older than the agent (it survives upgrades): fields are only
//! ever added with a default, and the version is raised when that does not suffice.

use coracle_runtime::{ContainerSpec, SandboxSpec, State, wire};
use serde::{Deserialize, Serialize};

/// Raised when an old shim could not understand a new agent.
pub const VERSION: u16 = 3;

/// From the agent.
pub type Request = wire::Request<Ask>;
/// To the agent.
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
    /// Makes the pod's namespaces and its control group.
    RunSandbox(Box<SandboxSpec>),
    /// Makes and starts a container. Answered when its program runs, or could not be started.
    Start(Box<ContainerSpec>),
    /// Makes and starts a container whose process is a hidden subcommand of this binary. Descriptors as of [`coracle_runtime::Program`]. Answered as [`Ask::Start`].
    Program(Box<ContainerSpec>, String),
    /// Stops a container, which has this many milliseconds after the signal. Answered when it is over.
    Stop(String, u64),
    /// Forgets an exited container and what it wrote.
    RemoveContainer(String),
    /// Runs a program in a container that runs. Answered when it runs, or could not be started; [`Happened::Ended`] follows.
    /// Descriptors: those of `streams` that are held, in the order of their numbers; for a terminal one socket, to which its other end is sent.
    Exec(Box<Exec>),
    /// Kills the program of that session, if it still runs.
    EndExec(u64),
    /// Sends a copy of what a container writes from now on. Descriptors: the writing ends of pipes for those of `streams` that are held.
    /// The answer brings the container's standard input, or its terminal, where there is one and it is held.
    Attach {
        /// The container.
        container: String,
        /// Which.
        stdin: bool,
        /// Which.
        stdout: bool,
        /// Which.
        stderr: bool,
    },
    /// Ends a container's standard input, once nobody else holds it either.
    CloseInput(String),
    /// Answered by [`Answer::Pod`].
    List,
    /// Kills what runs; the shim ends. Answered when nothing runs any more.
    Remove,
}

/// A program to run in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the agent.
    pub session: u64,
    /// The container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Standard input, output and error: which are held; the others are /dev/null.
    pub streams: [bool; 3],
    /// All of them are one terminal.
    pub tty: bool,
    /// It is killed after so many milliseconds.
    pub timeout: Option<u64>,
}

/// A successful [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// To [`Ask::Hello`].
    Hello {
        /// Of the shim.
        version: u16,
        /// The shim's process id.
        pid: i32,
    },
    /// To [`Ask::List`].
    Pod(Option<Box<Pod>>),
}

/// What a shim holds; it is on disk too, for whoever cleans up after a shim that was killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pod {
    /// As it was given.
    pub spec: SandboxSpec,
    /// Its containers that were started, with the process id of those that run.
    pub containers: Vec<(ContainerSpec, State, Option<i32>)>,
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
        /// The container's id.
        container: String,
        /// `Normal` or `Warning`.
        warning: bool,
        /// CamelCase.
        reason: String,
        /// For a human.
        message: String,
    },
    /// A program of [`Ask::Exec`] is over.
    Ended {
        /// Its session.
        session: u64,
        /// Its exit code, or 128 + signal.
        code: i32,
    },
    /// Another agent has connected; this one is not listened to any more.
    Superseded,
}
