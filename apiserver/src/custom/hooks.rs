//! What is special about the objects of a custom kind: their schema's rules, and the columns their definition asks for.

use super::{Version, columns_of};
use crate::{
    pipeline::{metadata, object},
    resources::{Cx, Hooks},
};
use coracle_api::{
    cause::{Mistake, Path},
    names,
    registry::Column,
    status::{Cause, Status},
};
use coracle_cel::Budget;
use coracle_schema::structural::{self, Trial, Validation};
use serde_json::Value;

/// What makes a value unfit for rules to look at.
const BLOCKING: [Mistake; 5] = [Mistake::NotSupported, Mistake::Required, Mistake::TooLong, Mistake::TooMany, Mistake::TypeInvalid];

impl Hooks for Version {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            metadata::keep(old, new);
        }
        Ok(())
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        let Some(shape) = self.schema().structural() else { return };
        let root = shape.root();
        if cx.subresource() == "status" {
            if let (Some(status), Some(node)) = (new.get("status"), root.property("status")) {
                let old = old.and_then(|old| old.get("status"));
                causes.extend(Validation { value: status, old, base: "status" }.run(node));
            }
        } else {
            causes.extend(Validation { value: new, old, base: "" }.run(root));
            self.validate_scale_spec(new, causes);
        }
        self.validate_scale_status(new, causes);
        if cx.subresource() != "status" {
            structural::embedded(root, new, Path::Root, &metadata::check_embedded, causes);
        }
        let twice = |object: &Value| {
            let mut causes = Vec::new();
            structural::unique(root, object, Path::Root, &mut causes);
            causes
        };
        // A list that was wrong already may stay so.
        let new_twice = twice(new);
        if !new_twice.is_empty() && old.is_none_or(|old| twice(old).is_empty()) {
            causes.extend(new_twice);
        }
        let Some(rules) = shape.rules() else { return };
        if causes.iter().any(|cause| BLOCKING.iter().any(|mistake| cause.reason == mistake.reason())) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            causes.push(Cause::of(Mistake::Invalid, "<nil>", Some(&Value::Null), why));
            return;
        }
        let (broken, warnings) = rules.check(root, Trial { value: new, old, ratchet: true, base: "" }, &mut Budget::default());
        causes.extend(broken);
        warnings.into_iter().for_each(|warning| cx.request.warnings.add(warning));
    }

    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource() == "status" {
            return Vec::new();
        }
        let before = old.map(metadata::finalizers).unwrap_or_default();
        let added = metadata::finalizers(new).into_iter().filter(|finalizer| !before.contains(finalizer));
        added.flat_map(finalizer_warnings).collect()
    }

    fn columns(&self) -> Option<Vec<Column>> {
        Some(columns_of(self))
    }

    fn cells(&self, object: &Value) -> Vec<Value> {
        self.columns.iter().map(|printer| printer.cell(object)).collect()
    }
}

/// What upstream says about finalizers whose names may clash.
fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let about = |why: &str| format!("metadata.finalizers: {finalizer:?}: {why}");
    let mut warnings: Vec<String> = names::qualified_name(finalizer).iter().map(|why| about(why)).collect();
    if !finalizer.contains('/') && !matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes") {
        warnings.push(about(match finalizer.contains('.') {
            true => "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
            false => "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers",
        }));
    }
    warnings
}

impl Version {
    fn validate_scale_spec(&self, new: &Value, causes: &mut Vec<Cause>) {
        if let Some(scale) = &self.scale {
            replicas(new, &scale.spec, causes);
        }
    }

    fn validate_scale_status(&self, new: &Value, causes: &mut Vec<Cause>) {
        let Some(scale) = &self.scale else { return };
        replicas(new, &scale.status, causes);
        if let Some(path) = &scale.selector
            && let value = object::at(new, path)
            && !value.is_null()
            && !value.is_string()
        {
            let why = format!(".{path} accessor error: {value} is of the type {}, expected string", structural::go_type(value));
            causes.push(Cause::of(Mistake::Invalid, format!(".{path}"), Some(&"".into()), &why));
        }
    }
}

/// A count that scale reads must be one.
fn replicas(object: &Value, path: &str, causes: &mut Vec<Cause>) {
    let value = object::at(object, path);
    let place = format!(".{path}");
    let mut invalid = |bad: i64, why: &str| causes.push(Cause::of(Mistake::Invalid, &place, Some(&bad.into()), why));
    match value.as_i64() {
        None if value.is_null() => {}
        None => invalid(0, &format!(".{path} accessor error: {value} is of the type {}, expected int64", structural::go_type(value))),
        Some(count) if count < 0 => invalid(count, "should be a non-negative integer"),
        Some(count) if count > i64::from(i32::MAX) => invalid(count, &format!("should be less than or equal to {}", i32::MAX)),
        Some(_) => {}
    }
}
