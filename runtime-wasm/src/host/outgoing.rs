//! `wasi:http/outgoing-handler`: requests a guest makes, from the pod's own address.

use super::{guest::Pod, sockets::PodNet};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::{Instant, Sleep, sleep, timeout},
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// When the guest gives no time-out of its own.
const PATIENCE: Duration = Duration::from_secs(600);

/// The hooks of one instance.
pub struct Outgoing {
    pod: Arc<Pod>,
}

impl Outgoing {
    /// For an instance of this pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Sent {
        let pod = self.pod.clone();
        Box::new(send(pod, request, options.unwrap_or_default()))
    }

    // A guest's failing request is the guest's business: it gets the error, the host's log stays quiet.
    fn p2_error_from_connect(&mut self, error: &io::Error) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
        match error.kind() {
            io::ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorCode::DestinationIpUnroutable,
            _ => ErrorCode::ConnectionRefused,
        }
    }

    fn p2_error_from_hyper(&mut self, _: &hyper::Error) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::HttpProtocolError
    }

    fn p2_error_from_tls(&mut self, _: &io::Error) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        wasmtime_wasi_http::p2::bindings::http::types::ErrorCode::TlsProtocolError
    }
}

/// A connection to `address`, bound to the pod's IP first.
async fn connect(net: PodNet, address: SocketAddr) -> io::Result<TcpStream> {
    let address = net.reach(address);
    let source = net.source();
    if source.is_some_and(|source| address.is_ipv4() != source.is_ipv4()) {
        return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "the pod has no address of that family"));
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn reach(pod: &Pod, host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = pod.resolver.resolve(host).await;
    let addresses = addresses.map_err(|_| Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None })?;
    let mut last = Error::DestinationNotFound;
    for ip in addresses {
        match connect(pod.net, SocketAddr::new(ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Error::Connect(error),
        }
    }
    Err(last)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The machine's certificate authorities, read once, when the first guest asks for https.
fn tls() -> Result<tokio_rustls::TlsConnector, Error> {
    static CONFIG: OnceLock<Option<Arc<rustls::ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    });
    Ok(config.clone().ok_or(Error::ConfigurationError)?.into())
}

async fn send(pod: Arc<Pod>, mut request: http::Request<WasiBody>, options: RequestOptions) -> Result<(http::Response<WasiBody>, Io), Error> {
    let secure = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
    let (host, port) = (authority.host().to_owned(), authority.port_u16().unwrap_or(if secure { 443 } else { 80 }));
    let patience = options.connect_timeout.unwrap_or(PATIENCE);
    let stream = timeout(patience, async {
        let stream = reach(&pod, &host, port).await?;
        if !secure {
            return Ok::<Box<dyn Stream>, Error>(Box::new(stream));
        }
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = rustls::pki_types::ServerName::try_from(name).map_err(|_| Error::HttpRequestUriInvalid)?;
        Ok(Box::new(tls()?.connect(name, stream).await.map_err(Error::Tls)?))
    });
    let stream = stream.await.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Origin form: scheme and authority are for proxies only.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut connection = Box::pin(connection);
    let mut ended = false;
    let response = {
        let mut response = std::pin::pin!(sender.send_request(request));
        let first = std::future::poll_fn(|cx| {
            if !ended && connection.as_mut().poll(cx).is_ready() {
                ended = true;
            }
            response.as_mut().poll(cx)
        });
        timeout(options.first_byte_timeout.unwrap_or(PATIENCE), first).await.map_err(|_| Error::ConnectionReadTimeout)??
    };
    let pause = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response = response.map(|body| Patient { body, pause, timer: Box::pin(sleep(pause)) }.boxed_unsync());
    let io: Io = Box::new(async move { if ended { Ok(()) } else { connection.await.map_err(Error::from) } });
    Ok((response, io))
}

/// A response body that fails when nothing comes for too long.
struct Patient {
    body: hyper::body::Incoming,
    pause: Duration,
    timer: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Patient {
    type Data = bytes::Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let next = Instant::now() + self.pause;
                self.timer.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.timer.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
