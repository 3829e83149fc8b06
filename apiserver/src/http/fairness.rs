//! Priority and fairness (KEP-1040): a FlowSchema says to which priority level a request belongs and whose flow it is part of; a level
//! has seats, and, while they are taken, queues.
//!
//! Simpler than upstream where that costs nobody anything: each flow has a queue of its own, taken in turn, so that no shuffle
//! sharding is needed to keep flows apart; a request takes one seat; and levels do not borrow seats of each other. A watch holds its
//! seat until it begins.

pub mod gate;
pub mod rules;

use self::{
    gate::{Answer, Gate},
    rules::{Level, Rules},
};
use crate::auth::{Attributes, User};
use coracle_api::status::{Details, Status};
use coracle_store::{Error, Scope, Store};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::oneshot;

/// Longest wait for a seat.
const WAIT: Duration = Duration::from_secs(15);

/// By which objects a request was judged: their uids, which the answer's headers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Of the FlowSchema.
    pub schema: Arc<str>,
    /// Of the PriorityLevelConfiguration.
    pub level: Arc<str>,
}

/// The seats of one level.
struct Seats {
    gate: Mutex<Gate<oneshot::Sender<Seat>>>,
}

/// Held while a request is worked on.
pub struct Seat(Weak<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.0.upgrade() {
            seats.leave();
        }
    }
}

impl Seats {
    fn leave(self: &Arc<Self>) {
        loop {
            let next = self.gate.lock().leave();
            let Some(next) = next else { return };
            // One that gave up waiting leaves at once; its seat goes on to the next.
            if !next.is_closed() {
                let _gave_up_now = next.send(Seat(Arc::downgrade(self)));
                return;
            }
        }
    }
}

/// See the module.
pub struct Fairness {
    rules: RwLock<Arc<Rules>>,
    seats: Mutex<HashMap<Arc<str>, Arc<Seats>>>,
    /// All seats there are.
    total: usize,
}

impl Fairness {
    /// With so many seats, shared among the levels.
    pub fn new(total: usize) -> Self {
        Self { rules: RwLock::default(), seats: Mutex::default(), total }
    }

    /// Reads the rules that are stored.
    pub fn reload(&self, store: &Store) {
        let snapshot = store.snapshot();
        let all = |resource: &str| snapshot.range(resource, None, None).cloned().collect::<Vec<_>>();
        self.set(Rules::of(&all(rules::SCHEMAS), &all(rules::LEVELS), self.total));
    }

    fn set(&self, rules: Rules) {
        let mut seats = self.seats.lock();
        seats.retain(|name, _| rules.levels.contains_key(name));
        for (name, level) in &rules.levels {
            let Level::Limited { seats: most, queue, .. } = level else { continue };
            match seats.get(name) {
                Some(known) => known.gate.lock().resize(*most, *queue),
                None => drop(seats.insert(name.clone(), Arc::new(Seats { gate: Mutex::new(Gate::new(*most, *queue)) }))),
            }
        }
        drop(seats);
        *self.rules.write() = Arc::new(rules);
    }

    /// How many wait at a level.
    #[cfg(test)]
    fn waiting(&self, level: &str) -> usize {
        self.seats.lock().get(level).map_or(0, |seats| seats.gate.lock().waiting())
    }

    /// Keeps the rules in step with the store; ends when the store is closed.
    pub async fn follow(&self, store: &Store) {
        loop {
            let mut schemas = store.list_watch(Scope::resource(rules::SCHEMAS)).1;
            let mut levels = store.list_watch(Scope::resource(rules::LEVELS)).1;
            self.reload(store);
            loop {
                let changes = tokio::select! {
                    changes = schemas.next() => changes,
                    changes = levels.next() => changes,
                };
                match changes {
                    // Conditions of schemas change as well; to read a score of objects again is cheap.
                    Ok(_) => self.reload(store),
                    Err(Error::Closed) => return,
                    Err(_) => break,
                }
            }
        }
    }

    /// A seat, perhaps after a wait; none for a level that is exempt. Tells also by what the request was judged.
    ///
    /// # Errors
    /// 429 when the level is full, or no seat came free in time.
    pub async fn enter(&self, user: &User, asked: &Attributes<'_>) -> (Judged, Result<Option<Seat>, Status>) {
        let rules = Arc::clone(&self.rules.read());
        let Some((judged, level, flow)) = rules.judge(user, asked) else { return (Judged::default(), Ok(None)) };
        let seats = self.seats.lock().get(level).cloned();
        let Some(seats) = seats else { return (judged, Ok(None)) };
        let (sender, receiver) = oneshot::channel();
        let answer = seats.gate.lock().ask(&flow, sender);
        let seat = match answer {
            Answer::Now => Ok(Some(Seat(Arc::downgrade(&seats)))),
            Answer::Full => Err(too_many()),
            Answer::Wait => match tokio::time::timeout(WAIT, receiver).await {
                Ok(Ok(seat)) => Ok(Some(seat)),
                // The level is gone: nothing limits any more.
                Ok(Err(_)) => Ok(None),
                Err(_) => Err(too_many()),
            },
        };
        (judged, seat)
    }
}

/// 429 in upstream's words.
pub fn too_many() -> Status {
    let mut status = Status::new(429, "TooManyRequests", "Too many requests, please try again later.");
    status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
    status
}

#[cfg(test)]
mod tests;
