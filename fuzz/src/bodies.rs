//! Bodies of requests: JSON, YAML and protobuf, through the schema of the kind they name.

use bytes::Bytes;
use coracle_api::Status;
use coracle_apiserver::pipeline::decode::to_json;
use coracle_schema::{FieldValidation, Schema, Schemas, depth, protobuf, to_bytes};
use serde_json::Value;
use std::sync::{Arc, LazyLock};

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

/// The schema of the kind that an object names; a pod's for what names none.
pub(crate) fn schema_of(object: &Value) -> Arc<Schema> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    schema(&text("apiVersion"), &text("kind"))
}

fn schema(api_version: &str, kind: &str) -> Arc<Schema> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    SCHEMAS.get(group, version, kind).unwrap_or_else(|| SCHEMAS.get("", "v1", "Pod").expect("pods"))
}

/// What holds for every object that was let in.
pub(crate) fn check(schema: &Schema, object: &Value) {
    assert!(depth(object).is_some(), "it can be walked");
    let canonical = |value: &Value| {
        let mut value = value.clone();
        let warnings = schema.canonicalize(&mut value, FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}: {value}"));
        assert!(warnings.is_empty());
        value
    };
    assert_eq!(&canonical(object), object, "the canonical form of the canonical form");
    let mut filled = object.clone();
    schema.default(&mut filled);
    assert_eq!(canonical(&filled), filled, "defaults leave the canonical form");
    let mut twice = filled.clone();
    schema.default(&mut twice);
    assert_eq!(twice, filled, "defaults twice");
    let (back, _) = schema.decode(&to_bytes(&filled), FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}: {filled}"));
    assert_eq!(back, filled, "stored and read");
    let encoded = schema.encode_protobuf(&filled);
    let (back, _) = schema
        .decode_protobuf(&protobuf::envelope::seal(&schema.api_version(), schema.kind(), &encoded), FieldValidation::Strict)
        .unwrap_or_else(|e| panic!("{e}: {filled}"));
    assert_eq!(back, filled, "through protobuf");
}

fn checked(schema: &Schema, decoded: Result<(Value, Vec<String>), Status>) -> Option<Value> {
    match decoded {
        Ok((object, _)) => {
            check(schema, &object);
            Some(object)
        }
        Err(status) => {
            assert_eq!(status.code, 400, "{status}");
            None
        }
    }
}

pub fn json_bodies(data: &[u8]) {
    let parsed: Option<Value> = serde_json::from_slice(data).ok();
    let schema = schema_of(parsed.as_ref().unwrap_or(&Value::Null));
    let decoded = schema.decode(data, FieldValidation::Warn);
    // A body and the same body already parsed are one thing, but for what a parsed one no longer shows.
    if let (Some(mut value), Ok((object, warnings))) = (parsed, &decoded)
        && !warnings.iter().any(|warning| warning.starts_with("duplicate field"))
    {
        let said = schema.canonicalize(&mut value, FieldValidation::Warn).unwrap_or_else(|e| panic!("{e}: {object}"));
        assert_eq!((&value, said.len()), (object, warnings.len()));
    }
    checked(&schema, decoded);
}

pub fn yaml_bodies(data: &[u8]) {
    let Ok(json) = to_json("application/yaml", &Bytes::copy_from_slice(data)) else { return };
    let value: Value = serde_json::from_slice(&json).expect("YAML that was let in is JSON");
    let schema = schema_of(&value);
    if let Some(object) = checked(&schema, schema.decode(&json, FieldValidation::Warn)) {
        let yaml = serde_norway::to_string(&object).expect("an object is YAML");
        let back = to_json("application/yaml", &yaml.into()).expect("what is sent as YAML can be sent back");
        assert_eq!(serde_json::from_slice::<Value>(&back).expect("JSON"), object);
    }
}

pub fn protobuf_bodies(data: &[u8]) {
    if let Some((api_version, kind)) = protobuf::kind_of(data) {
        let schema = schema(api_version, kind);
        checked(&schema, schema.decode_protobuf(data, FieldValidation::Strict));
    }
}
