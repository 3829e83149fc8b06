//! How long a node waits for another pod after its pod failed: 1 s, doubling each time, at most 15 min; forgotten after twice that.
//!
//! A daemon pod that its node refuses would otherwise be made and refused as fast as both can.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The failures of all sets. Pure: time comes in.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: HashMap<Place, Wait>,
}

/// A set, its generation, and a node: a new template begins anew.
type Place = (Box<str>, i64, Box<str>);
/// How long, and since when.
type Wait = (Duration, Instant);

impl Backoff {
    /// What is left to wait.
    pub fn left(&self, uid: &str, generation: i64, node: &str, now: Instant) -> Option<Duration> {
        let (wait, since) = self.failures.get(&(uid.into(), generation, node.into()))?;
        wait.checked_sub(now.duration_since(*since)).filter(|left| !left.is_zero())
    }

    /// A failed pod is replaced now.
    pub fn failed(&mut self, uid: &str, generation: i64, node: &str, now: Instant) {
        self.failures.retain(|_, (_, since)| now.duration_since(*since) < LONGEST * 2);
        let wait = self.failures.entry((uid.into(), generation, node.into())).and_modify(|(wait, _)| *wait = (*wait * 2).min(LONGEST));
        wait.or_insert((FIRST, now)).1 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_wait_longer() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
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
