//! How endpoints are spread over slices: at most a hundred each, and as few slices changed as possible.

use super::{
    SLICES,
    endpoints::{Backend, Port, Ports, Service},
};
use crate::controllers::action::Action;
use coracle_apiserver::view::{Owner, Text};
use coracle_store::Key;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Label: the Service a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who writes the slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of that label for this controller.
pub const OURS: &str = "endpointslice-controller.k8s.io";
/// Label: its Service has no address of its own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints in a slice.
const MOST: usize = 100;

/// A slice as it is stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Slice {
    metadata: Meta,
    address_type: String,
    endpoints: Vec<Backend>,
    ports: Vec<Port>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub deletion_timestamp: Option<String>,
}

/// Labels of every slice of the Service: its own, and ours.
fn labels(service: &Service<'_>) -> BTreeMap<String, String> {
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let own = service.metadata.labels.iter().filter(|(key, _)| !reserved.contains(&&***key));
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.to_string(), v.to_string())).collect();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.to_string());
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    if service.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// The writes that turn the existing slices into ones that hold these endpoints. An endpoint stays in its slice; new ones fill free room.
/// A Service without any endpoint keeps one empty slice per address family, so that a reader can tell "none" from "not yet".
pub fn plan(service: &Service<'_>, mut groups: BTreeMap<(&'static str, Ports), Vec<Backend>>, existing: Vec<Slice>) -> Vec<Action> {
    let labels = labels(service);
    for family in service.families() {
        if !groups.keys().any(|(f, _)| *f == family) {
            groups.insert((family, Ports::new()), Vec::new());
        }
    }
    let namespace = service.metadata.namespace.to_string();
    let (mut creations, mut updates, mut deletions) = (Vec::new(), Vec::new(), Vec::new());
    let mut left: Vec<Slice> = existing.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
    for ((family, ports), backends) in groups {
        let (ours, others): (Vec<Slice>, Vec<Slice>) = left.into_iter().partition(|s| s.address_type == family && s.ports == ports);
        left = others;
        let mut wanted: HashMap<String, Backend> = HashMap::with_capacity(backends.len());
        let mut order = Vec::with_capacity(backends.len());
        for backend in backends {
            order.push(backend.target_ref.uid.clone());
            wanted.insert(backend.target_ref.uid.clone(), backend);
        }
        let mut kept: Vec<(Slice, Vec<Backend>)> = Vec::new();
        for slice in ours {
            let backends = slice.endpoints.iter().filter_map(|old| wanted.remove(&old.target_ref.uid)).collect();
            kept.push((slice, backends));
        }
        let mut fresh = order.into_iter().filter_map(|uid| wanted.remove(&uid)).peekable();
        // The fullest first: slices that are nearly empty run dry in time.
        kept.sort_by_key(|(slice, backends)| (std::cmp::Reverse(backends.len()), slice.metadata.name.clone()));
        for (_, backends) in &mut kept {
            while backends.len() < MOST
                && let Some(backend) = fresh.next()
            {
                backends.push(backend);
            }
        }
        let only = kept.iter().all(|(_, backends)| backends.is_empty()) && fresh.peek().is_none();
        let mut empty_kept = false;
        for (slice, backends) in kept {
            let key = Key::new(SLICES, &*namespace, &*slice.metadata.name);
            if backends.is_empty() && (empty_kept || !only) {
                deletions.push(Action::Delete { key, uid: slice.metadata.uid, propagation: None, grace: None });
                continue;
            }
            empty_kept |= backends.is_empty();
            if backends != slice.endpoints || labels != slice.metadata.labels {
                updates.push(Action::Patch { key, subresource: "", patch: update(&slice, &backends, &labels) });
            }
        }
        let mut fresh: Vec<Backend> = fresh.collect();
        while !fresh.is_empty() || (only && !empty_kept) {
            let rest = fresh.split_off(fresh.len().min(MOST));
            creations.push(Action::Create { resource: SLICES, object: create(service, family, &ports, &fresh, &labels) });
            fresh = rest;
            empty_kept = true;
        }
    }
    deletions.extend(left.into_iter().map(|slice| Action::Delete {
        key: Key::new(SLICES, &*namespace, &*slice.metadata.name),
        uid: slice.metadata.uid,
        propagation: None,
        grace: None,
    }));
    // What is added comes before what goes, so that no reader sees a Service without endpoints in between.
    creations.into_iter().chain(updates).chain(deletions).collect()
}

