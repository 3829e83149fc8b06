//! From `kubectl apply` to `kubectl apply --server-side`: what kubectl remembered in its annotation.

use super::View;
use super::compare::{Delta, places};
use super::fields::FieldSet;
use crate::Schema;
use serde_json::Value;

/// Only kubectl's own manager takes part; whoever does not want this calls itself something else.
pub(super) const MANAGER: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Sum of annotation keys and values, bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// The fields that kubectl applied last and that still are as it applied them.
pub(super) fn own(schema: &Schema, live: &Value) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(annotation(live)?).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(&schema.api_version()) {
        return None;
    }
    let view: View<'_> = schema.view();
    if super::check(view, &applied).is_some() {
        return None;
    }
    let mut own = places(view, &applied);
    Delta::between(view, &applied, live).take_from(&mut own);
    Some(own)
}

/// Brings the annotation in line with what was applied, where there is one; one that has become too large goes.
pub(super) fn update(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
        if annotations.is_empty()
            && let Some(metadata) = config.pointer_mut("/metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("annotations");
        }
    }
    let text = format!("{config}\n");
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.insert(ANNOTATION.into(), text.into());
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
