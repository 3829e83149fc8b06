//! From a request's body to a value with canonical form and defaults.

use super::{
    Body, Core, Request,
    patch::{self, Patch},
};
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
    let row = &request.resource;
    match row.subresource(&request.subresource).map(|sub| &sub.gvk) {
        Some((group, version, kind)) if *kind != row.kind => core.schemas.get(group, version, kind),
        _ => core.schema_of(row),
    }
}

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    /// Of a `Content-Type`; none is JSON.
    fn of(content_type: &str) -> Result<Self, Status> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(unsupported("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
        }
    }

    fn read(self, schema: &Schema, bytes: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        match self {
            Self::Json => schema.decode(bytes, mode),
            Self::Yaml => schema.decode_yaml(bytes, mode),
            Self::Protobuf if schema.has_protobuf() => schema.decode_protobuf(bytes, mode),
            Self::Protobuf => Err(unsupported("application/json, application/yaml")),
        }
    }
}

/// 415 in upstream's words.
pub fn unsupported(accepted: &str) -> Status {
    Status::new(415, "UnsupportedMediaType", format!("the body of the request was in an unknown format - accepted media types include: {accepted}"))
}

/// The options in a delete's body, whatever its encoding. An empty body has none.
pub fn options(core: &Core, content_type: &str, bytes: &Bytes) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Object(Default::default()));
    }
    let schema = core.schemas.get("", "v1", "DeleteOptions").ok_or_else(|| Status::internal("no schema for DeleteOptions"))?;
    Encoding::of(content_type)?.read(&schema, bytes, FieldValidation::Ignore).map(|(value, _)| value)
}

/// A YAML body as JSON; JSON passes.
pub fn to_json(content_type: &str, bytes: &Bytes) -> Result<Bytes, Status> {
    match Encoding::of(content_type)? {
        Encoding::Json => Ok(bytes.clone()),
        Encoding::Yaml => coracle_schema::yaml::read(bytes).map(|(value, _)| value.to_string().into()).map_err(Status::bad_request),
        Encoding::Protobuf => Err(unsupported("application/json, application/yaml")),
    }
}

/// The decoded body. `apiVersion` and `kind` may be left out; if given they must be right.
pub fn body(core: &Core, request: &Request) -> Result<Value, Status> {
    let (group, version, kind) = kind_of(request);
    let schema = schema_of(core, request).ok_or_else(|| Status::internal(format_args!("no schema for {kind} in {group}/{version}")))?;
    let mode = request.write.field_validation;
    let (mut value, warnings) = match &request.body {
        Body::None => return Err(Status::bad_request(format!("a {kind} is needed as the body of this request"))),
        Body::Raw { content_type, bytes } => Encoding::of(content_type)?.read(&schema, bytes, mode)?,
        Body::Object(value) => {
            let mut value = value.clone();
            let warnings = schema.canonicalize(&mut value, mode)?;
            (value, warnings)
        }
        Body::Patch { .. } => return Err(Status::method_not_allowed()),
    };
    request.warnings.extend(warnings);
    finish(&schema, &mut value, &group, &version, &kind)?;
    Ok(value)
}

/// A patched or applied value brought back into form; `patch` is what it was patched by.
pub fn patched(core: &Core, request: &Request, value: &mut Value, patch: Option<&Patch>) -> Result<(), Status> {
    let row = &request.resource;
    let (group, version, kind) = match &*request.subresource {
        "scale" => kind_of(request),
        _ => (row.group.clone(), row.version.clone(), row.kind.clone()),
    };
    let schema = match &*request.subresource {
        "scale" => core.schemas.get(&group, &version, &kind),
        _ => core.schema_of(row),
    };
    let schema = schema.ok_or_else(|| Status::internal(format_args!("no schema for {kind}")))?;
    if deeper_than(value, MAX_DEPTH) {
        return Err(Status::bad_request(format!("the patched object is nested deeper than {MAX_DEPTH} levels")));
    }
    let shown = patch.and_then(Patch::strategic).map_or_else(|| coracle_schema::to_bytes(value), Bytes::from);
    let strict = patch.map_or(&[][..], |patch| &patch.strict);
    let warnings = schema.canonicalize_patched(value, strict, request.write.field_validation, |why| patch::unfit(&shown, why))?;
    request.warnings.extend(warnings);
    finish(&schema, value, &group, &version, &kind)
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
}
