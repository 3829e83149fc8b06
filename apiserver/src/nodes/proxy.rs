//! `pods/proxy`, `services/proxy` (and, in [`super::kubelet`], `nodes/proxy`): one HTTP/1.1 request over a stream to the pod, answered as it comes.
//!
//! A connection a request: the stream over the link costs no round trip to open, and a pool would keep pods' connections open for
//! nobody. Upstream rewrites links in HTML; here only `Location` is rewritten, which is what clients follow by themselves.

use super::{
    accepted,
    target::{self, Target},
};
use crate::pipeline::{Body as RequestBody, HttpParts, NodeLink, Request};
use axum::body::Body;
use coracle_api::status::Status;
use coracle_link::{ByteStream, pki::Anyone, protocol::Open};
use coracle_store::Store;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a pod may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Headers that end at a proxy (RFC 9110 §7.6.1), and the caller's credentials, which are not the pod's business.
const DROPPED: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
];

pub(super) async fn serve(store: &Store, link: &dyn NodeLink, request: &Request) -> Result<Response<Body>, Status> {
    let fallback;
    let http = match &request.http {
        Some(http) => http,
        None => {
            fallback =
                HttpParts { method: Method::GET, headers: HeaderMap::new(), rest: String::new(), raw_query: String::new(), upgrade: None }.into();
            &fallback
        }
    };
    let place = if request.namespace.is_empty() { String::new() } else { format!("namespaces/{}/", request.namespace) };
    let prefix = format!("/api/v1/{place}{}/{}/proxy", request.resource.plural, request.name);
    if request.http.as_deref().is_some_and(at_no_path) {
        return moved(&prefix, &http.raw_query);
    }
    if &*request.resource.plural == "nodes" {
        return super::kubelet::serve(link, request, http).await;
    }
    let to = target::split(&request.name)?;
    let snapshot = store.snapshot();
    let target = match &*request.resource.plural {
        "pods" => target::pod(&snapshot, &request.namespace, &to)?,
        _ => target::service(&snapshot, &request.namespace, &to, |n| rand::random_range(0..n))?,
    };
    drop(snapshot);
    let body = match &request.body {
        RequestBody::Raw { bytes, .. } | RequestBody::Patch { bytes, .. } => bytes.clone(),
        RequestBody::Object(value) => value.to_string().into(),
        RequestBody::None => Default::default(),
    };
    forward(link, &target, to.scheme == "https", http, &prefix, body).await
}

/// Who reads at no path at all is sent to the root: the links of a page there would lead past the proxy.
fn at_no_path(http: &HttpParts) -> bool {
    http.rest.is_empty() && http.upgrade.is_none() && matches!(http.method, Method::GET | Method::HEAD)
}

fn moved(prefix: &str, query: &str) -> Result<Response<Body>, Status> {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let answer = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, format!("{prefix}/{query}"));
    answer.body(Body::empty()).map_err(Status::internal)
}

/// Sends the request to a pod, over TLS or not, and gives its answer, streaming. `prefix` is the path under which the client reached it. Who the pod is was asked of its
/// node: a certificate says no more, and is not looked at, as upstream does not.
///
/// # Errors
/// 503 when the pod or its node cannot be reached, 502 when it does not answer in HTTP.
async fn forward(
    link: &dyn NodeLink,
    target: &Target,
    tls: bool,
    http: &HttpParts,
    prefix: &str,
    body: bytes::Bytes,
) -> Result<Response<Body>, Status> {
    let Target { node, namespace, pod, uid, port } = target;
    let open = Open::Dial { namespace: namespace.clone(), pod: pod.clone(), uid: uid.clone(), port: *port };
    let stream = accepted(link, node, open).await.map_err(|mut error| {
        error.message = format!("error trying to reach service: {}", error.message);
        error
    })?;
    let broken = |why: &dyn std::fmt::Display| {
        Status::new(502, "BadGateway", format!("error trying to reach service: pod {namespace}/{pod} port {port}: {why}"))
    };
    let request = outgoing(http, target, prefix, body)?;
    let wire = ByteStream::new(stream);
    let response = match tls {
        false => driven::exchange(TokioIo::new(wire), request).await.map_err(|e| broken(&e))?,
        true => {
            // Of an address the other end is told nothing.
            let name = ServerName::from(Ipv4Addr::LOCALHOST);
            let connecting = TlsConnector::from(anyone().map_err(Status::internal)?).connect(name, wire);
            let wire = timeout(HANDSHAKE, connecting).await.map_err(|_| broken(&"no TLS handshake in time"))?.map_err(|e| broken(&e))?;
            driven::exchange(TokioIo::new(wire), request).await.map_err(|e| broken(&e))?
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = http.upgrade.as_ref().ok_or_else(|| broken(&"it changed over to another protocol unasked"))?;
        return Ok(upgrade.join(response));
    }
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    relocate(&mut parts.headers, prefix, &format!("{pod}:{port}"));
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// TLS to whoever answers.
fn anyone() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()))
}

fn outgoing(http: &HttpParts, target: &Target, prefix: &str, body: bytes::Bytes) -> Result<http::Request<Body>, Status> {
    let rest = http.rest.trim_start_matches('/');
    let path = if http.raw_query.is_empty() { format!("/{rest}") } else { format!("/{rest}?{}", http.raw_query) };
    let path: PathAndQuery = path.parse().map_err(|e| Status::bad_request(format!("the proxied path {path:?} is no HTTP path: {e}")))?;
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = http.method.clone();
    *request.uri_mut() = path.into();
    let mut headers = http.headers.clone();
    strip(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(upgrade) = &http.upgrade {
        upgrade.ask(&mut headers);
    }
    let text = |value: &str| HeaderValue::from_str(value).map_err(Status::internal);
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
    headers.insert("x-forwarded-uri", text(&format!("{prefix}/{rest}"))?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert(header::HOST, text(&format!("{}:{}", target.pod, target.port))?);
    *request.headers_mut() = headers;
    // with its length; a GET without a body gets none
    if !body.is_empty() {
        request.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
        *request.body_mut() = Body::from(body);
    }
    Ok(request)
}

pub(crate) fn strip(headers: &mut HeaderMap) {
    // what Connection names ends here too
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in DROPPED.iter().chain(&named) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// A redirect within the pod becomes one within the proxy's path.
fn relocate(headers: &mut HeaderMap, prefix: &str, host: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) else { return };
    let own = ["http://", "https://"].iter().find_map(|scheme| location.strip_prefix(scheme)?.strip_prefix(host));
    let path = match own {
        Some(path) => path,
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return,
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{slash}{path}")) {
        headers.insert(header::LOCATION, value);
    }
}

pub(crate) mod driven;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_the_proxy() {
        let go = |location: &str| {
            let mut headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(location).unwrap())]);
            relocate(&mut headers, "/p/proxy", "web:80");
            headers[header::LOCATION].to_str().unwrap().to_string()
        };
        assert_eq!(go("/login?x=1"), "/p/proxy/login?x=1");
        assert_eq!(go("http://web:80/login"), "/p/proxy/login");
        assert_eq!(go("https://example.com/"), "https://example.com/");
        assert_eq!(go("//example.com/"), "//example.com/");
        assert_eq!(go("next"), "next");
    }

    #[test]
    fn hop_by_hop_headers_and_credentials_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-hop"), ("x-hop", "1"), ("authorization", "Bearer t"), ("keep-alive", "1"), ("accept", "*/*")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
