//! The subresources that talk to a node: `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`, `pods/proxy`, `services/proxy`, `nodes/proxy`.

use super::{logs, proxy, streams};
use crate::pipeline::{Answer, Core, NodeLink, Request};
use coracle_api::status::Status;
use std::sync::Arc;

/// Answers them; `None` for any other. Authorization is done.
pub async fn serve(core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
    let response = match (&*request.resource.id(), &*request.subresource) {
        ("pods", "log") => logs::serve(&core.store, link(core), request).await,
        ("pods", "exec" | "attach" | "portforward") => streams::serve(core, request).await,
        ("pods" | "services" | "nodes", "proxy") => proxy::serve(&core.store, link(core), request).await,
        _ => return None,
    };
    Some(response.map(|response| Answer::Response(Box::new(response))))
}

/// Before the sessions have started every node is absent.
pub(super) fn link(core: &Core) -> &dyn NodeLink {
    struct Absent;
    #[async_trait::async_trait]
    impl NodeLink for Absent {
        async fn open(&self, node: &str, _: coracle_link::protocol::Open) -> Result<Box<dyn coracle_link::Stream>, Status> {
            Err(Status::new(503, "ServiceUnavailable", format!("node {node:?} is not connected: the control plane is starting")))
        }
    }
    core.nodes.get().map_or(&Absent as &dyn NodeLink, |nodes| &**nodes)
}

/// What a node measures, JSON.
///
/// # Errors
/// The node's refusal; 503 when it is not connected.
pub(crate) async fn stats(core: &Core, node: &str) -> Result<bytes::Bytes, Status> {
    let mut stream = link(core).open(node, coracle_link::protocol::Open::Stats).await?;
    Ok(super::answer(node, &mut *stream).await?.body)
}
