//! Authentication, RBAC, node authorization, audit.
//!
//! SKELETON: contract (owner: auth room).
use coracle_api::status::Status;
use std::sync::Arc;

/// Who asks (`authentication.k8s.io/v1 UserInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Vec<(String, Vec<String>)>,
}

/// What is asked, in RBAC's words.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    /// Empty group/resource with a `path` for non-resource requests.
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
}

#[derive(Clone)]
pub struct Auth {}
impl Auth {
    /// From the verified client certificate (DER), else the bearer token, else anonymous (`system:anonymous`, `system:unauthenticated`).
    /// A bad token is 401, never anonymous.
    pub async fn authenticate(&self, client_certificate: Option<&[u8]>, authorization: Option<&str>) -> Result<Arc<User>, Status> {
        unimplemented!()
    }
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        unimplemented!()
    }
}
