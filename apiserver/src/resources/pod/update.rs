//! What may change in a pod that exists: images, the deadline, more tolerations, fewer gates. Everything else is another pod.

use super::{only_for_pods, spec};
use crate::resources::rules::{At, Causes};
use serde_json::Value;
use std::collections::BTreeSet;

const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Rules of an update of the object.
pub fn validate(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    if old["spec"] == new["spec"] {
        return;
    }
    spec::validate(&spec, spec::Of::Pod, causes);
    only_for_pods(&spec, causes);
    for list in ["containers", "initContainers"] {
        let at = spec.field(list);
        if at.len() != old["spec"][list].as_array().map_or(0, Vec::len) {
            at.forbidden(causes, "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(&old["spec"], &spec, causes) {
        return;
    }
    tolerations(&old["spec"], &spec, causes);
    gates(&old["spec"], &spec, causes);
    let mut allowed = new["spec"].clone();
    put_back(&old["spec"], &mut allowed);
    if !super::super::cells::list(&old["spec"]["schedulingGates"]).is_empty() {
        gated(&old["spec"], &spec, &mut allowed, causes);
    }
    if allowed != old["spec"] {
        spec.forbidden(causes, &format!("pod updates may not change fields other than {CHANGEABLE}\n{}", differences(&old["spec"], &allowed)));
    }
}

/// The deadline may be set, and shortened.
fn deadline(old: &Value, spec: &At<'_, '_>, causes: &mut Causes) -> bool {
    let (before, at) = (old["activeDeadlineSeconds"].as_i64(), spec.field("activeDeadlineSeconds"));
    match (before, at.int()) {
        (Some(_), None) => at.invalid_value(causes, Value::Null, "must not update from a positive integer to nil value"),
        (Some(before), Some(now)) if before < now => {
            at.invalid(causes, "must be less than or equal to previous value");
            return false;
        }
        _ => {}
    }
    true
}

fn tolerations(old: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let at = spec.field("tolerations");
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let now: Vec<Value> = at.items().map(|toleration| without_seconds(toleration.value)).collect();
    let kept = |toleration: &Value| now.contains(&without_seconds(toleration));
    if !old["tolerations"].as_array().into_iter().flatten().all(kept) {
        at.forbidden(causes, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(old: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let before: BTreeSet<&str> = old["schedulingGates"].as_array().into_iter().flatten().filter_map(|gate| gate["name"].as_str()).collect();
    for gate in spec.field("schedulingGates").items() {
        let name = gate.field("name");
        if !before.contains(name.text()) {
            name.forbidden(causes, &format!("only deletion is allowed, but found new scheduling gate '{}'", name.text()));
        }
    }
}

/// Undoes every change that is allowed, so that what is left must be equal.
fn put_back(old: &Value, allowed: &mut Value) {
    for list in ["containers", "initContainers"] {
        for (place, container) in allowed.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            container["image"] = old[list][place]["image"].clone();
        }
    }
    let map = match allowed {
        Value::Object(map) => map,
        _ => return,
    };
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        match old.get(name) {
            Some(value) => drop(map.insert(name.into(), value.clone())),
            None => drop(map.remove(name)),
        }
    }
    let period = "terminationGracePeriodSeconds";
    if old[period].as_i64().is_some_and(|n| n < 0) && map.get(period).and_then(Value::as_i64) == Some(1) {
        map.insert(period.into(), old[period].clone());
    }
}

/// A pod that waits at a gate may still be told more narrowly where to run.
fn gated(old: &Value, spec: &At<'_, '_>, allowed: &mut Value, causes: &mut Causes) {
    let at = spec.field("nodeSelector");
    let kept = |(key, value): (&String, &Value)| at.value.get(key) == Some(value);
    if !old["nodeSelector"].as_object().into_iter().flatten().all(kept) {
        at.invalid(causes, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    if let Value::Object(map) = allowed {
        match old.get("nodeSelector") {
            Some(value) => drop(map.insert("nodeSelector".into(), value.clone())),
            None => drop(map.remove("nodeSelector")),
        }
    }
}

/// The places that differ, one a line: `spec.hostname: "a" -> "b"`.
fn differences(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    compare("spec", old, new, &mut lines);
    lines.truncate(20);
    lines.join("\n")
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(now)) => {
            let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for key in keys {
                compare(&format!("{path}.{key}"), &old[key.as_str()], &new[key.as_str()], lines);
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (place, (before, now)) in before.iter().zip(now).enumerate() {
                compare(&format!("{path}[{place}]"), before, now, lines);
            }
        }
        _ => lines.push(format!("{path}: {old} -> {new}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}], "activeDeadlineSeconds": 10, "hostname": "h",
            "tolerations": [{"key": "t", "operator": "Exists"}], "schedulingGates": [{"name": "g"}], "nodeSelector": {"a": "b"}}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut causes = Vec::new();
        validate(&old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn what_may_change() {
        let none = Vec::<String>::new();
        assert_eq!(wrong(|_| {}), none);
        assert_eq!(wrong(|s| s["containers"][0]["image"] = "x:2".into()), none);
        assert_eq!(wrong(|s| s["activeDeadlineSeconds"] = 5.into()), none);
        assert_eq!(wrong(|s| s["tolerations"] = json!([{"key": "t", "operator": "Exists"}, {"key": "u", "operator": "Exists"}])), none);
        assert_eq!(wrong(|s| s["schedulingGates"] = json!([])), none);
        assert_eq!(wrong(|s| s["nodeSelector"]["c"] = "d".into()), none);
    }

    #[test]
    fn what_may_not() {
        assert_eq!(
            wrong(|s| s["hostname"] = "i".into()),
            [format!("spec: Forbidden: pod updates may not change fields other than {CHANGEABLE}\nspec.hostname: \"h\" -> \"i\"")]
        );
        assert_eq!(
            wrong(|s| s["containers"] = json!([])).last().map(String::as_str),
            Some("spec.containers: Forbidden: pod updates may not add or remove containers")
        );
        assert_eq!(
            wrong(|s| s["activeDeadlineSeconds"] = 11.into()),
            ["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"]
        );
        assert_eq!(
            wrong(|s| s["tolerations"] = json!([])),
            ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
        );
        assert_eq!(
            wrong(|s| s["schedulingGates"] = json!([{"name": "g"}, {"name": "h"}])),
            ["spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"]
        );
        assert_eq!(
            wrong(|s| s["nodeSelector"] = json!({})),
            ["spec.nodeSelector: Invalid value: {}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"]
        );
    }
}
