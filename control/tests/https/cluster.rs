//! A control plane in this process and TLS connections to it. Not every test file uses all of it.

use bytes::{Bytes, BytesMut};
use coracle_control::{Control, Options, Settings};
use coracle_link::pki::{self, Authority, KeyPair};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::Value;
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const DAY: Duration = Duration::from_secs(86_400);
/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The control plane.
pub struct Cluster {
    pub control: Control,
    authority: Authority,
    dir: TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(tempfile::tempdir().expect("a directory"), Settings::default()).await
    }

    /// The same cluster after an orderly stop.
    pub async fn restart(self) -> Self {
        assert_eq!(self.control.stop().await, Vec::<&str>::new(), "nothing is late");
        let Self { dir, control, .. } = self;
        drop(control);
        Self::with(dir, Settings::default()).await
    }

    /// With pods, and what stands for them, on loopback addresses.
    pub async fn on_loopback() -> Self {
        Self::open(tempfile::tempdir().expect("a directory"), "127.244.0.0/16", Settings::default()).await
    }

    /// With settings of its own.
    pub async fn with(dir: TempDir, settings: Settings) -> Self {
        Self::open(dir, "10.244.0.0/16", settings).await
    }

    async fn open(dir: TempDir, pod_cidr: &str, settings: Settings) -> Self {
        let authority = Authority::open(&dir.path().join("pki")).expect("an authority");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let options = Options {
            data_dir: dir.path().into(),
            api_addr: any,
            link_addr: any,
            pod_cidr: pod_cidr.into(),
            service_cidr: "10.96.0.0/16".into(),
            authority: authority.clone(),
            settings,
        };
        let control = Control::start(options).await.expect("a control plane");
        Self { control, authority, dir }
    }

    /// A member of `system:masters`.
    pub async fn admin(&self) -> Peer {
        let identity = self.authority.client("kubernetes-admin", &["system:masters".into()], DAY).expect("a certificate");
        self.connect(Some(identity)).await
    }

    /// Somebody without a certificate.
    pub async fn nobody(&self) -> Peer {
        self.connect(None).await
    }

    /// Somebody with an administrator's certificate of another cluster.
    pub async fn stranger(&self) -> Peer {
        let dir = tempfile::tempdir().expect("a directory");
        let other = Authority::open(dir.path()).expect("an authority");
        let identity = other.client("kubernetes-admin", &["system:masters".into()], DAY).expect("a certificate");
        self.connect(Some(identity)).await
    }

    /// A node's end of a link (QUIC) to the control plane.
    pub async fn node(&self, name: &str) -> Arc<dyn coracle_link::Connection> {
        let (authority, user) = (self.authority.clone(), format!("system:node:{name}"));
        let identity = pki::Identity::new(DAY, move || authority.client(&user, &["system:nodes".into()], DAY)).expect("a certificate");
        let connector = coracle_link::quic::connector(self.control.link_addr(), self.authority.ca_pem(), identity).expect("a connector");
        connector.connect().await.expect("a link")
    }

    /// Whoever this certificate names.
    pub async fn connect(&self, identity: Option<KeyPair>) -> Peer {
        let stream = self.stream(identity, b"h2").await;
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Peer { sender, bearer: None, headers: Vec::new() }
    }

    /// An administrator's connection for HTTP/1.1, of which nothing is read or written yet.
    pub async fn bare(&self) -> TlsStream<TcpStream> {
        let identity = self.authority.client("kubernetes-admin", &["system:masters".into()], DAY).expect("a certificate");
        self.stream(Some(identity), b"http/1.1").await
    }

    /// The same of somebody without a certificate.
    pub async fn bare_nobody(&self) -> TlsStream<TcpStream> {
        self.stream(None, b"http/1.1").await
    }

    async fn stream(&self, identity: Option<KeyPair>, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for certificate in pki::certificates(self.authority.ca_pem()).expect("the CA") {
            roots.add(certificate).expect("a root");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let (chain, key) = identity.to_der().expect("a key pair");
                builder.with_client_auth_cert(chain, key).expect("a client certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.control.api_addr()).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
    }
}

/// One connection.
pub struct Peer {
    sender: SendRequest<Full<Bytes>>,
    pub bearer: Option<String>,
    pub headers: Vec<(String, String)>,
}

/// What came back.
pub struct Answer {
    pub code: u16,
    /// Null where it is no JSON.
    pub body: Value,
    pub bytes: Bytes,
    headers: HashMap<String, String>,
}

impl Answer {
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Peer {
    pub async fn raw(&mut self, method: &str, path: &str, content_type: &str, accept: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in [("content-type", content_type), ("accept", accept)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        if let Some(token) = &self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body.into())).expect("a request");
        tokio::time::timeout(PATIENCE, self.sender.send_request(request)).await.expect("an answer in time").expect("an answer")
    }

    async fn answer(response: Response<Incoming>) -> Answer {
        let code = response.status().as_u16();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_string())).collect();
        let bytes = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("a body in time").expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { code, body, bytes, headers }
    }

    pub async fn send(&mut self, method: &str, path: &str, content_type: &str, body: String) -> Answer {
        self.ask(method, path, content_type, "", body).await
    }

    /// With both headers.
    pub async fn ask(&mut self, method: &str, path: &str, content_type: &str, accept: &str, body: impl Into<Bytes>) -> Answer {
        let response = self.raw(method, path, content_type, accept, body).await;
        Self::answer(response).await
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.accept(path, "").await
    }

    pub async fn accept(&mut self, path: &str, accept: &str) -> Answer {
        let response = self.raw("GET", path, "", accept, String::new()).await;
        Self::answer(response).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    pub async fn text(&mut self, path: &str, accept: &str) -> String {
        let body = self.raw("GET", path, "", accept, String::new()).await.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    pub async fn watch(&mut self, path: &str) -> Events {
        self.watch_as(path, "").await
    }

    pub async fn watch_as(&mut self, path: &str, accept: &str) -> Events {
        let response = self.raw("GET", path, "", accept, String::new()).await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), buffer: BytesMut::new() }
    }
}

/// The events of a watch, one a line.
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            self.read().await?;
        }
    }

    /// The next event of a protobuf watch: what its four bytes of length frame.
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<4>()
                && rest.len() >= u32::from_be_bytes(*head) as usize
            {
                let length = u32::from_be_bytes(*head) as usize;
                return Some(self.buffer.split_to(4 + length).split_off(4).freeze());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Option<()> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
        self.buffer.extend_from_slice(frame.expect("a frame").data_ref().expect("data"));
        Some(())
    }
}

/// Looks again until it is so; for what comes into force a moment later and nothing tells of.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> T, is: impl Fn(&T) -> bool) -> T {
    let looking = async {
        loop {
            let seen = look().await;
            if is(&seen) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it came to be so in time")
}
