//! What is to be done for a pod.

use super::{Verdict, Why};
use crate::pods::probes::Kind;
#[cfg(doc)]
use crate::pods::spec::Pod;

/// What the shell has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Address, directories, volumes, sandbox.
    Setup,
    /// Look for the image, pull it if the policy says so.
    Pull {
        /// Place in [`Pod::all_containers`].
        container: usize,
    },
    /// Create and start.
    Start {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
    },
    /// Ask to stop, then kill.
    Stop {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Milliseconds between asking and killing.
        grace: i64,
        /// Why.
        why: Why,
        /// First runs preStop, which is part of the grace.
        hook: bool,
    },
    /// Run the postStart hook.
    PostStart {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
    },
    /// Probe once.
    Probe {
        /// Place in [`Pod::all_containers`].
        container: usize,
        /// Its number.
        attempt: u32,
        /// Which probe.
        kind: Kind,
    },
    /// Every container begins again; nothing to do but to remember.
    Restart,
    /// The pod fails as a whole; nothing to do but to remember.
    Fail(Verdict),
    /// Write volumes again (token rotation).
    Refresh,
    /// Give these containers that run, and the pod as a whole, what the node has set aside for them: place in [`Pod::all_containers`], number.
    Resize(Vec<(usize, u32)>),
    /// Remove sandbox, volumes, address; logs stay.
    Teardown,
    /// Remove sandbox and address; the pod comes back with the agent and finds its volumes again.
    Leave,
    /// Report the final status, then delete the object with grace 0.
    Delete,
    /// Remove the rest, forget the pod.
    Forget,
}
