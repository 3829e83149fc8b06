//! QUIC between control plane and nodes, and between servers: identity, frames, protocol messages, reconnect.
//!
//! The node dials; after that both sides open streams on the one connection. What flows is decided elsewhere: this crate knows
//! who the peer is ([`pki`]), where a message ends ([`frame`]) and how one reads ([`protocol`]). The link is a trait
//! ([`Connection`]) so that the rest can run over memory in tests and in simulation; QUIC ([`quic`]) and TLS stay outside that world.

pub mod bytes_stream;
pub mod frame;
pub mod memory;
pub mod pki;
pub mod protocol;
pub mod quic;

pub use bytes_stream::ByteStream;

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// Why the link, or one stream of it, failed. All but `Protocol` are worth a new connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection or stream has ended; try again on a new one.
    #[error("the link is closed: {0}")]
    Closed(String),
    /// The peer said something that is no message of ours.
    #[error("{0}")]
    Protocol(String),
    /// The peer could not be authenticated, or our own identity is unusable.
    #[error("{0}")]
    Tls(String),
}

/// One bidirectional stream of frames.
#[async_trait]
pub trait Stream: Send {
    /// Sends one frame; waits while the peer's window is full. Not cancel safe: a frame cut short ends the stream.
    async fn send(&mut self, frame: Bytes) -> Result<(), Error>;
    /// The next frame; `None` at the peer's end of stream. Cancel safe.
    async fn recv(&mut self) -> Result<Option<Bytes>, Error>;
    /// Half-closes: the peer's `recv` gives `None` after what was sent. Dropping a stream does the same, and tells the peer's
    /// senders to stop.
    async fn finish(&mut self) -> Result<(), Error>;
    /// The two directions, for two tasks.
    fn split(self: Box<Self>) -> (Box<dyn SendHalf>, Box<dyn RecvHalf>);
}

/// The sending direction of a [`Stream`].
#[async_trait]
pub trait SendHalf: Send {
    /// As [`Stream::send`].
    async fn send(&mut self, frame: Bytes) -> Result<(), Error>;
    /// As [`Stream::finish`].
    async fn finish(&mut self) -> Result<(), Error>;
}

/// The receiving direction of a [`Stream`].
#[async_trait]
pub trait RecvHalf: Send {
    /// As [`Stream::recv`].
    async fn recv(&mut self) -> Result<Option<Bytes>, Error>;
}

/// One connection to a peer. It lives as long as it is held; dropped, it is closed.
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    /// Who the peer is, out of its verified certificate.
    fn peer(&self) -> &pki::Subject;
    /// A new stream; the peer learns of it with the first frame. Waits while too many are open.
    async fn open(&self) -> Result<Box<dyn Stream>, Error>;
    /// The next stream that the peer opened. Cancel safe.
    async fn accept(&self) -> Result<Box<dyn Stream>, Error>;
    /// Waits for the connection's end and says why it ended.
    async fn closed(&self) -> String;
    /// Ends it at once; `why` reaches the peer.
    fn close(&self, why: &str);
}

/// Node side: dial. How often and how long between is the caller's decision.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// One attempt, bounded in time.
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error>;
}
