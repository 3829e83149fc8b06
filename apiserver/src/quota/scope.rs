//! Scopes: which objects a quota is about.

use crate::resources::{cells::list, pod::qos};
use coracle_api::selector::Selector;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Whether a quota is about some objects only.
pub fn is_scoped(quota: &Value) -> bool {
    !list(&quota["spec"]["scopes"]).is_empty() || !list(&quota["spec"]["scopeSelector"]["matchExpressions"]).is_empty()
}

/// Whether all scopes of a quota take an object in. Only pods and claims are in any.
pub fn matches(quota: &Value, id: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = list(&spec["scopes"]).iter().map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = list(&spec["scopeSelector"]["matchExpressions"]).iter().cloned();
    plain.chain(selected).all(|requirement| match id {
        "pods" => pod(&requirement, object),
        "persistentvolumeclaims" => claim(&requirement, object),
        _ => false,
    })
}

/// Whether a pod has an end of its own.
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn pod(requirement: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    match requirement["scopeName"].as_str() {
        Some("Terminating") => is_terminating(pod),
        Some("NotTerminating") => !is_terminating(pod),
        Some("BestEffort") => qos::class(spec) == "BestEffort",
        Some("NotBestEffort") => qos::class(spec) != "BestEffort",
        Some(scope @ "PriorityClass") => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            if requirement["operator"] == "Exists" { class.is_some() } else { selects(requirement, scope, class) }
        }
        Some("CrossNamespacePodAffinity") => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// A requirement about one value, as about a label of the scope's name.
fn selects(requirement: &Value, scope: &str, value: Option<&str>) -> bool {
    let mut expression = json!({"key": scope, "operator": requirement["operator"]});
    if !requirement["values"].is_null() {
        expression["values"] = requirement["values"].clone();
    }
    let labels = value.map_or_else(|| json!({}), |value| json!({scope: value}));
    Selector::from_object(&json!({"matchExpressions": [expression]})).is_ok_and(|selector| selector.matches_labels(&labels))
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = list(&affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
        let preferred = list(&affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"]).iter().map(|weighted| &weighted["podAffinityTerm"]);
        required.chain(preferred).any(|term| !list(&term["namespaces"]).is_empty() || !term["namespaceSelector"].is_null())
    })
}

/// Names of the attribute classes that a claim has, had or shall have.
pub fn attribute_classes(claim: &Value) -> BTreeSet<&str> {
    let status = &claim["status"];
    [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ]
    .into_iter()
    .filter_map(Value::as_str)
    .filter(|name| !name.is_empty())
    .collect()
}

fn claim(requirement: &Value, claim: &Value) -> bool {
    let Some(scope @ "VolumeAttributesClass") = requirement["scopeName"].as_str() else { return false };
    let classes = attribute_classes(claim);
    if requirement["operator"] == "Exists" {
        return !classes.is_empty();
    }
    if classes.is_empty() { selects(requirement, scope, None) } else { classes.into_iter().any(|class| selects(requirement, scope, Some(class))) }
}
