//! How fast a wanted number of replicas may be gone to: stabilization windows, policies, bounds (KEP-853).

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Without a behavior, and where one does not say: how long the highest recommendation counts on the way down.
const DOWN_WINDOW: i64 = 300;
/// Without a behavior: up to twice as many, or this many.
const UP_LEAST: i64 = 4;

/// `autoscaling/v2 HorizontalPodAutoscalerBehavior`, after defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// On the way up.
    pub scale_up: Rules,
    /// On the way down.
    pub scale_down: Rules,
}

/// `autoscaling/v2 HPAScalingRules`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    stabilization_window_seconds: Option<i64>,
    select_policy: Option<String>,
    policies: Vec<Policy>,
    /// By what part of the target a use may be off, a quantity.
    pub tolerance: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    r#type: String,
    value: i64,
    period_seconds: i64,
}

/// What was recommended and done of late.
#[derive(Clone, Debug, Default)]
pub struct History {
    recommendations: Vec<(Timestamp, i64)>,
    ups: Vec<(Timestamp, i64)>,
    downs: Vec<(Timestamp, i64)>,
}

fn before(now: Timestamp, seconds: i64) -> Timestamp {
    now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

/// Replicas by which a count changed within a time.
fn changed(events: &[(Timestamp, i64)], now: Timestamp, seconds: i64) -> i64 {
    events.iter().filter(|(at, _)| *at > before(now, seconds)).map(|(_, by)| by).sum()
}

impl Rules {
    fn longest_period(&self) -> i64 {
        self.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0)
    }

    /// How far a count may go from `current`: up with `direction` 1, down with -1.
    fn limit(&self, current: i64, history: &History, now: Timestamp, direction: i64) -> i64 {
        let select = self.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let proposals = self.policies.iter().map(|policy| {
            let began = current - changed(&history.ups, now, policy.period_seconds) + changed(&history.downs, now, policy.period_seconds);
            let share = 1.0 + (direction * policy.value) as f64 / 100.0;
            match (&*policy.r#type, direction) {
                ("Pods", _) => began + direction * policy.value,
                // A share that is no whole replica must still lead somewhere.
                (_, 1) => (began as f64 * share).ceil() as i64,
                _ => (began as f64 * share) as i64,
            }
        });
        // The largest change is the highest count up and the lowest down.
        if (select == "Min") == (direction == 1) { proposals.min() } else { proposals.max() }.unwrap_or(current)
    }
}

impl History {
    /// A first look: what is there counts as recommended.
    pub fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// The count was changed.
    pub fn scaled(&mut self, behavior: Option<&Behavior>, from: i64, to: i64, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (events, rules) = if to > from { (&mut self.ups, &behavior.scale_up) } else { (&mut self.downs, &behavior.scale_down) };
        events.retain(|(at, _)| *at >= before(now, rules.longest_period()));
        events.push((now, (to - from).abs()));
    }

    fn recommend(&mut self, wanted: i64, window: i64, now: Timestamp) {
        self.recommendations.retain(|(at, _)| *at >= before(now, window));
        self.recommendations.push((now, wanted));
    }

    fn within(&self, now: Timestamp, seconds: i64) -> impl Iterator<Item = i64> {
        let cutoff = before(now, seconds);
        self.recommendations.iter().filter(move |(at, _)| *at > cutoff).map(|(_, count)| *count)
    }
}

/// What comes of a wanted count.
#[derive(Debug, PartialEq)]
pub struct Decided {
    /// The count to go to.
    pub replicas: i64,
    /// Reason and message of the condition `AbleToScale`, which is True.
    pub able: (&'static str, &'static str),
    /// Whether it was limited, and reason and message of `ScalingLimited`.
    pub limited: (bool, &'static str, &'static str),
}

const MATCHES: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const STABILIZED_DOWN: (&str, &str) =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const STABILIZED_UP: (&str, &str) =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const IN_RANGE: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FAST: (&str, &str) = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

/// Fewest and most replicas.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `minReplicas`
    pub least: i64,
    /// `maxReplicas`
    pub most: i64,
}

