//! The pods of a Job.

use super::TRACKING;
use crate::controllers::{pod::from_template, view::Owner};
use serde_json::{Value, json};

/// Label and annotation that hold a pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A pod, with its completion index if the Job is indexed.
pub fn pod(template: &Value, namespace: &str, owner: &Owner<'_>, index: Option<i64>) -> Value {
    let stem = match index {
        Some(index) => format!("{}-{index}-", owner.name),
        None => format!("{}-", owner.name),
    };
    let mut pod = from_template(template, namespace, &stem, owner);
    let mut finalizers: Vec<Value> = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(TRACKING));
    pod["metadata"]["finalizers"] = Value::Array(finalizers);
    let Some(index) = index else { return pod };
    let text = index.to_string();
    for place in ["labels", "annotations"] {
        if !pod["metadata"][place].is_object() {
            pod["metadata"][place] = json!({});
        }
        pod["metadata"][place][INDEX] = json!(text);
    }
    if pod["spec"].get("hostname").is_none() {
        pod["spec"]["hostname"] = json!(format!("{}-{index}", owner.name));
    }
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
        let plain = pod(&template, "n", &owner, None);
        assert_eq!((&plain["metadata"]["generateName"], &plain["metadata"]["finalizers"][0]), (&json!("j-"), &json!(TRACKING)));
        assert_eq!(plain["spec"]["containers"][0].get("env"), None);
        let third = pod(&template, "n", &owner, Some(3));
        assert_eq!(third["metadata"]["generateName"], "j-3-");
        assert_eq!(third["metadata"]["labels"], json!({ "a": "b", INDEX: "3" }));
        assert_eq!(third["metadata"]["annotations"][INDEX], "3");
        assert_eq!(third["spec"]["hostname"], "j-3");
        assert_eq!(third["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    }
}
