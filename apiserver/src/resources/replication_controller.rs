//! ReplicationController, which ReplicaSets have replaced, and PodTemplate.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, count, joined},
    pod::{template, warnings},
    rules::{At, Causes},
    workload::{always_restarted, replicas, status},
};
use coracle_api::{registry::Column, status::Cause};
use serde_json::Value;

/// Hooks of `replicationcontrollers`.
pub struct ReplicationController;
/// Hooks of `podtemplates`.
pub struct PodTemplate;

const CONTROLLER: &[Heading] = &[
    NAME,
    ("#Desired", "How many pods it should have."),
    ("#Current", "How many pods it has."),
    ("#Ready", "How many of its pods are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const TEMPLATE: &[Heading] = &[
    NAME,
    ("Containers", "Names of the containers in the template."),
    ("Images", "Images of the containers in the template."),
    ("Pod Labels", "Labels of the pods that are made from it."),
];

impl Hooks for ReplicationController {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => {
                let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
                status(old, new, &["replicas", parts[0], parts[1], parts[2], "observedGeneration"], &parts, causes);
            }
            _ => validate(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_workload(old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(CONTROLLER))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let containers = &spec["template"]["spec"]["containers"];
        vec![
            cells::name(object),
            replicas(spec).into(),
            count(&status["replicas"]).into(),
            count(&status["readyReplicas"]).into(),
            age::of(object),
            joined(containers, "name").into(),
            joined(containers, "image").into(),
            cells::labels(&spec["selector"]).into(),
        ]
    }
}

pub(super) fn validate(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    spec.field("minReadySeconds").non_negative(causes);
    let selector = spec.field("selector");
    if selector.is_empty() {
        selector.missing(causes, "");
    }
    spec.field("replicas").non_negative(causes);
    let pods = spec.field("template");
    if !pods.is_set() {
        return pods.missing(causes, "");
    }
    let labels = &new["spec"]["template"]["metadata"]["labels"];
    if selector.entries().any(|(key, value)| labels[key] != *value.value) {
        let metadata = pods.field("metadata");
        metadata.field("labels").invalid_value(causes, labels.clone(), "`selector` does not match template `labels`");
    }
    template::validate(None, &pods, causes);
    always_restarted(&pods, "ReplicationController", causes);
}

impl Hooks for PodTemplate {
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        template::validate(old.map(|old| &old["template"]), &At::root(new).field("template"), causes);
    }
    fn warnings(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        warnings::of_template(&["template"], old, new)
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(TEMPLATE))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let template = &object["template"];
        let containers = &template["spec"]["containers"];
        let labels = cells::labels(&template["metadata"]["labels"]);
        vec![cells::name(object), joined(containers, "name").into(), joined(containers, "image").into(), labels.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn good() -> Value {
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"replicas": 3, "selector": {"app": "web"},
            "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": {"containers": [{"name": "a", "image": "x:1"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1}})
    }

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        validate(None, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(|_| {}), Vec::<String>::new());
        assert_eq!(wrong(|c| c["spec"]["selector"] = json!({})), ["spec.selector: Required value"]);
        assert_eq!(wrong(|c| c["spec"]["template"] = Value::Null), ["spec.template: Required value"]);
        assert_eq!(
            wrong(|c| c["spec"]["selector"] = json!({"app": "db"})),
            ["spec.template.metadata.labels: Invalid value: {\"app\":\"web\",\"tier\":\"front\"}: `selector` does not match template `labels`"]
        );
        assert_eq!(
            wrong(|c| c["spec"]["template"]["spec"]["restartPolicy"] = "Never".into()),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let row = cells::golden(&ReplicationController.cells(&good()), "2026-01-02T03:04:05Z");
        assert_eq!(row, "web | 3 | 2 | 1 | 5s | a | x:1 | app=web");
        let template = json!({"metadata": {"name": "t"}, "template": good()["spec"]["template"]});
        assert_eq!(cells::golden(&PodTemplate.cells(&template), "2026-01-02T03:04:05Z"), "t | a | x:1 | app=web,tier=front");
    }
}
