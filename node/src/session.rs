//! The node's end of the link: dial, subscribe, serve, and again when it breaks.
//!
//! Everything the agent asks of the API goes through [`Link::call`], as `system:node:NAME`, on the connection of the moment; a call
//! while there is none fails at once and its owner decides when to try again ([`Link::connected`]).

use crate::mirror::{Change, Intake, Mirror, Position};
use async_trait::async_trait;
use bytes::Bytes;
use coracle_link::{
    Connection, Connector, Stream,
    protocol::{Feed, Open, Reply},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls under way at once.
const CALLS: usize = 128;
/// Streams served at once for the control plane.
const STREAMS: usize = 512;
/// First and longest wait between dials.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// There is no link now.
    #[error("{method} {path}: the link to the control plane is down; it is being dialled")]
    Down {
        /// Method.
        method: &'static str,
        /// Path.
        path: String,
    },
    /// The link broke under it, or no answer came.
    #[error("{method} {path}: {why}")]
    Broken {
        /// Method.
        method: &'static str,
        /// Path.
        path: String,
        /// Why.
        why: String,
    },
    /// The API server said no.
    #[error("{method} {path}: {code} {message}")]
    Refused {
        /// Method.
        method: &'static str,
        /// Path.
        path: String,
        /// HTTP status.
        code: u16,
        /// The `Status`' message.
        message: String,
    },
}

impl CallError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Trying again later can help.
    pub fn transient(&self) -> bool {
        self.code().is_none_or(|code| code == 429 || code >= 500)
    }
}

/// A handle for API requests. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    current: watch::Receiver<Option<Arc<dyn Connection>>>,
    gate: Arc<Semaphore>,
}

impl Link {
    /// One request; the body of a 2xx answer.
    pub async fn call(&self, method: &'static str, path: &str, content_type: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let down = || CallError::Down { method, path: path.into() };
        let _permit = self.gate.acquire().await.map_err(|_| down())?;
        let connection = self.current.borrow().clone().ok_or_else(down)?;
        let broken = |why: String| CallError::Broken { method, path: path.into(), why };
        let open = Open::Call { method: method.into(), path: path.into(), content_type: content_type.into(), body: body.into() };
        let exchange = async {
            let mut stream = connection.open().await?;
            stream.send(open.encode()).await?;
            stream.finish().await?;
            let frame = stream.recv().await?.ok_or_else(|| coracle_link::Error::Closed("no answer came".into()))?;
            Reply::decode(&frame)
        };
        let reply = match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
            Ok(reply) => reply.map_err(|e| broken(e.to_string()))?,
            Err(_) => return Err(broken(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        };
        if (200..300).contains(&reply.code) {
            return Ok(reply.body);
        }
        let status: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
        let message = status.as_ref().and_then(|s| s["message"].as_str()).unwrap_or("without a message").to_string();
        Err(CallError::Refused { method, path: path.into(), code: reply.code, message })
    }

    /// Waits until there is a link.
    pub async fn connected(&self) {
        let mut current = self.current.clone();
        if current.wait_for(Option::is_some).await.is_err() {
            // The session is over for good: its owner is being cancelled.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there is a link that was not there at the time of the call.
    pub async fn reconnected(&self) {
        let mut current = self.current.clone();
        current.mark_unchanged();
        loop {
            if current.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if current.borrow().is_some() {
                return;
            }
        }
    }
}

/// What the control plane opens streams to.
#[async_trait]
pub trait Serve: Send + Sync + 'static {
    /// Answers one stream, to its end.
    async fn serve(&self, open: Open, stream: Box<dyn Stream>);
}

/// The dialling side, run once.
pub struct Session {
    connector: Arc<dyn Connector>,
    current: watch::Sender<Option<Arc<dyn Connection>>>,
    mirror: Mirror,
    position: Position,
    changes: mpsc::Sender<Vec<Change>>,
    serve: Arc<dyn Serve>,
}

/// A link that is down until [`Session::run`] has dialled, and the sender to build the session with.
pub fn link() -> (Link, watch::Sender<Option<Arc<dyn Connection>>>) {
    let (sender, current) = watch::channel(None);
    (Link { current, gate: Arc::new(Semaphore::new(CALLS)) }, sender)
}

impl Session {
    /// `position` is the mirror's, `changes` gets every real change after it took effect in the mirror.
    pub fn new(
        connector: Arc<dyn Connector>,
        current: watch::Sender<Option<Arc<dyn Connection>>>,
        mirror: Mirror,
        position: Position,
        changes: mpsc::Sender<Vec<Change>>,
        serve: Arc<dyn Serve>,
    ) -> Self {
        Self { connector, current, mirror, position, changes, serve }
    }

    /// Dials until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut wait = REDIAL.0;
        loop {
            let connection = tokio::select! {
                () = cancel.cancelled() => return,
                connection = self.connector.connect() => connection,
            };
            match connection {
                Ok(connection) => {
                    tracing::info!("the link to the control plane is up");
                    let began = std::time::Instant::now();
                    self.current.send_replace(Some(connection.clone()));
                    let why = tokio::select! {
                        () = cancel.cancelled() => {
                            self.current.send_replace(None);
                            connection.close("the agent stops");
                            return;
                        }
                        why = self.converse(&connection) => why,
                    };
                    self.current.send_replace(None);
                    connection.close("the session is over");
                    tracing::warn!(%why, "the link to the control plane broke; this node goes on with what it knows");
                    // A link that held for a while is dialled again at once, one that breaks at once is not.
                    if began.elapsed() > REDIAL.1 {
                        wait = REDIAL.0;
                    }
                }
                Err(why) => tracing::debug!(%why, "dial the control plane"),
            }
            let jitter = rand::random_range(0.5..1.0);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
            }
            wait = (wait * 2).min(REDIAL.1);
        }
    }

