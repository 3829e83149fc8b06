//! What the control plane opens to this node: logs, programs in containers, ways to pods' ports, stats.

mod idle;
mod relay;
mod session;

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
    protocol::{self, Open, Reply},
};
use coracle_runtime::{Error, ExecSpec, Runtime, Standard};
use session::Whose;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;

/// How long a pod may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);
/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);
/// Bytes a frame.
const CHUNK: usize = 32 << 10;
/// The same of an answer that is there as a whole.
const ANSWER: usize = 1 << 20;
/// How often a stream on which nothing goes is asked whether anybody still wants it.
const ALIVE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 15_000 });

/// Serves the control plane's streams.
pub struct Streams {
    options: Arc<Options>,
    views: Views,
    runtimes: Vec<Arc<dyn Runtime>>,
    kubelet: Kubelet,
}

fn refusal(status: &Status) -> Bytes {
    Reply { code: status.code, body: Bytes::from(status.to_json().to_string()) }.encode()
}

/// Says yes. False when nobody hears it.
async fn accept(stream: &mut dyn Stream) -> bool {
    stream.send(Reply { code: 200, body: Bytes::new() }.encode()).await.is_ok()
}

async fn refuse(mut stream: Box<dyn Stream>, status: &Status) {
    // Whoever does not hear it has gone.
    _ = stream.send(refusal(status)).await;
    _ = stream.finish().await;
}

impl Streams {
    /// Over these views and runtimes.
    pub fn new(options: Arc<Options>, views: Views, runtimes: Vec<Arc<dyn Runtime>>, kubelet: Kubelet) -> Self {
        Self { options, views, runtimes, kubelet }
    }

    fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<Arc<View>, Status> {
        let by_name = || self.views.find(namespace, name);
        let view = if uid.is_empty() { by_name() } else { self.views.get(uid).or_else(|| by_name().filter(|view| view.from_file)) };
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
                if accept(&mut *stream).await {
                    // Who hung up is of no interest to anybody.
                    _ = relay::relay(socket, stream, None).await;
                }
            }
            Err(status) => refuse(stream, &status).await,
        }
    }

    /// A pod that has been set up, and its runtime.
    fn runtime(&self, namespace: &str, pod: &str, uid: &str) -> Result<(Arc<View>, &Arc<dyn Runtime>), Status> {
        let view = self.pod(namespace, pod, uid)?;
        let runtime = self.runtimes.iter().find(|runtime| runtime.holds(&view.uid));
        let runtime = runtime.ok_or_else(|| Status::bad_request(format!("pod {namespace}/{pod} is not running")))?;
        Ok((view, runtime))
    }

    async fn forward(&self, namespace: &str, pod: &str, uid: &str, port: u16, mut stream: Box<dyn Stream>) {
        let unreachable = |why: &dyn std::fmt::Display| Status::new(503, "ServiceUnavailable", why.to_string());
        let connected = match self.runtime(namespace, pod, uid) {
            Err(status) => Err(status),
            Ok((view, runtime)) => match tokio::time::timeout(DIAL, runtime.connect(&view.uid.to_string(), port)).await {
                Ok(connected) => connected.map_err(|why| unreachable(&why)),
                Err(_) => Err(unreachable(&format_args!("port {port} did not answer within {} s", DIAL.as_secs()))),
            },
        };
        match connected {
            Ok(socket) => {
                if accept(&mut *stream).await {
                    _ = relay::relay(socket, stream, Some(self.options.streaming_idle)).await;
                }
            }
            Err(status) => refuse(stream, &status).await,
        }
    }

    /// exec, and attach for which there is no command.
    async fn session(&self, asked: protocol::Session, command: Option<Vec<String>>, mut stream: Box<dyn Stream>) {
        let found = self.runtime(&asked.namespace, &asked.pod, &asked.uid).and_then(|(view, runtime)| {
            let container = view.containers.iter().find(|container| container.name == asked.container && container.created && container.alive);
            let container = container.ok_or_else(|| Status::new(404, "NotFound", format!("container not found (\"{}\")", asked.container)))?;
            Ok((format!("{}/{}/{}", view.uid, container.name, container.attempt), runtime))
        });
        let (container, runtime) = match found {
            Ok(found) => found,
            Err(status) => return refuse(stream, &status).await,
        };
        if !accept(&mut *stream).await {
            return;
        }
        let protocol::Session { stdin, stdout, stderr, tty, .. } = asked;
        let streams = Standard { stdin, stdout, stderr };
        let whose = if command.is_some() { Whose::Ours } else { Whose::Containers };
        let starting = async {
            match command {
                Some(command) => runtime.exec(ExecSpec { container, command, streams, tty, timeout: None }).await,
                None => runtime.attach(&container, streams).await,
            }
        };
        let late = |_| Err(Error::again("ExecError", format!("the container's runtime did not answer within {} s", START.as_secs())));
        let started = tokio::time::timeout(START, starting).await.unwrap_or_else(late);
        session::carry(started, whose, stream, self.options.streaming_idle).await;
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
                        if accept(&mut *stream).await {
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
                    Err(status) => refuse(stream, &status).await,
                }
            }
            Open::Dial { namespace, pod, uid, port } => self.dial(&namespace, &pod, &uid, port, stream).await,
            Open::Forward { namespace, pod, uid, port } => self.forward(&namespace, &pod, &uid, port, stream).await,
            Open::Exec { session, command } => self.session(session, Some(command), stream).await,
            Open::Attach { session } => self.session(session, None, stream).await,
            Open::Stats => {
                let body = self.kubelet.usage().await;
                let _ = stream.send(Reply { code: 200, body }.encode()).await;
                let _ = stream.finish().await;
            }
            Open::Get { path, query } => self.get(&path, &query, stream).await,
            Open::Subscribe { .. } | Open::Call { .. } => {
                refuse(
                    stream,
                    &Status::bad_request("a node serves streams to its pods, stats and its own HTTP API; this is asked of a control plane"),
                )
                .await;
            }
        }
    }
}

/// Ends when the other side has closed or reset its half: the reader of a log says nothing, and holds it open while it listens.
async fn hung_up(recv: &mut dyn coracle_link::RecvHalf) {
    while let Ok(Some(_)) = recv.recv().await {}
}
