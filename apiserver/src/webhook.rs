//! Calls to webhooks over HTTPS: where one is (a URL, or a Service of the cluster), by what its certificate is trusted, and the call itself.
//!
//! A Service's pods are reached over the links of their nodes, as for the API's proxy, so that a webhook works wherever its pod runs; endpoints that are no pods are
//! dialled at their address. A connection is kept for the next call, and driven only while a call waits on it: no task of its own.

mod reply;
pub(crate) mod trust;

use crate::{
    nodes::{self, target},
    pipeline::Core,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_link::{ByteStream, pki, protocol::Open};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use reply::Reply;
use rustls::{ClientConfig as TlsConfig, pki_types::ServerName};
use serde::Deserialize;
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// What a call may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time until the whole answer is there.
    pub within: Duration,
    /// Longest answer.
    pub bytes: usize,
}

/// Connections that wait for the next call, per webhook.
const MAX_IDLE: usize = 2;
/// How long they wait.
const IDLE: Duration = Duration::from_secs(30);

/// `WebhookClientConfig`: exactly one of `url` and `service` is set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConfig {
    /// `https://host[:port]/path`
    pub url: Option<String>,
    /// A Service of the cluster.
    pub service: Option<Service>,
    /// Base64 of PEM certificates; without any the system's are trusted.
    pub ca_bundle: String,
}

/// `ServiceReference`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(default)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Path of the request.
    pub path: Option<String>,
    /// Port of the Service; 443 by default.
    pub port: Option<u16>,
}

/// Whether a CA bundle holds certificates; an empty one is fine.
///
/// # Errors
/// A sentence, as upstream's validation words it.
pub fn check_bundle(bundle: &str) -> Result<(), String> {
    if bundle.is_empty() { Ok(()) } else { certificates(bundle).map(drop) }
}

fn certificates(bundle: &str) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    let unreadable = || "unable to load root certificates: unable to parse bytes as PEM block".to_owned();
    let pem = STANDARD.decode(bundle).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(unreadable)?;
    pki::certificates(&pem).map_err(|_| unreadable())
}

/// A stream of bytes both ways.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection and who drives it: whoever waits on it.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    since: Instant,
}

/// Connections that wait for the next call.
#[derive(Default)]
pub struct Pool(Mutex<HashMap<ClientConfig, Vec<Connection>>>);

impl Pool {
    fn take(&self, config: &ClientConfig) -> Option<Connection> {
        self.0.lock().get_mut(config)?.pop()
    }

    fn put(&self, config: &ClientConfig, connection: Connection) {
        let mut pool = self.0.lock();
        pool.retain(|_, idle| {
            idle.retain(|connection| connection.since.elapsed() < IDLE);
            !idle.is_empty()
        });
        let idle = pool.entry(config.clone()).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

/// Where a configuration leads to.
struct Place<'c> {
    /// As in the certificate.
    host: &'c str,
    /// `host:port`
    authority: String,
    path: String,
}

impl ClientConfig {
    /// The name of a Service within the cluster, as certificates of webhooks have it.
    fn service_host(&self) -> String {
        self.service.as_ref().map(|service| format!("{}.{}.svc", service.name, service.namespace)).unwrap_or_default()
    }

    fn place<'c>(&'c self, service_host: &'c str) -> Result<Place<'c>, String> {
        if let Some(service) = &self.service {
            let path = service.path.as_deref().unwrap_or_default();
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            return Ok(Place { host: service_host, authority: format!("{service_host}:{}", service.port.unwrap_or(443)), path });
        }
        let url = self.url.as_deref().ok_or("webhook configuration must have either service or URL")?;
        let rest = url.strip_prefix("https://").ok_or_else(|| format!("{url} is no https URL"))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        // `[::1]:443`, `host:443`, `host`
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(_, port)| port);
        let host = match port {
            Some(port) => &authority[..authority.len() - port.len() - 1],
            None => authority,
        };
        let authority = if port.is_some() { authority.to_owned() } else { format!("{authority}:443") };
        Ok(Place { host: host.trim_matches(['[', ']']), authority, path: path.to_owned() })
    }

    fn tls(&self) -> Result<Arc<TlsConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = trust::verifier(&self.ca_bundle, provider.clone())?;
        let builder = TlsConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(trusted).with_no_client_auth()))
    }
}

