//! Admission `NodeRestriction`: the part of a node's limits that stands in the body of what it writes.

mod mirror;

use super::{Plugin, lookup};
use crate::{auth::User, resources::Cx};
use coracle_api::status::Status;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The plugin.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        match new {
            Some(new) => {
                own(cx.user(), &cx.row().plural, cx.subresource(), new)?;
                if let (Some(node), None, true) = (cx.user().node_name(), old, lookup::is_pod(cx)) {
                    let stored = lookup::object(cx, "nodes", "", node)?;
                    let uid = stored.as_ref().and_then(|node| node["metadata"]["uid"].as_str());
                    mirror::check(node, uid, new).map_err(|why| lookup::forbidden(cx, new, &why))?;
                }
                marks(cx.user(), &cx.row().plural, old, new)
            }
            // deletes name their object, so authorization has seen all of it
            None => Ok(()),
        }
    }
}

/// What authorization cannot see, because it is in the body: a node writes only its own Node and lease, and events and pod states
/// only as itself. For create and update (with the object as it would be stored); a no-op for users that are no nodes.
///
/// # Errors
/// 403 with upstream's words.
fn own(user: &User, resource: &str, subresource: &str, object: &Value) -> Result<(), Status> {
    let Some(node) = user.node_name() else { return Ok(()) };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    match (resource, subresource) {
        ("nodes", _) if name != node => Err(Status::forbidden("", "nodes", name, &format!("node {node:?} is not allowed to modify node {name:?}"))),
        ("leases", _) if name != node => {
            let why = "can only access node lease with the same name as the requesting node";
            Err(Status::forbidden("coordination.k8s.io", "leases", name, why))
        }
        ("csinodes", _) if name != node => {
            Err(Status::forbidden("storage.k8s.io", "csinodes", name, "can only access CSINode with the same name as the requesting node"))
        }
        ("resourceslices", _) if object.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) => {
            let why = "can only create or change ResourceSlice with the same NodeName as the requesting node";
            Err(Status::forbidden("resource.k8s.io", "resourceslices", name, why))
        }
        ("pods", "status") => {
            let bound = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            match bound == node {
                true => Ok(()),
                false => Err(Status::forbidden(
                    "",
                    "pods",
                    name,
                    &format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
                )),
            }
        }
        _ => Ok(()),
    }
}

/// Labels that only administrators set: they keep pods away from nodes that could otherwise claim anything.
const RESERVED: &str = "node-restriction.kubernetes.io/";

