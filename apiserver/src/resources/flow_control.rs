//! FlowSchema and PriorityLevelConfiguration (`flowcontrol.apiserver.k8s.io`), and those that every cluster has.

pub mod standard;

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    rules::{At, Causes},
};
use crate::pipeline::metadata;
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Hooks of `flowschemas.flowcontrol.apiserver.k8s.io`.
pub struct FlowSchema;
/// Hooks of `prioritylevelconfigurations.flowcontrol.apiserver.k8s.io`.
pub struct PriorityLevelConfiguration;

const SCHEMA: &[Heading] = &[
    NAME,
    ("PriorityLevel", "The priority level that its requests get."),
    ("MatchingPrecedence", "Which schema is asked first: the lowest number."),
    ("DistinguisherMethod", "What makes requests one flow."),
    AGE,
    ("MissingPL", "Whether its priority level is missing."),
];

const LEVEL: &[Heading] = &[
    NAME,
    ("Type", "Whether requests are limited."),
    ("NominalConcurrencyShares", "Its share of what is served at once."),
    ("Queues", "How many queues it has."),
    ("HandSize", "How many of them one flow may fill."),
    ("QueueLengthLimit", "How many requests one queue holds."),
    AGE,
];

/// A write of the status changes nothing else, annotations and labels included.
fn status_alone(cx: &Cx<'_>, old: &Value, new: &mut Value) {
    if cx.subresource() == "status" {
        metadata::keep(old, new);
    }
}

impl Hooks for FlowSchema {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        status_alone(cx, old, new);
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => conditions(new, causes),
            _ => flow_schema(new, causes),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(SCHEMA))
    }
    fn cells(&self, schema: &Value) -> Vec<Value> {
        let spec = &schema["spec"];
        let dangling = list(&schema["status"]["conditions"]).iter().find(|condition| condition["type"] == "Dangling");
        vec![
            cells::name(schema),
            text_or(&spec["priorityLevelConfiguration"]["name"], "").into(),
            spec["matchingPrecedence"].as_i64().unwrap_or_default().to_string().into(),
            text_or(&spec["distinguisherMethod"]["type"], "<none>").into(),
            age::of(schema),
            dangling.map_or_else(|| "?".to_string(), |condition| text_or(&condition["status"], "")).into(),
        ]
    }
}

