//! Server-side apply: reading what is applied, and creating what is not there yet. The merge is the schema's ([`coracle_schema::managed`]).

use super::{Answer, Core, Request, Verb, change::warn, create::Tried, decode, handle::attributes, managers, metadata, update::conflict};
use crate::auth::Attributes;
use coracle_api::{names, status::Status};
use coracle_schema::FieldValidation;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{collections::HashSet, fmt, sync::Arc};

/// What a manager applies.
pub(super) struct Config {
    /// As it was sent: neither canonical nor defaulted.
    pub value: Value,
    /// A key that stands twice in one map.
    duplicate: Option<String>,
}

impl Config {
    /// Reads YAML (JSON is YAML).
    ///
    /// # Errors
    /// 400 for what is no object.
    pub fn read(body: &[u8], mode: FieldValidation) -> Result<Config, Status> {
        let wrong = |why: &dyn fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(_) => serde_norway::from_slice(body).map_err(|error| wrong(&error))?,
        };
        if !value.is_object() {
            return Err(wrong(&"the body must be an object"));
        }
        if decode::deeper_than(&value, decode::MAX_DEPTH) {
            return Err(Status::bad_request(format!("the object is nested deeper than {} levels", decode::MAX_DEPTH)));
        }
        let duplicate = if mode == FieldValidation::Ignore { None } else { duplicate(body) };
        Ok(Config { value, duplicate })
    }

    /// What field validation says of the text: unknown fields are errors anyway, keys that stand twice are errors or warnings.
    pub fn judge(&self, mode: FieldValidation) -> Result<Vec<String>, Status> {
        match (&self.duplicate, mode) {
            (Some(why), FieldValidation::Strict) => {
                Err(Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {why}")))
            }
            (Some(why), FieldValidation::Warn) => Ok(vec![format!("error converting YAML to JSON: yaml: unmarshal errors: {why}")]),
            _ => Ok(Vec::new()),
        }
    }

    fn metadata(&self, field: &str) -> Option<&str> {
        self.value.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
    }
}

/// The first key that stands twice in one map: `line 9: key "foo" already set in map`.
fn duplicate(body: &[u8]) -> Option<String> {
    let error = Unique::deserialize(serde_norway::Deserializer::from_slice(body)).err()?;
    let text = error.to_string();
    let key = text.split_once(ALREADY)?.1.split_once('\u{0}')?.0;
    let line = error.location()?.line();
    Some(format!("line {line}: key {key:?} already set in map"))
}

/// Marks our own error among the parser's.
const ALREADY: &str = "already set\u{0}";

/// Any value in which no key stands twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Unique, D::Error> {
        from.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        while list.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut seen = HashSet::new();
        while map.next_key_seed(Key(&mut seen))?.is_some() {
            map.next_value::<Unique>()?;
        }
        Ok(Unique)
    }
}

/// A key: an error here carries the line of the key.
struct Key<'s>(&'s mut HashSet<String>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if self.0.insert(key.to_owned()) { Ok(()) } else { Err(E::custom(format_args!("{ALREADY}{key}\u{0}"))) }
    }
    fn visit_bool<E: Error>(self, key: bool) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_i64<E: Error>(self, key: i64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_u64<E: Error>(self, key: u64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_f64<E: Error>(self, key: f64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_str("null")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl Core {
    /// Creates what was applied and is not there. None if it is there by now.
    pub(super) async fn create_applied(
        self: &Arc<Self>,
        request: &Request,
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Answer>, Status> {
        self.authorize(&request.user, &Attributes { verb: Verb::Create.as_str(), ..attributes(request) })?;
        let now = names::rfc3339(jiff::Timestamp::now());
        let (schema, versions) = (self.own_schema(request)?, self.versions(request));
        let writer = managers::writer(request, &now, &versions);
        let mut new = versions.settle(|| schema.apply(None, &config.value, &writer, request.write.force)).await??;
        warn(warnings, config.judge(request.write.field_validation)?);
        if let Some(uid) = config.metadata("uid") {
            let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(conflict(request, &why));
        }
        if config.metadata("resourceVersion").is_some() {
            return Err(conflict(request, "resourceVersion was specified, and no existing object was found"));
        }
        warn(warnings, decode::patched(self, request, &mut new)?);
        metadata::agree_with_path(&mut new, &request.namespace, &request.name)?;
        match self.try_create(request, new, warnings).await? {
            Tried::Done(answer) => Ok(Some(answer)),
            Tried::Exists(_) | Tried::Lost => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Config {
        Config::read(text.as_bytes(), FieldValidation::Strict).expect("reads")
    }

    #[test]
    fn yaml_and_json_are_read() {
        assert_eq!(read("a: 1\nb:\n- x\n").value, json!({"a": 1, "b": ["x"]}));
        assert_eq!(read("{\"a\": 1}").value, json!({"a": 1}));
        for bad in ["", "[]", "a: [", "- a"] {
            assert_eq!(Config::read(bad.as_bytes(), FieldValidation::Ignore).err().map(|status| status.code), Some(400), "{bad}");
        }
        assert!(Config::read("a: ".repeat(1).as_bytes(), FieldValidation::Ignore).is_ok());
        assert!(Config::read("[".repeat(5_000).as_bytes(), FieldValidation::Strict).is_err());
    }

    #[test]
    fn keys_that_stand_twice_are_named_with_their_line() {
        let twice = read("spec:\n  foo: 1\n  bar: 2\n  foo: 3\n");
        assert_eq!(twice.value, json!({"spec": {"foo": 3, "bar": 2}}), "the last one counts");
        let error = twice.judge(FieldValidation::Strict).expect_err("strict");
        assert!(error.message.ends_with("line 4: key \"foo\" already set in map"), "{}", error.message);
        assert_eq!(twice.judge(FieldValidation::Warn).expect("warns").len(), 1);
        assert!(read("a: {b: 1}\nc: {b: 1}\n").judge(FieldValidation::Strict).expect("fine").is_empty());
        assert!(read("{\"a\": 1,\n\"a\": 2}").judge(FieldValidation::Strict).is_err());
    }
}
