//! OpenAPI documents.
use bytes::Bytes;
use coracle_api::registry::ResourceRef;

pub(crate) fn v3(_group: &str, _version: &str, _resources: &[ResourceRef]) -> Bytes {
    Bytes::from_static(br#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{},"components":{"schemas":{}}}"#)
}

pub(crate) fn v2(_resources: &[ResourceRef]) -> Bytes {
    Bytes::from_static(br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{},"definitions":{}}"#)
}
