//! How long a Job waits after failures: 10 s, doubling with each failure, at most 10 min.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

const FIRST: i64 = 10;
const LONGEST: i64 = 600;

/// What is left to wait, from when pods failed and when they succeeded: failures since the last success count.
pub fn left(failed: &[Timestamp], succeeded: &[Timestamp], now: Timestamp) -> Option<Duration> {
    let last_success = succeeded.iter().max();
    let failures = failed.iter().filter(|at| last_success.is_none_or(|success| *at > success)).count();
    after(i64::try_from(failures).unwrap_or(i64::MAX), *failed.iter().max()?, now)
}

/// What is left to wait after so many failures, the last at this time.
pub fn after(failures: i64, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).ok()?;
    let wait = FIRST.saturating_mul(1i64.checked_shl(doublings.min(20)).unwrap_or(i64::MAX)).min(LONGEST);
    let left = SignedDuration::from_secs(wait) - now.duration_since(last);
    (left > SignedDuration::ZERO).then(|| left.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_double_the_wait() {
        let at = |second: i64| Timestamp::from_second(1000 + second).expect("time");
        let secs = |failed: &[i64], succeeded: &[i64], now: i64| {
            let times = |list: &[i64]| list.iter().map(|s| at(*s)).collect::<Vec<_>>();
            left(&times(failed), &times(succeeded), at(now)).map(|d| d.as_secs())
        };
        assert_eq!(secs(&[], &[], 0), None);
        assert_eq!(secs(&[0], &[], 0), Some(10));
        assert_eq!(secs(&[0], &[], 10), None);
        assert_eq!(secs(&[0, 5], &[], 5), Some(20));
        assert_eq!(secs(&[0, 5], &[3], 5), Some(10), "a success between");
        assert_eq!(secs(&[0, 5], &[6], 6), None, "a success afterwards");
        assert_eq!(secs(&(0..60).collect::<Vec<_>>(), &[], 59), Some(600));
        assert_eq!(after(0, at(0), at(0)), None);
    }
}
