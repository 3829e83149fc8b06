//! The definitions of an OpenAPI v2 document in protobuf (`openapi.v2.Document` of gnostic), as kubectl asks for them before it validates what no server validates for
//! it: a `List` of objects.
//!
//! Definitions alone: nobody reads the paths in this form. One definition after the other is read and written, so no tree of the whole is ever in memory.

use crate::protobuf::{bytes, number};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;

/// Writes the definitions of a document that was written as JSON.
///
/// # Errors
/// It is not such a document.
pub(crate) fn encode(document: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let Document { swagger, info, definitions } = serde_json::from_slice(document)?;
    let mut out = Vec::with_capacity(definitions.0.len() + 64);
    text(1, &swagger, &mut out);
    let mut about = Vec::new();
    text(1, &info.title, &mut about);
    text(2, &info.version, &mut about);
    bytes(2, &about, &mut out);
    bytes(9, &definitions.0, &mut out);
    Ok(out)
}

#[derive(Deserialize)]
struct Document {
    swagger: String,
    info: Info,
    definitions: Definitions,
}

#[derive(Deserialize)]
struct Info {
    title: String,
    version: String,
}

/// Already written.
struct Definitions(Vec<u8>);

impl<'de> Deserialize<'de> for Definitions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Definitions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("definitions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Definitions, A::Error> {
                let mut out = Vec::new();
                while let Some((name, schema)) = map.next_entry::<String, Map<String, Value>>()? {
                    named(1, &name, &self::schema(&schema), &mut out);
                }
                Ok(Definitions(out))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// What is empty is left out (proto3).
fn text(field: u16, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        bytes(field, text.as_bytes(), out);
    }
}

/// An entry of a map, in order: name and value.
fn named(field: u16, name: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut entry = Vec::new();
    text(1, name, &mut entry);
    bytes(2, value, &mut entry);
    bytes(field, &entry, out);
}

/// Any value, as YAML, which JSON is.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(2, &value.to_string(), &mut out);
    out
}

fn schema(schema: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    let of = |value: &Value| value.as_object().map(self::schema).unwrap_or_default();
    for (field, name) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description"), (13, "pattern")] {
        text(field, schema.get(name).and_then(Value::as_str).unwrap_or_default(), &mut out);
    }
    if let Some(default) = schema.get("default") {
        bytes(5, &any(default), &mut out);
    }
    for (field, name) in [(11, "maxLength"), (12, "minLength"), (14, "maxItems"), (15, "minItems"), (17, "maxProperties"), (18, "minProperties")] {
        if let Some(count) = schema.get(name).and_then(Value::as_u64).filter(|count| *count > 0) {
            number(field, count, &mut out);
        }
    }
    for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        bytes(19, required.as_bytes(), &mut out);
    }
    for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
        bytes(20, &any(value), &mut out);
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Vec::new();
            number(2, u64::from(*allowed), &mut item);
            bytes(21, &item, &mut out);
        }
        Some(additional) => {
            let mut item = Vec::new();
            bytes(1, &of(additional), &mut item);
            bytes(21, &item, &mut out);
        }
        None => {}
    }
    if let Some(kind) = schema.get("type").and_then(Value::as_str) {
        let mut item = Vec::new();
        text(1, kind, &mut item);
        bytes(22, &item, &mut out);
    }
    if let Some(items) = schema.get("items") {
        let mut item = Vec::new();
        bytes(1, &of(items), &mut item);
        bytes(23, &item, &mut out);
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        bytes(24, &of(part), &mut out);
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let mut all = Vec::new();
        properties.iter().for_each(|(name, property)| named(1, name, &of(property), &mut all));
        bytes(25, &all, &mut out);
    }
    for (name, value) in schema.iter().filter(|(name, _)| name.starts_with("x-")) {
        named(31, name, &any(value), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_is_written_by_its_field_numbers() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "T", "version": "v"}, "paths": {"/x": {}},
            "definitions": {"a": {"type": "object", "properties": {"b": {"$ref": "r"}}, "x-k": [1]}},
        });
        let schema = [
            // type: TypeItem { "object" }
            &b"\xb2\x01\x08\x0a\x06object"[..],
            // properties: { "b": { _ref: "r" } }
            b"\xca\x01\x0a\x0a\x08\x0a\x01b\x12\x03\x0a\x01r",
            // vendor_extension: { "x-k": { yaml: "[1]" } }
            b"\xfa\x01\x0c\x0a\x03x-k\x12\x05\x12\x03[1]",
        ]
        .concat();
        let entry = [&b"\x0a\x01a\x12"[..], &[schema.len() as u8], &schema].concat();
        let expected = [&b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x01v\x4a"[..], &[entry.len() as u8 + 2], b"\x0a", &[entry.len() as u8], &entry].concat();
        assert_eq!(encode(document.to_string().as_bytes()).unwrap(), expected);
        assert!(encode(b"{}").is_err());
    }
}
