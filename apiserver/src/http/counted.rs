//! What a request is counted as, from what it asked for.

use super::{Call, route::Route, text, told};
use crate::{
    auth::Attributes,
    pipeline::Core,
    telemetry::requests::{About, One},
};
use axum::body::Body;
use coracle_api::status::Status;
use http::{Method, Response, StatusCode, header};
use std::time::Instant;

/// Subresources that are streams, or may be.
const CONNECTS: &[&str] = &["log", "exec", "portforward", "attach", "proxy"];

/// The verb, as upstream reports it.
fn verb(method: &Method, subresource: &str, asked: &str, applies: bool) -> &'static str {
    match (asked, method) {
        _ if CONNECTS.contains(&subresource) => "CONNECT",
        ("watch", _) => "WATCH",
        ("list", _) => "LIST",
        (_, &Method::GET | &Method::HEAD) => "GET",
        (_, &Method::PATCH) if applies => "APPLY",
        (_, &Method::PATCH) => "PATCH",
        (_, &Method::POST) => "POST",
        (_, &Method::PUT) => "PUT",
        (_, &Method::DELETE) => "DELETE",
        _ => "other",
    }
}

fn scope(asked: &Attributes<'_>) -> &'static str {
    match asked {
        _ if !asked.name.is_empty() || asked.verb == "create" => "resource",
        _ if !asked.namespace.is_empty() => "namespace",
        _ => "cluster",
    }
}

/// Paths that are counted by name.
fn named(parts: &[String]) -> &'static str {
    const PATHS: &[&str] = &["/livez", "/readyz", "/healthz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/api", "/apis"];
    let is = |path: &&&str| path.split('/').skip(1).eq(parts.iter().take(path.matches('/').count()).map(String::as_str));
    PATHS.iter().find(is).copied().unwrap_or_default()
}

/// One request.
pub(super) struct Counted<'a> {
    about: About<'a>,
    began: Instant,
    long: bool,
}

impl<'a> Counted<'a> {
    /// A request that came at this moment. What is no resource of this server is not named: clients could make it up.
    pub(super) fn new(core: &Core, call: Call<'a>, route: &'a Route, asked: &Attributes<'a>, began: Instant, long: bool) -> Self {
        let dry_run = match call.raw_query.contains("dryRun") {
            false => "",
            true if super::route::query(call.raw_query).iter().any(|(key, value)| key == "dryRun" && value == "All") => "All",
            true => "invalid",
        };
        let applies = || text(call.headers, header::CONTENT_TYPE).is_some_and(|media| media.starts_with("application/apply-patch"));
        let mut about = About { verb: verb(call.method, asked.subresource, asked.verb, applies()), dry_run, ..About::default() };
        match route {
            Route::Path(parts) => about.subresource = named(parts),
            Route::Resource(target) => {
                let row = core.registry.by_path(&target.group, &target.version, &target.resource);
                about.scope = scope(asked);
                if row.is_some() || core.remote(&target.group, &target.version).is_some() {
                    (about.group, about.version) = (&target.group, &target.version);
                }
                if let Some(row) = row {
                    about.resource = &target.resource;
                    about.subresource = row.subresource(&target.subresource).map_or("", |_| &target.subresource);
                }
            }
        }
        Self { about, began, long }
    }

    /// Held while it is worked on.
    pub(super) fn under_way(&self, core: &Core) -> Option<One> {
        (!self.long).then(|| core.telemetry.requests.under_way(!matches!(self.about.verb, "GET" | "LIST" | "WATCH")))
    }

    /// It is answered; one that lasts is timed until its answer ends.
    pub(super) fn answered(&self, core: &Core, answer: Result<Response<Body>, Status>) -> Result<Response<Body>, Status> {
        let code = match &answer {
            Ok(answer) => answer.status(),
            Err(status) => StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let requests = &core.telemetry.requests;
        requests.answered(&self.about, code.as_str());
        match answer {
            Ok(answer) if self.long => Ok(told::hold(answer, requests.lasts(&self.about, self.began))),
            answer => {
                requests.took(&self.about, self.began.elapsed());
                answer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_scopes_are_upstreams() {
        for (method, subresource, asked, applies, expected) in [
            (Method::GET, "", "get", false, "GET"),
            (Method::HEAD, "", "get", false, "GET"),
            (Method::GET, "", "list", false, "LIST"),
            (Method::GET, "", "watch", false, "WATCH"),
            (Method::GET, "log", "get", false, "CONNECT"),
            (Method::POST, "exec", "create", false, "CONNECT"),
            (Method::POST, "", "create", false, "POST"),
            (Method::PATCH, "status", "patch", true, "APPLY"),
            (Method::PATCH, "", "patch", false, "PATCH"),
            (Method::DELETE, "", "deletecollection", false, "DELETE"),
            (Method::OPTIONS, "", "", false, "other"),
        ] {
            assert_eq!(verb(&method, subresource, asked, applies), expected, "{method} {subresource} {asked}");
        }
        let of = |verb, namespace, name| scope(&Attributes { verb, namespace, name, ..Attributes::default() });
        assert_eq!(
            [of("list", "", ""), of("list", "n", ""), of("get", "n", "a"), of("create", "n", "")],
            ["cluster", "namespace", "resource", "resource"]
        );
        let named = |path: &str| named(&path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            [named("/livez/ping"), named("/openapi/v3/api/v1"), named("/apis/apps"), named("/nothing")],
            ["/livez", "/openapi/v3", "/apis", ""]
        );
    }
}
