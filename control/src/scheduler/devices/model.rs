//! What the scheduler reads of `resource.k8s.io/v1`.

use coracle_store::Key;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Metadata of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The revision it was read at.
    pub resource_version: String,
    /// Set while it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// What keeps it.
    pub finalizers: Vec<String>,
    /// Whose it is.
    pub owner_references: Vec<Owner>,
}

/// `metav1.OwnerReference`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Uid.
    pub uid: String,
    /// Whether it manages the claim.
    pub controller: bool,
}

/// `ResourceClaim`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// Metadata.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: ClaimSpec,
    /// What was given.
    pub status: ClaimStatus,
}

impl Claim {
    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(super::CLAIMS, self.metadata.namespace.as_str(), self.metadata.name.as_str())
    }
}

/// `ResourceClaimSpec`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimSpec {
    /// Devices.
    pub devices: Wanted,
}

/// `DeviceClaim`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Each of them has to be met.
    pub requests: Vec<Request>,
    /// What devices have to have in common.
    pub constraints: Vec<Constraint>,
    /// Handed to drivers.
    pub config: Vec<Value>,
}

/// `DeviceRequest`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// What is wanted.
    pub exactly: Option<Exact>,
    /// Or the first of these that can be had.
    pub first_available: Vec<Exact>,
}

impl Request {
    /// What would meet it, the best first.
    pub fn options(&self) -> &[Exact] {
        self.exactly.as_ref().map_or(&self.first_available, std::slice::from_ref)
    }

    /// `request`, or `request/alternative`.
    pub fn named(&self, option: &Exact) -> String {
        if self.exactly.is_some() { self.name.clone() } else { format!("{}/{}", self.name, option.name) }
    }
}

/// `ExactDeviceRequest`, `DeviceSubRequest`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exact {
    /// Of an alternative.
    pub name: String,
    /// Of which class.
    pub device_class_name: String,
    /// Which of them.
    pub selectors: Vec<Selector>,
    /// `ExactCount` or `All`.
    pub allocation_mode: String,
    /// How many.
    pub count: Option<usize>,
    /// For administrators: also what others have.
    pub admin_access: bool,
    /// Taints that are borne.
    pub tolerations: Vec<Toleration>,
}

/// `DeviceSelector`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Selector {
    /// The only kind there is.
    pub cel: Cel,
}

/// `CELDeviceSelector`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cel {
    /// About `device`.
    pub expression: String,
}

/// `DeviceToleration`
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    operator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether it bears a taint.
    pub fn bears(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.operator == "Exists" || self.value == taint.value)
    }
}

/// `DeviceTaint`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    key: String,
    value: String,
    /// `NoSchedule`, `NoExecute`, `None`.
    pub effect: String,
}

/// `DeviceConstraint`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraint {
    /// Of which requests; empty for all.
    pub requests: Vec<String>,
    /// All have the same value of it.
    pub match_attribute: Option<String>,
    /// All have different values of it.
    pub distinct_attribute: Option<String>,
}

/// `ResourceClaimStatus`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    /// What was given, if anything.
    pub allocation: Option<Allocation>,
    /// Who uses it.
    pub reserved_for: Vec<Value>,
}

/// `AllocationResult`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    /// Devices.
    pub devices: Given,
    /// Where they can be used; anywhere without one.
    pub node_selector: Option<Value>,
}

/// `DeviceAllocationResult`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Given {
    /// One a device.
    pub results: Vec<GivenDevice>,
}

/// `DeviceRequestAllocationResult`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GivenDevice {
    /// Driver, pool and device.
    #[serde(flatten)]
    pub id: DeviceId,
    /// For an administrator: others may have it.
    pub admin_access: bool,
}

/// What tells a device from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct DeviceId {
    /// Driver.
    pub driver: String,
    /// Pool.
    pub pool: String,
    /// Device.
    pub device: String,
}

/// `DeviceClass`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Class {
    /// Spec.
    pub spec: ClassSpec,
}

/// `DeviceClassSpec`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClassSpec {
    /// Which devices belong to it.
    pub selectors: Vec<Selector>,
    /// Handed to drivers.
    pub config: Vec<Value>,
}

/// `ResourceSlice`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Spec.
    pub spec: SliceSpec,
}

/// `ResourceSliceSpec`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceSpec {
    /// Who drives the devices.
    pub driver: String,
    /// Of which pool it is a part.
    pub pool: Pool,
    /// Where they are.
    #[serde(flatten)]
    pub place: Place,
    /// Each device says where it is.
    pub per_device_node_selection: bool,
    /// Counters that devices share.
    pub shared_counters: Vec<Value>,
    /// The devices.
    pub devices: Vec<Device>,
}

impl SliceSpec {
    /// The one node whose devices these are, if they are of one.
    pub fn at_one_node(&self) -> Option<&str> {
        self.place.node_name.as_deref().filter(|name| !name.is_empty() && !self.per_device_node_selection)
    }
}

/// `ResourcePool`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pool {
    /// Its name, for the driver.
    pub name: String,
    /// The newest counts.
    pub generation: i64,
    /// Slices that it has when it is whole.
    pub resource_slice_count: usize,
}

/// Where a device can be used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Place {
    /// On this node.
    pub node_name: Option<String>,
    /// On every node.
    pub all_nodes: bool,
    /// On nodes that it selects.
    pub node_selector: Option<Value>,
}

/// `Device`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Typed values by (qualified) name.
    pub attributes: BTreeMap<String, Value>,
    /// Quantities by (qualified) name.
    pub capacity: BTreeMap<String, Value>,
    /// Where it is, where slices leave that to devices.
    #[serde(flatten)]
    pub place: Place,
    /// What keeps claims away.
    pub taints: Vec<Taint>,
    /// Several claims may share it.
    pub allow_multiple_allocations: bool,
    consumes_counters: Vec<Value>,
    binding_conditions: Vec<Value>,
}

impl Device {
    /// Whether it can be given to claims here: neither shared, nor a part of something, nor made ready while a pod waits.
    pub fn is_plain(&self) -> bool {
        !self.allow_multiple_allocations && self.consumes_counters.is_empty() && self.binding_conditions.is_empty()
    }

    /// A taint that keeps a request away that does not bear it.
    pub fn repels(&self, request: &Exact) -> bool {
        let keeps_away = |taint: &&Taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
        self.taints.iter().filter(keeps_away).any(|taint| !request.tolerations.iter().any(|toleration| toleration.bears(taint)))
    }

    /// An attribute by its full name; those of the driver's own domain may be written without it.
    pub fn attribute(&self, driver: &str, name: &str) -> Option<&Value> {
        let short = || name.strip_prefix(driver)?.strip_prefix('/').and_then(|short| self.attributes.get(short));
        self.attributes.get(name).or_else(short)
    }
}
