//! What a ReplicaSet reports about its pods.

use super::{ReplicaSet, State};
use coracle_apiserver::view::{
    Condition, Text, condition,
    pod::{Availability, Pod},
    stamp,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// The new status, if it differs from the old, and when a pod becomes available by time alone.
#[derive(Debug, PartialEq)]
pub struct Report {
    /// To be written.
    pub status: Option<Value>,
    /// Look again then.
    pub again: Option<Duration>,
}

/// Computes the status from the pods the set controls; `terminating` pods are counted or not; `failure` is why making or deleting pods
/// failed just now.
pub fn report(set: &ReplicaSet<'_>, owned: &[&Pod<'_>], terminating: bool, failure: Option<&str>, now: Timestamp) -> Report {
    let mut status = State { observed_generation: set.metadata.generation, conditions: set.status.conditions.clone(), ..State::default() };
    let mut again: Option<Duration> = None;
    for pod in owned {
        if pod.terminal() {
            continue;
        }
        if pod.metadata.deleting() {
            status.terminating_replicas += i64::from(terminating);
            continue;
        }
        status.replicas += 1;
        let labels = &pod.metadata.labels;
        status.fully_labeled_replicas += i64::from(set.spec.template.metadata.labels.iter().all(|(key, value)| labels.get(key) == Some(value)));
        status.ready_replicas += i64::from(pod.ready());
        match pod.availability(set.spec.min_ready_seconds, now) {
            Availability::Available => status.available_replicas += 1,
            Availability::In(left) => again = Some(again.map_or(left, |other| other.min(left))),
            Availability::Unavailable => {}
        }
    }

    let wanted = set.spec.replicas.unwrap_or(1);
    match (failure, condition(&status.conditions, "ReplicaFailure")) {
        (Some(message), None) => status.conditions.push(Condition {
            kind: Text::from("ReplicaFailure"),
            status: Text::from("True"),
            reason: Text::from(if status.replicas < wanted { "FailedCreate" } else { "FailedDelete" }),
            message: Text::from(message.to_owned()),
            last_transition_time: Text::from(stamp(now)),
            ..Condition::default()
        }),
        (None, Some(_)) => status.conditions.retain(|c| c.kind != "ReplicaFailure"),
        _ => {}
    }
    let changed = status != set.status;
    Report { status: changed.then(|| to_json(&status)), again }
}

fn to_json(status: &State<'_>) -> Value {
    let mut json = json!({
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "observedGeneration": status.observed_generation,
    });
    if !status.conditions.is_empty() {
        json["conditions"] = status.conditions.iter().map(Condition::to_json).collect();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    fn pod(ready_since: Option<&str>, extra: &str, phase: &str) -> String {
        let (status, since) = ready_since.map_or(("False", "2026-01-01T00:00:00Z"), |since| ("True", since));
        format!(
            r#"{{"metadata":{{"labels":{{"app":"a"}}{extra}}},"status":{{"phase":"{phase}",
            "conditions":[{{"type":"Ready","status":"{status}","lastTransitionTime":"{since}"}}]}}}}"#
        )
    }

    #[test]
    fn pods_are_counted_by_what_they_are() {
        let set = br#"{"metadata":{"generation":2},"spec":{"replicas":4,"minReadySeconds":10,"template":{"metadata":{"labels":{"app":"a"}}}}}"#;
        let set: ReplicaSet<'_> = parse_bytes(set).expect("set");
        let now: Timestamp = "2026-01-01T00:00:12Z".parse().expect("time");
        let pods = [
            pod(Some("2026-01-01T00:00:00Z"), "", "Running"),
            pod(Some("2026-01-01T00:00:05Z"), "", "Running"),
            pod(None, "", "Pending"),
            pod(None, r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, "Running"),
            pod(None, "", "Failed"),
        ];
        let views: Vec<Pod<'_>> = pods.iter().map(|p| parse_bytes(p.as_bytes()).expect("pod")).collect();
        let report = report(&set, &views.iter().collect::<Vec<_>>(), true, None, now);
        assert_eq!(report.again, Some(Duration::from_secs(3)), "the second pod is available at 00:00:15");
        assert_eq!(
            report.status,
            Some(
                json!({ "replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1, "terminatingReplicas": 1, "observedGeneration": 2 })
            )
        );
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let now: Timestamp = "2026-01-01T00:00:12Z".parse().expect("time");
        let set: ReplicaSet<'_> = parse_bytes(br#"{"spec":{"replicas":1}}"#).expect("set");
        let failed = report(&set, &[], true, Some("exceeded quota"), now).status.expect("a status");
        assert_eq!(failed["conditions"][0]["reason"], "FailedCreate");
        let stored = json!({ "spec": { "replicas": 1 }, "status": failed }).to_string();
        let set: ReplicaSet<'_> = parse_bytes(stored.as_bytes()).expect("set");
        assert_eq!(report(&set, &[], true, Some("exceeded quota again"), now).status, None, "the first failure stands");
        assert_eq!(report(&set, &[], true, None, now).status.expect("a status").get("conditions"), None);
    }
}
