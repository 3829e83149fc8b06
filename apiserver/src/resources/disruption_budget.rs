//! PodDisruptionBudget: its rules and its row.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, count},
    rules::{At, Causes, conditions, labels, percent},
};
use coracle_api::{registry::Column, status::Cause};
use serde_json::Value;

/// Hooks of `poddisruptionbudgets.policy`.
pub struct DisruptionBudget;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Min Available", "How many of its pods must be available."),
    ("Max Unavailable", "How many of its pods may be missing."),
    ("#Allowed Disruptions", "How many of its pods may be evicted now."),
    AGE,
];

impl Hooks for DisruptionBudget {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => status(new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let shown = |name: &str| match &object["spec"][name] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => "N/A".to_owned(),
        };
        let allowed = count(&object["status"]["disruptionsAllowed"]);
        vec![cells::name(object), shown("minAvailable").into(), shown("maxUnavailable").into(), allowed.into(), age::of(object)]
    }
}

pub(super) fn validate(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let bounds = [spec.field("minAvailable"), spec.field("maxUnavailable")];
    if bounds.iter().all(At::is_set) {
        spec.invalid(causes, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in bounds.iter().filter(|bound| bound.is_set()) {
        percent::int_or_percent(bound, causes);
        percent::not_more_than_all(bound, causes);
    }
    labels::selector(&spec.field("selector"), causes);
    spec.field("unhealthyPodEvictionPolicy").one_of(causes, &["AlwaysAllow", "IfHealthyBudget"]);
}

fn status(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    conditions::validate(&status.field("conditions"), causes);
    for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.field(name).non_negative(causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn rules() {
        let wrong = |spec: Value| {
            let mut causes = Vec::new();
            validate(None, &json!({"spec": spec}), &mut causes);
            lines(&causes)
        };
        assert_eq!(wrong(json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}})), Vec::<String>::new());
        assert_eq!(
            wrong(json!({"minAvailable": 1, "maxUnavailable": 1})),
            ["spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set"]
        );
        assert_eq!(wrong(json!({"maxUnavailable": "101%"})), ["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]);
        assert_eq!(wrong(json!({"minAvailable": -1})), ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]);
        assert_eq!(
            wrong(json!({"unhealthyPodEvictionPolicy": "Never"})),
            ["spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\""]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let budget = json!({"metadata": {"name": "b", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}});
        assert_eq!(cells::golden(&DisruptionBudget.cells(&budget), "2026-01-02T03:04:05Z"), "b | 50% | N/A | 2 | 5s");
    }
}
