//! Where variables come from.

use serde::Deserialize;
use serde_json::Value;

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
    /// Key of a file in an emptyDir.
    pub file_key_ref: Option<FileKeyRef>,
}

/// `FileKeySelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FileKeyRef {
    /// The volume.
    pub volume_name: String,
    /// Of the file, within the volume.
    pub path: String,
    /// Key.
    pub key: String,
    /// May be absent.
    pub optional: bool,
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
