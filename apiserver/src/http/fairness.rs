//! Priority and fairness (KEP-1040): a FlowSchema says to which priority level a request belongs and whose flow it is part of; a level
//! has seats, and, while they are taken, queues.
//!
//! Simpler than upstream where that costs nobody anything: each flow has a queue of its own, taken in turn, so that no shuffle
//! sharding is needed to keep flows apart; and a request takes one seat. Levels lend each other seats as upstream's do
//! ([`lending`]). A watch holds its seat until it begins.

pub mod counts;
pub mod gate;
pub mod lending;
pub mod rules;

use self::{
    counts::{Counts, Why},
    gate::{Answer, Gate, Room},
    lending::{Demand, Remembered},
    rules::{Level, Rules},
};
use crate::{
    auth::{Attributes, User},
    telemetry::requests::One,
};
use coracle_api::status::{Details, Status};
use coracle_store::{Error, Scope, Store};
use parking_lot::{Mutex, RwLock};
use prometheus::proto::MetricFamily;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
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
struct Seats(Mutex<State>);

struct State {
    gate: Gate<oneshot::Sender<Seat>>,
    demand: Demand,
    level: lending::Level,
}

/// Held while a request is worked on.
pub struct Seat {
    of: Weak<Seats>,
    /// Whether seats bound its level.
    pub counts: bool,
    #[allow(dead_code, reason = "counted while it is held")]
    told: Option<One>,
}

impl Seat {
    fn of(seats: &Arc<Seats>, exempt: bool) -> Self {
        Self { of: Arc::downgrade(seats), counts: !exempt, told: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.of.upgrade() {
            seats.leave();
        }
    }
}

/// Somebody in a queue. Who gives up, for want of time or because the client went away, makes room at once.
struct Waiting<'w> {
    seats: &'w Arc<Seats>,
    flow: &'w str,
    receiver: Option<oneshot::Receiver<Seat>>,
}

impl Waiting<'_> {
    /// The seat; none if the level is gone: nothing limits any more.
    async fn seat(&mut self) -> Option<Seat> {
        let seat = self.receiver.as_mut()?.await.ok();
        self.receiver = None;
        seat
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A seat that came this moment goes back with its channel, before the queue is locked.
        if self.receiver.take().is_some() {
            self.seats.0.lock().count(|gate| gate.forget(self.flow, oneshot::Sender::is_closed));
        }
    }
}

/// Counts who goes away while waiting.
struct Gone<'w> {
    counts: &'w Counts,
    level: &'w str,
    schema: &'w str,
    began: Instant,
    waits: bool,
}

impl Gone<'_> {
    /// It is still there, after so long.
    fn stays(mut self) -> Duration {
        self.waits = false;
        self.began.elapsed()
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.counts.refused(self.level, self.schema, Why::Gone, self.began.elapsed());
        }
    }
}

impl State {
    fn new(level: &Level, now: Instant) -> Self {
        let limit = level.span.initial();
        // An exempt level has a gate for the sake of its count.
        let (seats, room) = if level.exempt { (usize::MAX, Room::default()) } else { (limit, level.queue) };
        let level = lending::Level { exempt: level.exempt, span: level.span, demand: Remembered::default(), limit };
        Self { gate: Gate::new(seats, room), demand: Demand::new(now), level }
    }

    /// Does something with the gate, and notes what is wanted then.
    fn count<T>(&mut self, with: impl FnOnce(&mut Gate<oneshot::Sender<Seat>>) -> T) -> T {
        let done = with(&mut self.gate);
        self.demand.set(self.gate.wanted(), Instant::now());
        done
    }
}

impl Seats {
    fn leave(self: &Arc<Self>) {
        let next = self.0.lock().count(Gate::leave);
        if let Some(next) = next {
            self.hand(next);
        }
    }

    /// Gives a seat to who is next. One that gave up waiting leaves at once; its seat goes on to the next.
    fn hand(self: &Arc<Self>, mut next: oneshot::Sender<Seat>) {
        while next.is_closed() {
            match self.0.lock().count(Gate::leave) {
                Some(another) => next = another,
                None => return,
            }
        }
        let _gave_up_now = next.send(Seat::of(self, false));
    }

