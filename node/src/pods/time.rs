//! Time as the pod state machine sees it: wall-clock milliseconds that come in from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// The machine's clock: the one place where the agent's pods read it.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// This time and so many milliseconds.
    pub fn after(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this.
    pub fn since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// RFC 3339 in whole seconds, as `metav1.Time` prints.
    pub fn rfc3339(self) -> String {
        let seconds = jiff::Timestamp::from_second(self.0.div_euclid(1000)).unwrap_or_default();
        seconds.to_string()
    }

    /// RFC 3339 in microseconds, as `metav1.MicroTime` prints.
    pub fn rfc3339_micro(self) -> String {
        let stamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        stamp.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_millisecond()))
    }

    /// How long until then, from `now`; zero when it is past.
    pub fn wait_from(self, now: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.since(now)).unwrap_or(0))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A point in the future that a stepped-back clock cannot push away: due when the clock passed it, or when it lies further ahead
/// than the delay that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Time,
    /// The delay that led there, milliseconds.
    pub delay: i64,
}

impl Due {
    /// So many milliseconds from now.
    pub fn in_millis(now: Time, delay: i64) -> Self {
        Self { at: now.after(delay), delay }
    }

    /// It is time.
    pub fn reached(self, now: Time) -> bool {
        now >= self.at || self.at.since(now) > self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_kubernetes_times() {
        let time = Time(1_700_000_000_123);
        assert_eq!(time.rfc3339(), "2023-11-14T22:13:20Z");
        assert_eq!(time.rfc3339_micro(), "2023-11-14T22:13:20.123000Z");
        assert_eq!(Time::parse("2023-11-14T22:13:20Z"), Some(Time(1_700_000_000_000)));
        assert_eq!(Time::parse("yesterday"), None);
    }

    #[test]
    fn a_clock_set_back_does_not_freeze_a_back_off() {
        let due = Due::in_millis(Time(1_000_000), 10_000);
        assert!(!due.reached(Time(1_005_000)));
        assert!(due.reached(Time(1_010_000)));
        assert!(due.reached(Time(5_000)), "the clock was set back by a quarter of an hour");
    }
}
