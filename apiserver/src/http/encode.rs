//! From stored objects to the bytes of one answer: in the encoding and shape that was negotiated.
//!
//! Stored bytes go out as they are, and the protobuf message of an object is made once and kept with it; whatever else a client
//! asks for (tables, metadata, YAML) is made for that answer.

use super::{
    accept::{Accepted, Media, Shape},
    table::{self, Include, Tables},
};
use crate::pipeline::{
    Core,
    list::{self, Page},
    watch::Event,
};
use bytes::{Bytes, BytesMut};
use coracle_api::registry::ResourceRef;
use coracle_schema::{Schema, protobuf, protobuf::envelope};
use coracle_store::Object;
use futures::Stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};
use tokio_tungstenite::tungstenite::Message;

/// Slot of the protobuf message among an object's encodings.
const MESSAGE: usize = 1;
/// Lists go out in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// JSON text in a wanted encoding; None where the kind has no such encoding.
pub fn document(media: Media, json: impl Into<Bytes>) -> Option<Bytes> {
    let json = json.into();
    let parse = || serde_json::from_slice::<Value>(&json).ok();
    match media {
        Media::Yaml => serde_norway::to_string(&parse()?).ok().map(Bytes::from),
        Media::Protobuf => protobuf::of_value(&parse()?),
        Media::Json => Some(json),
    }
}

fn list_head(kind: &str, api_version: &str, metadata: &Value) -> String {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
}

/// Writes objects of one resource.
pub struct Encoder {
    accepted: Accepted,
    row: ResourceRef,
    schema: Option<Arc<Schema>>,
    /// Only for tables: most watches are not, and there may be thousands.
    tables: Option<Box<Tables>>,
}

impl Encoder {
    /// For objects of a row.
    pub fn new(core: &Core, row: &ResourceRef, accepted: Accepted, include: Include) -> Self {
        let schema = match accepted.media {
            Media::Protobuf => core.schemas.get(&row.group, &row.version, &row.kind),
            Media::Json | Media::Yaml => None,
        };
        let tables = (accepted.shape == Shape::Table).then(|| Box::new(Tables::new(core, row, include, accepted.meta)));
        Self { accepted, row: row.clone(), schema, tables }
    }

    /// Ages in tables are told from this moment on.
    pub fn set_now(&mut self, now: Timestamp) {
        if let Some(tables) = &mut self.tables {
            tables.set_now(now);
        }
    }

    /// The kind and version under which objects are shown.
    fn kind(&self) -> (String, &str) {
        match self.accepted.shape {
            Shape::Object => (self.row.api_version(), &self.row.kind),
            Shape::Table => (self.accepted.meta.to_string(), "Table"),
            Shape::Partial | Shape::PartialList => (self.accepted.meta.to_string(), "PartialObjectMetadata"),
        }
    }

    /// One stored object as a document.
    pub fn object(&self, object: &Object) -> Bytes {
        match (self.accepted.media, self.accepted.shape) {
            (Media::Json, Shape::Object) => object.json.clone(),
            (Media::Json, _) => self.json(object).into(),
            (Media::Yaml, _) => document(Media::Yaml, self.json(object)).unwrap_or_default(),
            (Media::Protobuf, _) => {
                let (api_version, kind) = self.kind();
                envelope::seal(&api_version, kind, &self.message(object))
            }
        }
    }

    /// The JSON text of a stored object in its shape.
    fn json(&self, object: &Object) -> String {
        match (self.accepted.shape, &self.tables) {
            (Shape::Table, Some(tables)) => {
                let metadata = list::list_metadata(object.revision, "", None);
                tables.around(&tables.definitions(), &metadata, &tables.row(object))
            }
            (Shape::Partial | Shape::PartialList, _) => table::partial(&object.json, self.accepted.meta),
            _ => String::from_utf8_lossy(&object.json).into_owned(),
        }
    }

