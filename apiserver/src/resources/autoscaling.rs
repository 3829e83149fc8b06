//! HorizontalPodAutoscaler: stored as `autoscaling/v2`; the rules, the table, and the older form.

mod older;

use super::{
    Cx, Form, Hooks, age,
    cells::{self, AGE, Heading, NAME, count, list, text_or},
    rules::{At, Causes, quantities},
};
use coracle_api::{names, quantity::Quantity, registry::Column, status::Cause};
use serde_json::Value;

/// Hooks of `horizontalpodautoscalers.autoscaling`.
pub struct HorizontalPodAutoscaler;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Reference", "What is scaled."),
    ("Targets", "What was measured last, and what it should be."),
    ("MinPods", "The fewest replicas."),
    ("MaxPods", "The most replicas."),
    ("Replicas", "Replicas that were counted last."),
    AGE,
];
const METRICS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Longest time a policy looks back, seconds.
const LONGEST_PERIOD: i64 = 1800;
/// Longest stabilization window, seconds.
const LONGEST_WINDOW: i64 = 3600;

impl Hooks for HorizontalPodAutoscaler {
    fn forms(&self) -> &'static [Form] {
        older::FORMS
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => validate_status(new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

fn validate_status(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    status.field("currentReplicas").non_negative(causes);
    status.field("desiredReplicas").non_negative(causes);
}

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    let before = old.map(|old| &old["spec"]);
    // Scaling to zero is behind a gate; who has it keeps it.
    let lowest = i64::from(before.is_none_or(|spec| spec["minReplicas"] != 0));
    if least.int().is_some_and(|least| least < lowest) {
        least.invalid(causes, &format!("must be greater than or equal to {lowest}"));
    }
    match most.int().unwrap_or(0) {
        0 => most.missing(causes, "must be set and greater than 0"),
        ..0 => most.invalid(causes, "must be greater than or equal to 1"),
        _ => {}
    }
    if least.int().is_some_and(|least| most.int().unwrap_or(0) < least) {
        most.invalid_value(causes, most.int().unwrap_or(0), "must be greater than or equal to `minReplicas`");
    }
    let target = spec.field("scaleTargetRef");
    let same = before.is_some_and(|spec| ["apiVersion", "kind"].iter().all(|field| spec["scaleTargetRef"][field] == target.value[field]));
    let version = match (same, target.field("kind").text()) {
        (true, _) => Version::Any,
        (false, "ReplicationController") => Version::OfCore,
        (false, _) => Version::Grouped,
    };
    reference(&target, version, causes);
    metrics(&spec, before, causes);
    let behavior = spec.field("behavior");
    for field in ["scaleUp", "scaleDown"] {
        scaling_rules(&behavior.field(field), causes);
    }
}

/// What the apiVersion of a reference may be.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Any,
    OfCore,
    Grouped,
}

fn reference(at: &At<'_, '_>, version: Version, causes: &mut Causes) {
    for field in ["kind", "name"] {
        let at = at.field(field);
        if at.required(causes, "") {
            at.syntax(causes, names::path_segment);
        }
    }
    let at = at.field("apiVersion");
    if let Some(why) = wrong_version(at.text(), version) {
        at.invalid(causes, &why);
    }
}

fn wrong_version(text: &str, version: Version) -> Option<String> {
    match (version, text.matches('/').count()) {
        (Version::Any, _) | (Version::OfCore, 0 | 1) => None,
        (Version::Grouped, 1) if !text.starts_with('/') => None,
        (Version::Grouped, 0 | 1) => Some("apiVersion must specify API group".into()),
        _ => Some(format!("unexpected GroupVersion string: {text}")),
    }
}

fn metrics(spec: &At<'_, '_>, before: Option<&Value>, causes: &mut Causes) {
    let metrics = spec.field("metrics");
    let stale = |metric: &Value| {
        let described = &metric["object"]["describedObject"];
        metric["type"] == "Object" && wrong_version(described["apiVersion"].as_str().unwrap_or_default(), Version::OfCore).is_some()
    };
    let version = if before.is_some_and(|spec| list(&spec["metrics"]).iter().any(stale)) { Version::Any } else { Version::OfCore };
    for metric in metrics.items() {
        one_metric(&metric, version, causes);
    }
    let from_zero = list(metrics.value).iter().any(|metric| metric["type"] == "Object" || metric["type"] == "External");
    if spec.field("minReplicas").int() == Some(0) && !from_zero {
        metrics.forbidden(causes, "must specify at least one Object or External metric to support scaling to zero replicas");
    }
}

/// A metric's type, and the field that describes it.
const SOURCES: [(&str, &str); 5] =
    [("Object", "object"), ("External", "external"), ("Pods", "pods"), ("Resource", "resource"), ("ContainerResource", "containerResource")];

