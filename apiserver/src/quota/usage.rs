//! What one object uses.

use super::{
    amounts::{self, Amounts},
    scope,
};
use crate::resources::{cells::list, rules::quantities::is_native, volume};
use coracle_api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Ids of resources that quotas bound by other names than `count/…`.
pub const NAMED: [&str; 7] = ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];

const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Resource id of claims of devices.
pub const DEVICE_CLAIMS: &str = "resourceclaims.resource.k8s.io";
/// What follows the name of a device class.
pub const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// Most devices of one claim, which is what one that asks for all of them counts for.
const MOST_DEVICES: i64 = 32;

/// Whether what an object uses takes a look at it.
pub fn looks_inside(id: &str) -> bool {
    matches!(id, "persistentvolumeclaims" | "pods" | "services" | DEVICE_CLAIMS)
}

/// Whether an amount of a quota is about the objects of a resource.
pub fn concerns(id: &str, name: &str) -> bool {
    if super::IGNORED.contains(&id) {
        return false;
    }
    if let Some(counted) = name.strip_prefix("count/") {
        return counted == id;
    }
    match id {
        "pods" => {
            let base = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
            name == "pods"
                || matches!(base, "cpu" | "memory" | "ephemeral-storage")
                || (base.starts_with("hugepages-") && !name.starts_with("limits."))
                || (name.starts_with("requests.") && !is_native(name))
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            let what = name.split_once(BY_CLASS).map_or(name, |(_, what)| what);
            matches!(what, "persistentvolumeclaims" | "requests.storage")
        }
        "configmaps" | "replicationcontrollers" | "resourcequotas" | "secrets" => name == id,
        DEVICE_CLAIMS => name.ends_with(DEVICES),
        _ => false,
    }
}

/// What an object uses, under every name that a quota may have for it.
pub fn of(id: &str, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([(format!("count/{id}"), one)]);
    match id {
        "pods" if is_over(object, now) => {}
        "pods" => used.extend(pod(object)),
        "services" => used.extend(service(object)),
        "persistentvolumeclaims" => used.extend(claim(object)),
        DEVICE_CLAIMS => used.extend(devices(object)),
        id if NAMED.contains(&id) => drop(used.insert(id.into(), one)),
        _ => {}
    }
    used
}

/// Whether a pod uses nothing any more: it ended, or its node had its time to end it.
pub fn is_over(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return true;
    }
    end_of(pod).is_some_and(|end| now > end)
}

/// When a pod that is deleted uses nothing any more, whatever its node says: twice its grace after the delete.
pub fn end_of(pod: &Value) -> Option<Timestamp> {
    let metadata = &pod["metadata"];
    let deleted: Timestamp = metadata["deletionTimestamp"].as_str()?.parse().ok()?;
    deleted.checked_add(SignedDuration::from_secs(metadata["deletionGracePeriodSeconds"].as_i64()?)).ok()
}

fn pod(pod: &Value) -> Amounts {
    let spec = &pod["spec"];
    let (mut requests, mut limits) = (amounts::of_pod(spec, "requests"), amounts::of_pod(spec, "limits"));
    let overhead = amounts::of(&spec["overhead"]);
    amounts::add(&mut requests, &overhead);
    let limited = overhead.into_iter().filter(|(name, _)| limits.contains_key(name)).collect();
    amounts::add(&mut limits, &limited);
    let mut used = under_names(&requests, &limits);
    used.insert("pods".into(), Quantity::from_units(1));
    used
}

/// Amounts of a pod or container by the names that quotas have for them.
fn under_names(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        let page = name.starts_with("hugepages-");
        if page || matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(name.clone(), *amount);
        }
        if page || matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || !is_native(name) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

/// What a quota that bounds these wants every container of a pod to say.
///
/// # Errors
/// `must specify limits.cpu for: a,b; …`
pub fn said(names: &[&str], pod: &Value) -> Result<(), String> {
    const WANTED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let spec = &pod["spec"];
    let whole = ["requests", "limits"].iter().any(|field| spec["resources"][*field].as_object().is_some_and(|list| !list.is_empty()));
    if whole {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in list(&spec["containers"]).iter().chain(list(&spec["initContainers"])) {
        let resources = &container["resources"];
        let has = under_names(&amounts::of(&resources["requests"]), &amounts::of(&resources["limits"]));
        for name in WANTED.iter().filter(|name| names.contains(name) && !has.contains_key(**name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let parts = missing.iter().map(|(name, containers)| format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(",")));
    Err(format!("must specify {}", parts.collect::<Vec<_>>().join("; ")))
}

fn service(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = list(&spec["ports"]);
    let count = |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    let (nodes, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            (ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port != 0)).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    [("services", count(1)), ("services.nodeports", count(nodes)), ("services.loadbalancers", count(balancers))].map(|(n, q)| (n.into(), q)).into()
}

fn claim(claim: &Value) -> Amounts {
    let class = volume::class_of(claim);
    let mut used = Amounts::from([("persistentvolumeclaims".to_string(), Quantity::from_units(1))]);
    let asked = amounts::of(&claim["spec"]["resources"]["requests"]).get("storage").copied();
    // What a failed expansion holds back is still held.
    let held = amounts::of(&claim["status"]["allocatedResources"]).get("storage").copied();
    if let Some(asked) = asked {
        let most = held.filter(|held| *held > asked).unwrap_or(asked);
        used.insert("requests.storage".into(), whole(most));
    }
    if !class.is_empty() {
        let by_class: Vec<_> = used.iter().map(|(name, amount)| (format!("{class}{BY_CLASS}{name}"), *amount)).collect();
        used.extend(by_class);
    }
    used
}

/// The most devices of each class that a claim may be given: of alternatives each class counts as the one that wants most of it.
fn devices(claim: &Value) -> Amounts {
    let mut used = Amounts::new();
    for request in list(&claim["spec"]["devices"]["requests"]) {
        let mut of_request = Amounts::new();
        let exactly = Some(&request["exactly"]).filter(|exactly| !exactly.is_null());
        for option in list(&request["firstAvailable"]).iter().chain(exactly) {
            let count = match option["allocationMode"].as_str() {
                Some("ExactCount") => option["count"].as_i64().unwrap_or(0),
                Some("All") => MOST_DEVICES,
                _ => 0,
            };
            let class = option["deviceClassName"].as_str().unwrap_or_default();
            amounts::raise(&mut of_request, &Amounts::from([(format!("{class}{DEVICES}"), Quantity::from_units(count))]));
        }
        amounts::add(&mut used, &of_request);
    }
    used
}

/// Rounded up to whole units.
fn whole(amount: Quantity) -> Quantity {
    if amount.is_whole() { amount } else { Quantity::from_bytes(amount.units()) }
}

/// Whether a write of an object changes what it uses: creates do, and of updates those that can take more.
pub fn handles(id: &str, subresource: &str, old: Option<&Value>, new: &Value) -> bool {
    match (id, subresource, old) {
        ("pods", "", Some(old)) => scope::is_terminating(old) != scope::is_terminating(new),
        ("pods", "resize", Some(_)) | ("services" | "persistentvolumeclaims", "", Some(_)) | (_, "", None) => true,
        ("persistentvolumeclaims", "status", Some(old)) => {
            let allocated = |claim: &Value| amounts::of(&claim["status"]["allocatedResources"]).get("storage").copied();
            allocated(old) != allocated(new) || scope::attribute_classes(old) != scope::attribute_classes(new)
        }
        _ => false,
    }
}
