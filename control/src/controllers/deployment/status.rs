//! What a Deployment reports: counts over its sets, availability, and how the rollout is going.

use super::{Deployment, Report, bounds::Bounds, rollout::Set};
use coracle_apiserver::view::{Condition, Text, condition, stamp, time};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

/// Sets a condition with upstream's rules: same status and reason is no change, same status keeps the transition's time.
pub fn set<'a>(conditions: &mut Vec<Condition<'a>>, kind: &'static str, status: &'static str, reason: &'static str, message: String, now: Timestamp) {
    let old = condition(conditions, kind);
    if old.is_some_and(|c| *c.status == *status && *c.reason == *reason) {
        return;
    }
    let since = old.filter(|c| *c.status == *status).map(|c| c.last_transition_time.clone());
    conditions.retain(|c| *c.kind != *kind);
    conditions.push(Condition {
        kind: Text::from(kind),
        status: Text::from(status),
        reason: Text::from(reason),
        message: Text::from(message),
        last_transition_time: since.unwrap_or_else(|| Text::from(stamp(now))),
        last_update_time: Text::from(stamp(now)),
        ..Condition::default()
    });
}

/// The counts over the sets and the `Available` condition; `conditions` are carried over.
pub fn count<'a>(deployment: &Deployment<'a>, sets: &[Set<'a>], new: Option<usize>, conditions: Vec<Condition<'a>>, now: Timestamp) -> Report<'a> {
    let sum = |of: fn(&Set<'a>) -> i64| sets.iter().map(of).sum::<i64>();
    let available = sum(|set| set.view.status.available_replicas);
    let mut report = Report {
        observed_generation: deployment.metadata.generation,
        replicas: sum(|set| set.view.status.replicas),
        updated_replicas: new.and_then(|new| sets.get(new)).map_or(0, |set| set.view.status.replicas),
        ready_replicas: sum(|set| set.view.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sum(|set| set.replicas) - available).max(0),
        terminating_replicas: sum(|set| set.view.status.terminating_replicas),
        collision_count: deployment.status.collision_count,
        conditions,
    };
    if available >= deployment.replicas() - Bounds::of(deployment).unavailable {
        let message = "Deployment has minimum availability.".to_owned();
        set(&mut report.conditions, "Available", "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        set(&mut report.conditions, "Available", "False", "MinimumReplicasUnavailable", message, now);
    }
    report
}

/// Whether every wanted pod is new and available, and no other is left.
pub fn complete(deployment: &Deployment<'_>, report: &Report<'_>) -> bool {
    let wanted = deployment.replicas();
    report.updated_replicas == wanted
        && report.replicas == wanted
        && report.available_replicas == wanted
        && report.observed_generation >= deployment.metadata.generation
}

fn progressing(old: &Report<'_>, new: &Report<'_>) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn timed_out(deployment: &Deployment<'_>, report: &Report<'_>, now: Timestamp) -> bool {
    let (Some(deadline), Some(progress)) = (deployment.deadline(), condition(&report.conditions, "Progressing")) else { return false };
    match &*progress.reason {
        "NewReplicaSetAvailable" => false,
        "ProgressDeadlineExceeded" => true,
        _ => time(&progress.last_update_time).is_some_and(|since| now.duration_since(since) > SignedDuration::from_secs(deadline)),
    }
}

/// Adds how the rollout is going, and tells when the progress deadline must be checked.
pub fn judge<'a>(
    deployment: &Deployment<'a>,
    sets: &[Set<'a>],
    new: Option<usize>,
    report: &mut Report<'a>,
    old_conditions: &[Condition<'a>],
    now: Timestamp,
) -> Option<Duration> {
    let new = new.and_then(|new| sets.get(new));
    let subject =
        new.map_or_else(|| format!("Deployment \"{}\"", deployment.metadata.name), |set| format!("ReplicaSet \"{}\"", set.view.metadata.name));
    if deployment.deadline().is_none() {
        report.conditions.retain(|c| c.kind != "Progressing");
    }
    let current = condition(old_conditions, "Progressing");
    let settled = report.replicas == report.updated_replicas && current.is_some_and(|c| c.reason == "NewReplicaSetAvailable");
    if deployment.deadline().is_some() && !settled {
        if complete(deployment, report) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut report.conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now);
        } else if progressing(&deployment.status, report) {
            // Any progress renews the update time, even with the same reason, and keeps the transition's time while it was true.
            let since = current.filter(|c| c.is_true()).map(|c| c.last_transition_time.clone());
            report.conditions.retain(|c| c.kind != "Progressing");
            set(&mut report.conditions, "Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
            if let (Some(since), Some(last)) = (since, report.conditions.last_mut()) {
                last.last_transition_time = since;
            }
        } else if timed_out(deployment, report, now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut report.conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now);
        }
    }

    let failure = new.into_iter().chain(sets).find_map(|set| condition(&set.view.status.conditions, "ReplicaFailure"));
    match failure {
        Some(failure) => {
            let same = condition(&report.conditions, "ReplicaFailure").is_some_and(|c| c.status == failure.status && c.reason == failure.reason);
            if !same {
                report.conditions.retain(|c| c.kind != "ReplicaFailure");
                report.conditions.push(Condition { last_update_time: failure.last_transition_time.clone(), ..failure.clone() });
            }
        }
        None => report.conditions.retain(|c| c.kind != "ReplicaFailure"),
    }

    let deadline = deployment.deadline()?;
    let progress = condition(&report.conditions, "Progressing")?;
    if complete(deployment, report) || progress.reason == "ProgressDeadlineExceeded" || progress.reason == "NewReplicaSetAvailable" {
        return None;
    }
    let left = time(&progress.last_update_time)?.duration_since(now) + SignedDuration::from_secs(deadline);
    // A second more, since times are written in whole seconds.
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO) + Duration::from_secs(1))
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
    let mut json = json!({
        "observedGeneration": report.observed_generation,
        "replicas": report.replicas,
        "updatedReplicas": report.updated_replicas,
        "readyReplicas": report.ready_replicas,
        "availableReplicas": report.available_replicas,
        "unavailableReplicas": report.unavailable_replicas,
        "terminatingReplicas": report.terminating_replicas,
        "conditions": report.conditions.iter().map(Condition::to_json).collect::<Vec<_>>(),
    });
    if report.collision_count > 0 {
        json["collisionCount"] = json!(report.collision_count);
    }
    json
}
