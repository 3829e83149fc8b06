//! Gzip of large documents for clients that ask for it, as upstream: the lowest level, from 128 KiB on, never for watches and other streams.

use super::begun::{self, Begun, Source};
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, header};
use http_body::Body as _;
use std::io::Write as _;

/// Smaller documents are not worth it.
const LARGE: usize = 128 * 1024;
/// What is compressed without giving way to other work.
const SLICE: usize = 64 * 1024;

/// Marks a response whose body is a whole document.
#[derive(Clone, Copy, Debug)]
pub struct Document;

/// Whether an `Accept-Encoding` header names gzip.
fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|clause| {
        let (coding, parameters) = clause.split_once(';').unwrap_or((clause, ""));
        let refused = parameters.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        coding.trim() == "gzip" && !refused
    })
}

/// The response as it goes out.
pub async fn answer(response: Response<Body>, accept_encoding: Option<&str>) -> Response<Body> {
    let small = response.body().size_hint().upper().is_some_and(|bytes| bytes <= LARGE as u64);
    let wanted = response.extensions().get::<Document>().is_some() && accept_encoding.is_some_and(accepts_gzip);
    if small || !wanted {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let source = match begun::read(body, LARGE, super::REQUEST_TIME).await {
        Begun::Whole(small) => return Response::from_parts(head, Body::from(small)),
        Begun::More(source) => source,
    };
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from_stream(zipped(source)))
}

fn zipped(source: Source) -> impl futures::Stream<Item = Result<Bytes, axum::Error>> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    futures::stream::unfold((source, Some(encoder), Bytes::new()), |(mut source, mut encoder, mut piece)| async move {
        loop {
            let Some(writer) = &mut encoder else { return None };
            if piece.is_empty() {
                match source.next().await {
                    Some(Ok(next)) => piece = next,
                    Some(Err(error)) => return Some((Err(error), (source, None, piece))),
                    // Writing into memory does not fail.
                    None => return Some((Ok(encoder.take()?.finish().unwrap_or_default().into()), (source, None, piece))),
                }
            }
            let slice = piece.split_to(piece.len().min(SLICE));
            let _ = writer.write_all(&slice);
            let out = std::mem::take(writer.get_mut());
            if !out.is_empty() {
                return Some((Ok(out.into()), (source, encoder, piece)));
            }
            tokio::task::yield_now().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::{convert::Infallible, io::Read};

    async fn sent(bytes: &[u8], pieces: usize, header: Option<&str>, mark: bool) -> (bool, Vec<u8>) {
        let pieces: Vec<Bytes> = bytes.chunks(bytes.len().div_ceil(pieces).max(1)).map(Bytes::copy_from_slice).collect();
        let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))));
        if mark {
            response.extensions_mut().insert(Document);
        }
        let response = answer(response, header).await;
        let zipped = response.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = response.into_body().collect().await.expect("a body").to_bytes().to_vec();
        if !zipped {
            return (false, body);
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        assert!(body.len() < plain.len() / 2, "{} of {}", body.len(), plain.len());
        (true, plain)
    }

    #[tokio::test]
    async fn large_documents_are_compressed_and_nothing_else_is() {
        let large: Vec<u8> = (0..LARGE + 1).map(|at| (at / 7 % 50) as u8).collect();
        for pieces in [1, 5] {
            assert_eq!(sent(&large, pieces, Some("deflate, gzip"), true).await, (true, large.clone()));
            assert_eq!(sent(&large[..LARGE], pieces, Some("gzip"), true).await, (false, large[..LARGE].to_vec()));
            assert!(!sent(&large, pieces, Some("gzip;q=0"), true).await.0);
            assert!(!sent(&large, pieces, None, true).await.0);
            assert_eq!(sent(&large, pieces, Some("gzip"), false).await, (false, large.clone()), "a stream is left alone");
        }
    }
}
