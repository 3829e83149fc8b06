//! A kind's schema, and the set of all schemas a server knows.

use crate::managed::{Spot, View};
use crate::protobuf::{Broken, envelope};
use crate::structural::{self, Malformed, Structural, metadata};
use crate::types::{Link, Type};
use crate::{decode, defaults, facts, openapi, strategic, yaml};
use bytes::Bytes;
use coracle_api::{Status, cause::Mistake, registry::ResourceRef, status::Cause};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

/// What to do about fields that are unknown or given twice (`?fieldValidation=`, KEP-2885). They are pruned in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Answer with a `Warning` header each.
    Warn,
    /// Refuse the request.
    Strict,
}

/// The schema of one group, version, kind.
#[derive(Debug)]
pub struct Schema {
    group: Box<str>,
    version: Box<str>,
    kind: Box<str>,
    ty: Arc<Type>,
    /// Whether a body must be of this group and version; meta kinds (DeleteOptions) come under any.
    fixed: bool,
    /// The shape of a custom resource, whose `ty` has only the metadata.
    structural: Option<Structural>,
}

type Key = (Box<str>, Box<str>, Box<str>);

/// Every schema the server knows; cheap to clone, custom resources are added at run time.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    known: Arc<RwLock<BTreeMap<Key, Arc<Schema>>>>,
}

impl Schemas {
    /// All built-in kinds (and the meta kinds: DeleteOptions, Scale, Binding, TokenRequest, SubjectAccessReview family, Status …).
    /// Nothing is loaded until it is asked for.
    pub fn builtin() -> Schemas {
        Schemas::default()
    }

    /// The schema of a kind; `None` when the server has no such kind. `group` is empty for core.
    pub fn get(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
        let key: Key = (group.into(), version.into(), kind.into());
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(known.clone());
        }
        let (ty, fixed) = facts::of_kind(group, version, kind)?;
        let schema = Arc::new(Schema { group: group.into(), version: version.into(), kind: kind.into(), ty, fixed, structural: None });
        if !fixed {
            // Any group has these: kept, they would grow with what clients make up.
            return Some(schema);
        }
        Some(self.known.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(schema).clone())
    }

    /// OpenAPI v3 document of one group version (`/openapi/v3/apis/apps/v1`): paths with parameters, x-kubernetes-action,
    /// x-kubernetes-group-version-kind, and component schemas with descriptions. Serialized JSON; made anew by every call (some
    /// milliseconds), so that a document nobody asks for costs no memory. The caller keeps the bytes as long as it likes.
    pub fn openapi_v3(&self, group: &str, version: &str, resources: &[ResourceRef], custom: openapi::CustomSchemas<'_>) -> Bytes {
        openapi::v3(group, version, resources, custom)
    }

    /// `/openapi/v2` in JSON (kubectl ≤ 1.26 and client libraries).
    pub fn openapi_v2(&self, resources: &[ResourceRef], custom: openapi::CustomSchemas<'_>) -> Bytes {
        openapi::v2(resources, custom)
    }

    /// The definitions of a v2 document, in gnostic's protobuf (`openapi.v2.Document`).
    ///
    /// # Errors
    /// `document` is no v2 document in JSON.
    pub fn openapi_v2_protobuf(document: &[u8]) -> Result<Vec<u8>, String> {
        openapi::in_protobuf(document).map_err(|error| error.to_string())
    }
}

impl Schema {
    /// The schema of a custom resource in one version, from its `openAPIV3Schema`.
    ///
    /// # Errors
    /// A sentence about what no structural schema can hold.
    pub fn custom(group: &str, version: &str, kind: &str, open_api: &Value) -> Result<Schema, String> {
        let structural = Some(Structural::parse(open_api)?);
        let ty = Link::new("meta.v1.PartialObjectMetadata".into()).get().clone();
        Ok(Schema { group: group.into(), version: version.into(), kind: kind.into(), ty, fixed: true, structural })
    }

    /// The shape of a custom resource; None for built-in kinds.
    pub fn structural(&self) -> Option<&Structural> {
        self.structural.as_ref()
    }

