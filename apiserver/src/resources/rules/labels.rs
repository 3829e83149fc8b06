//! Rules of labels and of label selectors.

use super::{At, Causes};
use coracle_api::names;
use serde_json::Value;

/// A label's key.
pub fn label_key(key: &At<'_, '_>, causes: &mut Causes) {
    key.syntax(causes, names::qualified_name);
}

/// A map of labels; mistakes are reported at the map, as upstream does.
pub fn label_map(map: &At<'_, '_>, causes: &mut Causes) {
    for (key, value) in map.entries() {
        for why in names::qualified_name(key) {
            map.invalid_value(causes, key, &why);
        }
        for why in names::label_value(value.text()) {
            map.invalid_value(causes, value.text(), &why);
        }
    }
}

/// Most bytes of annotations on one object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Annotations: keys as of labels but for their case, values of any kind, all of them together not too large.
pub fn annotation_map(map: &At<'_, '_>, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in map.entries() {
        for why in names::qualified_name(&key.to_lowercase()) {
            map.invalid_value(causes, key, &why);
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_ANNOTATIONS {
        map.too_long(causes, MAX_ANNOTATIONS);
    }
}

/// A `metav1.LabelSelector`.
pub fn selector(selector: &At<'_, '_>, causes: &mut Causes) {
    label_map(&selector.field("matchLabels"), causes);
    for requirement in selector.field("matchExpressions").items() {
        let values = requirement.field("values");
        match requirement.field("operator").text() {
            "In" | "NotIn" => {
                values.required(causes, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => values.forbidden(causes, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            _ => requirement.field("operator").invalid(causes, "not a valid selector operator"),
        }
        label_key(&requirement.field("key"), causes);
        for value in values.items() {
            value.syntax(causes, names::label_value);
        }
    }
}

/// The selector of a workload: there, well-formed, not empty, and matching the labels of its own pod template.
pub fn workload_selector(spec: &At<'_, '_>, kind: &str, causes: &mut Causes) {
    let at = spec.field("selector");
    if !at.is_set() {
        at.missing(causes, "");
        return;
    }
    let before = causes.len();
    selector(&at, causes);
    if at.field("matchLabels").is_empty() && at.field("matchExpressions").is_empty() {
        at.invalid(causes, &format!("empty selector is invalid for {kind}"));
    }
    if causes.len() > before {
        return;
    }
    let (template, labels) = (spec.field("template"), &spec.value["template"]["metadata"]["labels"]);
    if coracle_api::selector::Selector::from_object(at.value).is_ok_and(|selector| !selector.matches_labels(labels)) {
        let metadata = template.field("metadata");
        let shown = if labels.is_null() { Value::Null } else { labels.clone() };
        metadata.field("labels").invalid_value(causes, shown, "`selector` does not match template `labels`");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{At, lines};
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_checked() {
        for (spec, want) in [
            (json!({}), vec!["selector: Required value"]),
            (json!({"selector": {}}), vec!["selector: Invalid value: {}: empty selector is invalid for deployment"]),
            (
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}}}}),
                vec!["template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"],
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "b", "operator": "Is"}]}}),
                vec![
                    "selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    "selector.matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector operator",
                ],
            ),
            (json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b", "c": "d"}}}}), vec![]),
        ] {
            let mut causes = Vec::new();
            workload_selector(&At::root(&spec), "deployment", &mut causes);
            assert_eq!(lines(&causes), want);
        }
    }
}
