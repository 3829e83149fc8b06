//! How many pods a ReplicaSet lacks, or which of its pods go first when it has too many.

use coracle_apiserver::view::{pod::Pod, time};
use jiff::Timestamp;
use std::{cmp::Ordering, collections::HashMap, time::Duration};

/// First and longest wait before pods that failed at once are replaced, and how long a failure counts.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const COUNTS: Duration = Duration::from_secs(600);

/// What is to be done about the number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diff {
    /// As many as wanted.
    None,
    /// Make so many.
    Create(usize),
    /// Delete these (name, uid).
    Delete(Vec<(String, String)>),
}

/// What decides whether a pod goes early.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    name: &'a str,
    uid: &'a str,
    assigned: bool,
    phase: u8,
    ready: bool,
    /// Annotation `controller.kubernetes.io/pod-deletion-cost`; lower goes first.
    cost: i32,
    /// Related pods on the same node; the more crowded, the earlier.
    crowd: usize,
    ready_since: Option<Timestamp>,
    restarts: i64,
    created: Timestamp,
}

impl<'a> Candidate<'a> {
    /// From a pod and the number of related pods on each node.
    pub fn new(pod: &'a Pod<'a>, crowd: &HashMap<String, usize>) -> Self {
        let meta = &pod.metadata;
        Self {
            name: &meta.name,
            uid: &meta.uid,
            assigned: !pod.spec.node_name.is_empty(),
            phase: match &*pod.status.phase {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready: pod.ready(),
            cost: meta.annotations.get("controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok()).unwrap_or(0),
            crowd: crowd.get(&*pod.spec.node_name).copied().unwrap_or(0),
            ready_since: pod.ready_since(),
            restarts: pod.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0),
            created: time(&meta.creation_timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    /// Less goes first. Times are compared by the logarithm of their age, so that among pods of a similar age the choice is not
    /// always the youngest (KEP-2185).
    fn order(&self, other: &Self, now: Timestamp) -> Ordering {
        let age = |time: Timestamp| (now.duration_since(time).as_nanos().max(1) as u128).ilog2();
        (self.assigned.cmp(&other.assigned))
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.crowd.cmp(&self.crowd))
            .then_with(|| match (self.ready_since, other.ready_since) {
                (Some(ours), Some(theirs)) => age(ours).cmp(&age(theirs)),
                _ => Ordering::Equal,
            })
            .then(other.restarts.cmp(&self.restarts))
            .then_with(|| age(self.created).cmp(&age(other.created)))
            .then_with(|| self.uid.cmp(other.uid))
    }
}

/// Compares the active pods with the wanted number; at most `burst` are made or deleted at a time.
pub fn diff(mut active: Vec<Candidate<'_>>, wanted: usize, burst: usize, now: Timestamp) -> Diff {
    match active.len().cmp(&wanted) {
        Ordering::Equal => Diff::None,
        Ordering::Less => Diff::Create((wanted - active.len()).min(burst)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(burst);
            active.sort_by(|a, b| a.order(b, now));
            Diff::Delete(active.iter().take(surplus).map(|pod| (pod.name.to_owned(), pod.uid.to_owned())).collect())
        }
    }
}

/// How long to wait until pods are made in the place of those that failed, which were made at these times. Each is replaced at once the first time; then 1 s after the
/// youngest was made, doubling with each round. A pod that lived longer than that is replaced at once, so that this is about those that their node refuses: they would
/// otherwise be made as fast as they are refused, and all of them kept.
pub fn breath(failed: &[Timestamp], wanted: usize, now: Timestamp) -> Option<Duration> {
    let age = |made: &Timestamp| Duration::try_from(now.duration_since(*made)).unwrap_or_default();
    let recent = || failed.iter().map(age).filter(|age| *age < COUNTS);
    let rounds = u32::try_from(recent().count().saturating_sub(1) / wanted.max(1)).unwrap_or(u32::MAX).checked_sub(1)?;
    let wait = WAITS.0.saturating_mul(1 << rounds.min(16)).min(WAITS.1);
    wait.checked_sub(recent().min()?).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn pod(name: &str, node: &str, phase: &str, ready: bool, extra: &str) -> String {
        let status = if ready { "True" } else { "False" };
        format!(
            r#"{{"metadata":{{"name":"{name}","uid":"{name}","creationTimestamp":"2026-01-01T00:00:00Z"{extra}}},"spec":{{"nodeName":"{node}"}},
            "status":{{"phase":"{phase}","conditions":[{{"type":"Ready","status":"{status}","lastTransitionTime":"2026-01-01T00:00:10Z"}}]}}}}"#
        )
    }

    fn chosen(pods: &[String], wanted: usize, crowd: &HashMap<String, usize>) -> Vec<String> {
        let views: Vec<Pod<'_>> = pods.iter().map(|p| parse_bytes(p.as_bytes()).expect("pod")).collect();
        let candidates = views.iter().map(|pod| Candidate::new(pod, crowd)).collect();
        match diff(candidates, wanted, 500, NOW.parse().expect("time")) {
            Diff::Delete(names) => names.into_iter().map(|(name, _)| name).collect(),
            other => panic!("expected deletions, got {other:?}"),
        }
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("ready", "n1", "Running", true, ""),
            pod("unready", "n1", "Running", false, ""),
            pod("pending", "n1", "Pending", false, ""),
            pod("unassigned", "", "Pending", false, ""),
            pod("cheap", "n1", "Running", true, r#","annotations":{"controller.kubernetes.io/pod-deletion-cost":"-1"}"#),
        ];
        assert_eq!(chosen(&pods, 0, &HashMap::new()), ["unassigned", "pending", "unready", "cheap", "ready"]);
        assert_eq!(chosen(&pods, 3, &HashMap::new()), ["unassigned", "pending"]);
    }

    #[test]
    fn crowded_nodes_are_thinned_out() {
        let pods = [pod("a", "quiet", "Running", true, ""), pod("b", "crowded", "Running", true, "")];
        let crowd = [("quiet".to_owned(), 1), ("crowded".to_owned(), 3)].into();
        assert_eq!(chosen(&pods, 1, &crowd), ["b"]);
    }

    #[test]
    fn pods_that_fail_at_once_are_replaced_more_and_more_slowly() {
        let now: Timestamp = NOW.parse().expect("time");
        let ages = |ages: &[u64]| ages.iter().map(|age| now - Duration::from_secs(*age)).collect::<Vec<_>>();
        let left = |made: &[u64], wanted: usize| breath(&ages(made), wanted, now).map(|left| left.as_secs());
        assert_eq!((left(&[], 3), left(&[0, 0, 0], 3), left(&[0], 1)), (None, None, None), "the first time at once");
        assert_eq!((left(&[0; 4], 3), left(&[1; 4], 3)), (Some(1), None));
        assert_eq!((left(&[0; 7], 3), left(&[0; 13], 3), left(&[5; 13], 3)), (Some(2), Some(8), Some(3)));
        assert_eq!((left(&[0; 500], 3), left(&[0; 500], 0)), (Some(60), Some(60)), "at most a minute");
        assert_eq!(left(&[90, 90, 90, 90, 120, 120], 1), None, "they lived for a while");
        assert_eq!(left(&[0, 0, 700, 700, 700, 700], 1), Some(1), "the others were long ago");
    }

    #[test]
    fn missing_pods_are_made_within_the_burst() {
        let now = NOW.parse().expect("time");
        assert_eq!(diff(Vec::new(), 3, 500, now), Diff::Create(3));
        assert_eq!(diff(Vec::new(), 900, 500, now), Diff::Create(500));
        assert_eq!(diff(Vec::new(), 0, 500, now), Diff::None);
    }
}
