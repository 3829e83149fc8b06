//! Volumes of a pod.

use super::{FieldRef, ResourceFieldRef};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `Volume`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Name.
    pub name: String,
    /// A config map's keys as files.
    pub config_map: Option<ConfigMapSource>,
    /// A secret's keys as files.
    pub secret: Option<SecretSource>,
    /// Scratch space that lives as long as the pod.
    pub empty_dir: Option<EmptyDir>,
    /// Several sources in one directory.
    pub projected: Option<Projected>,
    /// The pod's own fields as files.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardSource>,
    /// A path of the machine.
    pub host_path: Option<HostPath>,
    /// The files of an image (KEP-4639).
    pub image: Option<ImageSource>,
    /// Any other source: refused by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `ImageVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageSource {
    /// The image.
    pub reference: String,
    /// `Always`, `IfNotPresent`, `Never`; by the tag when empty.
    pub pull_policy: String,
}

/// `EmptyDirVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EmptyDir {
    /// Empty, `Memory`, `HugePages` or `HugePages-<size>`.
    pub medium: String,
    /// How large it may become.
    pub size_limit: Option<Value>,
}

/// `HostPathVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostPath {
    /// Absolute.
    pub path: String,
    /// What must be there, such as `DirectoryOrCreate`; anything when empty.
    #[serde(rename = "type")]
    pub kind: String,
}

/// `KeyToPath`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Item {
    /// Key.
    pub key: String,
    /// File, relative.
    pub path: String,
    /// Mode.
    pub mode: Option<u32>,
}

/// `ConfigMapVolumeSource` and `ConfigMapProjection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name.
    pub name: String,
    /// All keys when empty.
    pub items: Vec<Item>,
    /// 0644 when absent.
    pub default_mode: Option<u32>,
    /// May be absent.
    pub optional: bool,
}

/// `SecretVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretSource {
    /// Name in a volume.
    pub secret_name: String,
    /// Name in a projection.
    pub name: String,
    /// All keys when empty.
    pub items: Vec<Item>,
    /// 0644 when absent.
    pub default_mode: Option<u32>,
    /// May be absent.
    pub optional: bool,
}

/// `ProjectedVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Projected {
    /// Sources, later ones win.
    pub sources: Vec<Projection>,
    /// 0644 when absent.
    pub default_mode: Option<u32>,
}

/// `VolumeProjection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Projection {
    /// Config map.
    pub config_map: Option<ConfigMapSource>,
    /// Secret.
    pub secret: Option<SecretSource>,
    /// Fields of the pod.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardSource>,
    /// Token.
    pub service_account_token: Option<TokenSource>,
    /// Any other source: refused by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `ServiceAccountTokenProjection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenSource {
    /// The API server's own when empty.
    pub audience: String,
    /// 3600 when absent.
    pub expiration_seconds: Option<i64>,
    /// File.
    pub path: String,
}

/// `DownwardAPIVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardSource {
    /// Files.
    pub items: Vec<DownwardItem>,
    /// 0644 when absent.
    pub default_mode: Option<u32>,
}

/// `DownwardAPIVolumeFile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardItem {
    /// File.
    pub path: String,
    /// Field of the pod.
    pub field_ref: Option<FieldRef>,
    /// Resource of a container.
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// Mode.
    pub mode: Option<u32>,
}
