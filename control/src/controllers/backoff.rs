//! How long a pod that failed waits to be replaced by another of its place: 1 s, doubling each time, up to a bound; forgotten after twice that.
//!
//! A pod that its node refuses would otherwise be made and refused as fast as both can. Upstream does this for DaemonSets; its client's rate limit is what slows others down.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_secs(1);

/// The failures of all sets. Pure: time comes in.
#[derive(Debug)]
pub struct Backoff {
    longest: Duration,
    failures: HashMap<Place, Wait>,
}

/// A set, its generation, and a node or a pod's name: a new template begins anew.
type Place = (Box<str>, i64, Box<str>);
/// How long, and since when.
type Wait = (Duration, Instant);

impl Backoff {
    /// Waits are never longer than this.
    pub fn up_to(longest: Duration) -> Self {
        Self { longest, failures: HashMap::new() }
    }

    /// What is left to wait.
    pub fn left(&self, uid: &str, generation: i64, place: &str, now: Instant) -> Option<Duration> {
        let (wait, since) = self.failures.get(&(uid.into(), generation, place.into()))?;
        wait.checked_sub(now.duration_since(*since)).filter(|left| !left.is_zero())
    }

    /// A failed pod is replaced now.
    pub fn failed(&mut self, uid: &str, generation: i64, place: &str, now: Instant) {
        let longest = self.longest;
        self.failures.retain(|_, (_, since)| now.duration_since(*since) < longest * 2);
        let wait = self.failures.entry((uid.into(), generation, place.into())).and_modify(|(wait, _)| *wait = (*wait * 2).min(longest));
        wait.or_insert((FIRST, now)).1 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_wait_longer() {
        const LONGEST: Duration = Duration::from_secs(15 * 60);
        let (mut backoff, start) = (Backoff::up_to(LONGEST), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(backoff.left("u", 1, "n", at(0)), None);
        backoff.failed("u", 1, "n", at(0));
        assert_eq!(backoff.left("u", 1, "n", at(0)), Some(FIRST));
        assert_eq!(backoff.left("u", 1, "n", at(1)), None);
        backoff.failed("u", 1, "n", at(1));
        assert_eq!(backoff.left("u", 1, "n", at(1)), Some(2 * FIRST));
        assert_eq!((backoff.left("u", 2, "n", at(1)), backoff.left("u", 1, "m", at(1))), (None, None));
        for second in 2..20 {
            backoff.failed("u", 1, "n", at(second));
        }
        assert_eq!(backoff.left("u", 1, "n", at(19)), Some(LONGEST));
        backoff.failed("u", 1, "other", at(4000));
        assert_eq!(backoff.failures.len(), 1, "old failures are forgotten");
    }
}
