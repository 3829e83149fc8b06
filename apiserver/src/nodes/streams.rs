//! `pods/exec`, `pods/attach`, `pods/portforward`: a client's connection, joined to streams to the pod's node.
//!
//! What a client speaks is translated here, so that nodes know one protocol. To the left it is a WebSocket or SPDY, in each of the versions that kubectl and
//! client-go have had; to the right a stream of [`Piece`](coracle_link::protocol::Piece)s for a program, and one of bytes for each forwarded connection.

mod forward;
pub(super) mod log;
pub(crate) mod negotiate;
mod program;
mod tunnel;
pub(crate) mod websocket;

use super::{
    connect,
    logs::{Container, Pod},
};
use crate::{
    admission,
    http::upgrade::Upgrade,
    pipeline::{Core, HttpParts, NodeLink, Request},
};
use axum::body::Body;
use coracle_api::status::Status;
use coracle_link::protocol::{Open, Session};
use coracle_store::Key;
use futures::StreamExt;
use http::Response;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a client may take to open the streams it is expected to open, as with kubelets.
const CREATION: Duration = Duration::from_secs(30);
/// How often a client that says nothing is asked whether it is there.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a client may take to hang up when all is said, and how much it may still say.
const LINGER: Duration = Duration::from_secs(10);
const REST: usize = 64 << 20;

/// `PodExecOptions`, `PodAttachOptions` and `PodPortForwardOptions` in one, as admission has seen them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    container: String,
    command: Vec<String>,
    ports: Vec<u16>,
}

/// Where the pod is.
struct Place {
    node: String,
    namespace: String,
    pod: String,
    uid: String,
}

pub(super) async fn serve(core: &Arc<Core>, request: &Request) -> Result<Response<Body>, Status> {
    let options: Options = serde_json::from_value(admission::connect_options(request)).map_err(Status::internal)?;
    let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
    let object = core.store.snapshot().get(&Key::new("pods", namespace, name)).ok_or_else(|| Status::not_found("", "pods", name))?;
    let pod: Pod = serde_json::from_slice(&object.json).map_err(Status::internal)?;
    let forwards = &*request.subresource == "portforward";
    let container = if forwards { String::new() } else { container(&pod, name, &options.container)? };
    if pod.spec.node_name.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let http = request.http.as_deref();
    let Some((http, upgrade)) = http.and_then(|http| Some((http, http.upgrade.as_ref()?))) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let place = Place { node: pod.spec.node_name, namespace: namespace.into(), pod: name.into(), uid: object.meta.uid.to_string() };
    if forwards {
        return forward::serve(core, http, upgrade, place, options.ports);
    }
    let Options { stdin, stdout, tty, command, .. } = options;
    // A terminal has one output.
    let stderr = options.stderr && !tty;
    if !stdin && !stdout && !stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let session = Session { namespace: place.namespace, pod: place.pod, uid: place.uid, container, stdin, stdout, stderr, tty };
    let open = match &*request.subresource {
        "attach" => Open::Attach { session: session.clone() },
        _ if command.is_empty() => return Err(Status::bad_request("you must specify at least one command for the container")),
        _ => Open::Exec { session: session.clone(), command },
    };
    program::serve(connect::link(core), http, upgrade, &place.node, session, open).await
}

/// Lets a client that has been told all hang up. What it says until then is read and forgotten: a connection that is closed over bytes that were not read is reset, and
/// what the client has not read yet is lost with it (RFC 9293, 3.10.4; RFC 2525, 2.17).
async fn hung_up<T, E>(mut said: impl futures::Stream<Item = Result<T, E>> + Unpin, length: impl Fn(&T) -> usize) {
    let rest = async {
        let mut left = REST;
        while let Some(Ok(piece)) = said.next().await {
            match left.checked_sub(length(&piece)) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Later than that it is cut off.
    _ = timeout(LINGER, rest).await;
}

/// The wanted container, or the only one.
fn container(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    let names = |list: &[Container]| list.iter().map(|container| container.name.clone()).collect::<Vec<_>>();
    let spec = &pod.spec;
    let all = [names(&spec.init_containers), names(&spec.containers), names(&spec.ephemeral_containers)].concat();
    match (wanted, &spec.containers[..]) {
        ("", [only]) => Ok(only.name.clone()),
        ("", []) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        ("", _) => Err(Status::bad_request(format!("a container name must be specified for pod {name}, choose one of: [{}]", all.join(" ")))),
        _ if all.iter().any(|its| its == wanted) => Ok(wanted.into()),
        _ => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_client_still_says_is_read_to_its_end_or_to_a_bound() {
        use bytes::Bytes;
        use tokio::io::AsyncWriteExt;
        use tokio_util::io::ReaderStream;
        let (ours, mut brief) = tokio::io::duplex(64);
        let all = tokio::spawn(hung_up(ReaderStream::new(ours), Bytes::len));
        brief.write_all(&[0; 1000]).await.unwrap();
        drop(brief);
        all.await.unwrap();
        let (ours, mut endless) = tokio::io::duplex(1 << 20);
        let all = tokio::spawn(hung_up(ReaderStream::new(ours), Bytes::len));
        let (mut said, piece) = (0, vec![0; 1 << 20]);
        while endless.write_all(&piece).await.is_ok() {
            said += piece.len();
        }
        all.await.unwrap();
        assert!(said <= REST + (2 << 20), "{said}");
    }

    #[test]
    fn which_container() {
        let pod = |containers: &[&str]| -> Pod {
            let list = |names: &[&str]| names.iter().map(|name| serde_json::json!({"name": name})).collect::<Vec<_>>();
            let spec = serde_json::json!({"containers": list(containers), "initContainers": list(&["i"]), "ephemeralContainers": list(&["e"])});
            serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap()
        };
        let of = |containers: &[&str], wanted: &str| container(&pod(containers), "p", wanted).map_err(|status| (status.code, status.message));
        assert_eq!(of(&["a"], ""), Ok("a".into()));
        assert_eq!(of(&["a", "b"], "e"), Ok("e".into()));
        assert_eq!(of(&["a"], "z"), Err((400, "container z is not valid for pod p".into())));
        assert_eq!(of(&["a", "b"], ""), Err((400, "a container name must be specified for pod p, choose one of: [i a b e]".into())));
    }
}
