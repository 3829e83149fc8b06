//! One pass over a CronJob: which Jobs it still counts, which old ones go, and whether it is time for the next.

use super::{CronJob, Job, Reference, Report};
use crate::controllers::action::Action;
use coracle_apiserver::{
    resources::cron_job::schedule::Schedule,
    view::{Condition, Text, stamp, time},
};
use coracle_store::Key;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Behind the minute, so that a clock that is read a little early does not miss it.
const DELTA: Duration = Duration::from_millis(100);
/// More missed runs than this are told of.
const MANY: i64 = 100;

/// What a pass decides, in the order it is carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided<'a> {
    /// Events, before anything else.
    pub events: Vec<Action>,
    /// Jobs that go (key, uid), and are counted no longer.
    pub deletions: Vec<(Key, String)>,
    /// The time for which a Job is to be made.
    pub start: Option<Timestamp>,
    /// The status without that Job.
    pub report: Report<'a>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// Everything a pass looks at.
pub struct State<'s, 'a> {
    /// The CronJob.
    pub cron: &'s CronJob<'a>,
    /// The Jobs that it controls.
    pub jobs: &'s [Job<'a>],
    /// Whether there is a Job of this name, whoever controls it.
    pub exists: &'s dyn Fn(&str) -> bool,
    /// Wall-clock time.
    pub now: Timestamp,
}

/// `Complete` or `Failed`, once it is.
fn finished<'j>(job: &'j Job<'_>) -> Option<&'j str> {
    let ends = |c: &&Condition<'_>| c.is_true() && (c.kind == "Complete" || c.kind == "Failed");
    job.status.conditions.iter().find(ends).map(|c| &*c.kind)
}

/// The name of the Job for a time: made twice, it is the same Job.
pub fn job_name(cron: &str, scheduled: Timestamp) -> String {
    format!("{cron}-{}", scheduled.as_second().div_euclid(60))
}

struct Pass<'s, 'a> {
    state: &'s State<'s, 'a>,
    decided: Decided<'a>,
}

impl<'s, 'a> State<'s, 'a> {
    /// Decides a pass.
    pub fn decide(&'s self) -> Decided<'a> {
        let mut pass = Pass { state: self, decided: Decided { report: self.cron.status.clone(), ..Decided::default() } };
        pass.forget();
        pass.count();
        if !self.cron.metadata.deleting() {
            pass.schedule();
        }
        pass.decided
    }

    /// The zone that the expression is read in: UTC unless it says otherwise.
    fn zone(&self) -> Result<TimeZone, jiff::Error> {
        self.cron.spec.time_zone.as_ref().map_or(Ok(TimeZone::UTC), |name| TimeZone::get(name))
    }

    /// The last time that has come and whose Job was not made yet, and how many have come since.
    fn due(&self, schedule: &Schedule, zone: &TimeZone) -> Option<(Timestamp, i64)> {
        let spec = &self.cron.spec;
        let mut earliest = time(&self.cron.status.last_schedule_time).unwrap_or_else(|| self.cron.metadata.created());
        if let Some(deadline) = spec.starting_deadline_seconds
            && let Ok(bound) = self.now.checked_sub(SignedDuration::from_secs(deadline))
        {
            earliest = earliest.max(bound);
        }
        let first = schedule.next(earliest, zone).filter(|first| *first <= self.now)?;
        let Some(second) = schedule.next(first, zone).filter(|second| *second <= self.now) else { return Some((first, 1)) };
        let between = second.duration_since(first).as_secs().max(1);
        let missed = self.now.duration_since(first).as_secs() / between + 1;
        // Not every time since then is walked through: a guess, and on from there.
        let guess = first.checked_add(SignedDuration::from_secs((missed - 2).max(0).saturating_mul(between))).unwrap_or(first);
        let mut last = if guess > self.now { second } else { first };
        let mut at = guess.min(self.now);
        while let Some(next) = schedule.next(at, zone).filter(|next| *next <= self.now) {
            last = last.max(next);
            at = next;
        }
        Some((last, missed))
    }
}

impl<'a> Pass<'_, 'a> {
    fn tell(&mut self, kind: &'static str, reason: &'static str, message: String) {
        self.decided.events.push(Action::Event { kind, reason, message });
    }

    fn delete(&mut self, job: &Job<'_>) {
        let uid = &job.metadata.uid;
        self.decided.deletions.push((Key::new(super::JOBS, &*job.metadata.namespace, &*job.metadata.name), uid.to_string()));
        self.decided.report.active.retain(|active| active.uid != *uid);
    }