/// Decides where to go from `current` when the metrics want `wanted`, and remembers what they wanted.
pub fn decide(history: &mut History, behavior: Option<&Behavior>, bounds: Bounds, current: i64, wanted: i64, now: Timestamp) -> Decided {
    let (stable, why) = match behavior {
        None => {
            let highest = history.within(now, DOWN_WINDOW).fold(wanted, i64::max);
            history.recommend(wanted, DOWN_WINDOW, now);
            (highest, STABILIZED_DOWN)
        }
        Some(behavior) => {
            let up = behavior.scale_up.stabilization_window_seconds.unwrap_or(0);
            let down = behavior.scale_down.stabilization_window_seconds.unwrap_or(DOWN_WINDOW);
            let lowest = history.within(now, up).fold(wanted, i64::min);
            let highest = history.within(now, down).fold(wanted, i64::max);
            history.recommend(wanted, up.max(down), now);
            (current.max(lowest).min(highest), if wanted >= current { STABILIZED_UP } else { STABILIZED_DOWN })
        }
    };
    let able = if stable == wanted { MATCHES } else { why };
    let (replicas, (reason, message)) = match behavior {
        None => {
            let fastest = (2 * current).max(UP_LEAST);
            let (most, why) = if bounds.most > fastest { (fastest, TOO_FAST) } else { (bounds.most, TOO_MANY) };
            if stable < bounds.least {
                (bounds.least, TOO_FEW)
            } else if stable > most {
                (most, why)
            } else {
                (stable, IN_RANGE)
            }
        }
        Some(behavior) if stable > current => {
            let fastest = behavior.scale_up.limit(current, history, now, 1).max(current);
            let (most, why) = if bounds.most > fastest { (fastest, TOO_FAST) } else { (bounds.most, TOO_MANY) };
            if stable > most { (most, why) } else { (stable, IN_RANGE) }
        }
        Some(behavior) if stable < current => {
            let fastest = behavior.scale_down.limit(current, history, now, -1).min(current);
            let (least, why) = if bounds.least < fastest { (fastest, TOO_FAST_DOWN) } else { (bounds.least, TOO_FEW) };
            if stable < least { (least, why) } else { (stable, IN_RANGE) }
        }
        Some(_) => (stable, IN_RANGE),
    };
    Decided { replicas, able, limited: (replicas != stable, reason, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { least: 1, most: 100 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time")
    }
    fn behavior(json: &str) -> Behavior {
        serde_json::from_str(json).expect("a behavior")
    }

    #[test]
    fn without_a_behavior_up_is_fast_and_down_waits() {
        let mut history = History::default();
        history.begin(5, at(0));
        let up = decide(&mut history, None, BOUNDS, 5, 30, at(0));
        assert_eq!((up.replicas, up.limited), (10, (true, TOO_FAST.0, TOO_FAST.1)));
        let most = decide(&mut history, None, Bounds { least: 1, most: 8 }, 5, 30, at(1));
        assert_eq!((most.replicas, most.limited.1), (8, "TooManyReplicas"));
        let down = decide(&mut history, None, BOUNDS, 30, 2, at(100));
        assert_eq!((down.replicas, down.able.0), (30, "ScaleDownStabilized"));
        let later = decide(&mut history, None, BOUNDS, 30, 2, at(302));
        assert_eq!((later.replicas, later.able.0), (2, "ReadyForNewScale"));
        let few = decide(&mut History::default(), None, Bounds { least: 3, most: 5 }, 5, 1, at(0));
        assert_eq!((few.replicas, few.limited), (3, (true, TOO_FEW.0, TOO_FEW.1)));
    }

    #[test]
    fn policies_bound_the_change_in_a_period() {
        let slow = behavior(
            r#"{"scaleUp":{"policies":[{"type":"Pods","value":2,"periodSeconds":60},{"type":"Percent","value":10,"periodSeconds":60}]},
            "scaleDown":{"stabilizationWindowSeconds":0,"selectPolicy":"Min","policies":[{"type":"Pods","value":1,"periodSeconds":60},
            {"type":"Percent","value":50,"periodSeconds":60}]}}"#,
        );
        let mut history = History::default();
        assert_eq!(decide(&mut history, Some(&slow), BOUNDS, 10, 50, at(0)).replicas, 12, "the larger of 2 and 10 %");
        history.scaled(Some(&slow), 10, 12, at(0));
        assert_eq!(decide(&mut history, Some(&slow), BOUNDS, 12, 50, at(30)).replicas, 12, "this minute's share is used up");
        assert_eq!(decide(&mut history, Some(&slow), BOUNDS, 12, 50, at(61)).replicas, 14);
        let down = decide(&mut History::default(), Some(&slow), BOUNDS, 12, 2, at(0));
        assert_eq!((down.replicas, down.limited.1), (11, "ScaleDownLimit"));
        let off = behavior(r#"{"scaleDown":{"stabilizationWindowSeconds":0,"selectPolicy":"Disabled","policies":[]}}"#);
        assert_eq!(decide(&mut History::default(), Some(&off), BOUNDS, 12, 2, at(0)).replicas, 12);
    }

    #[test]
    fn windows_hold_a_count_between_recent_recommendations() {
        let windows = behavior(
            r#"{"scaleUp":{"stabilizationWindowSeconds":120,"policies":[{"type":"Percent","value":900,"periodSeconds":15}]},
            "scaleDown":{"stabilizationWindowSeconds":60,"policies":[{"type":"Percent","value":100,"periodSeconds":15}]}}"#,
        );
        let mut history = History::default();
        history.begin(5, at(0));
        let up = decide(&mut history, Some(&windows), BOUNDS, 5, 9, at(10));
        assert_eq!((up.replicas, up.able.0), (5, "ScaleUpStabilized"));
        assert_eq!(decide(&mut history, Some(&windows), BOUNDS, 5, 9, at(121)).replicas, 9, "the low one is out of the window");
        let down = decide(&mut history, Some(&windows), BOUNDS, 9, 3, at(130));
        assert_eq!((down.replicas, down.able.0), (9, "ScaleDownStabilized"));
        assert_eq!(decide(&mut history, Some(&windows), BOUNDS, 9, 3, at(185)).replicas, 3);
    }
}
