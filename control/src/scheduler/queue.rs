//! Pods that wait for a node: by priority and age, with a back-off for those that just failed.
//!
//! A pod that fitted nowhere waits until something changes that may let it fit (a node, a pod that went); the more often it failed,
//! the longer it then still waits (10 ms doubling to 10 s), so that thousands of pods that fit nowhere do not spend the CPU on every
//! change. Pure: time comes in with each call.

use coracle_apiserver::telemetry::Pending;
use coracle_store::Key;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Active from then on.
    BackOff(Instant),
    /// Waits for one of these kinds of change.
    Stuck(u8),
    /// Handed out; its result is awaited.
    Taken,
}

#[derive(Debug)]
struct Entry {
    priority: i64,
    sequence: u64,
    place: Place,
    failures: u32,
    /// No attempt before this.
    not_before: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Key, Entry>,
    active: BTreeSet<(Reverse<i64>, u64, Key)>,
    timers: BTreeSet<(Instant, Key)>,
    stuck: BTreeSet<Key>,
    /// Pods that are handed out, and the kinds of change since.
    taken: HashMap<Key, u8>,
    sequence: u64,
}

impl Queue {
    /// A pod that is to be placed; does nothing if it waits already.
    pub fn add(&mut self, key: Key, priority: i64, now: Instant) {
        if self.entries.contains_key(&key) {
            return;
        }
        self.sequence += 1;
        let entry = Entry { priority, sequence: self.sequence, place: Place::Taken, failures: 0, not_before: now };
        self.entries.insert(key.clone(), entry);
        self.put(&key, Place::Active);
    }

    /// The pod was bound or went.
    pub fn remove(&mut self, key: &Key) {
        self.put(key, Place::Taken);
        self.taken.remove(key);
        self.entries.remove(key);
    }

    /// Whether the pod waits here.
    pub fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    fn put(&mut self, key: &Key, place: Place) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.place {
            Place::Active => drop(self.active.remove(&(Reverse(entry.priority), entry.sequence, key.clone()))),
            Place::BackOff(at) => drop(self.timers.remove(&(at, key.clone()))),
            Place::Stuck(_) => drop(self.stuck.remove(key)),
            Place::Taken => drop(self.taken.remove(key)),
        }
        entry.place = place;
        match place {
            Place::Active => drop(self.active.insert((Reverse(entry.priority), entry.sequence, key.clone()))),
            Place::BackOff(at) => drop(self.timers.insert((at, key.clone()))),
            Place::Stuck(_) => drop(self.stuck.insert(key.clone())),
            Place::Taken => drop(self.taken.insert(key.clone(), 0)),
        }
    }

    /// The next pod to place. The caller reports with [`Queue::failed`], [`Queue::retry`] or [`Queue::remove`].
    pub fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.put(&key, Place::Active);
        }
        let (.., key) = self.active.first()?.clone();
        self.put(&key, Place::Taken);
        Some(key)
    }

    /// It fitted nowhere: it waits for a change of one of these kinds.
    pub fn failed(&mut self, key: &Key, hears: u8, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let delay = FIRST.saturating_mul(1u32.checked_shl(entry.failures).unwrap_or(u32::MAX)).min(LONGEST);
        entry.failures = (entry.failures + 1).min(20);
        entry.not_before = now + delay;
        // What changed while it was being placed may be what it needs.
        let meanwhile = self.taken.get(key).copied().unwrap_or(0);
        let place = if meanwhile & hears == 0 { Place::Stuck(hears) } else { Place::BackOff(entry.not_before) };
        self.put(key, place);
    }

    /// Its binding failed: it is tried again after the back-off, whatever changes.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        self.failed(key, 0, now);
        if let Some(at) = self.entries.get(key).map(|entry| entry.not_before) {
            self.put(key, Place::BackOff(at));
        }
    }

    /// What it needed was done: it is tried again at once.
    pub fn again(&mut self, key: &Key) {
        if self.entries.contains_key(key) {
            self.put(key, Place::Active);
        }
    }

    /// The pod itself changed: it may fit now.
    pub fn changed(&mut self, key: &Key, now: Instant) {
        if self.stuck.contains(key) {
            self.release(key.clone(), now);
        }
    }

    /// The cluster changed in a way (bits of [`change`](super::plugins::change)) that lets pods fit that wait for it.
    pub fn cluster_changed(&mut self, kinds: u8, now: Instant) {
        self.taken.values_mut().for_each(|seen| *seen |= kinds);
        let entries = &self.entries;
        let hears = |key: &&Key| entries.get(*key).is_some_and(|entry| matches!(entry.place, Place::Stuck(hears) if hears & kinds != 0));
        for key in self.stuck.iter().filter(hears).cloned().collect::<Vec<_>>() {
            self.release(key, now);
        }
    }

    fn release(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.get(&key) else { return };
        let place = if entry.not_before > now { Place::BackOff(entry.not_before) } else { Place::Active };
        self.put(&key, place);
    }

    /// How many pods wait for what.
    pub fn pending(&self) -> Pending {
        Pending { active: self.active.len(), backoff: self.timers.len(), unschedulable: self.stuck.len() }
    }

    /// When the earliest back-off ends.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("pods", "n", name)
    }

    #[test]
    fn priority_goes_first_then_age() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(key(name), priority, now);
        }
        let order: Vec<String> = std::iter::from_fn(|| queue.take(now)).map(|key| key.name.to_string()).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_pod_that_fits_nowhere_waits_for_a_change_and_longer_each_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), 0, now);
        queue.take(now);
        queue.failed(&key("a"), 3, now);
        queue.cluster_changed(4, now);
        assert_eq!((queue.take(now + LONGEST), queue.next_due()), (None, None), "no change of its kinds, no attempt");
        queue.cluster_changed(2, now + Duration::from_millis(1));
        assert_eq!(queue.next_due(), Some(now + FIRST));
        let later = now + FIRST;
        assert_eq!(queue.take(later), Some(key("a")));
        queue.failed(&key("a"), 3, later);
        queue.cluster_changed(1, later);
        assert_eq!(queue.next_due(), Some(later + 2 * FIRST));
    }

    #[test]
    fn a_change_during_the_attempt_is_not_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), 0, now);
        queue.take(now);
        queue.cluster_changed(1, now);
        queue.failed(&key("a"), 1, now);
        assert_eq!(queue.take(now + FIRST), Some(key("a")));
    }

    #[test]
    fn a_failed_binding_is_tried_again_by_itself() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), 0, now);
        queue.take(now);
        queue.retry(&key("a"), now);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + FIRST), Some(key("a")));
        queue.remove(&key("a"));
        assert!(!queue.contains(&key("a")));
    }
}
