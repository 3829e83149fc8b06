//! ServiceAccount: every pod runs as somebody, and finds its token where clients look for it.

use super::{Plugin, lookup};
use crate::resources::{Cx, pod::annotations::is_mirror};
use coracle_api::{names, status::Status};
use serde_json::{Value, json};

/// The plugin.
pub struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// Life of the mounted token: an hour and a few seconds, by which it is told apart from one that was asked for.
const TOKEN_SECONDS: i64 = 3607;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_some() || !lookup::is_pod(cx) {
            return Ok(());
        }
        // It runs without the API, and must not need anything of it.
        if is_mirror(new) {
            return mirror(new).map_err(|what| lookup::forbidden(cx, new, &format!("a mirror pod may not {what}")));
        }
        let name = chosen(new);
        let namespace = &cx.request.namespace;
        let Some(account) = lookup::object(cx, "serviceaccounts", namespace, &name)? else {
            return Err(lookup::forbidden(
                cx,
                new,
                &format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"),
            ));
        };
        admit(new, &account, || names::generate(VOLUME, |bound| rand::random_range(0..bound)));
        Ok(())
    }
}

/// What a pod that mirrors a static one may not name, in upstream's words.
fn mirror(pod: &Value) -> Result<(), &'static str> {
    if ["serviceAccountName", "serviceAccount"].iter().any(|field| pod["spec"][*field].as_str().is_some_and(|name| !name.is_empty())) {
        return Err("reference service accounts");
    }
    let mut secrets = false;
    crate::auth::node::names(pod.to_string().as_bytes(), &mut |resource, _| secrets |= resource == "secrets");
    if secrets {
        return Err("reference secrets");
    }
    let sources = pod["spec"]["volumes"].as_array().into_iter().flatten().filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    match sources.clone().any(|source| !source["serviceAccountToken"].is_null()) {
        true => Err("use ServiceAccountToken volume projections"),
        false => Ok(()),
    }
}

/// The account that the pod names, or `default`; both of its spellings are filled.
fn chosen(pod: &mut Value) -> String {
    let spec = &mut pod["spec"];
    let named = ["serviceAccountName", "serviceAccount"].iter().find_map(|field| spec[*field].as_str().filter(|name| !name.is_empty()));
    let name = named.unwrap_or("default").to_string();
    spec["serviceAccountName"] = name.clone().into();
    spec["serviceAccount"] = name.clone().into();
    name
}

fn admit(pod: &mut Value, account: &Value, volume_name: impl FnOnce() -> String) {
    let automount = pod["spec"]["automountServiceAccountToken"].as_bool().or_else(|| account["automountServiceAccountToken"].as_bool());
    if automount.unwrap_or(true) {
        mount_token(pod, volume_name);
    }
    let spec = &mut pod["spec"];
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|list| !list.is_empty())
    {
        spec["imagePullSecrets"] = secrets.iter().map(|secret| json!({"name": secret["name"]})).collect();
    }
}

fn mount_token(pod: &mut Value, volume_name: impl FnOnce() -> String) {
    let spec = &mut pod["spec"];
    let existing = spec["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str()).find(|name| name.starts_with(VOLUME));
    let (name, has_volume) = match existing {
        Some(name) => (name.to_string(), true),
        None => (volume_name(), false),
    };
    let mut needed = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            // What is mounted there on purpose stays.
            if container["volumeMounts"].as_array().into_iter().flatten().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            if let Some(mounts) = lookup::list(container, "volumeMounts") {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    if needed
        && !has_volume
        && let Some(volumes) = lookup::list(spec, "volumes")
    {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(mut pod: Value, account: Value) -> Value {
        chosen(&mut pod);
        admit(&mut pod, &account, || "kube-api-access-xxxxx".into());
        pod["spec"].take()
    }

    #[test]
    fn the_token_is_mounted_in_every_container() {
        let spec = admitted(
            json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}}),
            json!({"imagePullSecrets": [{"name": "pull"}]}),
        );
        assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
        let mount = json!([{"name": "kube-api-access-xxxxx", "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!((&spec["initContainers"][0]["volumeMounts"], &spec["containers"][0]["volumeMounts"]), (&mount, &mount));
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
        assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    }

    #[test]
    fn the_pod_decides_then_the_account() {
        let containers = json!([{"name": "a"}]);
        assert!(admitted(json!({"spec": {"automountServiceAccountToken": false, "containers": containers}}), json!({}))["volumes"].is_null());
        assert!(admitted(json!({"spec": {"containers": containers}}), json!({"automountServiceAccountToken": false}))["volumes"].is_null());
        let both = json!({"spec": {"automountServiceAccountToken": true, "containers": containers, "serviceAccount": "bot"}});
        let spec = admitted(both, json!({"automountServiceAccountToken": false}));
        assert_eq!((&spec["serviceAccountName"], spec["volumes"].as_array().map(Vec::len)), (&json!("bot"), Some(1)));
    }

    #[test]
    fn a_volume_that_is_there_is_used() {
        let spec = admitted(json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "kube-api-access-abc12"}]}}), json!({}));
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abc12");
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1));
    }
}
