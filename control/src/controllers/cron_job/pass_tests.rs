use super::*;
use coracle_apiserver::view::parse_bytes;

struct World {
    cron: Value,
    jobs: Vec<Value>,
    /// Names of Jobs that others control.
    others: Vec<&'static str>,
    now: Timestamp,
}

impl World {
    /// Every ten minutes since 00:00.
    fn new(spec: Value) -> Self {
        let mut whole =
            json!({ "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1 });
        for (key, value) in spec.as_object().expect("fields") {
            whole[key] = value.clone();
        }
        let cron = json!({ "metadata": { "name": "c", "namespace": "n", "uid": "cu", "creationTimestamp": "2026-01-01T00:00:00Z" }, "spec": whole });
        Self { cron, jobs: Vec::new(), others: Vec::new(), now: "2026-01-01T00:00:00Z".parse().expect("time") }
    }

    fn at(mut self, time: &str) -> Self {
        self.now = format!("2026-01-01T{time}Z").parse().expect("time");
        self
    }

    /// A Job that it controls; counted as active if it has not ended.
    fn with(mut self, name: &str, end: &str, at: &str) -> Self {
        let conditions = if end.is_empty() { json!([]) } else { json!([{ "type": end, "status": "True" }]) };
        let mut job = json!({ "metadata": { "name": name, "namespace": "n", "uid": name }, "status": { "conditions": conditions, "startTime": at } });
        if end == "Complete" {
            job["status"]["completionTime"] = json!(at);
        }
        self.jobs.push(job);
        if end.is_empty() {
            self = self.counted(name);
        }
        self
    }

    fn counted(mut self, name: &str) -> Self {
        let mut active = self.cron["status"]["active"].as_array().cloned().unwrap_or_default();
        active.push(json!({ "apiVersion": "batch/v1", "kind": "Job", "namespace": "n", "name": name, "uid": name }));
        self.cron["status"]["active"] = json!(active);
        self
    }

    fn look<T>(&self, look: impl FnOnce(&Decided<'_>) -> T) -> T {
        let text = self.cron.to_string();
        let cron: CronJob<'_> = parse_bytes(text.as_bytes()).expect("a cron job");
        let texts: Vec<String> = self.jobs.iter().map(Value::to_string).collect();
        let jobs: Vec<Job<'_>> = texts.iter().map(|job| parse_bytes(job.as_bytes()).expect("a job")).collect();
        let exists = |name: &str| self.others.contains(&name);
        look(&State { cron: &cron, jobs: &jobs, exists: &exists, now: self.now }.decide())
    }

    fn start(&self) -> Option<String> {
        self.look(|decided| decided.start.map(stamp))
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.look(|decided| decided.events.iter().map(|event| if let Action::Event { reason, .. } = event { *reason } else { "" }).collect())
    }

    fn deleted(&self) -> Vec<String> {
        self.look(|decided| decided.deletions.iter().map(|(key, _)| key.name.to_string()).collect())
    }

    fn active(&self) -> Vec<String> {
        self.look(|decided| decided.report.active.iter().map(|active| active.name.to_string()).collect())
    }
}

#[test]
fn a_job_starts_when_its_time_has_come() {
    let world = World::new(json!({})).at("00:09:59");
    assert_eq!((world.start(), world.look(|d| d.again)), (None, Some(Duration::from_millis(1100))));
    let world = world.at("00:10:00");
    assert_eq!((world.start().as_deref(), world.look(|d| d.again)), (Some("2026-01-01T00:10:00Z"), Some(Duration::from_millis(600_100))));
    let mut world = world.at("00:19:00");
    world.cron["status"]["lastScheduleTime"] = json!("2026-01-01T00:10:00Z");
    assert_eq!(world.start(), None, "that time is done");
    let world = world.at("00:47:00");
    assert_eq!((world.start().as_deref(), world.reasons().len()), (Some("2026-01-01T00:40:00Z"), 0), "only the last of those missed");
    let world = world.at("23:00:00");
    assert_eq!((world.start().as_deref(), world.reasons()), (Some("2026-01-01T23:00:00Z"), vec!["TooManyMissedTimes"]));
}

#[test]
fn deadlines_zones_and_suspension() {
    let late = World::new(json!({ "startingDeadlineSeconds": 60 }));
    assert_eq!(late.at("00:10:59").start().as_deref(), Some("2026-01-01T00:10:00Z"));
    let late = World::new(json!({ "startingDeadlineSeconds": 60 })).at("00:11:00");
    assert_eq!((late.start(), late.reasons().len()), (None, 0));
    assert_eq!(World::new(json!({ "suspend": true })).at("00:10:00").start(), None);
    let zone = World::new(json!({ "schedule": "0 6 * * *", "timeZone": "Asia/Kolkata" }));
    assert_eq!(zone.at("00:31:00").start().as_deref(), Some("2026-01-01T00:30:00Z"));
    assert_eq!(World::new(json!({ "timeZone": "Moon/Base" })).at("00:10:00").reasons(), ["UnknownTimeZone"]);
    assert_eq!(World::new(json!({ "schedule": "x" })).at("00:10:00").reasons(), ["UnparseableSchedule"]);
}

#[test]
fn what_still_runs_may_be_in_the_way() {
    let world = |policy: &str| World::new(json!({ "concurrencyPolicy": policy })).at("00:10:00").with("old", "", "2026-01-01T00:00:00Z");
    assert!(world("Allow").start().is_some());
    assert_eq!(world("Allow").active(), ["old"]);
    assert_eq!((world("Forbid").start(), world("Forbid").reasons()), (None, vec!["JobAlreadyActive"]));
    let replace = world("Replace");
    assert_eq!((replace.start().is_some(), replace.deleted(), replace.active().len()), (true, vec!["old".to_owned()], 0));
}

#[test]
fn active_jobs_are_those_that_there_are() {
    let world = World::new(json!({})).with("done", "Complete", "2026-01-01T00:05:00Z").counted("done").counted("lost").counted("foreign");
    let world = World { others: vec!["foreign"], ..world };
    assert_eq!((world.active(), world.reasons()), (vec!["foreign".to_owned()], vec!["SawCompletedJob", "MissingJob"]));
    assert_eq!(world.look(|d| d.report.last_successful_time.to_string()), "2026-01-01T00:05:00Z");
    let mut stray = World::new(json!({})).with("stray", "", "");
    stray.cron["status"] = json!({});
    assert_eq!(stray.reasons(), ["UnexpectedJob"]);
}

#[test]
fn the_oldest_ended_jobs_are_forgotten() {
    let mut world = World::new(json!({ "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0 }));
    for (name, end, at) in
        [("a", "Complete", "2026-01-01T00:02:00Z"), ("b", "Complete", "2026-01-01T00:01:00Z"), ("c", "Failed", "2026-01-01T00:03:00Z")]
    {
        world = world.with(name, end, at);
    }
    assert_eq!(world.deleted(), ["b", "c"]);
    world.cron["spec"]["failedJobsHistoryLimit"] = Value::Null;
    assert_eq!(world.deleted(), ["b"]);
}

#[test]
fn a_job_is_named_after_its_minute() {
    let world = World::new(json!({ "timeZone": "Europe/Berlin" }));
    let text = world.cron.to_string();
    let cron: CronJob<'_> = parse_bytes(text.as_bytes()).expect("a cron job");
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "completions": 1 } });
    let made = job(&cron, &template, json!({}), "2026-01-01T00:10:00Z".parse().expect("time"));
    assert_eq!(made["metadata"]["name"], "c-29453770");
    assert_eq!(made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-01-01T01:10:00+01:00");
    assert_eq!((&made["metadata"]["labels"]["a"], &made["spec"]["completions"]), (&json!("b"), &json!(1)));
}
