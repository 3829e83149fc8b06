//! How many pods of a budget are healthy, and how many may go.

use crate::controllers::action::Action;
use coracle_apiserver::view::{
    Owner, Text,
    budget::{Budget, Report, note, set, to_json},
    int_or_percent::IntOrPercent,
    pod::Pod,
    time,
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long an eviction may take until its pod is seen to go.
const DELETION: SignedDuration = SignedDuration::from_secs(2 * 60);

/// What a look at a budget decides.
#[derive(Debug, Default, PartialEq)]
pub struct Decided {
    /// Events, and the status if it changes.
    pub actions: Vec<Action>,
    /// Pods that should be gone by now.
    pub not_deleted: Vec<String>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// Identity and wanted number of pods of an owner that exists; a sentence if that cannot be told.
pub type Scale<'s> = &'s dyn Fn(&Owner<'_>) -> Result<Option<(String, i64)>, String>;

/// Counts the pods of a budget.
pub fn decide(budget: &Budget<'_>, pods: &[Pod<'_>], scale: Scale<'_>, now: Timestamp) -> Decided {
    let mut decided = Decided::default();
    let mut tell = |kind, reason, message| decided.actions.push(Action::Event { kind, reason, message });
    if pods.is_empty() {
        tell("Normal", "NoPods", "No matching pods found".to_owned());
    }
    let (expected, desired, unmanaged) = match expectation(budget, pods, scale) {
        Ok(expectation) => expectation,
        Err(why) => {
            tell("Warning", "CalculateExpectedPodCountFailed", format!("Failed to calculate the number of expected pods: {why}"));
            let mut report = budget.status.clone();
            report.disruptions_allowed = 0;
            set(&mut report, "False", "SyncFailed", why, now);
            write(budget, report, &mut decided);
            return decided;
        }
    };
    if unmanaged {
        let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
        tell("Warning", "UnmanagedPods", message.to_owned());
    }
    let mut report = Report {
        observed_generation: budget.metadata.generation,
        desired_healthy: desired,
        expected_pods: expected,
        conditions: budget.status.conditions.clone(),
        ..Report::default()
    };
    for pod in pods.iter().filter(|pod| !pod.metadata.deleting()) {
        let disrupted = budget.status.disrupted_pods.get(&pod.metadata.name).and_then(|at| Some((at, time(at)?)));
        match disrupted.map(|(at, since)| (at, DELETION - now.duration_since(since))) {
            Some((at, left)) if left > SignedDuration::ZERO => {
                report.disrupted_pods.insert(Text::from(pod.metadata.name.to_string()), at.clone());
                let left = left.unsigned_abs();
                decided.again = Some(decided.again.map_or(left, |other| other.min(left)));
                continue;
            }
            Some(_) => decided.not_deleted.push(pod.metadata.name.to_string()),
            None => {}
        }
        report.current_healthy += i64::from(pod.ready());
    }
    report.disruptions_allowed = if expected > 0 { (report.current_healthy - desired).max(0) } else { 0 };
    note(&mut report, now);
    write(budget, report, &mut decided);
    decided
}

/// How many pods there should be, how many of them healthy, and whether there are some that nobody controls.
fn expectation(budget: &Budget<'_>, pods: &[Pod<'_>], scale: Scale<'_>) -> Result<(i64, i64, bool), String> {
    let managed = || -> Result<(i64, bool), String> {
        let mut scales: BTreeMap<String, i64> = BTreeMap::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = pod.metadata.controller() else {
                unmanaged = true;
                continue;
            };
            if seen.insert(&owner.uid) {
                let (uid, count) = scale(owner)?.ok_or_else(|| format!("found no controllers for pod \"{}\"", pod.metadata.name))?;
                scales.insert(uid, count);
            }
        }
        Ok((scales.values().sum(), unmanaged))
    };
    match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(most), _) => {
            let (expected, unmanaged) = managed()?;
            Ok((expected, (expected - most.of(expected, true)).max(0), unmanaged))
        }
        (None, Some(IntOrPercent::Int(least))) => Ok((pods.len() as i64, *least, false)),
        (None, Some(least)) => {
            let (expected, unmanaged) = managed()?;
            Ok((expected, least.of(expected, true), unmanaged))
        }
        (None, None) => Ok((0, 0, false)),
    }
}

