//! The node authorizer: what `system:node:NAME` may do, and nothing else; what stands in bodies is admission's ([`crate::admission`], `NodeRestriction`).
//!
//! Instead of upstream's graph of every pod and what it names, the right is looked up when it is asked: nodes read through their
//! feed, which is built from the same relation, so a GET of a secret is the rare case and may cost a walk over one namespace's pods.

mod slice;

pub use slice::names;

use super::{Attributes, Decision};
use crate::view::{parse, volume::Volume};
use coracle_store::{Key, Object, Snapshot, Store};
use serde::Deserialize;
use serde_json::Value;

/// The decision for a node; `None` leaves it to RBAC (which has nothing for nodes but what somebody has bound on purpose).
pub fn authorize(node: &str, a: &Attributes<'_>, store: &Store) -> Option<Decision> {
    let allowed = match (a.group, a.resource, a.subresource) {
        _ if !a.path.is_empty() => return None,
        ("", "nodes", "") => match a.verb {
            "create" => true,
            "get" | "list" | "watch" | "update" | "patch" => a.name == node,
            _ => false,
        },
        ("", "nodes", "status") => a.name == node && matches!(a.verb, "get" | "update" | "patch"),
        ("", "pods", "") => match a.verb {
            "list" | "watch" => a.field("spec.nodeName") == Some(node),
            // What it may create is in the body.
            "create" => true,
            "get" | "delete" => !a.name.is_empty() && runs(&store.snapshot(), a.namespace, a.name, node),
            _ => false,
        },
        ("", "pods", "status") => matches!(a.verb, "get" | "update" | "patch") && runs(&store.snapshot(), a.namespace, a.name, node),
        ("", "pods", "eviction") => a.verb == "create" && runs(&store.snapshot(), a.namespace, a.name, node),
        ("", "secrets" | "configmaps", "") => {
            let reads = matches!(a.verb, "get" | "list" | "watch");
            reads && !a.name.is_empty() && related(&store.snapshot(), node, a.resource, a.namespace, a.name)
        }
        ("", "serviceaccounts", "") => a.verb == "get" && related(&store.snapshot(), node, a.resource, a.namespace, a.name),
        ("", "serviceaccounts", "token") => a.verb == "create" && related(&store.snapshot(), node, a.resource, a.namespace, a.name),
        ("", "persistentvolumeclaims", "") => a.verb == "get" && claims(&store.snapshot(), node, a.namespace, &|claim| claim == a.name),
        ("", "persistentvolumeclaims", "status") => {
            matches!(a.verb, "get" | "update" | "patch") && claims(&store.snapshot(), node, a.namespace, &|claim| claim == a.name)
        }
        ("", "persistentvolumes", "") => a.verb == "get" && !a.name.is_empty() && uses_volume(&store.snapshot(), node, a.name),
        ("storage.k8s.io", "csidrivers", "") => matches!(a.verb, "get" | "list" | "watch"),
        ("storage.k8s.io", "csinodes", "") => a.verb == "create" || (a.name == node && matches!(a.verb, "get" | "update" | "patch" | "delete")),
        ("storage.k8s.io", "volumeattachments", "") => {
            a.verb == "get" && text_of(&store.snapshot(), "volumeattachments.storage.k8s.io", a.name, "/spec/nodeName").as_deref() == Some(node)
        }
        ("resource.k8s.io", "resourceslices", "") => match a.verb {
            "create" => true,
            "list" | "watch" | "deletecollection" => a.field("spec.nodeName") == Some(node),
            "get" | "update" | "patch" | "delete" => {
                text_of(&store.snapshot(), "resourceslices.resource.k8s.io", a.name, "/spec/nodeName").as_deref() == Some(node)
            }
            _ => false,
        },
        ("certificates.k8s.io", "certificatesigningrequests", "") => matches!(a.verb, "create" | "get" | "list" | "watch"),
        ("" | "events.k8s.io", "events", "") => matches!(a.verb, "create" | "update" | "patch"),
        ("coordination.k8s.io", "leases", "") => {
            a.namespace == "kube-node-lease" && (a.verb == "create" || (a.name == node && matches!(a.verb, "get" | "update" | "patch" | "delete")))
        }
        ("", "services", "") | ("discovery.k8s.io", "endpointslices", "") | ("node.k8s.io", "runtimeclasses", "") => {
            matches!(a.verb, "get" | "list" | "watch")
        }
        ("authentication.k8s.io", "tokenreviews", "") => a.verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => a.verb == "create",
        _ => return None,
    };
    allowed.then(|| Decision::Allow { reason: format!("node authorizer: {node}") })
}

/// A pod that is not there may be asked for: the answer is 404, by which a node learns that a pod of its own is gone.
fn runs(snapshot: &Snapshot, namespace: &str, pod: &str, node: &str) -> bool {
    snapshot.get(&Key::new("pods", namespace, pod)).is_none_or(|pod| on(&pod, node))
}

/// Is the pod bound to this node?
pub fn on(pod: &Object, node: &str) -> bool {
    pod.meta.fields.iter().any(|(path, value)| &**path == "spec.nodeName" && &**value == node)
}

fn related(snapshot: &Snapshot, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    snapshot.range("pods", Some(namespace), None).filter(|pod| on(pod, node)).any(|pod| {
        let mut found = false;
        names(&pod.json, &mut |r, n| found |= r == resource && n == name);
        found
    })
}

/// Whether a pod on the node uses a claim of which this is true.
fn claims(snapshot: &Snapshot, node: &str, namespace: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Pod<'a> {
        #[serde(borrow)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Spec<'a> {
        #[serde(borrow)]
        volumes: Vec<Volume<'a>>,
    }
    let of = |pod: &Pod<'_>, name: &str| pod.spec.volumes.iter().filter_map(|volume| volume.claim(name)).any(|(claim, _)| wanted(&claim));
    let mut pods = snapshot.range("pods", Some(namespace), None).filter(|pod| on(pod, node));
    pods.any(|pod| parse::<Pod<'_>>(pod).is_ok_and(|view| of(&view, &pod.key.name)))
}

/// Whether a pod on the node uses a claim that is bound to this volume.
fn uses_volume(snapshot: &Snapshot, node: &str, volume: &str) -> bool {
    let Some(object) = snapshot.get(&Key::new("persistentvolumes", "", volume)) else { return false };
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Ok(object) = serde_json::from_slice::<Value>(&object.json) else { return false };
    let (namespace, name) = (text(&object, "/spec/claimRef/namespace"), text(&object, "/spec/claimRef/name"));
    let bound = snapshot.get(&Key::new("persistentvolumeclaims", namespace.as_str(), name.as_str()));
    let bound = bound.and_then(|claim| serde_json::from_slice::<Value>(&claim.json).ok());
    bound.is_some_and(|claim| text(&claim, "/spec/volumeName") == volume) && claims(snapshot, node, &namespace, &|claim| claim == name)
}

/// A text of a cluster-scoped object, if it is there.
fn text_of(snapshot: &Snapshot, resource: &str, name: &str, path: &str) -> Option<String> {
    let object = snapshot.get(&Key::new(resource, "", name))?;
    serde_json::from_slice::<Value>(&object.json).ok()?.pointer(path)?.as_str().map(str::to_owned)
}