/// The merge patch that turns one map of labels or annotations into another.
pub fn replaced(is: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Value {
    let mut patched = json!(wanted);
    for gone in is.keys().filter(|key| !wanted.contains_key(*key)) {
        patched[gone] = Value::Null;
    }
    patched
}

fn update(slice: &Slice, backends: &[Backend], labels: &BTreeMap<String, String>) -> Value {
    json!({
        "metadata": { "uid": slice.metadata.uid, "resourceVersion": slice.metadata.resource_version, "labels": replaced(&slice.metadata.labels, labels) },
        "endpoints": backends,
    })
}

fn create(service: &Service<'_>, family: &str, ports: &Ports, backends: &[Backend], labels: &BTreeMap<String, String>) -> Value {
    let owner = Owner {
        api_version: Text::from("v1"),
        kind: Text::from("Service"),
        name: service.metadata.name.clone(),
        uid: service.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", service.metadata.name), "namespace": service.metadata.namespace, "labels": labels,
            "ownerReferences": [owner.to_json()],
        },
        "addressType": family, "ports": ports, "endpoints": backends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::endpoint_slice::endpoints::{State, Target};

    fn service() -> Service<'static> {
        serde_json::from_str(r#"{"metadata":{"name":"s","namespace":"n","uid":"su","labels":{"app":"a"}}}"#).expect("service")
    }
    fn ports() -> Ports {
        vec![Port { port: 80, protocol: "TCP".into(), ..Port::default() }]
    }
    fn backend(name: usize, ready: bool) -> Backend {
        Backend {
            addresses: vec![format!("10.0.0.{name}")],
            conditions: State { ready, serving: ready, terminating: false },
            target_ref: Target { kind: "Pod".into(), uid: format!("u{name}"), ..Target::default() },
            ..Backend::default()
        }
    }
    fn wanted(backends: Vec<Backend>) -> BTreeMap<(&'static str, Ports), Vec<Backend>> {
        if backends.is_empty() { BTreeMap::new() } else { [(("IPv4", ports()), backends)].into() }
    }
    /// Carries the plan out on a list of slices.
    fn apply(slices: &mut Vec<Slice>, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Create { object, .. } => {
                    let mut slice: Slice = serde_json::from_value(object.clone()).expect("slice");
                    slice.metadata.name = format!("s-{}", slices.len());
                    slices.push(slice);
                }
                Action::Patch { key, patch, .. } => {
                    let slice = slices.iter_mut().find(|s| *s.metadata.name == *key.name).expect("slice");
                    slice.endpoints = serde_json::from_value(patch["endpoints"].clone()).expect("endpoints");
                }
                Action::Delete { key, .. } => slices.retain(|s| *s.metadata.name != *key.name),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    #[test]
    fn slices_fill_change_little_and_run_dry() {
        let service = service();
        let mut slices = Vec::new();
        let first = plan(&service, wanted((0..250).map(|i| backend(i, true)).collect()), Vec::new());
        apply(&mut slices, &first);
        assert_eq!(slices.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(plan(&service, wanted((0..250).map(|i| backend(i, true)).collect()), slices.clone()).is_empty(), "nothing changed");

        let changed: Vec<Backend> = (0..250).map(|i| backend(i, i != 120)).chain([backend(300, true)]).collect();
        let second = plan(&service, wanted(changed), slices.clone());
        assert_eq!(second.len(), 2, "one slice for the changed endpoint, one with room for the new one: {second:?}");
        apply(&mut slices, &second);
        assert_eq!(slices.iter().map(|s| s.endpoints.len()).sum::<usize>(), 251);

        let third = plan(&service, wanted((0..10).map(|i| backend(i, true)).collect()), slices.clone());
        apply(&mut slices, &third);
        assert_eq!(slices.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_service_without_pods_keeps_one_empty_slice() {
        let service = service();
        let mut slices = Vec::new();
        apply(&mut slices, &plan(&service, wanted(Vec::new()), Vec::new()));
        assert_eq!(slices.len(), 1);
        assert!(plan(&service, wanted(Vec::new()), slices.clone()).is_empty());
        let grown = plan(&service, wanted(vec![backend(1, true)]), slices.clone());
        assert!(matches!(grown.as_slice(), [Action::Create { .. }, Action::Delete { .. }]), "{grown:?}");
        apply(&mut slices, &grown);
        assert_eq!((slices.len(), slices[0].metadata.labels[MANAGED_BY].as_str()), (1, OURS));
        assert_eq!(slices[0].metadata.labels["app"], "a");
    }
}
