//! `/openapi/v3` and `/openapi/v2`: an index of documents, and the documents, made when somebody reads them.
//!
//! A document is named by a hash of what it is made from, so that the index and a client that has it already cost nothing. (Keeping documents
//! was rejected: core/v1 alone is a megabyte that is read once a client and version.) Those of other servers are kept, since they cost a round trip.

use super::{accept, respond, route};
use crate::{
    aggregation::{
        openapi::Published,
        swagger::{self, Part},
    },
    custom,
    pipeline::{Core, handle},
};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::{
    registry::{Resource, ResourceRef},
    status::Status,
};
use coracle_schema::Schemas;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde_json::{Value, json};

/// The v2 document in protobuf; `@` is not allowed in a media type, but older clients ask with it.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OLD_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers a path below `/openapi`.
pub fn serve(
    core: &Core,
    parts: &[&str],
    raw_query: &str,
    accept_header: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Response<Body>, Status> {
    let response = match parts {
        ["v3"] => {
            let body = json!({"paths": paths(core)}).to_string();
            let hash = respond::hash(body.as_bytes());
            respond::tagged(respond::json(body.into()), &hash, if_none_match)
        }
        ["v3", "api", version] => v3(core, "", version, raw_query, accept_header, if_none_match)?,
        ["v3", "apis", group, version] => v3(core, group, version, raw_query, accept_header, if_none_match)?,
        ["v2"] => v2(core, accept_header, if_none_match)?,
        _ => return Err(handle::no_such_path()),
    };
    Ok(response)
}

fn v2(core: &Core, accept_header: Option<&str>, if_none_match: Option<&str>) -> Result<Response<Body>, Status> {
    let protobuf = protobuf_wanted(accept_header);
    if !protobuf {
        acceptable(accept_header)?;
    }
    let rows = core.registry.all();
    let remote = core.remote_openapi(&core.store.snapshot());
    let tags: String = remote.iter().map(|(_, _, published)| published.tag()).collect();
    let own = fingerprint(&rows);
    let whole_hash = if tags.is_empty() { own } else { respond::hash(format!("{own}{tags}").as_bytes()) };
    let hash = if protobuf { respond::hash(format!("{whole_hash} in protobuf").as_bytes()) } else { whole_hash.clone() };
    let document = if respond::has(if_none_match, &hash) { Default::default() } else { whole(core, &rows, &remote, &whole_hash)? };
    let response = match protobuf && !document.is_empty() {
        true => respond::document(PROTOBUF, Schemas::openapi_v2_protobuf(&document).map_err(Status::internal)?),
        false => respond::json(document),
    };
    Ok(respond::tagged(response, &hash, if_none_match))
}

/// The document of everything (v2), with what other servers serve.
fn whole(core: &Core, rows: &[ResourceRef], remote: &[(String, String, Published)], hash: &str) -> Result<Bytes, Status> {
    let own = || core.schemas.openapi_v2(rows, &custom_schema);
    if remote.iter().all(|(_, _, published)| published.tag().is_empty()) {
        return Ok(own());
    }
    let make = || {
        let parts: Vec<Part> = remote.iter().filter_map(|(_, _, published)| published.part()).collect();
        swagger::merged(&own(), &parts)
    };
    core.aggregation.merged(hash, make).map_err(Status::internal)
}

/// What kubectl asks for is JSON's elder: the first of the two that is named counts.
fn protobuf_wanted(accept_header: Option<&str>) -> bool {
    let known = |clause: &accept::Clause<'_>| [PROTOBUF, OLD_PROTOBUF, "application/json"].iter().position(|media| *media == clause.media);
    accept::clauses(accept_header.unwrap_or_default()).iter().find_map(known).is_some_and(|media| media < 2)
}

fn acceptable(accept_header: Option<&str>) -> Result<(), Status> {
    let header = accept_header.filter(|header| !header.trim().is_empty()).unwrap_or("*/*");
    let json = |clause: &accept::Clause<'_>| matches!(clause.media, "application/json" | "application/*" | "*/*" | "*");
    if accept::clauses(header).iter().any(json) { Ok(()) } else { Err(accept::not_acceptable()) }
}

/// Changes when a document over these rows does.
fn fingerprint(rows: &[ResourceRef]) -> String {
    respond::hash(format!("{}{rows:?}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// The definition's schema of a custom kind.
fn custom_schema(row: &Resource) -> Option<Value> {
    serde_json::from_slice(custom::version_of(row)?.open_api()).ok()
}

fn name(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn url(name: &str, hash: &str) -> String {
    format!("/openapi/v3/{name}?hash={hash}")
}

fn paths(core: &Core) -> serde_json::Map<String, serde_json::Value> {
    let mut paths = serde_json::Map::new();
    for (group, versions) in core.registry.groups() {
        for version in versions {
            let name = name(&group, &version);
            let url = url(&name, &fingerprint(&core.registry.of(&group, &version)));
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    for (group, version, published) in core.remote_openapi(&core.store.snapshot()) {
        if let Some(document) = published.v3 {
            let name = name(&group, &version);
            let url = url(&name, &document.hash);
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    paths
}

fn v3(
    core: &Core,
    group: &str,
    version: &str,
    raw_query: &str,
    accept_header: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Response<Body>, Status> {
    let rows = core.registry.of(group, version);
    let remote = match rows.is_empty() {
        false => None,
        true => {
            core.remote(group, version).ok_or_else(handle::no_such_path)?;
            Some(core.aggregation.published(&format!("{version}.{group}")).v3.ok_or_else(handle::no_such_path)?)
        }
    };
    acceptable(accept_header)?;
    let hash = remote.as_ref().map_or_else(|| fingerprint(&rows), |document| document.hash.clone());
    let query = route::query(raw_query);
    let asked = query.iter().find(|(key, value)| key == "hash" && !value.is_empty()).map(|(_, value)| value);
    if asked.is_some_and(|asked| *asked != hash) {
        // The document has changed since the index was read.
        let mut moved = respond::text(301, "");
        if let Ok(target) = HeaderValue::from_str(&url(&name(group, version), &hash)) {
            moved.headers_mut().insert(header::LOCATION, target);
        }
        return Ok(moved);
    }
    let document = match remote {
        _ if respond::has(if_none_match, &hash) => Bytes::new(),
        Some(document) => document.json.clone(),
        None => core.schemas.openapi_v3(group, version, &rows, &custom_schema),
    };
    let mut response = respond::tagged(respond::json(document), &hash, if_none_match);
    if asked.is_some() && response.status() != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let in_a_year = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365);
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&in_a_year)
            && let Ok(expires) = HeaderValue::from_str(&date)
        {
            response.headers_mut().insert(header::EXPIRES, expires);
        }
    }
    Ok(response)
}
