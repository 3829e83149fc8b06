//! DaemonSet: a pod for every node, and the count of its templates.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, count},
    pod::{template, warnings},
    rules::{At, Causes, labels, percent},
    workload::{always_restarted, counts},
};
use coracle_api::{
    registry::Column,
    selector::Selector,
    status::{Cause, Status},
};
use serde_json::{Value, json};

/// Hooks of `daemonsets.apps`.
pub struct DaemonSet;

const HEADINGS: &[Heading] = &[
    NAME,
    ("#Desired", "How many nodes should have one of its pods."),
    ("#Current", "How many of those have one."),
    ("#Ready", "How many of those have one that is ready."),
    ("#Up-to-date", "How many of those have one of the newest template."),
    ("#Available", "How many of those have one that has been ready for long enough."),
    ("Node Selector", "Labels of the nodes that should have one."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Counts the templates of a DaemonSet; upstream's `spec.templateGeneration`, which v1 carries as an annotation.
const GENERATION: &str = "deprecated.daemonset.template.generation";

impl Hooks for DaemonSet {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        let given = generation(new).max(1);
        new["metadata"]["annotations"][GENERATION] = json!(given.to_string());
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource().is_empty() {
            let changed = i64::from(old["spec"]["template"] != new["spec"]["template"]);
            new["metadata"]["annotations"][GENERATION] = json!((generation(old) + changed).to_string());
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => status(old, new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_template(&["spec", "template"], old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images, selector] = cells::workload(spec);
        let of = |name: &str| Value::from(count(&status[name]));
        vec![
            cells::name(object),
            of("desiredNumberScheduled"),
            of("currentNumberScheduled"),
            of("numberReady"),
            of("updatedNumberScheduled"),
            of("numberAvailable"),
            cells::labels(&spec["template"]["spec"]["nodeSelector"]).into(),
            age::of(object),
            containers,
            images,
            selector,
        ]
    }
}

fn generation(set: &Value) -> i64 {
    set["metadata"]["annotations"][GENERATION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let (selector, pods) = (spec.field("selector"), spec.field("template"));
    if let Some(old) = old {
        selector.immutable(causes, &old["spec"]["selector"]);
    }
    labels::selector(&selector, causes);
    let of_template = &new["spec"]["template"]["metadata"]["labels"];
    // No selector at all selects nothing.
    if !selector.is_set() || Selector::from_object(selector.value).is_ok_and(|selector| !selector.matches_labels(of_template)) {
        let metadata = pods.field("metadata");
        metadata.field("labels").invalid_value(causes, of_template.clone(), "`selector` does not match template `labels`");
    }
    if selector.is_set() && selector.field("matchLabels").is_empty() && selector.field("matchExpressions").is_empty() {
        selector.invalid(causes, "empty selector is invalid for daemonset");
    }
    template::validate(old.map(|old| &old["spec"]["template"]), &pods, causes);
    always_restarted(&pods, "DaemonSet", causes);
    spec.field("minReadySeconds").non_negative(causes);
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_set() => rolling_update(&rolling, causes),
        "RollingUpdate" => rolling.missing(causes, ""),
        _ => strategy.unsupported(causes, &["RollingUpdate", "OnDelete"]),
    }
    spec.field("revisionHistoryLimit").non_negative(causes);
}

fn rolling_update(rolling: &At<'_, '_>, causes: &mut Causes) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for at in [&unavailable, &surge] {
        percent::int_or_percent(at, causes);
    }
    for at in [&unavailable, &surge] {
        percent::not_more_than_all(at, causes);
    }
    match (percent::is_zero(&unavailable), percent::is_zero(&surge)) {
        (false, false) => surge.invalid(causes, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.missing(causes, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let all = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(old, new, &all, &[], causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn good() -> Value {
        json!({"metadata": {"name": "agent", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "a", "image": "x:1"}]}}},
            "status": {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1}})
    }

    fn wrong(old: Option<&Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        validate(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(None, |_| {}), Vec::<String>::new());
        let rolling = |unavailable: Value, surge: Value| {
            wrong(None, |d| d["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": unavailable, "maxSurge": surge}))
        };
        let at = "spec.updateStrategy.rollingUpdate";
        assert_eq!(rolling(json!(1), json!(1)), [format!("{at}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")]);
        assert_eq!(rolling(json!(0), json!("0%")), [format!("{at}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]);
        assert_eq!(rolling(json!(0), json!("101%")), [format!("{at}.maxSurge: Invalid value: \"101%\": must not be greater than 100%")]);
        assert_eq!(rolling(json!(0), json!("25%")), Vec::<String>::new());
        assert_eq!(wrong(None, |d| d["spec"]["selector"] = json!({})), ["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"]);
        assert_eq!(
            wrong(None, |d| drop(d["spec"].as_object_mut().map(|spec| spec.remove("selector")))),
            ["spec.template.metadata.labels: Invalid value: {\"app\":\"agent\"}: `selector` does not match template `labels`"]
        );
        assert_eq!(
            wrong(None, |d| d["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"})),
            ["spec.updateStrategy.rollingUpdate: Required value"]
        );
        assert_eq!(
            wrong(None, |d| d["spec"]["template"]["spec"]["restartPolicy"] = "Never".into()),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        let change = |d: &mut Value| {
            d["spec"]["selector"] = json!({"matchLabels": {"x": "y"}});
            d["spec"]["template"]["metadata"]["labels"]["x"] = "y".into();
        };
        assert_eq!(wrong(Some(&good()), change), ["spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable"]);
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let row = cells::golden(&DaemonSet.cells(&good()), "2026-01-02T03:04:05Z");
        assert_eq!(row, "agent | 5 | 4 | 3 | 2 | 1 | disk=ssd | 5s | a | x:1 | app=agent");
    }
}
