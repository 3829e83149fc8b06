//! What the agent reads of a pod: narrow structs over the object's canonical JSON.
//!
//! Rejected: the typed `k8s_openapi` Pod, which carries every field of the API in memory and fails as a whole on one field it does not
//! know. What is not named here is ignored; what matters but is not supported is named and refused in [`super::admit`].

mod container;
mod dns;
mod env;
mod lifecycle;
mod placement;
mod security;
mod stored;
mod volume;

pub use container::{Container, ContainerPort, ResizePolicy, Resources, VolumeMount};
pub use dns::{DnsConfig, DnsOption};
pub use env::{EnvFrom, EnvSource, EnvVar, FieldRef, FileKeyRef, KeyRef, ObjectRef, ResourceFieldRef};
pub use lifecycle::{ExecAction, GrpcAction, Handler, HttpGet, HttpHeader, Lifecycle, Probe, SleepAction, TcpSocket};
pub use placement::{Affinity, NodeAffinity, NodeSelector, NodeTerm, Toleration};
pub use security::{Capabilities, HostAlias, PodSecurityContext, SeccompProfile, SecurityContext, Sysctl};
pub use stored::{StoredCondition, StoredContainer, StoredRunning, StoredState, StoredStatus, StoredTerminated};
pub use volume::{
    ConfigMapSource, DownwardItem, DownwardSource, EmptyDir, HostPath, ImageSource, Item, Projected, Projection, SecretSource, TokenSource, Volume,
};

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
    /// Added to look at the others, while they run (KEP-277).
    pub ephemeral_containers: Vec<Container>,
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

/// `PodOS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `linux` or `windows`.
    pub name: String,
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

    /// Init containers, then containers, then ephemeral ones, which only ever become more: the order of every per-container list in the agent.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers).chain(&self.spec.ephemeral_containers)
    }

    /// The places of the pod's containers proper, between those before them and those that look at them.
    pub fn mains(&self) -> std::ops::Range<usize> {
        let inits = self.inits();
        inits..inits + self.spec.containers.len()
    }

    /// The container at that place is an ephemeral one: nothing of the pod depends on it, and it is never started again.
    pub fn is_ephemeral(&self, index: usize) -> bool {
        index >= self.mains().end
    }

    /// The container at that place of [`Self::all_containers`].
    pub fn container(&self, index: usize) -> Option<&Container> {
        self.all_containers().nth(index)
    }

    /// How many of the containers are init containers.
    pub fn inits(&self) -> usize {
        self.spec.init_containers.len()
    }

    /// `fieldPath` of a container in events: `spec.containers{web}`.
    pub fn field_path(&self, index: usize) -> String {
        let list = match index {
            _ if index < self.inits() => "initContainers",
            _ if self.is_ephemeral(index) => "ephemeralContainers",
            _ => "containers",
        };
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
