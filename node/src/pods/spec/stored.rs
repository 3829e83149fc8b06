//! A pod's status as the control plane last stored it.

use super::Resources;
use crate::pods::{machine::Exit, time::Time};
use coracle_runtime::ContainerUser;
use serde::Deserialize;

/// `PodStatus` as stored: what a fresh agent takes over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredStatus {
    /// Phase.
    pub phase: String,
    /// Reason of the phase.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// RFC 3339.
    pub start_time: Option<String>,
    /// QoS class, kept.
    pub qos_class: String,
    /// What the pod as a whole had.
    pub resources: Option<Resources>,
    /// Conditions, ours and others'.
    pub conditions: Vec<StoredCondition>,
    /// Init containers.
    pub init_container_statuses: Vec<StoredContainer>,
    /// Containers.
    pub container_statuses: Vec<StoredContainer>,
    /// Ephemeral containers.
    pub ephemeral_container_statuses: Vec<StoredContainer>,
}

/// `PodCondition` as stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredCondition {
    /// Type.
    pub r#type: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// RFC 3339.
    pub last_transition_time: Option<String>,
}

/// `ContainerStatus` as stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredContainer {
    /// Name.
    pub name: String,
    /// Restarts so far.
    pub restart_count: u32,
    /// Digest.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// Set once it was created.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its startup probe had succeeded.
    pub started: bool,
    /// Its readiness probe had.
    pub ready: bool,
    /// `{waiting|running|terminated: …}`.
    pub state: StoredState,
    /// The one before.
    pub last_state: StoredState,
    /// What it was given.
    pub resources: Option<Resources>,
    /// Who its process is.
    pub user: StoredUser,
}

/// `ContainerUser` as stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StoredUser {
    /// Of a process.
    pub linux: Option<ContainerUser>,
}

/// `ContainerState` as stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StoredState {
    /// Running.
    pub running: Option<StoredRunning>,
    /// Exited.
    pub terminated: Option<StoredTerminated>,
}

/// `ContainerStateRunning`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredRunning {
    /// RFC 3339.
    pub started_at: Option<String>,
}

/// `ContainerStateTerminated`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredTerminated {
    /// Exit code.
    pub exit_code: i32,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
}

impl StoredTerminated {
    /// As the state machine keeps it.
    pub fn exit(&self) -> Exit {
        Exit {
            code: self.exit_code,
            reason: self.reason.clone(),
            message: self.message.clone(),
            started: self.started_at.as_deref().and_then(Time::parse),
            finished: self.finished_at.as_deref().and_then(Time::parse).unwrap_or(Time(0)),
        }
    }
}
