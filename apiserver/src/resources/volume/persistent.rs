//! PersistentVolume: exactly one source, which never changes.

use super::{
    BETA_CLASS, access_modes, class_of, phase, shown_modes,
    source::{self, Owner},
    unset, volume_mode,
};
use crate::resources::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, text_or},
    pod::{scheduling::node_selector, warnings::node_label},
    rules::{At, Causes, quantities},
};
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::{Value, json};

/// Hooks of `persistentvolumes`.
pub struct PersistentVolume;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Capacity", "How much it holds."),
    ("Access Modes", "How it may be mounted."),
    ("Reclaim Policy", "What happens to it when its claim is gone."),
    ("Status", "Whether it is free, bound or released."),
    ("Claim", "The claim that it is bound to."),
    ("StorageClass", "The class it belongs to."),
    ("VolumeAttributesClass", "The class of its changeable attributes."),
    ("Reason", "Why it is in this state."),
    AGE,
    ("+VolumeMode", "Whether it is a file system or a raw device."),
];

/// Sources in the order in which they are looked at: the second one found is one too many.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Mount options by annotation, which only some sources take.
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const WITH_MOUNT_OPTIONS: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

impl Hooks for PersistentVolume {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        new["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": cx.timestamp()});
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            transition(&cx.timestamp(), old, new);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if cx.subresource().is_empty() {
            validate(old, new, causes);
        }
    }
    fn warnings(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings(new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, volume: &Value) -> Vec<Value> {
        let (spec, status) = (&volume["spec"], &volume["status"]);
        let claim = match spec["claimRef"].is_object() {
            true => format!("{}/{}", text_or(&spec["claimRef"]["namespace"], ""), text_or(&spec["claimRef"]["name"], "")),
            false => String::new(),
        };
        vec![
            cells::name(volume),
            text_or(&spec["capacity"]["storage"], "0").into(),
            shown_modes(&spec["accessModes"]).into(),
            text_or(&spec["persistentVolumeReclaimPolicy"], "").into(),
            phase(volume).into(),
            claim.into(),
            class_of(volume).into(),
            unset(&spec["volumeAttributesClassName"]).into(),
            text_or(&status["reason"], "").into(),
            age::of(volume),
            unset(&spec["volumeMode"]).into(),
        ]
    }
}

/// A change of the phase is timed, unless the client says when it was.
fn transition(now: &str, old: &Value, new: &mut Value) {
    const AT: &str = "lastPhaseTransitionTime";
    let (before, after) = (&old["status"], &new["status"]);
    let same = before["phase"] == after["phase"];
    if same && after[AT].is_null() && !before[AT].is_null() {
        new["status"][AT] = before[AT].clone();
    } else if !same && (after[AT].is_null() || after[AT] == before[AT]) {
        new["status"][AT] = now.into();
    }
}

pub(in crate::resources) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    check_spec(&spec, Some(new["metadata"]["name"].as_str().unwrap_or_default()), causes);
    let (metadata, annotations) = (root.field("metadata"), &new["metadata"]["annotations"]);
    if annotations.get(MOUNT_OPTIONS).is_some() && !WITH_MOUNT_OPTIONS.iter().any(|kind| source::is_given(spec.value, kind)) {
        metadata.field("annotations").field(MOUNT_OPTIONS).forbidden(causes, "may not specify mount options for this volume type");
    }
    if let Some(old) = old {
        update(&old["spec"], &root, causes);
    }
}

/// What a volume is when it stands in an attachment: its source and little else.
pub fn inline(spec: &At<'_, '_>, causes: &mut Causes) {
    const WHY: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        let at = spec.field(field);
        if at.is_set() {
            at.forbidden(causes, WHY);
        }
    }
    if !source::is_given(spec.value, "csi") {
        spec.field("csi").missing(causes, "has to be specified in the context of inline volumes");
    }
    check_spec(spec, None, causes);
    for field in ["nodeAffinity", "storageClassName"] {
        let at = spec.field(field);
        if at.is_set() {
            at.forbidden(causes, WHY);
        }
    }
    for (field, only) in [("persistentVolumeReclaimPolicy", "Retain"), ("volumeMode", "Filesystem")] {
        let at = spec.field(field);
        if !at.is_empty() && at.text() != only {
            let words = if field == "volumeMode" { "may not specify volumeMode other than" } else { "may only be" };
            at.forbidden(causes, &format!("{words} {only} in the context of inline volumes"));
        }
    }
}

