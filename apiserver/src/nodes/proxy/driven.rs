//! One HTTP/1.1 request on a connection of its own, and an answer's body that drives it.
//!
//! hyper wants the connection polled by somebody; a task for each would have to be tracked and cancelled. Here both end when the
//! body is dropped.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1,
    rt::{Read, Write},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

pub(crate) struct Driven {
    body: Incoming,
    connection: Option<Connection>,
    /// Dropped, the connection would end after the head.
    _sender: http1::SendRequest<Body>,
}

/// Sends the request and gives the head of the answer, with its body still to come.
pub(crate) async fn exchange(io: impl Read + Write + Unpin + Send + 'static, request: Request<Body>) -> hyper::Result<Response<Driven>> {
    let (mut sender, connection) = http1::handshake::<_, Body>(io).await?;
    let mut connection: Connection = Box::pin(connection.with_upgrades());
    let mut alive = true;
    let response = {
        // the connection has to be driven while the answer is awaited, and then for as long as its body is read
        let mut answer = Box::pin(sender.send_request(request));
        let ended = tokio::select! {
            biased;
            response = &mut answer => Ok(response),
            ended = &mut connection => Err(ended),
        };
        match ended {
            Ok(response) => response,
            Err(Err(error)) => Err(error),
            Err(Ok(())) => {
                // ended well: the answer is there, or the sender knows why not
                alive = false;
                answer.await
            }
        }
    }?;
    Ok(response.map(|body| Driven { body, connection: alive.then_some(connection), _sender: sender }))
}

impl Driven {
    /// Drives the connection to its end as one of HTTP: what it was upgraded to can be had then.
    pub(crate) async fn finish(self) {
        if let Some(connection) = self.connection {
            // Why it ended, whoever has it next will find out.
            let _ = connection.await;
        }
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
