//! Rules of quantities and of resource lists.

use super::{At, Causes};
use coracle_api::quantity::Quantity;
use serde_json::Value;

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

/// Every quantity of a resource list, reported as `status.capacity.cpu`.
pub fn non_negative_list(list: &At<'_, '_>, causes: &mut Causes) {
    for (name, _) in list.entries() {
        let at = list.field(name);
        non_negative(&at, causes);
        if is_integer_resource(name) && quantity(&at).is_some_and(|quantity| !quantity.is_whole()) {
            at.invalid_value(causes, shown(&at), "must be an integer");
        }
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
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
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
    let before = causes.len();
    for why in coracle_api::names::qualified_name(name) {
        at.invalid_value(causes, name, &why);
    }
    if causes.len() > before {
        return;
    }
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
            at.invalid_value(causes, name, "must be a standard resource for containers");
        }
    } else if !is_extended(name) {
        at.invalid_value(causes, name, "doesn't follow extended resource name standard");
    }
}