    /// Has another number of seats from now on, and gives those that are new to who waits.
    fn limit(self: &Arc<Self>, seats: usize) {
        {
            let mut state = self.0.lock();
            state.level.limit = seats;
            if !state.level.exempt {
                state.gate.resize(seats);
            }
        }
        loop {
            let next = self.0.lock().count(Gate::call);
            match next {
                Some(next) => self.hand(next),
                None => return,
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
    counts: Counts,
}

impl Fairness {
    /// With so many seats, shared among the levels.
    ///
    /// # Errors
    /// As [`Counts::new`].
    pub fn new(total: usize) -> Result<Self, prometheus::Error> {
        Ok(Self { rules: RwLock::default(), seats: Mutex::default(), total, counts: Counts::new()? })
    }

    /// What was counted, and the seats as they are.
    ///
    /// # Errors
    /// As [`Counts::families`].
    pub fn families(&self) -> Result<Vec<MetricFamily>, prometheus::Error> {
        let of = |(name, seats): (&Arc<str>, &Arc<Seats>)| {
            let lending::Level { span, limit, .. } = seats.0.lock().level;
            counts::Limits { level: name.to_string(), seats: [span.nominal, span.least, span.most, limit] }
        };
        let limits: Vec<counts::Limits> = self.seats.lock().iter().map(of).collect();
        self.counts.families(&limits)
    }

    /// Reads the rules that are stored.
    pub fn reload(&self, store: &Store) {
        let snapshot = store.snapshot();
        let all = |resource: &str| snapshot.range(resource, None, None).cloned().collect::<Vec<_>>();
        self.set(Rules::of(&all(rules::SCHEMAS), &all(rules::LEVELS), self.total));
    }

    fn set(&self, rules: Rules) {
        let now = Instant::now();
        let mut seats = self.seats.lock();
        // A level that became exempt, or is none any more, begins anew.
        seats.retain(|name, known| rules.levels.get(name).is_some_and(|level| level.exempt == known.0.lock().level.exempt));
        for (name, level) in &rules.levels {
            match seats.get(name) {
                Some(known) => {
                    let mut state = known.0.lock();
                    state.level.span = level.span;
                    state.gate.refit(level.queue);
                }
                None => drop(seats.insert(name.clone(), Arc::new(Seats(Mutex::new(State::new(level, now)))))),
            }
        }
        drop(seats);
        *self.rules.write() = Arc::new(rules);
        self.share(|state| state.level);
    }

    /// Ends a period: sets every level's limit by what was wanted in it.
    fn lend(&self, now: Instant) {
        self.share(|state| {
            let observed = state.demand.take(now);
            state.level.demand.update(observed);
            state.level
        });
    }

    /// Sets every level's limit.
    fn share(&self, level: impl Fn(&mut State) -> lending::Level) {
        let all: Vec<Arc<Seats>> = self.seats.lock().values().cloned().collect();
        let levels: Vec<lending::Level> = all.iter().map(|seats| level(&mut seats.0.lock())).collect();
        for (seats, limit) in all.iter().zip(lending::limits(&levels)) {
            seats.limit(limit);
        }
    }

    /// How many wait at a level.
    #[cfg(test)]
    fn waiting(&self, level: &str) -> usize {
        self.seats.lock().get(level).map_or(0, |seats| seats.0.lock().gate.waiting())
    }

    /// Keeps the rules in step with the store, and lends; ends when the store is closed.
    pub async fn follow(&self, store: &Store) {
        let mut period = tokio::time::interval(lending::PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut schemas = store.list_watch(Scope::resource(rules::SCHEMAS)).1;
            let mut levels = store.list_watch(Scope::resource(rules::LEVELS)).1;
            self.reload(store);
            loop {
                let changes = tokio::select! {
                    changes = schemas.next() => changes,
                    changes = levels.next() => changes,
                    _ = period.tick() => {
                        self.lend(Instant::now());
                        continue;
                    }
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

    /// A seat, perhaps after a wait; one that does not count where the level is exempt, none where no level is known. Tells also by what the request was judged.
    ///
    /// # Errors
    /// 429 when the level is full, or no seat came free in time.
    pub async fn enter(&self, user: &User, asked: &Attributes<'_>) -> (Judged, Result<Option<Seat>, Status>) {
        let rules = Arc::clone(&self.rules.read());
        let Some((judged, schema, level, flow)) = rules.judge(user, asked) else { return (Judged::default(), Ok(None)) };
        let seats = self.seats.lock().get(level).cloned();
        let Some(seats) = seats else { return (judged, Ok(None)) };
        let exempt = rules.levels.get(level).is_some_and(|level| level.exempt);
        let refused = |why: Why, waited: Duration| {
            self.counts.refused(level, schema, why, waited);
            Err(too_many())
        };
        let (sender, receiver) = oneshot::channel();
        let answer = seats.0.lock().count(|gate| gate.ask(&flow, sender));
        let mut waited = Duration::ZERO;
        let seat = match answer {
            Answer::Now => Ok(Some(Seat::of(&seats, exempt))),
            Answer::Full => refused(Why::Full, waited),
            Answer::Wait => {
                let (_one, began) = (self.counts.waits(level, schema), Instant::now());
                let gone = Gone { counts: &self.counts, level, schema, began, waits: true };
                let mut waiting = Waiting { seats: &seats, flow: &flow, receiver: Some(receiver) };
                let came = tokio::time::timeout(WAIT, waiting.seat()).await;
                waited = gone.stays();
                match came {
                    Ok(seat) => Ok(seat),
                    Err(_) => refused(Why::Late, waited),
                }
            }
        };
        let told = |mut seat: Seat| {
            seat.told = Some(self.counts.seated(level, schema, waited));
            seat
        };
        let seat = seat.map(|seat| seat.map(told));
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
