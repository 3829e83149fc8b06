//! What a pod's processes may do, and what they share with the machine.

use serde::Deserialize;

/// `SecurityContext` of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityContext {
    /// Everything the machine's root may do.
    pub privileged: Option<bool>,
    /// Uid.
    pub run_as_user: Option<u32>,
    /// Gid.
    pub run_as_group: Option<u32>,
    /// Never uid 0.
    pub run_as_non_root: Option<bool>,
    /// No file of the image is for writing.
    pub read_only_root_filesystem: bool,
    /// Set-uid programs and file capabilities count.
    pub allow_privilege_escalation: Option<bool>,
    /// Given and taken away.
    pub capabilities: Capabilities,
    /// `Default` or `Unmasked`.
    pub proc_mount: String,
    /// System calls.
    pub seccomp_profile: Option<SeccompProfile>,
    /// AppArmor.
    pub app_armor_profile: Option<AppArmorProfile>,
}

/// `PodSecurityContext`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSecurityContext {
    /// Uid.
    pub run_as_user: Option<u32>,
    /// Gid.
    pub run_as_group: Option<u32>,
    /// Never uid 0.
    pub run_as_non_root: Option<bool>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// `Merge` (also when empty) or `Strict`.
    pub supplemental_groups_policy: String,
    /// A further group, which volumes belong to.
    pub fs_group: Option<u32>,
    /// Kernel parameters.
    pub sysctls: Vec<Sysctl>,
    /// System calls.
    pub seccomp_profile: Option<SeccompProfile>,
    /// AppArmor.
    pub app_armor_profile: Option<AppArmorProfile>,
}

/// `AppArmorProfile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AppArmorProfile {
    /// `RuntimeDefault`, `Localhost`, `Unconfined`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// `Capabilities`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Given.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
}

/// `SeccompProfile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeccompProfile {
    /// `RuntimeDefault`, `Localhost`, `Unconfined`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A file below the node's seccomp directory.
    pub localhost_profile: String,
}

/// `Sysctl`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    /// Such as `net.ipv4.tcp_syncookies`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `HostAlias`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Its names.
    pub hostnames: Vec<String>,
}
