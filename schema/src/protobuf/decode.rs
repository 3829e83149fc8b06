//! Reading Kubernetes' protobuf into JSON values that are not canonical yet.

use super::Broken;
use super::layout::{Layout, Part};
use crate::facts;
use crate::types::{Shape, Type};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

/// Messages nested deeper than this are refused.
const MAX_DEPTH: usize = 100;

struct Reader<'a> {
    rest: &'a [u8],
}

/// One field as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.rest.split_first().ok_or(Broken("unexpected EOF"))?;
            self.rest = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken("proto: integer overflow"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Broken("unexpected EOF"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next field's number and content; None at the end.
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Broken("unexpected EOF"))?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken("proto: negative length found during unmarshaling"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Broken("unexpected EOF"))?),
            _ => return Err(Broken("proto: illegal wireType")),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken("proto: invalid UTF-8 string"))
}

/// Each field of a message that is of bytes; the others are skipped.
pub(super) fn bytes_fields<'a>(message: &'a [u8], mut each: impl FnMut(u64, &'a [u8]) -> Result<(), Broken>) -> Result<(), Broken> {
    let mut reader = Reader { rest: message };
    while let Some((number, wire)) = reader.field()? {
        if let Wire::Bytes(bytes) = wire {
            each(number, bytes)?;
        }
    }
    Ok(())
}

/// The fields of a message of type `ty`.
pub(super) fn object(ty: &Type, bytes: &[u8]) -> Result<Map<String, Value>, Broken> {
    message(ty, bytes, 0)
}

fn message(ty: &Type, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Broken> {
    let mut map = Map::new();
    fill(&mut map, ty, ty.layout(), bytes, depth)?;
    Ok(map)
}

fn fill(map: &mut Map<String, Value>, ty: &Type, layout: &Layout, bytes: &[u8], depth: usize) -> Result<(), Broken> {
    if depth > MAX_DEPTH {
        return Err(Broken("messages are nested too deep"));
    }
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        match (layout.part(number), wire) {
            (Some(Part::Field(at)), wire) => {
                if let Some(field) = ty.fields.get(*at) {
                    put(map, &field.json, &field.shape, &wire, depth)?;
                }
            }
            (Some(Part::Embedded(inner)), Wire::Bytes(bytes)) => fill(map, ty, inner, bytes, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

fn put(map: &mut Map<String, Value>, name: &str, shape: &Shape, wire: &Wire<'_>, depth: usize) -> Result<(), Broken> {
    match (shape, wire) {
        (Shape::List(_, element), Wire::Bytes(bytes)) if shape.is_wrapped() => {
            map.insert(name.into(), wrapped(element, bytes, depth)?);
        }
        (Shape::List(_, element), Wire::Bytes(bytes)) if matches!(**element, Shape::Int { .. } | Shape::Bool(_)) => {
            // Packed, which Go accepts too.
            let mut reader = Reader { rest: bytes };
            while !reader.rest.is_empty() {
                let one = Wire::Varint(reader.varint()?);
                push(map, name, scalar(element, &one, depth)?);
            }
        }
        (Shape::List(_, element), wire) => push(map, name, scalar(element, wire, depth)?),
        (Shape::Map(_, element), Wire::Bytes(bytes)) => {
            let (key, value) = entry(element, bytes, depth)?;
            if let Value::Object(object) = map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                object.insert(key, value);
            }
        }
        // A message in two parts is one message.
        (Shape::Struct(link), Wire::Bytes(bytes)) => {
            if let Value::Object(object) = map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                fill(object, link.get(), link.get().layout(), bytes, depth + 1)?;
            }
        }
        (shape, wire) => {
            if let Some(value) = scalar(shape, wire, depth)? {
                map.insert(name.into(), value);
            }
        }
    }
    Ok(())
}

fn entry(element: &Shape, bytes: &[u8], depth: usize) -> Result<(String, Value), Broken> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, &wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
            (2, Wire::Bytes(bytes)) if element.is_wrapped() => {
                let Shape::List(_, inner) = element else { continue };
                value = Some(wrapped(inner, bytes, depth)?);
            }
            (2, wire) => value = scalar(element, wire, depth)?,
            _ => {}
        }
    }
    let value = value.or_else(|| element.zero()).unwrap_or_else(|| Value::String(String::new()));
    Ok((key, value))
}

fn push(map: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let (Some(value), Value::Array(list)) = (value, map.entry(name).or_insert_with(|| Value::Array(Vec::new()))) {
        list.push(value);
    }
}

