//! Node sessions: what a node may see, what it reports, and the streams to it.
//!
//! A node dials in over the link; from then on it is in [`Sessions`]. On its connection it subscribes to its slice of the cluster
//! (`feed`) and makes API calls as itself ([`Call`], the same pipeline as HTTPS); the control plane opens streams to it for logs,
//! proxying and stats. Nothing here knows what a kind means beyond what a pod names.

pub mod connect;
mod feed;
pub(crate) mod kubelet;
mod logs;
pub(crate) mod proxy;
mod session;
mod slice;
pub(crate) mod streams;
pub(crate) mod target;

pub use connect::serve;
pub use session::{Call, Options, ServeCall};

use crate::pipeline::NodeLink;
use async_trait::async_trait;
use coracle_api::status::Status;
use coracle_link::{
    ByteStream, Connection, Stream,
    protocol::{LogOptions, Open, Reply},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How long a node may take to answer the first frame of a stream.
const ANSWER: Duration = Duration::from_secs(30);

/// Which nodes are connected. Cheap clone; give it to `Core::nodes` as the [`NodeLink`].
#[derive(Clone, Default)]
pub struct Sessions {
    nodes: Arc<Mutex<HashMap<String, Arc<dyn Connection>>>>,
}

impl Sessions {
    /// The names of nodes that are connected now.
    pub fn connected(&self) -> Vec<String> {
        let mut names: Vec<String> = self.nodes.lock().keys().cloned().collect();
        names.sort();
        names
    }

    /// Enters a node; an older connection of the same name is closed, since a node that dials anew has given it up.
    fn enter(&self, name: &str, connection: Arc<dyn Connection>) {
        let old = self.nodes.lock().insert(name.to_string(), connection);
        if let Some(old) = old {
            old.close("replaced by a newer connection of this node");
        }
    }

    fn leave(&self, name: &str, connection: &Arc<dyn Connection>) {
        let mut nodes = self.nodes.lock();
        if nodes.get(name).is_some_and(|now| Arc::ptr_eq(now, connection)) {
            nodes.remove(name);
        }
    }

    /// Container logs as byte frames. The first answer has been read: it was 200.
    ///
    /// # Errors
    /// The node's refusal; 503 when it is not connected.
    pub async fn logs(
        &self,
        node: &str,
        namespace: &str,
        pod: &str,
        uid: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<Box<dyn Stream>, Status> {
        let (namespace, pod, uid, container) = (namespace.into(), pod.into(), uid.into(), container.into());
        accepted(self, node, Open::Logs { namespace, pod, uid, container, options }).await
    }

    /// A byte stream to a TCP port of a pod.
    ///
    /// # Errors
    /// The node's refusal; 503 when it is not connected.
    pub async fn dial(&self, node: &str, namespace: &str, pod: &str, uid: &str, port: u16) -> Result<ByteStream, Status> {
        dial(self, node, namespace, pod, uid, port).await
    }

    /// The node's stats, JSON.
    ///
    /// # Errors
    /// The node's refusal; 503 when it is not connected.
    pub async fn stats(&self, node: &str) -> Result<bytes::Bytes, Status> {
        let mut stream = self.open(node, Open::Stats).await?;
        Ok(answer(node, &mut *stream).await?.body)
    }
}

#[async_trait]
impl NodeLink for Sessions {
    async fn open(&self, node: &str, open: Open) -> Result<Box<dyn Stream>, Status> {
        let connection = self.nodes.lock().get(node).cloned();
        let Some(connection) = connection else {
            let why = format!("node {node:?} is not connected to the control plane; its agent is stopped, or cannot reach the link address (UDP)");
            return Err(Status::new(503, "ServiceUnavailable", why));
        };
        let opened = tokio::time::timeout(ANSWER, async {
            let mut stream = connection.open().await?;
            stream.send(open.encode()).await?;
            Ok::<_, coracle_link::Error>(stream)
        });
        match opened.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Status::new(503, "ServiceUnavailable", format!("the stream to node {node:?} could not be opened: {error}"))),
            Err(_) => Err(late(node)),
        }
    }
}

fn late(node: &str) -> Status {
    Status::new(504, "Timeout", format!("node {node:?} did not answer within {} s", ANSWER.as_secs()))
}

/// Opens a stream and waits for the node's yes.
pub(crate) async fn accepted(link: &(dyn NodeLink + '_), node: &str, open: Open) -> Result<Box<dyn Stream>, Status> {
    let mut stream = link.open(node, open).await?;
    answer(node, &mut *stream).await?;
    Ok(stream)
}

async fn dial(link: &(dyn NodeLink + '_), node: &str, namespace: &str, pod: &str, uid: &str, port: u16) -> Result<ByteStream, Status> {
    let open = Open::Dial { namespace: namespace.into(), pod: pod.into(), uid: uid.into(), port };
    accepted(link, node, open).await.map(ByteStream::new)
}

/// The first frame of a node's answer; an answer of 400 and above as the error it is.
async fn answer(node: &str, stream: &mut dyn Stream) -> Result<Reply, Status> {
    let broken = |why: String| Status::new(502, "BadGateway", format!("node {node:?}: {why}"));
    let frame = match tokio::time::timeout(ANSWER, stream.recv()).await {
        Err(_) => return Err(late(node)),
        Ok(Err(error)) => return Err(broken(error.to_string())),
        Ok(Ok(None)) => return Err(broken("the stream ended before an answer".into())),
        Ok(Ok(Some(frame))) => frame,
    };
    let reply = Reply::decode(&frame).map_err(|e| broken(e.to_string()))?;
    match reply.code {
        200..400 => Ok(reply),
        code => Err(refused(code, &reply.body)),
    }
}

/// A node's error: a Status as JSON, or plain words.
fn refused(code: u16, body: &[u8]) -> Status {
    let read = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = read.as_ref().and_then(|v| v.get("message")?.as_str().map(str::to_string));
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body.get(..1024).unwrap_or(body)).into_owned());
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        502 => "BadGateway",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    Status::new(code, reason, message)
}

#[cfg(test)]
mod tests;
