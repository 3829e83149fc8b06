//! Texts without a schema: JSON patches, YAML on its way to JSON. One visitor that builds a value and notes keys that are given twice,
//! which `serde_json::Value` forgets and a YAML value refuses.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write as _};

/// No more duplicates than this are noted, as upstream.
const MAX_DUPLICATES: usize = 100;

/// Reads JSON, and names the fields that are given twice: `duplicate field "spec.replicas"`.
///
/// # Errors
/// What is no JSON.
pub fn json(text: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut reading = Reading::new(usize::MAX, None);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = reading.value(&mut parser)?;
    parser.end()?;
    Ok((value, reading.duplicates.iter().map(Duplicate::to_string).collect()))
}

/// A key that is given twice.
pub(crate) struct Duplicate {
    path: String,
    pub key: String,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.path.is_empty() { "" } else { "." };
        write!(f, "duplicate field \"{}{dot}{}\"", self.path, self.key)
    }
}

/// What a walk over a text has found so far.
pub(crate) struct Reading {
    path: Vec<Step>,
    /// Duplicates in the order of the text.
    pub duplicates: Vec<Duplicate>,
    /// The duplicate, counted from 0, at which to stop with an error, which then says where it is.
    stop_at: Option<usize>,
    /// Bytes that the value may still grow by.
    budget: usize,
}

enum Step {
    Key(String),
    Index(usize),
}

impl Reading {
    /// What a value costs besides its text.
    const NODE: usize = 4;

    pub fn new(budget: usize, stop_at: Option<usize>) -> Self {
        Self { path: Vec::new(), duplicates: Vec::new(), stop_at, budget }
    }

    /// Reads a whole text.
    pub fn value<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<Value, D::Error> {
        Node(self).deserialize(from)
    }

    fn spend<E: serde::de::Error>(&mut self, text: usize) -> Result<(), E> {
        self.budget = self.budget.checked_sub(text + Self::NODE).ok_or_else(|| E::custom("document contains excessive aliasing"))?;
        Ok(())
    }

    fn duplicate<E: serde::de::Error>(&mut self, key: &str) -> Result<(), E> {
        if self.stop_at == Some(self.duplicates.len()) {
            return Err(E::custom(""));
        }
        if self.duplicates.len() < MAX_DUPLICATES {
            let mut path = String::new();
            for step in &self.path {
                let _ = match step {
                    Step::Index(at) => write!(path, "[{at}]"),
                    Step::Key(key) if path.is_empty() => path.write_str(key),
                    Step::Key(key) => write!(path, ".{key}"),
                };
            }
            self.duplicates.push(Duplicate { path, key: key.to_owned() });
        }
        Ok(())
    }
}

struct Node<'r>(&'r mut Reading);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }
    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(flag.into())
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(number.into())
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(number.into())
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        self.0.spend(0)?;
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom(format_args!("json: unsupported value: {number}")))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.spend(text.len())?;
        Ok(text.into())
    }
    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.0.spend(text.len())?;
        Ok(text.into())
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.spend(0)?;
        Ok(Value::Null)
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
    /// A tag that JSON has no word for: its value.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (_, value) = access.variant::<String>()?;
        value.newtype_variant_seed(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut list = Vec::new();
        loop {
            self.0.path.push(Step::Index(list.len()));
            let next = access.next_element_seed(Node(&mut *self.0));
            self.0.path.pop();
            match next? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.spend(0)?;
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key { reading: &mut *self.0, map: &map })? {
            self.0.path.push(Step::Key(key));
            let value = access.next_value_seed(Node(&mut *self.0));
            let Some(Step::Key(key)) = self.0.path.pop() else { continue };
            map.insert(key, value?);
        }
        Ok(Value::Object(map))
    }
}

/// A key, which may be a number or a flag in YAML. A duplicate is met here, where an error knows its line.
struct Key<'r, 'm> {
    reading: &'r mut Reading,
    map: &'m Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }
    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<String, E> {
        self.visit_string(flag.to_string())
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
        self.visit_string(number.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
        self.visit_string(number.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<String, E> {
        self.visit_string(number.to_string())
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        self.visit_string(text.to_owned())
    }
    fn visit_string<E: serde::de::Error>(self, key: String) -> Result<String, E> {
        self.reading.spend(key.len())?;
        if self.map.contains_key(&key) {
            self.reading.duplicate(&key)?;
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_given_twice_are_named_with_their_path() {
        let (value, duplicates) = json(br#"{"a": 1, "spec": {"list": [{"x": 1, "x": 2}], "n": 1, "n": 2}, "a": {"b": null}}"#).unwrap();
        assert_eq!(value, json!({"a": {"b": null}, "spec": {"list": [{"x": 2}], "n": 2}}));
        assert_eq!(duplicates, ["duplicate field \"spec.list[0].x\"", "duplicate field \"spec.n\"", "duplicate field \"a\""]);
        assert!(json(b"{} {}").is_err() && json(b"").is_err() && json(b"[1").is_err());
        assert!(json(&[b'['; 1000]).is_err(), "nesting is bounded by the parser");
    }
}
