//! What the agent reads of a pod: narrow structs over the object's canonical JSON.
//!
//! Rejected: the typed `k8s_openapi` Pod, which carries every field of the API in memory and fails as a whole on one field it does not
//! know. What is not named here is ignored; what matters but is not supported is named and refused in [`super::admit`].

mod security;
mod stored;
mod volume;

pub use security::{Capabilities, HostAlias, PodSecurityContext, SeccompProfile, SecurityContext, Sysctl};
pub use stored::{StoredCondition, StoredContainer, StoredRunning, StoredState, StoredStatus, StoredTerminated};
pub use volume::{ConfigMapSource, DownwardItem, DownwardSource, EmptyDir, HostPath, Item, Projected, Projection, SecretSource, TokenSource, Volume};

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A pod as the feed brings it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: PodSpec,
    /// `status` as the control plane last stored it; read once, when the agent first sees the pod.
    pub status: StoredStatus,
    /// It is of a file on this node (a static pod), which the API only mirrors.
    #[serde(skip)]
    pub from_file: bool,
}

/// `Toleration`, as far as taints without a value go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toleration {
    /// Empty: every taint, with `Exists`.
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    pub operator: String,
    /// For `Equal`.
    pub value: String,
    /// Empty: every effect.
    pub effect: String,
}

impl Toleration {
    /// It bears the taint of that key, without a value.
    pub fn bears(&self, key: &str, effect: &str) -> bool {
        let operator = match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => self.value.is_empty() && !self.key.is_empty(),
            _ => false,
        };
        operator && (self.effect.is_empty() || self.effect == effect) && (self.key.is_empty() || self.key == key)
    }
}

/// The parts of `ObjectMeta` that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339; set when the pod is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Grace of the deletion, seconds.
    pub deletion_grace_period_seconds: Option<i64>,
}

/// `PodSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Run in order before the others.
    pub init_containers: Vec<Container>,
    /// The pod's containers.
    pub containers: Vec<Container>,
    /// `Always` (also when empty), `OnFailure`, `Never`.
    pub restart_policy: String,
    /// Seconds from asking to killing; 30 when absent.
    pub termination_grace_period_seconds: Option<i64>,
    /// Bound on the pod's life, seconds.
    pub active_deadline_seconds: Option<i64>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Node it is bound to.
    pub node_name: String,
    /// Service account.
    pub service_account_name: String,
    /// Secrets with registry credentials.
    pub image_pull_secrets: Vec<LocalRef>,
    /// Host name inside; the pod's name when empty.
    pub hostname: String,
    /// Subdomain.
    pub subdomain: String,
    /// The host name has the pod's domain at its end.
    #[serde(rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: bool,
    /// Goes before `hostname`, and has no domain (KEP-4762).
    pub hostname_override: Option<String>,
    /// Labels that the node must have.
    pub node_selector: Value,
    /// Affinity.
    pub affinity: Affinity,
    /// Operating system.
    pub os: Os,
    /// Priority.
    pub priority: i64,
    /// Its name.
    pub priority_class_name: String,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Requests of the pod as a whole.
    pub resources: Resources,
    /// What the sandbox takes.
    pub overhead: BTreeMap<String, Value>,
    /// RuntimeClass.
    pub runtime_class_name: Option<String>,
    /// Service environment variables; true when absent.
    pub enable_service_links: Option<bool>,
    /// Additional conditions of readiness.
    pub readiness_gates: Vec<ReadinessGate>,
    /// The machine's network.
    pub host_network: bool,
    /// The machine's processes.
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    /// The machine's IPC.
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    /// Containers see each other's processes.
    pub share_process_namespace: bool,
    /// `false`: users of their own (KEP-127).
    pub host_users: Option<bool>,
    /// Names for /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// What all containers may do.
    pub security_context: PodSecurityContext,
    /// `ClusterFirst`, `Default`, `None`.
    pub dns_policy: String,
    /// Pod's own resolver settings.
    pub dns_config: DnsConfig,
}

/// `Affinity`, what a node looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    /// Node affinity.
    pub node_affinity: NodeAffinity,
}

