//! Deployment and ReplicaSet: what their tables say and what keeps them from making pods that nobody owns.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, count},
    pod::{template, warnings},
    rules::{At, Causes, labels::workload_selector, percent},
};
use coracle_api::{registry::Column, selector::Selector, status::Cause};
use serde_json::Value;

/// Hooks of `deployments.apps`.
pub struct Deployment;
/// Hooks of `replicasets.apps`.
pub struct ReplicaSet;

impl Hooks for Deployment {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => deployment_status(old, new, causes),
            _ => deployment(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_workload(old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(DEPLOYMENT))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images, _] = cells::workload(spec);
        let selector = Selector::from_object(&spec["selector"]).map_or_else(|_| "<invalid>".to_string(), |selector| selector.to_string());
        vec![
            cells::name(object),
            format!("{}/{}", count(&status["readyReplicas"]), replicas(spec)).into(),
            count(&status["updatedReplicas"]).into(),
            count(&status["availableReplicas"]).into(),
            age::of(object),
            containers,
            images,
            selector.into(),
        ]
    }
}

impl Hooks for ReplicaSet {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => replica_set_status(old, new, causes),
            _ => replica_set(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_workload(old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(REPLICA_SET))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images, selector] = cells::workload(spec);
        vec![
            cells::name(object),
            replicas(spec).into(),
            count(&status["replicas"]).into(),
            count(&status["readyReplicas"]).into(),
            age::of(object),
            containers,
            images,
            selector,
        ]
    }
}

