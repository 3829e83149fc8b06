//! Structural schemas: canonical form, pruning, defaults, field validation, strategic merge, OpenAPI. Pure.
//!
//! One table of facts (`schema/facts/`, see the module `facts`) describes every built-in type; it is read lazily, a type at a time, and
//! types are shared between kinds. A [`Schema`] is a kind's view of it. Objects are `serde_json::Value`s on the way through the
//! pipeline and canonical bytes ([`to_draft`]) at rest.

mod declaration;
mod decode;
mod defaults;
mod depth;
mod draft;
mod facts;
mod fold;
pub mod managed;
mod merge;
mod openapi;
mod overlay;
#[cfg(test)]
mod properties;
pub mod protobuf;
mod schema;
mod strategic;
pub mod structural;
mod types;
mod untyped;
pub mod yaml;

pub use depth::{MAX_DEPTH, depth};
pub use draft::{to_bytes, to_draft};
pub use merge::json_merge_patch;
pub use openapi::CustomSchemas;
pub use schema::{FieldValidation, Schema, Schemas};
pub use structural::read_json;
pub use untyped::json as untyped_json;
