//! Pod templates inside workloads: metadata and the pod's own rules.

use super::spec;
use crate::resources::rules::{At, Causes, labels::label_map};
use coracle_api::names;
use serde_json::Value;

/// Most bytes of annotations on one object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// A template at its place in a workload.
pub fn validate(_old: Option<&Value>, template: &At<'_, '_>, causes: &mut Causes) {
    // Upstream names these places without `metadata`.
    let metadata = &template.value["metadata"];
    label_map(&template.field("labels").with(&metadata["labels"]), causes);
    annotations(&template.field("annotations").with(&metadata["annotations"]), causes);
    let pod = template.field("spec");
    spec::validate(&pod, spec::Of::Template, causes);
    let ephemeral = pod.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(causes, "ephemeral containers not allowed in pod template");
    }
}

fn annotations(map: &At<'_, '_>, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in map.entries() {
        for why in names::qualified_name(&key.to_lowercase()) {
            map.invalid_value(causes, key, &why);
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_ANNOTATIONS {
        map.too_long(causes, MAX_ANNOTATIONS);
    }
}
