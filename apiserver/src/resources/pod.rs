//! Pod: hooks, and the parts they are made of.
//!
//! A pod's rules are also the rules of every pod template; each part takes the place where its specification stands.

mod account;
pub mod annotations;
pub mod binding;
pub mod cells;
pub mod containers;
pub mod env;
pub mod ephemeral;
pub mod eviction;
pub mod probes;
pub mod qos;
pub mod requests;
pub mod resize;
pub mod scheduling;
pub mod security;
pub mod spec;
pub mod status;
pub mod template;
pub mod update;
pub mod volumes;
pub mod warnings;
mod write;

use super::{
    Cx, Deletion, Hooks,
    rules::{At, Causes},
};
use crate::{
    nodes,
    pipeline::{Answer, Core, Request, Verb},
};
use async_trait::async_trait;
use coracle_api::{
    registry::Column,
    status::{Cause, Status},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Hooks of `pods`.
pub struct Pod;

#[async_trait]
impl Hooks for Pod {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        prepare(new, &cx.timestamp());
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        match cx.subresource() {
            "status" => status::keep(old, new),
            "ephemeralcontainers" => ephemeral::keep_the_rest(old, new),
            "resize" => resize::keep_the_rest(old, new),
            _ => open_gates(new, &cx.timestamp()),
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if let Some(old) = old {
            annotations::update(old, new, causes);
        }
        match (cx.subresource(), old) {
            ("status", Some(old)) => status::validate(old, new, causes),
            ("ephemeralcontainers", Some(old)) => ephemeral::update(old, new, causes),
            ("resize", Some(old)) => resize::update(old, new, causes),
            (_, Some(old)) => update::validate(old, new, causes),
            (_, None) => create(new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_pod(old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(super::cells::columns(cells::HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        cells::cells(object)
    }
    fn delete(&self, _cx: &Cx<'_>, object: &mut Value, grace: Option<i64>) -> Result<Deletion, Status> {
        Ok(grace_of(object, grace))
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        match &*request.subresource {
            "" => {
                if request.verb == Verb::Create {
                    account::settle(core, &request.namespace).await;
                }
                None
            }
            "binding" => Some(binding::bind(core, request).await),
            "eviction" => Some(eviction::evict(core, request).await),
            _ => nodes::serve(core, request).await,
        }
    }
}

fn prepare(pod: &mut Value, now: &str) {
    let class = qos::class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
    if !super::cells::list(&pod["spec"]["schedulingGates"]).is_empty() {
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastTransitionTime": now}]);
    }
}

/// The last scheduling gate is gone: the pod waits for the scheduler like any other.
fn open_gates(pod: &mut Value, _now: &str) {
    if !super::cells::list(&pod["spec"]["schedulingGates"]).is_empty() {
        return;
    }
    if let Some(conditions) = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != "PodScheduled" || condition["reason"] != "SchedulingGated");
    }
}

pub(super) fn create(pod: &Value, causes: &mut Causes) {
    let root = At::root(pod);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    annotations::validate(&metadata.field("annotations"), spec.value, causes);
    if annotations::is_mirror(pod) && !spec.field("resourceClaims").is_empty() {
        root.forbidden(causes, "static pods do not support resource claims");
    }
    spec::validate(&spec, spec::Of::Pod, causes);
    only_for_pods(&spec, causes);
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(causes, "cannot be set on create");
    }
    if !spec.field("nodeName").is_empty() && !spec.field("schedulingGates").is_empty() {
        spec.field("nodeName").forbidden(causes, "cannot be set until all schedulingGates have been cleared");
    }
}

/// What templates may hold and pods may not.
fn only_for_pods(spec: &At<'_, '_>, causes: &mut Causes) {
    if spec.field("serviceAccountName").is_empty() {
        for volume in spec.field("volumes").items() {
            let projected = volume.field("projected");
            for source in projected.field("sources").items() {
                let token = source.field("serviceAccountToken");
                if token.is_set() {
                    token.forbidden(causes, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.field(list).items() {
            let image = container.field("image");
            if image.text() != image.text().trim() {
                image.invalid(causes, "must not have leading or trailing whitespace");
            }
        }
    }
}

/// How long a pod has to end: what the client says, else what the pod says; nothing for one that no node has begun or that has ended.
fn grace_of(pod: &Value, asked: Option<i64>) -> Deletion {
    let seconds = asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    let unbound = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    match seconds {
        _ if unbound || ended => Deletion::Now,
        0 => Deletion::Now,
        // A period below zero was once accepted; it means the shortest one.
        seconds => Deletion::Grace(seconds.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    #[test]
    fn a_new_pod_is_pending() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
        prepare(&mut pod, "2026-01-02T03:04:05Z");
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        pod["spec"]["schedulingGates"] = json!([{"name": "a"}]);
        prepare(&mut pod, "2026-01-02T03:04:05Z");
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        pod["spec"]["schedulingGates"] = json!([]);
        open_gates(&mut pod, "2026-01-02T03:04:06Z");
        assert_eq!(pod["status"]["conditions"], json!([]));
    }

    #[test]
    fn grace_is_for_pods_that_run_somewhere() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        assert_eq!(grace_of(&pod("n1", "Running"), None), Deletion::Grace(30));
        assert_eq!(grace_of(&pod("n1", "Running"), Some(5)), Deletion::Grace(5));
        assert_eq!(grace_of(&pod("n1", "Running"), Some(0)), Deletion::Now);
        assert_eq!(grace_of(&pod("n1", "Running"), Some(-1)), Deletion::Grace(1));
        assert_eq!(grace_of(&pod("", "Pending"), None), Deletion::Now);
        assert_eq!(grace_of(&pod("n1", "Succeeded"), None), Deletion::Now);
    }

    #[test]
    fn pods_have_rules_that_templates_have_not() {
        let mut causes = Vec::new();
        let pod = json!({"spec": {"nodeName": "n1", "schedulingGates": [{"name": "a"}], "containers": [{"name": "a", "image": " x "}],
            "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}]}});
        create(&pod, &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
                "spec.containers[0].image: Invalid value: \" x \": must not have leading or trailing whitespace",
                "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            ]
        );
    }
}