/// By what pods are drawn to a node or kept away from it is not the node's to change: taints once it is registered, reserved labels ever.
fn marks(user: &User, resource: &str, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let Some(node) = user.node_name() else { return Ok(()) };
    if let ("pods", Some(old)) = (resource, old) {
        // Labels draw traffic and policies to a pod.
        return match old.pointer("/metadata/labels") == new.pointer("/metadata/labels") {
            true => Ok(()),
            false => Err(Status::forbidden(
                "",
                "pods",
                new["metadata"]["name"].as_str().unwrap_or_default(),
                &format!("node {node:?} is not allowed to modify labels"),
            )),
        };
    }
    if resource != "nodes" {
        return Ok(());
    }
    let refuse = |what: &str| Err(Status::forbidden("", "nodes", node, &format!("node {node:?} is not allowed to modify {what}")));
    if old.is_some_and(|old| old["spec"]["taints"] != new["spec"]["taints"]) {
        return refuse("taints");
    }
    if let Some(old) = old
        && old["metadata"]["ownerReferences"] != new["metadata"]["ownerReferences"]
    {
        return refuse("ownerReferences");
    }
    let labels = |object: Option<&Value>| -> BTreeMap<String, Value> {
        let labels = object.and_then(|object| object.pointer("/metadata/labels")).and_then(Value::as_object).into_iter().flatten();
        labels.filter(|(key, _)| reserved(key) || foreign(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (before, now) = (labels(old), labels(Some(new)));
    let changed: BTreeSet<&String> = before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).collect();
    let changed: Vec<&str> = changed.into_iter().map(String::as_str).collect();
    match (changed.join(", "), old) {
        (none, _) if none.is_empty() => Ok(()),
        (keys, Some(_)) => refuse(&format!("labels: {keys}")),
        (keys, None) => {
            let why = format!("node {node:?} is not allowed to set the following labels: {keys}");
            Err(Status::forbidden("", "nodes", node, &why))
        }
    }
}

/// Labels of Kubernetes' own domains that nodes do set.
const NODE_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

/// Whether a label is of Kubernetes' own domains, and none that a node sets.
fn foreign(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let within = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    kubernetes && !within("kubelet.kubernetes.io") && !within("node.kubernetes.io") && !NODE_LABELS.contains(&key)
}

/// The prefix itself and every domain below it.
fn reserved(key: &str) -> bool {
    key.starts_with(RESERVED) || key.split_once('/').is_some_and(|(domain, _)| domain.ends_with(".node-restriction.kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_writes_only_its_own() {
        let (node, jane) = (User::node("n1"), User { name: "jane".into(), ..User::default() });
        let named = |n: &str| serde_json::json!({"metadata": {"name": n}, "spec": {"nodeName": n}});
        assert!(own(&node, "nodes", "", &named("n1")).is_ok());
        assert_eq!(own(&node, "nodes", "status", &named("n2")).unwrap_err().code, 403);
        assert_eq!(own(&node, "leases", "", &named("n2")).unwrap_err().code, 403);
        assert!(own(&node, "pods", "status", &named("n1")).is_ok());
        assert_eq!(own(&node, "pods", "status", &named("n2")).unwrap_err().code, 403);
        assert!(own(&jane, "nodes", "", &named("n2")).is_ok());
    }

    #[test]
    fn a_node_does_not_relabel_pods() {
        let node = User::node("n1");
        let pod = |label: &str| json!({"metadata": {"name": "p", "labels": {"app": label}}, "status": {"phase": label}});
        assert!(marks(&node, "pods", Some(&pod("a")), &pod("a")).is_ok());
        assert!(marks(&node, "pods", Some(&pod("a")), &pod("b")).is_err());
        assert!(marks(&User::masters(), "pods", Some(&pod("a")), &pod("b")).is_ok());
    }

    #[test]
    fn a_node_does_not_choose_its_pods() {
        let node = User::node("n1");
        let old = json!({"metadata": {"name": "n1", "labels": {"a": "b", "node-restriction.kubernetes.io/fips": "true"}}, "spec": {"taints": [{"key": "t"}]}});
        let change = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            marks(&node, "nodes", Some(&old), &new).err().map(|status| status.message)
        };
        assert_eq!(change(&|new| new["metadata"]["labels"]["a"] = json!("c")), None);
        assert_eq!(change(&|new| new["status"] = json!({"phase": "x"})), None);
        assert!(change(&|new| new["spec"]["taints"] = json!([])).is_some_and(|why| why.contains("taints")));
        for key in ["node-restriction.kubernetes.io/fips", "node-restriction.kubernetes.io/x", "sub.node-restriction.kubernetes.io/x"] {
            assert!(change(&|new| new["metadata"]["labels"][key] = json!("no")).is_some_and(|why| why.contains(key)), "{key}");
        }
        assert!(change(&|new| new["metadata"]["labels"] = json!({"a": "b"})).is_some());
        assert!(marks(&node, "nodes", None, &json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})).is_err());
        for (key, refused) in [
            ("example.com/x", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/x", false),
            ("sub.kubelet.kubernetes.io/x", false),
            ("kubernetes.io/x", true),
            ("x.k8s.io/y", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("notkubernetes.io/x", false),
        ] {
            assert_eq!(change(&|new| new["metadata"]["labels"][key] = json!("v")).is_some(), refused, "{key}");
        }
        assert!(change(&|new| new["metadata"]["ownerReferences"] = json!([{"uid": "u"}])).is_some_and(|why| why.contains("ownerReferences")));
        let set = marks(&node, "nodes", None, &json!({"metadata": {"labels": {"kubernetes.io/x": "y"}}})).expect_err("refused");
        assert!(set.message.ends_with("node \"n1\" is not allowed to set the following labels: kubernetes.io/x"), "{}", set.message);
        assert!(marks(&node, "nodes", None, &json!({"spec": {"taints": [{"key": "t"}]}})).is_ok(), "it may register with taints");
        let admin = User::masters();
        assert!(marks(&admin, "nodes", Some(&old), &json!({})).is_ok());
    }
}
