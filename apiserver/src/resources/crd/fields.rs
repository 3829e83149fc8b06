//! Rules of what a definition says about single fields of its objects: printer columns, scale paths, selectable fields.

use crate::resources::rules::{At, Causes};
use coracle_schema::structural::{Structural, field_path};
use serde_json::Value;

/// Most fields that objects can be selected by.
const MAX_SELECTABLE: usize = 8;

/// A path such as `.spec.replicas`.
fn simple_path(path: &At<'_, '_>, causes: &mut Causes) -> bool {
    if path.text().starts_with('.') {
        return true;
    }
    path.invalid(causes, "must be a simple json path starting with .");
    false
}

/// `subresources`
pub(super) fn subresources(subresources: &At<'_, '_>, causes: &mut Causes) {
    let scale = subresources.field("scale");
    if !scale.is_set() {
        return;
    }
    for (field, below) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.field(field);
        if path.required(causes, "") && simple_path(&path, causes) && !path.text().starts_with(below) {
            path.invalid(causes, &format!("should be a json path under {}", below.trim_end_matches('.')));
        }
    }
    let path = scale.field("labelSelectorPath");
    if !path.text().is_empty() && simple_path(&path, causes) && ![".spec.", ".status."].iter().any(|below| path.text().starts_with(below)) {
        path.invalid(causes, "should be a json path under either .spec or .status");
    }
}

/// `additionalPrinterColumns`
pub(super) fn columns(columns: &At<'_, '_>, causes: &mut Causes) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 9] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "binary"];
    for column in columns.items() {
        column.field("name").required(causes, "");
        let must = |words: &[&str]| {
            let mut words = words.to_vec();
            words.sort_unstable();
            format!("must be one of {}", words.join(","))
        };
        let kind = column.field("type");
        if kind.text().is_empty() {
            kind.missing(causes, &must(&TYPES));
        } else if !TYPES.contains(&kind.text()) {
            kind.invalid(causes, &must(&TYPES));
        }
        let format = column.field("format");
        if !format.text().is_empty() && !FORMATS.contains(&format.text()) {
            format.invalid(causes, &must(&FORMATS));
        }
        // The internal form's name of the field.
        let path = column.field("JSONPath");
        let path = path.with(&column.value["jsonPath"]);
        if path.required(causes, "") {
            simple_path(&path, causes);
        }
    }
}

/// `selectableFields`
pub(super) fn selectable(fields: &At<'_, '_>, schema: &Value, causes: &mut Causes) {
    let Ok(structural) = Structural::parse(schema) else { return };
    let mut seen = Vec::new();
    for field in fields.items() {
        let path = field.field("jsonPath");
        if !path.required(causes, "") {
            continue;
        }
        match field_path(path.text(), structural.root(), false) {
            Err(why) => path.invalid(causes, &format!("is an invalid path: {why}")),
            Ok((normal, node)) => {
                if normal.split('.').next() == Some("metadata") {
                    path.invalid(causes, "must not point to fields in metadata");
                }
                if !matches!(node.kind(), "string" | "boolean" | "integer") {
                    let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                    path.invalid(causes, why);
                }
                if seen.contains(&normal) {
                    path.duplicate(causes);
                } else {
                    seen.push(normal);
                }
            }
        }
    }
    if seen.len() > MAX_SELECTABLE {
        fields.with(&Value::Array(vec![Value::Null; seen.len()])).too_many(causes, MAX_SELECTABLE);
    }
}
