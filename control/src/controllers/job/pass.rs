//! One pass over a Job: count what ended, see whether it is over, make or take away pods.

use super::{Job, Report, TRACKING, Uncounted, backoff, indexes, make::INDEX};
use crate::controllers::{
    action::Action,
    view::{Condition, Map, Meta, Text, condition, stamp, time},
};
use coracle_store::Key;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Pods made in one pass.
const BURST: i64 = 500;

/// What a pass looks at in a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod<'a> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    status: Status<'a>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    conditions: Vec<Condition<'a>>,
    container_statuses: Vec<Container<'a>>,
    init_container_statuses: Vec<Container<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container<'a> {
    restart_count: i64,
    #[serde(borrow)]
    state: State<'a>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State<'a> {
    #[serde(borrow)]
    terminated: Option<Terminated<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated<'a> {
    #[serde(borrow)]
    finished_at: Text<'a>,
}

impl Pod<'_> {
    fn succeeded(&self) -> bool {
        self.status.phase == "Succeeded"
    }
    /// A pod that is being deleted counts as failed, unless only pods that ended are replaced.
    fn failed(&self, only_ended: bool) -> bool {
        self.status.phase == "Failed" || (!only_ended && self.metadata.deleting() && !self.succeeded())
    }
    fn ended(&self) -> bool {
        self.succeeded() || self.status.phase == "Failed"
    }
    fn active(&self) -> bool {
        !self.ended() && !self.metadata.deleting()
    }
    fn ready(&self) -> bool {
        condition(&self.status.conditions, "Ready").is_some_and(Condition::is_true)
    }
    fn tracked(&self) -> bool {
        self.metadata.has_finalizer(TRACKING)
    }
    fn index(&self) -> Option<i64> {
        let of = |map: &Map<'_>| map.get(INDEX).and_then(|text| text.parse().ok());
        of(&self.metadata.annotations).or_else(|| of(&self.metadata.labels))
    }
    fn finished_at(&self) -> Option<Timestamp> {
        let containers = self.status.container_statuses.iter().filter_map(|c| c.state.terminated.as_ref());
        let last = containers.filter_map(|t| time(&t.finished_at)).max();
        let ready = || condition(&self.status.conditions, "Ready").and_then(Condition::since);
        let deleted = || self.metadata.deletion_timestamp.as_deref().and_then(time);
        last.or_else(ready).or_else(deleted).or_else(|| time(&self.metadata.creation_timestamp))
    }
    fn restarts(&self) -> i64 {
        self.status.container_statuses.iter().chain(&self.status.init_container_statuses).map(|c| c.restart_count).sum()
    }
    fn key(&self) -> Key {
        Key::new("pods", &*self.metadata.namespace, &*self.metadata.name)
    }
}

/// Takes the tracking finalizer from a pod.
pub fn untracked(key: &Key, meta: &Meta<'_>) -> Action {
    let left: Vec<&str> = meta.finalizers.iter().map(|f| &**f).filter(|f| *f != TRACKING).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    Action::Patch { key: key.clone(), subresource: "", patch: json!({ "metadata": { "uid": meta.uid, "finalizers": left } }) }
}

/// What one pass decides, in the order it is carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    /// Status and events.
    pub actions: Vec<Action>,
    /// Finalizers to take away before pods are deleted: pods that are given up are no failures.
    pub given_up: Vec<Action>,
    /// Pods to delete (key, uid).
    pub deletions: Vec<(Key, String)>,
    /// Finalizers to take away, once the status is written.
    pub releases: Vec<Action>,
    /// Pods to make, each with its completion index if the Job is indexed.
    pub create: Vec<Option<i64>>,
    /// Its time to live after its end is over.
    pub expired: bool,
    /// When to look again.
    pub again: Option<Duration>,
}

struct Pass<'j, 'a> {
    job: &'j Job<'a>,
    pods: &'j [Pod<'a>],
    now: Timestamp,
    report: Report<'a>,
    completed: BTreeSet<i64>,
    decided: Decided,
}

