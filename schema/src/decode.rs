//! Decoding: one walk over a body, or over a value already parsed, that yields the canonical form and what was wrong with it.
//!
//! The walk follows what upstream's decoder and encoder do between them: a body is read into Go structs (wrong types refused, fields
//! not known and fields given twice noted), and written again (zeros of `omitempty` fields and nulls gone, quantities and times in
//! their one spelling, base64 re-encoded). It is a serde visitor driven by the schema, so that duplicate keys are seen, the first
//! mistake in the order of the text is the one reported, and no untyped copy of the body is made.
//!
//! Where Go would write `null` (a required list or time that nobody set) nothing is written: clients read both alike.

use crate::types::{Field, Shape, Type};
use base64::Engine as _;
use coracle_api::{quantity::Quantity, time};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// No more mistakes than this are collected, as upstream.
const MAX_STRICT: usize = 100;

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The first type error; the object is unusable.
    pub error: Option<String>,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in order.
    pub strict: Vec<String>,
}

/// Reads an object of type `ty` from any deserializer.
pub(crate) fn object<'de, D: Deserializer<'de>>(ty: &Type, from: D) -> Result<(Option<Value>, Findings), D::Error> {
    let mut walk = Walk { path: Vec::new(), type_error: None, fatal: None, strict: Vec::new(), seen: BTreeSet::new() };
    let value = from.deserialize_any(Root { walk: &mut walk, ty })?;
    Ok((value, Findings { error: walk.fatal.or(walk.type_error), strict: walk.strict }))
}

enum Step<'a> {
    Field(&'a Type, &'a Field),
    Key(String),
    Index(usize),
}

struct Walk<'a> {
    path: Vec<Step<'a>>,
    /// Go's decoder goes on after a wrong type and reports the first one …
    type_error: Option<String>,
    /// … but stops at a type that decodes itself (quantities, times).
    fatal: Option<String>,
    strict: Vec<String>,
    seen: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn wrong_type(&mut self, found: &str, wanted: &str) {
        if self.type_error.is_none() {
            self.type_error = Some(self.describe(found, wanted));
        }
    }

    fn fatal(&mut self, message: String) {
        self.fatal.get_or_insert(message);
    }

    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    fn describe(&self, found: &str, wanted: &str) -> String {
        let mut message = format!("json: cannot unmarshal {found} into Go ");
        let mut names = Vec::new();
        let mut owner = None;
        for step in &self.path {
            if let Step::Field(ty, field) = step {
                names.extend(ty.embed_path(field));
                names.push(&field.json);
                owner = Some(&ty.go);
            }
        }
        let _ = match owner {
            Some(owner) => write!(message, "struct field {owner}.{} of type {wanted}", names.join(".")),
            None => write!(message, "value of type {wanted}"),
        };
        message
    }

    fn strict(&mut self, what: &str, field: &str) {
        if self.strict.len() >= MAX_STRICT {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            let _ = match step {
                Step::Index(at) => write!(path, "[{at}]"),
                Step::Key(key) if path.is_empty() => path.write_str(key),
                Step::Key(key) => write!(path, ".{key}"),
                Step::Field(_, field) if path.is_empty() => path.write_str(&field.json),
                Step::Field(_, field) => write!(path, ".{}", field.json),
            };
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(field);
        let message = format!("{what} field {path:?}");
        if self.seen.insert(message.clone()) {
            self.strict.push(message);
        }
    }

    /// A value of one of upstream's types that hold several things: schemas in them are read as what they are, without a word about unknown fields.
    fn untyped(&mut self, of: &str, value: Value) -> Option<Value> {
        if value.is_null() {
            return None;
        }
        if !of.starts_with("JSONSchemaPropsOr") {
            return Some(value);
        }
        match value {
            Value::Object(_) => {
                let ty = crate::facts::named("apiextensions.v1.JSONSchemaProps")?;
                let (schema, findings) = object(&ty, value).map_err(|error: serde_json::Error| self.fatal(error.to_string())).ok()?;
                findings.error.into_iter().for_each(|error| self.fatal(error));
                schema
            }
            Value::Array(_) if of == "JSONSchemaPropsOrStringArray" => Some(value),
            Value::Array(list) if of == "JSONSchemaPropsOrArray" => Some(list.into_iter().filter_map(|value| self.untyped(of, value)).collect()),
            Value::Bool(_) if of == "JSONSchemaPropsOrBool" => Some(value),
            _ => {
                self.fatal(if of == "JSONSchemaPropsOrBool" { "boolean or JSON schema expected" } else { "array or JSON schema expected" }.into());
                None
            }
        }
    }

    /// Reads the fields of a struct.
    fn fields<'de, A: MapAccess<'de>>(&mut self, ty: &'a Type, mut access: A) -> Result<Map<String, Value>, A::Error> {
        let mut map = Map::new();
        let mut given = vec![false; ty.fields.len()];
        while let Some(key) = access.next_key_seed(FieldName(ty))? {
            let at = match key {
                Ok(at) => at,
                Err(unknown) => {
                    self.strict("unknown", &unknown);
                    access.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (Some(field), Some(given)) = (ty.fields.get(at), given.get_mut(at)) else { continue };
            if std::mem::replace(given, true) {
                self.strict("duplicate", &field.json);
            }
            self.path.push(Step::Field(ty, field));
            let value = access.next_value_seed(Node { walk: self, shape: &field.shape });
            self.path.pop();
            let value = value?.map(|value| if field.json == "managedFields" { forgetting(value) } else { value });
            match value.filter(|value| field.keeps(value)) {
                Some(value) => map.insert(field.json.to_string(), value),
                None => map.remove(&*field.json),
            };
        }
        ty.fill_zeros(&mut map);
        if let Some(fold) = ty.fold {
            fold(&mut map);
        }
        Ok(map)
    }
}

/// An empty list of managed fields says the same as one empty entry: that they shall be forgotten. No list says nothing.
fn forgetting(list: Value) -> Value {
    match list {
        Value::Array(list) if list.is_empty() => Value::Array(vec![Value::Object(Map::new())]),
        list => list,
    }
}

impl Field {
    /// Whether a value that was given is written again.
    pub(crate) fn keeps(&self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            // Go's nil and empty collections are the same after protobuf.
            Value::Array(list) => !list.is_empty() || matches!(self.shape, Shape::Any(_)),
            Value::Object(map) => !map.is_empty() || !matches!(self.shape, Shape::Map(..)),
            _ if self.flags.pointer || self.flags.always || self.shape.is_go_struct() => true,
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
        }
    }
}

/// A key of a struct: the field's index, or the unknown name.
struct FieldName<'a>(&'a Type);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Result<usize, String>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Result<usize, String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.binary_search_by(|f| (*f.json).cmp(name)).map_err(|_| name.to_owned()))
    }
}

