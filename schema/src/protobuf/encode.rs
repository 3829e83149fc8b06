//! Writing Kubernetes' protobuf: canonical JSON values by the table's field numbers, byte for byte what Go's generated code writes.
//!
//! A value that is no pointer in Go is on the wire even when it is zero, and so is a struct; lists, maps and pointers are there when
//! they are set. Fields come by number, maps by key.

use super::layout::{Layout, Part};
use crate::facts;
use crate::types::{Shape, Type};
use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::time;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Appends the fields of an object of type `ty`.
pub(super) fn object(ty: &Type, map: &Map<String, Value>, out: &mut Vec<u8>) {
    message(ty, ty.layout(), map, out);
}

/// A number of seven bits a byte, the lowest first.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of a number.
pub(crate) fn number(field: u16, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3, out);
    varint(value, out);
}

fn double(field: u16, value: f64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of bytes: a string, or a message that is at hand.
pub(crate) fn bytes(field: u16, content: &[u8], out: &mut Vec<u8>) {
    length(field, content.len(), out);
    out.extend_from_slice(content);
}

/// What precedes a field of so many bytes.
pub(super) fn length(field: u16, bytes: usize, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 2, out);
    varint(bytes as u64, out);
}

/// A message that is written in place: its length, mostly one byte, is known afterwards.
pub(super) fn nested(field: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    varint(u64::from(field) << 3 | 2, out);
    let at = out.len();
    out.push(0);
    write(out);
    let size = out.len() - at - 1;
    match u8::try_from(size) {
        Ok(size) if size < 0x80 => out[at] = size,
        _ => {
            let mut length = Vec::with_capacity(5);
            varint(size as u64, &mut length);
            out.splice(at..=at, length);
        }
    }
}

fn message(ty: &Type, layout: &Layout, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for (number, part) in layout.parts() {
        match part {
            Part::Embedded(inner) => nested(number, out, |out| message(ty, inner, map, out)),
            Part::Field(at) => {
                let Some(field) = ty.fields.get(*at) else { continue };
                match map.get(&*field.json).filter(|value| !value.is_null()) {
                    Some(value) => put(number, &field.shape, value, out),
                    None if !field.flags.pointer => zero(number, &field.shape, out),
                    None => {}
                }
            }
        }
    }
}

/// A value that nobody set and that is no pointer.
fn zero(field: u16, shape: &Shape, out: &mut Vec<u8>) {
    match shape {
        Shape::Bool(_) | Shape::Int { .. } => number(field, 0, out),
        Shape::Float => double(field, 0.0, out),
        Shape::String(_) | Shape::Time | Shape::MicroTime => length(field, 0, out),
        Shape::Quantity => quantity(field, "0", out),
        Shape::Duration => nested(field, out, |out| number(1, 0, out)),
        Shape::IntOrString => int_or_string(field, &Value::from(0), out),
        Shape::Struct(link) => nested(field, out, |out| object(link.get(), &NOTHING, out)),
        Shape::Any(of) if of == "RawExtension" => length(field, 0, out),
        Shape::Any(_) | Shape::Bytes | Shape::List(..) | Shape::Map(..) => {}
    }
}

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

fn put(field: u16, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::List(_, element), Value::Array(list)) if shape.is_wrapped() => {
            nested(field, out, |out| list.iter().for_each(|item| put(1, element, item, out)));
        }
        (Shape::List(_, element), Value::Array(list)) => list.iter().for_each(|item| put(field, element, item, out)),
        (Shape::Map(_, element), Value::Object(map)) => entries(field, element, map, out),
        (Shape::Bool(_), Value::Bool(flag)) => number(field, u64::from(*flag), out),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int { .. }, Value::Number(n)) => number(field, n.as_i64().map_or_else(|| n.as_u64().unwrap_or_default(), |n| n as u64), out),
        (Shape::Float, Value::Number(n)) => double(field, n.as_f64().unwrap_or_default(), out),
        (Shape::String(_), Value::String(text)) => bytes(field, text.as_bytes(), out),
        (Shape::Bytes, Value::String(text)) => bytes(field, &STANDARD.decode(text).unwrap_or_default(), out),
        (Shape::Quantity, Value::String(text)) => quantity(field, text, out),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => nested(field, out, |out| {
            if let Ok(at) = time::parse(text) {
                // Seconds are rounded down and nanoseconds count up, also before 1970.
                let nanos = at.as_nanosecond();
                number(1, nanos.div_euclid(1_000_000_000) as i64 as u64, out);
                number(2, nanos.rem_euclid(1_000_000_000) as u64, out);
            }
        }),
        (Shape::IntOrString, value) => int_or_string(field, value, out),
        (Shape::Any(of), value) => nested(field, out, |out| any(of, value, out)),
        (Shape::Struct(link), Value::Object(map)) => nested(field, out, |out| object(link.get(), map, out)),
        // A canonical value fits its shape.
        _ => {}
    }
}

fn entries(field: u16, element: &Shape, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let entry = |(key, item): (&String, &Value), out: &mut Vec<u8>| {
        nested(field, out, |out| {
            bytes(1, key.as_bytes(), out);
            match item {
                Value::Null => length(2, 0, out),
                item => put(2, element, item, out),
            }
        });
    };
    // serde_json's map is sorted unless some crate of the build asks for insertion order; then we sort.
    if map.keys().is_sorted() {
        map.iter().for_each(|pair| entry(pair, out));
    } else {
        let mut sorted: Vec<_> = map.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted.into_iter().for_each(|pair| entry(pair, out));
    }
}

fn quantity(field: u16, text: &str, out: &mut Vec<u8>) {
    nested(field, out, |out| bytes(1, text.as_bytes(), out));
}

fn int_or_string(field: u16, value: &Value, out: &mut Vec<u8>) {
    let text = value.as_str();
    nested(field, out, |out| {
        number(1, u64::from(text.is_some()), out);
        number(2, value.as_i64().unwrap_or_default() as u64, out);
        bytes(3, text.unwrap_or_default().as_bytes(), out);
    });
}

/// Untyped values travel as JSON text, but for the alternatives of JSON schemas, which are messages.
fn any(of: &str, value: &Value, out: &mut Vec<u8>) {
    fn schema(field: u16, value: &Value, out: &mut Vec<u8>) {
        nested(field, out, |out| {
            if let (Some(ty), Value::Object(map)) = (facts::named("apiextensions.v1.JSONSchemaProps"), value) {
                object(&ty, map, out);
            }
        });
    }
    match (of, value) {
        ("JSONSchemaPropsOrBool", Value::Bool(flag)) => number(1, u64::from(*flag), out),
        ("JSONSchemaPropsOrBool", value) => {
            number(1, 1, out);
            schema(2, value, out);
        }
        ("JSONSchemaPropsOrArray", Value::Array(list)) => list.iter().for_each(|item| schema(2, item, out)),
        ("JSONSchemaPropsOrStringArray", Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).for_each(|item| bytes(2, item.as_bytes(), out));
        }
        ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", value) => schema(1, value, out),
        (_, value) => bytes(1, &crate::to_bytes(value), out),
    }
}
