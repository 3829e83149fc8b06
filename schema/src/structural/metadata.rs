//! Metadata of whole objects, at the root and embedded in others: brought into `ObjectMeta`'s form, and checked (`schema/objectmeta`).

use super::{META_FIELDS, Node};
use crate::{decode, facts};
use coracle_api::{
    cause::{Mistake, Path},
    names,
    status::Cause,
};
use serde_json::{Map, Value};

/// What becomes of metadata fields of a wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They make the object unusable (requests).
    Refuse,
    /// They go (objects that were stored once).
    Drop,
}

/// Brings `metadata` of one object into form; the names of unknown fields in it.
///
/// # Errors
/// What Go's decoder says about a wrong type.
pub(crate) fn object_meta(metadata: &mut Value, malformed: Malformed) -> Result<Vec<String>, String> {
    let Some(ty) = facts::named("meta.v1.ObjectMeta") else { return Err("the table of types lacks ObjectMeta".into()) };
    let read = |value: Value| -> Result<(Value, Vec<String>), String> {
        let found = match &value {
            Value::Null | Value::Object(_) => "",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
        };
        if !found.is_empty() {
            return Err(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"));
        }
        let (object, findings) = decode::object(&ty, value).map_err(|error: serde_json::Error| error.to_string())?;
        match findings.error {
            Some(error) => Err(error),
            None => Ok((object.unwrap_or_default(), findings.strict)),
        }
    };
    match (read(metadata.clone()), malformed) {
        (Ok((read, unknown)), _) => {
            *metadata = read;
            Ok(unknown)
        }
        (Err(error), Malformed::Refuse) => Err(error),
        (Err(_), Malformed::Drop) => {
            let fields = std::mem::take(metadata);
            let mut kept = Map::new();
            for (name, value) in fields.as_object().cloned().unwrap_or_default() {
                if let Ok((Value::Object(one), _)) = read(Value::Object([(name, value)].into_iter().collect())) {
                    kept.extend(one);
                }
            }
            *metadata = Value::Object(kept);
            Ok(Vec::new())
        }
    }
}

/// Checks the types of `apiVersion` and `kind` of embedded objects and brings their metadata into form; paths of unknown metadata fields.
/// `whole`: the value itself is such an object.
///
/// # Errors
/// One cause: an embedded object whose type or metadata has a wrong type.
pub fn coerce(node: &Node, value: &mut Value, whole: bool, malformed: Malformed) -> Result<Vec<String>, Cause> {
    let mut unknown = Vec::new();
    walk(node, value, whole, malformed, Path::Root, &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn walk(node: &Node, value: &mut Value, whole: bool, malformed: Malformed, path: Path<'_>, unknown: &mut Vec<String>) -> Result<(), Cause> {
    match value {
        Value::Object(map) => {
            if whole || node.embedded {
                own(map, malformed, path, unknown)?;
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = node.property(name) {
                    walk(property, value, false, malformed, path.field(name), unknown)?;
                } else if let Some(schema) = node.additional_schema() {
                    walk(schema, value, false, malformed, path.key(name), unknown)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else { return Ok(()) };
            for (index, value) in list.iter_mut().enumerate() {
                walk(items, value, false, malformed, path.index(index), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Type and metadata of one embedded object.
fn own(map: &mut Map<String, Value>, malformed: Malformed, path: Path<'_>, unknown: &mut Vec<String>) -> Result<(), Cause> {
    for name in ["apiVersion", "kind"] {
        match map.get(name) {
            None | Some(Value::String(_)) => {}
            Some(_) if malformed == Malformed::Drop => drop(map.remove(name)),
            Some(other) => return Err(Cause::of(Mistake::Invalid, path.field(name), Some(other), "must be a string")),
        }
    }
    let place = path.field("metadata");
    let Some(metadata) = map.get_mut("metadata") else { return Ok(()) };
    match object_meta(metadata, malformed) {
        Ok(fields) => unknown.extend(fields.iter().filter_map(|strict| Some(format!("{place}.{}", unknown_name(strict)?)))),
        Err(error) => return Err(Cause::of(Mistake::Invalid, place, Some(metadata), &error)),
    }
    Ok(())
}

/// The field in `unknown field "labels.x"`.
pub(crate) fn unknown_name(strict: &str) -> Option<&str> {
    strict.strip_prefix("unknown field \"")?.strip_suffix('"')
}

/// Checks type and metadata of embedded objects. `metadata` checks an `ObjectMeta` at a path.
pub fn embedded(node: &Node, value: &Value, path: Path<'_>, metadata: &dyn Fn(&Value, Path<'_>, &mut Vec<Cause>), causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            if node.embedded {
                check(map, path, metadata, causes);
            }
            for (name, value) in map {
                if let Some(property) = node.property(name) {
                    embedded(property, value, path.field(name), metadata, causes);
                } else if let Some(schema) = node.additional_schema() {
                    embedded(schema, value, path.key(name), metadata, causes);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else { return };
            for (index, value) in list.iter().enumerate() {
                embedded(items, value, path.index(index), metadata, causes);
            }
        }
        _ => {}
    }
}

fn check(map: &Map<String, Value>, path: Path<'_>, metadata: &dyn Fn(&Value, Path<'_>, &mut Vec<Cause>), causes: &mut Vec<Cause>) {
    for name in &META_FIELDS[..2] {
        let place = path.field(name);
        let mut invalid = |value: &Value, why: &str| causes.push(Cause::of(Mistake::Invalid, place, Some(value), why));
        match map.get(*name) {
            None => causes.push(Cause::of(Mistake::Required, place, None, "")),
            Some(value @ Value::String(text)) if text.is_empty() => invalid(value, "must not be empty"),
            Some(value @ Value::String(text)) if *name == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    invalid(value, &format!("unexpected GroupVersion string: {text}"));
                }
            }
            Some(value @ Value::String(text)) => {
                let wrong = names::dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    invalid(value, &format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
                }
            }
            Some(value) => invalid(value, "must be a string"),
        }
    }
    if let Some(its) = map.get("metadata") {
        let mut read = its.clone();
        match object_meta(&mut read, Malformed::Refuse) {
            Ok(_) => metadata(&read, path.field("metadata"), causes),
            Err(error) => causes.push(Cause::of(Mistake::Invalid, path.field("metadata"), Some(its), &error)),
        }
    }
}
