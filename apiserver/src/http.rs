//! The API over HTTPS: TLS, HTTP/1.1 and HTTP/2, and from a request to the pipeline and back.
//!
//! hyper serves the connections and axum's body type carries the answers; there is no router, because what a path means is one pure
//! function ([`route::parse`]) for every resource there is or will be.

pub mod accept;
mod bearer;
mod begun;
mod compress;
mod connection;
mod counted;
mod discovery;
mod encode;
pub mod fairness;
mod health;
pub mod inflight;
mod openapi;
mod paths;
mod pretty;
pub mod respond;
pub mod route;
pub mod table;
mod tls;
mod told;
pub mod upgrade;
pub mod watch;

pub use connection::{Error, Listener, bind};
pub use paths::{KUBERNETES, version};
pub use tls::Peer;

use crate::{
    aggregation,
    auth::{Attributes, User, impersonate},
    pipeline::{Body, Core, HttpParts, PatchKind, Request, Verb, Warnings, WriteOptions, decode, flag, handle, managers, patch},
};
use accept::Offer;
use axum::body::Body as HttpBody;
use begun::Begun;
use bytes::Bytes;
use coracle_api::{
    registry::{Resource, ResourceRef},
    status::Status,
};
use counted::Counted;
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use route::{Route, Target};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;
use upgrade::Upgrade;

/// Largest body of a request, bytes, as upstream.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How long a request that is no watch, log or proxy may take.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// What is written of an answer before its head goes out, bytes.
const SMALL: usize = 16 * 1024;

/// One request without its body.
#[derive(Clone, Copy)]
struct Call<'a> {
    method: &'a Method,
    path: &'a str,
    raw_query: &'a str,
    headers: &'a HeaderMap,
    upgrade: Option<&'a Upgrade>,
    warnings: &'a Warnings,
}

impl<'a> Call<'a> {
    /// The same for another server.
    fn passed(self, body: Bytes) -> aggregation::client::Passed<'a> {
        let Call { method, path, raw_query, headers, upgrade, .. } = self;
        aggregation::client::Passed { method, path, raw_query, headers, body, upgrade }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Serves one HTTP request of a connection.
pub async fn serve(core: Arc<Core>, peer: Arc<Peer>, from: SocketAddr, request: http::Request<hyper::body::Incoming>) -> Response<HttpBody> {
    let (mut parts, body) = request.into_parts();
    bearer::moved(&mut parts.headers);
    let mut told = told::Told::new(&core, &parts, from);
    let mut answer = match accepted(&core, &peer, &parts, body, &mut told).await {
        Ok(answer) => answer,
        Err(status) => respond::status(&status, text(&parts.headers, header::ACCEPT)),
    };
    if pretty::wanted(parts.uri.query().unwrap_or_default(), text(&parts.headers, header::USER_AGENT)) {
        answer = pretty::answer(answer).await;
    }
    answer = compress::answer(answer, text(&parts.headers, header::ACCEPT_ENCODING)).await;
    told.headers(&mut answer);
    if parts.method == Method::HEAD { headers_alone(answer) } else { answer }
}

/// What a GET says of its answer, without the answer: over HTTP/2 nobody else takes the body away, and a client that meets one breaks the stream off.
fn headers_alone(answer: Response<HttpBody>) -> Response<HttpBody> {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, HttpBody::empty())
}

