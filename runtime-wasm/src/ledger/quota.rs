//! `limits.cpu` of a container: how long it waits for what it has used. Pure, but for the clock.
//!
//! The kernel's quota is so much in each period of 100 ms, after which a group waits for the next one. Here what is used is paid for with time that goes by: a container has a time up
//! to which it has paid, what it uses moves that on, and while it lies in the future the container waits. Who was idle has a period in hand, so as much may be used at once as of a
//! quota; who used more than that (nothing interrupts a guest between two ticks) waits longer. One number, which all hosts can move on without a lock.

use coracle_runtime::cgroup;
use std::time::Duration;

/// That of the kernel's quota, nanoseconds.
const PERIOD: u64 = cgroup::PERIOD * 1000;

/// This machine's clock, the same in all processes, nanoseconds.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Up to when is paid once `nanos` more were used of `millis` thousandths of a core.
pub fn pay(paid: u64, now: u64, nanos: u64, millis: u64) -> u64 {
    paid.max(now.saturating_sub(PERIOD)).saturating_add(nanos.saturating_mul(1000).div_ceil(millis.max(1)))
}

/// How long until that is now.
pub fn wait(paid: u64, now: u64) -> Option<Duration> {
    Some(Duration::from_nanos(paid.saturating_sub(now))).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const START: u64 = 1_000 * PERIOD;

    #[test]
    fn a_quota_may_be_used_at_once_and_is_waited_for_then() {
        // 50 ms of 100, in two pieces.
        let half = pay(0, START, 25 * MILLI, 500);
        assert_eq!((half, wait(half, START)), (START - 50 * MILLI, None));
        let all = pay(half, START, 25 * MILLI, 500);
        assert_eq!((all, wait(all, START)), (START, None));
        let more = pay(all, START, 5 * MILLI, 500);
        assert_eq!(wait(more, START), Some(Duration::from_millis(10)), "what is used beyond it is waited for");
        assert_eq!((wait(more, START + 9 * MILLI), wait(more, START + 10 * MILLI)), (Some(Duration::from_millis(1)), None));
        // However long it is idle, no more than a period is saved.
        assert_eq!(pay(more, START + 50 * PERIOD, 0, 500), START + 49 * PERIOD);
    }

    #[test]
    fn in_the_long_run_it_has_its_share_whatever_it_takes_at_once() {
        for millis in [1, 100, 700, 1000, 3500] {
            for slice in [MILLI / 100, 4 * MILLI, 30 * MILLI] {
                let (mut now, mut paid, mut used) = (START, 0, 0);
                while now < START + 100_000 * MILLI {
                    // It runs by itself, on as many cores as it may have.
                    now += slice * 1000 / millis.max(1000);
                    used += slice;
                    paid = pay(paid, now, slice, millis);
                    now += wait(paid, now).map_or(0, |wait| wait.as_nanos() as u64);
                }
                let (had, fair) = (used as f64, (now - START) as f64 * millis as f64 / 1000.0);
                let quota = (PERIOD * millis / 1000) as f64;
                assert!(had <= fair + quota + 1.0 && had >= fair * 0.999 - slice as f64, "{millis} in slices of {slice}: {had} of {fair}");
            }
        }
    }
}
