//! `pods/binding`: the scheduler's decision, once.

use super::{annotations, write};
use crate::{
    pipeline::{Answer, Core, Request, decode, handle},
    resources::{
        Hooks,
        rules::{
            At, Causes,
            labels::{annotation_map, label_map},
        },
    },
};
use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// Rules of a `Binding`. (Its labels and annotations become the pod's, which upstream does not look at: the pod could not be updated any more.)
pub fn validate(binding: &Value, causes: &mut Causes) {
    let root = At::root(binding);
    let metadata = root.field("metadata");
    label_map(&metadata.field("labels"), causes);
    annotation_map(&metadata.field("annotations"), causes);
    let target = root.field("target");
    let kind = target.field("kind");
    if !matches!(kind.text(), "" | "Node") {
        kind.unsupported(causes, &["Node", "<empty>"]);
    }
    target.field("name").required(causes, "");
}

/// Puts the pod on the node of the binding; a sentence where it cannot be.
pub fn assign(pod: &mut Value, binding: &Value, now: &str) -> Result<(), String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            pod["metadata"][map][key.as_str()] = value.clone();
        }
    }
    let status = &mut pod["status"];
    if !status.is_object() {
        *status = json!({});
    }
    if let Some(status) = status.as_object_mut() {
        status.remove("nominatedNodeName");
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        None => status["conditions"] = json!([scheduled]),
        Some(conditions) => match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
            Some(place) => *place = scheduled,
            None => conditions.push(scheduled),
        },
    }
    Ok(())
}

/// Serves `POST …/pods/NAME/binding`.
pub async fn bind(core: &Arc<Core>, request: &Request) -> Result<Answer, Status> {
    let binding = decode::body(core, request)?;
    if binding["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty() && name != request.name) {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut causes = Causes::new();
    validate(&binding, &mut causes);
    if !causes.is_empty() {
        return Err(Status::invalid("", "Binding", &request.name, causes));
    }
    let binding = core.admit(request, binding).await?;
    write::change(core, request, |stored, pod, now| {
        write::precondition(stored, &binding)?;
        let before = pod.clone();
        assign(pod, &binding, now).map_err(|why| Status::conflict("", "pods/binding", &request.name, &why))?;
        let mut causes = Causes::new();
        annotation_map(&At::root(pod).field("metadata").field("annotations"), &mut causes);
        annotations::update(&before, pod, &mut causes);
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid("", "Pod", &request.name, causes)) }
    })
    .await?;
    Ok(Answer::Value { code: 201, value: write::success() })
}

/// Hooks of `bindings`, the older way: the pod is named in the body.
pub struct Bindings;

#[async_trait]
impl Hooks for Bindings {
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        Some(by_name(core, request).await)
    }
}

async fn by_name(core: &Arc<Core>, request: &Request) -> Result<Answer, Status> {
    let binding = decode::body(core, request)?;
    let name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let pods = core.registry.by_kind("", "v1", "Pod").ok_or_else(handle::no_such_path)?;
    bind(core, &Request { resource: pods, subresource: "binding".into(), name, ..request.clone() }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"name": "a", "annotations": {"x": "y"}}, "target": {"kind": "Node", "name": "n1"}});
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Pending", "nominatedNodeName": "n2",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}});
        assign(&mut pod, &binding, "2026-01-02T03:04:05Z").expect("free");
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["x"], "y");
        assert_eq!(
            pod["status"],
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]})
        );
        assert_eq!(assign(&mut pod, &binding, "").expect_err("bound"), "pod a is already assigned to node \"n1\"");
        let mut gone = json!({"metadata": {"name": "a", "deletionTimestamp": "x"}});
        assert_eq!(assign(&mut gone, &binding, "").expect_err("gone"), "pod a is being deleted, cannot be assigned to a host");
    }

    #[test]
    fn a_binding_names_a_node() {
        let mut causes = Vec::new();
        validate(&json!({"target": {"kind": "Pod"}}), &mut causes);
        assert_eq!(
            lines(&causes),
            ["target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"", "target.name: Required value"]
        );
    }

    #[test]
    fn what_a_binding_gives_the_pod_is_checked() {
        let mut causes = Vec::new();
        let metadata = json!({"labels": {"a b": "ok", "fine": "no spaces"}, "annotations": {"-x": "y", "large": "z".repeat(300_000)}});
        validate(&json!({"metadata": metadata, "target": {"name": "n1"}}), &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["metadata.labels", "metadata.labels", "metadata.annotations", "metadata.annotations"]);
    }
}