    async fn converse(&mut self, connection: &Arc<dyn Connection>) -> String {
        let serve = self.serve.clone();
        tokio::select! {
            why = connection.closed() => why,
            why = accept(connection, serve) => why,
            why = self.subscribe(connection) => why,
        }
    }

    async fn subscribe(&mut self, connection: &Arc<dyn Connection>) -> String {
        let open = Open::Subscribe { epoch: self.position.epoch, revision: self.position.revision };
        let mut stream = match connection.open().await {
            Ok(stream) => stream,
            Err(why) => return why.to_string(),
        };
        if let Err(why) = stream.send(open.encode()).await {
            return why.to_string();
        }
        let mut intake = Intake::default();
        loop {
            let feed = match stream.recv().await.map(|frame| frame.as_deref().map(Feed::decode)) {
                Ok(Some(Ok(feed))) => feed,
                Ok(None) => return "the control plane ended the subscription".into(),
                Ok(Some(Err(why))) | Err(why) => return why.to_string(),
            };
            let mirror = self.mirror.clone();
            if let Some((changes, position)) = intake.take(feed, || mirror.keys()) {
                let changes = self.mirror.apply(changes, position).await;
                self.position = position.unwrap_or(self.position);
                if !changes.is_empty() && self.changes.send(changes).await.is_err() {
                    return "the agent stops".into();
                }
            }
        }
    }
}

/// Serves what the control plane opens; tasks end with the connection.
async fn accept(connection: &Arc<dyn Connection>, serve: Arc<dyn Serve>) -> String {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= STREAMS {
            tasks.join_next().await;
        }
        let mut stream = match connection.accept().await {
            Ok(stream) => stream,
            Err(why) => return why.to_string(),
        };
        let serve = serve.clone();
        tasks.spawn(async move {
            let first = tokio::time::timeout(CALL_TIMEOUT, stream.recv()).await;
            let Ok(Ok(Some(frame))) = first else { return };
            match Open::decode(&frame) {
                Ok(open) => serve.serve(open, stream).await,
                Err(why) => tracing::warn!(%why, "the control plane opened a stream that this node does not understand"),
            }
        });
    }
}
