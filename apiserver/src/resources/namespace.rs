//! Namespace: its phase, the finalizer that empties it before it goes, and the namespaces that cannot go.

use super::{
    Cx, Deletion, Hooks, age,
    cells::{self, AGE, NAME, text_or},
    rules::{At, Causes},
};
use crate::bootstrap;
use coracle_api::{
    registry::Column,
    status::{Cause, Status},
};
use coracle_store::Op;
use serde_json::{Value, json};

/// Hooks of `namespaces`.
pub struct Namespace;

/// The label by which selectors find a namespace by its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces without which the cluster does not work.
pub const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

const HEADINGS: &[cells::Heading] = &[NAME, ("Status", "Whether it is in use or being emptied."), AGE];

impl Hooks for Namespace {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        prepare(new);
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        prepare_update(cx.subresource(), old, new);
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(cx.subresource(), old, new, causes);
    }
    fn also(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>, ops: &mut Vec<Op>) -> Result<(), Status> {
        if let (None, Some(name)) = (old, new.and_then(|new| new["metadata"]["name"].as_str())) {
            ops.extend(bootstrap::companion_ops(cx.core, name, cx.now)?);
        }
        Ok(())
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        vec![cells::name(object), text_or(&object["status"]["phase"], "").into(), age::of(object)]
    }
    fn delete(&self, _cx: &Cx<'_>, object: &mut Value, _grace: Option<i64>) -> Result<Deletion, Status> {
        object["status"]["phase"] = "Terminating".into();
        Ok(Deletion::Held)
    }
    fn held(&self, object: &Value) -> bool {
        !cells::list(&object["spec"]["finalizers"]).is_empty()
    }
}

fn label(new: &mut Value) {
    let name = new["metadata"]["name"].clone();
    // A generated name is not known yet when a dry run prepares it; an empty label would be wrong.
    if name.is_string() {
        new["metadata"]["labels"][NAME_LABEL] = name;
    }
}

fn prepare(new: &mut Value) {
    label(new);
    new["status"] = json!({"phase": "Active"});
    let finalizers = &mut new["spec"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|f| f == "kubernetes") => {}
        Some(list) => list.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
}

fn prepare_update(subresource: &str, old: &Value, new: &mut Value) {
    label(new);
    match subresource {
        // Finalizers go only by `finalize`.
        "finalize" => {
            let spec = new["spec"].clone();
            let resource_version = new["metadata"]["resourceVersion"].clone();
            *new = old.clone();
            new["spec"] = spec;
            new["metadata"]["resourceVersion"] = resource_version;
        }
        "status" => {}
        _ => new["spec"]["finalizers"] = old["spec"]["finalizers"].clone(),
    }
}

pub(super) fn validate(subresource: &str, _old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    if subresource == "status" {
        let phase = root.field("status").field("phase").text();
        let deleted = new["metadata"]["deletionTimestamp"].is_string();
        let status = root.field("status");
        if deleted && phase != "Terminating" {
            status.field("Phase").invalid_value(causes, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        if !deleted && phase != "Active" {
            status.field("Phase").invalid_value(causes, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    }
    let spec = root.field("spec");
    let finalizers = spec.field("finalizers");
    for finalizer in finalizers.items() {
        let finalizer = if subresource == "finalize" { finalizer } else { finalizers.with(finalizer.value) };
        finalizer.syntax(causes, coracle_api::names::qualified_name);
        if !finalizer.text().contains('/') && !matches!(finalizer.text(), "kubernetes" | "orphan" | "foregroundDeletion") {
            finalizer.invalid(causes, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_held() {
        let mut new = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Terminating"}});
        prepare(&mut new);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        assert!(Namespace.held(&new));
    }

    #[test]
    fn only_finalize_changes_finalizers() {
        let mut old = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
        prepare(&mut old);
        let without = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"finalizers": []}, "status": {"phase": "Terminating"}});
        let mut new = without.clone();
        prepare_update("", &old, &mut new);
        assert_eq!(new["spec"], old["spec"]);
        let mut new = without;
        prepare_update("finalize", &old, &mut new);
        assert_eq!(
            (&new["spec"]["finalizers"], &new["status"]["phase"], &new["metadata"]["resourceVersion"]),
            (&json!([]), &json!("Active"), &json!("7"))
        );
        assert!(!Namespace.held(&new));
    }
}
