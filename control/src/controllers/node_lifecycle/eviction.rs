//! For how long a pod bears the `NoExecute` taints of its node.
//!
//! Its patience begins when the taint came, or when the pod came to the node if that was later. (Upstream counts from when its
//! controller saw them, and so begins anew when that is started again.)

use super::health::Taint;
use crate::scheduler::pod::Toleration;
use coracle_apiserver::view::time;
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

/// Judges a pod that is on the node since `came` by its tolerations: of each taint by the first that bears it, and of all taints by
/// the shortest time. A taint whose time is not known counts from now.
pub fn judge(tolerations: &[Toleration<'_>], taints: &[Taint<'_>], came: Timestamp, now: Timestamp) -> Verdict {
    let mut left: Option<SignedDuration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let Some(bearing) = tolerations.iter().find(|t| t.tolerates(&taint.key, &taint.value, &taint.effect)) else {
            return Verdict::Goes;
        };
        if let Some(seconds) = bearing.toleration_seconds {
            let since = time(&taint.time_added).unwrap_or(now).max(came);
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
        let verdict = |json: &str| judge(&serde_json::from_str::<Vec<Toleration<'_>>>(json).expect("tolerations"), &taints, came, now);
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
        assert_eq!(judge(&[], &taints[1..], came, now), Verdict::Stays);
        let late: Vec<Toleration<'_>> = serde_json::from_str(r#"[{"operator":"Exists","tolerationSeconds":30}]"#).expect("tolerations");
        assert_eq!(judge(&late, &taints, came, now), Verdict::Goes);
        let came: Timestamp = "2026-01-01T00:00:50Z".parse().expect("time");
        assert_eq!(judge(&late, &taints, came, now), Verdict::GoesIn(Duration::from_secs(20)), "it came after the taint");
    }
}
