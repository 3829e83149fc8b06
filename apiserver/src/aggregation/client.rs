//! One request to a remote API server: over TLS to a ready endpoint of its Service, as this server and in the user's name.
//!
//! A connection a request, as for the API's other proxies: it costs a handshake, and keeps nothing open for nobody.

use super::{Aggregation, Place, Spec};
use crate::{
    auth::User,
    http::upgrade::Upgrade,
    nodes::proxy::{driven, strip},
    pipeline::Core,
    webhook::{self, trust},
};
use axum::body::Body;
use bytes::Bytes;
use coracle_link::pki::Anyone;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::danger::ServerCertVerifier, pki_types::ServerName};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio_rustls::TlsConnector;

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest list of resources, bytes.
const MAX_DOCUMENT: usize = 4 << 20;
/// Endpoints that are tried for it.
const TRIES: usize = 3;

/// A request as it came.
pub(crate) struct Passed<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub raw_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
    pub upgrade: Option<&'a Upgrade>,
}

impl Aggregation {
    fn tls(&self, spec: &Spec) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let trusted: Arc<dyn ServerCertVerifier> = match spec.insecure_skip_tls_verify {
            true => Arc::new(Anyone(provider)),
            false => trust::verifier(&spec.ca_bundle, provider)?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(trusted);
        Ok(Arc::new(match self.identity.get() {
            Some((identity, _)) => builder.with_client_cert_resolver(identity.clone()),
            None => builder.with_no_client_auth(),
        }))
    }
}

/// Who asks, in the headers that remote servers trust this one to set.
fn sign(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let foreign: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-") || name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    // Any text but control characters, as Go's client has it.
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} cannot stand in a header"));
    headers.insert("x-remote-user", value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert("x-remote-uid", value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &user.extra {
        let name: HeaderName = format!("x-remote-extra-{}", escaped(key)).parse().map_err(|_| format!("{key:?} cannot name a header"))?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as part of a header's name: what may not stand there is percent-encoded, as client-go does.
fn escaped(key: &str) -> String {
    let mut text = String::new();
    for byte in key.to_ascii_lowercase().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

fn host(place: &Place) -> String {
    format!("{}.{}.svc", place.name, place.namespace)
}

impl Core {
    pub(super) async fn ask_remote(&self, spec: &Spec, user: &User, passed: Passed<'_>) -> Result<Response<Body>, String> {
        let place = spec.service.as_ref().ok_or("it is served here")?;
        let mut headers = passed.headers.clone();
        strip(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        if let Some(upgrade) = passed.upgrade {
            upgrade.ask(&mut headers);
        }
        sign(&mut headers, user)?;
        let authority = format!("{}:{}", host(place), place.port.unwrap_or(443));
        headers.insert(header::HOST, HeaderValue::from_str(&authority).map_err(|error| error.to_string())?);
        let target = if passed.raw_query.is_empty() { passed.path.to_owned() } else { format!("{}?{}", passed.path, passed.raw_query) };
        let mut request = Request::builder().method(passed.method).uri(target).body(Body::empty()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        if !passed.body.is_empty() {
            request.headers_mut().insert(header::CONTENT_LENGTH, passed.body.len().into());
            *request.body_mut() = Body::from(passed.body);
        }
        let service = webhook::Service { namespace: place.namespace.clone(), name: place.name.clone(), path: None, port: place.port };
        let connect = async {
            let wire = self.dial_service(&service).await.map_err(|status| status.message)?;
            let name = ServerName::try_from(host(place)).map_err(|error| error.to_string())?;
            TlsConnector::from(self.aggregation.tls(spec)?).connect(name, wire).await.map_err(|error| format!("tls: {error}"))
        };
        let stream = tokio::time::timeout(CONNECT, connect).await.map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))??;
        let answer = driven::exchange(TokioIo::new(stream), request).await.map_err(|error| error.to_string())?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = passed.upgrade.ok_or("it changed over to another protocol unasked")?;
            return Ok(upgrade.join(answer));
        }
        let (mut parts, body) = answer.into_parts();
        strip(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

pub(super) async fn discover(core: &Core, spec: &Spec) -> Result<Value, String> {
    let path = format!("/apis/{}/{}", spec.group, spec.version);
    // Who may do all is told what there is.
    let user = User { name: "system:kube-aggregator".into(), groups: vec!["system:masters".into()], ..User::default() };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let place = spec.service.as_ref().ok_or("it is served here")?;
    let url = format!("https://{}:{}{path}", host(place), place.port.unwrap_or(443));
    let mut last = String::new();
    for _ in 0..TRIES {
        let once = async {
            let passed = Passed { method: &Method::GET, path: &path, raw_query: "", headers: &headers, body: Bytes::new(), upgrade: None };
            let response = core.ask_remote(spec, &user, passed).await?;
            let code = response.status();
            if !code.is_success() {
                return Err(format!("bad status from {url}: {}", code.as_u16()));
            }
            let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await.map_err(|error| error.to_string())?.to_bytes();
            serde_json::from_slice::<Value>(&body).map_err(|error| format!("what it serves cannot be read: {error}"))
        };
        match tokio::time::timeout(PATIENCE, once).await {
            Ok(Ok(list)) => return Ok(list),
            Ok(Err(why)) => last = format!("failing or missing response from {url}: {why}"),
            Err(_) => last = format!("timed out waiting for {url}"),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_in_the_users_name_alone() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("impersonate-user", "a"), ("accept", "*/*")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let user = User {
            name: "jane".into(),
            groups: vec!["dev".into(), "ops".into()],
            extra: vec![("example.com/Role".into(), vec!["x".into()])],
            ..User::default()
        };
        sign(&mut headers, &user).expect("signed");
        let all = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-group")), (vec!["jane"], vec!["dev", "ops"]));
        assert_eq!((all("x-remote-extra-example.com%2Frole"), all("impersonate-user"), all("accept")), (vec!["x"], vec![], vec!["*/*"]));
        assert!(sign(&mut headers, &User { name: "a\nb".into(), ..User::default() }).is_err());
        sign(&mut headers, &User { name: "jürgen".into(), groups: vec!["日本".into()], ..User::default() }).expect("any name");
        assert_eq!((headers["x-remote-user"].as_bytes(), headers["x-remote-group"].as_bytes()), ("jürgen".as_bytes(), "日本".as_bytes()));
    }
}
