//! Kubernetes' protobuf, read and written by the table's field numbers: an edge, never a second model. What is read becomes a JSON
//! value that goes on through the same canonicalisation as a JSON body.
//!
//! The encoding is upstream's (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`): the four bytes `k8s\0`, then a
//! `runtime.Unknown` with apiVersion, kind and the object's own message. Unknown field numbers are skipped, as Go does.
//! (A protobuf crate with generated messages was rejected: it would be a second set of types beside the table.)

mod encode;

use crate::facts;
use crate::types::{Shape, Type};
use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::Status;
use serde_json::{Map, Value};

pub(crate) use encode::encode;

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages nested deeper than this are refused.
const MAX_DEPTH: usize = 100;

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Broken(&'static str);

/// The kind and message within the envelope.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    raw: &'a [u8],
}

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
            let (first, rest) = self.rest.split_first().ok_or(Broken("a number is cut off"))?;
            self.rest = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Broken("a field is cut off"))?;
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
            1 => Wire::Fixed64(self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Broken("a field is cut off"))?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken("a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Broken("a field is cut off"))?),
            _ => return Err(Broken("a field has no wire type that proto2 knows")),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken("a string is not UTF-8"))
}

/// Each field of a message; fields of another wire type than bytes come as None.
fn bytes_fields<'a>(message: &'a [u8], mut each: impl FnMut(u64, &'a [u8]) -> Result<(), Broken>) -> Result<(), Broken> {
    let mut reader = Reader { rest: message };
    while let Some((number, wire)) = reader.field()? {
        if let Wire::Bytes(bytes) = wire {
            each(number, bytes)?;
        }
    }
    Ok(())
}

/// Opens the envelope.
///
/// # Errors
/// 400 for what is none.
pub fn open(body: &[u8]) -> Result<Unknown<'_>, Status> {
    envelope(body).map_err(|Broken(why)| Status::bad_request(format!("the body is no protobuf message as Kubernetes encodes it: {why}")))
}

