//! Rules of a Job's failure and success policies.

use crate::resources::{
    cells::list,
    rules::{At, Causes},
};
use coracle_api::names;
use serde_json::Value;
use std::collections::BTreeSet;

const MOST_RULES: usize = 20;
const MOST_EXIT_CODES: usize = 255;
const MOST_CONDITIONS: usize = 20;
/// Bytes of a list of indexes.
const LONGEST_INDEXES: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];

/// `spec.podFailurePolicy`.
pub fn failure(spec: &At<'_, '_>, causes: &mut Causes) {
    let policy = spec.field("podFailurePolicy");
    let rules = policy.field("rules");
    if rules.len() > MOST_RULES {
        rules.too_many(causes, MOST_RULES);
    }
    let pod = &spec.value["template"]["spec"];
    let containers: Vec<&Value> = ["containers", "initContainers"].iter().flat_map(|name| list(&pod[*name])).map(|c| &c["name"]).collect();
    for rule in rules.items() {
        let action = rule.field("action");
        match action.text() {
            "" => action.missing(causes, &format!("valid values: {}", listed(ACTIONS))),
            "FailIndex" if !spec.field("backoffLimitPerIndex").is_set() => {
                action.invalid(causes, "requires the backoffLimitPerIndex to be set");
            }
            known if ACTIONS.contains(&known) => {}
            _ => action.unsupported(causes, ACTIONS),
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &containers, causes);
        }
        if !conditions.is_empty() {
            pod_conditions(&conditions, causes);
        }
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => rule.wrong(causes, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => rule.wrong(causes, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

/// Go's `%q` of a list.
fn listed(words: &[&str]) -> String {
    format!("[{}]", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" "))
}

fn exit_codes(codes: &At<'_, '_>, containers: &[&Value], causes: &mut Causes) {
    let operator = codes.field("operator");
    match operator.text() {
        "" => operator.missing(causes, &format!("valid values: {}", listed(OPERATORS))),
        known if OPERATORS.contains(&known) => {}
        _ => operator.unsupported(causes, OPERATORS),
    }
    let name = codes.field("containerName");
    if name.is_set() && !containers.contains(&name.value) {
        name.invalid(causes, "must be one of the container or initContainer names in the pod template");
    }
    let values = codes.field("values");
    match values.len() {
        0 => values.invalid_value(causes, Value::Array(Vec::new()), "at least one value is required"),
        count if count > MOST_EXIT_CODES => values.too_many(causes, MOST_EXIT_CODES),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    let mut last = None;
    let mut ordered = true;
    for value in values.items() {
        let Some(code) = value.int() else { continue };
        if code == 0 && operator.text() == "In" {
            value.invalid(causes, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(causes);
        }
        ordered &= last.is_none_or(|last| last <= code);
        last = Some(code);
    }
    if !ordered {
        values.invalid(causes, "must be ordered");
    }
}

fn pod_conditions(conditions: &At<'_, '_>, causes: &mut Causes) {
    if conditions.len() > MOST_CONDITIONS {
        conditions.too_many(causes, MOST_CONDITIONS);
    }
    for pattern in conditions.items() {
        pattern.field("type").syntax(causes, names::qualified_name);
        let status = pattern.field("status");
        match status.text() {
            "" => status.missing(causes, "valid values: [\"False\" \"True\" \"Unknown\"]"),
            "True" | "False" | "Unknown" => {}
            _ => status.unsupported(causes, &["False", "True", "Unknown"]),
        }
    }
}

/// `spec.successPolicy` of an indexed Job.
pub fn success(spec: &At<'_, '_>, causes: &mut Causes) {
    let policy = spec.field("successPolicy");
    let rules = policy.field("rules");
    if rules.is_empty() {
        rules.missing(causes, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MOST_RULES {
        rules.too_many(causes, MOST_RULES);
    }
    let completions = spec.field("completions").int().unwrap_or_default();
    for rule in rules.items() {
        let (indexes, count) = (rule.field("succeededIndexes"), rule.field("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            rule.missing(causes, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.text().len() > LONGEST_INDEXES {
                indexes.too_long(causes, LONGEST_INDEXES);
            }
            match read_indexes(indexes.text(), completions) {
                Ok(number) => total = number,
                Err(why) => indexes.invalid(causes, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        count.non_negative(causes);
        let Some(number) = count.int() else { continue };
        if number > completions {
            count.invalid(causes, &format!("must be less than or equal to {completions} (the number of specified completions)"));
        }
        if indexes.is_set() && number > total {
            count.invalid(causes, &format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"));
        }
    }
}

/// Counts the indexes in a text like `0-2,5`, all below `completions`.
///
/// # Errors
/// What is wrong with it.
pub fn read_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for run in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = read_run(run, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// First and last index of `3` or `0-2`.
pub fn read_run(run: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = run.split('-').collect();
    let number = |text: &str| {
        let number: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))?;
        if number >= completions { Err(format!("too large index: \"{text}\"")) } else { Ok(number) }
    };
    match parts[..] {
        [only] => number(only).map(|only| (only, only)),
        [first, last] => {
            let (first, last) = (number(first)?, number(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!("the fragment \"{run}\" violates the requirement that an index interval can have at most two parts separated by '-'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(rule: fn(&At<'_, '_>, &mut Causes), spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(&At::root(&spec), &mut causes);
        lines(&causes)
    }

    #[test]
    fn failure_rules_are_checked() {
        let of = |rule: Value| {
            wrong(
                failure,
                json!({"template": {"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}}, "podFailurePolicy": {"rules": [rule]}}),
            )
        };
        let at = "podFailurePolicy.rules[0]";
        assert_eq!(of(json!({"action": "FailJob", "onExitCodes": {"containerName": "i", "operator": "In", "values": [1, 2]}})), Vec::<String>::new());
        assert_eq!(of(json!({"action": "FailJob"})), [format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")]);
        assert_eq!(
            of(json!({"action": "FailIndex", "onPodConditions": [{"type": "X", "status": "True"}]})),
            [format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set")]
        );
        assert_eq!(
            of(json!({"onExitCodes": {"containerName": "b", "operator": "In", "values": [3, 0, 3]}})),
            [
                format!("{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
                format!(
                    "{at}.onExitCodes.containerName: Invalid value: \"b\": must be one of the container or initContainer names in the pod template"
                ),
                format!("{at}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
                format!("{at}.onExitCodes.values[2]: Duplicate value: 3"),
                format!("{at}.onExitCodes.values: Invalid value: [3,0,3]: must be ordered"),
            ]
        );
        assert_eq!(
            of(json!({"action": "Ignore", "onPodConditions": [{"type": "Y", "status": "Maybe"}]})),
            [format!("{at}.onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"")]
        );
    }

    #[test]
    fn success_rules_are_checked() {
        let of = |rule: Value| wrong(success, json!({"completions": 5, "successPolicy": {"rules": [rule]}}));
        let at = "successPolicy.rules[0]";
        assert_eq!(of(json!({"succeededIndexes": "0-2,4", "succeededCount": 4})), Vec::<String>::new());
        assert_eq!(of(json!({})), [format!("{at}: Required value: at least one of succeededCount or succeededIndexes must be specified")]);
        assert_eq!(
            of(json!({"succeededIndexes": "0,1", "succeededCount": 3})),
            [format!(
                "{at}.succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"
            )]
        );
        assert_eq!(
            of(json!({"succeededCount": 6})),
            [format!("{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)")]
        );
        for (text, why) in [
            ("5", "too large index: \"5\""),
            ("x", "cannot convert string to integer for index: \"x\""),
            ("2-1", "non-increasing order, previous: 2, current: 1"),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("0-1-2", "the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts separated by '-'"),
        ] {
            assert_eq!(read_indexes(text, 5), Err(why.to_owned()));
        }
        assert_eq!(read_indexes("", 5), Ok(0));
    }
}
