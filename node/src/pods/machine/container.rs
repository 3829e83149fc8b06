//! One container as data: its image, what it does, when it may start again.

use crate::pods::{
    probes::{Kind, ProbeState},
    spec::Resources,
    time::{Due, Time},
};
use coracle_runtime::ContainerUser;

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
    /// Its resources changed, and its policy is to begin anew with them.
    Resized,
    /// Its postStart hook failed.
    Hook,
    /// All containers of its pod begin again.
    Restarted,
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
    /// What went wrong last, (reason, message): shown while it is tried again, so that a status does not flicker.
    pub complaint: Option<(String, String)>,
    /// Startup, liveness, readiness.
    pub probes: [ProbeState; 3],
    /// Until postStart is over, the container has not started.
    pub hook: Hook,
    /// What the one that runs was given.
    pub given: Resources,
    /// Who its process is, or was.
    pub user: Option<ContainerUser>,
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
            complaint: None,
            probes: Default::default(),
            hook: Hook::Done,
            given: Resources::default(),
            user: None,
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

    /// It starts again now: what it will have to wait the next time.
    pub fn back_off(&mut self, finished: Time, now: Time) {
        let waited = self.backoff.filter(|old| finished.since(old.updated) <= FORGIVEN).map_or(0, |old| old.delay);
        let delay = waited.saturating_mul(2).clamp(FIRST_DELAY, LONGEST_DELAY);
        self.backoff = Some(Backoff { delay, waited, updated: now });
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

/// Restart back-off, as client-go's `flowcontrol.Backoff` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the next restart, milliseconds.
    pub delay: i64,
    /// The wait before the last one, milliseconds; 0 when it was at once.
    pub waited: i64,
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
