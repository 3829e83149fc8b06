//! From a request's body to a value with canonical form and defaults.

use super::{Body, Core, Request};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_schema::{FieldValidation, Schema};
use serde_json::Value;
use std::sync::Arc;

/// Nesting that is stored at most; what is nested deeper could be written but not read back.
pub const MAX_DEPTH: usize = 100;

/// The group, version and kind that bodies of this request have.
pub fn kind_of(request: &Request) -> (Box<str>, Box<str>, Box<str>) {
    let row = &request.resource;
    match row.subresource(&request.subresource) {
        Some(subresource) => subresource.gvk.clone(),
        None => (row.group.clone(), row.version.clone(), row.kind.clone()),
    }
}

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// The schema for the bodies of this request, if there is one.
pub fn schema_of(core: &Core, request: &Request) -> Option<Arc<Schema>> {
    let (group, version, kind) = kind_of(request);
    core.schemas.get(&group, &version, &kind)
}

fn is_protobuf(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim() == "application/vnd.kubernetes.protobuf")
}

/// The options in a delete's body, whatever its encoding. An empty body has none.
pub fn options(core: &Core, content_type: &str, bytes: &Bytes) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Object(Default::default()));
    }
    if is_protobuf(content_type) {
        let schema = core.schemas.get("", "v1", "DeleteOptions").ok_or_else(|| Status::internal("no schema for DeleteOptions"))?;
        return schema.decode_protobuf(bytes, FieldValidation::Ignore).map(|(value, _)| value);
    }
    let json = to_json(content_type, bytes)?;
    serde_json::from_slice(&json).map_err(|error| Status::bad_request(format!("the delete options cannot be read: {error}")))
}

