//! What objects travel in: the four bytes `k8s\0`, then a `runtime.Unknown` with apiVersion, kind and the object's own message.
//! Lists are such objects, whose message is put together from those of their items; a watch sends frames of length and event.

use super::decode::{self, text};
use super::{Broken, encode};
use crate::facts;
use bytes::Bytes;
use serde_json::{Map, Value};

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// What follows the object's message: contentEncoding and contentType, empty.
pub const TAIL: &[u8; 4] = &[0x1a, 0, 0x22, 0];

/// The kind and message within the envelope.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unknown<'a> {
    /// `apps/v1`
    pub api_version: &'a str,
    /// `Deployment`
    pub kind: &'a str,
    /// The object's own message.
    pub raw: &'a [u8],
}

/// Opens the envelope.
pub(crate) fn open(body: &[u8]) -> Result<Unknown<'_>, Broken> {
    let message = match body.strip_prefix(MAGIC) {
        Some([]) => return Err(Broken("empty body")),
        Some(message) => message,
        None if body.is_empty() => return Err(Broken("empty data")),
        None => return Err(Broken("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")),
    };
    let mut found = Unknown::default();
    decode::bytes_fields(message, |number, bytes| {
        match number {
            1 => decode::bytes_fields(bytes, |number, bytes| {
                match number {
                    1 => found.api_version = text(bytes)?,
                    2 => found.kind = text(bytes)?,
                    _ => {}
                }
                Ok(())
            })?,
            2 => found.raw = bytes,
            3 if !bytes.is_empty() => return Err(Broken("the message has a content encoding")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// What precedes a message of `raw` bytes; [`TAIL`] follows it.
pub fn head(api_version: &str, kind: &str, raw: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    encode::nested(1, &mut out, |out| {
        encode::bytes(1, api_version.as_bytes(), out);
        encode::bytes(2, kind.as_bytes(), out);
    });
    encode::length(2, raw, &mut out);
    out
}

/// An object's message in its envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Bytes {
    [&head(api_version, kind, raw.len()), raw, TAIL].concat().into()
}

/// What precedes one item of `bytes` bytes in a list.
pub fn item_head(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(6);
    encode::length(2, bytes, &mut out);
    out
}

/// What precedes the items of a list, which are `items` bytes with their heads; [`TAIL`] follows them. `metadata` is `ListMeta`.
pub fn list_head(api_version: &str, kind: &str, metadata: &Value, items: usize) -> Vec<u8> {
    let mut own = Vec::new();
    if let (Some(ty), Value::Object(metadata)) = (facts::named("meta.v1.ListMeta"), metadata) {
        encode::nested(1, &mut own, |out| encode::object(&ty, metadata, out));
    }
    let mut out = head(api_version, kind, own.len() + items);
    out.extend_from_slice(&own);
    out
}

/// Appends one event of a watch for a stream: four bytes of length, highest first, then the event.
pub fn event_frame(word: &str, object: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    event(word, object, out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends one event of a watch: a `WatchEvent` in no envelope, its object in one.
pub fn event(word: &str, object: &[u8], out: &mut Vec<u8>) {
    encode::bytes(1, word.as_bytes(), out);
    // A `RawExtension`, whose first field is the object.
    let mut raw = Vec::with_capacity(6);
    encode::length(1, object.len(), &mut raw);
    encode::length(2, raw.len() + object.len(), out);
    out.extend_from_slice(&raw);
    out.extend_from_slice(object);
}

/// The object in an envelope as JSON, with its apiVersion and kind.
pub(crate) fn object(ty: &crate::types::Type, unknown: &Unknown<'_>) -> Result<Map<String, Value>, Broken> {
    let mut map = super::decode(ty, unknown.raw)?;
    for (key, value) in [("apiVersion", unknown.api_version), ("kind", unknown.kind)] {
        if !value.is_empty() {
            map.insert(key.into(), value.into());
        }
    }
    Ok(map)
}
