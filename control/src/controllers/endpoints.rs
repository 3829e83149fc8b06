//! The older form of what is behind a Service: one Endpoints object, in which addresses that offer the same ports stand together.
//!
//! The subsets of a Service with a selector come from [`super::endpoint_slice`], which looks at the pods once for both forms; those that users write
//! are shown as slices by [`mirror`]. Rejected: upstream's order of subsets, by a hash of Go's memory layout; here ports and addresses are sorted by what they say.

pub mod mirror;

use super::{
    action::Action,
    endpoint_slice::{
        ENDPOINTS,
        endpoints::{Backend, Port, Ports, Service, Target},
        slices::{HEADLESS, Meta, replaced},
    },
};
use coracle_store::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Label: who writes the object.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The value of that label for Services with a selector.
pub const OURS: &str = "endpoint-controller";
/// Annotation: `truncated`, when there are more addresses than one object holds.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one object.
const MOST: usize = 1000;

/// A stored `core/v1 Endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    metadata: Meta,
    subsets: Vec<Subset>,
}

/// `core/v1 EndpointSubset`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Those that get traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Address>,
    /// Those that do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_ready_addresses: Vec<Address>,
    /// Offered by each of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "ports")]
    ports: Ports,
}

/// `core/v1 EndpointAddress`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Address {
    ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ref: Option<Value>,
}

fn ports<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Ports, D::Error> {
    Ok(Option::<Ports>::deserialize(from)?.unwrap_or_default())
}

/// Addresses by what tells them apart, each with whether it is ready.
type Offers = Vec<((String, String), bool)>;

impl Address {
    /// Addresses are the same if they are the same address of the same object.
    fn key(&self) -> (String, String) {
        let uid = self.target_ref.as_ref().and_then(|target| target["uid"].as_str()).unwrap_or_default();
        (self.ip.clone(), uid.to_owned())
    }
}

/// The canonical form of subsets: every address once, ports that the same addresses offer together. Where an address is said to be both, it is not ready.
pub fn pack(subsets: Vec<Subset>) -> Vec<Subset> {
    let mut addresses = BTreeMap::new();
    // A subset without ports keeps its addresses, under a port that is none.
    let mut offered: BTreeMap<Option<Port>, BTreeMap<(String, String), bool>> = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<Option<Port>> = match subset.ports.is_empty() {
            true => vec![None],
            false => subset.ports.into_iter().map(Some).collect(),
        };
        let ready = subset.addresses.into_iter().map(|address| (address, true));
        for (address, ready) in ready.chain(subset.not_ready_addresses.into_iter().map(|address| (address, false))) {
            let key = address.key();
            for port in &ports {
                let is = offered.entry(port.clone()).or_default().entry(key.clone()).or_insert(ready);
                *is &= ready;
            }
            addresses.entry(key).or_insert(address);
        }
    }
    let mut together: BTreeMap<Offers, Ports> = BTreeMap::new();
    for (port, at) in offered {
        together.entry(at.into_iter().collect()).or_default().extend(port);
    }
    let mut packed: Vec<Subset> = Vec::new();
    for (at, ports) in together {
        let (ready, other): (Vec<_>, Vec<_>) = at.into_iter().partition(|(_, ready)| *ready);
        let of = |keys: Vec<((String, String), bool)>| keys.iter().filter_map(|(key, _)| addresses.get(key).cloned()).collect();
        packed.push(Subset { addresses: of(ready), not_ready_addresses: of(other), ports });
    }
    packed.sort_by(|a, b| a.ports.cmp(&b.ports));
    packed
}

/// Leaves at most [`MOST`] addresses, those that are ready first, of each subset its share; whether any was left out.
fn truncate(subsets: &mut [Subset]) -> bool {
    let ready: usize = subsets.iter().map(|subset| subset.addresses.len()).sum();
    let other: usize = subsets.iter().map(|subset| subset.not_ready_addresses.len()).sum();
    if ready + other <= MOST {
        return false;
    }
    let (room, of, cut_ready) = if ready > MOST { (MOST, ready, true) } else { (MOST - ready, other, false) };
    let mut left = room;
    for subset in subsets {
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (list.len() * room).div_ceil(of.max(1)).min(left);
        list.truncate(share);
        left -= list.len();
        if cut_ready {
            subset.not_ready_addresses.clear();
        }
    }
    true
}

fn address(backend: &Backend) -> Address {
    let Target { kind, namespace, name, uid } = &backend.target_ref;
    Address {
        ip: backend.addresses.first().cloned().unwrap_or_default(),
        hostname: backend.hostname.clone().unwrap_or_default(),
        node_name: backend.node_name.clone(),
        target_ref: Some(json!({"kind": kind, "namespace": namespace, "name": name, "uid": uid})),
    }
}

/// What the Service's pods are in this form: those of its first address family that are not being deleted (unless it wants those as well).
fn subsets(service: &Service<'_>, groups: &BTreeMap<(&'static str, Ports), Vec<Backend>>) -> Vec<Subset> {
    let first = service.families().first().copied().unwrap_or("IPv4");
    let publish = service.spec.publish_not_ready_addresses;
    let mut subsets = Vec::new();
    for ((family, ports), backends) in groups {
        // Only a headless Service may be without ports; of others, pods that lack the port by its name are none of it.
        let bare = ports.is_empty() && !(service.spec.cluster_ip == "None" && service.spec.ports.is_empty());
        if *family != first || bare {
            continue;
        }
        let mut subset = Subset { ports: ports.clone(), ..Subset::default() };
        for backend in backends.iter().filter(|backend| publish || !backend.conditions.terminating) {
            let list = if backend.conditions.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.push(address(backend));
        }
        subsets.push(subset);
    }
    subsets.retain(|subset| !(subset.addresses.is_empty() && subset.not_ready_addresses.is_empty()));
    pack(subsets)
}

/// The write that makes the Service's Endpoints hold its pods, if there is one to do.
pub fn plan(service: &Service<'_>, groups: &BTreeMap<(&'static str, Ports), Vec<Backend>>, existing: Option<&Endpoints>) -> Vec<Action> {
    let mut subsets = subsets(service, groups);
    let truncated = truncate(&mut subsets);
    let mut labels: BTreeMap<String, String> = service.metadata.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    labels.remove(HEADLESS);
    if service.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    let (namespace, name) = (service.metadata.namespace.to_string(), service.metadata.name.to_string());
    let Some(Endpoints { metadata, subsets: have }) = existing else {
        let annotations = if truncated { json!({OVER_CAPACITY: "truncated"}) } else { json!({}) };
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels, "annotations": annotations});
        let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets});
        return vec![Action::Create { resource: ENDPOINTS, object }];
    };
    let marked = metadata.annotations.contains_key(OVER_CAPACITY);
    if metadata.deletion_timestamp.is_some() || (*have == subsets && metadata.labels == labels && marked == truncated) {
        return Vec::new();
    }
    let annotations = json!({OVER_CAPACITY: truncated.then_some("truncated")});
    let metadata = json!({
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "labels": replaced(&metadata.labels, &labels), "annotations": annotations,
    });
    let patch = json!({"metadata": metadata, "subsets": if subsets.is_empty() { Value::Null } else { json!(subsets) }});
    vec![Action::Patch { key: Key::new(ENDPOINTS, namespace, name), subresource: "", patch }]
}

#[cfg(test)]
mod tests;
