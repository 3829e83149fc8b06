//! The pods of a Job.

use super::{TRACKING, pass::New};
use coracle_apiserver::view::{Owner, pod::from_template};
use serde_json::{Value, json};

/// Label and annotation that hold a pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Annotation that counts the failures of a pod's index before it, for a limit per index.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation that counts those that a policy ignores.
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Most bytes of a generated name before its random end.
const STEM: usize = 58;

/// A pod, with its completion index if the Job is indexed.
pub fn pod(template: &Value, namespace: &str, owner: &Owner<'_>, new: New) -> Value {
    let stem = match new.index {
        Some(index) => {
            let end = format!("-{index}-");
            format!("{}{end}", owner.name.get(..STEM - end.len()).unwrap_or(&owner.name))
        }
        None => format!("{}-", owner.name),
    };
    let mut pod = from_template(template, namespace, &stem, owner);
    let mut finalizers: Vec<Value> = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(TRACKING));
    pod["metadata"]["finalizers"] = Value::Array(finalizers);
    let Some(index) = new.index else { return pod };
    let text = index.to_string();
    for place in ["labels", "annotations"] {
        if !pod["metadata"][place].is_object() {
            pod["metadata"][place] = json!({});
        }
        pod["metadata"][place][INDEX] = json!(text);
    }
    if let Some((failures, ignored)) = new.failures {
        pod["metadata"]["annotations"][FAILURES] = json!(failures.to_string());
        if ignored > 0 {
            pod["metadata"]["annotations"][IGNORED] = json!(ignored.to_string());
        }
    }
    pod["spec"]["hostname"] = json!(format!("{}-{index}", owner.name));
    let variable = json!({ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{INDEX}']") } } });
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if !container["env"].is_array() {
                container["env"] = json!([]);
            }
            let set = container["env"].as_array().is_some_and(|env| env.iter().any(|v| v["name"] == "JOB_COMPLETION_INDEX"));
            if let (false, Some(env)) = (set, container["env"].as_array_mut()) {
                env.push(variable.clone());
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexed_pods_know_their_number() {
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c" }] } });
        let owner = Owner { name: "j".into(), uid: "u".into(), ..Owner::default() };
        let plain = pod(&template, "n", &owner, New::default());
        assert_eq!((&plain["metadata"]["generateName"], &plain["metadata"]["finalizers"][0]), (&json!("j-"), &json!(TRACKING)));
        assert_eq!(plain["spec"]["containers"][0].get("env"), None);
        let third = pod(&template, "n", &owner, New { index: Some(3), failures: Some((2, 1)) });
        assert_eq!(third["metadata"]["generateName"], "j-3-");
        assert_eq!(third["metadata"]["labels"], json!({ "a": "b", INDEX: "3" }));
        assert_eq!(third["metadata"]["annotations"], json!({ INDEX: "3", FAILURES: "2", IGNORED: "1" }));
        let long = Owner { name: "j".repeat(63).into(), ..Owner::default() };
        let name = pod(&template, "n", &long, New { index: Some(12), failures: None })["metadata"]["generateName"].clone();
        assert_eq!(name, format!("{}-12-", "j".repeat(54)));
        assert_eq!(third["spec"]["hostname"], "j-3");
        assert_eq!(third["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    }
}
