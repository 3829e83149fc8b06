//! One HTTP GET to a pod, as probes and lifecycle hooks make it: over TLS without looking at certificates, without a proxy, following redirects to
//! the same host only. Failures are worded as kubelet (in Go) words them.

use super::spec::{Container, HttpGet};
use bytes::Bytes;
use coracle_link::pki::Anyone;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// As much of a body as is read, so that the server sees an ordinary client.
const BODY: usize = 10 << 10;
/// Redirects in a row, as Go's client.
const REDIRECTS: usize = 10;
/// What Go says when a server answers a TLS hello in plain HTTP.
pub const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// It is a redirect to another host, which was not followed.
    pub elsewhere: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
struct Target {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

/// The number of a port that is given by number or by name.
pub fn port(container: &Container, port: &Value) -> Result<u16, String> {
    let number = match port {
        Value::Number(number) => number.as_u64(),
        Value::String(name) => {
            let named = container.ports.iter().find(|p| p.name.as_deref() == Some(name)).map(|p| u64::from(p.container_port));
            named.or_else(|| name.parse().ok())
        }
        _ => None,
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("couldn't find port: {port}"))
}

/// A connection to `host`, the pod's address when that is empty.
pub async fn connect(host: &str, ip: IpAddr, port: u16) -> Result<TcpStream, String> {
    let address = if host.is_empty() {
        SocketAddr::new(ip, port)
    } else {
        let mut found = tokio::net::lookup_host((host, port)).await.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?;
        found.next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?
    };
    TcpStream::connect(address).await.map_err(|e| format!("dial tcp {address}: connect: {}", words(&e)))
}

fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        _ => error.to_string(),
    }
}

/// A GET prepared: where it goes, and what errors call it.
pub struct Request<'a> {
    get: &'a HttpGet,
    target: Target,
    agent: &'static str,
}

impl<'a> Request<'a> {
    /// `agent` is `kube-probe` or `kube-lifecycle`.
    pub fn new(container: &Container, get: &'a HttpGet, ip: IpAddr, agent: &'static str) -> Result<Self, String> {
        let port = port(container, &get.port)?;
        let host = if get.host.is_empty() { ip.to_string() } else { get.host.clone() };
        // For the escaping alone: what is not allowed in a path is escaped, what is escaped stays.
        let mut url = Url::parse("http://localhost/").map_err(|e| e.to_string())?;
        let (path, query) = get.path.split_once('?').map_or((get.path.as_str(), None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        Ok(Self { get, target: Target { tls: get.scheme == "HTTPS", host, port, path: path_of(&url) }, agent })
    }

    /// The same without TLS.
    pub fn plain(mut self) -> Self {
        self.target.tls = false;
        self
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.target.url()
    }

    /// Sends it. Without a bound on time, which is the caller's.
    pub async fn send(&self) -> Result<Answer, String> {
        let mut target = self.target.clone();
        for _ in 0..=REDIRECTS {
            let (code, location) = self.once(&target).await.map_err(|why| format!("Get \"{}\": {why}", target.url()))?;
            let next = location.filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308)).and_then(|location| target.follow(&location));
            match next {
                None => return Ok(Answer { code, elsewhere: false }),
                Some(next) if next.host != target.host => return Ok(Answer { code, elsewhere: true }),
                Some(next) => target = next,
            }
        }
        Err(format!("Get \"{}\": stopped after {REDIRECTS} redirects", target.url()))
    }

    async fn once(&self, target: &Target) -> Result<(u16, Option<String>), String> {
        let stream = connect(&target.host, IpAddr::from([0, 0, 0, 0]), target.port).await?;
        if !target.tls {
            return self.exchange(stream, target).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(TRUSTING.clone()).connect(name, stream).await.map_err(|error| match tls_error(&error) {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => PLAIN.to_owned(),
            Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
            _ => words(&error),
        })?;
        self.exchange(stream, target).await
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin, target: &Target) -> Result<(u16, Option<String>), String> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let given = |name: &str| self.get.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let mut request = hyper::Request::get(&target.path).header("Connection", "close");
        for (name, value) in [("Host", target.host()), ("User-Agent", format!("{}/1.36", self.agent)), ("Accept", "*/*".to_owned())] {
            if given(name).is_none() {
                request = request.header(name, value);
            }
        }
        // An Accept that is given and empty is none at all.
        for header in self.get.http_headers.iter().filter(|header| !(header.name.eq_ignore_ascii_case("accept") && header.value.is_empty())) {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let code = response.status().as_u16();
            let _ = Limited::new(response.into_body(), BODY).collect().await;
            Ok::<_, String>((code, location))
        };
        tokio::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        let mut driven = false;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = connection.as_mut(), if !driven => driven = true,
            }
        }
    }
}

fn path_of(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

impl Target {
    fn host(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.host(), self.path)
    }

    /// Where a `Location` leads; none when it is no http URL.
    fn follow(&self, location: &str) -> Option<Target> {
        let url = Url::parse(&self.url()).ok()?.join(location).ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Target { tls, host, port: url.port_or_known_default()?, path: path_of(&url) })
    }
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Takes any certificate, as kubelet's probes do: they ask whether a pod answers, not who it is.
static TRUSTING: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    // The provider knows these versions.
    let builder = builder.unwrap_or_else(|_| unreachable!("TLS 1.2 and 1.3 with ring"));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth())
});
