//! Node: what its table says, and what a node object may hold.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, NAME, condition, list, text_or},
    rules::{At, Causes, labels::label_key, quantities, syntax},
};
use crate::{
    nodes,
    pipeline::{Answer, Core, Request},
};
use async_trait::async_trait;
use coracle_api::{
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};

/// Hooks of `nodes`.
pub struct Node;

const HEADINGS: &[cells::Heading] = &[
    NAME,
    ("Status", "Whether the node is ready, and whether pods may be placed on it."),
    ("Roles", "Roles by its labels."),
    AGE,
    ("Version", "Version that the node agent reports."),
    ("+Internal-IP", "Address inside the cluster's network."),
    ("+External-IP", "Address outside the cluster's network."),
    ("+OS-Image", "Operating system of the node."),
    ("+Kernel-Version", "Kernel of the node and its architecture."),
    ("+Container-Runtime", "Runtimes of the node."),
];

#[async_trait]
impl Hooks for Node {
    fn status_on_create(&self) -> bool {
        true
    }
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        configuration(None, new);
        Ok(())
    }
    fn prepare_update(&self, _cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        configuration(Some(old), new);
        Ok(())
    }
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(old, new, causes);
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        nodes::serve(core, request).await
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        node_cells(object)
    }
}

/// Configuration by the API is long gone: what is not there already is dropped.
fn configuration(old: Option<&Value>, new: &mut Value) {
    for (part, field) in [("spec", "configSource"), ("status", "config")] {
        if old.is_none_or(|old| old[part][field].is_null())
            && let Some(part) = new.get_mut(part).and_then(Value::as_object_mut)
        {
            part.remove(field);
        }
    }
}

fn node_cells(node: &Value) -> Vec<Value> {
    let (spec, status) = (&node["spec"], &node["status"]);
    let mut state = match condition(&status["conditions"], "Ready") {
        Some("True") => "Ready".to_string(),
        Some(_) => "NotReady".to_string(),
        None => "Unknown".to_string(),
    };
    if spec["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let info = &status["nodeInfo"];
    let kernel = text_or(&info["kernelVersion"], "<unknown>");
    let kernel = match info["architecture"].as_str() {
        Some(arch) if !arch.is_empty() => format!("{kernel} ({arch})"),
        _ => kernel,
    };
    let address = |kind: &str| -> String {
        list(&status["addresses"]).iter().find(|a| a["type"] == kind).map_or("<none>", |a| a["address"].as_str().unwrap_or_default()).into()
    };
    vec![
        cells::name(node),
        state.into(),
        roles(node).into(),
        age::of(node),
        text_or(&info["kubeletVersion"], "").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        text_or(&info["osImage"], "<unknown>").into(),
        kernel.into(),
        text_or(&info["containerRuntimeVersion"], "<unknown>").into(),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or_default(),
            None => continue,
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

/// What a node may hold; `old` on update.
pub fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    // Upstream names this place so.
    let metadata = root.field("metadata");
    taints(&metadata.field("taints").with(&new["spec"]["taints"]), causes);
    let status = root.field("status");
    for name in ["capacity", "allocatable"] {
        quantities::non_negative_list(&status.field(name), causes);
    }
    let place = metadata.field("nodeSwapStatus");
    place.field("capacity").with(&new["status"]["nodeInfo"]["swap"]["capacity"]).positive(causes);
    features(&status.field("declaredFeatures"), causes);
    let ranges = spec.field("podCIDRs");
    for range in ranges.items().filter(|range| old.is_none_or(|old| !list(&old["spec"]["podCIDRs"]).contains(range.value))) {
        range.syntax(causes, syntax::cidr);
    }
    let families: BTreeSet<_> = ranges.items().filter_map(|range| syntax::range(range.text())).map(|(ip, _)| ip.is_ipv4()).collect();
    if ranges.len() > 1 && families.len() != ranges.len() {
        ranges.invalid(causes, "may specify no more than one CIDR for each IP family");
    }
    if let Some(old) = old {
        update(old, &root, causes);
    }
}

/// `MyFeature`, `MyFeature/part`: sorted, each once.
fn features(at: &At<'_, '_>, causes: &mut Causes) {
    let named = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.split('/').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric()))
    };
    let mut before = "";
    for feature in at.items() {
        let name = feature.text();
        if name.len() > 253 {
            feature.invalid(causes, &format!("invalid feature name {name:?}: must be no more than 253 characters"));
        } else if !named(name) {
            feature.invalid(causes, &format!("invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"));
        }
        if name == before {
            feature.duplicate(causes);
        } else if name < before {
            feature.invalid(causes, "list must be sorted alphabetically");
        }
        before = name;
    }
}

fn update(old: &Value, root: &At<'_, '_>, causes: &mut Causes) {
    let (spec, status) = (root.field("spec"), root.field("status"));
    let mut seen = BTreeSet::new();
    for address in status.field("addresses").items() {
        if !seen.insert((address.value["type"].as_str(), address.value["address"].as_str())) {
            address.duplicate(causes);
        }
    }
    for (name, message) in [
        ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
    ] {
        let (before, now) = (&old["spec"][name], spec.field(name));
        if !before.is_null() && before != "" && now.value != before {
            now.forbidden(causes, message);
        }
    }
    let external = spec.field("externalID");
    if external.value != &old["spec"]["externalID"] {
        external.forbidden(causes, "may not be updated");
    }
}

fn taints(taints: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let key = taint.field("key");
        label_key(&key, causes);
        let value = taint.field("value");
        let wrong = coracle_api::names::label_value(value.text());
        if !wrong.is_empty() {
            value.invalid(causes, &wrong.join(";"));
        }
        let effect = taint.field("effect");
        effect.required_one_of(causes, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((key.text(), effect.text())) {
            taint.duplicate_because(causes, "taints must be unique by key and effect pair");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let node = json!({
            "metadata": {"name": "n1", "creationTimestamp": "2026-01-02T03:04:00Z", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.18.0", "architecture": "amd64", "osImage": "Debian", "containerRuntimeVersion": "coracle://0.1"}},
        });
        assert_eq!(
            cells::golden(&node_cells(&node), "2026-01-02T03:04:05Z"),
            "n1 | NotReady,SchedulingDisabled | control-plane,edge | 5s | v1.36.0 | 10.0.0.1 | <none> | Debian | 6.18.0 (amd64) | coracle://0.1"
        );
        assert_eq!(node_cells(&node).len(), HEADINGS.len());
    }

    #[test]
    fn taints_are_checked() {
        let node = json!({"spec": {"taints": [{"key": "a", "effect": "Nope"}, {"key": "a", "value": "-", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "-1"}}});
        let mut causes = Vec::new();
        validate(None, &node, &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "metadata.taints[0].effect: Unsupported value: \"Nope\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                "metadata.taints[1].value: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "metadata.taints[2]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            ]
        );
    }
}
