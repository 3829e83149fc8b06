//! `pods/log`: which container, on which node, with which options; then bytes as they come.

use super::{accepted, streams};
use crate::pipeline::{NodeLink, Request};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::{Cause, Status};
use coracle_link::{
    RecvHalf, Stream,
    protocol::{LogOptions, Open},
};
use coracle_store::{Key, Store};
use futures::TryStreamExt;
use http::{Response, header};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Pod {
    pub metadata: Metadata,
    pub spec: Spec,
}
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Metadata {
    annotations: std::collections::BTreeMap<String, String>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub node_name: String,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub ephemeral_containers: Vec<Container>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Container {
    pub name: String,
    pub ports: Vec<Port>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub name: String,
    pub container_port: u16,
}

pub(super) async fn serve(store: &Store, link: &dyn NodeLink, request: &Request) -> Result<Response<Body>, Status> {
    let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
    let options = options(request)?;
    let object = store.snapshot().get(&Key::new("pods", namespace, name)).ok_or_else(|| Status::not_found("", "pods", name))?;
    let pod: Pod = serde_json::from_slice(&object.json).map_err(Status::internal)?;
    let container = container(&pod, name, request.param("container").unwrap_or_default())?;
    let open = Open::Logs { namespace: namespace.into(), pod: name.into(), uid: object.meta.uid.to_string(), container, options };
    // Without a node upstream answers with nothing: there cannot be a log yet.
    let from = Some((pod.spec.node_name.as_str(), open)).filter(|(node, _)| !node.is_empty());
    let asked = request.http.as_deref().and_then(|http| Some((http, http.upgrade.as_ref().filter(|upgrade| upgrade.is_websocket())?)));
    match (asked, from) {
        (Some((http, upgrade)), from) => streams::log::serve(link, http, upgrade, from).await,
        (None, Some((node, open))) => read(link, node, open).await,
        (None, None) => text(Body::empty()),
    }
}

/// A log that a node was asked for.
pub(super) async fn read(link: &dyn NodeLink, node: &str, open: Open) -> Result<Response<Body>, Status> {
    text(stream(accepted(link, node, open).await?))
}

/// The frames of a stream as a body.
pub(super) fn stream(stream: Box<dyn Stream>) -> Body {
    Body::from_stream(frames(stream))
}

/// What is said on a stream.
pub(super) fn frames(stream: Box<dyn Stream>) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    // Both halves live in what is given: when the client goes away they are dropped, and the node learns of it.
    let frames = futures::stream::try_unfold(stream.split(), |(send, mut recv): (_, Box<dyn RecvHalf>)| async move {
        let frame = recv.recv().await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(frame.map(|frame| (frame, (send, recv))))
    });
    frames.try_filter(|frame| std::future::ready(!frame.is_empty()))
}

fn text(body: Body) -> Result<Response<Body>, Status> {
    Response::builder().header(header::CONTENT_TYPE, "text/plain").body(body).map_err(Status::internal)
}

/// The wanted container, or the only one, or the one that the annotation names.
fn container(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    let spec = &pod.spec;
    let mut all = spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers).map(|c| c.name.as_str());
    if !wanted.is_empty() {
        return match all.any(|c| c == wanted) {
            true => Ok(wanted.into()),
            false => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        };
    }
    let annotated = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container");
    match (&spec.containers[..], annotated) {
        (_, Some(annotated)) if all.any(|c| c == annotated) => Ok(annotated.clone()),
        ([only], _) => Ok(only.name.clone()),
        (many, _) => {
            let names: Vec<&str> = many.iter().map(|c| c.name.as_str()).collect();
            let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", names.join(" "));
            if !spec.init_containers.is_empty() {
                let init: Vec<&str> = spec.init_containers.iter().map(|c| c.name.as_str()).collect();
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// `core/v1 PodLogOptions` out of the query.
pub(super) fn options(request: &Request) -> Result<LogOptions, Status> {
    let flag = |name: &str| -> Result<bool, Status> {
        match request.param(name) {
            None => Ok(false),
            // as Go's conversion of query parameters reads booleans: there, and not "false" or "0"
            Some(value) => Ok(!matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "f")),
        }
    };
    let number = |name: &str| -> Result<Option<i64>, Status> {
        match request.param(name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|_| Status::bad_request(format!("unable to decode the query parameter {name}: {value:?} is not a whole number"))),
        }
    };
    let stream = request.param("stream").filter(|v| !v.is_empty());
    let options = LogOptions {
        follow: flag("follow")?,
        previous: flag("previous")?,
        timestamps: flag("timestamps")?,
        since_seconds: number("sinceSeconds")?,
        since_time: request.param("sinceTime").filter(|v| !v.is_empty()).map(str::to_string),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream: stream.filter(|stream| *stream != "All").map_or_else(String::new, str::to_lowercase),
    };
    let mut causes = Vec::new();
    let mut wrong = |reason: &str, field: &str, message: String| causes.push(Cause { reason: reason.into(), message, field: field.into() });
    let mut invalid = |field: &str, value: String, why: &str| wrong("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"));
    if let Some(n) = options.tail_lines.filter(|n| *n < 0) {
        invalid("tailLines", n.to_string(), "must be greater than or equal to 0");
    }
    if let Some(n) = options.limit_bytes.filter(|n| *n < 1) {
        invalid("limitBytes", n.to_string(), "must be greater than 0");
    }
    match (&options.since_seconds, &options.since_time) {
        (Some(_), Some(_)) => wrong("FieldValueForbidden", "", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into()),
        (Some(n), _) if *n < 1 => invalid("sinceSeconds", n.to_string(), "must be greater than 0"),
        (_, Some(t)) if t.parse::<jiff::Timestamp>().is_err() => invalid("sinceTime", format!("{t:?}"), "must be an RFC 3339 time"),
        _ => {}
    }
    // KEP-3288, which upstream has behind a feature gate.
    if let Some(stream) = stream.filter(|stream| !STREAMS.contains(stream)) {
        let known = STREAMS.map(|stream| format!("{stream:?}")).join(", ");
        wrong("FieldValueNotSupported", "stream", format!("Unsupported value: {stream:?}: supported values: {known}"));
    }
    if !options.stream.is_empty() && options.tail_lines.is_some() {
        wrong("FieldValueForbidden", "", "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now".into());
    }
    match causes.is_empty() {
        true => Ok(options),
        false => Err(Status::invalid("", "PodLogOptions", &request.name, causes)),
    }
}

/// What `stream` may be; the first is what is meant without it.
const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str], init: &[&str], annotation: Option<&str>) -> Pod {
        let list = |names: &[&str]| names.iter().map(|n| Container { name: n.to_string(), ports: vec![] }).collect();
        let key = "kubectl.kubernetes.io/default-container".to_string();
        let metadata = Metadata { annotations: annotation.map(|a| (key, a.to_string())).into_iter().collect() };
        Pod { metadata, spec: Spec { node_name: "n".into(), containers: list(containers), init_containers: list(init), ..Spec::default() } }
    }

    #[test]
    fn which_container() {
        assert_eq!(container(&pod(&["a"], &["i"], None), "p", "").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"], &["i"], None), "p", "i").unwrap(), "i");
        assert_eq!(container(&pod(&["a", "b"], &[], Some("b")), "p", "").unwrap(), "b");
        let many = container(&pod(&["a", "b"], &["i"], Some("gone")), "p", "").unwrap_err();
        assert_eq!(many.message, "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]");
        let wrong = container(&pod(&["a"], &[], None), "p", "z").unwrap_err();
        assert_eq!((wrong.code, wrong.message.as_str()), (400, "container z is not valid for pod p"));
    }
}
