//! Static pods: pods of files on this node, which run whether or not there is an API, and which the API shows by mirror pods.
//!
//! As kubelet has them (`pkg/kubelet/config`, `pkg/kubelet/pod/mirror_client.go`): the name ends in the node's, the uid is a hash of the content, the file and the node; a file that
//! changes is another pod. What they may not do is name other objects, since the node must not be asked for them.

pub mod files;
pub mod mirrors;

use super::spec::{Container, Pod};
use coracle_api::amounts::quantity;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Where the pod comes from: `file` or `api`.
const SOURCE: &str = "kubernetes.io/config.source";
/// The hash that is its uid.
const HASH: &str = "kubernetes.io/config.hash";
/// Says that a pod is the mirror of the static pod with that hash.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const SEEN: &str = "kubernetes.io/config.seen";

/// A pod of a file.
#[derive(Clone, Debug)]
pub struct Static {
    /// As it runs.
    pub pod: Pod,
    /// The whole object, for its mirror.
    pub json: Value,
}

/// Reads a manifest, YAML or JSON.
///
/// # Errors
/// It is no pod, it has no name or nothing to run, or it names other objects.
pub fn read(text: &str, path: &Path, node: &str) -> Result<Static, String> {
    let mut json: Value = serde_norway::from_str(text).map_err(|why| why.to_string())?;
    if json["apiVersion"] != "v1" || json["kind"] != "Pod" {
        return Err(format!("invalid pod: it is {} {}, not v1 Pod", json["apiVersion"], json["kind"]));
    }
    let name = json["metadata"]["name"].as_str().filter(|name| !name.is_empty()).ok_or("invalid pod: name is needed for the pod")?.to_owned();
    if json["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("invalid pod: spec.containers: Required value".into());
    }
    json.as_object_mut().ok_or("invalid pod")?.remove("status");
    let uid = match json["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        Some(uid) => uid.to_owned(),
        None => {
            let digest = Sha256::new().chain_update(json.to_string()).chain_update(format!("host:{node}file:{}", path.display())).finalize();
            digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
        }
    };
    super::super::volumes::paths::name(&uid).map_err(|why| format!("invalid pod: metadata.uid: {why}"))?;
    let metadata = &mut json["metadata"];
    metadata["uid"] = json!(uid);
    metadata["name"] = json!(format!("{name}-{}", node.to_lowercase()));
    if metadata["namespace"].as_str().is_none_or(str::is_empty) {
        metadata["namespace"] = json!("default");
    }
    for (key, value) in [(HASH, &*uid), (SOURCE, "file"), (SEEN, &super::time::Time::now().rfc3339())] {
        metadata["annotations"][key] = json!(value);
    }
    fill(&mut json["spec"], node);
    let mut pod: Pod = Pod::parse(json.to_string().as_bytes()).map_err(|why| format!("invalid pod: {why}"))?;
    if let Some(container) = pod.all_containers().find(|container| container.name.is_empty() || container.image.is_empty()) {
        return Err(format!("invalid pod: container {:?} needs a name and an image", container.name));
    }
    if let Some(what) = foreign(&pod, &json["spec"]) {
        return Err(format!("static pods may not reference {what}"));
    }
    pod.from_file = true;
    pod.status.phase = "Pending".into();
    pod.status.qos_class = qos(&pod).into();
    Ok(Static { pod, json })
}

/// Defaults that the API would have filled and the node depends on, and what kubelet adds.
fn fill(spec: &mut Value, node: &str) {
    spec["nodeName"] = json!(node);
    let defaults = [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
    ];
    let missing = |object: &Value, key: &str| object.get(key).is_none_or(Value::is_null);
    for (key, value) in defaults {
        if missing(spec, key) {
            spec[key] = value;
        }
    }
    let tolerations = &mut spec["tolerations"];
    let bears = json!({ "operator": "Exists", "effect": "NoExecute" });
    match tolerations.as_array_mut() {
        Some(list) if list.contains(&bears) => {}
        Some(list) => list.push(bears),
        None => *tolerations = json!([bears]),
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let latest = container["image"].as_str().is_some_and(|image| {
                let last = image.rsplit('/').next().unwrap_or_default();
                !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
            });
            let policy = if latest { "Always" } else { "IfNotPresent" };
            let defaults = [("imagePullPolicy", policy), ("terminationMessagePath", "/dev/termination-log"), ("terminationMessagePolicy", "File")];
            for (key, value) in defaults {
                if missing(container, key) {
                    container[key] = json!(value);
                }
            }
            // What is limited and not asked for is asked for.
            let limits = container["resources"]["limits"].as_object().cloned().unwrap_or_default();
            for (name, value) in limits {
                if missing(&container["resources"]["requests"], &name) {
                    container["resources"]["requests"][name] = value;
                }
            }
        }
    }
}

