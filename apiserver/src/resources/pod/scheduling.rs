//! Where a pod may run: tolerations, affinities, spread, gates.

use crate::resources::rules::{
    At, Causes,
    labels::{label_key, selector},
};
use coracle_api::names;
use std::collections::BTreeSet;

/// `tolerations`
pub fn tolerations(list: &At<'_, '_>, causes: &mut Causes) {
    for toleration in list.items() {
        let (key, operator, value, effect) =
            (toleration.field("key"), toleration.field("operator"), toleration.field("value"), toleration.field("effect"));
        if !key.is_empty() {
            label_key(&key, causes);
        } else if operator.text() != "Exists" {
            operator.invalid_value(
                causes,
                operator.text(),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_value(causes, effect.text(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let wrong = names::label_value(value.text());
                if !wrong.is_empty() {
                    operator.invalid_value(causes, value.text(), &wrong.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => operator.invalid_value(causes, value.text(), "value must be empty when `operator` is 'Exists'"),
            "Lt" | "Gt" => operator.unsupported(causes, &["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.unsupported(causes, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(causes, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// `schedulingGates`
pub fn gates(list: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for gate in list.items() {
        let name = gate.field("name").text();
        for why in names::qualified_name(name) {
            gate.invalid_value(causes, name, &why);
        }
        if !seen.insert(name) {
            gate.duplicate_value(causes, name);
        }
    }
}

/// `affinity`
pub fn affinity(at: &At<'_, '_>, causes: &mut Causes) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = at.field("nodeAffinity");
    let required = node.field(REQUIRED);
    if required.is_set() {
        node_selector(&required, causes);
    }
    for term in node.field(PREFERRED).items() {
        weight(&term, causes);
        node_term(&term.field("preference"), false, causes);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = at.field(name);
        for term in pods.field(REQUIRED).items() {
            pod_term(&term, causes);
        }
        for term in pods.field(PREFERRED).items() {
            weight(&term, causes);
            pod_term(&term.field("podAffinityTerm"), causes);
        }
    }
}

/// A whole `NodeSelector`.
pub fn node_selector(selector: &At<'_, '_>, causes: &mut Causes) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.required(causes, "must have at least one node selector term") {
        for term in terms.items() {
            node_term(&term, true, causes);
        }
    }
}

fn weight(term: &At<'_, '_>, causes: &mut Causes) {
    let weight = term.field("weight");
    let given = weight.int().unwrap_or_default();
    if !(1..=100).contains(&given) {
        weight.invalid_value(causes, given, "must be in the range 1-100");
    }
}

fn node_term(term: &At<'_, '_>, check_values: bool, causes: &mut Causes) {
    for requirement in term.field("matchExpressions").items() {
        let (operator, values) = (requirement.field("operator"), requirement.field("values"));
        match operator.text() {
            "In" | "NotIn" => drop(values.required(causes, "must be specified when `operator` is 'In' or 'NotIn'")),
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => values.forbidden(causes, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "Gt" | "Lt" if values.len() == 1 => {}
            "Gt" | "Lt" => values.missing(causes, "must be specified single value when `operator` is 'Lt' or 'Gt'"),
            _ => operator.invalid(causes, "not a valid selector operator"),
        }
        label_key(&requirement.field("key"), causes);
        for value in values.items().filter(|_| check_values) {
            value.syntax(causes, names::label_value);
        }
    }
    for requirement in term.field("matchFields").items() {
        let (operator, values, key) = (requirement.field("operator"), requirement.field("values"), requirement.field("key"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 1 => {}
            "In" | "NotIn" => values.missing(causes, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            _ => operator.invalid(causes, "not a valid selector operator"),
        }
        if key.text() == "metadata.name" {
            for value in values.items() {
                value.syntax(causes, names::dns_subdomain);
            }
        } else {
            key.invalid(causes, "not a valid field selector key");
        }
    }
}

fn pod_term(term: &At<'_, '_>, causes: &mut Causes) {
    selector(&term.field("labelSelector"), causes);
    selector(&term.field("namespaceSelector"), causes);
    for namespace in term.field("namespaces").items() {
        for why in names::dns_label(namespace.text()) {
            term.field("namespace").invalid_value(causes, namespace.text(), &why);
        }
    }
    let key = term.field("topologyKey");
    key.required(causes, "can not be empty");
    label_key(&key, causes);
}

/// `topologySpreadConstraints`
pub fn spread(list: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for constraint in list.items() {
        let skew = constraint.field("maxSkew");
        if skew.int().unwrap_or_default() <= 0 {
            skew.invalid_value(causes, skew.int().unwrap_or_default(), "must be greater than zero");
        }
        let (key, action) = (constraint.field("topologyKey"), constraint.field("whenUnsatisfiable"));
        key.required(causes, "can not be empty");
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            action.unsupported(causes, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if !seen.insert((key.text(), action.text())) {
            constraint.field("{topologyKey, whenUnsatisfiable}").duplicate_value(causes, format!("{{{}, {}}}", key.text(), action.text()));
        }
        let domains = constraint.field("minDomains");
        if domains.int().is_some_and(|n| n <= 0) {
            domains.invalid(causes, "must be greater than zero");
        }
        if domains.is_set() && action.text() != "DoNotSchedule" {
            domains.invalid(causes, &format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text()));
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.field(name).one_of(causes, &["Honor", "Ignore"]);
        }
        selector(&constraint.field("labelSelector"), causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::{Value, json};

    fn wrong(rule: fn(&At<'_, '_>, &mut Causes), value: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let whole = json!({"x": value});
        let root = At::root(&whole);
        rule(&root.field("x"), &mut causes);
        lines(&causes)
    }

    #[test]
    fn tolerations_are_checked() {
        assert_eq!(
            wrong(
                tolerations,
                json!([{"key": "a", "operator": "Exists", "value": "v"}, {"operator": "Equal"}, {"key": "a", "effect": "No"}, {"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"}])
            ),
            [
                "x[0].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
                "x[1].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "x[2].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                "x[3].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            ]
        );
    }

    #[test]
    fn affinities_are_checked() {
        let at = json!({
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}]},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a/b/c"}]}});
        assert_eq!(
            wrong(affinity, at)[..3],
            [
                "x.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                "x.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
                "x.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
            ]
        );
    }

    #[test]
    fn spread_is_checked() {
        assert_eq!(
            wrong(
                spread,
                json!([{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}, {"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}])
            ),
            [
                "x[1].maxSkew: Invalid value: 0: must be greater than zero",
                "x[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{a, DoNotSchedule}\""
            ]
        );
        assert_eq!(wrong(gates, json!([{"name": "a"}, {"name": "a"}])), ["x[1]: Duplicate value: \"a\""]);
    }
}
