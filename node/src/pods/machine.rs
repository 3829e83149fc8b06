//! What is known of a pod on this node, as plain data.
//!
//! A pod's next step is a pure function of its object, this and the time ([`super::step`]); what happens to it comes back as an
//! [`Event`] ([`super::observe`]). Nothing here does I/O, so any order of events can be replayed in a test. Rejected: a task per pod
//! with its state on its stack, which costs memory for each pod and cannot be looked at, or tested, from outside.

mod action;
mod container;
mod event;

pub use action::Action;
pub use container::{Backoff, ContainerState, Exit, FIRST_DELAY, FORGIVEN, Hook, Image, LONGEST_DELAY, Run, Why, doubling};
pub use event::Event;

use super::{
    resize::Resize,
    spec::Pod,
    time::{Due, Time},
};
use std::{collections::BTreeMap, net::IpAddr};

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
    /// A container asked for all to begin again, which waits for those that still run.
    pub restarting: bool,
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
    /// Where a change of cpu and memory stands.
    pub resize: Resize,
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
            restarting: false,
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
            resize: Resize::default(),
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