    /// Parse a JSON body, canonicalise, prune unknown fields. Warnings for Warn (`unknown field "spec.foo"`, `duplicate field …`);
    /// an error (400, upstream's words: `strict decoding error: unknown field "spec.foo"`) for Strict and for wrong types.
    ///
    /// # Errors
    /// 400 for what is no JSON, a wrong type, another kind, and in Strict for unknown and duplicate fields.
    pub fn decode(&self, body: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        if let Some(shape) = &self.structural {
            let (value, doubles) = structural::read_json(body).map_err(|error| self.unrecognized(&syntax_error(body, &error), body))?;
            self.said_kind(&value, body)?;
            return self.shape(shape, value, doubles, mode, |message, data| match data {
                Some(data) => self.cannot_handle(data, message),
                None => self.unrecognized(&format!("couldn't get version/kind; json parse error: {message}"), body),
            });
        }
        let mut parser = serde_json::Deserializer::from_slice(body);
        let parsed = decode::object(&self.ty, &mut parser).and_then(|found| parser.end().map(|()| found));
        let (value, findings) = parsed.map_err(|error| self.unrecognized(&syntax_error(body, &error), body))?;
        self.judge(value, findings, mode, |message, data| match data {
            Some(data) => self.cannot_handle(data, message),
            None => self.unrecognized(&format!("couldn't get version/kind; json parse error: {message}"), body),
        })
    }

    /// As [`Schema::decode`], for a YAML body: keys given twice are named by their line.
    ///
    /// # Errors
    /// As [`Schema::decode`].
    pub fn decode_yaml(&self, body: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        let (value, duplicates) = yaml::read(body).map_err(|why| self.unrecognized(&why, body))?;
        let refuse = |message: &str, data: Option<&Map<String, Value>>| match data {
            Some(data) => self.cannot_handle(data, message),
            None => self.unrecognized(&format!("couldn't get version/kind; json parse error: {message}"), body),
        };
        if let Some(shape) = &self.structural {
            let (value, _) = structural::read(value).map_err(|error: serde_json::Error| Status::bad_request(error.to_string()))?;
            self.said_kind(&value, body)?;
            let duplicates = match mode {
                FieldValidation::Strict if !duplicates.is_empty() => vec![yaml::summary(&duplicates)],
                _ => duplicates,
            };
            return self.shape(shape, value, duplicates, mode, refuse);
        }
        let walked: Result<_, serde_json::Error> = decode::object(&self.ty, value);
        let (value, mut findings) = walked.map_err(|error| Status::bad_request(error.to_string()))?;
        match mode {
            FieldValidation::Strict if !duplicates.is_empty() => findings.strict.insert(0, yaml::summary(&duplicates)),
            _ => findings.strict.splice(..0, duplicates).for_each(drop),
        }
        self.judge(value, findings, mode, refuse)
    }

    /// As [`Schema::decode`], for a body in Kubernetes' protobuf encoding. Strict has nothing to find there: unknown numbers are skipped.
    ///
    /// # Errors
    /// 400 for what is no such message, and for another kind.
    pub fn decode_protobuf(&self, body: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        if self.structural.is_some() {
            return Err(Status::new(415, "UnsupportedMediaType", "custom resources have no encoding in protobuf: send JSON or YAML"));
        }
        let unknown = envelope::open(body).map_err(|Broken(why)| self.unrecognized(why, body))?;
        let said = Map::from_iter([("apiVersion".into(), unknown.api_version.into()), ("kind".into(), unknown.kind.into())]);
        if self.fixed {
            // Another kind's message means nothing to this one's numbers.
            self.check_kind(&said)?;
        }
        let mut value = envelope::object(&self.ty, &unknown).map(Value::Object).map_err(|Broken(why)| self.cannot_handle(&said, why))?;
        let warnings = self.canonicalize(&mut value, mode)?;
        Ok((value, warnings))
    }

    /// Whether the kind has a protobuf encoding; custom resources have none.
    pub fn has_protobuf(&self) -> bool {
        self.structural.is_none() && self.ty.layout().parts().next().is_some()
    }

