//! Accepting connections: bounded in number, in time to shake hands, in headers and in windows.

use super::{respond, tls::Tls};
use crate::{Tasks, pipeline::Core};
use axum::body::Body;
use coracle_link::pki::{self, Identity};
use http::{HeaderValue, Request, Response, Version, header};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once.
const CONNECTIONS: usize = 4_096;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same while connections cannot be accepted for want of descriptors.
const CROWDED_HANDSHAKE: Duration = Duration::from_secs(1);
const HEADERS: Duration = Duration::from_secs(30);
/// Bytes of headers: a long selector fits, little else needs to. Over HTTP/2 half as much again is answered with 431; more is more frames than h2 lets a head have (larger
/// frames would be fewer, and shut out the clients whose frames are small), and ends the connection.
const HEADER_BYTES: u32 = 128 * 1024;
/// Streams of one HTTP/2 connection, as upstream (250) and a little more.
const STREAMS: u32 = 256;
/// HTTP/2 windows: what one stream and one connection may hold of us in memory.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered for a slow reader of one stream.
const SEND_BUFFER: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
/// After the server was told to stop, requests may finish for this long.
const DRAIN: Duration = Duration::from_secs(5);
/// That no connection can be accepted is said once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken.
    #[error("cannot serve the API on {0}: the address is in use, perhaps by another cluster; stop it, or choose another address with --api-addr")]
    InUse(SocketAddr),
    /// A port below 1024.
    #[error("cannot serve the API on {0}: ports below 1024 are for root; choose one from 1024 on with --api-addr, or run as root")]
    Privileged(SocketAddr),
    /// No such address on this machine.
    #[error("cannot serve the API on {0}: this machine has no such address; choose one of its own with --api-addr")]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("cannot serve the API on {0}: {1}")]
    Other(SocketAddr, io::Error),
    /// Certificates.
    #[error("cannot serve the API: {0}")]
    Tls(#[from] pki::Error),
}

/// A bound address that is not served yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds the API's address.
pub async fn bind(address: SocketAddr) -> Result<Listener, Error> {
    let other = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::InUse(address),
        io::ErrorKind::PermissionDenied => Error::Privileged(address),
        io::ErrorKind::AddrNotAvailable => Error::NoSuchAddress(address),
        _ => Error::Other(address, error),
    };
    let socket = TcpListener::bind(address).await.map_err(other)?;
    let address = socket.local_addr().map_err(other)?;
    Ok(Listener { socket, address })
}

impl Listener {
    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the tasks are cancelled.
    pub fn serve(self, core: Arc<Core>, identity: Arc<Identity>, ca_pem: &str, tasks: &Tasks) -> Result<(), Error> {
        let tls = Tls::new(identity, ca_pem)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let tracked = tasks.clone();
        tasks.spawn("api listener", async move {
            let mut said: Option<Instant> = None;
            let crowd = Arc::new(Notify::new());
            loop {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match self.socket.accept().await {
                    Ok((stream, peer)) => {
                        let (core, tls, tasks, crowd) = (core.clone(), tls.clone(), tracked.clone(), crowd.clone());
                        tracked.spawn_draining("api connection", async move {
                            if let Err(error) = connection((stream, peer), core, tls, &tasks, &crowd).await {
                                tracing::debug!(%peer, error, "connection ended");
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: those that are open go on, who said nothing yet makes way, new ones wait until one is free.
                        crowd.notify_waiters();
                        if said.is_none_or(|said| said.elapsed() > QUIET) {
                            said = Some(Instant::now());
                            tracing::warn!(%error, "cannot accept a connection to the API; raise the limit of open files if this goes on");
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }
}

async fn connection((stream, from): (TcpStream, SocketAddr), core: Arc<Core>, tls: Tls, tasks: &Tasks, crowd: &Notify) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let crowded = async {
        tokio::time::sleep(CROWDED_HANDSHAKE).await;
        crowd.notified().await;
    };
    let handshake = tokio::select! {
        () = tasks.token().cancelled() => return Ok(()),
        () = crowded => return Err("no TLS handshake in the time there is while others wait for descriptors".to_string()),
        done = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls.config.clone()).accept(stream)) => done,
    };
    let stream = handshake.map_err(|_| "no TLS handshake in time".to_string())?.map_err(|error| error.to_string())?;
    let peer = Arc::new(tls.judge(stream.get_ref().1.peer_certificates()));
    let tracked = tasks.clone();
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let (core, peer) = (core.clone(), peer.clone());
        // For what becomes of the connection when it is upgraded.
        if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(tracked.clone());
        }
        // Boxed, so that a stream that goes on for hours (a watch) does not hold the room that its request needed.
        Box::pin(async move {
            Ok::<_, Infallible>(match misaddressed(&request) {
                Some(why) => refused(why),
                None => super::serve(core, peer, from, request).await,
            })
        })
    });
    let mut builder = auto::Builder::new(tasks.executor());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done.map_err(|error| error.to_string()),
        () = tasks.token().cancelled() => connection.as_mut().graceful_shutdown(),
    }
    match tokio::time::timeout(DRAIN, connection).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("requests did not finish in time at shutdown".into()),
    }
}

/// Why a request is for nobody (RFC 9112, 3.2), in the words of Go's server.
fn misaddressed<B>(request: &Request<B>) -> Option<&'static str> {
    let valid = |host: &HeaderValue| host.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (request.version(), hosts.next(), hosts.next()) {
        (Version::HTTP_11, None, _) => Some("missing required Host header"),
        (Version::HTTP_11, _, Some(_)) => Some("too many Host headers"),
        (Version::HTTP_10 | Version::HTTP_11, Some(host), _) if !valid(host) => Some("malformed Host header"),
        _ => None,
    }
}

/// What came may not be HTTP as it is meant: nothing more is read.
fn refused(why: &str) -> Response<Body> {
    let mut answer = respond::text(400, format!("400 Bad Request: {why}"));
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_one_host() {
        let why = |version, hosts: &[&'static str]| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            for host in hosts {
                request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
            }
            misaddressed(&request)
        };
        assert_eq!(why(Version::HTTP_11, &["[::1]:6443"]).or(why(Version::HTTP_11, &[""])).or(why(Version::HTTP_10, &[])), None);
        assert_eq!(why(Version::HTTP_2, &[]), None, "it has a field of its own for that");
        assert_eq!(why(Version::HTTP_11, &[]), Some("missing required Host header"));
        assert_eq!(why(Version::HTTP_11, &["a", "a"]), Some("too many Host headers"));
        assert_eq!(why(Version::HTTP_11, &["a/b"]).and(why(Version::HTTP_10, &["a b"])), Some("malformed Host header"));
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_named_with_the_remedy() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let first = bind(any).await.expect("a free port");
        let taken = bind(first.address()).await.map(|_| ()).expect_err("taken").to_string();
        assert!(taken.contains(&first.address().to_string()) && taken.contains("in use") && taken.contains("--api-addr"), "{taken}");
        let foreign = bind("192.0.2.1:0".parse().expect("an address")).await.map(|_| ()).expect_err("not ours").to_string();
        assert!(foreign.contains("192.0.2.1") && foreign.contains("no such address"), "{foreign}");
    }
}