/// `NodeAffinity`, what must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    /// Required terms, any of which suffices.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
}

/// `NodeSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelector {
    /// Any of these.
    pub node_selector_terms: Vec<NodeTerm>,
}

/// `NodeSelectorTerm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerm {
    /// About labels.
    pub match_expressions: Value,
    /// About the name.
    pub match_fields: Value,
}

/// `PodOS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `linux` or `windows`.
    pub name: String,
}

/// `PodDNSConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots`.
    pub options: Vec<DnsOption>,
}

/// `PodDNSConfigOption`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    /// Name.
    pub name: String,
    /// Value, if it has one.
    pub value: Option<String>,
}

/// `PodReadinessGate`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReadinessGate {
    /// The condition that must be `True`.
    pub condition_type: String,
}

/// A name in the pod's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LocalRef {
    /// Name.
    pub name: String,
}

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
    /// `Always` makes an init container a sidecar (KEP-753).
    pub restart_policy: Option<String>,
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

/// `Lifecycle`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Lifecycle {
    /// After start.
    pub post_start: Option<Handler>,
    /// Before stop.
    pub pre_stop: Option<Handler>,
}

/// `LifecycleHandler`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Handler {
    /// Command inside.
    pub exec: Option<ExecAction>,
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
    /// TCP connect, refused.
    pub tcp_socket: Option<Value>,
    /// Sleep.
    pub sleep: Option<SleepAction>,
}

/// `SleepAction`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SleepAction {
    /// Seconds.
    pub seconds: i64,
}

/// `EnvVar`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Literal, expanded.
    pub value: String,
    /// Or a source.
    pub value_from: Option<EnvSource>,
}

/// `EnvVarSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvSource {
    /// Key of a config map.
    pub config_map_key_ref: Option<KeyRef>,
    /// Key of a secret.
    pub secret_key_ref: Option<KeyRef>,
    /// Field of the pod.
    pub field_ref: Option<FieldRef>,
    /// Resource of a container.
    pub resource_field_ref: Option<ResourceFieldRef>,
}

/// `ConfigMapKeySelector` and `SecretKeySelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    /// Object's name.
    pub name: String,
    /// Key.
    pub key: String,
    /// May be absent.
    pub optional: bool,
}

/// `ObjectFieldSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FieldRef {
    /// Such as `metadata.name` or `metadata.labels['app']`.
    pub field_path: String,
}

/// `ResourceFieldSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceFieldRef {
    /// Container; its own when empty in an env var.
    pub container_name: String,
    /// Such as `limits.memory`.
    pub resource: String,
    /// Unit, `1` when absent.
    pub divisor: Option<Value>,
}

/// `EnvFromSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvFrom {
    /// Put before each name.
    pub prefix: String,
    /// A config map.
    pub config_map_ref: Option<ObjectRef>,
    /// A secret.
    pub secret_ref: Option<ObjectRef>,
}

/// A named object that may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ObjectRef {
    /// Name.
    pub name: String,
    /// May be absent.
    pub optional: bool,
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
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Upper bounds.
    pub limits: BTreeMap<String, Value>,
    /// What the scheduler set aside.
    pub requests: BTreeMap<String, Value>,
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

/// `Probe`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Probe {
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
    /// TCP connect.
    pub tcp_socket: Option<TcpSocket>,
    /// Command inside.
    pub exec: Option<ExecAction>,
    /// gRPC health check.
    pub grpc: Option<GrpcAction>,
    /// Seconds after start.
    pub initial_delay_seconds: i64,
    /// Seconds; 1 when zero.
    pub timeout_seconds: i64,
    /// Seconds; 10 when zero.
    pub period_seconds: i64,
    /// 1 when zero.
    pub success_threshold: i64,
    /// 3 when zero.
    pub failure_threshold: i64,
    /// Grace when this probe stops the container.
    pub termination_grace_period_seconds: Option<i64>,
}

/// `ExecAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct ExecAction {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// `GRPCAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct GrpcAction {
    /// Number.
    pub port: u16,
    /// Whose health; the server's own when empty.
    pub service: String,
}

