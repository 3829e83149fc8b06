//! The in-flight limit: how many requests are worked on at once, and how many may wait.
//!
//! Upstream's priority and fairness comes later; this bound keeps one burst from using up the server's memory.

use crate::auth::{MASTERS, NODES, User};
use coracle_api::status::{Details, Status};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests worked on at once, each of the two classes.
const AT_ONCE: usize = 400;
/// Requests that may wait for their turn, each of the two classes.
const WAITING: usize = 4_000;
/// Longest wait.
const WAIT: Duration = Duration::from_secs(15);
/// KiB of request bodies held at once, as they are once they were read.
const BODIES: usize = 256 * 1024;
/// What a body takes once it was read, in times of its text: maps of one key each are the worst that is common.
const READ: usize = 16;
/// Watches, logs and proxies under way.
const STREAMS: usize = 10_000;

struct Class {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Class {
    fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), places: Arc::new(Semaphore::new(AT_ONCE + WAITING)) }
    }
}

/// The limits. Nodes and administrators have a class of their own, so that users cannot crowd them out.
pub struct Limits {
    system: Class,
    users: Class,
    streams: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// Held while a request is under way.
pub struct Turn {
    _held: Vec<OwnedSemaphorePermit>,
}

/// What [`Limits::enter`] is for, as a trait so that tests can count.
pub trait Admission {
    /// A turn, perhaps after a wait.
    fn enter(&self, user: &User, long: bool) -> impl Future<Output = Result<Turn, Status>> + Send;
}

impl Default for Limits {
    fn default() -> Self {
        Self { system: Class::new(), users: Class::new(), streams: Arc::new(Semaphore::new(STREAMS)), bodies: Arc::new(Semaphore::new(BODIES)) }
    }
}

impl Limits {
    /// Room for a body of at most so many bytes, perhaps after a wait; held until the request is done.
    pub async fn body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let kib = u32::try_from(bytes.saturating_mul(READ).div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, BODIES as u32);
        tokio::time::timeout(WAIT, self.bodies.clone().acquire_many_owned(kib)).await.map_err(|_| too_many())?.map_err(|_| too_many())
    }
}

impl Admission for Limits {
    async fn enter(&self, user: &User, long: bool) -> Result<Turn, Status> {
        if long {
            let held = self.streams.clone().try_acquire_owned().map_err(|_| too_many())?;
            return Ok(Turn { _held: vec![held] });
        }
        let class = if user.in_group(MASTERS) || user.in_group(NODES) { &self.system } else { &self.users };
        let place = class.places.clone().try_acquire_owned().map_err(|_| too_many())?;
        let turn = tokio::time::timeout(WAIT, class.turns.clone().acquire_owned()).await.map_err(|_| too_many())?.map_err(|_| too_many())?;
        Ok(Turn { _held: vec![place, turn] })
    }
}

fn too_many() -> Status {
    let mut status = Status::new(429, "TooManyRequests", "The request is rejected: too many requests are under way; please try again later.");
    status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_bounded_apart_from_requests() {
        let limits = Limits { streams: Arc::new(Semaphore::new(1)), ..Limits::default() };
        let user = User::default();
        let first = limits.enter(&user, true).await.expect("a place");
        assert_eq!(limits.enter(&user, true).await.err().map(|status| status.code), Some(429));
        limits.enter(&user, false).await.expect("requests go on");
        drop(first);
        limits.enter(&user, true).await.expect("a place again");
    }
}
