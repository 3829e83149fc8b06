//! SPDY/3.1, as far as Kubernetes' clients speak it: many streams over one connection, for `kubectl exec`, `attach`, `cp` and `port-forward`.
//!
//! [`frame`] is what the bytes mean, without any input or output; `connection` serves streams over them. The source is the SPDY/3 and 3.1 drafts; where the one
//! client there is (moby/spdystream, in kubectl and client-go) differs, it is followed, since it is all that is ever met: it neither honours nor grants windows.
//! No crate was taken: the protocol has been dead outside Kubernetes for ten years, and what is left of it on crates.io too.

mod connection;
mod dictionary;
pub mod frame;
mod headers;
mod stream;

pub use connection::{Accept, Connection, Incoming, Opener, client, server};
pub use headers::Headers;
pub use stream::Stream;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side said something that is not SPDY/3.1, or too much of it.
    #[error("{0}")]
    Protocol(String),
    /// The bytes do not come or go any more.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Protocol(why.into()))
}
