//! PersistentVolumeClaim: what is asked for, which grows at most once it is bound.

use super::{BETA_CLASS, access_modes, class_of, phase, shown_modes, unset, volume_mode};
use crate::resources::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, text_or},
    rules::{
        At, Causes,
        labels::selector,
        quantities::{self, quantity},
    },
};
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::{Value, json};

/// Hooks of `persistentvolumeclaims`.
pub struct PersistentVolumeClaim;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Status", "Whether it has a volume."),
    ("Volume", "The volume that it is bound to."),
    ("Capacity", "How much that volume holds."),
    ("Access Modes", "How it may be mounted."),
    ("StorageClass", "The class of storage that it asks for."),
    ("VolumeAttributesClass", "The class of changeable attributes that it asks for."),
    AGE,
    ("+VolumeMode", "Whether it is a file system or a raw device."),
];

impl Hooks for PersistentVolumeClaim {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        new["status"] = json!({"phase": "Pending"});
        prepare(None, &mut new["spec"]);
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource().is_empty() {
            prepare(Some(&old["spec"]), &mut new["spec"]);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => status(new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings(new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, claim: &Value) -> Vec<Value> {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let volume = text_or(&spec["volumeName"], "");
        let (capacity, modes) = match volume.is_empty() {
            true => (String::new(), String::new()),
            false => (text_or(&status["capacity"]["storage"], "0"), shown_modes(&status["accessModes"])),
        };
        vec![
            cells::name(claim),
            phase(claim).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class_of(claim).into(),
            unset(&spec["volumeAttributesClassName"]).into(),
            age::of(claim),
            unset(&spec["volumeMode"]).into(),
        ]
    }
}

/// `dataSource` and `dataSourceRef` say the same (KEP-1495). What the older field never meant is dropped, as is a source in another namespace.
fn prepare(old: Option<&Value>, spec: &mut Value) {
    let (mut source, mut reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    let had = |field: &str| old.is_some_and(|old| old[field].is_object());
    let elsewhere = |reference: &Value| reference["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
    if elsewhere(&reference) && !had("dataSourceRef") {
        reference = Value::Null;
    }
    let plain = match (source["kind"].as_str(), source["apiGroup"].as_str().unwrap_or_default()) {
        (Some("PersistentVolumeClaim"), "") | (Some("VolumeSnapshot"), "snapshot.storage.k8s.io") => true,
        _ => had("dataSource") || had("dataSourceRef"),
    };
    if reference.is_null() && !plain {
        source = Value::Null;
    }
    match (source.is_object(), reference.is_object()) {
        (true, false) => reference = source.clone(),
        (false, true) if !elsewhere(&reference) => {
            source = reference.clone();
            if let Some(source) = source.as_object_mut() {
                source.remove("namespace");
            }
        }
        _ => {}
    }
    let Some(spec) = spec.as_object_mut() else { return };
    for (field, value) in [("dataSource", source), ("dataSourceRef", reference)] {
        match value {
            Value::Null => spec.remove(field),
            value => spec.insert(field.into(), value),
        };
    }
}

pub(in crate::resources) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    check_spec(&root.field("spec"), causes);
    if let Some(old) = old {
        update(old, &root, causes);
    }
}

/// The spec of a claim, or of a template of claims.
pub fn check_spec(spec: &At<'_, '_>, causes: &mut Causes) {
    let modes = spec.field("accessModes");
    if modes.is_empty() {
        modes.missing(causes, "at least 1 access mode is required");
    }
    selector(&spec.field("selector"), causes);
    if !modes.is_empty() {
        access_modes(&modes, "", causes);
    }
    let (resources, requests) = (spec.field("resources"), &spec.value["resources"]["requests"]);
    let place = resources.key("storage");
    let storage = place.with(&requests["storage"]);
    if !storage.is_set() {
        storage.missing(causes, "");
    } else {
        quantities::positive(&storage, causes);
    }
    spec.field("storageClassName").optional_syntax(causes, names::dns_subdomain);
    volume_mode(&spec.field("volumeMode"), causes);
    for field in ["dataSource", "dataSourceRef"] {
        data_source(&spec.field(field), causes);
    }
    let (source, reference) = (&spec.value["dataSource"], &spec.value["dataSourceRef"]);
    if source.is_object() && reference.is_object() {
        let elsewhere = reference["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
        let place = spec.field("dataSource").path();
        if elsewhere {
            spec.invalid_value(causes, place, "may not be specified when dataSourceRef.namespace is specified");
        } else if ["apiGroup", "kind", "name"].iter().any(|field| source[*field] != reference[*field]) {
            spec.invalid_value(causes, place, "must match dataSourceRef");
        }
    }
    spec.field("volumeAttributesClassName").optional_syntax(causes, names::dns_subdomain);
}

fn data_source(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.is_set() {
        return;
    }
    at.field("name").required(causes, "");
    let (kind, group) = (at.field("kind"), at.field("apiGroup"));
    kind.required(causes, "");
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        at.invalid_value(causes, kind.text(), "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    group.optional_syntax(causes, names::dns_subdomain);
    at.field("namespace").optional_syntax(causes, names::dns_label);
}

/// What of a spec must stay, with what may change taken away.
fn fixed(spec: &Value, bound: bool) -> Value {
    let mut spec = spec.clone();
    if bound {
        if let Some(requests) = spec.pointer_mut("/resources/requests").and_then(Value::as_object_mut) {
            requests.remove("storage");
        }
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("volumeAttributesClassName");
        }
    }
    spec
}

fn update(old: &Value, root: &At<'_, '_>, causes: &mut Causes) {
    let new = root.value;
    let bound = new["status"]["phase"] == "Bound";
    let (mut before, mut after) = (fixed(&old["spec"], bound), fixed(&new["spec"], bound));
    if old["spec"]["volumeName"].as_str().is_none_or(str::is_empty) {
        for spec in [&mut before, &mut after] {
            spec.as_object_mut().map(|spec| spec.remove("volumeName"));
        }
    }
    class(old, root, &mut before, &mut after, causes);
    let spec = root.field("spec");
    if before != after {
        spec.forbidden(causes, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    let at = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok());
    const ASKED: &str = "/spec/resources/requests/storage";
    let zero = quantities::ZERO;
    let (was, now) = (at(old, ASKED).unwrap_or(zero), at(new, ASKED).unwrap_or(zero));
    // A failed expansion is taken back, down to what there is and no further.
    if now < was && now <= at(old, "/status/capacity/storage").unwrap_or(zero) {
        spec.field("resources").field("requests").field("storage").forbidden(causes, "field can not be less than status.capacity");
    }
    let mode = root.field("volumeMode");
    mode.with(&new["spec"]["volumeMode"]).immutable(causes, &old["spec"]["volumeMode"]);
    let attributes = spec.field("volumeAttributesClassName");
    if attributes.value != &old["spec"]["volumeAttributesClassName"] && !old["status"]["currentVolumeAttributesClassName"].is_null() {
        if !attributes.is_set() {
            attributes.forbidden(causes, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil");
        } else if attributes.is_empty() {
            attributes.forbidden(causes, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil");
        }
    }
}

/// The class may be said later, or move from the annotation to the field.
fn class(old: &Value, root: &At<'_, '_>, before: &mut Value, after: &mut Value, causes: &mut Causes) {
    let annotation = |object: &Value| object["metadata"]["annotations"][BETA_CLASS].as_str().map(str::to_string);
    let (was, now) = (annotation(old), annotation(root.value));
    let (old_class, new_class) = (&old["spec"]["storageClassName"], root.value["spec"]["storageClassName"].as_str());
    let late = old_class.is_null() && new_class.is_some();
    let moved = late && was.is_some() && new_class == was.as_deref() && (now.is_none() || now == was);
    if !moved && now.as_deref().unwrap_or_default() != was.as_deref().unwrap_or_default() {
        let metadata = root.field("metadata");
        let annotations = metadata.field("annotations");
        annotations.key(BETA_CLASS).invalid_value(causes, now.unwrap_or_default(), "field is immutable");
    }
    if moved || late && was.as_deref().is_none_or(|was| Some(was) == new_class) {
        for spec in [before, after] {
            spec.as_object_mut().map(|spec| spec.remove("storageClassName"));
        }
    }
}

/// Names of resources in a claim's status: `storage`, or somebody's own.
fn resource_key(at: &At<'_, '_>, name: &str, causes: &mut Causes) -> bool {
    let before = causes.len();
    for why in names::qualified_name(name) {
        at.invalid_value(causes, name, &why);
    }
    if causes.len() == before && quantities::is_native(name) && name != "storage" {
        let name = Value::from(name);
        at.with(&name).unsupported(causes, &["storage"]);
    }
    causes.len() == before
}

pub(in crate::resources) fn status(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    for (_, at) in status.field("capacity").entries() {
        quantities::non_negative(&at, causes);
    }
    let statuses = status.field("allocatedResourceStatuses");
    for (name, state) in statuses.entries() {
        resource_key(&statuses, name, causes);
        const STATES: &[&str] =
            &["ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"];
        if !STATES.contains(&state.text()) {
            // Upstream shows the resource, not its state.
            let name = Value::from(name);
            statuses.with(&name).unsupported(causes, STATES);
        }
    }
    let allocated = status.field("allocatedResources");
    for (name, at) in allocated.entries() {
        if resource_key(&allocated, name, causes) {
            quantities::non_negative(&at, causes);
        }
    }
}

fn warnings(claim: &Value) -> Vec<String> {
    let mut said = Vec::new();
    if claim["metadata"]["annotations"].get(BETA_CLASS).is_some() {
        said.push(format!("metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    let root = At::root(claim);
    let spec = root.field("spec");
    said.extend(fractions(&spec));
    said
}

/// Bytes come whole.
pub fn fractions(spec: &At<'_, '_>) -> Vec<String> {
    let resources = spec.field("resources");
    let mut said = Vec::new();
    for field in ["requests", "limits"] {
        let list = resources.field(field);
        let at = list.key("storage");
        if quantity(&at).is_some_and(|storage| !storage.is_whole()) {
            said.push(format!("{}: fractional byte value {:?} is invalid, must be an integer", at.path(), quantities::shown(&at)));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn good() -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}},
            "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut claim = good();
        change(&mut claim);
        claim
    }

    fn wrong(old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    const FIXED: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

    #[test]
    fn rules() {
        assert_eq!(wrong(None, good()), Vec::<String>::new());
        assert_eq!(
            wrong(None, json!({"spec": {}})),
            ["spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"]
        );
        assert_eq!(
            wrong(None, with(|c| c["spec"]["resources"]["requests"]["storage"] = "0".into())),
            ["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]
        );
        assert_eq!(
            wrong(None, with(|c| c["spec"]["dataSource"] = json!({"kind": "x", "name": "n"}))),
            ["spec.dataSource: Invalid value: \"x\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"]
        );
    }

    #[test]
    fn only_size_class_and_volume_change() {
        let bound = with(|c| {
            c["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
            c["spec"]["volumeName"] = "v".into();
        });
        let sized = |size: &str| {
            let mut claim = bound.clone();
            claim["spec"]["resources"]["requests"]["storage"] = size.into();
            claim
        };
        assert_eq!(wrong(Some(bound.clone()), sized("3Gi")), Vec::<String>::new());
        assert_eq!(wrong(Some(bound.clone()), sized("1500Mi")), Vec::<String>::new());
        assert_eq!(
            wrong(Some(bound.clone()), sized("1Gi")),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
        assert_eq!(wrong(Some(good()), with(|c| c["spec"]["resources"]["requests"]["storage"] = "3Gi".into())), [FIXED]);
        assert_eq!(wrong(Some(good()), with(|c| c["spec"]["volumeName"] = "v".into())), Vec::<String>::new());
        assert_eq!(wrong(Some(bound), with(|c| c["spec"]["volumeName"] = "w".into())), [FIXED]);
        assert_eq!(wrong(Some(good()), with(|c| c["spec"]["storageClassName"] = "s".into())), Vec::<String>::new());
        let classed = with(|c| c["spec"]["storageClassName"] = "s".into());
        assert_eq!(wrong(Some(classed.clone()), with(|c| c["spec"]["storageClassName"] = "t".into())), [FIXED]);
        let annotated = with(|c| c["metadata"]["annotations"] = json!({BETA_CLASS: "s"}));
        assert_eq!(wrong(Some(annotated.clone()), classed), Vec::<String>::new());
        assert_eq!(
            wrong(Some(annotated), good()),
            ["metadata.annotations[volume.beta.kubernetes.io/storage-class]: Invalid value: \"\": field is immutable"]
        );
    }

    #[test]
    fn both_sources_say_the_same() {
        let prepared = |mut spec: Value| {
            prepare(None, &mut spec);
            spec
        };
        let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "n"});
        assert_eq!(prepared(json!({"dataSource": snapshot})), json!({"dataSource": snapshot, "dataSourceRef": snapshot}));
        assert_eq!(prepared(json!({"dataSourceRef": snapshot})), json!({"dataSource": snapshot, "dataSourceRef": snapshot}));
        assert_eq!(prepared(json!({"dataSource": {"kind": "Foo", "name": "n"}})), json!({}));
        assert_eq!(prepared(json!({"dataSourceRef": {"kind": "Foo", "name": "n", "namespace": "m"}})), json!({}));
    }

    #[test]
    fn statuses_name_storage() {
        let mut causes = Vec::new();
        status(&json!({"status": {"allocatedResourceStatuses": {"cpu": "x"}, "allocatedResources": {"storage": "-1"}}}), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"storage\"",
                "status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
                "status.allocatedResources[storage]: Invalid value: \"-1\": must be greater than or equal to 0",
            ]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let claim = with(|c| {
            c["spec"]["volumeName"] = "v".into();
            c["spec"]["storageClassName"] = "fast".into();
            c["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]});
        });
        let row = PersistentVolumeClaim.cells(&claim);
        assert_eq!(row.len(), HEADINGS.len());
        assert_eq!(cells::golden(&row, "2026-01-02T03:04:05Z"), "c | Bound | v | 2Gi | RWO,RWX | fast | <unset> | <unknown> | Filesystem");
        assert_eq!(
            warnings(&with(|c| c["spec"]["resources"]["requests"]["storage"] = "1500m".into())),
            ["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"]
        );
    }
}
