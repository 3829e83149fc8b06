//! Rules of a Job's spec, in a Job and in the template of a CronJob alike, and what of it may change.

use super::policies;
use crate::resources::{
    cells::is_true,
    pod::template,
    rules::{At, Causes},
};
use coracle_api::names;
use serde_json::Value;

const MOST_PARALLEL: i64 = 100_000;
const MOST_FAILED: i64 = 100_000;
/// Completions above which indexes with a limit of their own are bounded further.
const MANY: i64 = 100_000;
const MOST_OF_MANY: i64 = 10_000;
const LONGEST_MANAGER: usize = 63;

/// Everything but the selector.
pub fn validate(spec: &At<'_, '_>, causes: &mut Causes) {
    for name in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex"] {
        spec.field(name).non_negative(causes);
    }
    let (per_index, failed_indexes) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    failed_indexes.non_negative(causes);
    if failed_indexes.is_set() && !per_index.is_set() {
        per_index.missing(causes, "when maxFailedIndexes is specified");
    }
    let managed = spec.field("managedBy");
    if managed.is_set() {
        if managed.text().split_once('/').is_none_or(|(domain, path)| !names::dns_subdomain(domain).is_empty() || path.is_empty()) {
            managed.invalid(causes, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        if managed.text().len() > LONGEST_MANAGER {
            managed.too_long(causes, LONGEST_MANAGER);
        }
    }
    let mode = spec.field("completionMode");
    mode.one_of(causes, &["NonIndexed", "Indexed"]);
    if mode.text() == "Indexed" {
        indexed(spec, causes);
    } else {
        for at in [&per_index, &failed_indexes] {
            if at.is_set() {
                at.invalid(causes, "requires indexed completion mode");
            }
        }
    }
    let (failure, success) = (spec.field("podFailurePolicy"), spec.field("successPolicy"));
    if failure.is_set() {
        policies::failure(spec, causes);
    }
    if success.is_set() {
        if mode.text() == "Indexed" {
            policies::success(spec, causes);
        } else {
            success.invalid(causes, "requires indexed completion mode");
        }
    }
    let supported: &[&str] = if failure.is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.field("podReplacementPolicy").one_of(causes, supported);
    let pods = spec.field("template");
    template::validate(None, &pods, causes);
    let pod = pods.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.text() {
        "" | "Always" => policy.missing(causes, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if failure.is_set() => policy.invalid(causes, "only \"Never\" is supported when podFailurePolicy is specified"),
        "OnFailure" | "Never" => {}
        _ => policy.unsupported(causes, &["OnFailure", "Never"]),
    }
}

fn indexed(spec: &At<'_, '_>, causes: &mut Causes) {
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let (per_index, failed) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    if !completions.is_set() {
        completions.missing(causes, "when completion mode is Indexed");
    }
    let above = |at: &At<'_, '_>, most: i64| at.int().is_some_and(|number| number > most);
    if above(&parallelism, MOST_PARALLEL) {
        parallelism.invalid(causes, &format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed"));
    }
    if completions.int().is_some_and(|all| above(&failed, all)) {
        failed.invalid(causes, "must be less than or equal to completions");
    }
    if above(&failed, MOST_FAILED) {
        failed.invalid(causes, &format!("must be less than or equal to {MOST_FAILED}"));
    }
    if above(&completions, MANY) && per_index.is_set() {
        if !failed.is_set() {
            failed.missing(causes, &format!("must be specified when completions is above {MANY}"));
        }
        for at in [&parallelism, &failed] {
            if above(at, MOST_OF_MANY) {
                at.invalid(
                    causes,
                    &format!("must be less than or equal to {MOST_OF_MANY} when completions are above {MANY} and used with backoff limit per index"),
                );
            }
        }
    }
}

/// What is accepted and will probably not go well, of a spec that is new or changes.
pub fn warnings(old: Option<&Value>, spec: &At<'_, '_>) -> Vec<String> {
    if old == Some(spec.value) {
        return Vec::new();
    }
    let above = |name: &str, most: i64| spec.field(name).int().is_some_and(|number| number > most);
    if spec.field("completionMode").text() == "Indexed" && above("completions", MANY) && above("parallelism", MOST_OF_MANY) {
        return vec![format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            spec.path()
        )];
    }
    Vec::new()
}

/// What an update may not change.
pub fn update(old: &Value, new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let before = &old["spec"];
    let completions = spec.field("completions");
    if new["spec"]["completionMode"] != "Indexed" {
        completions.immutable(causes, &before["completions"]);
    } else if completions.is_set() && completions.value != &before["completions"] && new["spec"]["completions"] != new["spec"]["parallelism"] {
        completions.invalid(causes, "can only be modified in tandem with spec.parallelism");
    }
    spec.field("selector").immutable(causes, &before["selector"]);
    let pods = spec.field("template");
    if waits(old) {
        // Where its pods run and what they ask for may still be said, and what they are called.
        pods.field("spec").immutable(causes, &movable(&before["template"]["spec"], &new["spec"]["template"]["spec"]));
    } else {
        pods.immutable(causes, &before["template"]);
    }
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.field(name).immutable(causes, &before[name]);
    }
}

/// A Job that is suspended, and has no pods (any longer).
fn waits(job: &Value) -> bool {
    let status = &job["status"];
    job["spec"]["suspend"] == true
        && (status["startTime"].is_null() || is_true(&status["conditions"], "Suspended"))
        && status["active"].as_i64().unwrap_or(0) == 0
}

/// The old pod spec with what may change taken from the new one.
fn movable(old: &Value, new: &Value) -> Value {
    fn take(old: &mut Value, new: &Value, name: &str) {
        if let Some(map) = old.as_object_mut() {
            match &new[name] {
                Value::Null => drop(map.remove(name)),
                value => drop(map.insert(name.to_owned(), value.clone())),
            }
        }
    }
    let mut pod = old.clone();
    for name in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(&mut pod, new, name);
    }
    let mut affinity = match &pod["affinity"] {
        Value::Null => Value::Object(Default::default()),
        some => some.clone(),
    };
    take(&mut affinity, &new["affinity"], "nodeAffinity");
    let empty = affinity.as_object().is_none_or(serde_json::Map::is_empty) && new["affinity"].is_null();
    if let Some(map) = pod.as_object_mut() {
        if empty { drop(map.remove("affinity")) } else { drop(map.insert("affinity".to_owned(), affinity)) }
    }
    for list in ["containers", "initContainers"] {
        let same = pod[list].as_array().map(Vec::len) == new[list].as_array().map(Vec::len);
        for (old, new) in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(new[list].as_array().into_iter().flatten()) {
            if same && old["name"] == new["name"] {
                take(old, new, "resources");
            }
        }
    }
    pod
}
