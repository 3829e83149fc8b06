//! Rules of conditions as every newer kind has them (`metav1.Condition`).

use super::{At, Causes};
use coracle_api::names;
use std::collections::BTreeSet;

const LONGEST_REASON: usize = 1024;
const LONGEST_MESSAGE: usize = 32 * 1024;

/// A list of conditions, one a type.
pub fn validate(conditions: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.field("type");
        if !seen.insert(kind.text()) {
            kind.duplicate(causes);
        }
        kind.syntax(causes, names::qualified_name);
        let status = condition.field("status");
        if !matches!(status.text(), "True" | "False" | "Unknown") {
            status.unsupported(causes, &["False", "True", "Unknown"]);
        }
        condition.field("observedGeneration").non_negative(causes);
        let since = condition.field("lastTransitionTime");
        if !since.is_set() {
            since.missing(causes, "must be set");
        }
        let reason = condition.field("reason");
        if reason.required(causes, "") && !is_reason(reason.text()) {
            reason.invalid(
                causes,
                "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
            );
        }
        for (at, most) in [(&reason, LONGEST_REASON), (&condition.field("message"), LONGEST_MESSAGE)] {
            if at.text().len() > most {
                at.too_long(causes, most);
            }
        }
    }
}

fn is_reason(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b',' | b':');
    let ends = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.bytes().all(inner) && text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic()) && text.bytes().last().is_some_and(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn conditions_are_whole() {
        let list = json!([
            {"type": "A", "status": "True", "reason": "All,Good:Here_", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "A", "status": "Yes", "reason": ""},
        ]);
        let mut causes = Vec::new();
        validate(&At::root(&list), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "[1].type: Duplicate value: \"A\"",
                "[1].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\"",
                "[1].lastTransitionTime: Required value: must be set",
                "[1].reason: Required value",
            ]
        );
        assert!(!is_reason("1a") && !is_reason("a:") && is_reason("a"));
    }
}
