//! What a DaemonSet reports about its nodes.

use super::{
    ByNode, DaemonSet, Report,
    template::{Host, Template},
};
use coracle_apiserver::view::{Condition, pod::Availability};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// The counts, and when a pod becomes available by time alone.
pub fn report<'a>(
    set: &DaemonSet<'a>,
    hosts: &[Host],
    nodes: &ByNode<'_, '_>,
    template: &Template,
    collisions: i64,
    now: Timestamp,
) -> (Report<'a>, Option<Duration>) {
    let mut report = Report {
        observed_generation: set.metadata.generation,
        collision_count: collisions,
        conditions: set.status.conditions.clone(),
        ..Report::default()
    };
    let mut again: Option<Duration> = None;
    for host in hosts {
        // The oldest that is bound speaks for its node.
        let pod = nodes.get(&host.name).and_then(|pods| pods.first());
        match (host.wanted, pod) {
            (true, None) => report.desired_number_scheduled += 1,
            (false, None) => {}
            (false, Some(_)) => report.number_misscheduled += 1,
            (true, Some(pod)) => {
                report.desired_number_scheduled += 1;
                report.current_number_scheduled += 1;
                report.number_ready += i64::from(pod.ready());
                report.updated_number_scheduled += i64::from(template.made(pod));
                match pod.availability(set.spec.min_ready_seconds, now) {
                    Availability::Available => report.number_available += 1,
                    Availability::In(left) => again = Some(again.map_or(left, |other| other.min(left))),
                    Availability::Unavailable => {}
                }
            }
        }
    }
    report.number_unavailable = report.desired_number_scheduled - report.number_available;
    (report, again)
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
    let mut json = json!({
        "currentNumberScheduled": report.current_number_scheduled,
        "numberMisscheduled": report.number_misscheduled,
        "desiredNumberScheduled": report.desired_number_scheduled,
        "numberReady": report.number_ready,
        "observedGeneration": report.observed_generation,
        "updatedNumberScheduled": report.updated_number_scheduled,
        "numberAvailable": report.number_available,
        "numberUnavailable": report.number_unavailable,
    });
    if report.collision_count > 0 {
        json["collisionCount"] = json!(report.collision_count);
    }
    if !report.conditions.is_empty() {
        json["conditions"] = report.conditions.iter().map(Condition::to_json).collect();
    }
    json
}
