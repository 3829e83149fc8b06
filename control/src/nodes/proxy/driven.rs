//! An answer's body that drives its own connection.
//!
//! hyper wants the connection polled by somebody; a task for each would have to be tracked and cancelled. Here both end when the
//! body is dropped.

use axum::body::Body;
use bytes::Bytes;
use coracle_link::ByteStream;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

type Connection = Pin<Box<http1::Connection<TokioIo<ByteStream>, Body>>>;

pub(super) struct Driven {
    body: Incoming,
    connection: Option<Connection>,
    /// Dropped, the connection would end after the head.
    _sender: http1::SendRequest<Body>,
}

impl Driven {
    pub(super) fn new(body: Incoming, connection: Option<Connection>, sender: http1::SendRequest<Body>) -> Self {
        Self { body, connection, _sender: sender }
    }
}

impl http_body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        // The connection fills the body's channel: look before and after it had its turn.
        for _ in 0..2 {
            if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            if let Some(connection) = &mut this.connection
                && connection.as_mut().poll(cx).is_ready()
            {
                // its error, if any, is the body's too
                this.connection = None;
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
