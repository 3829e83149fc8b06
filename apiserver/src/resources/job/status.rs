//! What a Job's status may say, so that whoever manages a Job (`spec.managedBy`) keeps the promises that others rely on.

use super::policies::{read_indexes, read_run};
use crate::resources::{
    cells::{count, is_true, list},
    rules::{At, Causes},
};
use serde_json::Value;
use std::collections::BTreeSet;

struct Change<'v> {
    old: &'v Value,
    new: &'v Value,
}

impl Change<'_> {
    fn of(&self, name: &str) -> bool {
        self.old["status"][name] != self.new["status"][name]
    }
    fn was(&self, kind: &str) -> bool {
        is_true(&self.old["status"]["conditions"], kind)
    }
    fn is(&self, kind: &str) -> bool {
        is_true(&self.new["status"]["conditions"], kind)
    }
    fn turned(&self, kind: &str) -> bool {
        self.was(kind) != self.is(kind)
    }
    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    fn turned_finished(&self) -> bool {
        self.finished() != (self.was("Complete") || self.was("Failed"))
    }
    fn resumes(&self) -> bool {
        let noted = list(&self.new["status"]["conditions"]).iter().any(|c| c["type"] == "Suspended" && c["status"] == "False");
        self.was("Suspended") && noted
    }
}

/// A write of the status.
pub fn validate(old: &Value, new: &Value, causes: &mut Causes) {
    let change = Change { old, new };
    let root = At::root(new);
    let status = root.field("status");
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.field(name).non_negative(causes);
    }
    uncounted(&status, causes);
    ends(&change, &status, causes);
    indexes(&change, &status, causes);
    let active = status.field("active");
    if (change.turned_finished() || change.of("active")) && change.finished() && count(active.value) > 0 {
        active.invalid(causes, "active>0 is invalid for finished job");
    }
    let terminating = status.field("terminating");
    if (change.turned_finished() || change.of("terminating")) && change.finished() && count(terminating.value) > 0 {
        terminating.invalid(causes, "terminating>0 is invalid for finished job");
    }
    let ready = status.field("ready");
    if (change.of("ready") || change.of("active")) && count(ready.value) > count(active.value) {
        ready.invalid(causes, "cannot set more ready pods than active");
    }
    for (name, may_fall) in [("failed", false), ("succeeded", indexed(new) && new["spec"]["completions"] == new["spec"]["parallelism"])] {
        if !may_fall && count(&new["status"][name]) < count(&old["status"][name]) {
            status.field(name).invalid_value(causes, count(&new["status"][name]), &format!("cannot decrease the {name} counter"));
        }
    }
}

fn indexed(job: &Value) -> bool {
    job["spec"]["completionMode"] == "Indexed"
}

fn uncounted(status: &At<'_, '_>, causes: &mut Causes) {
    let pods = status.field("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for name in ["succeeded", "failed"] {
        for uid in pods.field(name).items() {
            match uid.text() {
                "" => uid.invalid(causes, "must not be empty"),
                text if !seen.insert(text) => uid.duplicate(causes),
                _ => {}
            }
        }
    }
}