async fn accepted(
    core: &Arc<Core>,
    peer: &Peer,
    parts: &Parts,
    body: hyper::body::Incoming,
    told: &mut told::Told,
) -> Result<Response<HttpBody>, Status> {
    let (began, upgrade) = (Instant::now(), Upgrade::of(parts));
    let (path, raw_query) = (parts.uri.path(), parts.uri.query().unwrap_or(""));
    let warnings = told.warnings();
    let call = Call { method: &parts.method, path, raw_query, headers: &parts.headers, upgrade: upgrade.as_ref(), warnings: &warnings };
    let route = routed(call)?;
    let long = is_long_running(core, call, &route);
    let asked = attributes(call, &route);
    let counted = Counted::new(core, call, &route, &asked, began, long);
    let user = authenticate(core, peer, call.headers).await;
    told.begin(user.as_deref().unwrap_or(&User::default()), &asked);
    let work = async {
        let user = core.auth.impersonate(&user?, wanted_user(call.headers)?)?;
        let (judged, turn) = core.inflight.enter(&user, &asked).await;
        let held = async {
            let (turn, _one) = (turn?, counted.under_way(core));
            let place = if long { Some(core.inflight.stream()?) } else { None };
            let (bytes, _room) = content(core, call, body).await?;
            told.request(&bytes);
            let answer = bounded(core, user, call, route.clone(), bytes).await?;
            Ok(match place {
                Some(place) => told::hold(answer, place),
                None => written(core, answer, turn).await,
            })
        };
        Ok((judged, held.await))
    };
    let (judged, answer) = match told.within(work).await {
        Ok((judged, answer)) => (judged, answer),
        Err(status) => (fairness::Judged::default(), Err(status)),
    };
    told.judged(judged);
    counted.answered(core, told.done(answer, long).await)
}

/// What is asked for, if path and query can be read at all.
fn routed(call: Call<'_>) -> Result<Route, Status> {
    let route = route::parse(call.path).ok_or_else(|| Status::bad_request("the path of the request is not readable"))?;
    match route::readable(&route, call.raw_query) {
        true => Ok(route),
        false => Err(Status::bad_request("the query of the request is not readable: it has a broken escape, or one that is no UTF-8")),
    }
}

/// An answer that is written as it is read (a list) keeps its turn until that is done, but no longer than a request may take: a slow reader is no work.
async fn written(core: &Core, answer: Response<HttpBody>, turn: inflight::Turn) -> Response<HttpBody> {
    if http_body::Body::size_hint(answer.body()).exact().is_some() || answer.extensions().get::<compress::Document>().is_none() {
        return answer;
    }
    let (head, body) = answer.into_parts();
    match begun::read(body, SMALL, REQUEST_TIME).await {
        Begun::Whole(whole) => Response::from_parts(head, whole.into()),
        Begun::More(source) => told::hold(Response::from_parts(head, source.into_body()), core.inflight.lease(turn, REQUEST_TIME)),
    }
}

/// The body of a request, and the room it takes.
async fn content(core: &Core, call: Call<'_>, body: hyper::body::Incoming) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Status> {
    match *call.method {
        Method::GET | Method::HEAD => Ok((Bytes::new(), None)),
        _ => {
            // Upstream reads what is compressed as text; a word about it is kinder (RFC 9110, 8.4).
            if text(call.headers, header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
                return Err(Status::new(415, "UnsupportedMediaType", "the body of the request has a content encoding; only identity is accepted"));
            }
            let said = http_body::Body::size_hint(&body).upper().map_or(MAX_BODY, |bytes| usize::try_from(bytes).unwrap_or(MAX_BODY));
            let room = core.inflight.body(said.min(MAX_BODY)).await?;
            Ok((read(body).await?, Some(room)))
        }
    }
}

/// What is asked, as far as path, query and method say it.
fn attributes<'a>(call: Call<'a>, route: &'a Route) -> Attributes<'a> {
    let watch = || route::query(call.raw_query).iter().any(|(key, value)| key == "watch" && flag(value));
    let verb = match route {
        Route::Resource(target) => route::verb(call.method, target, watch()).map(Verb::as_str),
        Route::Path(_) => None,
    };
    let verb = verb.or_else(|| paths::verb(call.method)).unwrap_or_default();
    match route {
        Route::Resource(target) => Attributes {
            verb,
            group: &target.group,
            version: &target.version,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            ..Attributes::default()
        },
        Route::Path(_) => Attributes { verb, path: call.path, ..Attributes::default() },
    }
}

async fn authenticate(core: &Core, peer: &Peer, headers: &HeaderMap) -> Result<Arc<User>, Status> {
    let authorization = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| Status::unauthorized())?),
    };
    match peer {
        Peer::Known(certificate) => {
            if let Some(user) = certificate.user() {
                return Ok(user);
            }
            let user = core.auth.authenticate(Some(certificate.der()), authorization).await?;
            certificate.remember(&user);
            Ok(user)
        }
        // A certificate of another cluster is no identity; a good token beside it is.
        Peer::Stranger if authorization.is_none() => Err(Status::unauthorized()),
        Peer::Stranger | Peer::Nobody => core.auth.authenticate(None, authorization).await,
    }
}

