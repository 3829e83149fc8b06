//! What happens to a pod.

use super::{Eviction, Exit};
#[cfg(doc)]
use crate::pods::spec::Pod;
use crate::pods::{
    probe::Trouble,
    probes::Kind,
    spec::Resources,
    time::{Due, Time},
};
use coracle_runtime::ContainerUser;
use std::net::IpAddr;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Setup succeeded; when tokens want renewal.
    SetUp {
        /// The address.
        ip: IpAddr,
        /// Tokens.
        refresh: Option<Due>,
    },
    /// Setup failed.
    SetupFailed {
        /// The event's reason: `FailedMount`, `FailedCreatePodSandBox`.
        reason: String,
        /// Why.
        message: String,
        /// Address, if it got that far.
        ip: Option<IpAddr>,
        /// Trying again cannot help.
        fatal: bool,
    },
    /// The image is on this machine.
    ImageReady {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Manifest digest.
        digest: String,
    },
    /// The image is not to be had.
    ImageFailed {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Waiting reason.
        reason: String,
        /// Why.
        message: String,
    },
    /// Created and started.
    Started {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
    },
    /// Not created.
    Refused {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Waiting reason.
        reason: String,
        /// Why.
        message: String,
        /// Trying again cannot help.
        fatal: bool,
    },
    /// Created, not started: it counts as an exit with 128.
    StartFailed {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Terminated reason.
        reason: String,
        /// Why.
        message: String,
    },
    /// The runtime says that it runs.
    Running {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Since.
        since: Time,
        /// Who its process is.
        user: Option<ContainerUser>,
    },
    /// The runtime says that it ended.
    Exited {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// Stopping could not be carried out.
    StopFailed {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Why.
        message: String,
    },
    /// A probe came back: `Err` says why it failed.
    Probed {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Which probe.
        kind: Kind,
        /// What it said.
        outcome: Result<(), Trouble>,
    },
    /// The postStart hook is over, well or not.
    Hooked {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// It went well.
        well: bool,
    },
    /// The pod takes more of this node than it may, or than there is: it fails as a whole.
    Evicted(Eviction),
    /// Those containers have these resources now, or why they have not.
    Resized(Result<Vec<(usize, u32, Resources)>, String>),
    /// Volumes were written again; when to do it next.
    Refreshed(Option<Due>),
    /// The runtime lost the sandbox.
    SandboxLost(String),
    /// Sandbox, volumes, address are gone.
    TornDown,
    /// They are not.
    TeardownFailed(String),
    /// The API server deleted the object, or did not.
    Deleted(bool),
    /// A config map or secret that the pod names changed.
    DependencyChanged {
        /// A volume is made of it.
        volume: bool,
    },
    /// The object changed.
    SpecChanged {
        /// In a way that its volumes may show.
        volume: bool,
    },
    /// The object is gone.
    Gone,
    /// The agent stops its pods, with at most this grace in milliseconds.
    Leave(i64),
}
