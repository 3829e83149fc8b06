//! `metadata`, which is the same for every kind: what the server sets, keeps and refuses (`apimachinery/pkg/api/validation`, `rest.BeforeCreate`, `rest.BeforeUpdate`).

use crate::resources::rules::{
    At,
    labels::{annotation_map, label_map},
};
use coracle_api::{
    cause::Path,
    names,
    registry::Resource,
    status::{Cause, Status},
};
use serde_json::{Map, Value, json};

/// Finalizers and owner references of one object; upstream has no bound, a megabyte of them is no use to anybody.
const MAX_LIST: usize = 1_000;

/// The metadata object of a value, made when it is missing.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        // The line above made it an object.
        _ => unreachable!("metadata is an object"),
    }
}

/// What only the server may say about a new object.
pub fn prepare_create(row: &Resource, object: &mut Value, uid: String, now: &str) {
    let metadata = of(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), Value::String(uid));
    metadata.insert("creationTimestamp".into(), Value::String(now.into()));
    if row.generation {
        metadata.insert("generation".into(), json!(1));
    }
}

/// What an update of the object or of a subresource keeps of the old metadata.
pub fn prepare_update(old: &Value, new: &mut Value) {
    let metadata = of(new);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
}

/// For subresources that change nothing of the metadata (`metav1.ResetObjectMetaForStatus`).
pub fn keep(old: &Value, new: &mut Value) {
    let metadata = of(new);
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Counts up when anything but metadata and status changed; the status counts where it has no subresource of its own, as upstream has it for custom resources.
pub fn bump_generation(row: &Resource, old: &Value, new: &mut Value) {
    if !row.generation {
        return;
    }
    fn rest(object: &Value, whole: bool) -> impl Iterator<Item = (&String, &Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(move |(key, _)| !matches!(key.as_str(), "metadata" | "kind" | "apiVersion") && (whole || *key != "status"))
    }
    let whole = row.custom.is_some() && !row.has_status();
    if !rest(old, whole).eq(rest(new, whole)) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        of(new).insert("generation".into(), json!(generation));
    }
}

/// Finalizers of an object.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether a delete has begun.
pub fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn cause(reason: &str, field: &str, message: String) -> Cause {
    Cause { reason: reason.into(), message, field: field.into() }
}

fn invalid(field: &str, value: &str, why: impl std::fmt::Display) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: \"{value}\": {why}"))
}

/// Names of a kind: most are DNS subdomains.
fn name_rules(row: &Resource) -> fn(&str) -> Vec<String> {
    match (&*row.group, &*row.plural) {
        ("", "namespaces") | ("apps", "statefulsets") => names::dns_label,
        // Any label since 1.36 (KEP-5311).
        ("", "services") => names::dns_label,
        ("networking.k8s.io", "ipaddresses") => crate::resources::rules::syntax::canonical_ip,
        ("rbac.authorization.k8s.io" | "certificates.k8s.io" | "apiregistration.k8s.io", _) => names::path_segment,
        _ => names::dns_subdomain,
    }
}

/// Everything that can be wrong with the metadata of a new or changed object.
pub fn validate(row: &Resource, old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let generate = metadata["generateName"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(cause("FieldValueRequired", "metadata.name", "Required value: name or generateName is required".into()));
    } else if old.is_none() {
        causes.extend(name_rules(row)(name).iter().map(|why| invalid("metadata.name", name, why)));
    }
    if old.is_none() && !generate.is_empty() {
        // As upstream: a trailing dash is fine because a suffix follows it.
        let base = generate.strip_suffix('-').map_or(generate.to_string(), |base| format!("{base}a"));
        causes.extend(name_rules(row)(&base).iter().map(|why| invalid("metadata.generateName", generate, why)));
    }
    let root = At::root(object);
    let metadata_place = root.field("metadata");
    shape(&metadata_place, causes);
    if row.custom.is_none() && &*row.group != "apiextensions.k8s.io" {
        standard_finalizers(&metadata_place.field("finalizers"), causes);
    }
    validate_no_new_finalizers(old, object, causes);
    if let Some(old) = old {
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            let (was, is) = (&old["metadata"][field], &metadata[field]);
            if was != is {
                causes.push(invalid(&format!("metadata.{field}"), is.as_str().unwrap_or_default(), "field is immutable"));
            }
        }
    }
}

/// Everything that can be wrong with the metadata of an object that is embedded in another one.
pub fn check_embedded(metadata: &Value, path: Path<'_>, causes: &mut Vec<Cause>) {
    let place = At::new(metadata, path);
    for field in ["name", "generateName"] {
        place.field(field).optional_syntax(causes, names::path_segment);
    }
    place.field("namespace").optional_syntax(causes, names::dns_label);
    place.field("generation").non_negative(causes);
    shape(&place, causes);
}

/// What is checked of any metadata but its name.
fn shape(metadata: &At<'_, '_>, causes: &mut Vec<Cause>) {
    label_map(&metadata.field("labels"), causes);
    annotation_map(&metadata.field("annotations"), causes);
    validate_finalizers(&metadata.field("finalizers"), causes);
    validate_owners(&metadata.field("ownerReferences"), causes);
}

