//! One pass over a Job: count what ended, see whether it is over, make or take away pods.
//!
//! An ended pod is counted in two steps: its uid goes into the status, then its finalizer is taken away; once the finalizer is gone, the uid
//! becomes a number. The end, too, is noted in two steps: first what it will be (`SuccessCriteriaMet`, `FailureTarget`), then, when no pod
//! is left, that it is so (`Complete`, `Failed`).

use super::{
    Job, Report, Uncounted, backoff,
    failure::{Failure, judge},
    indexes::Indexes,
    pod::{Pod, untracked},
    success,
};
use crate::controllers::action::Action;
use coracle_apiserver::view::{Condition, Text, condition, stamp, time};
use coracle_store::Key;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Ended pods that are on their way from finalizer to number.
const MOST_UNCOUNTED: usize = 500;

/// A pod to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Its completion index, if the Job is indexed.
    pub index: Option<i64>,
    /// With a limit per index: failures of the index so far, those that count and those that do not.
    pub failures: Option<(i64, i64)>,
}

/// What one pass decides, in the order it is carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided<'a> {
    /// Finalizers to take away before pods are deleted: pods that are given up are no failures.
    pub given_up: Vec<Action>,
    /// Pods to delete (key, uid).
    pub deletions: Vec<(Key, String)>,
    /// Pods to make.
    pub create: Vec<New>,
    /// The status after all that, if it changes.
    pub report: Option<Report<'a>>,
    /// Events, once the status is written.
    pub events: Vec<Action>,
    /// Finalizers to take away, once the status is written.
    pub releases: Vec<Action>,
    /// Its time to live after its end is over.
    pub expired: bool,
    /// When to look again.
    pub again: Option<Duration>,
}

/// How a Job ends.
#[derive(Clone)]
enum End<'a> {
    Success(Text<'a>, Text<'a>),
    Failure(Text<'a>, Text<'a>),
}

/// What is known and decided so far.
pub(super) struct Pass<'j, 'a> {
    pub(super) job: &'j Job<'a>,
    pub(super) pods: &'j [Pod<'a>],
    pub(super) now: Timestamp,
    pub(super) report: Report<'a>,
    /// Completed indexes: those that the status has, and those of this pass.
    before: Indexes,
    pub(super) completed: Indexes,
    /// With a limit per index.
    pub(super) failed_indexes: Option<Indexes>,
    /// With a limit per index: the last failed pod of each index that is to be tried again. It is held until its successor is there.
    pub(super) last_failed: BTreeMap<i64, &'j Pod<'a>>,
    succeeded: i64,
    failed: i64,
    pub(super) decided: Decided<'a>,
}

