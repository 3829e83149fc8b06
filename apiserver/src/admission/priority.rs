//! Priority: a pod's class becomes its number, and only one class is the default.

use super::{Plugin, lookup};
use crate::resources::Cx;
use coracle_api::status::Status;
use coracle_store::Object;
use serde_json::Value;

/// The plugin.
pub struct Priority;

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if !lookup::is_pod(cx) {
            return Ok(());
        }
        if let Some(old) = old {
            keep(old, new);
            return Ok(());
        }
        let class = match new["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => match lookup::object(cx, CLASSES, "", name)? {
                Some(class) => Some(class),
                None => return Err(lookup::forbidden(cx, new, &format!("no PriorityClass with name {name} was found"))),
            },
            None => default_class(cx),
        };
        resolve(new, class.as_ref()).map_err(|why| lookup::forbidden(cx, new, &why))
    }
    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let Some(new) = new.filter(|new| new["globalDefault"] == true && cx.row().id() == CLASSES) else { return Ok(()) };
        match default_class(cx) {
            Some(class) if class["metadata"]["name"] != new["metadata"]["name"] => {
                let name = class["metadata"]["name"].as_str().unwrap_or_default();
                Err(lookup::forbidden(cx, new, &format!("PriorityClass {name} is already marked as default. Only one default can exist")))
            }
            _ => Ok(()),
        }
    }
}

/// The class for pods that name none; the lowest, should a race have left several.
fn default_class(cx: &Cx<'_>) -> Option<Value> {
    // Every pod without a class comes by here: most classes need not be read.
    let may_be = |object: &std::sync::Arc<Object>| std::str::from_utf8(&object.json).is_ok_and(|text| text.contains("\"globalDefault\":true"));
    let read = |object: &std::sync::Arc<Object>| serde_json::from_slice::<Value>(&object.json).ok();
    cx.snapshot
        .range(CLASSES, None, None)
        .filter(|object| may_be(object))
        .filter_map(read)
        .filter(|class| class["globalDefault"] == true)
        .min_by_key(|class| class["value"].as_i64().unwrap_or_default())
}

/// What was resolved on create stays when a client leaves it out.
fn keep(old: &Value, new: &mut Value) {
    for name in ["priority", "preemptionPolicy"] {
        if new["spec"][name].is_null() && !old["spec"][name].is_null() {
            new["spec"][name] = old["spec"][name].clone();
        }
    }
}

fn resolve(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let spec = &mut pod["spec"];
    let priority = class.map_or(0, |class| class["value"].as_i64().unwrap_or_default());
    let policy = match class {
        Some(class) => class["preemptionPolicy"].as_str().map(str::to_string),
        None => Some("PreemptLowerPriority".to_string()),
    };
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    spec["priority"] = priority.into();
    if let Some(class) = class {
        spec["priorityClassName"] = class["metadata"]["name"].clone();
    }
    if let Some(policy) = policy {
        if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            return Err(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ));
        }
        spec["preemptionPolicy"] = policy.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_becomes_a_number() {
        let mut pod = json!({"spec": {}});
        resolve(&mut pod, None).expect("no class");
        assert_eq!(pod["spec"], json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        let high = json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"});
        let mut pod = json!({"spec": {"priorityClassName": "high"}});
        resolve(&mut pod, Some(&high)).expect("class");
        assert_eq!(pod["spec"], json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"}));
        let mut pod = json!({"spec": {"priority": 8}});
        assert!(
            resolve(&mut pod, Some(&high)).expect_err("conflict").starts_with("the integer value of priority (8) must not be provided in pod spec")
        );
    }

    #[test]
    fn an_update_keeps_what_was_resolved() {
        let old = json!({"spec": {"priority": 7, "preemptionPolicy": "Never"}});
        let mut new = json!({"spec": {}});
        keep(&old, &mut new);
        assert_eq!(new, old);
    }
}
