//! RuntimeClass: a pod gets what its class costs and where its class can run.

use super::{Plugin, lookup};
use crate::resources::Cx;
use coracle_api::status::Status;
use serde_json::Value;

/// The plugin.
pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_some() || !lookup::is_pod(cx) {
            return Ok(());
        }
        let class = match new["spec"]["runtimeClassName"].as_str() {
            None => None,
            Some(name) => match lookup::object(cx, "runtimeclasses.node.k8s.io", "", name)? {
                Some(class) => Some(class),
                None => return Err(lookup::forbidden(cx, new, &format!("pod rejected: RuntimeClass {name:?} not found"))),
            },
        };
        admit(new, class.as_ref()).map_err(|why| lookup::forbidden(cx, new, &why))
    }
}

fn admit(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let overhead = class.map_or(&Value::Null, |class| &class["overhead"]["podFixed"]);
    let spec = &mut pod["spec"];
    if overhead.is_null() {
        if !spec["overhead"].is_null() {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
    } else {
        if !spec["overhead"].is_null() && spec["overhead"] != *overhead {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        spec["overhead"] = overhead.clone();
    }
    let scheduling = class.map_or(&Value::Null, |class| &class["scheduling"]);
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &spec["nodeSelector"][key.as_str()];
        if !own.is_null() && own != value {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            ));
        }
        spec["nodeSelector"][key.as_str()] = value.clone();
    }
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        if let Some(own) = lookup::list(spec, "tolerations")
            && !own.contains(toleration)
        {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_adds_its_cost_and_its_place() {
        let class = json!({"overhead": {"podFixed": {"memory": "8Mi"}}, "scheduling": {"nodeSelector": {"wasm": "yes"}, "tolerations": [{"key": "wasm", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {}});
        admit(&mut pod, Some(&class)).expect("admitted");
        assert_eq!(
            pod["spec"],
            json!({"overhead": {"memory": "8Mi"}, "nodeSelector": {"wasm": "yes"}, "tolerations": [{"key": "wasm", "operator": "Exists"}]})
        );
        // Again changes nothing.
        let before = pod.clone();
        admit(&mut pod, Some(&class)).expect("admitted");
        assert_eq!(pod, before);
        let mut pod = json!({"spec": {"nodeSelector": {"wasm": "no"}}});
        assert_eq!(
            admit(&mut pod, Some(&class)).expect_err("conflict"),
            "conflict: runtimeClass.scheduling.nodeSelector[wasm] = yes; pod.spec.nodeSelector[wasm] = no"
        );
        assert!(admit(&mut json!({"spec": {"overhead": {"cpu": "1"}}}), None).is_err());
        assert!(admit(&mut json!({"spec": {}}), None).is_ok());
    }
}