/// Decides a pass. `pods` are those that the Job controls.
pub fn decide<'a>(job: &Job<'a>, pods: &[Pod<'a>], now: Timestamp) -> Decided {
    let completed = indexes::read(&job.status.completed_indexes, job.spec.completions.unwrap_or(0));
    let pass = Pass { job, pods, now, report: job.status.clone(), completed, decided: Decided::default() };
    pass.run()
}

/// When the Job ended, if it did.
fn over(conditions: &[Condition<'_>]) -> Option<Option<Timestamp>> {
    let found = |kind| condition(conditions, kind).filter(|c| c.is_true());
    found("Complete").or_else(|| found("Failed")).map(Condition::since)
}

impl<'a> Pass<'_, 'a> {
    fn run(mut self) -> Decided {
        if let Some(since) = over(&self.job.status.conditions) {
            self.release_all();
            self.live_out(since);
            return self.decided;
        }
        if self.job.metadata.deleting() {
            self.release_all();
            return self.decided;
        }
        self.count();
        if self.report.start_time.is_empty() && !self.job.spec.suspend {
            self.report.start_time = stamp(self.now).into();
        }
        self.judge();
        let ending = ["FailureTarget", "SuccessCriteriaMet"].iter().any(|kind| condition(&self.report.conditions, kind).is_some());
        if ending {
            self.delete(self.pods.len());
        } else if self.suspend() {
            self.give_up(self.pods.len());
        } else {
            self.staff();
            self.watch_deadline();
        }
        if self.report != self.job.status {
            // Before the events, so that none tells of what was not written.
            self.decided.actions.insert(0, Action::Status(to_json(&self.report)));
        }
        self.decided
    }

    fn only_ended(&self) -> bool {
        self.job.spec.pod_replacement_policy == "Failed"
    }

    fn release_all(&mut self) {
        self.decided.releases = self.pods.iter().filter(|pod| pod.tracked()).map(|pod| untracked(&pod.key(), &pod.metadata)).collect();
    }

    fn live_out(&mut self, since: Option<Timestamp>) {
        let (Some(ttl), Some(since)) = (self.job.spec.ttl_seconds_after_finished, since) else { return };
        if self.job.metadata.deleting() {
            return;
        }
        let left = SignedDuration::from_secs(ttl) - self.now.duration_since(since);
        if left <= SignedDuration::ZERO {
            self.decided.expired = true;
        } else {
            self.decided.again = Some(left.unsigned_abs());
        }
    }

    /// Moves ended pods towards the counters.
    fn count(&mut self) {
        let tracked: BTreeSet<&str> = self.pods.iter().filter(|pod| pod.tracked()).map(|pod| &*pod.metadata.uid).collect();
        let uncounted = std::mem::take(&mut self.report.uncounted_terminated_pods);
        // What lost its finalizer becomes a number.
        let (kept_succeeded, succeeded): (Vec<_>, Vec<_>) = uncounted.succeeded.into_iter().partition(|uid| tracked.contains(&**uid));
        let (kept_failed, failed): (Vec<_>, Vec<_>) = uncounted.failed.into_iter().partition(|uid| tracked.contains(&**uid));
        if !self.job.indexed() {
            self.report.succeeded += succeeded.len() as i64;
        }
        self.report.failed += failed.len() as i64;
        let mut uncounted = Uncounted { succeeded: kept_succeeded, failed: kept_failed };

        for pod in self.pods.iter().filter(|pod| pod.tracked()) {
            let uid = &pod.metadata.uid;
            if pod.succeeded() {
                match (self.job.indexed(), pod.index()) {
                    (true, Some(index)) if index < self.job.spec.completions.unwrap_or(0) => drop(self.completed.insert(index)),
                    (true, _) => {}
                    (false, _) if uncounted.succeeded.contains(uid) => {}
                    (false, _) => uncounted.succeeded.push(uid.clone()),
                }
            } else if pod.failed(self.only_ended()) {
                if !uncounted.failed.contains(uid) {
                    uncounted.failed.push(uid.clone());
                }
            } else {
                continue;
            }
            self.decided.releases.push(untracked(&pod.key(), &pod.metadata));
        }
        if self.job.indexed() {
            self.report.completed_indexes = indexes::write(&self.completed).into();
            self.report.succeeded = self.completed.len() as i64;
        }
        self.report.uncounted_terminated_pods = uncounted;
        self.report.active = self.pods.iter().filter(|pod| pod.active()).count() as i64;
        self.report.ready = self.pods.iter().filter(|pod| pod.active() && pod.ready()).count() as i64;
        self.report.terminating = self.pods.iter().filter(|pod| pod.metadata.deleting() && !pod.ended()).count() as i64;
    }

    fn succeeded(&self) -> i64 {
        self.report.succeeded + self.report.uncounted_terminated_pods.succeeded.len() as i64
    }

    fn failed(&self) -> i64 {
        self.report.failed + self.report.uncounted_terminated_pods.failed.len() as i64
    }

    fn set(&mut self, kind: &'static str, status: &'static str, reason: Text<'a>, message: Text<'a>) {
        let conditions = &mut self.report.conditions;
        if condition(conditions, kind).is_some_and(|c| *c.status == *status) {
            return;
        }
        conditions.retain(|c| *c.kind != *kind);
        let now = stamp(self.now);
        conditions.push(Condition {
            kind: kind.into(),
            status: status.into(),
            reason,
            message,
            last_probe_time: now.clone().into(),
            last_transition_time: now.into(),
            ..Condition::default()
        });
    }

    fn why_failed(&self) -> Option<(&'static str, &'static str)> {
        let limit = self.job.spec.backoff_limit.unwrap_or(6);
        let restarts: i64 = self.pods.iter().filter(|pod| pod.active()).map(Pod::restarts).sum();
        let on_failure = self.job.spec.template.spec.restart_policy == "OnFailure";
        if self.failed() > limit || (on_failure && if limit == 0 { restarts > 0 } else { restarts >= limit }) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.deadline_left().is_some_and(|left| left <= SignedDuration::ZERO) {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        None
    }

    fn deadline_left(&self) -> Option<SignedDuration> {
        let deadline = self.job.spec.active_deadline_seconds.filter(|_| !self.job.spec.suspend)?;
        Some(SignedDuration::from_secs(deadline) - self.now.duration_since(time(&self.report.start_time)?))
    }

    /// First the aim is noted (`SuccessCriteriaMet`, `FailureTarget`); the end itself is noted when no pod is left.
    fn judge(&mut self) {
        let aimed =
            |kind, conditions: &[Condition<'a>]| condition(conditions, kind).filter(|c| c.is_true()).map(|c| (c.reason.clone(), c.message.clone()));
        let mut failure = aimed("FailureTarget", &self.report.conditions);
        let mut success = aimed("SuccessCriteriaMet", &self.report.conditions);
        if failure.is_none() && success.is_none() {
            let done = match self.job.spec.completions {
                None => self.succeeded() > 0 && self.report.active == 0,
                Some(completions) => self.succeeded() >= completions,
            };
            if let Some((reason, message)) = self.why_failed() {
                failure = Some((reason.into(), message.into()));
                self.set("FailureTarget", "True", reason.into(), message.into());
            } else if done {
                let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
                success = Some((reason.into(), message.into()));
                self.set("SuccessCriteriaMet", "True", reason.into(), message.into());
            }
        }
        let uncounted = &self.report.uncounted_terminated_pods;
        let left = self.report.active > 0 || self.report.terminating > 0 || !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty();
        if left || self.pods.iter().any(Pod::tracked) {
            return;
        }
        if let Some((reason, message)) = failure {
            let told = if reason == "DeadlineExceeded" { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
            self.decided.actions.push(Action::Event { kind: "Warning", reason: told, message: message.to_string() });
            self.set("Failed", "True", reason, message);
        } else if let Some((reason, message)) = success {
            self.set("Complete", "True", reason, message);
            self.report.completion_time = stamp(self.now).into();
            self.decided.actions.push(Action::Event { kind: "Normal", reason: "Completed", message: "Job completed".to_owned() });
        }
    }

    /// Notes a suspension or its end; true while it is suspended.
    fn suspend(&mut self) -> bool {
        let noted = condition(&self.report.conditions, "Suspended").map(Condition::is_true);
        match (self.job.spec.suspend, noted) {
            (true, Some(true)) | (false, None | Some(false)) => {}
            (true, _) => {
                self.set("Suspended", "True", "JobSuspended".into(), "Job suspended".into());
                self.report.start_time = Text::default();
                self.decided.actions.push(Action::Event { kind: "Normal", reason: "Suspended", message: "Job suspended".to_owned() });
            }
            (false, Some(true)) => {
                self.set("Suspended", "False", "JobResumed".into(), "Job resumed".into());
                self.report.start_time = stamp(self.now).into();
                self.decided.actions.push(Action::Event { kind: "Normal", reason: "Resumed", message: "Job resumed".to_owned() });
            }
        }
        self.job.spec.suspend
    }

    /// Deletes at most so many active pods, those first that have done least.
    fn delete(&mut self, count: usize) {
        let mut active: Vec<&Pod<'a>> = self.pods.iter().filter(|pod| pod.active()).collect();
        active.sort_by_key(|pod| (pod.status.phase == "Running", pod.ready(), std::cmp::Reverse(pod.metadata.created())));
        let chosen = active.into_iter().take(count).map(|pod| (pod.key(), pod.metadata.uid.to_string()));
        self.decided.deletions.extend(chosen);
    }

    /// The same, without counting them.
    fn give_up(&mut self, count: usize) {
        self.delete(count);
        let chosen = |pod: &&Pod<'a>| pod.tracked() && self.decided.deletions.iter().any(|(_, uid)| *uid == *pod.metadata.uid);
        self.decided.given_up = self.pods.iter().filter(chosen).map(|pod| untracked(&pod.key(), &pod.metadata)).collect();
    }

    /// Brings the number of active pods to what is still needed.
    fn staff(&mut self) {
        let parallelism = self.job.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.job.spec.completions {
            // A work queue: after the first success no pod is added.
            None if self.succeeded() > 0 => self.report.active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded()).clamp(0, parallelism),
        };
        if self.report.active > wanted {
            self.give_up((self.report.active - wanted) as usize);
            return;
        }
        let going = if self.only_ended() { self.report.terminating } else { 0 };
        let missing = (wanted - self.report.active - going).clamp(0, BURST);
        if missing == 0 {
            return;
        }
        let times = |of: fn(&&Pod<'a>) -> bool| self.pods.iter().filter(of).filter_map(Pod::finished_at).collect::<Vec<_>>();
        if let Some(left) = backoff::left(&times(|pod| pod.failed(false)), &times(|pod| pod.succeeded()), self.now) {
            self.decided.again = Some(left);
            return;
        }
        if !self.job.indexed() {
            self.decided.create = vec![None; missing as usize];
            return;
        }
        let replaced = |pod: &&Pod<'a>| pod.active() || (self.only_ended() && !pod.ended());
        let taken: BTreeSet<i64> = self.pods.iter().filter(replaced).filter_map(Pod::index).collect();
        let free = (0..self.job.spec.completions.unwrap_or(0)).filter(|index| !self.completed.contains(index) && !taken.contains(index));
        self.decided.create = free.take(missing as usize).map(Some).collect();
    }

    fn watch_deadline(&mut self) {
        if let Some(left) = self.deadline_left().filter(|left| *left > SignedDuration::ZERO) {
            let left = left.unsigned_abs();
            self.decided.again = Some(self.decided.again.map_or(left, |other| other.min(left)));
        }
    }
}

fn to_json(report: &Report<'_>) -> Value {
    let uncounted = &report.uncounted_terminated_pods;
    let mut json = json!({
        "active": report.active, "ready": report.ready, "succeeded": report.succeeded, "failed": report.failed, "terminating": report.terminating,
        "uncountedTerminatedPods": { "succeeded": uncounted.succeeded, "failed": uncounted.failed },
        "conditions": report.conditions.iter().map(Condition::to_json).collect::<Vec<_>>(),
    });
    for (field, text) in
        [("completedIndexes", &report.completed_indexes), ("startTime", &report.start_time), ("completionTime", &report.completion_time)]
    {
        if !text.is_empty() {
            json[field] = json!(text);
        }
    }
    json
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
