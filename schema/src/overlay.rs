//! An apply configuration merged into an object without asking who manages what, as mutating admission policies do it (structured-merge-diff's `Merge`).
//!
//! Maps and structs are merged field by field, lists by their keys. What is atomic cannot be in a configuration: its writer would take away, unseen, what
//! others put there.

use crate::schema::Schema;
use crate::types::{Field, ListKind, Shape, Type};
use serde_json::{Map, Value};

impl Schema {
    /// The object with a configuration merged in.
    ///
    /// # Errors
    /// Fields that the kind has not, and parts that are atomic, in upstream's words.
    pub fn overlay(&self, object: &Value, config: &Value) -> Result<Value, String> {
        let mut merge = Merge::default();
        let merged = merge.fields(self.ty(), Some(object), config, "");
        if let Some(path) = merge.unknown.first() {
            return Err(format!("failed to convert patch object to typed object: {path}: field not declared in schema"));
        }
        if !merge.atomic.is_empty() {
            return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", merge.atomic.join(", ")));
        }
        Ok(merged)
    }
}

#[derive(Default)]
struct Merge {
    atomic: Vec<String>,
    unknown: Vec<String>,
}

impl Merge {
    fn fields(&mut self, ty: &Type, live: Option<&Value>, config: &Value, path: &str) -> Value {
        let Value::Object(config) = config else { return config.clone() };
        let mut merged = object(live);
        for (name, value) in config {
            let path = format!("{path}.{name}");
            match ty.field(name) {
                Some(field) => {
                    let value = self.field(field, merged.get(name), value, &path);
                    merged.insert(name.clone(), value);
                }
                None => self.unknown.push(path),
            }
        }
        Value::Object(merged)
    }

    fn field(&mut self, field: &Field, live: Option<&Value>, config: &Value, path: &str) -> Value {
        match (&field.shape, config) {
            (Shape::List(_, element), Value::Array(items)) => match field.list {
                ListKind::Map => self.keyed(field, element, live, items, path),
                ListKind::Set => {
                    let mut merged = live.and_then(Value::as_array).cloned().unwrap_or_default();
                    let fresh: Vec<&Value> = items.iter().filter(|item| !merged.contains(item)).collect();
                    merged.extend(fresh.into_iter().cloned());
                    Value::Array(merged)
                }
                ListKind::None | ListKind::Atomic => self.refuse(config, path),
            },
            (_, Value::Object(_)) if field.flags.atomic => self.refuse(config, path),
            (Shape::Struct(link), Value::Object(_)) if link.get().atomic && !field.flags.granular => self.refuse(config, path),
            (shape, config) => self.shape(shape, live, config, path),
        }
    }

    fn refuse(&mut self, config: &Value, path: &str) -> Value {
        self.atomic.push(path.to_string());
        config.clone()
    }

    fn shape(&mut self, shape: &Shape, live: Option<&Value>, config: &Value, path: &str) -> Value {
        match (shape, config) {
            (Shape::Struct(link), config) => self.fields(link.get(), live, config, path),
            (Shape::Map(_, element), Value::Object(entries)) => {
                let mut merged = object(live);
                for (name, value) in entries {
                    let value = self.shape(element, merged.get(name), value, &format!("{path}.{name}"));
                    merged.insert(name.clone(), value);
                }
                Value::Object(merged)
            }
            (_, config) => config.clone(),
        }
    }

    fn keyed(&mut self, field: &Field, element: &Shape, live: Option<&Value>, items: &[Value], path: &str) -> Value {
        let mut merged = live.and_then(Value::as_array).cloned().unwrap_or_default();
        let same = |one: &Value, other: &Value| field.keys.iter().all(|key| key_of(element, one, key) == key_of(element, other, key));
        for (at, item) in items.iter().enumerate() {
            let place = merged.iter().position(|have| same(have, item));
            let value = self.shape(element, place.and_then(|place| merged.get(place)), item, &format!("{path}[{at}]"));
            match place.and_then(|place| merged.get_mut(place)) {
                Some(have) => *have = value,
                None => merged.push(value),
            }
        }
        Value::Array(merged)
    }
}

/// The value of a key: what is not there is the default.
fn key_of(element: &Shape, item: &Value, key: &str) -> Value {
    match item.get(key) {
        Some(value) if !value.is_null() => value.clone(),
        _ => match element {
            Shape::Struct(link) => link
                .get()
                .field(key)
                .and_then(|field| field.default.as_deref())
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or(Value::Null),
            _ => Value::Null,
        },
    }
}

fn object(live: Option<&Value>) -> Map<String, Value> {
    live.and_then(Value::as_object).cloned().unwrap_or_default()
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