fn wanted_user(headers: &HeaderMap) -> Result<impersonate::Wanted, Status> {
    let text = |name: &str, value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Status::bad_request(format!("header {name} is not readable text"))),
    };
    // Of several the first counts, as upstream reads them.
    let first = |name: &str| headers.get(name).map_or(Ok(String::new()), |value| text(name, value));
    let mut wanted = impersonate::Wanted { name: first("impersonate-user")?, uid: first("impersonate-uid")?, ..Default::default() };
    for (name, value) in headers {
        let Some(rest) = name.as_str().strip_prefix("impersonate-") else { continue };
        let value = text(name.as_str(), value)?;
        match rest {
            "user" | "uid" => {}
            "group" => wanted.groups.push(value),
            rest => match rest.strip_prefix("extra-") {
                Some(key) => {
                    // A key that cannot be decoded is taken as it is, as upstream does.
                    let key = route::decode(key).unwrap_or_else(|| key.to_string());
                    match wanted.extra.iter_mut().find(|(its, _)| *its == key) {
                        Some((_, values)) => values.push(value),
                        None => wanted.extra.push((key, vec![value])),
                    }
                }
                None => return Err(Status::bad_request(format!("header {name} is no impersonation that this server knows"))),
            },
        }
    }
    Ok(wanted)
}

async fn read(body: hyper::body::Incoming) -> Result<Bytes, Status> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(patch::too_large(format_args!("limit is {MAX_BODY}"))),
        Ok(Err(error)) => Err(Status::bad_request(format!("the body of the request broke off: {error}"))),
        Err(_) => Err(Status::new(408, "Timeout", format!("the body of the request did not arrive within {} s", BODY_TIME.as_secs()))),
    }
}

/// Watches, followed logs and proxies may last; everything else is in the in-flight limit and has a deadline.
fn is_long_running(core: &Core, call: Call<'_>, route: &Route) -> bool {
    let Route::Resource(target) = route else { return false };
    // Here an upgrade means something for streams only; what it means to another server is not known.
    if call.upgrade.is_some() && core.remote(&target.group, &target.version).is_some() {
        return true;
    }
    let query = route::query(call.raw_query);
    let on = |name: &str| query.iter().any(|(key, value)| key == name && flag(value));
    match target.subresource.as_str() {
        // A write is none, whatever its query says.
        "" => route::verb(call.method, target, on("watch")) == Some(Verb::Watch),
        "log" => on("follow"),
        "proxy" | "exec" | "attach" | "portforward" => true,
        _ => false,
    }
}

async fn bounded(core: &Arc<Core>, user: Arc<User>, call: Call<'_>, route: Route, body: Bytes) -> Result<Response<HttpBody>, Status> {
    if is_long_running(core, call, &route) {
        return dispatch(core, user, call, route, body).await;
    }
    let time = route::timeout(call.raw_query)?.map_or(REQUEST_TIME, |asked| asked.min(REQUEST_TIME));
    match tokio::time::timeout(time, dispatch(core, user, call, route, body)).await {
        Ok(result) => result,
        Err(_) => Err(Status::new(504, "Timeout", format!("Timeout: the request did not finish within {time:?}; it may have been carried out"))),
    }
}

/// The same for a caller who is already known: a node on its link. The answer's body is collected, at most 4 MiB.
pub async fn serve_call(core: &Arc<Core>, user: Arc<User>, method: &str, path: &str, content_type: &str, body: Bytes) -> (u16, Bytes) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = content_type.parse() {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let (path, raw_query) = path.split_once('?').unwrap_or((path, ""));
    let answer = match Method::from_bytes(method.as_bytes()) {
        Ok(method) => {
            let call = Call { method: &method, path, raw_query, headers: &headers, upgrade: None, warnings: &Warnings::default() };
            match routed(call) {
                Err(status) => Err(status),
                Ok(route) if is_long_running(core, call, &route) => Err(Status::bad_request("a watch or stream cannot be asked for in a call")),
                Ok(route) => told::call(core, user, call, route, body).await,
            }
        }
        Err(_) => Err(Status::method_not_allowed()),
    };
    let answer = answer.unwrap_or_else(|status| respond::status(&status, None));
    let code = answer.status().as_u16();
    match Limited::new(answer.into_body(), 4 * 1024 * 1024).collect().await {
        Ok(body) => (code, body.to_bytes()),
        Err(error) => {
            let status = Status::internal(format_args!("the answer cannot be sent over the link: {error}"));
            (status.code, Bytes::from(status.to_json().to_string()))
        }
    }
}

