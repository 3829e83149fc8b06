//! How the agent talks with what outlives it: requests and answers in frames over a Unix socket, descriptors beside them.
//!
//! Each runtime has messages of its own; this is the envelope. The framing is [`socket`], the agent's end [`connection`].

pub mod connection;
pub mod socket;

use serde::{Deserialize, Serialize};

/// From the agent. Every request is answered by one [`Reply`] with its id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request<A> {
    /// Chosen by the agent.
    pub id: u64,
    /// What is wanted.
    pub ask: A,
}

/// To the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answered<R, E> {
    /// To a request.
    Reply(Reply<R>),
    /// Unasked.
    Event(E),
}

/// The answer to the [`Request`] of the same id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply<R> {
    /// Of the request.
    pub id: u64,
    /// What came of it.
    pub result: Result<R, Refusal>,
}

/// Why a request failed; becomes an [`Error`](crate::Error).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// CamelCase.
    pub reason: String,
    /// For a human.
    pub message: String,
    /// Trying again is pointless.
    pub fatal: bool,
}

impl From<Refusal> for crate::Error {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, message: refusal.message, fatal: refusal.fatal }
    }
}