/// A YAML body as JSON; JSON passes. Duplicate keys and anchors that blow up are refused by the parser.
pub fn to_json(content_type: &str, bytes: &Bytes) -> Result<Bytes, Status> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" | "*/*" => Ok(bytes.clone()),
        "application/yaml" => {
            let value: Value =
                serde_norway::from_slice(bytes).map_err(|error| Status::bad_request(format!("yaml: {error}; the body must be one YAML document")))?;
            Ok(value.to_string().into())
        }
        other => Err(Status::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other})"
            ),
        )),
    }
}

/// The decoded body with its warnings. `apiVersion` and `kind` may be left out; if given they must be right.
pub fn body(core: &Core, request: &Request) -> Result<(Value, Vec<String>), Status> {
    let (group, version, kind) = kind_of(request);
    let schema = schema_of(core, request).ok_or_else(|| Status::internal(format_args!("no schema for {kind} in {group}/{version}")))?;
    let mode = request.write.field_validation;
    let (mut value, warnings) = match &request.body {
        Body::None => return Err(Status::bad_request(format!("a {kind} is needed as the body of this request"))),
        Body::Raw { content_type, bytes } if bytes.is_empty() => {
            let _ = content_type;
            return Err(Status::bad_request(format!("a {kind} is needed as the body of this request")));
        }
        Body::Raw { content_type, bytes } if is_protobuf(content_type) => {
            let head = coracle_schema::protobuf::open(bytes)?;
            let head = Head { api_version: head.api_version.into(), kind: head.kind.into() };
            check_kind(&head, &group, &version, &kind)?;
            schema.decode_protobuf(bytes, mode)?
        }
        Body::Raw { content_type, bytes } => {
            let json = to_json(content_type, bytes)?;
            check_kind(&peek(&json)?, &group, &version, &kind)?;
            schema.decode(&json, mode)?
        }
        Body::Object(value) => {
            let mut value = value.clone();
            check_kind(&Head::of(&value), &group, &version, &kind)?;
            let warnings = schema.canonicalize(&mut value, mode)?;
            (value, warnings)
        }
        Body::Patch { .. } => return Err(Status::method_not_allowed()),
    };
    finish(&schema, &mut value, &group, &version, &kind)?;
    Ok((value, warnings))
}

/// A patched value brought back into form.
pub fn patched(core: &Core, request: &Request, value: &mut Value) -> Result<Vec<String>, Status> {
    let (group, version, kind) = if &*request.subresource == "scale" {
        kind_of(request)
    } else {
        let row = &request.resource;
        (row.group.clone(), row.version.clone(), row.kind.clone())
    };
    check_kind(&Head::of(value), &group, &version, &kind)?;
    if deeper_than(value, MAX_DEPTH) {
        return Err(Status::bad_request(format!("the patched object is nested deeper than {MAX_DEPTH} levels")));
    }
    let schema = core.schemas.get(&group, &version, &kind).ok_or_else(|| Status::internal(format_args!("no schema for {kind}")))?;
    let warnings = schema.canonicalize_patched(value, request.write.field_validation)?;
    finish(&schema, value, &group, &version, &kind)?;
    Ok(warnings)
}

fn finish(schema: &Schema, value: &mut Value, group: &str, version: &str, kind: &str) -> Result<(), Status> {
    if deeper_than(value, MAX_DEPTH) {
        return Err(Status::bad_request(format!("the object is nested deeper than {MAX_DEPTH} levels")));
    }
    let Some(object) = value.as_object_mut() else {
        return Err(Status::bad_request(format!("a {kind} must be a JSON object")));
    };
    object.insert("apiVersion".into(), Value::String(api_version(group, version)));
    object.insert("kind".into(), Value::String(kind.into()));
    schema.default(value);
    Ok(())
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: Value,
    kind: Value,
}

impl Head {
    fn of(value: &Value) -> Self {
        Self { api_version: value["apiVersion"].clone(), kind: value["kind"].clone() }
    }
}

fn peek(json: &Bytes) -> Result<Head, Status> {
    serde_json::from_slice(json).map_err(|error| Status::bad_request(format!("the body cannot be read as JSON: {error}")))
}

fn check_kind(head: &Head, group: &str, version: &str, kind: &str) -> Result<(), Status> {
    let (api_version, its) = (head.api_version.as_str().unwrap_or_default(), head.kind.as_str().unwrap_or_default());
    let expected = self::api_version(group, version);
    if !api_version.is_empty() && api_version != expected {
        return Err(Status::bad_request(format!("the API version in the data ({api_version}) does not match the expected API version ({expected})")));
    }
    if !its.is_empty() && its != kind {
        return Err(Status::bad_request(format!("{its} in version \"{expected}\" cannot be handled as a {kind}")));
    }
    Ok(())
}

/// Whether arrays and objects are nested deeper than `limit`; never recurses further than that.
pub fn deeper_than(value: &Value, limit: usize) -> bool {
    if limit == 0 {
        return value.is_object() || value.is_array();
    }
    match value {
        Value::Object(map) => map.values().any(|v| deeper_than(v, limit - 1)),
        Value::Array(list) => list.iter().any(|v| deeper_than(v, limit - 1)),
        _ => false,
    }
}

/// `fieldValidation` of the query.
pub fn field_validation(text: Option<&str>) -> Result<FieldValidation, Status> {
    match text {
        None | Some("" | "Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some(other) => Err(Status::bad_request(format!(
            "fieldValidation: Unsupported value: \"{other}\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_is_measured_without_deep_recursion() {
        assert!(!deeper_than(&json!({"a": [1]}), 2));
        assert!(deeper_than(&json!({"a": [1]}), 1));
        assert!(deeper_than(&json!({"a": [[1]]}), 2));
    }

    #[test]
    fn yaml_and_json_are_read_and_nothing_else() {
        let json = to_json("application/yaml; charset=utf-8", &Bytes::from_static(b"a: [1, x]")).expect("yaml");
        assert_eq!(&json[..], br#"{"a":[1,"x"]}"#);
        assert_eq!(to_json("text/html", &Bytes::new()).expect_err("html").code, 415);
    }

    #[test]
    fn a_body_of_another_kind_is_refused() {
        let head = |v: Value| Head::of(&v);
        assert!(check_kind(&head(json!({})), "apps", "v1", "Deployment").is_ok());
        assert!(check_kind(&head(json!({"apiVersion": "apps/v1", "kind": "Deployment"})), "apps", "v1", "Deployment").is_ok());
        assert_eq!(check_kind(&head(json!({"kind": "Pod"})), "apps", "v1", "Deployment").expect_err("kind").code, 400);
        assert_eq!(check_kind(&head(json!({"apiVersion": "v1"})), "apps", "v1", "Deployment").expect_err("version").code, 400);
    }
}