    /// The protobuf message of a stored object in its shape.
    fn message(&self, object: &Object) -> Bytes {
        let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
        match (self.accepted.shape, &self.schema) {
            (Shape::Object, Some(schema)) => object.encoding(MESSAGE, || schema.encode_protobuf(&parse(&object.json)).into()),
            (Shape::Object | Shape::Table, _) => Bytes::new(),
            (Shape::Partial | Shape::PartialList, _) => {
                let partial = parse(table::partial(&object.json, self.accepted.meta).as_bytes());
                protobuf::message_of_value(&partial).unwrap_or_default().into()
            }
        }
    }

    /// An object that was made for this answer, in its shape: what a dry run would have stored.
    pub fn value(&self, value: &Value) -> Option<Bytes> {
        let text = value.to_string();
        let shown = match (self.accepted.shape, &self.tables) {
            (Shape::Table, Some(tables)) => {
                let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"].as_str().unwrap_or_default()});
                tables.around(&tables.definitions(), &metadata, &tables.row_of(value, text.as_bytes()))
            }
            (Shape::Partial | Shape::PartialList, _) => table::partial(text.as_bytes(), self.accepted.meta),
            _ => text,
        };
        document(self.accepted.media, shown)
    }

    /// A page as one document, in pieces.
    pub fn page(self, page: Page) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        use futures::{StreamExt, future::Either, stream};
        match self.accepted.media {
            Media::Protobuf => Either::Left(self.messages(page)),
            Media::Json => Either::Right(Either::Left(stream::iter(self.pieces(page)).map(Ok))),
            Media::Yaml => {
                let whole = self.pieces(page).fold(BytesMut::new(), |mut whole, piece| {
                    whole.extend_from_slice(&piece);
                    whole
                });
                Either::Right(Either::Right(stream::iter([Ok(document(Media::Yaml, whole).unwrap_or_default())])))
            }
        }
    }

    /// The JSON of a page: head, items, tail. What a slow reader has not taken yet is not made yet, and stays shared with the store.
    fn pieces(self, page: Page) -> impl Iterator<Item = Bytes> + Send + 'static {
        let metadata = list::list_metadata(page.revision, &page.next, page.remaining);
        let head = match (self.accepted.shape, &self.tables) {
            (Shape::Table, Some(tables)) => tables.head(&tables.definitions(), &metadata),
            (Shape::Partial | Shape::PartialList, _) => list_head("PartialObjectMetadataList", self.accepted.meta, &metadata),
            _ => list_head(&page.row.list_kind, &page.row.api_version(), &metadata),
        };
        let (mut items, mut buffer, mut separator, mut done) = (page.items.into_iter(), BytesMut::from(head.as_bytes()), "", false);
        std::iter::from_fn(move || {
            while buffer.len() < PIECE && !done {
                let Some(object) = items.next() else {
                    buffer.extend_from_slice(b"]}");
                    done = true;
                    break;
                };
                buffer.extend_from_slice(separator.as_bytes());
                separator = ",";
                match (self.accepted.shape, &self.tables) {
                    (Shape::Table, Some(tables)) => buffer.extend_from_slice(tables.row(&object).as_bytes()),
                    (Shape::Partial | Shape::PartialList, _) => buffer.extend_from_slice(table::partial(&object.json, self.accepted.meta).as_bytes()),
                    _ => buffer.extend_from_slice(&object.json),
                }
            }
            (!buffer.is_empty()).then(|| buffer.split().freeze())
        })
    }

    /// A list in protobuf. It begins with its length, so messages are made twice where the store does not keep them: to be measured, and to
    /// be sent. (Holding them all in between was rejected: a large list would be in memory once for each of its readers.)
    fn messages(self, page: Page) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        enum Part {
            Head,
            Items(usize),
            Done,
        }
        futures::stream::unfold((self, page, Part::Head), |(encoder, page, part)| async move {
            match part {
                Part::Head => {
                    let (mut sum, mut worked) = (0, 0);
                    for object in &page.items {
                        let size = encoder.message(object).len();
                        sum += envelope::item_head(size).len() + size;
                        worked += object.json.len();
                        if worked > PIECE {
                            worked = 0;
                            tokio::task::yield_now().await;
                        }
                    }
                    let (api_version, kind) = encoder.kind();
                    let kind = if encoder.accepted.shape == Shape::Object { page.row.list_kind.to_string() } else { format!("{kind}List") };
                    let metadata = list::list_metadata(page.revision, &page.next, page.remaining);
                    let head = envelope::list_head(&api_version, &kind, &metadata, sum);
                    Some((Ok(head.into()), (encoder, page, Part::Items(0))))
                }
                Part::Items(from) => {
                    let mut piece = BytesMut::new();
                    let mut at = from;
                    while let Some(object) = page.items.get(at).filter(|_| piece.len() < PIECE) {
                        let message = encoder.message(object);
                        piece.extend_from_slice(&envelope::item_head(message.len()));
                        piece.extend_from_slice(&message);
                        at += 1;
                    }
                    let next = if at < page.items.len() { Part::Items(at) } else { Part::Done };
                    if matches!(next, Part::Done) {
                        piece.extend_from_slice(envelope::TAIL);
                    }
                    Some((Ok(piece.freeze()), (encoder, page, next)))
                }
                Part::Done => None,
            }
        })
    }
}

