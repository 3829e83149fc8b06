//! Pod templates inside workloads: metadata and the pod's own rules.

use super::{annotations, spec};
use crate::resources::rules::{
    At, Causes,
    labels::{annotation_map, label_map},
};
use serde_json::Value;

/// A template at its place in a workload.
pub fn validate(_old: Option<&Value>, template: &At<'_, '_>, causes: &mut Causes) {
    // Upstream names these places without `metadata`.
    let metadata = &template.value["metadata"];
    label_map(&template.field("labels").with(&metadata["labels"]), causes);
    annotation_map(&template.field("annotations").with(&metadata["annotations"]), causes);
    let pod = template.field("spec");
    annotations::validate(&template.field("annotations").with(&metadata["annotations"]), pod.value, causes);
    spec::validate(&pod, spec::Of::Template, causes);
    let ephemeral = pod.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(causes, "ephemeral containers not allowed in pod template");
    }
}
