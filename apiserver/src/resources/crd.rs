//! `customresourcedefinitions.apiextensions.k8s.io`: definitions of custom resources.

mod defaults;
mod expressions;
mod fields;
mod schema;
mod spec;
mod structural;
#[cfg(test)]
mod tests;

use super::{
    Cx, Deletion, Hooks,
    rules::{At, Causes},
};
use crate::{
    custom::{
        CLEANUP,
        conditions::{Condition, set},
    },
    pipeline::metadata,
};
use coracle_api::{registry::Column, status::Status};
use coracle_schema::structural::known_format;
use serde_json::{Value, json};

/// See the module.
pub struct Definition;

/// The version that objects are stored in.
fn storage_version(definition: &Value) -> Option<&str> {
    super::cells::list(&definition["spec"]["versions"]).iter().find(|version| version["storage"] == true)?["name"].as_str()
}

/// Formats in a definition's schemas that nobody checks.
fn unknown_formats(definition: &Value) -> Vec<String> {
    fn walk(schema: &Value, found: &mut Vec<String>) {
        let Some(map) = schema.as_object() else { return };
        let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
        if !text("format").is_empty() && !known_format(text("type"), text("format")) {
            found.push(text("format").to_owned());
        }
        for (field, value) in map {
            match field.as_str() {
                "items" | "not" | "additionalProperties" => walk(value, found),
                "allOf" | "anyOf" | "oneOf" => super::cells::list(value).iter().for_each(|schema| walk(schema, found)),
                "properties" => value.as_object().into_iter().flatten().for_each(|(_, schema)| walk(schema, found)),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    for version in super::cells::list(&definition["spec"]["versions"]) {
        walk(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

impl Hooks for Definition {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        let stored: Vec<&str> = storage_version(new).into_iter().collect();
        new["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}, "storedVersions": stored});
        Ok(())
    }

    fn prepare_update(&self, cx: &Cx<'_>, _old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource().is_empty()
            && let Some(version) = storage_version(new).map(Value::from)
            && let Some(stored) = new.pointer_mut("/status/storedVersions").and_then(Value::as_array_mut)
            && !stored.contains(&version)
        {
            stored.push(version);
        }
        Ok(())
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Causes) {
        if cx.subresource() == "status" {
            let root = At::root(new);
            spec::accepted_names(&root.field("status"), causes);
        } else {
            spec::definition(new, spec::Before { old }, causes);
        }
    }

    fn warnings(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        let before = old.map(unknown_formats).unwrap_or_default();
        unknown_formats(new).into_iter().filter(|format| !before.contains(format)).map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn columns(&self) -> Option<Vec<Column>> {
        Some(super::cells::columns(super::simple::CREATED))
    }

    fn cells(&self, object: &Value) -> Vec<Value> {
        super::simple::created_at(object)
    }

    /// Instances go first: the definition waits for them under a finalizer.
    fn delete(&self, cx: &Cx<'_>, object: &mut Value, _grace: Option<i64>) -> Result<Deletion, Status> {
        if !metadata::deleting(object) {
            let mut finalizers: Vec<Value> = super::cells::list(&object["metadata"]["finalizers"]).to_vec();
            if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
                finalizers.push(CLEANUP.into());
            }
            object["metadata"]["finalizers"] = finalizers.into();
            let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".into();
            let condition = Condition { kind: "Terminating", status: "True", reason: "InstanceDeletionPending", message };
            set(&mut object["status"], condition, cx.now);
        }
        Ok(Deletion::Held)
    }
}
