//! From `JSONSchemaProps` to nodes (`schema.NewStructural`).

use super::{Additional, Bound, Checks, Kind, ListType, Node, pattern::Pattern, rules::Text};
use serde_json::{Map, Value};

/// What OpenAPI has and structural schemas do not.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// Reads one schema and all below it.
pub(super) fn node(schema: &Value) -> Result<Node, String> {
    let empty = Map::new();
    let map = schema.as_object().unwrap_or(&empty);
    for (field, word) in UNSUPPORTED {
        if map.contains_key(field) {
            return Err(format!("OpenAPIV3Schema '{word}' is not supported"));
        }
    }
    let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Err("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    let items = match map.get("items") {
        None => None,
        Some(Value::Array(_)) => return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".into()),
        Some(items) => Some(Box::new(node(items)?)),
    };
    let additional = match map.get("additionalProperties") {
        None => None,
        Some(Value::Bool(allowed)) => Some(Box::new(Additional::Allowed(*allowed))),
        Some(schema) => Some(Box::new(Additional::Schema(node(schema)?))),
    };
    let mut properties = Vec::new();
    for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        properties.push((name.as_str().into(), node(schema)?));
    }
    properties.sort_by(|(a, _): &(Box<str>, Node), (b, _)| a.cmp(b));
    let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    Ok(Node {
        kind: text("type").map(kind),
        nullable: flag("nullable"),
        default: map.get("default").filter(|value| !value.is_null()).map(|value| Box::new(value.clone())),
        properties: properties.into(),
        additional,
        items,
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        list: match text("x-kubernetes-list-type") {
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::None,
        },
        atomic: text("x-kubernetes-map-type") == Some("atomic"),
        keys: keys.into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect(),
        checks: checks(map)?,
        rules: map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten().map(Text::read).collect(),
    })
}

fn kind(word: &str) -> Kind {
    match word {
        "array" => Kind::Array,
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "object" => Kind::Object,
        "string" => Kind::String,
        _ => Kind::Other,
    }
}

/// None when there is nothing to check, as on most nodes.
fn checks(map: &Map<String, Value>) -> Result<Option<Box<Checks>>, String> {
    const FIELDS: [&str; 18] = [
        "format",
        "maximum",
        "minimum",
        "multipleOf",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxProperties",
        "minProperties",
        "required",
        "enum",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    if !FIELDS.iter().any(|field| map.contains_key(*field)) {
        return Ok(None);
    }
    let count = |name: &str| map.get(name).and_then(Value::as_i64);
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let bound = |name: &str, exclusive: &str| {
        map.get(name).and_then(Value::as_f64).map(|limit| Bound { limit, exclusive: map.get(exclusive) == Some(&Value::Bool(true)) })
    };
    let list = |name: &str| map.get(name).and_then(Value::as_array).into_iter().flatten();
    let nodes = |name: &str| list(name).map(node).collect::<Result<Vec<Node>, String>>();
    Ok(Some(Box::new(Checks {
        format: text("format").map(Box::from),
        maximum: bound("maximum", "exclusiveMaximum"),
        minimum: bound("minimum", "exclusiveMinimum"),
        multiple_of: map.get("multipleOf").and_then(Value::as_number).cloned(),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text("pattern").map(Pattern::new),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: map.get("uniqueItems") == Some(&Value::Bool(true)),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: list("required").filter_map(Value::as_str).map(Box::from).collect(),
        choices: list("enum").cloned().collect(),
        all_of: nodes("allOf")?.into(),
        any_of: nodes("anyOf")?.into(),
        one_of: nodes("oneOf")?.into(),
        not: map.get("not").map(node).transpose()?.map(Box::new),
    })))
}
