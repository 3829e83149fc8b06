//! For how long a pod bears the `NoExecute` taints of its node.

use super::health::Taint;
use crate::{controllers::view::time, scheduler::pod::Toleration};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

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

/// Judges a pod by its tolerations. A taint whose time is not known counts from now.
pub fn judge(tolerations: &[Toleration<'_>], taints: &[Taint<'_>], now: Timestamp) -> Verdict {
    let mut left: Option<SignedDuration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut bearing = tolerations.iter().filter(|t| t.tolerates(&taint.key, &taint.value, &taint.effect)).peekable();
        if bearing.peek().is_none() {
            return Verdict::Goes;
        }
        // The shortest of those that set a time.
        if let Some(seconds) = bearing.filter_map(|t| t.toleration_seconds).min() {
            let since = time(&taint.time_added).unwrap_or(now);
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
        let verdict = |json: &str| judge(&serde_json::from_str::<Vec<Toleration<'_>>>(json).expect("tolerations"), &taints, now);
        assert_eq!(verdict("[]"), Verdict::Goes);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists"}]"#), Verdict::Stays);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":300}]"#), Verdict::GoesIn(Duration::from_secs(240)));
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":60}]"#), Verdict::Goes);
        assert_eq!(verdict(r#"[{"key":"a","operator":"Exists","tolerationSeconds":0},{"operator":"Exists"}]"#), Verdict::Goes);
        assert_eq!(judge(&[], &taints[1..], now), Verdict::Stays);
    }
}
