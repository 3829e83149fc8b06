//! The in-flight limit: how many requests are worked on at once, and how many may wait.
//!
//! Requests have a seat of their priority level ([`super::fairness`]); what is exempt from levels is bounded here all the same, as are
//! bodies and streams: no burst shall use up the server's memory.

use super::fairness::{Fairness, Judged, Seat, too_many};
use crate::auth::{Attributes, User};
use coracle_api::status::Status;
use coracle_store::Store;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads and writes worked on at once, as upstream: `--max-requests-inflight` and `--max-mutating-requests-inflight`.
pub const SEATS: usize = 400 + 200;
/// Requests of exempt levels worked on at once.
const AT_ONCE: usize = 400;
/// Requests of exempt levels that may wait for their turn.
const WAITING: usize = 4_000;
/// Longest wait.
const WAIT: Duration = Duration::from_secs(15);
/// KiB of request bodies held at once, as they are once they were read.
const BODIES: usize = 256 * 1024;
/// What a body takes once it was read, in times of its text: maps of one key each are the worst that is common.
const READ: usize = 16;
/// How often turns that are held for too long are looked for.
const LOOK: Duration = Duration::from_secs(10);
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

/// The limits.
pub struct Limits {
    /// Seats of priority levels.
    pub fairness: Fairness,
    exempt: Class,
    streams: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    /// Turns that end with time, the first to end first.
    leases: Mutex<VecDeque<(Instant, Weak<Leased>)>>,
}

/// A turn that is given back when this is dropped, or earlier.
pub type Lease = Arc<Leased>;
/// What a [`Lease`] holds until its time is over.
pub type Leased = Mutex<Option<Turn>>;

/// Held while a request is under way.
pub struct Turn {
    _seat: Option<Seat>,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Limits {
    /// With so many seats for all priority levels together.
    ///
    /// # Errors
    /// As [`Fairness::new`].
    pub fn new(seats: usize) -> Result<Self, prometheus::Error> {
        let (streams, bodies) = (Arc::new(Semaphore::new(STREAMS)), Arc::new(Semaphore::new(BODIES)));
        Ok(Self { fairness: Fairness::new(seats)?, exempt: Class::new(), streams, bodies, leases: Mutex::default() })
    }

    /// A turn, perhaps after a wait; and by what the request was judged.
    pub async fn enter(&self, user: &User, asked: &Attributes<'_>) -> (Judged, Result<Turn, Status>) {
        let (judged, seat) = self.fairness.enter(user, asked).await;
        let turn = match seat {
            Ok(Some(seat)) if seat.counts => Ok(Turn { _seat: Some(seat), _held: Vec::new() }),
            Ok(seat) => self.exempted().await.map(|turn| Turn { _seat: seat, ..turn }),
            Err(status) => Err(status),
        };
        (judged, turn)
    }

    async fn exempted(&self) -> Result<Turn, Status> {
        let place = self.exempt.places.clone().try_acquire_owned().map_err(|_| too_many())?;
        let turn = tokio::time::timeout(WAIT, self.exempt.turns.clone().acquire_owned()).await.map_err(|_| too_many())?.map_err(|_| too_many())?;
        Ok(Turn { _seat: None, _held: vec![place, turn] })
    }

    /// Keeps a turn for as long as the lease is held, and no longer than `at_most` (to the next look at what has ended). All leases are for the same time.
    pub fn lease(&self, turn: Turn, at_most: Duration) -> Lease {
        let lease = Arc::new(Mutex::new(Some(turn)));
        let mut leases = self.leases.lock();
        while leases.pop_front_if(|(_, lease)| lease.strong_count() == 0).is_some() {}
        leases.push_back((Instant::now() + at_most, Arc::downgrade(&lease)));
        lease
    }

    /// Takes back the turns whose time is over.
    fn end(&self, now: Instant) {
        loop {
            let ended = self.leases.lock().pop_front_if(|(until, lease)| *until <= now || lease.strong_count() == 0);
            match ended {
                Some((_, lease)) => drop(lease.upgrade().and_then(|lease| lease.lock().take())),
                None => return,
            }
        }
    }

    /// Keeps the rules of priority levels in step with the store, and takes back what is held for too long; ends when the store is closed.
    pub async fn follow(&self, store: &Store) {
        let leases = async {
            let mut look = tokio::time::interval(LOOK);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                self.end(look.tick().await.into_std());
            }
        };
        tokio::select! {
            () = self.fairness.follow(store) => {}
            () = leases => {}
        }
    }

    /// A place for a watch or another stream, held until it ends.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| too_many())
    }

    /// Room for a body of at most so many bytes, perhaps after a wait; held until the request is done.
    pub async fn body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let kib = u32::try_from(bytes.saturating_mul(READ).div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, BODIES as u32);
        tokio::time::timeout(WAIT, self.bodies.clone().acquire_many_owned(kib)).await.map_err(|_| too_many())?.map_err(|_| too_many())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_bounded_apart_from_requests() {
        let limits = Limits { streams: Arc::new(Semaphore::new(1)), ..Limits::new(SEATS).expect("limits") };
        let first = limits.stream().expect("a place");
        assert_eq!(limits.stream().err().map(|status| status.code), Some(429));
        limits.enter(&User::default(), &Attributes::default()).await.1.expect("requests go on");
        drop(first);
        drop(limits.stream().expect("a place again"));
    }

    #[tokio::test]
    async fn a_turn_comes_back_with_its_lease_or_in_time() {
        let limits = Limits::new(SEATS).expect("limits");
        let free = || limits.exempt.turns.available_permits();
        let minute = Duration::from_secs(60);
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.push(limits.enter(&User::default(), &Attributes::default()).await.1.expect("a turn"));
        }
        let leases: Vec<Lease> = turns.into_iter().map(|turn| limits.lease(turn, minute)).collect();
        let Ok([first, second, third]) = <[Lease; 3]>::try_from(leases) else { panic!("three") };
        assert_eq!(free(), AT_ONCE - 3);
        drop(second);
        limits.end(Instant::now());
        assert_eq!((free(), limits.leases.lock().len()), (AT_ONCE - 2, 3), "what is behind one that lasts is looked at later");
        limits.end(Instant::now() + minute);
        assert_eq!((free(), limits.leases.lock().len()), (AT_ONCE, 0));
        drop((first, third));
        assert_eq!(free(), AT_ONCE, "once");
    }
}
