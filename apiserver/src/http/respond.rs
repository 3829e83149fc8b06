//! From an answer to HTTP: the one place where encodings, shapes, warnings and errors become responses.

use super::{
    accept::{self, Accepted, Media, Offer, Shape},
    compress::Document,
    encode::{self, Encoder, Frames},
    table::Include,
    watch,
};
use crate::pipeline::{Answer, Core};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::{registry::ResourceRef, status::Status};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// Most characters of warnings in one answer, as upstream.
const MAX_WARNINGS: usize = 4 * 1024;
/// Longest warning, characters, when there are too many.
const MAX_WARNING: usize = 256;

/// A response of a whole document.
fn response(code: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = streamed(code, media, body);
    response.extensions_mut().insert(Document);
    response
}

/// A response that goes on for a while.
pub(super) fn streamed(code: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON value, in the encoding the client wants where the kind has it.
pub fn value(code: u16, media: Media, value: &Value) -> Response<Body> {
    let json = value.to_string();
    match encode::document(media, json.clone()) {
        Some(bytes) => response(code, media.name(), Body::from(bytes)),
        None => response(code, Media::Json.name(), Body::from(json)),
    }
}

/// JSON text that was written already.
pub fn json(text: Bytes) -> Response<Body> {
    response(200, Media::Json.name(), Body::from(text))
}

/// What names content in an `ETag`: SHA-256 in hexadecimal.
pub fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether the client has what a hash names already (RFC 9110, 13.1.2).
pub fn has(if_none_match: Option<&str>, hash: &str) -> bool {
    if_none_match.is_some_and(|sent| sent.split(',').any(|one| one.trim().trim_start_matches("W/").trim_matches('"') == hash))
}

/// A response with an `ETag`, without its body for a client that has it already.
pub fn tagged(mut response: Response<Body>, hash: &str, if_none_match: Option<&str>) -> Response<Body> {
    if has(if_none_match, hash) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// A document of a media type of its own.
pub fn document(media: &'static str, text: impl Into<Body>) -> Response<Body> {
    response(200, media, text.into())
}

/// Text, as health checks answer.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", Body::from(text.into()))
}

/// An error, in the encoding of the Accept header, or in JSON if that asks for nothing that exists.
pub fn status(status: &Status, accept_header: Option<&str>) -> Response<Body> {
    let media = accept::negotiate(accept_header, Offer::PLAIN).map_or(Media::Json, |accepted| accepted.media);
    let mut answer = value(status.code, media, &status.to_json());
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 401 {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"coracle\""));
    }
    answer
}

/// RFC 7234 warnings, code 299, as `apimachinery/pkg/util/net.NewWarningHeader` writes them: each once, and when they are too many characters, all of
/// them cut short and the last ones left out.
pub fn warn(answer: &mut Response<Body>, warnings: &[String]) {
    let mut seen = BTreeSet::new();
    let once: Vec<&String> = warnings.iter().filter(|text| !text.is_empty() && seen.insert(*text)).collect();
    let longest = if once.iter().map(|text| text.chars().count()).sum::<usize>() > MAX_WARNINGS { MAX_WARNING } else { MAX_WARNINGS };
    let mut written = 0;
    for warning in once {
        if written >= MAX_WARNINGS {
            break;
        }
        let mut quoted = String::from("299 - \"");
        for c in warning.chars().take(longest) {
            written += 1;
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
    /// Where the events of a watch go, if not into a body.
    pub socket: Option<watch::Socket>,
}

/// The response to a request that was served.
pub fn answer(core: &Arc<Core>, row: &ResourceRef, wanted: &Wanted, answer: Answer) -> Result<Response<Body>, Status> {
    let Accepted { media, shape, .. } = wanted.accepted;
    let encoder = || Encoder::new(core, row, wanted.accepted, wanted.include);
    Ok(match answer {
        Answer::Object { object, created } => {
            if shape == Shape::PartialList {
                return Err(wrong_shape("you requested PartialObjectMetadataList, but the requested object is not a list", &row.kind));
            }
            let body = Body::from(encoder().object(&object));
            response(if created { 201 } else { 200 }, media.name(), body)
        }
        Answer::Value { code, value: body } => {
            let shaped = if body["kind"] == *row.kind && shape != Shape::Object { encoder().value(&body) } else { None };
            match shaped {
                Some(bytes) => response(code, media.name(), Body::from(bytes)),
                None => value(code, media, &body),
            }
        }
        Answer::List(page) => {
            if shape == Shape::Partial {
                return Err(wrong_shape("you requested PartialObjectMetadata, but the requested object is a list", &format!("{}List", row.kind)));
            }
            response(200, media.name(), Body::from_stream(futures::StreamExt::fuse(encoder().page(*page))))
        }
        Answer::Watch(stream) => watch::answer(core, media, Frames::new(encoder()), *stream, wanted.socket.as_ref()),
        Answer::Response(response) => *response,
    })
}

fn wrong_shape(why: &str, kind: &str) -> Status {
    Status::new(406, "NotAcceptable", format!("{why} ({kind})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut answer = text(200, "");
        warn(&mut answer, &vec!["unknown field \"spec.x\"\n".to_string(); 100]);
        let all: Vec<_> = answer.headers().get_all(header::WARNING).iter().collect();
        assert_eq!(all, ["299 - \"unknown field \\\"spec.x\\\" \""]);
        let mut answer = text(200, "");
        warn(&mut answer, &(0..100).map(|at| format!("{at} {}", "x".repeat(500))).collect::<Vec<_>>());
        let all: Vec<_> = answer.headers().get_all(header::WARNING).iter().collect();
        assert_eq!((all.len(), all[0].len()), (16, 256 + "299 - \"\"".len()));
    }

    #[test]
    fn errors_carry_their_status_and_retry() {
        let mut error = Status::new(429, "TooManyRequests", "x");
        error.details = Some(Box::new(coracle_api::status::Details { retry_after_seconds: 1, ..Default::default() }));
        let answer = status(&error, None);
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        assert!(status(&Status::unauthorized(), None).headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
