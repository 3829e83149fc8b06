//! A JSON body as a value, with an eye on fields that are given twice. Numbers get the form that Go's decoder and encoder give them.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write as _};

/// No more doubles than this are named.
const MAX_NAMED: usize = 100;

/// Reads one value; `duplicate field "spec.a"` for each field that is given twice.
pub(crate) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<(Value, Vec<String>), D::Error> {
    let mut walk = Walk::default();
    let value = Node(&mut walk).deserialize(from)?;
    Ok((value, walk.doubles))
}

/// Reads a JSON text; `duplicate field "spec.a"` for each field that is given twice.
///
/// # Errors
/// The parser's.
pub fn read_json(text: &[u8]) -> serde_json::Result<(Value, Vec<String>)> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let found = read(&mut parser)?;
    parser.end()?;
    Ok(found)
}

#[derive(Default)]
struct Walk {
    at: String,
    doubles: Vec<String>,
}

impl Walk {
    fn double(&mut self, name: &str) {
        let message = match self.at.is_empty() {
            true => format!("duplicate field {name:?}"),
            false => format!("duplicate field {:?}", format!("{}.{name}", self.at)),
        };
        if self.doubles.len() < MAX_NAMED && !self.doubles.contains(&message) {
            self.doubles.push(message);
        }
    }
}

struct Node<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

/// A whole number loses its fraction, as Go's encoder writes it.
pub(super) fn float(number: f64) -> Value {
    const EXACT: f64 = 9.0e15;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| float(number as f64), Value::from))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(float(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let walk = self.0;
        let (length, mut list) = (walk.at.len(), Vec::new());
        loop {
            // Writing to a string cannot fail.
            let _ = write!(walk.at, "[{}]", list.len());
            let next = access.next_element_seed(Node(walk));
            walk.at.truncate(length);
            match next? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let walk = self.0;
        let (length, mut map) = (walk.at.len(), Map::new());
        while let Some(name) = access.next_key_seed(Name)? {
            if map.contains_key(&name) {
                walk.double(&name);
            }
            if length > 0 {
                walk.at.push('.');
            }
            walk.at.push_str(&name);
            let value = access.next_value_seed(Node(walk));
            walk.at.truncate(length);
            map.insert(name, value?);
        }
        Ok(Value::Object(map))
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        String::deserialize(from)
    }
}
