//! JSON for eyes: broken into lines, for who asks (`?pretty=true`), for browsers and for the usual programs of a command line, as upstream has it.

use super::{
    begun::{self, Begun},
    compress::Document,
    route,
};
use axum::body::Body;
use bytes::Bytes;
use http::{Response, header};

/// Shorter documents go out at once.
const SHORT: usize = 128 * 1024;
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether a request wants it.
pub fn wanted(raw_query: &str, agent: Option<&str>) -> bool {
    let said = if raw_query.contains("pretty") { route::query(raw_query) } else { Vec::new() };
    match said.iter().find(|(key, value)| key == "pretty" && !value.is_empty()) {
        Some((_, value)) => matches!(&**value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => agent.is_some_and(|agent| READERS.iter().any(|reader| agent.starts_with(reader))),
    }
}

/// The answer in lines, if it is a document of JSON. What has a name for its content (`ETag`) stays as it was named.
pub async fn answer(response: Response<Body>) -> Response<Body> {
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "application/json");
    if !json || response.extensions().get::<Document>().is_none() || response.headers().contains_key(header::ETAG) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    let mut lines = Lines::default();
    let source = match begun::read(body, SHORT, super::REQUEST_TIME).await {
        Begun::Whole(whole) => return Response::from_parts(head, lines.broken(&whole).into()),
        Begun::More(source) => source,
    };
    let pieces = futures::stream::unfold((source, lines), |(mut source, mut lines)| async move {
        let piece = source.next().await?.map(|piece| lines.broken(&piece));
        Some((piece, (source, lines)))
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

/// Where in a text of JSON we are.
#[derive(Default)]
struct Lines {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// Nothing came yet within the last brace or bracket.
    opened: bool,
}

impl Lines {
    /// The next piece of the text, as Go's `MarshalIndent` with two blanks would have written it.
    fn broken(&mut self, piece: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(piece.len() * 2);
        for &byte in piece {
            if self.quoted {
                out.push(byte);
                self.quoted = byte != b'"' || self.escaped;
                self.escaped = byte == b'\\' && !self.escaped;
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let (opened, closes) = (std::mem::take(&mut self.opened), matches!(byte, b'}' | b']'));
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if opened != closes {
                self.line(&mut out);
            }
            out.push(byte);
            match byte {
                b'{' | b'[' => (self.depth, self.opened) = (self.depth + 1, true),
                b',' => self.line(&mut out),
                b':' => out.push(b' '),
                b'"' => self.quoted = true,
                _ => {}
            }
        }
        out.into()
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_reads_with_eyes() {
        assert!(wanted("", Some("curl/8.1")) && wanted("limit=1&pretty=true", None) && wanted("", Some("Mozilla/5.0 (X11)")));
        assert!(!wanted("pretty=0", Some("curl/8.1")) && !wanted("", Some("kubectl/v1.33")) && !wanted("pretty=x", None) && !wanted("", None));
    }

    #[test]
    fn lines_are_the_same_however_a_text_is_cut() {
        let text = json!({"a": {}, "b": [], "c": [1, {"d": "x\\\"{[,: ]}\\"}], "e": null, "f": true, "g": [[]]});
        let expected = serde_json::to_string_pretty(&text).expect("JSON");
        let text = text.to_string();
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let pieces: Vec<u8> = text.as_bytes().chunks(size).flat_map(|piece| lines.broken(piece)).collect();
            assert_eq!(String::from_utf8(pieces).expect("text"), expected, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_document_stays() {
        let of = |document: bool, kind: &str| {
            let mut response = Response::builder().header(header::CONTENT_TYPE, kind).body(Body::from("{\"a\":1}")).expect("a response");
            if document {
                response.extensions_mut().insert(Document);
            }
            response
        };
        let text = async |response| axum::body::to_bytes(answer(response).await.into_body(), 100).await.expect("a body");
        assert_eq!(text(of(true, "application/json")).await, "{\n  \"a\": 1\n}");
        assert_eq!(text(of(false, "application/json")).await, "{\"a\":1}", "a watch");
        assert_eq!(text(of(true, "text/plain")).await, "{\"a\":1}");
    }
}
