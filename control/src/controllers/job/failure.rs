//! What a failed pod means for its Job (`spec.podFailurePolicy`, KEP-3329).

use super::pod::{Container, Pod};
use coracle_apiserver::view::Text;
use serde::Deserialize;

/// `batch/v1 PodFailurePolicy`: the first rule that matches decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FailurePolicy<'a> {
    #[serde(borrow)]
    rules: Vec<Rule<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule<'a> {
    /// `FailJob`, `FailIndex`, `Ignore`, `Count`.
    #[serde(borrow)]
    action: Text<'a>,
    on_exit_codes: Option<ExitCodes<'a>>,
    on_pod_conditions: Vec<Pattern<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExitCodes<'a> {
    /// Any container, unless given.
    #[serde(borrow)]
    container_name: Option<Text<'a>>,
    /// `In`, `NotIn`.
    operator: Text<'a>,
    values: Vec<i64>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Pattern<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    status: Text<'a>,
}

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It counts towards the limits.
    Counts,
    /// It does not.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed, and why.
    FailsJob(String),
}

impl ExitCodes<'_> {
    /// The first container that ended with such a code; 0 is never one.
    fn matching<'c, 'p>(&self, containers: &'c [Container<'p>]) -> Option<(&'c Container<'p>, i64)> {
        let named = |container: &&Container<'_>| self.container_name.as_ref().is_none_or(|name| *name == container.name);
        containers.iter().filter(named).find_map(|container| {
            let code = container.state.terminated.as_ref()?.exit_code;
            let listed = self.values.contains(&code);
            let matches = match &*self.operator {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            };
            (code != 0 && matches).then_some((container, code))
        })
    }
}

/// Judges a failed pod. Without a policy every failure counts.
pub fn judge(policy: Option<&FailurePolicy<'_>>, pod: &Pod<'_>) -> Failure {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    for (index, rule) in policy.into_iter().flat_map(|policy| &policy.rules).enumerate() {
        let why = match &rule.on_exit_codes {
            Some(codes) => {
                let status = &pod.status;
                let found = codes.matching(&status.container_statuses).or_else(|| codes.matching(&status.init_container_statuses));
                found.map(|(container, code)| format!("Container {} for pod {namespace}/{name} failed with exit code {code}", container.name))
            }
            None => {
                let has = |pattern: &Pattern<'_>| pod.status.conditions.iter().any(|c| c.kind == pattern.kind && c.status == pattern.status);
                rule.on_pod_conditions.iter().find(|pattern| has(pattern)).map(|p| format!("Pod {namespace}/{name} has condition {}", p.kind))
            }
        };
        let Some(why) = why else { continue };
        match &*rule.action {
            "Ignore" => return Failure::Ignored,
            "FailIndex" => return Failure::FailsIndex,
            "FailJob" => return Failure::FailsJob(format!("{why} matching FailJob rule at index {index}")),
            "Count" => return Failure::Counts,
            _ => {}
        }
    }
    Failure::Counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = json!({ "rules": [
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [3, 42] } },
            { "action": "FailIndex", "onExitCodes": { "operator": "NotIn", "values": [1, 2, 42] } },
            { "action": "Count", "onExitCodes": { "operator": "In", "values": [2] } },
            { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [2] } },
        ] })
        .to_string();
        let policy: FailurePolicy<'_> = serde_json::from_str(&policy).expect("a policy");
        let judged = |containers: &[(&str, i64)], condition: &str| {
            let statuses: Vec<_> =
                containers.iter().map(|(name, code)| json!({ "name": name, "state": { "terminated": { "exitCode": code } } })).collect();
            let pod = json!({ "metadata": { "namespace": "n", "name": "p" },
                "status": { "phase": "Failed", "containerStatuses": statuses, "conditions": [{ "type": condition, "status": "True" }] } })
            .to_string();
            judge(Some(&policy), &serde_json::from_str(&pod).expect("a pod"))
        };
        assert_eq!(judged(&[("main", 42)], "DisruptionTarget"), Failure::Ignored);
        let message = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judged(&[("side", 0), ("main", 42)], "x"), Failure::FailsJob(message.to_owned()));
        assert_eq!(judged(&[("side", 42)], "x"), Failure::Counts);
        assert_eq!(judged(&[("side", 7)], "x"), Failure::FailsIndex);
        assert_eq!(judged(&[("main", 2)], "x"), Failure::Counts);
        assert_eq!(judged(&[("main", 0)], "x"), Failure::Counts, "0 is no failure of a container");
        assert_eq!(judge(None, &Pod::default()), Failure::Counts);
    }

    #[test]
    fn a_condition_may_fail_the_job() {
        let policy = r#"{"rules":[{"action":"FailJob","onPodConditions":[{"type":"ConfigIssue","status":"True"}]}]}"#;
        let policy: FailurePolicy<'_> = serde_json::from_str(policy).expect("a policy");
        let pod = r#"{"metadata":{"namespace":"n","name":"p"},"status":{"conditions":[{"type":"ConfigIssue","status":"True"}]}}"#;
        let judged = judge(Some(&policy), &serde_json::from_str(pod).expect("a pod"));
        assert_eq!(judged, Failure::FailsJob("Pod n/p has condition ConfigIssue matching FailJob rule at index 0".to_owned()));
    }
}
