//! A container of a pod.

use super::{EnvFrom, EnvVar, Lifecycle, Probe, SecurityContext};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `Container`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// `Always`, `IfNotPresent`, `Never`; by the tag when empty.
    pub image_pull_policy: String,
    /// Entry point.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Variables.
    pub env: Vec<EnvVar>,
    /// Sources of variables.
    pub env_from: Vec<EnvFrom>,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// Requests and limits.
    pub resources: Resources,
    /// What a change of those does to the container.
    pub resize_policy: Vec<ResizePolicy>,
    /// The container whose processes an ephemeral one sees.
    pub target_container_name: String,
    /// Mounts.
    pub volume_mounts: Vec<VolumeMount>,
    /// Block devices, refused.
    pub volume_devices: Vec<Value>,
    /// Restart when it fails.
    pub liveness_probe: Option<Probe>,
    /// Take traffic when it succeeds.
    pub readiness_probe: Option<Probe>,
    /// Hold the other two back until it succeeds.
    pub startup_probe: Option<Probe>,
    /// Hooks.
    pub lifecycle: Option<Lifecycle>,
    /// Its own instead of the pod's (KEP-5307); `Always` makes an init container a sidecar (KEP-753).
    pub restart_policy: Option<String>,
    /// Exceptions from it, by exit code; the first that matches holds.
    #[serde(rename = "restartPolicyRules")]
    pub restart_rules: Vec<RestartRule>,
    /// Security context.
    pub security_context: SecurityContext,
    /// Terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub stdin: bool,
    /// It ends with the first attachment.
    pub stdin_once: bool,
    /// Where the container leaves its last words, `/dev/termination-log` by default.
    pub termination_message_path: String,
    /// `File` or `FallbackToLogsOnError`.
    pub termination_message_policy: String,
}

impl Container {
    /// A restartable init container (KEP-753).
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// `ContainerRestartRule`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RestartRule {
    /// `Restart`, or `RestartAllContainers`.
    pub action: String,
    /// When the container is started again.
    pub exit_codes: ExitCodes,
}

/// `ContainerRestartRuleOnExitCodes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// `In` or `NotIn`.
    pub operator: String,
    /// Exit codes.
    pub values: Vec<i32>,
}

impl RestartRule {
    /// Not the container alone is started again, but all of its pod (KEP-5532).
    pub fn all(&self) -> bool {
        self.action == "RestartAllContainers"
    }

    /// Whether a container that ended so is started again by this rule.
    pub fn restarts(&self, code: i32) -> bool {
        match self.exit_codes.operator.as_str() {
            "In" => self.exit_codes.values.contains(&code),
            "NotIn" => !self.exit_codes.values.contains(&code),
            _ => false,
        }
    }
}

/// `ContainerPort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Name.
    pub name: Option<String>,
    /// Port.
    pub container_port: u16,
    /// Port of the node; 0: none.
    pub host_port: u16,
    /// Address of the node at which it is asked for; empty: all.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// `TCP` when empty.
    pub protocol: String,
}

/// `ResourceRequirements`; quantities as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Upper bounds.
    pub limits: BTreeMap<String, Value>,
    /// What the scheduler set aside.
    pub requests: BTreeMap<String, Value>,
}

/// `ContainerResizePolicy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResizePolicy {
    /// `cpu` or `memory`.
    pub resource_name: String,
    /// `NotRequired` or `RestartContainer`.
    pub restart_policy: String,
}

/// `VolumeMount`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeMount {
    /// Volume.
    pub name: String,
    /// Path inside.
    pub mount_path: String,
    /// Not writable.
    pub read_only: bool,
    /// Path within the volume.
    pub sub_path: String,
    /// The same with variables.
    pub sub_path_expr: String,
    /// `None`, `HostToContainer` or `Bidirectional`.
    pub mount_propagation: String,
    /// `Disabled`, `IfPossible` or `Enabled`.
    pub recursive_read_only: String,
}
