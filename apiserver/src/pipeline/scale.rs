//! `autoscaling/v1 Scale`, derived from the paths in the row.

use super::{metadata, object};
use coracle_api::{
    registry::Resource,
    selector::Selector,
    status::{Cause, Status},
};
use coracle_schema::managed;
use serde_json::{Value, json};

/// The scale of an object.
pub fn view(row: &Resource, object: &Value) -> Value {
    let Some(paths) = &row.scale else { return Value::Null };
    let meta = &object["metadata"];
    let mut metadata = json!({"name": meta["name"]});
    for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    let count = |path: &str| object::at(object, path).as_i64().unwrap_or(0);
    if let Some(list) = managed::to_scale(object, &paths.spec) {
        metadata["managedFields"] = list;
    }
    let mut status = json!({"replicas": count(&paths.status)});
    let selector = paths.selector.as_ref().map(|path| match object::at(object, path) {
        Value::String(text) => text.clone(),
        // A plain map of labels, as ReplicationControllers have it.
        Value::Object(map) if !map.is_empty() && map.values().all(Value::is_string) => {
            Selector::from_object(&json!({"matchLabels": map})).map(|selector| selector.to_string()).unwrap_or_default()
        }
        other => Selector::from_object(other).map(|selector| selector.to_string()).unwrap_or_default(),
    });
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        status["selector"] = Value::String(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {"replicas": count(&paths.spec)}, "status": status})
}

/// The object with a sent scale's count in it, the scale's preconditions, and its managers where it names some.
pub fn merge(row: &Resource, old: &Value, scale: &Value) -> Result<Value, Status> {
    let Some(paths) = &row.scale else { return Err(Status::method_not_allowed()) };
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "spec.replicas".into() };
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::invalid("autoscaling", "Scale", name, vec![cause]));
    }
    let mut new = old.clone();
    object::set(&mut new, &paths.spec, json!(replicas));
    let metadata = metadata::of(&mut new);
    for field in ["uid", "resourceVersion"] {
        match &scale["metadata"][field] {
            Value::String(text) if !text.is_empty() => metadata.insert(field.into(), Value::String(text.clone())),
            _ => metadata.remove(field),
        };
    }
    match managed::from_scale(old, scale, &row.api_version(), &paths.spec) {
        Some(list) => metadata.insert("managedFields".into(), list),
        None => metadata.remove("managedFields"),
    };
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_seen_and_merged() {
        let row = coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == "deployments").expect("row");
        let object = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 2}});
        let scale = view(&row, &object);
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=x"}));
        let controller = json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "x", "tier": "y"}}});
        assert_eq!(view(&row, &controller)["status"]["selector"], "app=x,tier=y");
        let merged = merge(&row, &object, &json!({"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 5}})).expect("merges");
        assert_eq!(merged["spec"]["replicas"], 5);
        assert_eq!(merged["metadata"]["resourceVersion"], "7");
        assert_eq!(merge(&row, &object, &json!({"spec": {"replicas": -1}})).expect_err("negative").code, 422);
    }
}