/// `HTTPGetAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpGet {
    /// `/` when empty.
    pub path: String,
    /// Number or name.
    pub port: Value,
    /// The pod's address when empty.
    pub host: String,
    /// `HTTP` when empty.
    pub scheme: String,
    /// Headers.
    pub http_headers: Vec<HttpHeader>,
}

/// `HTTPHeader`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// `TCPSocketAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct TcpSocket {
    /// Number or name.
    pub port: Value,
    /// The pod's address when empty.
    pub host: String,
}

impl Pod {
    /// Ports that want one of the node's.
    pub fn host_ports(&self) -> impl Iterator<Item = &ContainerPort> {
        let sidecars = self.spec.init_containers.iter().filter(|container| container.is_sidecar());
        self.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports).filter(|port| port.host_port != 0)
    }

    /// Reads canonical JSON.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Init containers, then containers: the order of every per-container list in the agent.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    /// The container at that place of [`Self::all_containers`].
    pub fn container(&self, index: usize) -> Option<&Container> {
        let inits = self.spec.init_containers.len();
        if index < inits { self.spec.init_containers.get(index) } else { self.spec.containers.get(index - inits) }
    }

    /// How many of the containers are init containers.
    pub fn inits(&self) -> usize {
        self.spec.init_containers.len()
    }

    /// `fieldPath` of a container in events: `spec.containers{web}`.
    pub fn field_path(&self, index: usize) -> String {
        let list = if index < self.inits() { "initContainers" } else { "containers" };
        format!("spec.{list}{{{}}}", self.container(index).map_or("", |c| c.name.as_str()))
    }

    /// `name_namespace(uid)`, as kubelet writes pods in messages.
    pub fn long_name(&self) -> String {
        format!("{}_{}({})", self.metadata.name, self.metadata.namespace, self.metadata.uid)
    }

    /// The pod is being deleted; the grace in milliseconds that it has from now on.
    pub fn deletion_grace(&self) -> Option<i64> {
        self.metadata.deletion_timestamp.as_ref()?;
        Some(self.metadata.deletion_grace_period_seconds.map_or_else(|| self.grace(), |s| s.max(0).saturating_mul(1000)))
    }

    /// Grace of an ordinary stop, milliseconds.
    pub fn grace(&self) -> i64 {
        self.spec.termination_grace_period_seconds.unwrap_or(30).max(0).saturating_mul(1000)
    }

    /// Names of config maps and secrets that volumes and env name: `(resource, name)`.
    pub fn references(&self) -> Vec<(&'static str, &str)> {
        let mut found = Vec::new();
        for container in self.all_containers() {
            for from in &container.env_from {
                found.extend(from.config_map_ref.iter().map(|r| ("configmaps", r.name.as_str())));
                found.extend(from.secret_ref.iter().map(|r| ("secrets", r.name.as_str())));
            }
            for source in container.env.iter().filter_map(|e| e.value_from.as_ref()) {
                found.extend(source.config_map_key_ref.iter().map(|r| ("configmaps", r.name.as_str())));
                found.extend(source.secret_key_ref.iter().map(|r| ("secrets", r.name.as_str())));
            }
        }
        found.extend(self.volume_references());
        found.extend(self.spec.image_pull_secrets.iter().map(|r| ("secrets", r.name.as_str())));
        found
    }

    /// The same for volumes alone.
    pub fn volume_references(&self) -> Vec<(&'static str, &str)> {
        let mut found = Vec::new();
        for volume in &self.spec.volumes {
            found.extend(volume.config_map.iter().map(|s| ("configmaps", s.name.as_str())));
            found.extend(volume.secret.iter().map(|s| ("secrets", s.secret_name.as_str())));
            for projection in volume.projected.iter().flat_map(|p| &p.sources) {
                found.extend(projection.config_map.iter().map(|s| ("configmaps", s.name.as_str())));
                found.extend(projection.secret.iter().map(|s| ("secrets", s.name.as_str())));
            }
        }
        found
    }
}
