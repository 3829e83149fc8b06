//! What the control plane opens to this node: logs, a way to a pod's port, stats.

use crate::{
    agent::Options,
    kubelet::Kubelet,
    logs,
    pods::views::{View, Views},
    session::Serve,
};
use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::Status;
use coracle_link::{
    Stream,
    protocol::{Open, Reply},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a pod may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);
/// Bytes a frame.
const CHUNK: usize = 32 << 10;
/// The same of an answer that is there as a whole.
const ANSWER: usize = 1 << 20;

/// Serves the control plane's streams.
pub struct Streams {
    options: Arc<Options>,
    views: Views,
    kubelet: Kubelet,
}

fn refusal(status: &Status) -> Bytes {
    Reply { code: status.code, body: Bytes::from(status.to_json().to_string()) }.encode()
}

impl Streams {
    /// Over these views.
    pub fn new(options: Arc<Options>, views: Views, kubelet: Kubelet) -> Self {
        Self { options, views, kubelet }
    }

    fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<Arc<View>, Status> {
        let view = if uid.is_empty() { self.views.find(namespace, name) } else { self.views.get(uid) };
        view.filter(|v| v.namespace == namespace && v.name == name).ok_or_else(|| Status::not_found("", "pods", name))
    }

    async fn dial(&self, namespace: &str, pod: &str, uid: &str, port: u16, mut stream: Box<dyn Stream>) {
        let connected = match self.pod(namespace, pod, uid).map(|view| view.ip) {
            Err(status) => Err(status),
            Ok(None) => Err(Status::bad_request(format!("pod {namespace}/{pod} has no address yet"))),
            Ok(Some(ip)) => {
                let address = SocketAddr::new(ip, port);
                let why = match tokio::time::timeout(DIAL, TcpStream::connect(address)).await {
                    Ok(Ok(socket)) => Ok(socket),
                    Ok(Err(why)) => Err(why.to_string()),
                    Err(_) => Err(format!("no answer within {} s", DIAL.as_secs())),
                };
                why.map_err(|why| Status::new(503, "ServiceUnavailable", format!("dial {address} of pod {namespace}/{pod}: {why}")))
            }
        };
        match connected {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                if stream.send(Reply { code: 200, body: Bytes::new() }.encode()).await.is_ok() {
                    copy(socket, stream).await;
                }
            }
            Err(status) => {
                let _ = stream.send(refusal(&status)).await;
                let _ = stream.finish().await;
            }
        }
    }

    /// Kubelet's HTTP API, in frames.
    async fn get(&self, path: &str, query: &str, mut stream: Box<dyn Stream>) {
        match self.kubelet.get(path, query).await {
            Ok((media_type, body)) => {
                let reply = Reply { code: 200, body: Bytes::from_static(media_type.as_bytes()) };
                let mut sent = stream.send(reply.encode()).await;
                let mut body = body;
                while sent.is_ok() && !body.is_empty() {
                    let chunk = body.split_to(body.len().min(ANSWER));
                    sent = stream.send(chunk).await;
                }
            }
            Err(status) => _ = stream.send(refusal(&status)).await,
        }
        let _ = stream.finish().await;
    }
}

#[async_trait]
impl Serve for Streams {
    async fn serve(&self, open: Open, mut stream: Box<dyn Stream>) {
        match open {
            Open::Logs { namespace, pod, uid, container, options } => {
                let source = self
                    .pod(&namespace, &pod, &uid)
                    .and_then(|view| logs::find(&self.options.data_dir, &view, &container, &options).map(|source| (view, source)));
                match source {
                    Ok((view, source)) => {
                        if stream.send(Reply { code: 200, body: Bytes::new() }.encode()).await.is_ok() {
                            let (mut send, mut recv) = stream.split();
                            let reading = logs::stream(source, options, self.views.clone(), view.uid.clone(), &mut *send);
                            tokio::select! {
                                result = reading => if let Err(why) = result {
                                    tracing::debug!(%why, "send a log");
                                },
                                // The other side hung up.
                                () = hung_up(&mut *recv) => {}
                            }
                            let _ = send.finish().await;
                        }
                    }
                    Err(status) => {
                        let _ = stream.send(refusal(&status)).await;
                        let _ = stream.finish().await;
                    }
                }
            }
            Open::Dial { namespace, pod, uid, port } => self.dial(&namespace, &pod, &uid, port, stream).await,
            Open::Stats => {
                let body = self.kubelet.usage().await;
                let _ = stream.send(Reply { code: 200, body }.encode()).await;
                let _ = stream.finish().await;
            }
            Open::Get { path, query } => self.get(&path, &query, stream).await,
            Open::Subscribe { .. } | Open::Call { .. } => {
                let _ = stream
                    .send(refusal(&Status::bad_request("a node serves logs, dial, stats and its own HTTP API; this is asked of a control plane")))
                    .await;
                let _ = stream.finish().await;
            }
        }
    }
}

/// Ends when the other side has closed or reset its half: the reader of a log says nothing, and holds it open while it listens.
async fn hung_up(recv: &mut dyn coracle_link::RecvHalf) {
    while let Ok(Some(_)) = recv.recv().await {}
}

/// Both ways until both ends are done; either may close its half first.
async fn copy(socket: TcpStream, stream: Box<dyn Stream>) {
    let (mut read, mut write) = socket.into_split();
    let (mut send, mut recv) = stream.split();
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if send.send(Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default())).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = send.finish().await;
    };
    let inward = async {
        while let Ok(Some(frame)) = recv.recv().await {
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    tokio::join!(outward, inward);
}
