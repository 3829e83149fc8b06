//! Connections that become something else than HTTP (RFC 9110, 7.8: WebSocket, SPDY): passed on byte by byte to the server that was asked.
//!
//! What they are upgraded to is that server's business. Here they are bounded: in number by the place of a stream that each holds until it ends, in memory by two small
//! buffers, in time by how long nothing may come from either side.

use crate::{Tasks, nodes::proxy::driven::Driven};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long both ends may take to change over.
const CHANGE: Duration = Duration::from_secs(30);
/// How long nothing may come from either side, as kubelets have it for streams.
pub(crate) const IDLE: Duration = Duration::from_secs(4 * 3600);
/// What is on its way in one direction, bytes.
const BUFFER: usize = 16 * 1024;

/// A client's wish to use its connection otherwise.
#[derive(Clone)]
pub struct Upgrade {
    client: OnUpgrade,
    tasks: Tasks,
    /// To what: `websocket`, `SPDY/3.1`.
    pub to: HeaderValue,
}

/// What has to be kept for as long as an upgraded connection lasts: an answer has no body that could keep it.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Kept {
    pub fn keep(&self, what: impl Send + 'static) {
        self.0.lock().push(Box::new(what));
    }
}

/// The protocol that the headers of a request or answer change over to.
pub(super) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let upgrades = connection.into_iter().any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| upgrades).cloned()
}

pub(super) fn is_websocket(to: &HeaderValue) -> bool {
    to.as_bytes().eq_ignore_ascii_case(b"websocket")
}

impl Upgrade {
    /// The wish of a request, if it has one and its connection can be had (HTTP/1.1).
    pub(super) fn of(parts: &Parts) -> Option<Self> {
        let to = wanted(&parts.headers)?;
        let (client, tasks) = (parts.extensions.get::<OnUpgrade>()?, parts.extensions.get::<Tasks>()?);
        Some(Self { client: client.clone(), tasks: tasks.clone(), to })
    }

    /// Whether it is one for a WebSocket.
    pub fn is_websocket(&self) -> bool {
        is_websocket(&self.to)
    }

    /// The headers that pass the wish on.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.to.clone());
    }

    /// Joins the client to a server that said yes (101), once the answer is sent.
    pub(crate) fn join(&self, mut answer: Response<Driven>) -> Response<Body> {
        let server = hyper::upgrade::on(&mut answer);
        let (mut parts, driven) = answer.into_parts();
        let to = parts.headers.get(header::UPGRADE).cloned().unwrap_or_else(|| self.to.clone());
        crate::nodes::proxy::strip(&mut parts.headers);
        let ready = async {
            driven.finish().await;
            server.await
        };
        let kept = self.change(ready, |client, server| async move {
            if let Err(error) = relay(client, server).await {
                tracing::debug!(%error, "an upgraded connection broke off");
            }
        });
        answered(Response::from_parts(parts, Body::empty()), to, kept)
    }

    /// Says yes (101), with these headers besides; `work` has the connection once that is sent, to its own end.
    pub(crate) fn serve<F: Future<Output = ()> + Send>(
        &self,
        headers: HeaderMap,
        work: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response<Body> {
        let kept = self.change(std::future::ready(Ok(())), |client, ()| work(TokioIo::new(client)));
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = headers;
        answered(answer, self.to.clone(), kept)
    }

    /// Does `work` once the client has changed over and `ready` is.
    fn change<T: Send + 'static, F: Future<Output = ()> + Send>(
        &self,
        ready: impl Future<Output = hyper::Result<T>> + Send + 'static,
        work: impl FnOnce(Upgraded, T) -> F + Send + 'static,
    ) -> Kept {
        let kept = Kept::default();
        let (client, keeping) = (self.client.clone(), kept.clone());
        self.tasks.spawn("upgraded connection", async move {
            match tokio::time::timeout(CHANGE, async { tokio::try_join!(client, ready) }).await {
                Ok(Ok((client, with))) => work(client, with).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not upgraded"),
                Err(_) => tracing::debug!("a connection was not upgraded in time"),
            }
            drop(keeping);
        });
        kept
    }
}

fn answered(mut answer: Response<Body>, to: HeaderValue, kept: Kept) -> Response<Body> {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, to);
    answer.extensions_mut().insert(kept);
    answer
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upgrade({:?})", self.to)
    }
}

async fn relay(client: Upgraded, server: Upgraded) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_server, to_server) = tokio::io::split(TokioIo::new(server));
    let moved = AtomicU64::new(0);
    tokio::try_join!(pump(from_client, to_server, &moved, IDLE), pump(from_server, to_client, &moved, IDLE)).map(drop)
}

/// Moves bytes one way until their end. That nothing comes this way is no reason to stop while something goes the other way.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &AtomicU64, idle: Duration) -> io::Result<()> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "nothing came from either side for too long");
    let mut buffer = vec![0; BUFFER];
    loop {
        let before = moved.load(Relaxed);
        let read = match tokio::time::timeout(idle, from.read(&mut buffer)).await {
            Ok(read) => read?,
            Err(_) if moved.load(Relaxed) == before => return Err(silent()),
            Err(_) => continue,
        };
        let write = async {
            to.write_all(buffer.get(..read).unwrap_or_default()).await?;
            if read == 0 { to.shutdown().await } else { to.flush().await }
        };
        tokio::time::timeout(idle, write).await.map_err(|_| silent())??;
        if read == 0 {
            return Ok(());
        }
        moved.fetch_add(read as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_in_two_headers() {
        let headers = |pairs: &[(header::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            wanted(&headers)
        };
        let spdy = (header::UPGRADE, "SPDY/3.1");
        assert_eq!(headers(&[(header::CONNECTION, "keep-alive, Upgrade"), spdy.clone()]), Some(HeaderValue::from_static("SPDY/3.1")));
        assert_eq!(headers(&[(header::CONNECTION, "keep-alive"), spdy.clone()]), None);
        assert_eq!(headers(&[(header::CONNECTION, "upgrade")]), None);
        assert_eq!(headers(&[(header::CONNECTION, "close"), (header::CONNECTION, "upgrade"), spdy]), Some(HeaderValue::from_static("SPDY/3.1")));
    }

    #[tokio::test]
    async fn silence_of_both_sides_ends_it() {
        let moved = AtomicU64::new(0);
        let ((mut one, from), (to, mut other)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        one.write_all(b"hello").await.expect("written");
        let ended = pump(from, to, &moved, Duration::from_millis(20)).await;
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        let mut got = Vec::new();
        other.read_to_end(&mut got).await.expect("read");
        assert_eq!((got.as_slice(), moved.load(Relaxed)), (&b"hello"[..], 5));
    }

    #[tokio::test]
    async fn an_end_is_passed_on() {
        let moved = AtomicU64::new(0);
        let ((one, from), (to, mut other)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        drop(one);
        pump(from, to, &moved, IDLE).await.expect("an end");
        assert_eq!(other.read(&mut [0; 8]).await.expect("read"), 0);
    }
}
