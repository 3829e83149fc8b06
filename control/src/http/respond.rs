//! From an answer to HTTP: the one place where encodings, shapes, warnings and errors become bytes.

use super::{
    accept::{Accepted, Media, Shape},
    list::{self, Page},
    table::{self, Include, Tables},
    watch::{Event, Stream},
};
use crate::pipeline::{Answer, Core};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use coracle_api::status::Status;
use coracle_store::Object;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};

/// Most warnings in one answer; upstream truncates too.
const MAX_WARNINGS: usize = 16;
/// Longest warning, bytes.
const MAX_WARNING: usize = 512;
/// A watch collects what is at hand into pieces of about this size.
const PIECE: usize = 32 * 1024;

fn response(code: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON text in the wanted encoding.
fn encoded(code: u16, media: Media, json: Bytes) -> Response<Body> {
    match media {
        Media::Json => response(code, "application/json", Body::from(json)),
        Media::Yaml => match serde_json::from_slice::<Value>(&json).ok().and_then(|value| serde_norway::to_string(&value).ok()) {
            Some(text) => response(code, "application/yaml", Body::from(text)),
            None => response(code, "application/json", Body::from(json)),
        },
    }
}

/// A JSON value.
pub fn value(code: u16, media: Media, value: &Value) -> Response<Body> {
    encoded(code, media, Bytes::from(value.to_string()))
}

/// Text, as health checks answer.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", Body::from(text.into()))
}

/// An error.
pub fn status(status: &Status) -> Response<Body> {
    let mut answer = value(status.code, Media::Json, &status.to_json());
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 401 {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"coracle\""));
    }
    answer
}

