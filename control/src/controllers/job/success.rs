//! When an indexed Job has succeeded before all its indexes have (`spec.successPolicy`, KEP-3998).

use super::indexes::Indexes;
use coracle_apiserver::view::Text;
use serde::Deserialize;

/// `batch/v1 SuccessPolicy`: any of its rules.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SuccessPolicy<'a> {
    #[serde(borrow)]
    rules: Vec<Rule<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule<'a> {
    /// All of these, or so many of them.
    #[serde(borrow)]
    succeeded_indexes: Option<Text<'a>>,
    /// So many of those above, or of all.
    succeeded_count: Option<i64>,
}

/// The sentence that says which rule is met, if one is.
pub fn met(policy: &SuccessPolicy<'_>, completions: i64, succeeded: &Indexes) -> Option<String> {
    if succeeded.total() == 0 {
        return None;
    }
    let met = |rule: &Rule<'_>| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let common = wanted.overlap(succeeded);
            wanted.total() > 0 && (common == wanted.total() || rule.succeeded_count.is_some_and(|count| common >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.total() >= count),
    };
    policy.rules.iter().position(met).map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_rule_is_enough() {
        let policy = r#"{"rules":[{"succeededIndexes":"0,2-4"},{"succeededIndexes":"0-5","succeededCount":3},{"succeededCount":5}]}"#;
        let policy: SuccessPolicy<'_> = serde_json::from_str(policy).expect("a policy");
        let index = |text: &str| met(&policy, 10, &Indexes::parse(text, 10)).map(|sentence| sentence.replace("Matched rules at index ", ""));
        for (succeeded, rule) in [("", None), ("0", None), ("0,2-4", Some("0")), ("1,3,5", Some("1")), ("5-9", Some("2")), ("6-9", None)] {
            assert_eq!(index(succeeded).as_deref(), rule, "{succeeded}");
        }
    }
}
