//! CronJob: a schedule, a zone, and the template of the Jobs that it makes.

pub mod schedule;

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, list, text_or},
    job,
    pod::warnings,
    rules::{At, Causes},
};
use crate::resources::cron_job::schedule::Schedule;
use coracle_api::{registry::Column, status::Cause};
use jiff::tz::TimeZone;
use serde_json::Value;

/// Hooks of `cronjobs.batch`.
pub struct CronJob;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Schedule", "When it makes a job, as a cron expression."),
    ("Timezone", "The zone that the expression is read in."),
    ("?Suspend", "Whether it makes none for now."),
    ("#Active", "How many of its jobs have not ended."),
    ("Last Schedule", "How long ago it made a job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The name of a Job has the minutes since 1970 behind it, and goes into names of pods.
const LONGEST_NAME: usize = 52;
/// One part of a zone's name.
const LONGEST_PART: usize = 14;

impl Hooks for CronJob {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if cx.subresource().is_empty() {
            validate(old, new, causes);
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if !cx.subresource().is_empty() {
            return Vec::new();
        }
        let mut said = warnings::of_name(old, new);
        said.extend(warnings::of_template(&["spec", "jobTemplate", "spec", "template"], old, new));
        let root = At::root(new);
        let (spec, before) = (root.field("spec"), old.map(|old| &old["spec"]["jobTemplate"]["spec"]));
        said.extend(job::spec::warnings(before, &spec.field("jobTemplate").field("spec")));
        said
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images, selector] = cells::workload(&spec["jobTemplate"]["spec"]);
        let suspend = match spec["suspend"].as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = status["lastScheduleTime"].as_str().map_or_else(|| "<none>".to_owned(), age::moment);
        vec![
            cells::name(object),
            text_or(&spec["schedule"], "").into(),
            text_or(&spec["timeZone"], "<none>").into(),
            suspend.into(),
            list(&status["active"]).len().into(),
            last.into(),
            age::of(object),
            containers,
            images,
            selector,
        ]
    }
}

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let schedule = spec.field("schedule");
    if schedule.required(causes, "") {
        if let Err(why) = Schedule::parse(schedule.text()) {
            schedule.invalid(causes, &why);
        }
        if schedule.text().contains("TZ") {
            schedule.invalid(causes, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.field("startingDeadlineSeconds").non_negative(causes);
    let zone = spec.field("timeZone");
    if zone.is_set() && old.is_none_or(|old| old["spec"]["timeZone"] != *zone.value) {
        time_zone(&zone, causes);
    }
    spec.field("concurrencyPolicy").required_one_of(causes, &["Allow", "Forbid", "Replace"]);
    let template = spec.field("jobTemplate");
    let job = template.field("spec");
    job::spec::validate(&job, causes);
    let (selector, manual) = (job.field("selector"), job.field("manualSelector"));
    if selector.is_set() {
        selector.invalid(causes, "`selector` will be auto-generated");
    }
    if manual.is_true() {
        manual.unsupported(causes, &["nil", "false"]);
    }
    spec.field("successfulJobsHistoryLimit").non_negative(causes);
    spec.field("failedJobsHistoryLimit").non_negative(causes);
    let metadata = root.field("metadata");
    let name = metadata.field("name");
    if old.is_none() && name.text().len() > LONGEST_NAME {
        name.invalid(causes, &format!("must be no more than {LONGEST_NAME} characters"));
    }
}

fn time_zone(zone: &At<'_, '_>, causes: &mut Causes) {
    let name = zone.text();
    if name.is_empty() {
        return zone.invalid(causes, "timeZone must be nil or non-empty string");
    }
    let known = |part: &str| {
        let letters = part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+'));
        letters && (1..=LONGEST_PART).contains(&part.len()) && part != "." && part != ".." && !part.starts_with('-')
    };
    if !name.split('/').all(known) {
        return zone.invalid(causes, &format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("Local") {
        zone.invalid(causes, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if TimeZone::get(name).is_err() {
        zone.invalid(causes, &format!("unknown time zone {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn good() -> Value {
        json!({"metadata": {"name": "tidy", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"schedule": "*/5 * * * *",
            "concurrencyPolicy": "Allow", "suspend": false, "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "a", "image": "x:1"}]}}}}},
            "status": {"active": [{"name": "tidy-1"}], "lastScheduleTime": "2026-01-02T03:04:02Z"}})
    }

    fn wrong(old: Option<&Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        validate(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(None, |_| {}), Vec::<String>::new());
        type Case = (fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (|c| c["spec"]["schedule"] = "".into(), "spec.schedule: Required value"),
            (
                |c| c["spec"]["schedule"] = "* * * *".into(),
                "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]",
            ),
            (
                |c| c["spec"]["schedule"] = "TZ=UTC 0 * * * *".into(),
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (|c| c["spec"]["timeZone"] = "".into(), "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"),
            (|c| c["spec"]["timeZone"] = "Moon/Base".into(), "spec.timeZone: Invalid value: \"Moon/Base\": unknown time zone Moon/Base"),
            (|c| c["spec"]["timeZone"] = "../etc".into(), "spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc"),
            (
                |c| c["spec"]["timeZone"] = "local".into(),
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
            (
                |c| c["spec"]["concurrencyPolicy"] = "Queue".into(),
                "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                |c| c["spec"]["jobTemplate"]["spec"]["manualSelector"] = true.into(),
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ),
            (
                |c| c["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = "Always".into(),
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                |c| c["spec"]["failedJobsHistoryLimit"] = (-1).into(),
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ),
        ];
        for (change, want) in cases {
            assert_eq!(wrong(None, change), [*want]);
        }
        assert_eq!(wrong(None, |c| c["spec"]["timeZone"] = "America/Argentina/Buenos_Aires".into()), Vec::<String>::new());
        let long = |c: &mut Value| c["metadata"]["name"] = "a".repeat(53).into();
        assert_eq!(wrong(None, long).len(), 1);
        assert_eq!(wrong(Some(&good()), long), Vec::<String>::new(), "a name that is there is there");
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let row = cells::golden(&CronJob.cells(&good()), "2026-01-02T03:04:05Z");
        assert_eq!(row, "tidy | */5 * * * * | <none> | False | 1 | 3s | 5s | a | x:1 | <none>");
    }
}