/// The outermost value: an object, or nothing else.
struct Root<'w, 'a> {
    walk: &'w mut Walk<'a>,
    ty: &'a Type,
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = Option<Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
        self.walk.fields(self.ty, access).map(|map| Some(Value::Object(map)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        self.refuse("array")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        self.refuse("bool")
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        self.refuse("number")
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        self.refuse("number")
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        self.refuse("number")
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        self.refuse("string")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(Value::Object(self.ty.zero())))
    }
}

impl Root<'_, '_> {
    fn refuse<E>(self, found: &str) -> Result<Option<Value>, E> {
        let wanted = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        self.walk.wrong_type(found, wanted);
        Ok(None)
    }
}

/// A value of a known shape.
struct Node<'w, 'a> {
    walk: &'w mut Walk<'a>,
    shape: &'a Shape,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Option<Value>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match self.shape {
            Shape::Any(of) => Value::deserialize(from).map(|value| self.walk.untyped(of, value)),
            _ => from.deserialize_any(self),
        }
    }
}

impl Node<'_, '_> {
    fn mismatch<E>(self, found: &str) -> Result<Option<Value>, E> {
        match self.shape {
            // Types that decode themselves try a string, or a number.
            Shape::Time | Shape::MicroTime | Shape::Duration => {
                let message = self.walk.describe(found.split(' ').next().unwrap_or(found), "string");
                self.walk.fatal(message);
            }
            Shape::IntOrString => {
                let message = self.walk.describe(found, "int32");
                self.walk.fatal(message);
            }
            Shape::Quantity => self.walk.fatal(coracle_api::quantity::Error::Format.to_string()),
            Shape::Int { .. } | Shape::Float => self.walk.wrong_type(found, &self.shape.go_name()),
            shape => self.walk.wrong_type(found.split(' ').next().unwrap_or(found), &shape.go_name()),
        }
        Ok(None)
    }