fn wrapped(element: &Shape, bytes: &[u8], depth: usize) -> Result<Value, Broken> {
    let mut list = Vec::new();
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        if number == 1 {
            list.extend(scalar(element, &wire, depth)?);
        }
    }
    Ok(Value::Array(list))
}

/// One value; None for a zero time and for what the wire type does not fit.
fn scalar(shape: &Shape, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, Broken> {
    Ok(match (shape, wire) {
        (Shape::Bool(_), Wire::Varint(n)) => Some(Value::Bool(*n != 0)),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int { signed: true, bits: 32, .. }, Wire::Varint(n)) => Some(Value::from(*n as i32)),
        (Shape::Int { signed: true, .. }, Wire::Varint(n)) => Some(Value::from(*n as i64)),
        (Shape::Int { .. }, Wire::Varint(n)) => Some(Value::from(*n)),
        (Shape::Float, Wire::Fixed64(n)) => Some(Value::from(f64::from_bits(*n))),
        (Shape::Float, Wire::Fixed32(n)) => Some(Value::from(f32::from_bits(*n))),
        (Shape::String(_), Wire::Bytes(bytes)) => Some(text(bytes)?.into()),
        (Shape::Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Shape::Quantity, Wire::Bytes(bytes)) => {
            let mut found = "0";
            bytes_fields(bytes, |number, bytes| {
                if number == 1 {
                    found = text(bytes)?;
                }
                Ok(())
            })?;
            Some(found.into())
        }
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, matches!(shape, Shape::MicroTime))?,
        (Shape::Duration, Wire::Bytes(bytes)) => {
            let mut reader = Reader { rest: bytes };
            let mut nanos = 0i64;
            while let Some((number, wire)) = reader.field()? {
                if let (1, Wire::Varint(n)) = (number, wire) {
                    nanos = n as i64;
                }
            }
            Some(format!("{nanos}ns").into())
        }
        (Shape::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Shape::Any(of), Wire::Bytes(bytes)) => any(of, bytes, depth)?,
        (Shape::Struct(link), Wire::Bytes(bytes)) => Some(Value::Object(message(link.get(), bytes, depth + 1)?)),
        _ => None,
    })
}

/// Untyped values travel as JSON text, but for the alternatives of JSON schemas, which are messages.
fn any(of: &str, bytes: &[u8], depth: usize) -> Result<Option<Value>, Broken> {
    if !of.starts_with("JSONSchemaPropsOr") {
        let mut raw: &[u8] = b"";
        bytes_fields(bytes, |number, bytes| {
            if number == 1 {
                raw = bytes;
            }
            Ok(())
        })?;
        return match raw {
            [] => Ok(None),
            raw => serde_json::from_slice(raw).map(Some).map_err(|_| Broken("an embedded value is no JSON")),
        };
    }
    // Nobody brings these into form afterwards.
    let schema = |bytes: &[u8]| {
        let Some(ty) = facts::named("apiextensions.v1.JSONSchemaProps") else { return Ok(Value::Null) };
        let made = Value::Object(message(&ty, bytes, depth + 1)?);
        let (canonical, _) = crate::decode::object(&ty, made).map_err(|_| Broken("an embedded schema is none"))?;
        Ok(canonical.unwrap_or_default())
    };
    let (mut one, mut list, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match (of, field) {
            ("JSONSchemaPropsOrBool", (1, Wire::Varint(flag))) => allows = flag != 0,
            ("JSONSchemaPropsOrBool", (2, Wire::Bytes(bytes))) => one = Some(schema(bytes)?),
            ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", (1, Wire::Bytes(bytes))) => one = Some(schema(bytes)?),
            ("JSONSchemaPropsOrArray", (2, Wire::Bytes(bytes))) => list.push(schema(bytes)?),
            ("JSONSchemaPropsOrStringArray", (2, Wire::Bytes(bytes))) => list.push(text(bytes)?.into()),
            _ => {}
        }
    }
    Ok(Some(match (one, of) {
        (Some(schema), _) => schema,
        (None, "JSONSchemaPropsOrBool") => Value::Bool(allows),
        (None, _) => Value::Array(list),
    }))
}

/// A time nobody set is an empty message.
fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, Broken> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i64,
            _ => {}
        }
    }
    let at = jiff::Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0)).map_err(|_| Broken("a time is out of range"))?;
    Ok(Some(if micro { coracle_api::names::rfc3339_micro(at) } else { coracle_api::names::rfc3339(at) }.into()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Broken> {
    let (mut is_text, mut number, mut string) = (false, 0i32, "");
    let mut reader = Reader { rest: bytes };
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(n)) => is_text = n != 0,
            (2, Wire::Varint(n)) => number = n as i32,
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { string.into() } else { number.into() })
}