/// The rules of a volume with this name, or of an inline one.
fn check_spec(spec: &At<'_, '_>, name: Option<&str>, causes: &mut Causes) {
    access_modes(&spec.field("accessModes"), "", causes);
    let (policy, affinity) = (spec.field("persistentVolumeReclaimPolicy"), spec.field("nodeAffinity"));
    if name.is_some() {
        own_fields(spec, causes);
    }
    let mut found = false;
    for kind in SOURCES.iter().filter(|kind| source::is_given(spec.value, kind)) {
        let given = spec.field(kind);
        if std::mem::replace(&mut found, true) && *kind != "flexVolume" {
            spec.field(source::second_place(kind)).forbidden(causes, "may not specify more than 1 volume type");
            continue;
        }
        let place = spec.field(source::place(kind));
        source::check(kind, &place.with(given.value), Owner::Persistent(name.unwrap_or_default()), causes);
        if *kind == "local" && !affinity.is_set() {
            affinity.missing(causes, "Local volume requires node affinity");
        }
    }
    if !found {
        spec.missing(causes, "must specify a volume type");
    }
    let (host_path, recycled) = (spec.field("hostPath"), policy.text() == "Recycle");
    let path = host_path.field("path").text();
    if recycled && path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".") {
        policy.forbidden(causes, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let attributes = spec.field("volumeAttributesClassName");
    if attributes.is_set() && name.is_some() {
        if attributes.required(causes, "an empty string is disallowed") {
            attributes.syntax(causes, names::dns_subdomain);
        }
        spec.field("csi").required(causes, "has to be specified when using volumeAttributesClassName");
    }
}

/// What an inline volume has not.
fn own_fields(spec: &At<'_, '_>, causes: &mut Causes) {
    let capacity = spec.field("capacity");
    capacity.required(causes, "");
    if capacity.len() > 1 || !capacity.key("storage").is_set() {
        capacity.unsupported(causes, &["storage"]);
    }
    for (_, at) in capacity.entries() {
        quantities::non_negative(&at, causes);
        quantities::positive(&at, causes);
    }
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(causes, &["Delete", "Recycle", "Retain"]);
    }
    let affinity = spec.field("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.field("required");
        match required.is_set() {
            true => node_selector(&required, causes),
            false => required.missing(causes, "must specify required node constraints"),
        }
    }
    spec.field("storageClassName").optional_syntax(causes, names::dns_subdomain);
    volume_mode(&spec.field("volumeMode"), causes);
}

/// The source with what may still be added to it taken away.
fn source_of(spec: &Value, old: &Value) -> Vec<(&'static str, Value)> {
    let given = SOURCES.iter().filter(|kind| source::is_given(spec, kind));
    given
        .map(|kind| {
            let mut source = spec[*kind].clone();
            let addable = *kind == "csi" && old["csi"].is_object() && old["csi"]["controllerExpandSecretRef"].is_null();
            if let Some(source) = source.as_object_mut().filter(|_| addable) {
                source.remove("controllerExpandSecretRef");
            }
            (*kind, source)
        })
        .collect()
}

fn update(old: &Value, root: &At<'_, '_>, causes: &mut Causes) {
    let spec = root.field("spec");
    if source_of(old, old) != source_of(spec.value, old) {
        spec.field("persistentvolumesource").forbidden(causes, "spec.persistentvolumesource is immutable after creation");
    }
    let mode = root.field("volumeMode");
    mode.with(&spec.value["volumeMode"]).immutable(causes, &old["volumeMode"]);
    let affinity = root.field("nodeAffinity");
    let affinity = affinity.with(&spec.value["nodeAffinity"]);
    if old["nodeAffinity"].is_object() && affinity.value != &old["nodeAffinity"] && !only_newer_labels(&old["nodeAffinity"], affinity.value) {
        affinity.invalid(causes, "field is immutable, except for updating from beta label to GA");
    }
    let attributes = spec.field("volumeAttributesClassName");
    if !old["volumeAttributesClassName"].is_null() && !attributes.is_set() {
        attributes.forbidden(causes, "update from non-nil value to nil is forbidden");
    }
}

/// Labels of nodes that have a newer name, in both.
const NEWER_LABELS: &[(&str, &str)] = &[
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
];

/// Whether the only difference is that labels go by their newer names now.
fn only_newer_labels(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::String(old), Value::String(new)) => old == new || NEWER_LABELS.contains(&(old.as_str(), new.as_str())),
        (Value::Array(old), Value::Array(new)) => old.len() == new.len() && old.iter().zip(new).all(|(old, new)| only_newer_labels(old, new)),
        (Value::Object(old), Value::Object(new)) => {
            old.len() == new.len() && old.iter().all(|(key, old)| new.get(key).is_some_and(|new| only_newer_labels(old, new)))
        }
        (old, new) => old == new,
    }
}