    fn number<E>(self, number: Number) -> Result<Option<Value>, E> {
        let fits = match self.shape {
            Shape::Int { bits: 64, signed: true, .. } => number.is_i64(),
            Shape::Int { bits: 64, .. } => number.is_u64(),
            Shape::Int { bits, signed: true, .. } => number.as_i64().is_some_and(|n| n >> (bits - 1) == 0 || n >> (bits - 1) == -1),
            Shape::Int { bits, .. } => number.as_u64().is_some_and(|n| n >> bits == 0),
            Shape::IntOrString => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Shape::Float => {
                // Go writes a whole float without a fraction.
                let whole = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64);
                return Ok(Some(Value::Number(whole.map_or(number, Number::from))));
            }
            Shape::Quantity => return self.quantity(&number.to_string()),
            _ => false,
        };
        if fits { Ok(Some(Value::Number(number))) } else { self.mismatch(&format!("number {number}")) }
    }

    fn quantity<E>(self, text: &str) -> Result<Option<Value>, E> {
        match Quantity::parse(text.trim()) {
            Ok(quantity) => {
                // Resource lists are kept to thousandths.
                let in_list = matches!(self.walk.path.last(), Some(Step::Field(_, Field { shape: Shape::Map(go, _), .. })) if go == "ResourceList");
                let quantity = if in_list { quantity.round_up_to_millis() } else { quantity };
                Ok(Some(quantity.to_string().into()))
            }
            Err(error) => {
                self.walk.fatal(error.to_string());
                Ok(None)
            }
        }
    }

    fn bytes<E>(self, text: &str) -> Result<Option<Value>, E> {
        let engine = base64::engine::general_purpose::STANDARD;
        let clean: std::borrow::Cow<'_, str> = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text.into() };
        match engine.decode(clean.as_bytes()) {
            // Strict decoding leaves one spelling.
            Ok(_) => Ok(Some(clean.into_owned().into())),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    _ => clean.len(),
                };
                if self.walk.type_error.is_none() {
                    self.walk.type_error = Some(format!("illegal base64 data at input byte {at}"));
                }
                Ok(None)
            }
        }
    }

    fn time<E>(self, text: &str, write: fn(jiff::Timestamp) -> String) -> Result<Option<Value>, E> {
        if text.is_empty() {
            return Ok(None);
        }
        match time::parse(text) {
            Ok(time) => Ok(Some(write(time).into())),
            Err(error) => {
                self.walk.fatal(error.to_string());
                Ok(None)
            }
        }
    }

    fn text<E>(self, text: &str, owned: Option<String>) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::String(_) | Shape::IntOrString | Shape::Duration => Ok(Some(owned.unwrap_or_else(|| text.to_owned()).into())),
            Shape::Bytes => self.bytes(text),
            Shape::Quantity => self.quantity(text),
            Shape::Time => self.time(text, time::seconds),
            Shape::MicroTime => self.time(text, time::micros),
            _ => self.mismatch("string"),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Option<Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        match self.shape {
            Shape::Bool(_) => Ok(Some(Value::Bool(flag))),
            _ => self.mismatch("bool"),
        }
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        self.number(number.into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        self.number(number.into())
    }
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        match Number::from_f64(number) {
            Some(number) => self.number(number),
            None => self.mismatch("number"),
        }
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        self.text(text, None)
    }
    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        match self.shape {
            Shape::String(_) => Ok(Some(text.into())),
            _ => self.text(&text, None),
        }
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let Shape::List(_, element) = self.shape else {
            while access.next_element::<IgnoredAny>()?.is_some() {}
            return self.mismatch("array");
        };
        let mut list = Vec::new();
        loop {
            self.walk.path.push(Step::Index(list.len()));
            let next = access.next_element_seed(Node { walk: &mut *self.walk, shape: element });
            self.walk.path.pop();
            match next? {
                Some(value) => list.push(value.or_else(|| element.zero()).unwrap_or(Value::Null)),
                None => return Ok(Some(Value::Array(list))),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let element = match self.shape {
            Shape::Struct(link) => return self.walk.fields(link.get(), access).map(|map| Some(Value::Object(map))),
            Shape::Map(_, element) => element,
            _ => {
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return self.mismatch("object");
            }
        };
        let mut map = Map::new();
        // Scalars have no fields to complain about, so their key need not be on the path.
        let deep = matches!(**element, Shape::Struct(_) | Shape::List(..) | Shape::Map(..));
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.walk.strict("duplicate", &key);
            }
            if deep {
                self.walk.path.push(Step::Key(key.clone()));
            }
            let value = access.next_value_seed(Node { walk: &mut *self.walk, shape: element });
            if deep {
                self.walk.path.pop();
            }
            let value = value?.or_else(|| element.zero()).or_else(|| matches!(**element, Shape::Bytes).then(|| "".into()));
            map.insert(key, value.unwrap_or(Value::Null));
        }
        Ok(Some(Value::Object(map)))
    }
}