    /// The protobuf message of a canonical object, without the [`envelope`] it travels in.
    pub fn encode_protobuf(&self, object: &Value) -> Vec<u8> {
        let empty = Map::new();
        crate::protobuf::encode(&self.ty, object.as_object().unwrap_or(&empty))
    }

    /// Same for a value already parsed (patch results, in-process callers). Idempotent.
    ///
    /// # Errors
    /// As [`Schema::decode`]. On an error `object` is left null.
    pub fn canonicalize(&self, object: &mut Value, mode: FieldValidation) -> Result<Vec<String>, Status> {
        self.walk(object, &[], mode, |message, data| self.cannot_handle(data.unwrap_or(&Map::new()), message))
    }

    /// As [`Schema::canonicalize`], for the outcome of a patch: what is wrong then is the patch's fault. `strict`: what is unknown or stands twice in the
    /// patch itself.
    ///
    /// # Errors
    /// What `refuse` makes of a wrong type, and in Strict of unknown fields. On an error `object` is left null.
    pub fn canonicalize_patched(
        &self,
        object: &mut Value,
        strict: &[String],
        mode: FieldValidation,
        refuse: impl Fn(&str) -> Status,
    ) -> Result<Vec<String>, Status> {
        self.walk(object, strict, mode, |message, _| refuse(message))
    }

    fn walk(
        &self,
        object: &mut Value,
        strict: &[String],
        mode: FieldValidation,
        refuse: impl Fn(&str, Option<&Map<String, Value>>) -> Status,
    ) -> Result<Vec<String>, Status> {
        if let Some(shape) = &self.structural {
            let (value, _) = structural::read(std::mem::take(object)).map_err(|error: serde_json::Error| Status::bad_request(error.to_string()))?;
            let (value, warnings) = self.shape(shape, value, strict.to_vec(), mode, refuse)?;
            *object = value;
            return Ok(warnings);
        }
        let (value, mut findings) =
            decode::object(&self.ty, std::mem::take(object)).map_err(|error: serde_json::Error| Status::bad_request(error.to_string()))?;
        findings.strict.splice(0..0, strict.iter().cloned());
        let (value, warnings) = self.judge(value, findings, mode, refuse)?;
        *object = value;
        Ok(warnings)
    }