fn validate_finalizers(list: &At<'_, '_>, causes: &mut Vec<Cause>) {
    let texts: Vec<&str> = list.items().map(|finalizer| finalizer.text()).collect();
    for finalizer in &texts {
        names::qualified_name(finalizer).iter().for_each(|why| list.invalid_value(causes, *finalizer, why));
    }
    if texts.len() > MAX_LIST {
        list.too_many(causes, MAX_LIST);
    }
    if texts.contains(&"orphan") && texts.contains(&"foregroundDeletion") {
        list.invalid(causes, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Finalizers of built-in kinds name whose they are. (Of custom kinds and their definitions upstream asks no more than a name.)
fn standard_finalizers(list: &At<'_, '_>, causes: &mut Vec<Cause>) {
    for finalizer in list.items() {
        let name = finalizer.text();
        if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
            list.invalid_value(causes, name, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

fn validate_no_new_finalizers(old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| deleting(old)) else { return };
    let (list, before) = (finalizers(object), finalizers(old));
    let added: Vec<&&str> = list.iter().filter(|finalizer| !before.contains(finalizer)).collect();
    if !added.is_empty() {
        let message = format!("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        causes.push(cause("FieldValueForbidden", "metadata.finalizers", message));
    }
}

fn validate_owners(owners: &At<'_, '_>, causes: &mut Vec<Cause>) {
    if owners.len() > MAX_LIST {
        owners.too_many(causes, MAX_LIST);
    }
    for owner in owners.items() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.field(field).text().is_empty() {
                owner.field(field).invalid_value(causes, "", "must not be empty");
            }
        }
    }
    let controllers: Vec<&str> = owners
        .items()
        .filter(|owner| owner.field("controller").is_true())
        .map(|owner| owner.field("name").value.as_str().unwrap_or_default())
        .collect();
    if let [first, second, ..] = controllers.as_slice() {
        let why = format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}");
        owners.invalid(causes, &why);
    }
}

/// The namespace and name in a body, reconciled with those of the request path.
pub fn agree_with_path(object: &mut Value, namespace: &str, name: &str) -> Result<(), Status> {
    let metadata = of(object);
    let said = |metadata: &Map<String, Value>, field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let its = said(metadata, "namespace");
    if its.is_empty() {
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), Value::String(namespace.into()));
        }
    } else if its != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({its} is not {})",
            if namespace.is_empty() { "cluster-scoped" } else { namespace }
        )));
    }
    if namespace.is_empty() {
        metadata.remove("namespace");
    }
    let its = said(metadata, "name");
    if !name.is_empty() {
        if its.is_empty() {
            metadata.insert("name".into(), Value::String(name.into()));
        } else if its != name {
            return Err(Status::bad_request(format!("the name of the object ({its}) does not match the name on the URL ({name})")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(plural: &str) -> Resource {
        coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == plural).expect("row")
    }

    fn causes(old: Option<Value>, object: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&row("configmaps"), old.as_ref(), &object, &mut causes);
        causes.into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn bad_metadata_is_named_field_by_field() {
        assert!(causes(None, json!({"metadata": {"name": "a", "labels": {"a/b": "c"}, "generateName": "a-"}})).is_empty());
        assert_eq!(causes(None, json!({"metadata": {}})), ["metadata.name"]);
        assert_eq!(causes(None, json!({"metadata": {"name": "A_"}})), ["metadata.name"]);
        assert_eq!(causes(None, json!({"metadata": {"name": "a", "labels": {"x": "-"}}})), ["metadata.labels"]);
        assert_eq!(causes(None, json!({"metadata": {"name": "a", "finalizers": ["mine"]}})), ["metadata.finalizers"]);
        assert_eq!(causes(None, json!({"metadata": {"name": "a", "annotations": {"x": "y".repeat(300_000)}}})), ["metadata.annotations"]);
        assert_eq!(
            causes(None, json!({"metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}})),
            ["metadata.ownerReferences[0].uid"]
        );
    }

    #[test]
    fn a_deleted_object_gets_no_new_finalizer() {
        let old = json!({"metadata": {"name": "a", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        assert_eq!(causes(Some(old.clone()), json!({"metadata": {"name": "a", "finalizers": ["a/b", "a/c"]}})), ["metadata.finalizers"]);
        assert!(causes(Some(old), json!({"metadata": {"name": "a"}})).is_empty());
    }

    #[test]
    fn generation_counts_changes_of_the_spec_only() {
        let row = row("deployments");
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"b": 1}});
        let mut new = json!({"metadata": {"generation": 3, "labels": {}}, "spec": {"a": 1}, "status": {"b": 2}});
        bump_generation(&row, &old, &mut new);
        assert_eq!(new["metadata"]["generation"], 3);
        new["spec"]["a"] = json!(2);
        bump_generation(&row, &old, &mut new);
        assert_eq!(new["metadata"]["generation"], 4);
    }

    #[test]
    fn body_and_path_must_agree() {
        let mut object = json!({"metadata": {"name": "a"}});
        agree_with_path(&mut object, "ns", "a").expect("agrees");
        assert_eq!(object["metadata"]["namespace"], "ns");
        assert_eq!(agree_with_path(&mut object, "other", "a").expect_err("namespace").code, 400);
        assert_eq!(agree_with_path(&mut object, "ns", "b").expect_err("name").code, 400);
    }
}