    /// Ended Jobs beyond the history limits go, the oldest first.
    fn forget(&mut self) {
        let spec = &self.state.cron.spec;
        for (kind, limit) in [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)] {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<&Job<'_>> = self.state.jobs.iter().filter(|job| finished(job) == Some(kind)).collect();
            ended.sort_by(|a, b| (&a.status.start_time, &a.metadata.name).cmp(&(&b.status.start_time, &b.metadata.name)));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            ended.into_iter().take(surplus).filter(|job| !job.metadata.deleting()).for_each(|job| self.delete(job));
        }
    }

    /// Brings the list of active Jobs in line with those that there are.
    fn count(&mut self) {
        for job in self.state.jobs {
            let uid = &job.metadata.uid;
            let counted = self.decided.report.active.iter().any(|active| active.uid == *uid);
            let gone = self.decided.deletions.iter().any(|(_, gone)| **gone == **uid);
            match finished(job) {
                None if !counted && !gone => {
                    self.tell("Warning", "UnexpectedJob", format!("Saw a job that the controller did not create or forgot: {}", job.metadata.name));
                }
                None => {}
                Some(kind) => {
                    if counted {
                        self.decided.report.active.retain(|active| active.uid != *uid);
                        self.tell("Normal", "SawCompletedJob", format!("Saw completed job: {}, condition: {kind}", job.metadata.name));
                    }
                    // Times of one form and zone compare as text.
                    if kind == "Complete" && job.status.completion_time > self.decided.report.last_successful_time {
                        self.decided.report.last_successful_time = job.status.completion_time.clone();
                    }
                }
            }
        }
        let known: BTreeSet<&str> = self.state.jobs.iter().map(|job| &*job.metadata.uid).collect();
        let lost = |active: &Reference<'_>| !known.contains(&*active.uid) && !(self.state.exists)(&active.name);
        let (lost, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.decided.report.active).into_iter().partition(lost);
        self.decided.report.active = kept;
        for active in lost {
            self.tell("Normal", "MissingJob", format!("Active job went missing: {}", active.name));
        }
    }

    fn schedule(&mut self) {
        let state = self.state;
        let spec = &state.cron.spec;
        let zone = match state.zone() {
            Ok(zone) => zone,
            Err(error) => {
                let name = spec.time_zone.as_deref().unwrap_or_default();
                return self.tell("Warning", "UnknownTimeZone", format!("invalid timeZone: \"{name}\": {error}"));
            }
        };
        if spec.suspend {
            return;
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => return self.tell("Warning", "UnparseableSchedule", format!("unparseable schedule: \"{}\" : {why}", spec.schedule)),
        };
        let next = schedule.next(state.now, &zone);
        self.decided.again = next.map(|next| next.duration_since(state.now).unsigned_abs() + DELTA);
        let Some((scheduled, missed)) = state.due(&schedule, &zone) else { return };
        if missed > MANY {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell("Warning", "TooManyMissedTimes", message.to_owned());
        }
        if spec.starting_deadline_seconds.is_some_and(|deadline| state.now.duration_since(scheduled) > SignedDuration::from_secs(deadline)) {
            let at = scheduled.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.tell("Warning", "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        }
        let name = job_name(&state.cron.metadata.name, scheduled);
        let done = time(&state.cron.status.last_schedule_time) == Some(scheduled);
        if done || self.decided.report.active.iter().any(|active| *active.name == *name) {
            return;
        }
        if !self.decided.report.active.is_empty() {
            match &*spec.concurrency_policy {
                "Forbid" => {
                    let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                    return self.tell("Normal", "JobAlreadyActive", message.to_owned());
                }
                "Replace" => {
                    let active: BTreeSet<String> = self.decided.report.active.iter().map(|active| active.uid.to_string()).collect();
                    state.jobs.iter().filter(|job| active.contains(&*job.metadata.uid)).for_each(|job| self.delete(job));
                }
                _ => {}
            }
        }
        self.decided.start = Some(scheduled);
    }
}

/// The Job for a time.
pub fn job(cron: &CronJob<'_>, template: &Value, owner: Value, scheduled: Timestamp) -> Value {
    let zone = cron.spec.time_zone.as_ref().and_then(|name| TimeZone::get(name).ok());
    let local = match zone {
        Some(zone) if zone != TimeZone::UTC => scheduled.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        _ => stamp(scheduled),
    };
    let meta = &cron.metadata;
    let mut metadata = json!({ "name": job_name(&meta.name, scheduled), "namespace": meta.namespace, "ownerReferences": [owner] });
    for field in ["labels", "annotations"] {
        if let Some(map) = template["metadata"].get(field).filter(|map| map.is_object()) {
            metadata[field] = map.clone();
        }
    }
    metadata["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] = json!(local);
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"] })
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
    let mut json = json!({});
    if !report.active.is_empty() {
        json["active"] = report.active.iter().map(Reference::to_json).collect();
    }
    for (field, text) in [("lastScheduleTime", &report.last_schedule_time), ("lastSuccessfulTime", &report.last_successful_time)] {
        if !text.is_empty() {
            json[field] = json!(text);
        }
    }
    json
}

/// Adds a Job to those that are active.
pub fn started<'a>(report: &mut Report<'a>, job: Reference<'a>, scheduled: Timestamp) {
    report.active.push(job);
    report.last_schedule_time = Text::from(stamp(scheduled));
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
