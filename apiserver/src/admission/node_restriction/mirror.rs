//! The only pods that a node creates: mirrors of those that files on it ask for.

use crate::{auth::node::names, resources::pod::annotations::MIRROR};
use serde_json::Value;

/// What upstream's NodeRestriction asks of a pod that a node creates; `uid` is the node's, if it is registered.
///
/// # Errors
/// Why it is refused, in upstream's words.
pub fn check(node: &str, uid: Option<&str>, pod: &Value) -> Result<(), String> {
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
        [owner] => owner,
        _ => return Err(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    if uid.is_none_or(|uid| owner["uid"] != uid) {
        return Err(format!("node {node} UID mismatch: expected {} got {}", owner["uid"].as_str().unwrap_or_default(), uid.unwrap_or_default()));
    }
    foreign(pod).map_or(Ok(()), |what| Err(format!("node {node:?} can not create pods that reference {what}")))
}

/// Other objects that the pod names: by them a node would get at what is not for it.
fn foreign(pod: &Value) -> Option<String> {
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts".into());
    }
    let mut found = None;
    names(pod.to_string().as_bytes(), &mut |resource, _| {
        found.get_or_insert_with(|| resource.to_owned());
    });
    if found.is_some() {
        return found;
    }
    if pod["spec"]["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims".into());
    }
    pod["spec"]["volumes"].as_array().into_iter().flatten().find_map(|volume| {
        let has = |kind: &str| !volume[kind].is_null();
        let source = |kind: &str| volume["projected"]["sources"].as_array().into_iter().flatten().any(|source| !source[kind].is_null());
        let what = match () {
            () if has("persistentVolumeClaim") => "persistentvolumeclaims",
            () if has("ephemeral") => "persistentvolumeclaims (via ephemeral volumes)",
            () if has("csi") => "csidrivers (via CSI volumes)",
            () if source("serviceAccountToken") => "serviceaccounts (via projected volumes)",
            () if source("clusterTrustBundle") => "clustertrustbundles (via projected volumes)",
            () => return None,
        };
        Some(what.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_creates_mirrors_of_its_own_and_nothing_else() {
        let good = json!({
            "metadata": {"name": "p-n1", "annotations": {MIRROR: "h"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n1", "volumes": [{"name": "v", "hostPath": {"path": "/"}}], "containers": [{"name": "c"}]},
        });
        assert_eq!(check("n1", Some("u"), &good), Ok(()));
        let refused = |path: &str, value: Value| {
            let mut pod = good.clone();
            *pod.pointer_mut(path).unwrap() = value;
            check("n1", Some("u"), &pod).unwrap_err()
        };
        for (path, value, why) in [
            ("/metadata/annotations", json!({}), "can only create mirror pods"),
            ("/spec/nodeName", json!("n2"), "spec.nodeName set to itself"),
            ("/metadata/ownerReferences", json!([]), "with an owner reference set to itself"),
            ("/metadata/ownerReferences", json!([{}, {}]), "a single owner reference"),
            ("/metadata/ownerReferences/0/name", json!("n2"), "with an owner reference set to itself"),
            ("/metadata/ownerReferences/0/controller", json!(false), "a controller owner reference"),
            ("/metadata/ownerReferences/0/uid", json!("x"), "UID mismatch"),
            ("/spec/volumes/0", json!({"name": "v", "secret": {"secretName": "s"}}), "reference secrets"),
            ("/spec/volumes/0", json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), "reference persistentvolumeclaims"),
            ("/spec/containers/0", json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}), "reference configmaps"),
        ] {
            let message = refused(path, value);
            assert!(message.contains(why), "{path}: {message}");
        }
        assert!(check("n1", None, &good).is_err(), "a node that is not registered");
        let mut account = good.clone();
        account["spec"]["serviceAccountName"] = json!("default");
        assert!(check("n1", Some("u"), &account).unwrap_err().ends_with("reference serviceaccounts"));
    }
}
