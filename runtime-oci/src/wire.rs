//! What the agent and a shim say to each other, in the envelope of [`coracle_runtime::wire`]. A shim may be older than the agent (it survives upgrades): fields are only
//! ever added with a default, and the version is raised when that does not suffice.

use coracle_runtime::{ContainerSpec, SandboxSpec, State, wire};
use serde::{Deserialize, Serialize};

/// Raised when an old shim could not understand a new agent.
pub const VERSION: u16 = 1;

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
    /// Stops a container, which has this many milliseconds after the signal. Answered when it is over.
    Stop(String, u64),
    /// Forgets an exited container and what it wrote.
    RemoveContainer(String),
    /// Answered by [`Answer::Pod`].
    List,
    /// Kills what runs; the shim ends. Answered when nothing runs any more.
    Remove,
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
    /// Another agent has connected; this one is not listened to any more.
    Superseded,
}
