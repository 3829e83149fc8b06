//! What a registry answers (OCI distribution, pulling), every answer bounded: in silence, and in bytes before they are held.
//!
//! Of oci-client only the pushing half is used. It reads manifests, tokens and error messages whole, however long they are, and whose registry it is
//! that a pod names is not for the node to trust.

use super::{Error, Options};
use http::{
    HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, RANGE, WWW_AUTHENTICATE},
};
use oci_client::Reference;
use parking_lot::Mutex;
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use std::{
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// The most of an error's body that is looked at, bytes.
const COMPLAINT: usize = 16 << 10;
/// The largest token answer, bytes.
const TOKEN: usize = 1 << 20;

fn failed(message: impl Into<String>) -> Error {
    Error::new("ErrImagePull", message)
}

/// An error with its causes: reqwest's own words are only "error sending request".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn own_ca(options: &Options, registry: &str) -> PathBuf {
    options.data_dir.join("certs.d").join(registry).join("ca.crt")
}

/// CAs (PEM) for a registry besides the system's, and whether it is spoken to in the clear: loopback is, unless a CA is given for it.
pub fn trust(options: &Options, registry: &str) -> Result<(Vec<Vec<u8>>, bool), Error> {
    // reqwest takes the process's provider; installing it twice is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = Vec::new();
    let own = own_ca(options, registry);
    for path in options.registry_cas.iter().chain(std::iter::once(&own)) {
        match std::fs::read(path) {
            Ok(data) => roots.push(data),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && path == &own => {}
            Err(why) => return Err(failed(format!("read the registry CA {}: {why}", path.display()))),
        }
    }
    // The client library cannot be built without any root on the machine, even for http.
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err(failed("this machine has no CA certificates; install the package ca-certificates"));
    }
    Ok((roots, loopback(registry) && !own.exists()))
}

/// The first byte that comes and how many there are in all (RFC 9110, Content-Range), as far as it says.
fn content_range(range: &str) -> (Option<u64>, Option<u64>) {
    let (part, whole) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).unwrap_or_default();
    (part.split('-').next().and_then(|first| first.parse().ok()), whole.parse().ok())
}

fn loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One repository of a registry, with one credential.
pub struct Registry<'a> {
    client: Client,
    base: String,
    repository: &'a str,
    /// As errors name it.
    registry: &'a str,
    login: Option<(String, String)>,
    silence: Duration,
    /// What `Authorization` is to say, once the registry has asked for it.
    authorization: Mutex<Option<HeaderValue>>,
    denied: AtomicBool,
    /// Where a CA for this registry alone would be.
    own_ca: PathBuf,
}