fn json_event(word: &str, document: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(document);
    out.extend_from_slice(b"}\n");
}

/// Writes the events of one watch.
pub struct Frames {
    encoder: Encoder,
    /// Definitions of a table go out with the first row only.
    defined: bool,
}

impl Frames {
    /// For a watch of a row.
    pub fn new(encoder: Encoder) -> Self {
        Self { encoder, defined: false }
    }

    /// Appends one event to a stream.
    pub fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        let protobuf = self.encoder.accepted.media == Media::Protobuf;
        self.write(event, if protobuf { envelope::event_frame } else { json_event }, out);
    }

    /// One event as a message of a WebSocket: text, or bytes of protobuf that need no length.
    pub fn message(&mut self, event: Event) -> Message {
        let (mut out, protobuf) = (Vec::new(), self.encoder.accepted.media == Media::Protobuf);
        self.write(event, if protobuf { envelope::event } else { json_event }, &mut out);
        match protobuf {
            true => Message::Binary(out.into()),
            false => Message::Text(String::from_utf8_lossy(&out).into_owned().into()),
        }
    }

    fn write(&mut self, event: Event, put: fn(&str, &[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
        let (word, document) = match event {
            Event::Added(object) => ("ADDED", self.object(&object)),
            Event::Modified(object) => ("MODIFIED", self.object(&object)),
            Event::Deleted(object) => ("DELETED", self.object(&object)),
            Event::Bookmark { revision, initial } => ("BOOKMARK", self.bookmark(revision, initial)),
            Event::Error(status) => ("ERROR", self.other(status.to_json().to_string())),
        };
        put(word, &document, out);
    }

    /// Ages in tables are told from this moment on.
    pub fn set_now(&mut self, now: Timestamp) {
        self.encoder.set_now(now);
    }

    fn object(&mut self, object: &Object) -> Bytes {
        match &self.encoder.tables {
            Some(tables) => {
                let row = tables.row(object);
                self.table(object.revision, &row)
            }
            None => self.encoder.object(object),
        }
    }

    fn table(&mut self, revision: u64, row: &str) -> Bytes {
        let Some(tables) = &self.encoder.tables else { return Bytes::new() };
        let definitions = if std::mem::replace(&mut self.defined, true) { json!([]) } else { tables.definitions() };
        tables.around(&definitions, &list::list_metadata(revision, "", None), row).into()
    }

    fn other(&self, json: String) -> Bytes {
        document(self.encoder.accepted.media, json).unwrap_or_default()
    }

    fn bookmark(&mut self, revision: u64, initial: bool) -> Bytes {
        let mut metadata = json!({"creationTimestamp": null, "resourceVersion": revision.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (api_version, kind) = self.encoder.kind();
        if let Some(tables) = &self.encoder.tables {
            let object = json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata});
            let row = json!({"cells": vec![Value::Null; tables.columns()], "object": object}).to_string();
            return self.table(revision, &row);
        }
        self.other(json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}).to_string())
    }
}
