//! For how long a pod bears the `NoExecute` taints of its node.
//!
//! Its patience begins when the taint came, or when the pod came to the node if that was later. (Upstream counts from when its
//! controller saw them, and so begins anew when that is started again; here that is so of taints that do not say when they came.)

use super::health::Taint;
use crate::scheduler::pod::Toleration;
use coracle_apiserver::view::time;
use jiff::{SignedDuration, Timestamp};
use std::{collections::HashMap, time::Duration};

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It bears all taints for good.
    Stays,
    /// It does not bear one (any longer).
    Goes,
    /// It goes after this time, if the taint is still there.
    GoesIn(Duration),
}

/// When taints were first seen that do not say when they came, as `kubectl taint` makes them; by key and value.
#[derive(Clone, Debug, Default)]
pub struct Seen(HashMap<(String, String), Timestamp>);

impl Seen {
    /// Looks at the taints of a node; those that are gone are forgotten.
    pub fn look(&mut self, taints: &[Taint<'_>], now: Timestamp) {
        let untold = taints.iter().filter(|taint| taint.effect == "NoExecute" && time(&taint.time_added).is_none());
        let name = |taint: &Taint<'_>| (taint.key.to_string(), taint.value.to_string());
        self.0 = untold.map(name).map(|name| (self.0.get(&name).copied().unwrap_or(now), name)).map(|(since, name)| (name, since)).collect();
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Since when a taint is there.
    fn since(&self, taint: &Taint<'_>) -> Option<Timestamp> {
        time(&taint.time_added).or_else(|| self.0.get(&(taint.key.to_string(), taint.value.to_string())).copied())
    }
}

/// Judges a pod that is on the node since `came` by its tolerations: of each taint by the first that bears it, and of all taints by
/// the shortest time.
pub fn judge(tolerations: &[Toleration<'_>], taints: &[Taint<'_>], seen: &Seen, came: Timestamp, now: Timestamp) -> Verdict {
    let mut left: Option<SignedDuration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let Some(bearing) = tolerations.iter().find(|t| t.tolerates(&taint.key, &taint.value, &taint.effect)) else {
            return Verdict::Goes;
        };
        if let Some(seconds) = bearing.toleration_seconds {
            let since = seen.since(taint).unwrap_or(now).max(came);
            let rest = SignedDuration::from_secs(seconds.max(0)) - now.duration_since(since);
            left = Some(left.map_or(rest, |other| other.min(rest)));
        }
    }
    match left {
        None => Verdict::Stays,
        Some(rest) if rest <= SignedDuration::ZERO => Verdict::Goes,
        Some(rest) => Verdict::GoesIn(rest.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_patience_counts() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("time");
        let taints: Vec<Taint<'_>> =
            serde_json::from_str(r#"[{"key":"a","effect":"NoExecute","timeAdded":"2026-01-01T00:00:00Z"},{"key":"b","effect":"NoSchedule"}]"#)
                .expect("taints");
        let came = Timestamp::UNIX_EPOCH;
        let seen = Seen::default();
        let verdict = |json: &str| judge(&serde_json::from_str::<Vec<Toleration<'_>>>(json).expect("tolerations"), &taints, &seen, came, now);
        assert_eq!(verdict("[]"), Verdict::Goes);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists"}]"#), Verdict::Stays);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":300}]"#), Verdict::GoesIn(Duration::from_secs(240)));
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":60}]"#), Verdict::Goes);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":0},{"operator":"Exists"}]"#), Verdict::Goes);
        assert_eq!(
            verdict(r#"[{"key":"a","operator":"Exists"},{"operator":"Exists","tolerationSeconds":0}]"#),
            Verdict::Stays,
            "the first that bears it"
        );
        assert_eq!(judge(&[], &taints[1..], &seen, came, now), Verdict::Stays);
        let late: Vec<Toleration<'_>> = serde_json::from_str(r#"[{"operator":"Exists","tolerationSeconds":30}]"#).expect("tolerations");
        assert_eq!(judge(&late, &taints, &seen, came, now), Verdict::Goes);
        let came: Timestamp = "2026-01-01T00:00:50Z".parse().expect("time");
        assert_eq!(judge(&late, &taints, &seen, came, now), Verdict::GoesIn(Duration::from_secs(20)), "it came after the taint");
    }

    #[test]
    fn a_taint_that_does_not_say_when_it_came_counts_from_when_it_was_seen() {
        let at = |second: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
        let taints = |json: &'static str| serde_json::from_str::<Vec<Taint<'_>>>(json).expect("taints");
        let untold = taints(r#"[{"key":"a","effect":"NoExecute"},{"key":"b","effect":"NoSchedule"}]"#);
        let bears: Vec<Toleration<'_>> = serde_json::from_str(r#"[{"operator":"Exists","tolerationSeconds":30}]"#).expect("tolerations");
        let mut seen = Seen::default();
        for (second, verdict) in
            [(100, Verdict::GoesIn(Duration::from_secs(30))), (110, Verdict::GoesIn(Duration::from_secs(20))), (130, Verdict::Goes)]
        {
            seen.look(&untold, at(second));
            assert_eq!(judge(&bears, &untold, &seen, at(0), at(second)), verdict, "second {second}");
        }
        // It went and came again.
        seen.look(&untold[1..], at(131));
        seen.look(&untold, at(140));
        assert_eq!(judge(&bears, &untold, &seen, at(0), at(140)), Verdict::GoesIn(Duration::from_secs(30)));
    }
}
