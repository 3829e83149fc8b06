//! What only pods of processes have: namespaces to share, kernel parameters, and what a process may do.

use crate::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A sandbox of processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxSandbox {
    /// The machine's network instead of one of its own, and its host name.
    pub host_network: bool,
    /// The machine's processes are seen.
    pub host_pid: bool,
    /// The machine's IPC.
    pub host_ipc: bool,
    /// Containers see each other's processes (`shareProcessNamespace`).
    pub share_processes: bool,
    /// Kernel parameters of the sandbox's namespaces, such as `net.ipv4.tcp_syncookies`.
    pub sysctls: BTreeMap<String, String>,
    /// Names for `/etc/hosts` (`hostAliases`): address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// The pod's class, which is where its control group is.
    pub qos: Qos,
    /// Of all containers together.
    pub resources: Resources,
    /// Processes and threads that the pod may have.
    pub pids_limit: Option<u64>,
    /// Users of its own (`hostUsers: false`).
    pub users: Option<Users>,
}

/// What the kernel takes back of memory that is used, bytes, where control groups are of version 2 (KEP-2570, memory QoS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// So much never (`memory.min`).
    pub min: u64,
    /// So much only when there is nothing else (`memory.low`).
    pub low: u64,
    /// What uses more is slowed down and gives back (`memory.high`).
    pub high: Option<u64>,
}

/// A range of the machine's user and group ids, which are the pod's 0, 1, 2 and so on (KEP-127).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// The pod's root.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// Kubernetes' quality-of-service classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    /// Limits equal requests, for every container.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    #[default]
    BestEffort,
}

/// A container's security context with the pod's folded in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Everything the machine's root may do.
    pub privileged: bool,
    /// Uid; none: the image's user.
    pub run_as_user: Option<u32>,
    /// Gid; none: the user's own, by the image.
    pub run_as_group: Option<u32>,
    /// Refuse to run as uid 0.
    pub run_as_non_root: bool,
    /// Groups besides, `fsGroup` among them.
    pub supplemental_groups: Vec<u32>,
    /// The user's groups in the image's /etc/group do not count (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
    /// Capabilities besides the default ones, without `CAP_`; `ALL` is all.
    pub add: Vec<String>,
    /// Capabilities taken away; `ALL` is all.
    pub drop: Vec<String>,
    /// The root file system is not for writing.
    pub read_only_root: bool,
    /// False: no set-uid program and no file capability gives more than the process has.
    pub allow_privilege_escalation: Option<bool>,
    /// `procMount: Unmasked`: nothing of /proc is hidden.
    pub unmasked_proc: bool,
    /// System calls.
    pub seccomp: Seccomp,
}

/// `seccompProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// None; Kubernetes' default when nothing is said.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// A profile (JSON, as of the OCI runtime specification) on this machine.
    Localhost(std::path::PathBuf),
}

/// `mountPropagation`: who sees what is mounted below a volume while it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Whoever mounted it.
    #[default]
    None,
    /// The container sees what the machine mounts.
    HostToContainer,
    /// Each sees what the other mounts.
    Bidirectional,
}
