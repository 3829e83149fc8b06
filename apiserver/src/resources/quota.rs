//! ResourceQuota and LimitRange: what a namespace may hold, and what is in reach of a single object.

use super::{
    age,
    cells::{self, AGE, Heading, NAME, list},
    rules::{
        At, Causes,
        quantities::{self, quantity},
    },
    simple::Simple,
};
use coracle_api::{names, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeSet;

/// `resourcequotas`
pub const RESOURCE_QUOTA: Simple =
    Simple::new(QUOTA_HEADINGS, quota_row, quota).with_status(|_, new, causes| quota_status(new, causes)).warning(quota_warnings);

const QUOTA_HEADINGS: &[Heading] =
    &[NAME, ("Request", "What is used of each amount that may be asked for."), ("Limit", "What is used of each sum of limits."), AGE];

fn quota_row(quota: &Value) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = &quota["status"];
    let mut hard: Vec<_> = status["hard"].as_object().into_iter().flatten().collect();
    hard.sort_by_key(|(name, _)| name.as_str());
    for (name, hard) in hard {
        let shown = |value: &Value| value.as_str().unwrap_or("0").to_string();
        let column = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{name}: {}/{}", shown(&status["used"][name]), shown(hard)));
    }
    vec![cells::name(quota), requests.join(", ").into(), limits.join(", ").into(), age::of(quota)]
}

pub(super) fn quota(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    amounts(&spec.field("hard"), causes);
    scopes(&spec, causes);
    selector(&spec, causes);
    if let Some(old) = old {
        let set = |spec: &Value| list(&spec["scopes"]).iter().filter_map(Value::as_str).map(str::to_string).collect::<BTreeSet<_>>();
        if set(&old["spec"]) != set(spec.value) {
            spec.field("scopes").invalid(causes, "field is immutable");
        }
    }
}

pub(super) fn quota_status(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    amounts(&status.field("hard"), causes);
    amounts(&status.field("used"), causes);
}

fn amounts(map: &At<'_, '_>, causes: &mut Causes) {
    for (name, at) in map.entries() {
        if quantities::standard_name(&at, name, causes) && !name.contains('/') && !quantities::is_quota_resource(name) {
            at.invalid_value(causes, name, "must be a standard resource for quota");
        }
        quantities::whole_if_counted(&at, name, causes);
    }
}

const POD_SCOPES: &[&str] = &["CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
const COMPUTE: &[&str] = &["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn is_scope(scope: &str) -> bool {
    POD_SCOPES.contains(&scope) || matches!(scope, "BestEffort" | "VolumeAttributesClass")
}

/// Whether objects that a scope picks use this resource at all.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if POD_SCOPES.contains(&scope) => COMPUTE.contains(&resource),
        _ => true,
    }
}

/// How many of the amounts a scope does not fit.
fn misfits(spec: &At<'_, '_>, scope: &str) -> usize {
    spec.value["hard"].as_object().into_iter().flatten().filter(|(name, _)| quantities::is_quota_resource(name) && !fits(scope, name)).count()
}

