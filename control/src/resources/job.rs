//! Job: the selector and labels by which it knows its pods, made once; what may never change; its row.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, count, is_true},
    pod::{template, warnings},
    rules::{At, Causes, labels},
};
use coracle_api::{
    names,
    registry::Column,
    selector::Selector,
    status::{Cause, Status},
};
use serde_json::Value;

/// Hooks of `jobs.batch`.
pub struct Job;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Status", "Where the job stands."),
    ("Completions", "How many of its pods have succeeded, of how many."),
    ("Duration", "How long it took, or has taken so far."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Labels that tie pods to their job, in the order (name labels, uid labels), old form first.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

impl Hooks for Job {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        generate_selector(new);
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if cx.subresource().is_empty() {
            validate(old, new, causes);
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { warnings::of_workload(old, new) } else { Vec::new() }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

fn row(job: &Value) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let succeeded = count(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), count(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = match (status["startTime"].as_str(), status["completionTime"].as_str()) {
        (None, _) => String::new(),
        (Some(start), None) => age::moment(start),
        (Some(start), Some(end)) => age::between(start, end).unwrap_or_default(),
    };
    let conditions = &status["conditions"];
    let state = [("Complete", "Complete"), ("Failed", "Failed")]
        .into_iter()
        .find(|(condition, _)| is_true(conditions, condition))
        .or_else(|| job["metadata"]["deletionTimestamp"].is_string().then_some(("", "Terminating")))
        .or_else(|| ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|c| is_true(conditions, c)).map(|c| (c, c)))
        .map_or("Running", |(_, word)| word);
    let [containers, images, selector] = cells::workload(spec);
    vec![cells::name(job), state.into(), completions.into(), duration.into(), age::of(job), containers, images, selector]
}

/// Unless the user manages the selector: pods are known by the job's uid.
fn generate_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            let place = &mut job["spec"]["template"]["metadata"]["labels"][key];
            // A label of the user's that conflicts is refused by validation.
            if place.is_null() {
                *place = value.clone();
            }
        }
    }
    let place = &mut job["spec"]["selector"]["matchLabels"][UID_LABELS[1]];
    if place.is_null() {
        *place = uid;
    }
}

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    generated(new, &spec, causes);
    for name in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"]
    {
        spec.field(name).non_negative(causes);
    }
    modes(new, &root, causes);
    let pods = spec.field("template");
    template::validate(old.map(|old| &old["spec"]["template"]), &pods, causes);
    let pod = pods.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.text() {
        "" | "Always" => policy.missing(causes, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.field("podFailurePolicy").is_set() => {
            policy.invalid(causes, "only \"Never\" is supported when podFailurePolicy is specified")
        }
        "OnFailure" | "Never" => {}
        _ => policy.unsupported(causes, &["OnFailure", "Never"]),
    }
    let selector = spec.field("selector");
    if selector.is_set() {
        labels::selector(&selector, causes);
    } else {
        selector.missing(causes, "");
    }
    let of_template = &new["spec"]["template"]["metadata"]["labels"];
    if Selector::from_object(selector.value).is_ok_and(|selector| !selector.matches_labels(of_template)) {
        let metadata = pods.field("metadata");
        metadata.field("labels").invalid(causes, "`selector` does not match template `labels`");
    }
    if let Some(old) = old {
        update(old, new, &spec, causes);
    }
}

/// The labels and the selector are as they were made.
fn generated(new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    if new["spec"]["manualSelector"] == true || !spec.field("selector").is_set() {
        return;
    }
    let (template, labels) = (spec.field("template"), &new["spec"]["template"]["metadata"]["labels"]);
    let metadata = template.field("metadata");
    let (name, uid) = (&new["metadata"]["name"], &new["metadata"]["uid"]);
    let mut made = serde_json::Map::new();
    for (keys, want) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            made.insert(key.into(), want.clone());
            let at = metadata.field("labels").with(labels);
            match &labels[key] {
                Value::Null => at.key(key).missing(causes, &format!("must be '{}'", want.as_str().unwrap_or_default())),
                has if has != want => at.key(key).invalid(causes, &format!("must be '{}'", want.as_str().unwrap_or_default())),
                _ => {}
            }
        }
    }
    let selector = spec.field("selector");
    if Selector::from_object(selector.value).is_ok_and(|selector| !selector.matches_labels(&Value::Object(made))) {
        selector.invalid(causes, "`selector` not auto-generated");
    }
}

