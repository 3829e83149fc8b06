//! The one pipeline that every request takes, from HTTPS, from a node's link and from controllers alike.
//!
//! SKELETON: contract (owner: http room).
use crate::auth::User;
use bytes::Bytes;
use coracle_api::{registry::ResourceRef, status::Status};
use coracle_schema::FieldValidation;
use coracle_store::{Object, Snapshot, Store, Watch};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Proxy,
}
impl Verb {
    pub fn as_str(self) -> &'static str {
        unimplemented!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

#[derive(Clone, Debug)]
pub enum Body {
    None,
    /// Raw bytes as they came, JSON or YAML by content type.
    Raw {
        content_type: String,
        bytes: Bytes,
    },
    /// From in-process callers.
    Object(Value),
    Patch {
        kind: PatchKind,
        bytes: Bytes,
    },
}

/// Query options of a write; list and watch options are `ListOptions` in `http`.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub field_manager: String,
    pub force: bool,
}

/// One request about resources. Non-resource paths (/version, /openapi) are answered in `http` after authorization.
#[derive(Clone, Debug)]
pub struct Request {
    pub user: Arc<User>,
    pub verb: Verb,
    pub resource: ResourceRef,
    /// Empty for the main resource.
    pub subresource: Box<str>,
    pub namespace: String,
    /// Empty for create, list, watch, deletecollection.
    pub name: String,
    pub query: Vec<(String, String)>,
    pub write: WriteOptions,
    pub body: Body,
}

pub enum Answer {
    /// Stored bytes as they are; `created` gives 201. Warnings go out as headers.
    Object {
        object: Arc<Object>,
        created: bool,
        warnings: Vec<String>,
    },
    /// Made for this request (dry-run, reviews, Scale, Status of deletes).
    Value {
        code: u16,
        value: Value,
        warnings: Vec<String>,
    },
    List(Box<crate::http::list::Page>),
    Watch(Box<crate::http::watch::Stream>),
}
