//! Rules of quantities and of resource lists.

use super::{At, Causes};
use coracle_api::quantity::Quantity;
use serde_json::Value;

/// None at all.
pub const ZERO: Quantity = Quantity::ZERO;

/// The quantity there; None if absent or not a quantity (the schema has refused that before).
pub fn quantity(at: &At<'_, '_>) -> Option<Quantity> {
    match at.value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// 0 or more; absent is fine.
pub fn non_negative(at: &At<'_, '_>, causes: &mut Causes) {
    if quantity(at).is_some_and(|quantity| quantity.is_negative()) {
        at.invalid_value(causes, shown(at), "must be greater than or equal to 0");
    }
}

/// More than 0; absent is fine.
pub fn positive(at: &At<'_, '_>, causes: &mut Causes) {
    if quantity(at).is_some_and(|quantity| quantity <= ZERO) {
        at.invalid_value(causes, shown(at), "must be greater than zero");
    }
}

/// 0 or more, and whole where the resource is counted.
pub fn whole_if_counted(at: &At<'_, '_>, name: &str, causes: &mut Causes) {
    non_negative(at, causes);
    if is_integer_resource(name) && quantity(at).is_some_and(|quantity| !quantity.is_whole()) {
        at.invalid_value(causes, shown(at), "must be an integer");
    }
}

/// Every quantity of a resource list, reported as `status.capacity.cpu`.
pub fn non_negative_list(list: &At<'_, '_>, causes: &mut Causes) {
    for (name, _) in list.entries() {
        whole_if_counted(&list.field(name), name, causes);
    }
}

/// A quantity as text, whatever form it came in.
pub fn shown(at: &At<'_, '_>) -> String {
    at.value.as_str().map_or_else(|| at.value.to_string(), str::to_string)
}

/// Things that come whole: pods, objects counted by quota, and extended resources.
pub fn is_integer_resource(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name)
}

/// A resource outside Kubernetes' own names, such as `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && coracle_api::names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// One of Kubernetes' own names: without a domain, or with its.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// What quota counts by these very names.
const QUOTA: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// A resource that quota knows without a domain in front.
pub fn is_quota_resource(name: &str) -> bool {
    QUOTA.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// A resource's name anywhere: qualified, or one that Kubernetes knows. True if it can be read at all.
pub fn standard_name(at: &At<'_, '_>, name: &str, causes: &mut Causes) -> bool {
    let wrong = coracle_api::names::qualified_name(name);
    for why in &wrong {
        at.invalid_value(causes, name, why);
    }
    if wrong.is_empty() && !name.contains('/') && !is_quota_resource(name) && name != "storage" {
        at.invalid_value(causes, name, "must be a standard resource type or fully qualified");
    }
    wrong.is_empty()
}

/// A resource list outside a container: known names, nothing below zero, reported as `podFixed[cpu]`.
pub fn resource_list(list: &At<'_, '_>, causes: &mut Causes) {
    for (name, at) in list.entries() {
        resource_name(&at, name, causes);
        non_negative(&at, causes);
    }
}

/// What containers may ask for without a domain in front.
const CONTAINER_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// The name of a resource that a container asks for.
pub fn resource_name(at: &At<'_, '_>, name: &str, causes: &mut Causes) {
    if !standard_name(at, name, causes) {
        return;
    }
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
            at.invalid_value(causes, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid_value(causes, name, "doesn't follow extended resource name standard");
    }
}