    /// A custom object in its canonical form: metadata as `ObjectMeta`, everything else cut to the schema.
    fn shape(
        &self,
        shape: &Structural,
        mut value: Value,
        mut strict: Vec<String>,
        mode: FieldValidation,
        refuse: impl Fn(&str, Option<&Map<String, Value>>) -> Status,
    ) -> Result<(Value, Vec<String>), Status> {
        let Value::Object(map) = &mut value else {
            let found = match value {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                _ => "null",
            };
            return Err(refuse(&format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"), None));
        };
        for field in ["apiVersion", "kind"] {
            if let Some(other) = map.get(field).filter(|value| !value.is_string()) {
                let error = format!(".{field} accessor error: {other} is of the type {}, expected string", structural::go_type(other));
                return Err(refuse(&error, Some(map)));
            }
        }
        self.check_custom_kind(map)?;
        map.insert("apiVersion".into(), self.api_version().into());
        map.insert("kind".into(), (*self.kind).into());
        let mut unknown = Vec::new();
        if let Some(metadata) = map.get_mut("metadata") {
            match metadata::object_meta(metadata, Malformed::Refuse) {
                Ok(fields) => unknown.extend(fields.iter().filter_map(|strict| Some(format!("metadata.{}", metadata::unknown_name(strict)?)))),
                Err(error) => return Err(refuse(&error, Some(map))),
            }
        }
        unknown.extend(shape.prune(&mut value));
        shape.drop_nulls(&mut value);
        match structural::coerce(shape.root(), &mut value, false, Malformed::Refuse) {
            Ok(fields) => unknown.extend(fields),
            Err(cause) => return Err(refuse(&cause.line(), value.as_object())),
        }
        strict.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
        match mode {
            FieldValidation::Strict if !strict.is_empty() => Err(refuse(&format!("strict decoding error: {}", strict.join(", ")), value.as_object())),
            FieldValidation::Warn => Ok((value, strict)),
            _ => Ok((value, Vec::new())),
        }
    }

    /// A custom object must say what it is.
    fn said_kind(&self, value: &Value, body: &[u8]) -> Result<(), Status> {
        let Some(map) = value.as_object() else { return Ok(()) };
        let missing = |key: &str| map.get(key).is_none_or(|value| value.as_str().is_some_and(str::is_empty));
        let shown = || String::from_utf8_lossy(body.get(..8192).unwrap_or(body)).into_owned();
        if missing("kind") {
            return Err(self.unrecognized(&format!("Object 'Kind' is missing in '{}'", shown()), body));
        }
        if missing("apiVersion") {
            return Err(self.cannot_handle(map, &format!("Object 'apiVersion' is missing in '{}'", shown())));
        }
        Ok(())
    }

    /// The body must be of this version and kind, if it says of which it is.
    fn check_custom_kind(&self, map: &Map<String, Value>) -> Result<(), Status> {
        let said = |key: &str| map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        let own = self.api_version();
        if let Some(other) = said("apiVersion").filter(|version| *version != own) {
            return Err(Status::bad_request(format!("the API version in the data ({other}) does not match the expected API version ({own})")));
        }
        if let Some(other) = said("kind").filter(|kind| **kind != *self.kind) {
            let cause = Cause::of(Mistake::Invalid, "kind", Some(&other.into()), &format!("must be {}", self.kind));
            let name = map.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default();
            return Err(Status::invalid(&self.group, &self.kind, name, vec![cause]));
        }
        Ok(())
    }

    /// From what the walk found to the answer: the object and its warnings, or the error.
    fn judge(
        &self,
        value: Option<Value>,
        findings: decode::Findings,
        mode: FieldValidation,
        refuse: impl Fn(&str, Option<&Map<String, Value>>) -> Status,
    ) -> Result<(Value, Vec<String>), Status> {
        let Some(Value::Object(mut map)) = value else {
            return Err(refuse(findings.error.as_deref().unwrap_or("no object"), None));
        };
        if self.fixed {
            self.check_kind(&map)?;
        }
        if let Some(error) = &findings.error {
            return Err(refuse(error, Some(&map)));
        }
        if self.fixed {
            map.insert("apiVersion".into(), self.api_version().into());
            map.insert("kind".into(), (*self.kind).into());
        }
        match mode {
            FieldValidation::Strict if !findings.strict.is_empty() => {
                Err(refuse(&format!("strict decoding error: {}", findings.strict.join(", ")), Some(&map)))
            }
            FieldValidation::Warn => Ok((Value::Object(map), findings.strict)),
            _ => Ok((Value::Object(map), Vec::new())),
        }
    }

    /// Fill defaults (upstream's `SetDefaults_*` and `+default`), for the whole object. Idempotent.
    pub fn default(&self, object: &mut Value) {
        match (&self.structural, object) {
            (Some(shape), object) => shape.default(object),
            (None, Value::Object(map)) => defaults::fill(&self.ty, map),
            _ => {}
        }
    }

    /// What reading a stored custom object in this schema's version does to it: what the schema has forgotten goes, what it has learnt to default is
    /// filled in. Built-in kinds stay as they are.
    pub fn restore(&self, object: &mut Value) {
        self.fit(object);
        if let Some(shape) = &self.structural {
            shape.default(object);
        }
    }

    /// Cuts a custom object to the schema, without a word about what does not fit: after conversion from another version.
    pub fn fit(&self, object: &mut Value) {
        let Some(shape) = &self.structural else { return };
        if let Some(metadata) = object.get_mut("metadata") {
            // Nothing is refused here.
            let _ = metadata::object_meta(metadata, Malformed::Drop);
        }
        shape.prune(object);
        shape.drop_nulls(object);
        let _ = structural::coerce(shape.root(), object, false, Malformed::Drop);
    }

    /// Strategic merge patch with directives ($patch, $setElementOrder, $retainKeys, $deleteFromPrimitiveList). The result is not
    /// canonical yet.
    ///
    /// # Errors
    /// 400 for a patch that is no object or whose directives cannot be followed, 415 for a custom kind, which has no merge strategies.
    pub fn strategic_merge(&self, current: &Value, patch: &Value) -> Result<Value, Status> {
        if self.structural.is_some() {
            let known = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            let why = format!("the body of the request was in an unknown format - accepted media types include: {known}");
            return Err(Status::new(415, "UnsupportedMediaType", why));
        }
        strategic::merge(&self.ty, current, patch)
    }

    /// Its type.
    pub(crate) fn ty(&self) -> &Arc<Type> {
        &self.ty
    }

    /// The schema as merge rules see it.
    pub(crate) fn view(&self) -> View<'_> {
        match &self.structural {
            Some(shape) => View::Custom(Spot::root(shape.root(), &self.ty)),
            None => View::Struct(&self.ty, None),
        }
    }

    /// What an object that says nothing holds.
    pub(crate) fn zero(&self) -> Map<String, Value> {
        if self.structural.is_some() { Map::new() } else { self.ty.zero() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind, such as `Deployment`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The body must be of this kind, if it says of which it is.
    fn check_kind(&self, map: &Map<String, Value>) -> Result<(), Status> {
        let said = |key: &str| map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        let own = self.api_version();
        let (api_version, kind) = (said("apiVersion").unwrap_or(&own), said("kind").unwrap_or(&self.kind));
        if api_version == own && kind == &*self.kind {
            return Ok(());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if facts::of_kind(group, version, kind).is_none() {
            let why = format!("no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"");
            return Err(self.cannot_handle(map, &why));
        }
        if kind == &*self.kind {
            return Err(Status::bad_request(format!("the API version in the data ({api_version}) does not match the expected API version ({own})")));
        }
        let package = |group: &str| if group.is_empty() { "core".to_owned() } else { group.split('.').next().unwrap_or_default().to_owned() };
        let why = format!("converting ({version}.{kind}) to ({}.{}): unknown conversion", package(&self.group), self.kind);
        Err(self.cannot_handle(map, &why))
    }

    /// `Deployment in version "v1" cannot be handled as a Deployment: why`.
    fn cannot_handle(&self, data: &Map<String, Value>, why: &str) -> Status {
        let said = |key: &str| data.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        let version = said("apiVersion").map_or(&*self.version, |v| v.rsplit('/').next().unwrap_or(v));
        Status::bad_request(format!("{} in version {version:?} cannot be handled as a {}: {why}", said("kind").unwrap_or(&self.kind), self.kind))
    }

    /// For bodies that are no object at all.
    fn unrecognized(&self, why: &str, body: &[u8]) -> Status {
        Status::bad_request(format!("the object provided is unrecognized (must be of type {}): {why} ({})", self.kind, summary(body)))
    }
}

/// The beginning of a body, as upstream shows it: text if it looks like JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    let head = body.get(..30).unwrap_or(body);
    let more = if body.len() > head.len() { " ..." } else { "" };
    match head.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let mut hex = String::with_capacity(64);
            for byte in head {
                let _ = write!(hex, "{byte:02x}");
            }
            hex + more
        }
    }
}

/// A syntax error in Go's words.
fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    let why = if error.is_eof() || body.is_empty() {
        "unexpected end of JSON input".to_owned()
    } else {
        let line = body.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        let at = line.get(error.column().saturating_sub(1)).copied().unwrap_or(b' ');
        let text = error.to_string();
        if text.contains("recursion limit") {
            "exceeded max depth".to_owned()
        } else if text.contains("trailing characters") {
            format!("invalid character {:?} after top-level value", char::from(at))
        } else {
            format!("invalid character {:?} looking for beginning of value", char::from(at))
        }
    };
    format!("couldn't get version/kind; json parse error: {why}")
}

#[cfg(test)]
mod tests;