impl Core {
    /// Posts JSON to a webhook; the JSON it answers with.
    ///
    /// # Errors
    /// Why there is no answer, as Go's HTTP client would begin it: `Post "https://web.default.svc:443/convert?timeout=30s": …`; of an answer that is an error,
    /// what it says.
    pub async fn call_webhook(&self, config: &ClientConfig, body: Bytes, limits: Limits) -> Result<Bytes, String> {
        let host = config.service_host();
        let place = config.place(&host)?;
        let target = format!("{}?timeout={}s", place.path, limits.within.as_secs_f64().ceil());
        let called = |why: String| format!("Post \"https://{}{target}\": {why}", place.authority);
        let answer = tokio::time::timeout(limits.within, self.exchange(config, &place, &target, body, limits.bytes)).await;
        let late = |_| Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into());
        answer.unwrap_or_else(late).map_err(called)?.content()
    }

    async fn exchange(&self, config: &ClientConfig, place: &Place<'_>, target: &str, body: Bytes, most: usize) -> Result<Reply, String> {
        // One that waited may have been closed by the other side meanwhile: then nothing of the request was read.
        while let Some(mut kept) = self.webhooks.take(config) {
            if kept.since.elapsed() < IDLE
                && let Ok(answer) = kept.post(place, target, body.clone(), most).await
            {
                self.keep(config, kept);
                return Ok(answer);
            }
        }
        let mut connection = self.connect(config, place).await?;
        let answer = connection.post(place, target, body, most).await?;
        self.keep(config, connection);
        Ok(answer)
    }

    fn keep(&self, config: &ClientConfig, mut connection: Connection) {
        if connection.sender.is_ready() {
            connection.since = Instant::now();
            self.webhooks.put(config, connection);
        }
    }

    async fn connect(&self, config: &ClientConfig, place: &Place<'_>) -> Result<Connection, String> {
        let wire = match &config.service {
            Some(service) => self.dial_service(service).await.map_err(|status| status.message)?,
            None => dial(&place.authority).await?,
        };
        let name = ServerName::try_from(place.host.to_owned()).map_err(|error| format!("{}: {error}", place.host))?;
        let stream = TlsConnector::from(config.tls()?).connect(name, wire).await.map_err(|error| format!("tls: {error}"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        Ok(Connection { sender, driver: Box::pin(connection), since: Instant::now() })
    }

    /// A stream to a ready endpoint of a Service.
    pub(crate) async fn dial_service(&self, service: &Service) -> Result<Box<dyn Wire>, Status> {
        let port = service.port.unwrap_or(443).to_string();
        let name = target::Name { scheme: "https", name: &service.name, port: &port };
        let endpoint = target::any(&self.store.snapshot(), &service.namespace, &name, |count| rand::random_range(0..count))?;
        match endpoint {
            target::Reached::Pod(pod) => {
                let link = self.nodes.get().ok_or_else(|| Status::new(503, "ServiceUnavailable", "no node is connected yet"))?;
                let open = Open::Dial { namespace: pod.namespace, pod: pod.pod, uid: pod.uid, port: pod.port };
                Ok(Box::new(ByteStream::new(nodes::accepted(&**link, &pod.node, open).await?)))
            }
            target::Reached::Address(address) => dial(&address).await.map_err(|why| Status::new(503, "ServiceUnavailable", why)),
        }
    }
}

async fn dial(authority: &str) -> Result<Box<dyn Wire>, String> {
    match tokio::net::TcpStream::connect(authority).await {
        Ok(stream) => {
            // Small messages go out at once; it works without.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Err(error) => Err(format!("dial tcp {authority}: {error}")),
    }
}

impl Connection {
    /// Sends one request and reads its answer, driving the connection meanwhile.
    async fn post(&mut self, place: &Place<'_>, target: &str, body: Bytes, most: usize) -> Result<Reply, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(header::HOST, &place.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let sender = &mut self.sender;
        let exchange = async {
            sender.ready().await.map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            match Limited::new(body, most).collect().await {
                Ok(body) => Ok(Reply::of(&head, body.to_bytes())),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(format!("the answer is longer than {most} bytes")),
                Err(error) => Err(error.to_string()),
            }
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // Once the connection ended, what is left of the answer is at hand.
            _ = &mut self.driver => exchange.await,
        }
    }
}

/// 500 without a reason, as upstream passes on what a webhook did not do.
pub fn failed(why: impl Into<String>) -> Status {
    Status::new(500, "", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_say_where_to_go() {
        let url = |url: &str| ClientConfig { url: Some(url.into()), ..ClientConfig::default() };
        for (text, host, authority, path) in [
            ("https://example.com", "example.com", "example.com:443", "/"),
            ("https://example.com:8443/a/b", "example.com", "example.com:8443", "/a/b"),
            ("https://[::1]:8443/a", "::1", "[::1]:8443", "/a"),
            ("https://[::1]", "::1", "[::1]:443", "/"),
        ] {
            let config = url(text);
            let place = config.place("").expect("a place");
            assert_eq!((place.host, place.authority.as_str(), place.path.as_str()), (host, authority, path), "{text}");
        }
        assert!(url("http://a").place("").is_err());
        let service = Service { namespace: "ns".into(), name: "web".into(), path: None, port: None };
        let config = ClientConfig { service: Some(service), ..ClientConfig::default() };
        let host = config.service_host();
        let place = config.place(&host).expect("a place");
        assert_eq!((place.host, place.authority.as_str(), place.path.as_str()), ("web.ns.svc", "web.ns.svc:443", "/"));
    }
}