/// Sources that no longer work, and what is said of them.
const DEPRECATED: &[(&str, &str, &str)] = &[
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn warnings(volume: &Value) -> Vec<String> {
    let mut said = Vec::new();
    for (key, why) in [
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ] {
        if volume["metadata"]["annotations"].get(key).is_some() {
            said.push(format!("metadata.annotations[{key}]: {why}"));
        }
    }
    let spec = &volume["spec"];
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        said.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                .into(),
        );
    }
    let root = At::root(volume);
    let (at, required) = (root.field("spec"), &spec["nodeAffinity"]["required"]);
    let (affinity, terms) = (at.field("nodeAffinity"), &required["nodeSelectorTerms"]);
    let place = affinity.field("required");
    let place = place.field("nodeSelectorTerms");
    for term in place.with(terms).items() {
        for expression in term.field("matchExpressions").items() {
            let key = expression.field("key");
            said.extend(node_label(key.text()).map(|why| format!("{}: {} is {why}", key.path(), key.text())));
        }
    }
    said.extend(DEPRECATED.iter().filter(|(kind, ..)| source::is_given(spec, kind)).map(|(_, shown, why)| format!("spec.{shown}: {why}")));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn good() -> Value {
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}})
    }

    fn wrong(old: Option<Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        validate(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(None, |_| {}), Vec::<String>::new());
        assert_eq!(
            wrong(None, |v| v["spec"] = json!({})),
            [
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: \"\": supported values: \"storage\"",
                "spec: Required value: must specify a volume type",
            ]
        );
        assert_eq!(
            wrong(None, |v| v["spec"]["nfs"] = json!({"server": "s", "path": "/p"})),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"]
        );
        assert_eq!(
            wrong(None, |v| v["spec"]["accessModes"] = json!(["ReadWriteOncePod", "ReadWriteMany", "x"])),
            [
                "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"
            ]
        );
        assert_eq!(
            wrong(None, |v| {
                v["spec"]["hostPath"]["path"] = "//./".into();
                v["spec"]["persistentVolumeReclaimPolicy"] = "Recycle".into();
            }),
            ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"]
        );
        assert_eq!(
            wrong(None, |v| {
                let spec = v["spec"].as_object_mut().expect("spec");
                spec.remove("hostPath");
                spec.insert("local".into(), json!({"path": "/x"}));
            }),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"]
        );
    }

    #[test]
    fn the_source_stays() {
        assert_eq!(
            wrong(Some(good()), |v| v["spec"]["hostPath"]["path"] = "/y".into()),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
        let csi = |secret: bool| {
            let mut volume = good();
            volume["spec"].as_object_mut().expect("spec").remove("hostPath");
            volume["spec"]["csi"] = json!({"driver": "d", "volumeHandle": "h"});
            if secret {
                volume["spec"]["csi"]["controllerExpandSecretRef"] = json!({"name": "n", "namespace": "m"});
            }
            volume
        };
        assert_eq!(wrong(Some(csi(false)), |v| *v = csi(true)), Vec::<String>::new());
        assert_eq!(wrong(Some(csi(true)), |v| *v = csi(false)).len(), 1);
        let on = |label: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": label, "operator": "Exists"}]}]}});
        let placed = |label: &str| {
            let mut volume = good();
            volume["spec"]["nodeAffinity"] = on(label);
            volume
        };
        assert_eq!(wrong(Some(placed("beta.kubernetes.io/os")), |v| *v = placed("kubernetes.io/os")), Vec::<String>::new());
        assert_eq!(wrong(Some(placed("kubernetes.io/os")), |v| *v = placed("x")).len(), 1);
    }

    #[test]
    fn phases_are_timed() {
        let old = json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": "a"}});
        let mut new = json!({"status": {"phase": "Available", "lastPhaseTransitionTime": "a"}});
        transition("now", &old, &mut new);
        assert_eq!(new["status"]["lastPhaseTransitionTime"], "now");
        let mut same = json!({"status": {"phase": "Pending"}});
        transition("now", &old, &mut same);
        assert_eq!(same["status"]["lastPhaseTransitionTime"], "a");
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let mut volume = good();
        volume["spec"]["claimRef"] = json!({"namespace": "a", "name": "b"});
        volume["spec"]["storageClassName"] = "fast".into();
        volume["status"] = json!({"phase": "Bound"});
        let row = PersistentVolume.cells(&volume);
        assert_eq!(row.len(), HEADINGS.len());
        assert_eq!(cells::golden(&row, "2026-01-02T03:04:05Z"), "v | 1Gi | RWO | Retain | Bound | a/b | fast | <unset> |  | <unknown> | Filesystem");
        assert_eq!(warnings(&json!({"spec": {"rbd": {}}})), ["spec.rbd: deprecated in v1.28, non-functional in v1.31+"]);
    }
}