/// RFC 7234 warnings, code 299, as `apimachinery/pkg/util/net.NewWarningHeader` writes them.
fn warn(answer: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let mut quoted = String::from("299 - \"");
        for c in warning.chars().take(MAX_WARNING) {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What the client asked for besides the thing itself.
pub struct Wanted {
    /// Encoding and shape.
    pub accepted: Accepted,
    /// Objects in table rows.
    pub include: Include,
}

/// The response to a request that was served.
pub fn answer(core: &Arc<Core>, row: &coracle_api::registry::ResourceRef, wanted: &Wanted, answer: Answer) -> Response<Body> {
    let Accepted { media, shape } = wanted.accepted;
    match answer {
        Answer::Object { object, created, warnings } => {
            let code = if created { 201 } else { 200 };
            let mut answer = match shape {
                Shape::Object => encoded(code, media, object.json.clone()),
                Shape::Partial => encoded(code, media, table::partial(&object.json).into()),
                Shape::Table => {
                    let tables = Tables::new(core, row, wanted.include);
                    let metadata = list::list_metadata(object.revision, "", None);
                    encoded(code, media, Tables::around(&tables.definitions(), &metadata, &tables.row(&object)).into())
                }
            };
            warn(&mut answer, &warnings);
            answer
        }
        Answer::Value { code, value: body, warnings } => {
            let mut answer = value(code, media, &body);
            warn(&mut answer, &warnings);
            answer
        }
        Answer::List(page) => page_body(core, wanted, *page),
        Answer::Watch(stream) => watch_body(core, wanted, *stream),
        Answer::Response(response) => *response,
    }
}

fn page_body(core: &Arc<Core>, wanted: &Wanted, page: Page) -> Response<Body> {
    let Accepted { media, shape } = wanted.accepted;
    let metadata = list::list_metadata(page.revision, &page.next, page.remaining);
    match shape {
        Shape::Object if media == Media::Json => {
            let chunks = futures::stream::iter(page.chunks().map(Ok::<_, Infallible>));
            response(200, "application/json", Body::from_stream(chunks))
        }
        Shape::Object => {
            let mut whole = BytesMut::new();
            page.chunks().for_each(|chunk| whole.extend_from_slice(&chunk));
            encoded(200, media, whole.freeze())
        }
        Shape::Partial => {
            let items: Vec<String> = page.items.iter().map(|object| table::partial(&object.json)).collect();
            let head = format!("{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":[");
            encoded(200, media, Bytes::from(format!("{head}{}]}}", items.join(","))))
        }
        Shape::Table => {
            let tables = Tables::new(core, &page.row, wanted.include);
            let rows: Vec<String> = page.items.iter().map(|object| tables.row(object)).collect();
            encoded(200, media, Tables::around(&tables.definitions(), &metadata, &rows.join(",")).into())
        }
    }
}

/// Writes the events of one watch.
struct Frames {
    shape: Shape,
    /// Only for tables: most watches are not, and there may be thousands.
    tables: Option<Box<Tables>>,
    /// Definitions go out with the first row only.
    defined: bool,
    api_version: String,
    kind: String,
}

impl Frames {
    fn object(&mut self, object: &Object, out: &mut BytesMut) {
        match self.shape {
            Shape::Object => out.extend_from_slice(&object.json),
            Shape::Partial => out.extend_from_slice(table::partial(&object.json).as_bytes()),
            Shape::Table => {
                let row = self.tables.as_ref().map(|tables| tables.row(object)).unwrap_or_default();
                self.table(object.revision, &row, out);
            }
        }
    }

    fn table(&mut self, revision: u64, row: &str, out: &mut BytesMut) {
        let definitions = match &self.tables {
            Some(tables) if !self.defined => tables.definitions(),
            _ => json!([]),
        };
        self.defined = true;
        let metadata = list::list_metadata(revision, "", None);
        out.extend_from_slice(Tables::around(&definitions, &metadata, row).as_bytes());
    }

    fn bookmark(&mut self, revision: u64, initial: bool, out: &mut BytesMut) {
        let mut metadata = json!({"creationTimestamp": null, "resourceVersion": revision.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.shape {
            Shape::Object => {
                out.extend_from_slice(json!({"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata}).to_string().as_bytes())
            }
            Shape::Partial => out.extend_from_slice(
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}).to_string().as_bytes(),
            ),
            Shape::Table => {
                let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                let columns = self.tables.as_ref().map_or(0, |tables| tables.columns());
                let row = json!({"cells": vec![Value::Null; columns], "object": object}).to_string();
                self.table(revision, &row, out);
            }
        }
    }

    fn event(&mut self, event: Event, out: &mut BytesMut) {
        let word = match &event {
            Event::Added(_) => "ADDED",
            Event::Modified(_) => "MODIFIED",
            Event::Deleted(_) => "DELETED",
            Event::Bookmark { .. } => "BOOKMARK",
            Event::Error(_) => "ERROR",
        };
        out.extend_from_slice(format!("{{\"type\":\"{word}\",\"object\":").as_bytes());
        match event {
            Event::Added(object) | Event::Modified(object) | Event::Deleted(object) => self.object(&object, out),
            Event::Bookmark { revision, initial } => self.bookmark(revision, initial, out),
            Event::Error(status) => out.extend_from_slice(status.to_json().to_string().as_bytes()),
        }
        out.extend_from_slice(b"}\n");
    }
}

fn watch_body(core: &Arc<Core>, wanted: &Wanted, stream: Stream) -> Response<Body> {
    let frames = Frames {
        shape: wanted.accepted.shape,
        tables: (wanted.accepted.shape == Shape::Table).then(|| Box::new(Tables::new(core, &stream.row, wanted.include))),
        defined: false,
        api_version: stream.row.api_version(),
        kind: stream.row.kind.to_string(),
    };
    let stopping = core.stopping.clone();
    let body = futures::stream::unfold((stream, frames, stopping), |(mut stream, mut frames, stopping)| async move {
        let first = tokio::select! {
            event = stream.next() => event?,
            () = stopping.cancelled() => return None,
        };
        if let Some(tables) = &mut frames.tables {
            tables.set_now(Timestamp::now());
        }
        let mut out = BytesMut::new();
        frames.event(first, &mut out);
        // What is at hand goes out together: a thousand pods are not a thousand writes.
        while out.len() < PIECE && stream.has_ready() {
            match stream.next().await {
                Some(event) => frames.event(event, &mut out),
                None => break,
            }
        }
        Some((Ok::<_, Infallible>(out.freeze()), (stream, frames, stopping)))
    });
    response(200, "application/json", Body::from_stream(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut answer = text(200, "");
        warn(&mut answer, &vec!["unknown field \"spec.x\"\n".to_string(); 100]);
        let all: Vec<_> = answer.headers().get_all(header::WARNING).iter().collect();
        assert_eq!(all.len(), MAX_WARNINGS);
        assert_eq!(all[0], "299 - \"unknown field \\\"spec.x\\\" \"");
    }

    #[test]
    fn errors_carry_their_status_and_retry() {
        let mut error = Status::new(429, "TooManyRequests", "x");
        error.details = Some(Box::new(coracle_api::status::Details { retry_after_seconds: 1, ..Default::default() }));
        let answer = status(&error);
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        assert!(status(&Status::unauthorized()).headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