/// Why a request was not answered.
pub struct Broken {
    /// Why.
    pub error: Error,
    /// The connection, or the registry for the moment: to be asked again.
    pub again: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Token {
    token: String,
    access_token: String,
}

#[derive(Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}
#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Registry<'a> {
    /// For pulling `name`. `silence` is how long the registry may say nothing.
    pub fn new(options: &Options, name: &'a Reference, login: Option<(String, String)>, silence: Duration) -> Result<Self, Error> {
        let registry = name.resolve_registry();
        let (roots, plain) = trust(options, registry)?;
        let unusable = |why: reqwest::Error| failed(format!("set up a client for registry {registry}: {}; look at its ca.crt", chain(&why)));
        let mut certificates = Vec::new();
        for root in roots {
            certificates.extend(reqwest::Certificate::from_pem_bundle(&root).map_err(unusable)?);
        }
        let client = Client::builder()
            .tls_certs_merge(certificates)
            // Redirects and token servers too: what is asked for with a password is never asked for in the clear.
            .https_only(!plain)
            .connect_timeout(silence.min(Duration::from_secs(10)))
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unusable)?;
        let base = format!("{}://{registry}/v2/{}", if plain { "http" } else { "https" }, name.repository());
        let (authorization, denied) = (Mutex::new(None), AtomicBool::new(false));
        let own_ca = own_ca(options, registry);
        Ok(Self { client, base, repository: name.repository(), registry, login, silence, authorization, denied, own_ca })
    }

    /// Did it refuse this credential? Another may do.
    pub fn denied(&self) -> bool {
        self.denied.load(Relaxed)
    }

    /// GET `<repository>/<rest>`, authorized as the registry wants it. `what` is the beginning of errors.
    pub async fn get(&self, what: &str, rest: &str, accept: &[&str]) -> Result<Response, Error> {
        self.request(what, rest, accept, 0).await.map_err(|broken| broken.error)
    }

    /// A blob of `size` bytes from the byte `from` on, and how many bytes of the answer come before that: registries may not know of ranges.
    pub async fn blob(&self, what: &str, digest: &str, size: u64, from: u64) -> Result<(Response, u64), Broken> {
        let response = self.request(what, &format!("blobs/{digest}"), &[], from).await?;
        let lies = |has: u64| {
            let message = format!("{what}: registry {} has {has} bytes of it, and the manifest says {size}; push the image again", self.registry);
            Err(Broken { error: failed(message), again: false })
        };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return match response.content_length() {
                Some(has) if has != size => lies(has),
                _ => Ok((response, from)),
            };
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        let (start, whole) = content_range(range);
        match start {
            _ if whole.is_some_and(|has| has != size) => lies(whole.unwrap_or_default()),
            Some(start) if start <= from => Ok((response, from - start)),
            _ => {
                let range: String = range.chars().filter(|c| !c.is_control()).take(100).collect();
                let message = format!("{what}: registry {} was asked for bytes from {from} on and answered with range {range:?}", self.registry);
                Err(Broken { error: failed(message), again: false })
            }
        }
    }

    async fn request(&self, what: &str, rest: &str, accept: &[&str], from: u64) -> Result<Response, Broken> {
        let url = format!("{}/{rest}", self.base);
        let lost = |error| Broken { error, again: true };
        let mut response = self.send(what, &url, accept, from).await.map_err(lost)?;
        if response.status() == StatusCode::UNAUTHORIZED && self.authorize(what, &response).await.map_err(|error| Broken { error, again: false })? {
            response = self.send(what, &url, accept, from).await.map_err(lost)?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let again = response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS;
        Err(Broken { error: self.complaint(what, response).await, again })
    }

    /// The next part of a body; none at its end.
    pub async fn chunk(&self, what: &str, response: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
        match tokio::time::timeout(self.silence, response.chunk()).await {
            Ok(part) => part.map_err(|why| failed(format!("{what}: {}", chain(&why)))),
            Err(_) => Err(failed(format!("{what}: registry {} sent nothing for {} s", self.registry, self.silence.as_secs()))),
        }
    }

    /// A whole body of at most `limit` bytes.
    pub async fn whole(&self, what: &str, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(part) = self.chunk(what, &mut response).await? {
            if body.len() + part.len() > limit {
                return Err(failed(format!("{what}: registry {} answered with more than the {limit} bytes that are allowed", self.registry)));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    async fn answer(&self, what: &str, request: reqwest::RequestBuilder) -> Result<Response, Error> {
        match tokio::time::timeout(self.silence, request.send()).await {
            Ok(response) => response.map_err(|why| {
                let unreachable = why.is_connect();
                let why = chain(&why);
                // rustls' words for it.
                let remedy = if why.contains("UnknownIssuer") {
                    format!("; if its CA is a private one, put that at {}", self.own_ca.display())
                } else if why.contains("InvalidContentType") {
                    "; it does not speak https, as registries have to but on this machine's loopback".to_owned()
                } else if unreachable {
                    let registry = self.registry;
                    format!("; registry {registry} cannot be reached: `coracle image import` makes images known that are in no registry")
                } else {
                    String::new()
                };
                failed(format!("{what}: {why}{remedy}"))
            }),
            Err(_) => Err(failed(format!("{what}: registry {} did not answer within {} s", self.registry, self.silence.as_secs()))),
        }
    }

    async fn send(&self, what: &str, url: &str, accept: &[&str], from: u64) -> Result<Response, Error> {
        let mut request = self.client.get(url);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if !accept.is_empty() {
            request = request.header(ACCEPT, accept.join(", "));
        }
        if let Some(authorization) = self.authorization.lock().clone() {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.answer(what, request).await
    }

    /// Gets what the challenge asks for (distribution spec, token authentication). False when there is nothing to answer it with.
    async fn authorize(&self, what: &str, refused: &Response) -> Result<bool, Error> {
        let headers = refused.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<String> = headers.iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        let challenges: Vec<_> = challenges.iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten().collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let value = if let Some(bearer) = of("bearer") {
            let parameter = |name: &str| bearer.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped());
            let realm = parameter("realm").and_then(|realm| realm.parse::<Url>().ok());
            let realm =
                realm.ok_or_else(|| failed(format!("{what}: registry {} asks for a token and does not say where to get one", self.registry)))?;
            let mut request = self.client.get(realm).query(&[("scope", format!("repository:{}:pull", self.repository))]);
            if let Some(service) = parameter("service") {
                request = request.query(&[("service", service)]);
            }
            if let Some((user, password)) = &self.login {
                request = request.basic_auth(user, Some(password));
            }
            let what = format!("{what}: get a token");
            let response = self.answer(&what, request).await?;
            if !response.status().is_success() {
                return Err(self.complaint(&what, response).await);
            }
            let token: Token = serde_json::from_slice(&self.whole(&what, response, TOKEN).await?).unwrap_or_default();
            format!("Bearer {}", if token.token.is_empty() { token.access_token } else { token.token })
        } else if let (Some(_), Some((user, password))) = (of("basic"), &self.login) {
            use base64::{Engine, engine::general_purpose::STANDARD};
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        } else {
            return Ok(false);
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| failed(format!("{what}: registry {} gave a token that is none", self.registry)))?;
        value.set_sensitive(true);
        *self.authorization.lock() = Some(value);
        Ok(true)
    }

    /// Why a request was not answered with success, in the registry's own words as far as they are short and plain.
    async fn complaint(&self, what: &str, response: Response) -> Error {
        let status = response.status();
        let mut remedy = if status == StatusCode::NOT_FOUND { "; check the image's name and tag" } else { "" };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.denied.store(true, Relaxed);
            remedy = if self.login.is_some() { "; these credentials do not open it" } else { "; give credentials in the pod's imagePullSecrets" };
        }
        let clear = response.url().scheme() == "http" && status == StatusCode::BAD_REQUEST;
        let body = self.whole(what, response, COMPLAINT).await.unwrap_or_default();
        if clear && body.starts_with(b"Client sent an HTTP request to an HTTPS server") {
            let at = self.own_ca.display();
            return failed(format!("{what}: registry {} speaks https, which is used on loopback if its CA is at {at}", self.registry));
        }
        let said = match serde_json::from_slice::<Complaints>(&body) {
            Ok(complaints) => {
                complaints.errors.into_iter().map(|one| if one.message.is_empty() { one.code } else { one.message }).collect::<Vec<_>>().join(", ")
            }
            Err(_) => String::new(),
        };
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        failed(format!("{what}: registry {} answered {status}{}{said}{remedy}", self.registry, if said.is_empty() { "" } else { ": " }))
    }
}
