//! What is known of a pod on this node, as plain data.
//!
//! A pod's next step is a pure function of its object, this and the time ([`super::step`]); what happens to it comes back as an
//! [`Event`] ([`super::observe`]). Nothing here does I/O, so any order of events can be replayed in a test. Rejected: a task per pod
//! with its state on its stack, which costs memory for each pod and cannot be looked at, or tested, from outside.

use super::{
    probe::Trouble,
    probes::{Kind, ProbeState},
    spec::Pod,
    time::{Due, Time},
};
use std::{collections::BTreeMap, net::IpAddr};

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, 128 + signal for signals.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// For a person.
    pub message: String,
    /// When it began, if it did.
    pub started: Option<Time>,
    /// When it ended.
    pub finished: Time,
}

/// The sandbox: address, volumes and the runtime's side, which come and go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Not yet made.
    Absent,
    /// Being made.
    Settling,
    /// There.
    Ready,
    /// Could not be made; when to try again.
    Failed(Due),
    /// Being removed.
    Leaving,
    /// Could not be removed; when to try again.
    Stuck(Due),
    /// Removed, for good.
    Gone,
}

/// The image of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Not looked for since the last start.
    Unknown,
    /// Being looked for or pulled.
    Pulling,
    /// On this machine.
    Ready,
    /// Not to be had.
    Failed {
        /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`, …
        reason: String,
        /// Why.
        message: String,
        /// When to try again.
        retry: Due,
        /// Until then the reason is shown, afterwards `ImagePullBackOff`.
        fresh: Due,
    },
}

/// Why a running container is asked to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pod ends.
    PodEnds,
    /// Its liveness or startup probe failed.
    Probe(Kind),
    /// Its image changed in the spec.
    Changed,
    /// Its postStart hook failed.
    Hook,
}

/// Where the postStart hook of a running container stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// There is none, or it is over.
    #[default]
    Done,
    /// It is to be run.
    Due,
    /// It is under way.
    UnderWay,
    /// It failed: the container is stopped.
    Failed,
}

/// The container itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Waits for its turn.
    Idle,
    /// Being created and started.
    Starting,
    /// Could not be created.
    Refused {
        /// Waiting reason.
        reason: String,
        /// Why.
        message: String,
        /// When to try again; never when trying cannot help.
        retry: Option<Due>,
    },
    /// Runs.
    Running {
        /// Since.
        since: Time,
        /// Asked to stop, killed at.
        stopping: Option<Time>,
    },
    /// Ended.
    Exited(Exit),
}

/// One container, init or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// Its image.
    pub image: Image,
    /// Reference that [`Self::digest`] belongs to.
    pub image_ref: String,
    /// Manifest digest, once known.
    pub digest: String,
    /// What it does.
    pub run: Run,
    /// Number of the container that is or was; equals restartCount.
    pub attempt: u32,
    /// A container with that number has existed.
    pub created: bool,
    /// The end of the one before.
    pub last: Option<Exit>,
    /// Restart back-off.
    pub backoff: Option<Backoff>,
    /// Failed pulls in a row.
    pub pull_failures: u32,
    /// Failed creations in a row.
    pub refusals: u32,
    /// What went wrong last, (reason, message): shown while it is tried again, so that a status does not flicker.
    pub complaint: Option<(String, String)>,
    /// Startup, liveness, readiness.
    pub probes: [ProbeState; 3],
    /// Until postStart is over, the container has not started.
    pub hook: Hook,
}

/// Restart back-off, as client-go's `flowcontrol.Backoff` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the next restart, milliseconds.
    pub delay: i64,
    /// Last restart.
    pub updated: Time,
}

/// First wait, milliseconds.
pub const FIRST_DELAY: i64 = 10_000;
/// Longest wait, milliseconds.
pub const LONGEST_DELAY: i64 = 300_000;
/// A container that ran so long since its restart begins anew, milliseconds.
pub const FORGIVEN: i64 = 600_000;

/// The wait before try number `failures` (from 1) of something that doubles from 10 s to 5 min.
pub fn doubling(failures: u32) -> i64 {
    FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_DELAY)
}

/// Why a pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
}

/// How a pod is put out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Why.
    pub verdict: Verdict,
    /// The most that its containers have to stop in, milliseconds.
    pub grace: i64,
    /// The node had to save itself: the pod gets a `DisruptionTarget` condition.
    pub disruption: bool,
}

impl Eviction {
    /// At once: a second, and the pod's own fault.
    pub fn of(message: String) -> Self {
        Self { verdict: Verdict { reason: super::step::EVICTED.into(), message }, grace: 1_000, disruption: false }
    }
}

/// Everything known of a pod besides its object.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Address, volumes, sandbox.
    pub sandbox: Sandbox,
    /// Failed set-ups in a row.
    pub setup_failures: u32,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// One runtime can be named before the images are there.
    pub runtime_known: bool,
    /// The sandbox was lost while it was being made: it is made again.
    pub lost: bool,
    /// In the order of [`Pod::all_containers`].
    pub containers: Vec<ContainerState>,
    /// All init containers are done; stays so for the life of the sandbox.
    pub initialized: bool,
    /// When this node took the pod.
    pub start_time: Time,
    /// The pod failed as a whole.
    pub verdict: Option<Verdict>,
    /// It was put out: the grace, milliseconds, and whether that gave it a `DisruptionTarget` condition.
    pub evicted: Option<(i64, bool)>,
    /// The agent is stopping its pods: grace in milliseconds.
    pub leaving: Option<i64>,
    /// The object is gone from the API.
    pub gone: bool,
    /// Everything is done; nothing more will be asked for.
    pub forgotten: bool,
    /// Deletion of the object: asked for, and when to ask again.
    pub deletion: Deletion,
    /// Projected tokens and the like want renewal.
    pub refresh: Option<Due>,
    /// Renewal is under way.
    pub refreshing: bool,
    /// Something changed while volumes were being written: write them again.
    pub stale: bool,
    /// Last value and time of each condition.
    pub conditions: BTreeMap<String, (String, Time)>,
}

/// Where the last step, deleting the object from the API, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Not asked yet.
    Open,
    /// Asked.
    Asked,
    /// Failed; when to ask again.
    Failed(Due),
    /// The API server agreed; the feed's removal follows.
    Done,
}

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
    /// The pod fails as a whole; nothing to do but to remember.
    Fail(Verdict),
    /// Write volumes again (token rotation).
    Refresh,
    /// Remove sandbox, volumes, address; logs stay.
    Teardown,
    /// Remove sandbox and address; the pod comes back with the agent and finds its volumes again.
    Leave,
    /// Report the final status, then delete the object with grace 0.
    Delete,
    /// Remove the rest, forget the pod.
    Forget,
}

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

/// Something for the pod's event list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Container, or the pod as a whole.
    pub container: Option<usize>,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// Kubelet's reason.
    pub reason: String,
    /// Kubelet's message.
    pub message: String,
}

impl ContainerState {
    /// A container nobody has seen yet.
    pub fn new() -> Self {
        Self {
            image: Image::Unknown,
            image_ref: String::new(),
            digest: String::new(),
            run: Run::Idle,
            attempt: 0,
            created: false,
            last: None,
            backoff: None,
            pull_failures: 0,
            refusals: 0,
            complaint: None,
            probes: Default::default(),
            hook: Hook::Done,
        }
    }

    /// The number of the next container.
    pub fn next_attempt(&self) -> u32 {
        if self.created { self.attempt.saturating_add(1) } else { self.attempt }
    }

    /// A container is there or on its way.
    pub fn alive(&self) -> bool {
        matches!(self.run, Run::Starting | Run::Running { .. })
    }

    /// When a container that ended like this may start again; `None` is at once.
    pub fn restart_due(&self, exit: &Exit) -> Option<Due> {
        let backoff = self.backoff?;
        if exit.finished.since(backoff.updated) > FORGIVEN {
            return None;
        }
        Some(Due { at: exit.finished.after(backoff.delay), delay: backoff.delay })
    }
}

impl Default for ContainerState {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A pod that this node has just been given.
    pub fn new(pod: &Pod, now: Time) -> Self {
        Self {
            sandbox: Sandbox::Absent,
            setup_failures: 0,
            ip: None,
            runtime_known: true,
            lost: false,
            containers: pod.all_containers().map(|_| ContainerState::new()).collect(),
            initialized: pod.inits() == 0,
            start_time: pod.status.start_time.as_deref().and_then(Time::parse).unwrap_or(now),
            verdict: None,
            evicted: None,
            leaving: None,
            gone: false,
            forgotten: false,
            deletion: Deletion::Open,
            refresh: None,
            refreshing: false,
            stale: false,
            conditions: pod
                .status
                .conditions
                .iter()
                .map(|c| {
                    let time = c.last_transition_time.as_deref().and_then(Time::parse).unwrap_or(now);
                    (c.r#type.clone(), (c.status.clone(), time))
                })
                .collect(),
        }
    }
}
