use super::*;
use crate::resources::rules::lines;
use serde_json::json;

fn wrong(old: Option<Value>, spec: Value) -> Vec<String> {
    let mut causes = Vec::new();
    validate(old.map(|spec| json!({"spec": spec})).as_ref(), &json!({"spec": spec}), &mut causes);
    lines(&causes)
}

fn good() -> Value {
    json!({
        "minReplicas": 1, "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = good();
    change(&mut spec);
    spec
}

#[test]
fn bounds_and_target() {
    assert_eq!(wrong(None, good()), Vec::<String>::new());
    assert_eq!(
        wrong(None, json!({"minReplicas": 0, "maxReplicas": -1, "scaleTargetRef": {"kind": "Deployment", "apiVersion": "apps"}})),
        [
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
            "spec.scaleTargetRef.name: Required value",
            "spec.scaleTargetRef.apiVersion: Invalid value: \"apps\": apiVersion must specify API group",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ]
    );
    let core = json!({"kind": "ReplicationController", "name": "a", "apiVersion": "v1"});
    assert_eq!(wrong(None, with(|spec| spec["scaleTargetRef"] = core)), Vec::<String>::new());
    let stale = with(|spec| spec["scaleTargetRef"]["apiVersion"] = "".into());
    assert_eq!(wrong(Some(stale.clone()), stale), Vec::<String>::new(), "what was there before this rule stays");
}

#[test]
fn metrics_have_one_source_and_one_target() {
    let metric = |metric: Value| wrong(None, with(|spec| spec["metrics"] = json!([metric])));
    assert_eq!(
        metric(json!({"type": "Resource", "pods": {"metric": {"name": "a/b"}, "target": {"type": "Often", "averageValue": "0"}}})),
        [
            "spec.metrics[0].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.metrics[0].pods.target.type: Invalid value: \"Often\": must be either Utilization, Value, or AverageValue",
            "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ]
    );
    assert_eq!(
        metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}})),
        ["spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"]
    );
    assert_eq!(
        metric(json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1", "averageValue": "1"}}})),
        ["spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"]
    );
    let both = json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1"}},
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}}});
    assert_eq!(metric(both), ["spec.metrics[0].resource: Forbidden: must populate the given metric source only"]);
    assert_eq!(metric(json!({"type": "Other"})).len(), 2);
}

#[test]
fn behavior_is_bounded() {
    let rules = json!({"scaleDown": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Some", "tolerance": "-1", "policies": [
        {"type": "Cores", "value": 0, "periodSeconds": 1801}]}, "scaleUp": {"stabilizationWindowSeconds": -1}});
    assert_eq!(
        wrong(None, with(|spec| spec["behavior"] = rules)),
        [
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
            "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
            "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \"Min\"",
            "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Cores\": supported values: \"Percent\", \"Pods\"",
            "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            "spec.behavior.scaleDown.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
        ]
    );
}

#[test]
fn rows_show_what_is_and_what_should_be() {
    let object = json!({"metadata": {"name": "web"}, "spec": with(|spec| {
        let metrics = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        spec["metrics"].as_array_mut().expect("metrics").push(metrics);
    }), "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}]}});
    assert_eq!(
        cells::golden(&row(&object), "2026-01-02T03:04:05Z"),
        "web | Deployment/web | cpu: 12%/50%, memory: <unknown>/1Gi | 1 | 5 | 2 | <unknown>"
    );
    assert_eq!(targets(&json!({})), "<none>");
}
