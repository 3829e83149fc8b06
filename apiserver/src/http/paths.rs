//! Paths that name no resource: health, version, discovery, OpenAPI, the token issuer's documents.

use super::{accept, discovery, health, openapi, respond};
use crate::{
    auth::{Attributes, User, oidc},
    pipeline::{Core, handle},
    telemetry,
};
use accept::Media;
use axum::body::Body;
use coracle_api::status::Status;
use http::{HeaderMap, Method, Response, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// The Kubernetes version whose API this is.
pub const KUBERNETES: (&str, &str) = ("1", "36");

/// `/version`
pub fn version() -> Value {
    let (major, minor) = KUBERNETES;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+coracle"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": format!("linux/{}", architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a method is called where no resource is named.
pub(super) fn verb(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    })
}

/// Answers after authorization of the path.
pub async fn serve(
    core: &Arc<Core>,
    user: &User,
    method: &Method,
    path: &str,
    raw_query: &str,
    parts: &[&str],
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let verb = verb(method).ok_or_else(Status::method_not_allowed)?;
    // What strangers may see (/livez, /readyz, /version) is a role like any other: system:public-info-viewer.
    core.authorize(user, &Attributes { verb, path, ..Attributes::default() })?;
    if verb != "get" {
        return Err(Status::method_not_allowed());
    }
    // Somebody may have seen a definition before this server's own watch did.
    core.customs.catch_up();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let accept_header = text(header::ACCEPT);
    if let Some(answer) = discovery::serve(core, parts, accept_header, text(header::IF_NONE_MATCH)) {
        return answer;
    }
    match parts {
        [endpoint @ ("livez" | "readyz" | "healthz"), rest @ ..] => health::serve(core, endpoint, rest, raw_query).await,
        ["metrics"] => core.telemetry_text().map(|text| respond::document(telemetry::MEDIA, text)).map_err(Status::internal),
        ["metrics", "slis"] => core.checks_text().map(|text| respond::document(telemetry::MEDIA, text)).map_err(Status::internal),
        ["version"] => Ok(respond::value(200, Media::Json, &version())),
        [] => Ok(respond::value(200, Media::Json, &json!({"paths": roots(core)}))),
        [".well-known", "openid-configuration"] => {
            Ok(respond::value(200, Media::Json, &core.auth.openid_configuration(&core.config.api_addr.to_string())))
        }
        ["openid", "v1", "jwks"] => Ok(respond::document(oidc::JWKS_TYPE, core.auth.jwks().to_string())),
        ["openapi", rest @ ..] => openapi::serve(core, rest, raw_query, accept_header, text(header::IF_NONE_MATCH)),
        _ => Err(handle::no_such_path()),
    }
}

fn roots(core: &Core) -> Vec<String> {
    let mut roots: Vec<String> = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in core.registry.groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        roots.push(format!("/apis/{group}"));
        roots.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    roots.extend(["/healthz", "/livez", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(String::from));
    roots
}
