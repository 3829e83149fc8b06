//! The work queue of one controller: which objects are to be looked at next.
//!
//! A key waits at most once however often it is added (dedupe), is never worked on twice at the same time (what is added meanwhile
//! runs once more afterwards), and after an error waits longer each time: 5 ms doubling up to 16 min 40 s, as client-go's limiter.
//! Its size is bounded by the number of objects. Pure: time comes in with each call, waiting is the runner's.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(1000);

/// What the last run of a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    Idle,
    /// Another run after this time, or earlier if something changes.
    After(Duration),
    /// Nothing by itself, but no run before this time has passed: what is added meanwhile waits (thinning out work on large objects).
    NotBefore(Duration),
    /// As `NotBefore` the first time, and another run after the second even if nothing is added.
    Between(Duration, Duration),
    /// It failed: another run after a delay that grows with each failure in a row.
    Retry,
}

/// Keys in one of four states: ready, waiting for a time, running, running and dirty.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    /// In `ready`, or running and to be run again.
    dirty: HashSet<K>,
    running: HashSet<K>,
    timers: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    /// Until when a key rests, whatever is added.
    resting: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            running: HashSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            resting: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// Something about this key changed.
    pub fn add(&mut self, key: K, now: Instant) {
        if let Some(&until) = self.resting.get(&key) {
            if until > now {
                return self.add_at(key, until);
            }
            self.resting.remove(&key);
        }
        self.make_ready(key);
    }

    fn make_ready(&mut self, key: K) {
        self.drop_timer(&key);
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Adds the key at a time; the earliest of several wins.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if self.dirty.contains(&key) || self.due.get(&key).is_some_and(|&due| due <= at) {
            return;
        }
        self.drop_timer(&key);
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    fn drop_timer(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    /// The next key to run. The caller must give it back with [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.resting.remove(&key);
                self.make_ready(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When the earliest timer is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A run of the key ended. The number of failures in a row is returned (0 after success).
    pub fn done(&mut self, key: &K, next: Next, now: Instant) -> u32 {
        self.running.remove(key);
        let mut again = self.dirty.remove(key);
        let failures = match next {
            Next::Retry => {
                let count = self.failures.entry(key.clone()).or_insert(0);
                let delay = FIRST_DELAY.saturating_mul(1u32.checked_shl(*count).unwrap_or(u32::MAX)).min(LONGEST_DELAY);
                *count = (*count + 1).min(31);
                let count = *count;
                if !again {
                    self.add_at(key.clone(), now + delay);
                }
                count
            }
            Next::After(delay) => {
                self.failures.remove(key);
                self.add_at(key.clone(), now + delay);
                0
            }
            Next::NotBefore(delay) | Next::Between(delay, _) => {
                self.failures.remove(key);
                if delay > Duration::ZERO {
                    self.resting.insert(key.clone(), now + delay);
                    // A timer always ends the rest, so that `resting` does not grow: it runs nothing unless the key was added.
                    if again {
                        self.add_at(key.clone(), now + delay);
                        again = false;
                    }
                    self.resting.retain(|_, until| *until > now);
                }
                if let Next::Between(_, latest) = next {
                    self.add_at(key.clone(), now + latest);
                }
                0
            }
            Next::Idle => {
                self.failures.remove(key);
                0
            }
        };
        if again {
            self.make_ready(key.clone());
        }
        failures
    }

    /// How many keys are ready to run.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What is running now.
    pub fn running(&self) -> impl Iterator<Item = &K> {
        self.running.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add("a", now);
        queue.add("b", now);
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("b"));
        assert_eq!(queue.take(now), None, "a is running");
        queue.done(&"a", Next::Idle, now);
        assert_eq!(queue.take(now), Some("a"), "it was added while it ran");
        queue.done(&"a", Next::Idle, now);
        queue.done(&"b", Next::Idle, now);
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn failures_wait_twice_as_long_each_time_up_to_a_bound() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add("a", now);
        let mut delays = Vec::new();
        for _ in 0..20 {
            assert_eq!(queue.take(now), Some("a"));
            queue.done(&"a", Next::Retry, now);
            let due = queue.next_due().expect("a timer");
            delays.push(due - now);
            assert_eq!(queue.take(due - MS), None);
            now = due;
        }
        assert_eq!(delays[..4], [5 * MS, 10 * MS, 20 * MS, 40 * MS]);
        assert_eq!(delays[19], LONGEST_DELAY);
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a", Next::Idle, now);
        queue.add("a", now);
        queue.take(now);
        queue.done(&"a", Next::Retry, now);
        assert_eq!(queue.next_due(), Some(now + 5 * MS), "success forgets the failures");
    }

    #[test]
    fn a_change_overtakes_a_timer_and_cancels_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add_at("a", now + 10 * MS);
        queue.add_at("a", now + 20 * MS);
        assert_eq!(queue.next_due(), Some(now + 10 * MS), "the earliest wins");
        queue.add("a", now);
        assert_eq!(queue.next_due(), None);
        assert_eq!(queue.take(now), Some("a"));
    }

    #[test]
    fn a_resting_key_gathers_changes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add("a", now);
        queue.take(now);
        queue.done(&"a", Next::NotBefore(50 * MS), now);
        queue.add("a", now + MS);
        queue.add("a", now + 2 * MS);
        assert_eq!(queue.take(now + 2 * MS), None);
        assert_eq!(queue.take(now + 50 * MS), Some("a"));
        queue.done(&"a", Next::Idle, now + 50 * MS);
        assert_eq!(queue.take(now + 60 * MS), None);
        queue.add("a", now + 61 * MS);
        assert_eq!(queue.take(now + 61 * MS), Some("a"));
    }

    #[test]
    fn a_key_may_rest_and_come_again_by_itself() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let between = Next::Between(50 * MS, 500 * MS);
        queue.add("a", now);
        queue.take(now);
        queue.done(&"a", between, now);
        assert_eq!((queue.take(now + 499 * MS), queue.take(now + 500 * MS)), (None, Some("a")));
        queue.add("a", now + 500 * MS);
        queue.done(&"a", between, now + 500 * MS);
        assert_eq!((queue.take(now + 549 * MS), queue.take(now + 550 * MS)), (None, Some("a")), "it was added while it ran, and rests");
        queue.done(&"a", between, now + 550 * MS);
        queue.add("a", now + 551 * MS);
        assert_eq!((queue.take(now + 599 * MS), queue.take(now + 600 * MS)), (None, Some("a")), "a change is earlier than the time");
    }
}
