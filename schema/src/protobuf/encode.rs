//! Writing Kubernetes' protobuf: canonical JSON values by the table's field numbers. What JSON leaves out is left out here too; a
//! proto2 reader takes an absent field for its zero.

use super::MAGIC;
use crate::facts;
use crate::types::{Embed, Field, Shape, Type};
use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::time;
use serde_json::{Map, Value};

/// The envelope with an object of type `ty` in it.
pub(crate) fn encode(ty: &Type, object: &Map<String, Value>) -> Vec<u8> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = MAGIC.to_vec();
    let mut type_meta = Vec::new();
    bytes(1, text("apiVersion").as_bytes(), &mut type_meta);
    bytes(2, text("kind").as_bytes(), &mut type_meta);
    bytes(1, &type_meta, &mut out);
    bytes(2, &message(ty, object), &mut out);
    // Go writes both, empty.
    bytes(3, b"", &mut out);
    bytes(4, b"", &mut out);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(field: u16, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3, out);
    varint(value, out);
}

fn bytes(field: u16, content: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn message(ty: &Type, map: &Map<String, Value>) -> Vec<u8> {
    level(ty, 0, map)
}

/// The fields that the struct itself (0) or one embedded in it declares, with the messages of those embedded in that.
fn level(ty: &Type, embed: u8, map: &Map<String, Value>) -> Vec<u8> {
    enum Part<'a> {
        Field(&'a Field),
        Embed(u8),
    }
    let own = ty.fields.iter().filter(|f| f.embed == embed && f.number > 0).map(|f| (f.number, Part::Field(f)));
    let deeper = |(at, e): (usize, &Embed)| (e.parent == embed && e.number > 0).then_some((e.number, Part::Embed(at as u8 + 1)));
    let mut parts: Vec<(u16, Part<'_>)> = own.chain(ty.embeds.iter().enumerate().filter_map(deeper)).collect();
    parts.sort_by_key(|part| part.0);
    let mut out = Vec::new();
    for (at, part) in parts {
        match part {
            Part::Embed(inner) => bytes(at, &level(ty, inner, map), &mut out),
            Part::Field(field) => {
                if let Some(value) = map.get(&*field.json).filter(|v| !v.is_null()) {
                    put(at, &field.shape, value, &mut out);
                }
            }
        }
    }
    out
}

fn put(field: u16, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        // A named list of strings is a message of its own with the list as field 1.
        (Shape::List(go, element), Value::Array(_)) if matches!(&**go, "ExtraValue" | "Verbs") => {
            let mut inner = Vec::new();
            put(1, &Shape::List("".into(), element.clone()), value, &mut inner);
            bytes(field, &inner, out);
        }
        (Shape::List(_, element), Value::Array(list)) => list.iter().for_each(|item| put(field, element, item, out)),
        (Shape::Map(_, element), Value::Object(map)) => {
            for (key, item) in map {
                let mut entry = Vec::new();
                bytes(1, key.as_bytes(), &mut entry);
                if item.is_null() {
                    // A zero time.
                    bytes(2, b"", &mut entry);
                }
                put(2, element, item, &mut entry);
                bytes(field, &entry, out);
            }
        }
        (Shape::Bool(_), Value::Bool(flag)) => number(field, u64::from(*flag), out),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int { .. }, Value::Number(n)) => number(field, n.as_i64().map_or_else(|| n.as_u64().unwrap_or_default(), |n| n as u64), out),
        (Shape::Float, Value::Number(n)) => {
            varint(u64::from(field) << 3 | 1, out);
            out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Shape::String(_), Value::String(text)) => bytes(field, text.as_bytes(), out),
        (Shape::Bytes, Value::String(text)) => bytes(field, &STANDARD.decode(text).unwrap_or_default(), out),
        (Shape::Quantity, Value::String(text)) => {
            let mut inner = Vec::new();
            bytes(1, text.as_bytes(), &mut inner);
            bytes(field, &inner, out);
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let mut inner = Vec::new();
            if let Ok(at) = time::parse(text) {
                // Seconds are rounded down and nanoseconds count up, also before 1970.
                let nanos = at.as_nanosecond();
                number(1, nanos.div_euclid(1_000_000_000) as i64 as u64, &mut inner);
                number(2, nanos.rem_euclid(1_000_000_000) as u64, &mut inner);
            }
            bytes(field, &inner, out);
        }
        (Shape::IntOrString, value) => {
            let mut inner = Vec::new();
            let text = value.as_str();
            number(1, u64::from(text.is_some()), &mut inner);
            number(2, value.as_i64().unwrap_or_default() as u64, &mut inner);
            bytes(3, text.unwrap_or_default().as_bytes(), &mut inner);
            bytes(field, &inner, out);
        }
        (Shape::Any(of), value) => bytes(field, &any(of, value), out),
        (Shape::Struct(link), Value::Object(map)) => bytes(field, &message(link.get(), map), out),
        // A canonical value fits its shape.
        _ => {}
    }
}

/// Untyped values travel as JSON text, but for the alternatives of JSON schemas, which are messages.
fn any(of: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let schema = |value: &Value| match (facts::named("apiextensions.v1.JSONSchemaProps"), value) {
        (Some(ty), Value::Object(map)) => message(&ty, map),
        _ => Vec::new(),
    };
    match (of, value) {
        ("JSONSchemaPropsOrBool", Value::Bool(flag)) => number(1, u64::from(*flag), &mut out),
        ("JSONSchemaPropsOrBool", value) => {
            number(1, 1, &mut out);
            bytes(2, &schema(value), &mut out);
        }
        ("JSONSchemaPropsOrArray", Value::Array(list)) => list.iter().for_each(|item| bytes(2, &schema(item), &mut out)),
        ("JSONSchemaPropsOrStringArray", Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).for_each(|item| bytes(2, item.as_bytes(), &mut out));
        }
        ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", value) => bytes(1, &schema(value), &mut out),
        (_, value) => bytes(1, value.to_string().as_bytes(), &mut out),
    }
    out
}
