//! One connection of one node, and the service that takes them in.

use super::{Sessions, feed};
use crate::{
    Tasks,
    auth::{self, User},
};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_link::{
    Connection, Error, Stream,
    protocol::{Open, Reply},
    quic,
};
use coracle_store::{Key, Store};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Streams of one node that are served at once; the link's own bound is above it.
const STREAMS: usize = 256;
/// Subscriptions of one node at once (an old one may linger while the new begins).
const SUBSCRIPTIONS: usize = 2;
/// How long the first frame of a stream may take.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// A reply must fit a frame.
const MAX_REPLY: usize = coracle_link::frame::MAX_PAYLOAD - 64;

/// One API request as it came over the link.
pub struct Call {
    /// The node.
    pub user: Arc<User>,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Content type of the body.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

/// The API pipeline, as the link sees it: code and body.
pub type ServeCall = Arc<dyn Fn(Call) -> BoxFuture<'static, (u16, Bytes)> + Send + Sync>;

/// What the sessions need.
#[derive(Clone)]
pub struct Options {
    /// Where slices are read.
    pub store: Store,
    /// The API pipeline.
    pub call: ServeCall,
    /// Where the sessions run.
    pub tasks: Tasks,
}

impl Sessions {
    /// Takes in connections until the server is closed or the tasks are cancelled. Each node's session is a task of its own.
    pub async fn run(&self, server: &quic::Server, options: &Options) {
        while let Some(connection) = server.accept().await {
            self.admit(connection, options);
        }
    }

    /// One connection: a node's, or it is closed with a reason.
    pub fn admit(&self, connection: Arc<dyn Connection>, options: &Options) {
        let user = auth::certificate::of(connection.peer().clone());
        let Some(node) = user.node_name().map(str::to_string) else {
            tracing::warn!(user = user.name, "link: a peer that is no node was turned away");
            return connection.close("only nodes (system:node:NAME in group system:nodes) may connect here");
        };
        tracing::info!(node, "node connected");
        self.enter(&node, connection.clone());
        let (sessions, options, tasks) = (self.clone(), options.clone(), options.tasks.clone());
        tasks.spawn("node session", async move {
            let why = serve(&connection, &node, Arc::new(user), &options).await;
            sessions.leave(&node, &connection);
            tracing::info!(node, why, "node disconnected");
        });
    }
}

/// Serves the node's streams until the connection ends; gives the reason.
async fn serve(connection: &Arc<dyn Connection>, node: &str, user: Arc<User>, options: &Options) -> String {
    let slots = Arc::new(Semaphore::new(STREAMS));
    let subscriptions = Arc::new(Semaphore::new(SUBSCRIPTIONS));
    let mut streams = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return "closed".into() };
        while streams.try_join_next().is_some() {}
        match connection.accept().await {
            Ok(stream) => {
                let (node, user, options, subscriptions) = (node.to_string(), user.clone(), options.clone(), subscriptions.clone());
                streams.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = one(stream, &node, user, &options, &subscriptions).await {
                        tracing::debug!(node, %error, "a stream from the node ended");
                    }
                });
            }
            Err(error) => return error.to_string(),
        }
    }
}

async fn one(mut stream: Box<dyn Stream>, node: &str, user: Arc<User>, options: &Options, subscriptions: &Semaphore) -> Result<(), Error> {
    let frame = match tokio::time::timeout(FIRST_FRAME, stream.recv()).await {
        Ok(frame) => frame?,
        Err(_) => return Err(Error::Protocol("no message on a new stream".into())),
    };
    let Some(frame) = frame else { return Ok(()) };
    match Open::decode(&frame) {
        Ok(Open::Subscribe { epoch, revision }) => {
            let Ok(_slot) = subscriptions.try_acquire() else {
                return refuse(stream, "this node has too many subscriptions").await;
            };
            subscribe(stream, node, (epoch, revision), &options.store).await
        }
        Ok(Open::Call { method, path, content_type, body }) => {
            let (code, body) = (options.call)(Call { user, method, path, content_type, body }).await;
            stream.send(reply(code, body).encode()).await?;
            stream.finish().await
        }
        Ok(
            Open::Logs { .. } | Open::Dial { .. } | Open::Stats | Open::Get { .. } | Open::Exec { .. } | Open::Attach { .. } | Open::Forward { .. },
        ) => refuse(stream, "streams of this kind are opened by the control plane").await,
        Err(error) => refuse(stream, &error.to_string()).await,
    }
}

async fn refuse(mut stream: Box<dyn Stream>, why: &str) -> Result<(), Error> {
    let body = Status::bad_request(why).to_json().to_string();
    stream.send(Reply { code: 400, body: body.into() }.encode()).await?;
    stream.finish().await?;
    Err(Error::Protocol(why.into()))
}

fn reply(code: u16, body: Bytes) -> Reply {
    if body.len() <= MAX_REPLY {
        return Reply { code, body };
    }
    let why = format!("the answer of {} bytes does not fit the link's {MAX_REPLY}; use limit and continue", body.len());
    Reply { code: 413, body: Status::new(413, "RequestEntityTooLarge", why).to_json().to_string().into() }
}

async fn subscribe(stream: Box<dyn Stream>, node: &str, from: (u64, u64), store: &Store) -> Result<(), Error> {
    let (mut out, mut back) = stream.split();
    let epoch = epoch(store);
    tokio::select! {
        ended = feed::run(store, epoch, node, from, &mut *out) => ended?,
        // the node says nothing more on this stream: whatever comes is its end
        _ = back.recv() => {}
    }
    out.finish().await
}

/// Which history the store's revisions belong to: the uid of `kube-system`, which stands for the cluster. (A restore moves revisions
/// forward within it, so an old mirror is told to begin anew because its revision is not held.)
fn epoch(store: &Store) -> u64 {
    use sha2::{Digest, Sha256};
    let uid = store.snapshot().get(&Key::new("namespaces", "", "kube-system")).map(|ns| ns.meta.uid.clone()).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(uid.as_bytes()).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // zero is what a fresh mirror says
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}
