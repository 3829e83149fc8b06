//! Job: the selector and labels by which it knows its pods, made once; what may never change; its row.

mod policies;
pub(super) mod spec;
mod status;

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, SELECTOR, count, is_true},
    pod::warnings,
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
        match (cx.subresource(), old) {
            ("status", Some(old)) => status::validate(old, new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if !cx.subresource().is_empty() {
            return Vec::new();
        }
        let mut said = warnings::of_workload(old, new);
        said.extend(spec::warnings(old.map(|old| &old["spec"]), &At::root(new).field("spec")));
        said
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
    spec::validate(&spec, causes);
    let selector = spec.field("selector");
    if selector.is_set() {
        labels::selector(&selector, causes);
    } else {
        selector.missing(causes, "");
    }
    let of_template = &new["spec"]["template"]["metadata"]["labels"];
    if Selector::from_object(selector.value).is_ok_and(|selector| !selector.matches_labels(of_template)) {
        let pods = spec.field("template");
        let metadata = pods.field("metadata");
        metadata.field("labels").invalid(causes, "`selector` does not match template `labels`");
    }
    hostnames(new, &root, causes);
    if let Some(old) = old {
        spec::update(old, new, &spec, causes);
    }
}

/// The pods of an indexed Job have names in DNS.
fn hostnames(new: &Value, root: &At<'_, '_>, causes: &mut Causes) {
    let last = new["spec"]["completions"].as_i64().filter(|count| *count > 0 && new["spec"]["completionMode"] == "Indexed");
    let Some(last) = last else { return };
    let host = format!("{}-{}", new["metadata"]["name"].as_str().unwrap_or_default(), last - 1);
    if !names::dns_label(&host).is_empty() {
        let metadata = root.field("metadata");
        metadata.field("name").invalid(causes, &format!("will not able to create pod with invalid DNS label: {host}"));
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
        let image = |job: &mut Value| job["spec"]["template"]["spec"]["containers"][0]["image"] = "pi:2".into();
        let wrong_template = wrong(Some(&old), image);
        assert!(
            wrong_template.len() == 1
                && wrong_template[0].starts_with("spec.template: Invalid value: {")
                && wrong_template[0].ends_with(": field is immutable"),
            "{wrong_template:?}"
        );
        let mut suspended = sample();
        suspended["spec"]["suspend"] = true.into();
        let elsewhere = |job: &mut Value| {
            let pod = &mut job["spec"]["template"]["spec"];
            pod["nodeSelector"] = json!({"a": "b"});
            pod["affinity"]["nodeAffinity"] = json!({});
            pod["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
            job["spec"]["template"]["metadata"]["annotations"] = json!({"a": "b"});
        };
        assert_eq!(wrong(Some(&suspended), elsewhere), Vec::<String>::new());
        assert_eq!(wrong(Some(&suspended), image).len(), 1);
        let anti = |job: &mut Value| job["spec"]["template"]["spec"]["affinity"] = json!({"podAntiAffinity": {}});
        assert_eq!(wrong(Some(&suspended), anti).len(), 1, "of affinity only that to nodes");
        suspended["status"] = json!({"active": 1, "startTime": "2026-01-02T03:04:00Z", "conditions": [{"type": "Suspended", "status": "True"}]});
        assert_eq!(wrong(Some(&suspended), elsewhere).len(), 1, "it still has a pod");
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
