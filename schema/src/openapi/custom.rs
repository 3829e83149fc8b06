//! Components of custom kinds: their definition's schema with what every object has, and in the older dialect without what its readers cannot take.

use super::Dialect;
use coracle_api::registry::Resource;
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// `com.example.v1.Foo`: the group backwards, version, kind.
pub(super) fn name(resource: &Resource, kind: &str) -> String {
    let group: Vec<&str> = resource.group.split('.').rev().collect();
    format!("{}.{}.{kind}", group.join("."), resource.version)
}

/// The kind itself, from its `openAPIV3Schema`.
pub(super) fn object(resource: &Resource, schema: Value, dialect: Dialect) -> Value {
    let mut component = schema;
    let bare = dialect == Dialect::V2 && component["x-kubernetes-preserve-unknown-fields"] == true;
    if bare {
        // With any property kubectl would take everything else for unknown.
        component = json!({"type": "object"});
    } else {
        adapt(&mut component, dialect);
        typed(&mut component, dialect);
    }
    extend(&mut component, resource, &resource.kind);
    component
}

/// Its list.
pub(super) fn list(resource: &Resource, dialect: Dialect) -> Value {
    let items = json!({
        "type": "array", "items": dialect.reference(&name(resource, &resource.kind)), "description": format!("The {} of the list.", resource.plural),
    });
    let mut component = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object", "required": ["items"], "properties": {"items": items},
    });
    component["properties"]["metadata"] = described(dialect, "ListMeta", "Metadata of the list.");
    own_type(&mut component);
    extend(&mut component, resource, &resource.list_kind);
    component
}

/// With what the fields are for that every kind has.
pub(super) fn in_words<'a>(component: &Value, description: impl Fn(&str) -> Option<&'a str>) -> Value {
    let mut component = component.clone();
    for field in ["apiVersion", "kind", "metadata"] {
        let words =
            component.pointer_mut(&format!("/properties/{field}")).filter(|property| property["description"].as_str().is_none_or(str::is_empty));
        if let (Some(property), Some(text)) = (words, description(field)) {
            property["description"] = text.into();
        }
    }
    component
}

fn extend(component: &mut Value, resource: &Resource, kind: &str) {
    component["x-kubernetes-group-version-kind"] = json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
    if !resource.selectable.is_empty() {
        let fields: Vec<Value> = resource.selectable.iter().map(|path| json!({ "fieldPath": path })).collect();
        component["x-kubernetes-selectable-fields"] = fields.into();
    }
}

/// A reference with a description of its own.
fn described(dialect: Dialect, ty: &str, description: &str) -> Value {
    let reference = dialect.reference(&format!("{META}.{ty}"));
    match dialect {
        Dialect::V2 => {
            let mut reference = reference;
            reference["description"] = description.into();
            reference
        }
        Dialect::V3 => json!({"allOf": [reference], "description": description}),
    }
}

fn own_type(component: &mut Value) {
    for field in ["apiVersion", "kind"] {
        component["properties"][field] = json!({"type": "string"});
    }
}

/// Type and metadata of an object; what they are for is said when the document is written.
fn typed(component: &mut Value, dialect: Dialect) {
    if !component["properties"].is_object() {
        component["properties"] = json!({});
    }
    own_type(component);
    component["properties"]["metadata"] = described(dialect, "ObjectMeta", "");
}

/// Everything below a schema, in the words of a dialect.
fn adapt(schema: &mut Value, dialect: Dialect) {
    let Value::Object(map) = schema else { return };
    if dialect == Dialect::V2 {
        older(map);
    } else if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        either(map);
    }
    for (_, property) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        adapt(property, dialect);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(field) {
            adapt(below, dialect);
        }
    }
    let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
    let embedded = flag("x-kubernetes-embedded-resource") && !(dialect == Dialect::V2 && flag("x-kubernetes-preserve-unknown-fields"));
    if embedded {
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(list) = required {
            for name in ["kind", "apiVersion"] {
                if !list.iter().any(|its| its == name) {
                    list.push(name.into());
                }
            }
        }
        typed(schema, dialect);
    }
}

/// A number or a text, said so that readers without the extension understand it.
fn either(map: &mut Map<String, Value>) {
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let first = map.get("allOf").and_then(|all| all.get(0)).map(|first| &first["anyOf"]);
    if map.get("anyOf") == Some(&pattern) || first == Some(&pattern) {
        return;
    }
    if map.contains_key("anyOf") {
        let all = map.entry("allOf").or_insert_with(|| json!([]));
        if let Value::Array(list) = all {
            list.insert(0, json!({ "anyOf": pattern }));
        }
    } else {
        map.insert("anyOf".into(), pattern);
    }
}

/// What readers of the older dialect cannot take: alternatives, null, and properties beside unknown ones.
fn older(map: &mut Map<String, Value>) {
    for field in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(field);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    let preserve = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if nullable || preserve {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (kind == "array" && !map.contains_key("items")) || (preserve && kind == "object") {
        map.remove("type");
    }
    let null = |schema: &Value| schema["nullable"] == true;
    if map.get("additionalProperties").is_some_and(null) {
        map.remove("required");
    }
    let nulls: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, schema)| null(schema))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| !nulls.iter().any(|null| name == null));
        if required.is_empty() {
            map.remove("required");
        }
    }
}
