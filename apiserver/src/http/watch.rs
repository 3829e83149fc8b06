//! The answer to a watch: a body that goes on, or a WebSocket with a message for each event. Both end with the watch, and when the server stops.

use super::{accept::Media, encode::Frames, respond, upgrade::Upgrade};
use crate::{
    nodes::streams::{negotiate, websocket},
    pipeline::{Core, watch::Stream},
};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::Status;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use std::{convert::Infallible, sync::Arc};
use tokio_util::sync::CancellationToken;

/// A body collects what is at hand into pieces of about this size.
const PIECE: usize = 32 * 1024;

/// A client's wish to have the events over a WebSocket.
pub struct Socket {
    upgrade: Upgrade,
    /// What is agreed to.
    headers: HeaderMap,
}

impl Socket {
    /// Of a request with these headers; None if it wants something else.
    ///
    /// # Errors
    /// 400 for what is no handshake.
    pub fn of(upgrade: Option<&Upgrade>, headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let Some(upgrade) = upgrade.filter(|upgrade| upgrade.is_websocket()) else { return Ok(None) };
        Ok(Some(Self { upgrade: upgrade.clone(), headers: negotiate::any(headers)? }))
    }
}

/// A watch that is written.
struct Telling {
    stream: Stream,
    frames: Frames,
    stopping: CancellationToken,
}

impl Telling {
    /// The next thing to write, made of the next event and perhaps of others that are at hand.
    async fn next<T>(mut self, write: impl AsyncFnOnce(&mut Self, crate::pipeline::watch::Event) -> T) -> Option<(T, Self)> {
        let event = tokio::select! {
            event = self.stream.next() => event?,
            () = self.stopping.cancelled() => return None,
        };
        self.frames.set_now(Timestamp::now());
        let written = write(&mut self, event).await;
        Some((written, self))
    }
}

/// Answers it.
pub(super) fn answer(core: &Arc<Core>, media: Media, frames: Frames, stream: Stream, socket: Option<&Socket>) -> Response<Body> {
    let telling = Telling { stream, frames, stopping: core.tasks.token().clone() };
    let Some(Socket { upgrade, headers }) = socket else {
        return respond::streamed(200, media.stream().unwrap_or(Media::Json.name()), body(telling));
    };
    let messages = futures::stream::unfold(telling, |telling| telling.next(async |telling, event| Ok(telling.frames.message(event))));
    upgrade.serve(headers.clone(), move |io| async move {
        if let Err(why) = websocket::tell(io, messages).await {
            tracing::debug!(%why, "a watch over a WebSocket broke off");
        }
    })
}

fn body(telling: Telling) -> Body {
    let pieces = futures::stream::unfold(telling, |telling| {
        telling.next(async |telling, first| {
            let mut out = Vec::new();
            telling.frames.event(first, &mut out);
            // What is at hand goes out together: a thousand pods are not a thousand writes.
            while out.len() < PIECE && telling.stream.has_ready() {
                match telling.stream.next().await {
                    Some(event) => telling.frames.event(event, &mut out),
                    None => break,
                }
            }
            Ok::<_, Infallible>(Bytes::from(out))
        })
    });
    Body::from_stream(futures::StreamExt::fuse(pieces))
}
