//! OpenAPI documents, made when somebody asks: components from the facts table, descriptions from k8s-openapi, paths from the registry.
//!
//! kubectl reads them for `explain` (paths lead it from a resource to its kind, components hold the text) and before it lets the
//! server validate (a `fieldValidation` parameter on PATCH). Component names and extensions are upstream's, so that other clients
//! find what they look for. A document is written as a stream of small values: no tree of a whole document is ever in memory.

mod components;
mod custom;
mod descriptions;
mod gnostic;
mod paths;

pub(crate) use gnostic::encode as in_protobuf;

use bytes::Bytes;
use components::Components;
use coracle_api::registry::{Resource, ResourceRef};
use serde_json::{Value, json};

/// Which of the two OpenAPI generations a document is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// The `$ref` to a component.
    fn reference(self, name: &str) -> Value {
        let place = match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{place}{name}") })
    }
}

/// Gives the `openAPIV3Schema` of a custom resource; None for built-in ones.
pub type CustomSchemas<'a> = &'a dyn Fn(&Resource) -> Option<Value>;

/// The document of one group version.
pub(crate) fn v3(group: &str, version: &str, resources: &[ResourceRef], custom: CustomSchemas<'_>) -> Bytes {
    let mut components = Components::new(Dialect::V3, custom);
    let mut out = Vec::with_capacity(256 * 1024);
    out.extend_from_slice(br#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"unversioned"},"paths":{"#);
    let own = resources.iter().filter(|r| &*r.group == group && &*r.version == version);
    paths::write(own, &mut components, &mut out);
    out.extend_from_slice(br#"},"components":{"schemas":{"#);
    components.write(&mut out);
    out.extend_from_slice(
        br#"},"securitySchemes":{"BearerToken":{"description":"A bearer token","in":"header","name":"authorization","type":"apiKey"}}}}"#,
    );
    out.into()
}

/// The document of everything, in the older form.
pub(crate) fn v2(resources: &[ResourceRef], custom: CustomSchemas<'_>) -> Bytes {
    let mut components = Components::new(Dialect::V2, custom);
    let mut out = Vec::with_capacity(1024 * 1024);
    out.extend_from_slice(br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"unversioned"},"paths":{"#);
    paths::write(resources.iter(), &mut components, &mut out);
    out.extend_from_slice(br#"},"definitions":{"#);
    components.write(&mut out);
    out.extend_from_slice(
        br#"},"securityDefinitions":{"BearerToken":{"description":"A bearer token","in":"header","name":"authorization","type":"apiKey"}},"security":[{"BearerToken":[]}]}"#,
    );
    out.into()
}

/// Appends `"name":value` to an object that is being written.
fn member(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    // Writing JSON into memory cannot fail.
    serde_json::to_writer(&mut *out, name).unwrap_or_default();
    out.push(b':');
    serde_json::to_writer(&mut *out, value).unwrap_or_default();
}

#[cfg(test)]
mod tests;