async fn dispatch(core: &Arc<Core>, user: Arc<User>, call: Call<'_>, route: Route, body: Bytes) -> Result<Response<HttpBody>, Status> {
    match route {
        Route::Resource(target) => resource(core, user, call, target, body).await,
        Route::Path(parts) => {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            if let ["apis", group, version] = parts[..]
                && let Some(remote) = core.remote(group, version)
            {
                plain(call.path)?;
                core.authorize_path(&user, &call.method.as_str().to_ascii_lowercase(), call.path)?;
                // There is nothing here to change over to.
                return core.pass_on(&remote, &user, Call { upgrade: None, ..call }.passed(body)).await;
            }
            paths::serve(core, &user, call.method, call.path, call.raw_query, &parts, call.headers).await
        }
    }
}

/// What another server would perhaps read otherwise is not passed on: it is authorized as it is read here.
fn plain(path: &str) -> Result<(), Status> {
    match route::is_plain(path) {
        true => Ok(()),
        false => {
            Err(Status::bad_request("the path of the request can be read in more than one way: it has empty or dotted parts, or encoded slashes"))
        }
    }
}

async fn resource(core: &Arc<Core>, user: Arc<User>, call: Call<'_>, target: Target, body: Bytes) -> Result<Response<HttpBody>, Status> {
    let query = route::query(call.raw_query);
    let param = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let watch = param("watch").is_some_and(flag);
    let verb = route::verb(call.method, &target, watch).ok_or_else(Status::method_not_allowed)?;
    let row = row_of(core, &target).await;
    let remote = if row.is_none() { core.remote(&target.group, &target.version) } else { None };
    if remote.is_some() {
        plain(call.path)?;
    }
    let Some(row) = row.filter(|row| row.namespaced() || target.namespace.is_empty()) else {
        // Who may not ask learns nothing, not even that it does not exist.
        core.authorize(
            &user,
            &Attributes {
                verb: verb.as_str(),
                group: &target.group,
                version: &target.version,
                resource: &target.resource,
                subresource: &target.subresource,
                namespace: &target.namespace,
                name: &target.name,
                ..Attributes::default()
            },
        )?;
        return match remote {
            Some(remote) => core.pass_on(&remote, &user, call.passed(body)).await,
            None => Err(handle::no_such_path()),
        };
    };
    let mut target = target;
    let (request, wanted) = match prepared(core, &user, call, &mut target, (&row, verb), query, body) {
        Ok(prepared) => prepared,
        Err(status) => {
            // How to ask is told to those who may.
            let Target { subresource, namespace, name, .. } = &target;
            let (group, version, resource) = (&*row.group, &*row.version, &*row.plural);
            core.authorize(
                &user,
                &Attributes { verb: verb.as_str(), group, version, resource, subresource, namespace, name, ..Attributes::default() },
            )?;
            return Err(status);
        }
    };
    let answer = core.handle(request).await?;
    if let Some(deprecation) = &row.deprecation {
        crate::audit::annotate("k8s.io/deprecated", || "true".into());
        call.warnings.add(deprecation.to_string());
    }
    respond::answer(core, &row, &wanted, answer)
}