/// How a Job ends: one way, once, for good, and at a time.
fn ends(change: &Change<'_>, status: &At<'_, '_>, causes: &mut Causes) {
    let conditions = status.field("conditions");
    let (complete, failed) = (change.is("Complete"), change.is("Failed"));
    let (target, met) = (change.is("FailureTarget"), change.is("SuccessCriteriaMet"));
    let turned = |kinds: &[&str]| kinds.iter().any(|kind| change.turned(kind));
    if turned(&["Complete", "Failed"]) && complete && failed {
        conditions.wrong(causes, "cannot set Complete=True and Failed=true conditions");
    }
    if turned(&["Complete", "FailureTarget"]) && complete && target {
        conditions.wrong(causes, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let (start, end) = (status.field("startTime"), status.field("completionTime"));
    if (turned(&["Complete"]) || change.of("completionTime")) && end.is_set() && !complete {
        end.invalid(causes, "cannot set completionTime when there is no Complete=True condition");
    }
    if (turned(&["Complete"]) || change.of("completionTime")) && !end.is_set() && complete {
        end.missing(causes, "completionTime is required for Complete jobs");
    }
    // RFC 3339 of the same zone: text compares as time does.
    if (change.of("startTime") || change.of("completionTime")) && start.is_set() && end.is_set() && end.text() < start.text() {
        end.invalid(causes, "must be equal to or after `startTime`");
    }
    if (turned(&["Failed"]) || change.of("failedIndexes")) && failed && !target {
        conditions.wrong(causes, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if turned(&["Complete", "SuccessCriteriaMet"]) && complete && !met {
        conditions.wrong(causes, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    let spec = &change.new["spec"];
    let nothing_to_do = spec["suspend"] == true && spec["completions"] == 0;
    if (change.turned_finished() || change.of("startTime")) && !nothing_to_do && change.finished() && !start.is_set() {
        start.missing(causes, "startTime is required for finished job");
    }
    let pods = status.field("uncountedTerminatedPods");
    let left = !pods.field("succeeded").is_empty() || !pods.field("failed").is_empty();
    if (change.turned_finished() || change.of("uncountedTerminatedPods")) && change.finished() && left {
        pods.invalid(causes, "must be empty for finished job");
    }
    if met && failed {
        conditions.wrong(causes, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && target {
        conditions.wrong(causes, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if !spec["successPolicy"].is_null() && !met && complete {
        conditions.wrong(causes, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if change.was(kind) && !change.is(kind) {
            conditions.wrong(causes, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let before = &change.old["status"];
    if end.is_set() && !before["completionTime"].is_null() && change.of("completionTime") {
        end.invalid(causes, "field is immutable");
    }
    if !before["startTime"].is_null() && change.of("startTime") && !change.resumes() && spec["suspend"] != true {
        start.invalid(causes, "field is immutable for unsuspended job once set");
    }
    if change.was("SuccessCriteriaMet") && !met {
        conditions.wrong(causes, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if change.was("Complete") && !change.was("SuccessCriteriaMet") && met {
        conditions.wrong(causes, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn indexes(change: &Change<'_>, status: &At<'_, '_>, causes: &mut Causes) {
    let spec = &change.new["spec"];
    let (completed, failed) = (status.field("completedIndexes"), status.field("failedIndexes"));
    if let Some(completions) = spec["completions"].as_i64() {
        for (at, name, looked_at) in [(&completed, "completedIndexes", true), (&failed, "failedIndexes", !spec["backoffLimitPerIndex"].is_null())] {
            if looked_at
                && change.of(name)
                && let Err(why) = read_indexes(at.text(), completions)
            {
                at.invalid(causes, &format!("error parsing {name}: {why}"));
            }
        }
    }
    if change.of("completedIndexes") && !completed.text().is_empty() && !indexed(change.new) {
        completed.invalid(causes, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if change.of("failedIndexes") && failed.is_set() && spec["backoffLimitPerIndex"].is_null() {
        failed.invalid(causes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (change.of("failedIndexes") || change.of("completedIndexes"))
        && let Some(completions) = spec["completions"].as_i64()
        && let Some(index) = common(completed.text(), failed.text(), completions)
    {
        failed.invalid(causes, &format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

/// The first index that is in both.
fn common(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let runs = |text: &str| text.split(',').filter_map(|run| read_run(run, completions).ok()).collect::<Vec<_>>();
    let (completed, failed) = (runs(completed), runs(failed));
    let (mut a, mut b) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some(&&(first, last)), Some(&&(start, end))) = (a.peek(), b.peek()) {
        if first <= end && start <= last {
            return Some(first.max(start));
        }
        if first <= start {
            a.next();
        } else {
            b.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(spec: Value, old: Value, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&json!({"spec": spec, "status": old}), &json!({"spec": spec, "status": new}), &mut causes);
        lines(&causes)
    }

    fn conditions(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    }

    #[test]
    fn a_job_ends_as_it_said_it_would() {
        let start = json!({"startTime": "2026-01-02T03:04:00Z"});
        let done = |kinds: &[&str]| json!({"startTime": "2026-01-02T03:04:00Z", "conditions": conditions(kinds)});
        let mut complete = done(&["SuccessCriteriaMet", "Complete"]);
        complete["completionTime"] = json!("2026-01-02T03:05:00Z");
        let none = Vec::<String>::new();
        assert_eq!(wrong(json!({}), start.clone(), complete.clone()), none);
        assert_eq!(wrong(json!({}), start.clone(), done(&["FailureTarget", "Failed"])), none);
        assert_eq!(
            wrong(json!({}), start.clone(), done(&["Failed"])),
            ["status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"]
        );
        assert_eq!(
            wrong(json!({}), start.clone(), done(&["SuccessCriteriaMet", "Complete"])),
            ["status.completionTime: Required value: completionTime is required for Complete jobs"]
        );
        assert_eq!(
            wrong(json!({}), complete.clone(), start.clone()),
            [
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ]
        );
        let mut early = complete.clone();
        early["completionTime"] = json!("2026-01-02T03:03:00Z");
        assert_eq!(
            wrong(json!({}), start.clone(), early),
            ["status.completionTime: Invalid value: \"2026-01-02T03:03:00Z\": must be equal to or after `startTime`"]
        );
        let mut busy = complete;
        busy["active"] = json!(1);
        assert_eq!(wrong(json!({}), start, busy), ["status.active: Invalid value: 1: active>0 is invalid for finished job"]);
    }

    #[test]
    fn counts_only_grow() {
        assert_eq!(
            wrong(json!({}), json!({"failed": 2, "succeeded": 2}), json!({"failed": 1, "succeeded": 1, "ready": 1})),
            [
                "status.ready: Invalid value: 1: cannot set more ready pods than active",
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
                "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
            ]
        );
        let elastic = json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1});
        assert_eq!(wrong(elastic, json!({"succeeded": 2}), json!({"succeeded": 1})), Vec::<String>::new());
        assert_eq!(
            wrong(json!({}), json!({}), json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}})),
            [
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty"
            ]
        );
        assert_eq!(
            wrong(json!({}), json!({"startTime": "2026-01-02T03:04:00Z"}), json!({"startTime": "2026-01-02T03:05:00Z"})),
            ["status.startTime: Invalid value: \"2026-01-02T03:05:00Z\": field is immutable for unsuspended job once set"]
        );
    }

    #[test]
    fn indexes_are_indexes() {
        let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1});
        let of = |completed: &str, failed: &str| wrong(spec.clone(), json!({}), json!({"completedIndexes": completed, "failedIndexes": failed}));
        assert_eq!(of("0-2", "3,4"), Vec::<String>::new());
        assert_eq!(of("0-2", "2"), ["status.failedIndexes: Invalid value: \"2\": failedIndexes and completedIndexes overlap at index: 2"]);
        assert_eq!(of("0-9", ""), ["status.completedIndexes: Invalid value: \"0-9\": error parsing completedIndexes: too large index: \"9\""]);
        assert_eq!(
            wrong(json!({}), json!({}), json!({"completedIndexes": "0"})),
            ["status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode"]
        );
    }
}