const DEPLOYMENT: &[Heading] = &[
    NAME,
    ("Ready", "How many of its pods are ready, of how many."),
    ("Up-to-date", "How many of its pods are of the newest template."),
    ("Available", "How many of its pods have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Heading] = &[
    NAME,
    ("#Desired", "How many pods it should have."),
    ("#Current", "How many pods it has."),
    ("#Ready", "How many of its pods are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// One if nobody says, as defaults have it.
pub(super) fn replicas(spec: &Value) -> i64 {
    spec["replicas"].as_i64().unwrap_or(1)
}

/// What both kinds require of their pods.
fn common(old: Option<&Value>, spec: &At<'_, '_>, causes: &mut Causes) {
    spec.field("replicas").non_negative(causes);
    workload_selector(spec, "deployment", causes);
    let pods = spec.field("template");
    template::validate(old.map(|old| &old["spec"]["template"]), &pods, causes);
    always_restarted(&pods, "ReplicaSet", causes);
    spec.field("minReadySeconds").non_negative(causes);
    if let Some(old) = old {
        spec.field("selector").immutable(causes, &old["spec"]["selector"]);
    }
}

/// Pods of a workload that never ends.
pub(super) fn always_restarted(template: &At<'_, '_>, kind: &str, causes: &mut Causes) {
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    if policy.is_set() && policy.text() != "Always" {
        policy.unsupported(causes, &["Always"]);
    }
    let deadline = pod.field("activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(causes, &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

pub(super) fn replica_set(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    common(old, &root.field("spec"), causes);
}

pub(super) fn deployment(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    common(old, &spec, causes);
    let strategy = spec.field("strategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "Recreate" if rolling.is_set() => rolling.forbidden(causes, "may not be specified when strategy `type` is 'Recreate'"),
        "Recreate" | "" => {}
        "RollingUpdate" => rolling_update(&rolling, causes),
        _ => strategy.unsupported(causes, &["Recreate", "RollingUpdate"]),
    }
    spec.field("revisionHistoryLimit").non_negative(causes);
    let deadline = spec.field("progressDeadlineSeconds");
    deadline.non_negative(causes);
    if deadline.int().is_some_and(|seconds| seconds <= count(&new["spec"]["minReadySeconds"])) {
        deadline.invalid(causes, "must be greater than minReadySeconds");
    }
}

fn rolling_update(rolling: &At<'_, '_>, causes: &mut Causes) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for at in [&unavailable, &surge] {
        percent::int_or_percent(at, causes);
    }
    if percent::is_zero(&unavailable) && percent::is_zero(&surge) {
        unavailable.invalid(causes, "may not be 0 when `maxSurge` is 0");
    }
    percent::not_more_than_all(&unavailable, causes);
}

/// Counts of a status: none of `all` below zero, none of `parts` above `replicas`; collisions only grow.
pub(super) fn counts(old: Option<&Value>, new: &Value, all: &[&str], parts: &[&str], causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    for name in all {
        status.field(name).non_negative(causes);
    }
    for name in parts {
        if count(&new["status"][*name]) > count(&new["status"]["replicas"]) {
            status.field(name).invalid(causes, "cannot be greater than status.replicas");
        }
    }
    let collisions = count(&new["status"]["collisionCount"]);
    if old.is_some_and(|old| collisions < count(&old["status"]["collisionCount"])) {
        status.field("collisionCount").invalid_value(causes, collisions, "cannot be decremented");
    }
}

/// The same, and no more available than ready.
pub(super) fn status(old: Option<&Value>, new: &Value, all: &[&str], parts: &[&str], causes: &mut Causes) {
    counts(old, new, all, parts, causes);
    let root = At::root(new);
    let status = root.field("status");
    let available = status.field("availableReplicas");
    if count(available.value) > count(&new["status"]["readyReplicas"]) {
        available.invalid(causes, "cannot be greater than readyReplicas");
    }
}

fn deployment_status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    let all = ["observedGeneration", "replicas", parts[0], parts[1], parts[2], "unavailableReplicas", "terminatingReplicas", "collisionCount"];
    status(old, new, &all, &parts, causes);
}

fn replica_set_status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    status(old, new, &["replicas", parts[0], parts[1], parts[2], "observedGeneration", "terminatingReplicas"], &parts, causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn good() -> Value {
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"replicas": 3,
            "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
            "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}})
    }

    fn wrong(rule: fn(Option<&Value>, &Value, &mut Causes), old: Option<&Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        rule(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let now = "2026-01-02T03:04:05Z";
        assert_eq!(cells::golden(&Deployment.cells(&good()), now), "web | 2/3 | 3 | 2 | 5s | a,b | x:1,y:2 | app=web");
        assert_eq!(cells::golden(&ReplicaSet.cells(&good()), now), "web | 3 | 3 | 2 | 5s | a,b | x:1,y:2 | app=web");
        assert_eq!((Deployment.cells(&good()).len(), ReplicaSet.cells(&good()).len()), (DEPLOYMENT.len(), REPLICA_SET.len()));
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(deployment, None, |_| {}), Vec::<String>::new());
        type Case = (fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (|d| d["spec"]["replicas"] = (-1).into(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            (
                |d| d["spec"]["template"]["spec"]["restartPolicy"] = "Never".into(),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (|d| d["spec"]["template"]["spec"]["containers"] = json!([]), "spec.template.spec.containers: Required value"),
            (
                |d| d["spec"]["strategy"]["type"] = "Recreate".into(),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                |d| d["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 0, "maxUnavailable": "0%"}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            ),
            (
                |d| d["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = "101%".into(),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                |d| d["spec"]["progressDeadlineSeconds"] = 0.into(),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
            (
                |d| d["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
            ),
        ];
        for (change, want) in cases {
            assert_eq!(wrong(deployment, None, change), [*want]);
        }
        let change = |d: &mut Value| {
            d["spec"]["selector"] = json!({"matchLabels": {"tier": "web"}});
            d["spec"]["template"]["metadata"]["labels"]["tier"] = "web".into();
        };
        let want = ["spec.selector: Invalid value: {\"matchLabels\":{\"tier\":\"web\"}}: field is immutable"];
        assert_eq!(wrong(deployment, Some(&good()), change), want);
        assert_eq!(wrong(replica_set, Some(&good()), change), want);
    }

    #[test]
    fn a_status_adds_up() {
        let mut causes = Vec::new();
        deployment_status(None, &json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": -1}}), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            ]
        );
    }
}