/// What the pipeline is asked, and how it shall be answered. Takes the target's texts once nothing can be wrong any more.
fn prepared(
    core: &Core,
    user: &Arc<User>,
    call: Call<'_>,
    target: &mut Target,
    (row, verb): (&ResourceRef, Verb),
    query: Vec<(String, String)>,
    body: Bytes,
) -> Result<(Request, respond::Wanted), Status> {
    let proxied = matches!(target.subresource.as_str(), "log" | "proxy" | "exec" | "attach" | "portforward");
    let accept_header = text(call.headers, header::ACCEPT).filter(|_| !proxied);
    let offer = offer(core, row, &target.subresource, verb);
    let accepted = match verb {
        Verb::Watch => accept::negotiate_stream(accept_header, offer)?,
        _ => accept::negotiate(accept_header, offer)?,
    };
    let needs_namespace = row.namespaced() && target.namespace.is_empty() && (!target.name.is_empty() || verb == Verb::Create);
    if needs_namespace && row.stored() {
        return Err(match verb {
            Verb::Create => Status::method_not_allowed(),
            _ => handle::no_such_path(),
        });
    }
    let include = query.iter().find(|(key, _)| key == "includeObject").map(|(_, value)| value.as_str());
    let wanted = respond::Wanted {
        accepted,
        socket: if verb == Verb::Watch && call.method == Method::GET { watch::Socket::of(call.upgrade, call.headers)? } else { None },
        include: if accepted.shape == accept::Shape::Table { table::Include::of(include)? } else { table::Include::Metadata },
    };
    let write = write_options(user, verb, &query, call.headers)?;
    let content_type = text(call.headers, header::CONTENT_TYPE).unwrap_or("").to_string();
    let body = match verb {
        Verb::Patch if !proxied => Body::Patch { kind: patch_kind(&content_type)?, bytes: body },
        Verb::Get | Verb::List | Verb::Watch => Body::None,
        _ => Body::Raw { content_type, bytes: body },
    };
    let Target { subresource, namespace, name, rest, .. } = std::mem::take(target);
    let parts = || HttpParts {
        method: call.method.clone(),
        headers: call.headers.clone(),
        rest,
        raw_query: call.raw_query.to_string(),
        upgrade: call.upgrade.cloned(),
    };
    let http = (!subresource.is_empty()).then(|| Arc::new(parts()));
    let (user, resource, warnings) = (user.clone(), row.clone(), call.warnings.clone());
    let request = Request { user, verb, resource, subresource: subresource.into(), namespace, name, query, write, body, http, warnings };
    Ok((request, wanted))
}

/// What a resource can answer with: tables and metadata where objects are stored, protobuf where its kinds have one.
fn offer(core: &Core, row: &Resource, subresource: &str, verb: Verb) -> Offer {
    let own = core.schema_of(row).is_some_and(|schema| schema.has_protobuf());
    let sub = row.subresource(subresource).map(|sub| &sub.gvk).filter(|(_, _, kind)| *kind != row.kind);
    let encoded = sub.is_none_or(|(group, version, kind)| core.schemas.get(group, version, kind).is_some_and(|schema| schema.has_protobuf()));
    Offer { protobuf: own && encoded, shapes: matches!(verb, Verb::Get | Verb::List | Verb::Watch) || row.stored() }
}

/// The row a path names. A custom kind that is not known yet may be stored already, here or on another server.
async fn row_of(core: &Core, target: &Target) -> Option<ResourceRef> {
    let find = || core.registry.by_path(&target.group, &target.version, &target.resource);
    let known = find();
    if known.is_some() || !target.group.contains('.') {
        return known;
    }
    // An error is for whoever looks next: here it only means that nothing newer is to be had.
    let _ = core.store.barrier().await;
    core.customs.refresh(&format!("{}.{}", target.resource, target.group));
    find()
}

fn patch_kind(content_type: &str) -> Result<PatchKind, Status> {
    Ok(match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        "application/apply-patch+yaml" => PatchKind::Apply,
        other => {
            return Err(Status::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml (got {other})"
                ),
            ));
        }
    })
}

fn write_options(user: &User, verb: Verb, query: &[(String, String)], headers: &HeaderMap) -> Result<WriteOptions, Status> {
    let param = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let dry_run = match param("dryRun") {
        None | Some("") => false,
        Some("All") => true,
        Some(other) => return Err(Status::bad_request(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\""))),
    };
    let applies = verb == Verb::Patch && matches!(patch_kind(text(headers, header::CONTENT_TYPE).unwrap_or_default()), Ok(PatchKind::Apply));
    let force = param("force").map(flag);
    Ok(WriteOptions {
        dry_run,
        field_validation: decode::field_validation(param("fieldValidation"))?,
        field_manager: managers::named(verb, applies, param("fieldManager"), force, text(headers, header::USER_AGENT), user)?,
        force: force.unwrap_or(false),
    })
}