/// Rules between completion mode, counts and policies.
fn modes(new: &Value, root: &At<'_, '_>, causes: &mut Causes) {
    let spec = root.field("spec");
    let mode = spec.field("completionMode");
    mode.one_of(causes, &["NonIndexed", "Indexed"]);
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let (per_index, failed_indexes) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    if failed_indexes.is_set() && !per_index.is_set() {
        per_index.missing(causes, "when maxFailedIndexes is specified");
    }
    if mode.text() == "Indexed" {
        completions.required(causes, "when completion mode is Indexed");
        if parallelism.int().is_some_and(|n| n > 100_000) {
            parallelism.invalid(causes, "must be less than or equal to 100000 when completion mode is Indexed");
        }
        if failed_indexes.int().zip(completions.int()).is_some_and(|(failed, all)| failed > all) {
            failed_indexes.invalid(causes, "must be less than or equal to completions");
        }
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(last) = completions.int().filter(|n| *n > 0) {
            let host = format!("{name}-{}", last - 1);
            if !names::dns_label(&host).is_empty() {
                let metadata = root.field("metadata");
                metadata.field("name").invalid(causes, &format!("will not able to create pod with invalid DNS label: {host}"));
            }
        }
    } else {
        for at in [&per_index, &failed_indexes] {
            if at.is_set() {
                at.invalid(causes, "requires indexed completion mode");
            }
        }
        let policy = spec.field("successPolicy");
        if policy.is_set() {
            policy.invalid(causes, "requires indexed completion mode");
        }
    }
    let supported: &[&str] = if spec.field("podFailurePolicy").is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.field("podReplacementPolicy").one_of(causes, supported);
    let managed = spec.field("managedBy");
    if managed.is_set() && managed.text().split_once('/').is_none_or(|(domain, path)| !names::dns_subdomain(domain).is_empty() || path.is_empty()) {
        managed.invalid(causes, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
}

fn update(old: &Value, new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let before = &old["spec"];
    let completions = spec.field("completions");
    if new["spec"]["completionMode"] != "Indexed" {
        completions.immutable(causes, &before["completions"]);
    } else if completions.is_set() && completions.value != &before["completions"] && new["spec"]["completions"] != new["spec"]["parallelism"] {
        completions.invalid(causes, "can only be modified in tandem with spec.parallelism");
    }
    spec.field("selector").immutable(causes, &before["selector"]);
    // A suspended job that has not begun may still be told where to run.
    let waiting = before["suspend"] == true && old["status"]["startTime"].is_null();
    let mut allowed = before["template"].clone();
    if waiting {
        let now = &new["spec"]["template"];
        for (part, names) in [("metadata", &["labels", "annotations"][..]), ("spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"])]
        {
            for name in names {
                allowed[part][*name] = now[part][*name].clone();
            }
        }
        prune_nulls(&mut allowed);
    }
    spec.field("template").immutable(causes, &allowed);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.field(name).immutable(causes, &before[name]);
    }
}

fn prune_nulls(template: &mut Value) {
    for part in ["metadata", "spec"] {
        if let Some(map) = template.get_mut(part).and_then(Value::as_object_mut) {
            map.retain(|_, value| !value.is_null());
        }
    }
}

/// A job as tests begin with it.
#[cfg(test)]
fn sample() -> Value {
    let mut job = serde_json::json!({"metadata": {"name": "pi", "uid": "u1", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"completions": 2, "parallelism": 1, "backoffLimit": 6,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "pi", "image": "pi:1"}]}}}, "status": {}});
    generate_selector(&mut job);
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(old: Option<&Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = sample();
        change(&mut new);
        let mut causes = Vec::new();
        validate(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn the_selector_is_made_from_the_uid() {
        let job = sample();
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"],
            json!({"batch.kubernetes.io/controller-uid": "u1", "batch.kubernetes.io/job-name": "pi", "controller-uid": "u1", "job-name": "pi"})
        );
        assert_eq!(wrong(None, |_| {}), Vec::<String>::new());
    }

    #[test]
    fn rules() {
        assert_eq!(
            wrong(None, |job| job["spec"]["template"]["spec"]["restartPolicy"] = "Always".into()),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            wrong(None, |job| job["spec"]["backoffLimit"] = (-1).into()),
            ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            wrong(None, |job| job["spec"]["template"]["metadata"]["labels"]["job-name"] = "e".into()),
            ["spec.template.metadata.labels[job-name]: Invalid value: \"e\": must be 'pi'"]
        );
        assert_eq!(
            wrong(None, |job| {
                job["spec"]["completionMode"] = "Indexed".into();
                job["spec"]["completions"] = Value::Null;
            }),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
        let old = sample();
        assert_eq!(wrong(Some(&old), |job| job["spec"]["completions"] = 3.into()), ["spec.completions: Invalid value: 3: field is immutable"]);
        let wrong_template = wrong(Some(&old), |job| job["spec"]["template"]["spec"]["containers"][0]["image"] = "pi:2".into());
        assert!(
            wrong_template.len() == 1
                && wrong_template[0].starts_with("spec.template: Invalid value: {")
                && wrong_template[0].ends_with(": field is immutable"),
            "{wrong_template:?}"
        );
        let mut suspended = sample();
        suspended["spec"]["suspend"] = true.into();
        assert_eq!(wrong(Some(&suspended), |job| job["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"})), Vec::<String>::new());
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let golden = |status: Value| {
            let mut job = sample();
            job["status"] = status;
            let row = row(&job);
            assert_eq!(row.len(), HEADINGS.len());
            cells::golden(&row[..5], "2026-01-02T03:04:05Z")
        };
        assert_eq!(golden(json!({})), "pi | Running | 0/2 |  | 5s");
        assert_eq!(golden(json!({"startTime": "2026-01-02T03:04:01Z", "succeeded": 1})), "pi | Running | 1/2 | 4s | 5s");
        assert_eq!(
            golden(
                json!({"startTime": "2026-01-02T03:04:01Z", "completionTime": "2026-01-02T03:04:03Z", "succeeded": 2, "conditions": [{"type": "Complete", "status": "True"}]})
            ),
            "pi | Complete | 2/2 | 2s | 5s"
        );
        assert_eq!(golden(json!({"conditions": [{"type": "Failed", "status": "True"}]})), "pi | Failed | 0/2 |  | 5s");
        assert_eq!(golden(json!({"conditions": [{"type": "Suspended", "status": "True"}]})), "pi | Suspended | 0/2 |  | 5s");
    }
}
