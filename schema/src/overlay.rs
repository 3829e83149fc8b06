//! An apply configuration merged into an object without asking who manages what, as mutating admission policies do it
//! (`policy/mutating/patch.ApplyStructuredMergeDiff`).
//!
//! What is atomic cannot be in a configuration: its writer would take away, unseen, what others put there.

use crate::managed::{View, check, merge};
use crate::schema::Schema;
use serde_json::Value;

impl Schema {
    /// The object with a configuration merged in.
    ///
    /// # Errors
    /// Fields that the kind has not, and parts that are atomic, in upstream's words.
    pub fn overlay(&self, object: &Value, config: &Value) -> Result<Value, String> {
        if let Some(why) = check(self.view(), config) {
            return Err(format!("failed to convert patch object to typed object: {why}"));
        }
        let mut atomic = Vec::new();
        find_atomic(self.view(), config, &mut String::new(), &mut atomic);
        if !atomic.is_empty() {
            return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", atomic.join(", ")));
        }
        merge(self.view(), object, config).map_err(|why| format!("failed to merge patch: {why}"))
    }
}

/// Places of a value that are merged as one.
fn find_atomic(view: View<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let (rules, length) = (view.rules(), path.len());
    match (value, &rules.map, &rules.list) {
        (Value::Object(map), Some(rules), _) => {
            if rules.atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                if let Some(field) = rules.field(name) {
                    path.push('.');
                    path.push_str(name);
                    find_atomic(field, value, path, found);
                    path.truncate(length);
                }
            }
        }
        (Value::Array(list), _, Some(rules)) => {
            if rules.atomic {
                found.push(path.clone());
            }
            for (at, item) in list.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                find_atomic(rules.element, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::Schemas;
    use serde_json::json;

    #[test]
    fn maps_and_keyed_lists_are_merged() {
        let schema = Schemas::builtin().get("apps", "v1", "Deployment").expect("known");
        let live =
            json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let config = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "E", "value": "v"}]}, {"name": "d", "image": "j"}]}}}});
        let merged = schema.overlay(&live, &config).expect("merges");
        assert_eq!(
            merged,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 3, "template": {"spec": {"containers": [
                {"name": "c", "image": "i", "env": [{"name": "E", "value": "v"}]}, {"name": "d", "image": "j"}]}}}})
        );
    }

    #[test]
    fn ports_are_told_apart_by_their_protocol_too() {
        let schema = Schemas::builtin().get("", "v1", "Pod").expect("known");
        let ports = |ports: serde_json::Value| json!({"spec": {"containers": [{"name": "c", "ports": ports}]}});
        let live = ports(json!([{"containerPort": 53, "protocol": "TCP"}]));
        let merged =
            schema.overlay(&live, &ports(json!([{"containerPort": 53, "name": "x"}, {"containerPort": 53, "protocol": "UDP"}]))).expect("merges");
        assert_eq!(
            merged["spec"]["containers"][0]["ports"],
            json!([{"containerPort": 53, "protocol": "TCP", "name": "x"}, {"containerPort": 53, "protocol": "UDP"}])
        );
    }

    #[test]
    fn atomic_parts_and_unknown_fields_are_refused() {
        let schema = Schemas::builtin().get("apps", "v1", "Deployment").expect("known");
        let refuse = |config| schema.overlay(&json!({}), &config).expect_err("refused");
        assert_eq!(
            refuse(json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
        );
        assert_eq!(refuse(json!({"spec": {"nope": 1}})), "failed to convert patch object to typed object: .spec.nope: field not declared in schema");
    }
}