fn write(budget: &Budget<'_>, report: Report<'_>, decided: &mut Decided) {
    if report != budget.status {
        decided.actions.push(Action::Status(to_json(&report)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn pods(texts: &[&str]) -> Vec<String> {
        let pod = |text: &&str| {
            let (name, how) = text.split_once(' ').unwrap_or((text, "ready"));
            let ready = if how == "unready" { "False" } else { "True" };
            let mut pod = json!({ "metadata": { "name": name, "ownerReferences": [{ "uid": "r", "kind": "ReplicaSet", "controller": true }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
            match how {
                "going" => pod["metadata"]["deletionTimestamp"] = json!(NOW),
                "alone" => pod["metadata"]["ownerReferences"] = json!([]),
                _ => {}
            }
            pod.to_string()
        };
        texts.iter().map(pod).collect()
    }

    /// (allowed, healthy, desired, expected), and reasons of events.
    fn count(spec: Value, status: Value, texts: &[&str]) -> ([i64; 4], Vec<&'static str>, Decided) {
        let budget = json!({ "metadata": { "name": "b", "generation": 3 }, "spec": spec, "status": status }).to_string();
        let budget: Budget<'_> = parse_bytes(budget.as_bytes()).expect("a budget");
        let texts = pods(texts);
        let views: Vec<Pod<'_>> = texts.iter().map(|text| parse_bytes(text.as_bytes()).expect("a pod")).collect();
        let scale = |_: &Owner<'_>| Ok(Some(("d".to_owned(), 4)));
        let decided = decide(&budget, &views, &scale, NOW.parse().expect("time"));
        let mut counts = [-1; 4];
        let mut reasons = Vec::new();
        for action in &decided.actions {
            match action {
                Action::Status(status) => {
                    counts =
                        ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"].map(|name| status[name].as_i64().unwrap_or(-2));
                }
                Action::Event { reason, .. } => reasons.push(*reason),
                other => panic!("{other:?}"),
            }
        }
        (counts, reasons, decided)
    }

    fn counts(spec: Value, texts: &[&str]) -> [i64; 4] {
        count(spec, json!({}), texts).0
    }

    #[test]
    fn what_may_be_missing_is_counted() {
        assert_eq!(counts(json!({ "minAvailable": 2 }), &["a", "b", "c"]), [1, 3, 2, 3]);
        assert_eq!(counts(json!({ "minAvailable": 2 }), &["a", "b unready", "c going"]), [0, 1, 2, 3]);
        assert_eq!(counts(json!({ "minAvailable": "50%" }), &["a", "b", "c"]), [1, 3, 2, 4], "of the four that there should be");
        assert_eq!(counts(json!({ "maxUnavailable": 1 }), &["a", "b", "c", "d"]), [1, 4, 3, 4]);
        assert_eq!(counts(json!({ "maxUnavailable": "30%" }), &["a", "b", "c", "d"]), [2, 4, 2, 4]);
        assert_eq!(counts(json!({ "maxUnavailable": 9 }), &["a"]), [1, 1, 0, 4]);
        let (counts, reasons, _) = count(json!({ "minAvailable": 1 }), json!({}), &[]);
        assert_eq!((counts, reasons), ([0, 0, 1, 0], vec!["NoPods"]));
        assert_eq!(count(json!({ "maxUnavailable": 1 }), json!({}), &["a alone", "b"]).1, ["UnmanagedPods"]);
    }

    #[test]
    fn a_pod_that_may_go_is_missing_until_it_is_seen_to_go() {
        let status = json!({ "disruptedPods": { "a": "2026-01-01T00:00:00Z", "b": "2025-12-31T23:00:00Z", "gone": "2026-01-01T00:00:00Z" } });
        let (counts, _, decided) = count(json!({ "minAvailable": 1 }), status, &["a", "b", "c"]);
        assert_eq!((counts, decided.again), ([1, 2, 1, 3], Some(Duration::from_secs(60))));
        assert_eq!(decided.not_deleted, ["b"]);
        let Some(Action::Status(status)) = decided.actions.last() else { panic!("a status") };
        assert_eq!(status["disruptedPods"], json!({ "a": "2026-01-01T00:00:00Z" }));
        assert_eq!(status["conditions"][0]["reason"], "SufficientPods");
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let budget: Budget<'_> = parse_bytes(br#"{"spec":{"maxUnavailable":1},"status":{"disruptionsAllowed":3}}"#).expect("a budget");
        let texts = pods(&["a"]);
        let views: Vec<Pod<'_>> = texts.iter().map(|text| parse_bytes(text.as_bytes()).expect("a pod")).collect();
        let decided = decide(&budget, &views, &|_| Err("jobs.batch does not implement the scale subresource".to_owned()), NOW.parse().expect("time"));
        let [Action::Event { reason, .. }, Action::Status(status)] = &decided.actions[..] else { panic!("{decided:?}") };
        assert_eq!((*reason, &status["disruptionsAllowed"]), ("CalculateExpectedPodCountFailed", &json!(0)));
        assert_eq!((&status["conditions"][0]["reason"], &status["conditions"][0]["status"]), (&json!("SyncFailed"), &json!("False")));
        let lost = decide(&budget, &views, &|_| Ok(None), NOW.parse().expect("time"));
        let Some(Action::Status(status)) = lost.actions.last() else { panic!("a status") };
        assert_eq!(status["conditions"][0]["message"], "found no controllers for pod \"a\"");
    }
}
