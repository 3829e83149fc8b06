//! Structural schemas: canonical form, pruning, defaults, field validation, strategic merge, OpenAPI. Pure.
//!
//! SKELETON: contract.
#![allow(unused, missing_docs, clippy::all)]
use bytes::Bytes;
use coracle_api::{registry::ResourceRef, status::Status};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The schema of one group, version, kind.
#[derive(Debug)]
pub struct Schema {}

/// Every schema the server knows; cheap to clone, custom resources are added at run time.
#[derive(Clone)]
pub struct Schemas {}

impl Schemas {
    /// All built-in kinds (and the meta kinds: DeleteOptions, Scale, Binding, TokenRequest, SubjectAccessReview family, Status …).
    pub fn builtin() -> Schemas {
        unimplemented!()
    }
    pub fn get(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
        unimplemented!()
    }
    /// OpenAPI v3 document of one group version (`/openapi/v3/apis/apps/v1`): paths with parameters, x-kubernetes-action,
    /// x-kubernetes-group-version-kind, and component schemas with descriptions. Serialized, made once.
    pub fn openapi_v3(&self, group: &str, version: &str, resources: &[ResourceRef]) -> Bytes {
        unimplemented!()
    }
    /// `/openapi/v2` in JSON (kubectl ≤ 1.26 and client libraries).
    pub fn openapi_v2(&self, resources: &[ResourceRef]) -> Bytes {
        unimplemented!()
    }
}

impl Schema {
    /// Parse a JSON body, canonicalise, prune unknown fields. Warnings for Warn (`unknown field "spec.foo"`, `duplicate field …`);
    /// an error (400, upstream's words: `strict decoding error: unknown field "spec.foo"`) for Strict and for wrong types.
    pub fn decode(&self, body: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        unimplemented!()
    }
    /// Same for a value already parsed (patch results, in-process callers). Idempotent.
    pub fn canonicalize(&self, object: &mut Value, mode: FieldValidation) -> Result<Vec<String>, Status> {
        unimplemented!()
    }
    /// Fill defaults (upstream's `SetDefaults_*` and `+default`), for the whole object. Idempotent.
    pub fn default(&self, object: &mut Value) {
        unimplemented!()
    }
    /// Strategic merge patch with directives ($patch, $setElementOrder, $retainKeys, $deleteFromPrimitiveList).
    pub fn strategic_merge(&self, current: &Value, patch: &Value) -> Result<Value, Status> {
        unimplemented!()
    }
}

/// Canonical bytes (keys sorted as serde_json sorts them, no whitespace) and the offset at which the decimal resourceVersion goes:
/// inside `"resourceVersion":""` of metadata. Any resourceVersion in `object` is ignored.
pub fn to_draft(object: &Value) -> (Bytes, u32) {
    unimplemented!()
}

/// RFC 7386.
pub fn json_merge_patch(current: &Value, patch: &Value) -> Value {
    unimplemented!()
}