fn envelope(body: &[u8]) -> Result<Unknown<'_>, Broken> {
    let message = body.strip_prefix(MAGIC).ok_or(Broken("it does not begin with k8s"))?;
    let mut found = Unknown::default();
    let mut encoding = "";
    bytes_fields(message, |number, bytes| {
        match number {
            1 => bytes_fields(bytes, |number, bytes| {
                match number {
                    1 => found.api_version = text(bytes)?.to_owned(),
                    2 => found.kind = text(bytes)?.to_owned(),
                    _ => {}
                }
                Ok(())
            })?,
            2 => found.raw = bytes,
            3 => encoding = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    if !encoding.is_empty() {
        return Err(Broken("it has a content encoding"));
    }
    Ok(found)
}

/// The object in an envelope as JSON, with its apiVersion and kind, neither pruned nor defaulted.
pub(crate) fn decode(ty: &Type, unknown: &Unknown<'_>) -> Result<Value, Status> {
    let mut map = message(ty, unknown.raw, 0)
        .map_err(|Broken(why)| Status::bad_request(format!("the protobuf body of the {} is broken: {why}", unknown.kind)))?;
    if !unknown.api_version.is_empty() {
        map.insert("apiVersion".into(), unknown.api_version.as_str().into());
    }
    if !unknown.kind.is_empty() {
        map.insert("kind".into(), unknown.kind.as_str().into());
    }
    Ok(Value::Object(map))
}

fn message(ty: &Type, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Broken> {
    let mut map = Map::new();
    fill(&mut map, ty, bytes, depth)?;
    Ok(map)
}

fn fill(map: &mut Map<String, Value>, ty: &Type, bytes: &[u8], depth: usize) -> Result<(), Broken> {
    if depth > MAX_DEPTH {
        return Err(Broken("messages are nested too deep"));
    }
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        if let Some(field) = ty.fields.iter().find(|f| f.embed == 0 && f.number != 0 && u64::from(f.number) == number) {
            put(map, &field.json, &field.shape, &wire, depth)?;
        } else if let Some(embed) = ty.embeds.iter().find(|e| e.parent == 0 && e.number != 0 && u64::from(e.number) == number)
            && let Wire::Bytes(bytes) = wire
        {
            fill(map, &embed.of, bytes, depth + 1)?;
        }
    }
    Ok(())
}

fn put(map: &mut Map<String, Value>, name: &str, shape: &Shape, wire: &Wire<'_>, depth: usize) -> Result<(), Broken> {
    match (shape, wire) {
        // A named list of strings is a message of its own with the list as field 1.
        (Shape::List(go, element), Wire::Bytes(bytes)) if matches!(&**go, "ExtraValue" | "Verbs") => {
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
            let (mut key, mut value) = (String::new(), None);
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field()? {
                match (number, &wire) {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
                    (2, Wire::Bytes(bytes)) if matches!(&**element, Shape::List(..)) => {
                        let Shape::List(_, inner) = &**element else { continue };
                        value = Some(wrapped(inner, bytes, depth)?);
                    }
                    (2, wire) => value = scalar(element, wire, depth)?,
                    _ => {}
                }
            }
            let value = value.or_else(|| element.zero()).unwrap_or_else(|| Value::String(String::new()));
            if let Value::Object(object) = map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                object.insert(key, value);
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
        (Shape::Any(of), Wire::Bytes(bytes)) => Some(any(of, bytes, depth)?),
        (Shape::Struct(link), Wire::Bytes(bytes)) => Some(Value::Object(message(link.get(), bytes, depth + 1)?)),
        _ => None,
    })
}

/// Untyped values travel as JSON text, but for the alternatives of JSON schemas, which are messages.
fn any(of: &str, bytes: &[u8], depth: usize) -> Result<Value, Broken> {
    if !of.starts_with("JSONSchemaPropsOr") {
        let mut raw: &[u8] = b"null";
        bytes_fields(bytes, |number, bytes| {
            if number == 1 {
                raw = bytes;
            }
            Ok(())
        })?;
        return serde_json::from_slice(raw).map_err(|_| Broken("an embedded value is no JSON"));
    }
    let schema = |bytes: &[u8]| match facts::named("apiextensions.v1.JSONSchemaProps") {
        Some(ty) => message(&ty, bytes, depth + 1).map(Value::Object),
        None => Ok(Value::Null),
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
    Ok(match (one, of) {
        (Some(schema), _) => schema,
        (None, "JSONSchemaPropsOrBool") => Value::Bool(allows),
        (None, _) => Value::Array(list),
    })
}

fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, Broken> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i64,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldValidation, Schemas};
    use serde_json::json;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_pod_is_read_with_embedded_structs_and_special_forms() {
        let secret_volume = field(6, &field(1, b"token"));
        let volume = [field(1, b"v"), field(2, &secret_volume)].concat();
        let limit = [field(1, b"cpu"), field(2, &field(1, b"100m"))].concat();
        let probe_port = [&[8u8, 1][..], &field(3, b"http")].concat();
        let probe = field(1, &field(2, &[field(1, b"/"), field(2, &probe_port)].concat()));
        let container = [field(1, b"c"), field(2, b"image"), field(8, &field(1, &limit)), field(10, &probe)].concat();
        let spec = [field(1, &volume), field(2, &container), vec![4 << 3, 30]].concat();
        let created = field(8, &[8, 0xe0, 0xd4, 3]);
        let metadata = [field(1, b"p"), created, field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat();
        let raw = [field(1, &metadata), field(2, &spec)].concat();
        let schema = Schemas::builtin().get("", "v1", "Pod").unwrap();
        let (pod, _) = schema.decode_protobuf(&body("v1", "Pod", &raw), FieldValidation::Strict).unwrap();
        assert_eq!(pod["metadata"]["name"], "p");
        assert_eq!(pod["metadata"]["creationTimestamp"], "1970-01-01T16:40:00Z");
        assert_eq!(pod["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(pod["spec"]["volumes"][0]["secret"]["secretName"], "token");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "100m");
        assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], "http");
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
    }

    #[test]
    fn maps_of_bytes_and_named_lists_are_read() {
        let data = [field(1, b"k"), field(2, b"\x00v")].concat();
        let schema = Schemas::builtin().get("", "v1", "Secret").unwrap();
        let (secret, _) = schema.decode_protobuf(&body("v1", "Secret", &field(2, &data)), FieldValidation::Strict).unwrap();
        assert_eq!(secret["data"], json!({"k": "AHY="}));
        let extra = [field(1, b"k"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat();
        let schema = Schemas::builtin().get("authorization.k8s.io", "v1", "SubjectAccessReview").unwrap();
        let raw = field(2, &field(5, &extra));
        let (review, _) = schema.decode_protobuf(&body("authorization.k8s.io/v1", "SubjectAccessReview", &raw), FieldValidation::Strict).unwrap();
        assert_eq!(review["spec"]["extra"], json!({"k": ["a", "b"]}));
    }

    #[test]
    fn what_is_broken_is_refused() {
        let schema = Schemas::builtin().get("", "v1", "ConfigMap").unwrap();
        let good = body("v1", "ConfigMap", &field(1, &field(1, b"a")));
        assert!(schema.decode_protobuf(&good, FieldValidation::Strict).is_ok());
        for end in 0..good.len() - 4 {
            // Cut anywhere it is either refused or lacks only trailing fields; it never panics.
            let _ = schema.decode_protobuf(good.get(..end).unwrap(), FieldValidation::Strict);
        }
        for bad in [&b"{}"[..], b"k8s", b"k8s\0\x0a\xff", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(schema.decode_protobuf(bad, FieldValidation::Strict).unwrap_err().code, 400);
        }
        let wrong = body("v1", "Secret", b"");
        assert_eq!(schema.decode_protobuf(&wrong, FieldValidation::Strict).unwrap_err().code, 400);
    }
}
