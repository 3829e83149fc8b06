//! Kubernetes' protobuf, read and written by the table's field numbers: an edge, never a second model. What is read becomes a JSON
//! value that goes on through the same canonicalisation as a JSON body; what is written is a canonical value.
//!
//! The encoding is upstream's (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`): an object is a message in an [`envelope`] that
//! names its kind. Unknown field numbers are skipped, as Go does. What is written is what Go's generated code writes, byte for byte:
//! upstream's examples of every kind prove it (see `examples/upstream.rs`).
//! (A protobuf crate with generated messages was rejected: it would be a second set of types beside the table.)

mod decode;
mod encode;
pub mod envelope;
mod layout;

use crate::facts;
use crate::types::{Shape, Type};
use bytes::Bytes;
use serde_json::{Map, Value};

pub(crate) use encode::{bytes, number};
pub(crate) use layout::Layout;

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub &'static str);

/// The object in a message as JSON, without apiVersion and kind, neither pruned nor defaulted.
pub(crate) fn decode(ty: &Type, message: &[u8]) -> Result<Map<String, Value>, Broken> {
    decode::object(ty, message)
}

/// The message of an object of type `ty`.
pub(crate) fn encode(ty: &Type, object: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode::object(ty, object, &mut out);
    out
}

/// The message of a canonical object of a built-in kind, which it names itself; None for any other.
pub fn message_of_value(object: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let (ty, _) = facts::of_kind(group, version, text("kind"))?;
    ty.layout().parts().next()?;
    object.as_object().map(|object| encode(&ty, object))
}

/// The apiVersion and kind that an envelope names; None if it is none.
pub fn kind_of(body: &[u8]) -> Option<(&str, &str)> {
    envelope::open(body).ok().map(|unknown| (unknown.api_version, unknown.kind))
}

/// As [`message_of_value`], in its envelope.
pub fn of_value(object: &Value) -> Option<Bytes> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    message_of_value(object).map(|message| envelope::seal(text("apiVersion"), text("kind"), &message))
}

impl Shape {
    /// A named list of strings is a message of its own with the list as field 1.
    fn is_wrapped(&self) -> bool {
        matches!(self, Shape::List(go, _) if matches!(&**go, "ExtraValue" | "Verbs"))
    }
}

#[cfg(test)]
mod tests;