fn conflicts(scopes: &[&str]) -> usize {
    [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")].iter().filter(|(a, b)| scopes.contains(a) && scopes.contains(b)).count()
}

fn scopes(spec: &At<'_, '_>, causes: &mut Causes) {
    let at = spec.field("scopes");
    let given: Vec<&str> = at.items().map(|scope| scope.text()).collect();
    for scope in &given {
        if !is_scope(scope) {
            at.invalid(causes, "unsupported scope");
        }
        for _ in 0..misfits(spec, scope) {
            at.invalid(causes, "unsupported scope applied to resource");
        }
    }
    for _ in 0..conflicts(&given) {
        at.invalid(causes, "conflicting scopes");
    }
}

fn selector(spec: &At<'_, '_>, causes: &mut Causes) {
    let selector = spec.field("scopeSelector");
    // Upstream names these places without an index.
    let place = selector.field("matchExpressions");
    let mut given = Vec::new();
    for requirement in place.items() {
        let requirement = place.with(requirement.value);
        let (scope, operator, values) = (requirement.field("scopeName"), requirement.field("operator"), requirement.field("values"));
        if !is_scope(scope.text()) {
            scope.invalid(causes, "unsupported scope");
        }
        for _ in 0..misfits(spec, scope.text()) {
            place.with(selector.value).invalid(causes, "unsupported scope applied to resource");
        }
        let only_exists = matches!(scope.text(), "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity");
        if only_exists && operator.text() != "Exists" {
            operator.invalid(
                causes,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator.text() {
            "In" | "NotIn" => drop(values.required(causes, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")),
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => values.invalid(causes, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            _ => operator.invalid(causes, "not a valid selector operator"),
        }
        given.push(scope.text());
    }
    for _ in 0..conflicts(&given) {
        let scopes = place.with(&spec.value["scopes"]);
        scopes.invalid(causes, "conflicting scopes");
    }
}

fn quota_warnings(quota: &Value) -> Vec<String> {
    let hard = &quota["spec"]["hard"];
    let amount = |name: &str| hard[name].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let mut said = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let (request, limit) = (format!("requests.{resource}"), format!("limits.{resource}"));
        let bare = matches!(resource, "cpu" | "memory");
        let asked =
            amount(&request).map(|asked| (request.as_str(), asked)).or_else(|| amount(resource).filter(|_| bare).map(|asked| (resource, asked)));
        if let (Some((name, asked)), Some(most)) = (asked, amount(&limit))
            && asked > most
        {
            said.push(format!("ResourceQuota {name} ({asked}) should be less than {limit} ({most})"));
        }
    }
    said
}

/// `limitranges`: a name is not needed here, as upstream has it.
pub const LIMIT_RANGE: Simple = Simple::dated(|_, new, causes| limit_range(new, causes)).preparing(|_, new| {
    if new["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        new["metadata"]["name"] = uuid::Uuid::new_v4().to_string().into();
    }
});

pub(super) fn limit_range(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let mut seen = BTreeSet::new();
    for limit in root.field("spec").field("limits").items() {
        let kind = limit.field("type");
        let before = causes.len();
        kind.syntax(causes, names::qualified_name);
        let own = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim") || kind.text().contains('/');
        if causes.len() == before && !own {
            kind.invalid(causes, "must be a standard limit type or fully qualified");
        }
        if !seen.insert(kind.text()) {
            kind.duplicate(causes);
        }
        one_limit(&limit, kind.text(), causes);
    }
}

fn one_limit(limit: &At<'_, '_>, kind: &str, causes: &mut Causes) {
    let [max, min, default, request, ratio] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut names = BTreeSet::new();
    for field in [max, min, default, request, ratio] {
        let list = limit.field(field);
        if kind == "Pod" && (field == default || field == request) {
            if !list.is_empty() {
                list.forbidden(causes, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if kind == "PersistentVolumeClaim" && field == ratio && !limit.field(min).key("storage").is_set() && !limit.field(max).key("storage").is_set()
        {
            limit.field("limits").missing(causes, "either minimum or maximum storage value is required, but neither was provided");
        }
        for (name, at) in list.entries() {
            names.insert(name);
            match kind {
                "Pod" | "Container" => quantities::resource_name(&at, name, causes),
                _ => drop(quantities::standard_name(&at, name, causes)),
            }
        }
    }
    for name in names {
        amounts_agree(limit, kind, name, causes);
    }
}

/// (lower amount, higher amount, where it is reported, whether the lower is shown there, words for both)
type Order = (&'static str, &'static str, &'static str, bool, [&'static str; 2]);

const ORDER: &[Order] = &[
    ("min", "max", "min", true, ["min", "max"]),
    ("min", "defaultRequest", "defaultRequest", false, ["min", "default request"]),
    ("defaultRequest", "max", "defaultRequest", true, ["default request", "max"]),
    ("defaultRequest", "default", "defaultRequest", true, ["default request", "default limit"]),
    ("min", "default", "default", true, ["min", "default"]),
    ("default", "max", "default", false, ["default", "max"]),
];

/// Every amount of one resource beside every other.
fn amounts_agree(limit: &At<'_, '_>, kind: &str, name: &str, causes: &mut Causes) {
    let of = |field: &'static str| {
        let list = limit.field(field);
        quantity(&list.key(name)).filter(|_| kind != "Pod" || !field.starts_with("default"))
    };
    let mut wrong = |field: &'static str, shown: Quantity, why: String| {
        let list = limit.field(field);
        list.key(name).invalid_value(causes, shown.to_string(), &why);
    };
    for (low, high, place, show_low, [low_word, high_word]) in ORDER {
        if let (Some(low), Some(high)) = (of(low), of(high))
            && low > high
        {
            wrong(place, if *show_low { low } else { high }, format!("{low_word} value {low} is greater than {high_word} value {high}"));
        }
    }
    if let Some(ratio) = of("maxLimitRequestRatio") {
        if ratio < Quantity::from_units(1) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (of("min"), of("max")) {
            let most = max.millis() as f64 / min.millis() as f64;
            if ratio.millis() as f64 / 1000.0 > most {
                wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
    if let (Some(default), Some(request)) = (of("default"), of("defaultRequest"))
        && default != request
        && (!quantities::is_native(name) || name.starts_with("hugepages-"))
    {
        wrong("defaultRequest", request, format!("default value {default} must equal to defaultRequest value {request} in {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(rule: impl Fn(&Value, &mut Causes), object: Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(&object, &mut causes);
        lines(&causes)
    }

    #[test]
    fn quotas_know_their_resources_and_scopes() {
        let check = |spec: Value| wrong(|new, causes| quota(None, new, causes), json!({"spec": spec}));
        assert_eq!(
            check(
                json!({"hard": {"cpu": "1", "pods": "5", "count/widgets.example.com": "3", "requests.example.com/gpu": "2", "requests.storage": "1Gi",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "hugepages-2Mi": "4Mi"}, "scopes": []})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            check(json!({"hard": {"nonsense": "1", "pods": "1500m", "storage": "-1"}})),
            [
                "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource type or fully qualified",
                "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
                "spec.hard[storage]: Invalid value: \"-1\": must be greater than or equal to 0",
            ]
        );
        assert_eq!(
            check(json!({"hard": {"services": "1"}, "scopes": ["BestEffort", "NotBestEffort", "x"]})),
            [
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"x\"]: conflicting scopes",
            ]
        );
        assert_eq!(
            check(
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}, {"scopeName": "Terminating", "operator": "DoesNotExist"}]}})
            ),
            [
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ]
        );
        let mut causes = Vec::new();
        quota(Some(&json!({"spec": {"scopes": ["BestEffort"]}})), &json!({"spec": {}}), &mut causes);
        assert_eq!(lines(&causes), ["spec.scopes: Invalid value: \"\": field is immutable"]);
    }

    #[test]
    fn quotas_show_what_is_used() {
        let object = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1"}}});
        assert_eq!(cells::golden(&quota_row(&object), "2026-01-02T03:04:05Z"), "q | cpu: 0/1, pods: 1/5 | limits.cpu: 0/2 | <unknown>");
        assert_eq!(
            quota_warnings(&json!({"spec": {"hard": {"memory": "2Gi", "limits.memory": "1Gi"}}})),
            ["ResourceQuota memory (2Gi) should be less than limits.memory (1Gi)"]
        );
    }

    #[test]
    fn limits_agree_with_each_other() {
        let check = |limits: Value| wrong(limit_range, json!({"spec": {"limits": limits}}));
        assert_eq!(
            check(
                json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
                "maxLimitRequestRatio": {"cpu": "10"}}])
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            check(
                json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "3"}}])
            ),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than default limit value 500m",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 500m",
            ]
        );
        assert_eq!(
            check(
                json!([{"type": "Pod", "default": {"cpu": "1"}}, {"type": "Pod", "max": {"x": "1"}}, {"type": "PersistentVolumeClaim"}, {"type": "Thing"}])
            ),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[1].max[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
                "spec.limits[1].max[x]: Invalid value: \"x\": must be a standard resource for containers",
                "spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                "spec.limits[3].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified",
            ]
        );
        assert_eq!(
            check(json!([{"type": "Container", "min": {"memory": "1Gi"}, "max": {"memory": "2Gi"}, "maxLimitRequestRatio": {"memory": "3"}}])),
            ["spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"]
        );
    }
}