fn one_metric(metric: &At<'_, '_>, version: Version, causes: &mut Causes) {
    let kind = metric.field("type");
    if kind.is_empty() {
        kind.missing(causes, "must specify a metric source type");
    }
    let known = METRICS.contains(&kind.text());
    if !known {
        kind.unsupported(causes, METRICS);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.field(field).is_set()).collect();
    if let Some(first) = present.first() {
        source(first, &metric.field(first), version, causes);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map_or("", |(_, field)| field);
    if !known {
        kind.unsupported(causes, METRICS);
    } else if !present.contains(&expected) {
        metric.field(expected).missing(causes, "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for other in present.iter().filter(|field| **field != expected) {
            metric.field(other).forbidden(causes, "must populate the given metric source only");
        }
    }
}

fn source(field: &str, at: &At<'_, '_>, version: Version, causes: &mut Causes) {
    if field == "object" {
        reference(&at.field("describedObject"), version, causes);
    }
    if matches!(field, "resource" | "containerResource") {
        let name = at.field("name");
        if name.required(causes, "must specify a resource name") && field == "containerResource" {
            quantities::resource_name(&name, name.text(), causes);
        }
    } else {
        let metric = at.field("metric");
        let name = metric.field("name");
        if name.required(causes, "must specify a metric name") {
            name.syntax(causes, names::path_segment);
        }
    }
    if field == "containerResource" {
        let container = at.field("container");
        if container.required(causes, "must specify a container") {
            container.syntax(causes, names::dns_label);
        }
    }
    let target = at.field("target");
    metric_target(&target, causes);
    let set = |name: &str| target.field(name).is_set();
    match field {
        "object" if !set("value") && !set("averageValue") => {
            target.field("averageValue").missing(causes, "must set either a target value or averageValue");
        }
        "external" if !set("value") && !set("averageValue") => {
            target.field("averageValue").missing(causes, "must set either a target value for metric or a per-pod target");
        }
        "external" if set("value") && set("averageValue") => {
            target.field("value").forbidden(causes, "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !set("averageValue") => target.field("averageValue").missing(causes, "must specify a positive target averageValue"),
        "resource" | "containerResource" => match (set("averageUtilization"), set("averageValue")) {
            (false, false) => target.field("averageUtilization").missing(causes, "must set either a target raw value or a target utilization"),
            (true, true) => target.field("averageValue").forbidden(causes, "may not set both a target raw value and a target utilization"),
            _ => {}
        },
        _ => {}
    }
}

fn metric_target(target: &At<'_, '_>, causes: &mut Causes) {
    let kind = target.field("type");
    if kind.is_empty() {
        kind.missing(causes, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid(causes, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let at = target.field(field);
        if at.is_set() && Quantity::parse(at.text()).is_ok_and(|quantity| quantity.is_zero() || quantity.is_negative()) {
            at.invalid(causes, "must be positive");
        }
    }
    let utilization = target.field("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        utilization.invalid(causes, "must be greater than 0");
    }
}

fn scaling_rules(rules: &At<'_, '_>, causes: &mut Causes) {
    if !rules.is_set() {
        return;
    }
    let window = rules.field("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        window.invalid(causes, "must be greater than or equal to zero");
    }
    if window.int().is_some_and(|seconds| seconds > LONGEST_WINDOW) {
        window.invalid(causes, &format!("must be less than or equal to {LONGEST_WINDOW}"));
    }
    rules.field("selectPolicy").one_of(causes, &["Disabled", "Max", "Min"]);
    let policies = rules.field("policies");
    if policies.is_empty() {
        policies.missing(causes, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let kind = policy.field("type");
        if !matches!(kind.text(), "Pods" | "Percent") {
            kind.unsupported(causes, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let at = policy.field(field);
            if at.int().unwrap_or(0) <= 0 {
                at.invalid_value(causes, at.int().unwrap_or(0), "must be greater than zero");
            }
        }
        let period = policy.field("periodSeconds");
        if period.int().is_some_and(|seconds| seconds > LONGEST_PERIOD) {
            period.invalid(causes, &format!("must be less than or equal to {LONGEST_PERIOD}"));
        }
    }
    quantities::non_negative(&rules.field("tolerance"), causes);
}

fn row(autoscaler: &Value) -> Vec<Value> {
    let spec = &autoscaler["spec"];
    let target = &spec["scaleTargetRef"];
    let least = spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_string(), |least| least.to_string());
    vec![
        cells::name(autoscaler),
        format!("{}/{}", text_or(&target["kind"], ""), text_or(&target["name"], "")).into(),
        targets(autoscaler).into(),
        least.into(),
        count(&spec["maxReplicas"]).into(),
        count(&autoscaler["status"]["currentReplicas"]).into(),
        age::of(autoscaler),
    ]
}

/// `cpu: 50%/80%, memory: <unknown>/1Gi`, at most two of them.
fn targets(autoscaler: &Value) -> String {
    let specs = list(&autoscaler["spec"]["metrics"]);
    if specs.is_empty() {
        return "<none>".into();
    }
    let shown: Vec<String> =
        specs.iter().enumerate().take(2).map(|(nth, spec)| one_target(spec, &autoscaler["status"]["currentMetrics"][nth])).collect();
    let shown = shown.join(", ");
    if specs.len() > 2 { format!("{shown} + {} more...", specs.len() - 2) } else { shown }
}

fn one_target(spec: &Value, status: &Value) -> String {
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| spec["type"] == *name) else { return "<unknown type>".into() };
    let (spec, current) = (&spec[field], &status[field]["current"]);
    let target = &spec["target"];
    let amount = |from: &Value, field: &str| match (&from[field], field) {
        (Value::Number(percent), _) => Some(format!("{percent}%")),
        (Value::String(text), _) => Some(text.clone()),
        _ => None,
    };
    let pair = |field: &str| {
        let is = amount(current, field).unwrap_or_else(|| "<unknown>".into());
        format!("{is}/{}", amount(target, field).unwrap_or_else(|| "<auto>".into()))
    };
    match *field {
        "object" | "external" if target["averageValue"].is_string() => format!("{} (avg)", pair("averageValue")),
        "object" | "external" => pair("value"),
        "pods" => pair("averageValue"),
        _ if target["averageValue"].is_string() => format!("{}: {}", text_or(&spec["name"], ""), pair("averageValue")),
        _ => format!("{}: {}", text_or(&spec["name"], ""), pair("averageUtilization")),
    }
}

#[cfg(test)]
mod tests;
