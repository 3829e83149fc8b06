//! `nodes/NAME/proxy/…`: what there is of kubelet's own HTTP API. The node answers over its link; nothing listens on a port.

use super::logs::{self, stream};
use crate::{
    auth::Attributes,
    pipeline::{Body as RequestBody, Core, HttpParts, NodeLink, Request, Verb},
};
use axum::body::Body;
use coracle_api::status::Status;
use coracle_link::protocol::Open;
use http::{Method, Response, header};

/// The subresources of `nodes` that allow a path besides `nodes/proxy`: kubelet's fine-grained authorization (KEP-2862), and those that it always had.
fn subresource(path: &str) -> Option<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    Some(match first {
        "pods" | "runningpods" => "pods",
        "healthz" => "healthz",
        "configz" => "configz",
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => return None,
    })
}

/// Whether somebody who may not use `nodes/proxy` may read that path all the same, as kubelet itself would let them.
pub(crate) fn may_read(core: &Core, request: &Request) -> bool {
    let own = &*request.resource.plural == "nodes" && request.resource.group.is_empty() && &*request.subresource == "proxy";
    if !own || request.verb != Verb::Get || !matches!(request.body, RequestBody::None) {
        return false;
    }
    let Some(subresource) = request.http.as_ref().filter(|http| http.method == Method::GET).and_then(|http| subresource(&http.rest)) else {
        return false;
    };
    let asked = Attributes { verb: "get", version: "v1", resource: "nodes", subresource, name: &request.name, ..Attributes::default() };
    core.auth.authorize(&request.user, &asked).allowed()
}

/// Answers for a node.
pub(super) async fn serve(link: &dyn NodeLink, request: &Request, http: &HttpParts) -> Result<Response<Body>, Status> {
    let node = &request.name;
    let path = http.rest.trim_matches('/');
    if http.method != Method::GET {
        return Err(Status::method_not_allowed());
    }
    if let ["containerLogs", namespace, pod, container] = path.split('/').collect::<Vec<_>>()[..] {
        let (namespace, pod, container) = (namespace.into(), pod.into(), container.into());
        return logs::read(link, node, Open::Logs { namespace, pod, uid: String::new(), container, options: logs::options(request)? }).await;
    }
    let mut opened = link.open(node, Open::Get { path: path.into(), query: http.raw_query.clone() }).await?;
    let reply = super::answer(node, &mut *opened).await?;
    let media_type = String::from_utf8_lossy(&reply.body).into_owned();
    Response::builder().header(header::CONTENT_TYPE, media_type).body(stream(opened)).map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_subresources_that_kubelet_gives_them() {
        for (path, expected) in [
            ("stats/summary", Some("stats")),
            ("/metrics/cadvisor", Some("metrics")),
            ("metrics", Some("metrics")),
            ("metricsx", None),
            ("pods", Some("pods")),
            ("runningpods/", Some("pods")),
            ("logs/", Some("log")),
            ("configz", Some("configz")),
            ("containerLogs/a/b/c", None),
            ("exec/a/b/c", None),
            ("", None),
        ] {
            assert_eq!(subresource(path), expected, "{path}");
        }
    }
}