impl Hooks for PriorityLevelConfiguration {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        status_alone(cx, old, new);
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => conditions(new, causes),
            _ => priority_level(new, causes),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(LEVEL))
    }
    fn cells(&self, level: &Value) -> Vec<Value> {
        let (spec, limited) = (&level["spec"], &level["spec"]["limited"]);
        let queuing = &limited["limitResponse"]["queuing"];
        let number = |value: &Value| value.as_i64().map_or_else(|| "<none>".to_string(), |n| n.to_string());
        let shares = if limited.is_object() { &limited["nominalConcurrencyShares"] } else { &spec["exempt"]["nominalConcurrencyShares"] };
        vec![
            cells::name(level),
            text_or(&spec["type"], "").into(),
            number(shares).into(),
            number(&queuing["queues"]).into(),
            number(&queuing["handSize"]).into(),
            number(&queuing["queueLengthLimit"]).into(),
            age::of(level),
        ]
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(super) fn flow_schema(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let (spec, name) = (root.field("spec"), name_of(new));
    let precedence = spec.field("matchingPrecedence");
    let number = precedence.int().unwrap_or_default();
    if number <= 0 {
        precedence.invalid_value(causes, number, "must be a positive value");
    }
    if number > 10_000 {
        precedence.invalid(causes, "must not be greater than 10000");
    }
    if number == 1 && name != "exempt" {
        precedence.invalid(causes, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = spec.field("distinguisherMethod");
    if method.is_set() {
        method.field("type").one_of(causes, &["ByNamespace", "ByUser"]);
    }
    let level = spec.field("priorityLevelConfiguration");
    let level = level.field("name");
    if level.required(causes, "must reference a priority level") {
        level.syntax(causes, names::dns_subdomain);
    }
    for rule in spec.field("rules").items() {
        check_rule(&rule, causes);
    }
    if standard::mandatory_schemas().iter().any(|fixed| name_of(fixed) == name && fixed["spec"] != new["spec"]) {
        spec.invalid(causes, &format!("spec of '{name}' must equal the fixed value"));
    }
    conditions(new, causes);
}

fn check_rule(rule: &At<'_, '_>, causes: &mut Causes) {
    let (subjects, resources, paths) = (rule.field("subjects"), rule.field("resourceRules"), rule.field("nonResourceRules"));
    subjects.required(causes, "subjects must contain at least one value");
    for subject in subjects.items() {
        check_subject(&subject, causes);
    }
    if resources.is_empty() && paths.is_empty() {
        rule.missing(causes, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for rule in resources.items() {
        verbs(&rule.field("verbs"), causes);
        alone_or_named(&rule.field("apiGroups"), "resource rules must supply at least one api group", "api groups", causes);
        alone_or_named(&rule.field("resources"), "resource rules must supply at least one resource", "resources", causes);
        let namespaces = rule.field("namespaces");
        if namespaces.is_empty() && !rule.field("clusterScope").is_true() {
            namespaces.missing(causes, "resource rules that are not cluster scoped must supply at least one namespace");
        } else if any(&namespaces) {
            alone(&namespaces, "namespaces", causes);
        } else {
            for namespace in namespaces.items() {
                for why in names::dns_label(namespace.text()) {
                    namespace.invalid(causes, &format!("each member of this list must be '*' or a DNS-1123 label; {why}"));
                }
            }
        }
    }
    for rule in paths.items() {
        verbs(&rule.field("verbs"), causes);
        let urls = rule.field("nonResourceURLs");
        if !urls.required(causes, "nonResourceURLs must contain at least one value") {
            continue;
        }
        if any(&urls) {
            alone(&urls, "non-resource URLs", causes);
            continue;
        }
        for url in urls.items() {
            if let Some(why) = wrong_path(url.text()) {
                url.invalid(causes, why);
            }
        }
    }
}

fn any(list: &At<'_, '_>) -> bool {
    list.items().any(|item| item.text() == "*")
}

fn alone(list: &At<'_, '_>, what: &str, causes: &mut Causes) {
    if list.len() > 1 {
        list.invalid(causes, &format!("if '*' is present, must not specify other {what}"));
    }
}

fn alone_or_named(list: &At<'_, '_>, none: &str, what: &str, causes: &mut Causes) {
    if list.required(causes, none) && any(list) {
        alone(list, what, causes);
    }
}

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn verbs(list: &At<'_, '_>, causes: &mut Causes) {
    if !list.required(causes, "verbs must contain at least one value") {
        return;
    }
    if any(list) {
        alone(list, "verbs", causes);
    } else if list.items().any(|verb| !VERBS.contains(&verb.text())) {
        list.unsupported(causes, VERBS);
    }
}

fn wrong_path(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if path.contains('*') && (path.matches('*').count() > 1 || !path.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn check_subject(subject: &At<'_, '_>, causes: &mut Causes) {
    const KINDS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.field("kind");
    let Some((_, own)) = KINDS.iter().find(|(name, _)| *name == kind.text()) else {
        kind.unsupported(causes, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let at = subject.field(own);
    if !at.is_set() {
        at.missing(causes, &format!("{own} is required when subject kind is '{}'", kind.text()));
    } else {
        let name = at.field("name");
        let named = name.required(causes, "");
        if *own == "serviceAccount" {
            if named && name.text() != "*" {
                name.syntax(causes, names::dns_subdomain);
            }
            let namespace = at.field("namespace");
            if namespace.required(causes, "must specify namespace for service account") {
                namespace.syntax(causes, names::dns_label);
            }
        }
    }
    for (name, field) in KINDS.iter().filter(|(_, field)| field != own) {
        let other = subject.field(field);
        if other.is_set() {
            other.forbidden(causes, &format!("{field} is forbidden when subject kind is not '{name}'"));
        }
    }
}

pub(super) fn priority_level(new: &Value, causes: &mut Causes) {
    const KEPT_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
    let root = At::root(new);
    let (spec, name) = (root.field("spec"), name_of(new));
    let metadata = root.field("metadata");
    let annotations = metadata.field("annotations");
    if annotations.value.get(KEPT_ZERO).is_some() {
        annotations.forbidden(causes, &format!("annotation '{KEPT_ZERO}' is forbidden"));
    }
    let (kind, exempt, limited) = (spec.field("type"), spec.field("exempt"), spec.field("limited"));
    if (name == "exempt") != (kind.text() == "Exempt") {
        kind.invalid(causes, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(causes, "must be nil if the type is not Limited");
            }
            shares(&exempt, causes);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(causes, "must be nil if the type is Limited");
            }
            match limited.is_set() {
                true => check_limited(&limited, causes),
                false => limited.missing(causes, "must not be empty when type is Limited"),
            }
        }
        _ => kind.unsupported(causes, &["Exempt", "Limited"]),
    }
    if let Some(fixed) = standard::mandatory_levels().iter().find(|fixed| name_of(fixed) == name) {
        let without_exempt = |spec: &Value| {
            let mut spec = spec.clone();
            spec.as_object_mut().map(|spec| spec.remove("exempt"));
            spec
        };
        if without_exempt(&fixed["spec"]) != without_exempt(spec.value) {
            let except = if name == "exempt" { " except the 'spec.exempt' field" } else { "" };
            spec.invalid(causes, &format!("spec of '{name}'{except} must equal the fixed value"));
        }
    }
    conditions(new, causes);
}

fn shares(at: &At<'_, '_>, causes: &mut Causes) {
    let (shares, lendable) = (at.field("nominalConcurrencyShares"), at.field("lendablePercent"));
    if shares.int().is_some_and(|n| n < 0) {
        shares.invalid(causes, "must be a non-negative integer");
    }
    lendable.range(causes, 0, 100);
}

fn check_limited(at: &At<'_, '_>, causes: &mut Causes) {
    shares(at, causes);
    let borrowing = at.field("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        borrowing.invalid(causes, "if specified, must be a non-negative integer");
    }
    let response = at.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => queuing.forbidden(causes, "must be nil if limited.limitResponse.type is not Limited"),
        "Reject" => {}
        "Queue" if queuing.is_set() => check_queuing(&queuing, causes),
        "Queue" => queuing.missing(causes, "must not be empty if limited.limitResponse.type is Limited"),
        _ => kind.unsupported(causes, &["Queue", "Reject"]),
    }
}

/// Bits that a flow's hash has for dealing it a hand of queues.
const HASH_BITS: f64 = 60.0;

fn check_queuing(at: &At<'_, '_>, causes: &mut Causes) {
    let number = |name: &'static str| at.field(name).int().unwrap_or_default();
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    let mut wrong = |name: &'static str, value: i64, why: &str| at.field(name).invalid_value(causes, value, why);
    if length <= 0 {
        wrong("queueLengthLimit", length, "must be positive");
    }
    if queues <= 0 {
        wrong("queues", queues, "must be positive");
    } else if queues > 10_000_000 {
        wrong("queues", queues, "must not be greater than 10000000");
    }
    if hand <= 0 {
        wrong("handSize", hand, "must be positive");
    } else if hand > queues {
        wrong("handSize", hand, &format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        wrong("handSize", hand, &format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"));
    }
}

/// Bits needed to deal a hand from a deck: of the number of ways to do so in order.
fn entropy(deck: i64, hand: i64) -> f64 {
    // A hand of more cards than there are bits always needs more.
    (0..hand.min(64)).map(|dealt| ((deck - dealt).max(1) as f64).log2()).sum::<f64>().ceil()
}

fn conditions(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    let mut seen = BTreeSet::new();
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        if !seen.insert(kind.text()) {
            kind.duplicate(causes);
        }
        kind.required(causes, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(rule: fn(&Value, &mut Causes), object: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(object, &mut causes);
        lines(&causes)
    }

    #[test]
    fn what_every_cluster_has_is_good() {
        for schema in standard::schemas() {
            assert_eq!(wrong(flow_schema, &schema), Vec::<String>::new(), "{}", schema["metadata"]["name"]);
        }
        for level in standard::levels() {
            assert_eq!(wrong(priority_level, &level), Vec::<String>::new(), "{}", level["metadata"]["name"]);
        }
    }

    #[test]
    fn mandatory_ones_are_fixed() {
        let mut schema = standard::mandatory_schemas().remove(1);
        schema["spec"]["matchingPrecedence"] = 9999.into();
        assert!(wrong(flow_schema, &schema)[0].ends_with("spec of 'catch-all' must equal the fixed value"));
        let mut level = standard::mandatory_levels().remove(0);
        level["spec"]["exempt"]["lendablePercent"] = 50.into();
        assert_eq!(wrong(priority_level, &level), Vec::<String>::new());
    }

    #[test]
    fn schemas_say_whose_requests() {
        let schema = json!({"metadata": {"name": "s"}, "spec": {"matchingPrecedence": 1, "priorityLevelConfiguration": {}, "rules": [
            {"subjects": [{"kind": "User", "group": {"name": "g"}}, {"kind": "x"}], "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [], "resources": ["pods"]}]},
            {"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*"}}], "nonResourceRules": [{"verbs": ["fly"], "nonResourceURLs": ["a", "/a b", "/a*"]}]}]}});
        assert_eq!(
            wrong(flow_schema, &schema),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[0].subjects[1].kind: Unsupported value: \"x\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                "spec.rules[1].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
                "spec.rules[1].nonResourceRules[0].verbs: Unsupported value: [\"fly\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a b\": must not contain white-space",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            ]
        );
    }

    #[test]
    fn levels_limit_and_queue() {
        let level =
            |limited: Value| json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": limited}, "status": {"conditions": [{}]}});
        assert_eq!(
            wrong(
                priority_level,
                &level(json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1,
                "limitResponse": {"type": "Queue", "queuing": {"queues": 1000, "handSize": 20, "queueLengthLimit": 0}}}))
            ),
            [
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: 0: must be positive",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 20: required entropy bits of deckSize 1000 and handSize 20 should not be greater than 60",
                "status.conditions[0].type: Required value",
            ]
        );
        assert_eq!((entropy(64, 8), entropy(128, 9), entropy(16, 4)), (48.0, 63.0, 16.0));
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let schema = standard::mandatory_schemas().remove(1);
        assert_eq!(cells::golden(&FlowSchema.cells(&schema), "2026-01-02T03:04:05Z"), "catch-all | catch-all | 10000 | ByUser | <unknown> | ?");
        let level = standard::levels().into_iter().find(|level| name_of(level) == "system").expect("system");
        assert_eq!(
            cells::golden(&PriorityLevelConfiguration.cells(&level), "2026-01-02T03:04:05Z"),
            "system | Limited | 30 | 64 | 6 | 50 | <unknown>"
        );
    }
}