/// Other objects that a pod names, in upstream's words (`HasAPIObjectReference`).
fn foreign(pod: &Pod, spec: &Value) -> Option<&'static str> {
    if !pod.spec.service_account_name.is_empty() || spec["serviceAccount"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if let Some((resource, _)) = pod.references().into_iter().next() {
        return Some(resource);
    }
    if spec["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    spec["volumes"].as_array().into_iter().flatten().find_map(|volume| {
        let has = |kind: &str| !volume[kind].is_null();
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        match () {
            () if has("persistentVolumeClaim") => Some("persistentvolumeclaims"),
            () if has("ephemeral") => Some("persistentvolumeclaims (via ephemeral volumes)"),
            () if has("csi") => Some("csidrivers (via CSI volumes)"),
            () if sources.clone().any(|source| !source["serviceAccountToken"].is_null()) => Some("serviceaccounts (via projected volumes)"),
            () if sources.clone().any(|source| !source["clusterTrustBundle"].is_null()) => Some("clustertrustbundles (via projected volumes)"),
            () => None,
        }
    })
}

/// The class that the API would have stored.
fn qos(pod: &Pod) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in pod.all_containers() {
        for name in ["cpu", "memory"] {
            let amount =
                |list: &std::collections::BTreeMap<String, Value>| list.get(name).map(|value| quantity(value).millis()).filter(|value| *value > 0);
            let Container { resources, .. } = container;
            let (limit, request) = (amount(&resources.limits), amount(&resources.requests));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The hash of the static pod that a pod of the API mirrors, if it does.
pub fn mirrored(metadata: &super::spec::Metadata) -> Option<&str> {
    metadata.annotations.get(MIRROR).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n  - {name: main, image: 'hello:v1', resources: {limits: {cpu: 1, memory: 1Gi}}}\n";

    fn of(text: &str) -> Result<Static, String> {
        read(text, Path::new("/m/web.yaml"), "N1")
    }

    #[test]
    fn a_file_is_a_pod_of_this_node_with_a_hash_for_a_uid() {
        let read = of(MANIFEST).unwrap();
        let Pod { metadata, spec, status, from_file } = &read.pod;
        assert_eq!((&*metadata.name, &*metadata.namespace, &*spec.node_name, *from_file), ("web-n1", "default", "N1", true));
        assert_eq!((metadata.uid.len(), &*spec.restart_policy, &*status.qos_class), (32, "Always", "Guaranteed"));
        assert_eq!((&metadata.annotations[HASH], &*metadata.annotations[SOURCE]), (&metadata.uid, "file"));
        assert_eq!(read.json["spec"]["tolerations"], json!([{ "operator": "Exists", "effect": "NoExecute" }]));
        assert_eq!(read.json["spec"]["containers"][0]["resources"]["requests"], json!({ "cpu": 1, "memory": "1Gi" }));
        assert_eq!(of(MANIFEST).unwrap().pod.metadata.uid, metadata.uid);
        let changed = MANIFEST.replace("hello:v1", "hello:v2");
        let others = [of(&changed), super::read(MANIFEST, Path::new("/m/other.yaml"), "N1"), super::read(MANIFEST, Path::new("/m/web.yaml"), "n2")];
        assert!(others.into_iter().all(|other| other.unwrap().pod.metadata.uid != metadata.uid), "another content, file or node is another pod");
    }

    #[test]
    fn what_is_none_and_what_names_other_objects_is_refused() {
        let volume = |source: &str| format!("{MANIFEST}  volumes: [{{name: v, {source}}}]\n");
        for (text, why) in [
            ("kind: Deployment".to_owned(), "not v1 Pod"),
            (MANIFEST.replace("name: web", "generateName: web"), "name is needed"),
            (MANIFEST.replace("image: 'hello:v1', ", ""), "a name and an image"),
            (MANIFEST.replace("spec:", "spec:\n  serviceAccountName: default"), "may not reference serviceaccounts"),
            (volume("secret: {secretName: s}"), "may not reference secrets"),
            (volume("configMap: {name: c}"), "may not reference configmaps"),
            (volume("persistentVolumeClaim: {claimName: c}"), "may not reference persistentvolumeclaims"),
            (volume("projected: {sources: [{serviceAccountToken: {path: t}}]}"), "may not reference serviceaccounts"),
            (MANIFEST.replace("metadata: {name: web", "metadata: {uid: ../x, name: web"), "metadata.uid"),
            ("{".to_owned(), ""),
        ] {
            let error = of(&text).unwrap_err();
            assert!(error.contains(why), "{error} of {text}");
        }
        of(&volume("hostPath: {path: /tmp}")).unwrap();
    }
}