/// Decides a pass. `pods` are those that the Job controls.
pub fn decide<'a>(job: &Job<'a>, pods: &[Pod<'a>], now: Timestamp) -> Decided<'a> {
    let before = Indexes::parse(&job.status.completed_indexes, job.completions());
    let pass = Pass {
        job,
        pods,
        now,
        report: job.status.clone(),
        completed: before.clone(),
        before,
        failed_indexes: None,
        last_failed: BTreeMap::new(),
        succeeded: 0,
        failed: 0,
        decided: Decided::default(),
    };
    pass.run()
}

/// When the Job ended, if it did.
fn over(conditions: &[Condition<'_>]) -> Option<Option<Timestamp>> {
    let found = |kind| condition(conditions, kind).filter(|c| c.is_true());
    found("Complete").or_else(|| found("Failed")).map(Condition::since)
}

impl<'j, 'a> Pass<'j, 'a> {
    fn run(mut self) -> Decided<'a> {
        if let Some(since) = over(&self.job.status.conditions) {
            self.release_all();
            self.live_out(since);
            return self.decided;
        }
        if self.job.metadata.deleting() {
            self.release_all();
            return self.decided;
        }
        let tracked = self.count();
        if self.report.start_time.is_empty() && !self.job.spec.suspend {
            self.report.start_time = stamp(self.now).into();
        }
        let mut end = self.judge();
        if end.is_some() {
            self.take(self.pods.iter().filter(|pod| pod.active()).collect(), false);
        } else {
            self.staff();
            let enough = match self.job.spec.completions {
                None => self.succeeded > 0,
                Some(completions) => self.succeeded >= completions,
            };
            if enough && self.report.active == 0 {
                end = Some(End::Success("CompletionsReached".into(), "Reached expected number of succeeded pods".into()));
            } else {
                self.suspend();
            }
        }
        self.track(end.as_ref(), &tracked);
        if let Some(end) = end {
            self.finish(end);
        }
        if self.report != self.job.status {
            self.decided.report = Some(self.report);
        }
        self.decided
    }

    pub(super) fn only_ended(&self) -> bool {
        self.job.spec.pod_replacement_policy == "Failed" || self.job.spec.pod_failure_policy.is_some()
    }

    fn release_all(&mut self) {
        let tracked = self.pods.iter().filter(|pod| pod.tracked());
        self.decided.releases = tracked.map(|pod| untracked(&pod.key(), &pod.metadata)).collect();
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

    /// What a pod that ended means.
    fn meaning(&self, pod: &Pod<'_>) -> Failure {
        judge(self.job.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Turns uids without a finalizer into numbers and counts what ended since. Returns the uids that still have one.
    fn count(&mut self) -> BTreeSet<&'j str> {
        let pods = self.pods;
        let tracked: BTreeSet<&str> = pods.iter().filter(|pod| pod.tracked()).map(|pod| &*pod.metadata.uid).collect();
        let uncounted = std::mem::take(&mut self.report.uncounted_terminated_pods);
        let (kept_succeeded, succeeded): (Vec<_>, Vec<_>) = uncounted.succeeded.into_iter().partition(|uid| tracked.contains(&**uid));
        let (kept_failed, failed): (Vec<_>, Vec<_>) = uncounted.failed.into_iter().partition(|uid| tracked.contains(&**uid));
        self.report.succeeded += succeeded.len() as i64;
        self.report.failed += failed.len() as i64;
        let uncounted = Uncounted { succeeded: kept_succeeded, failed: kept_failed };

        let only_ended = self.only_ended();
        let valid = |pod: &Pod<'_>| pod.tracked() && (!self.job.indexed() || pod.index().is_some_and(|index| index < self.job.completions()));
        let fresh = |known: &[Text<'_>], pod: &Pod<'_>| valid(pod) && !known.contains(&pod.metadata.uid);
        let new = pods.iter().filter(|pod| pod.succeeded() && fresh(&uncounted.succeeded, pod)).count();
        self.succeeded = self.report.succeeded + (uncounted.succeeded.len() + new) as i64;
        let new = pods.iter().filter(|pod| pod.failed(only_ended) && fresh(&uncounted.failed, pod) && self.meaning(pod) != Failure::Ignored);
        self.failed = self.report.failed + (uncounted.failed.len() + new.count()) as i64;
        if self.job.indexed() {
            self.completed.extend(pods.iter().filter(|pod| pod.succeeded() && valid(pod)).filter_map(Pod::index));
            self.succeeded = self.completed.total();
        }
        if let Some(limit) = self.job.spec.backoff_limit_per_index.filter(|_| self.job.indexed()) {
            self.count_failed_indexes(limit, only_ended);
        }
        self.report.uncounted_terminated_pods = uncounted;
        self.report.active = pods.iter().filter(|pod| pod.active()).count() as i64;
        self.report.ready = pods.iter().filter(|pod| pod.active() && pod.ready()).count() as i64;
        self.report.terminating = pods.iter().filter(|pod| pod.terminating()).count() as i64;
        tracked
    }

    /// Indexes that will not be tried again, and the last failed pod of those that will (KEP-3850).
    fn count_failed_indexes(&mut self, limit: i64, only_ended: bool) {
        let completions = self.job.completions();
        let mut failed = Indexes::parse(self.job.status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let candidates = || {
            let failed = self.pods.iter().filter(|pod| pod.tracked() && pod.failed(only_ended));
            failed.filter_map(|pod| Some((pod.index().filter(|index| *index < completions)?, pod)))
        };
        let last_try = |pod: &Pod<'_>| match self.meaning(pod) {
            Failure::FailsIndex => true,
            Failure::Ignored => false,
            Failure::Counts | Failure::FailsJob(_) => pod.failures() >= limit,
        };
        failed.extend(candidates().filter(|(_, pod)| last_try(pod)).map(|(index, _)| index));
        let active: BTreeSet<i64> = self.pods.iter().filter(|pod| pod.active()).filter_map(Pod::index).collect();
        let mut last: BTreeMap<i64, &'j Pod<'a>> = BTreeMap::new();
        for (index, pod) in candidates() {
            if self.completed.contains(index) || failed.contains(index) || active.contains(&index) {
                continue;
            }
            let tries = |pod: &Pod<'_>| pod.failures() + pod.ignored();
            let newer = |other: &&Pod<'_>| tries(other) <= tries(pod) && other.finished_at() <= pod.finished_at();
            if last.get(&index).is_none_or(newer) {
                last.insert(index, pod);
            }
        }
        self.last_failed = last;
        self.failed_indexes = Some(failed);
    }

    fn set(&mut self, kind: &'static str, status: &'static str, reason: Text<'a>, message: Text<'a>) {
        let conditions = &mut self.report.conditions;
        if condition(conditions, kind).is_some_and(|c| *c.status == *status && c.reason == reason && c.message == message) {
            return;
        }
        let now = stamp(self.now);
        let new = Condition {
            kind: kind.into(),
            status: status.into(),
            reason,
            message,
            last_probe_time: now.clone().into(),
            last_transition_time: now.into(),
            ..Condition::default()
        };
        match conditions.iter_mut().find(|c| *c.kind == *kind) {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }

    pub(super) fn tell(&mut self, kind: &'static str, reason: &'static str, message: impl Into<String>) {
        self.decided.events.push(Action::Event { kind, reason, message: message.into() });
    }

    fn deadline_left(&self) -> Option<SignedDuration> {
        let deadline = self.job.spec.active_deadline_seconds.filter(|_| !self.job.spec.suspend)?;
        Some(SignedDuration::from_secs(deadline) - self.now.duration_since(time(&self.report.start_time)?))
    }

    /// Whether the Job is to end, but for having completed: what was decided before stands, failures go before success.
    fn judge(&mut self) -> Option<End<'a>> {
        let noted = |kind| condition(&self.report.conditions, kind).filter(|c| c.is_true()).map(|c| (c.reason.clone(), c.message.clone()));
        if let Some((reason, message)) = noted("SuccessCriteriaMet") {
            return Some(End::Success(reason, message));
        }
        if let Some((reason, message)) = noted("FailureTarget") {
            return Some(End::Failure(reason, message));
        }
        let only_ended = self.only_ended();
        let fails = self.pods.iter().filter(|pod| pod.failed(only_ended)).find_map(|pod| match self.meaning(pod) {
            Failure::FailsJob(why) => Some(why),
            _ => None,
        });
        if let Some(why) = fails {
            return Some(End::Failure("PodFailurePolicy".into(), why.into()));
        }
        let failure = |reason: &'static str, message: &'static str| Some(End::Failure(reason.into(), message.into()));
        if self.past_limit() {
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        match self.deadline_left() {
            Some(left) if left <= SignedDuration::ZERO => {
                return failure("DeadlineExceeded", "Job was active longer than specified deadline");
            }
            Some(left) => self.look_after(left.unsigned_abs()),
            None => {}
        }
        if let Some(failed) = &self.failed_indexes {
            let failed = failed.total();
            if self.job.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                return failure("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
            }
            if failed > 0 && failed + self.completed.total() >= self.job.completions() {
                return failure("FailedIndexes", "Job has failed indexes");
            }
        }
        let policy = self.job.spec.success_policy.as_ref().filter(|_| self.job.indexed())?;
        let met = success::met(policy, self.job.completions(), &self.completed)?;
        Some(End::Success("SuccessPolicy".into(), met.into()))
    }

    fn past_limit(&self) -> bool {
        let limit = self.job.spec.backoff_limit.unwrap_or(6);
        if self.failed > limit {
            return true;
        }
        if self.job.spec.template.spec.restart_policy != "OnFailure" {
            return false;
        }
        let restarts: i64 = self.pods.iter().filter(|pod| !pod.ended()).map(Pod::restarts).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    pub(super) fn look_after(&mut self, left: Duration) {
        self.decided.again = Some(self.decided.again.map_or(left, |other| other.min(left)));
    }

    /// How many successes there are, counted or not.
    pub(super) fn successes(&self) -> i64 {
        self.succeeded
    }

    /// Notes a suspension or its end.
    fn suspend(&mut self) {
        let noted = condition(&self.report.conditions, "Suspended").map(Condition::is_true);
        match (self.job.spec.suspend, noted) {
            (true, Some(true)) | (false, None | Some(false)) => {}
            (true, _) => {
                self.set("Suspended", "True", "JobSuspended".into(), "Job suspended".into());
                self.report.start_time = Text::default();
                self.tell("Normal", "Suspended", "Job suspended");
            }
            (false, Some(true)) => {
                self.set("Suspended", "False", "JobResumed".into(), "Job resumed".into());
                self.report.start_time = stamp(self.now).into();
                self.tell("Normal", "Resumed", "Job resumed");
            }
        }
    }

    /// Lets go of what ended, noting it in the status first.
    fn track(&mut self, end: Option<&End<'a>>, tracked: &BTreeSet<&str>) {
        let (indexed, only_ended) = (self.job.indexed(), self.only_ended());
        let given_up: BTreeSet<String> = self.decided.given_up.iter().filter_map(patched_uid).collect();
        let mut pods: Vec<&Pod<'a>> =
            self.pods.iter().filter(|pod| tracked.contains(&*pod.metadata.uid) && !given_up.contains(&*pod.metadata.uid)).collect();
        if indexed {
            pods.sort_by_key(|pod| pod.index());
        }
        let mut completed = self.before.clone();
        let mut uncounted = std::mem::take(&mut self.report.uncounted_terminated_pods);
        let mut under_way = uncounted.succeeded.len() + uncounted.failed.len();
        for pod in pods {
            let (failed, index) = (pod.failed(only_ended), pod.index().filter(|index| *index < self.job.completions()));
            let held =
                end.is_none() && index.and_then(|index| self.last_failed.get(&index)).is_some_and(|last| last.metadata.uid == pod.metadata.uid);
            let done = end.is_some() || pod.succeeded() || (failed && !held);
            if !done || under_way >= MOST_UNCOUNTED {
                continue;
            }
            let uid = &pod.metadata.uid;
            self.decided.releases.push(untracked(&pod.key(), &pod.metadata));
            if pod.succeeded() {
                match index {
                    Some(index) if indexed => {
                        under_way += usize::from(!completed.contains(index));
                        completed.extend([index]);
                    }
                    _ if indexed || uncounted.succeeded.contains(uid) => {}
                    _ => {
                        uncounted.succeeded.push(uid.clone());
                        under_way += 1;
                    }
                }
            } else if (failed || matches!(end, Some(End::Failure(..))))
                && !uncounted.failed.contains(uid)
                && (!indexed || index.is_some())
                && self.meaning(pod) != Failure::Ignored
            {
                // In a Job that failed, what runs has failed.
                uncounted.failed.push(uid.clone());
                under_way += 1;
            }
        }
        self.report.uncounted_terminated_pods = uncounted;
        if indexed {
            self.report.succeeded = completed.total();
            self.report.completed_indexes = completed.to_string().into();
            self.report.failed_indexes = self.failed_indexes.as_ref().map(|failed| failed.to_string().into());
        }
    }

    /// Notes the end, and, when nothing is left of the Job, that it has come.
    fn finish(&mut self, end: End<'a>) {
        let (success, reason, message) = match end {
            End::Success(reason, message) => (true, reason, message),
            End::Failure(reason, message) => (false, reason, message),
        };
        self.set(if success { "SuccessCriteriaMet" } else { "FailureTarget" }, "True", reason.clone(), message.clone());
        let uncounted = &self.report.uncounted_terminated_pods;
        let left = self.report.active > 0 || self.report.terminating > 0 || !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty();
        if left || self.pods.iter().any(Pod::tracked) {
            return;
        }
        if !success {
            let told = reason_of(&reason);
            self.tell("Warning", told, message.to_string());
            self.set("Failed", "True", reason, message);
            return;
        }
        if self.job.spec.completions.is_some_and(|completions| self.report.succeeded > completions) {
            self.tell("Warning", "TooManySucceededPods", "Too many succeeded pods running after completion count reached");
        }
        self.tell("Normal", "Completed", "Job completed");
        self.set("Complete", "True", reason, message);
        self.report.completion_time = stamp(self.now).into();
    }

    /// Times at which pods ended, for the wait before the next.
    pub(super) fn backoff_left(&self) -> Option<Duration> {
        let times = |of: &dyn Fn(&Pod<'_>) -> bool| self.pods.iter().filter(|pod| of(pod)).map(Pod::finished_at).collect::<Vec<_>>();
        // A pod that was given up, or is on its way out for another reason, has not failed by itself.
        let failed = |pod: &Pod<'_>| pod.status.phase == "Failed" || (pod.tracked() && pod.failed(self.only_ended()));
        backoff::left(&times(&failed), &times(&|pod| pod.succeeded()), self.now)
    }

    /// Failures of an index before the pod that is made next.
    pub(super) fn failures_of(&self, index: i64) -> (i64, i64) {
        match self.last_failed.get(&index) {
            None => (0, 0),
            Some(pod) if self.meaning(pod) == Failure::Ignored => (pod.failures(), pod.ignored() + 1),
            Some(pod) => (pod.failures() + 1, pod.ignored()),
        }
    }
}

fn patched_uid(action: &Action) -> Option<String> {
    match action {
        Action::Patch { patch, .. } => patch["metadata"]["uid"].as_str().map(str::to_owned),
        _ => None,
    }
}

/// The reasons for which a Job fails; events take no others.
fn reason_of(reason: &str) -> &'static str {
    const REASONS: [&str; 5] = ["PodFailurePolicy", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes", "BackoffLimitExceeded"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
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
    if let Some(failed) = &report.failed_indexes {
        json["failedIndexes"] = json!(failed);
    }
    json
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
