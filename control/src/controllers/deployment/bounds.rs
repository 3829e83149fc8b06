//! How far a rolling update may go above and below the wanted number of pods.

use super::Deployment;
use coracle_apiserver::view::{Text, int_or_percent::IntOrPercent};
use serde::Deserialize;

/// `apps/v1 RollingUpdateDeployment`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate<'a> {
    /// Pods above the wanted number.
    #[serde(borrow)]
    pub max_surge: Option<IntOrPercent<'a>>,
    /// Pods that may be missing.
    pub max_unavailable: Option<IntOrPercent<'a>>,
}

/// Both bounds as numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pods above the wanted number.
    pub surge: i64,
    /// Pods that may be missing.
    pub unavailable: i64,
}

impl Bounds {
    /// Surge rounds up, unavailability down; were both nothing, one pod may be missing, or the update could never move.
    pub fn of(deployment: &Deployment<'_>) -> Self {
        let replicas = deployment.replicas();
        if deployment.spec.strategy.kind == "Recreate" {
            return Self { surge: 0, unavailable: 0 };
        }
        let update = deployment.spec.strategy.rolling_update.as_ref();
        let default = IntOrPercent::Percent(Text::from("25%"));
        let get = |value: Option<&IntOrPercent<'_>>, round_up| value.unwrap_or(&default).of(replicas, round_up).max(0);
        let surge = get(update.and_then(|u| u.max_surge.as_ref()), true);
        let mut unavailable = get(update.and_then(|u| u.max_unavailable.as_ref()), false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { surge, unavailable: unavailable.min(replicas) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_towards_progress() {
        for (replicas, surge, unavailable, expected) in [
            (4, r#""25%""#, r#""25%""#, (1, 1)),
            (3, r#""25%""#, r#""25%""#, (1, 0)),
            (1, r#""25%""#, r#""25%""#, (1, 0)),
            (2, "0", r#""1%""#, (0, 1)),
            (10, "3", "2", (3, 2)),
            (2, "0", "5", (0, 2)),
            (0, r#""25%""#, r#""25%""#, (0, 0)),
        ] {
            let json = format!(
                r#"{{"spec":{{"replicas":{replicas},"strategy":{{"type":"RollingUpdate","rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{unavailable}}}}}}}}}"#
            );
            let deployment: Deployment<'_> = serde_json::from_str(&json).expect("deployment");
            let bounds = Bounds::of(&deployment);
            assert_eq!((bounds.surge, bounds.unavailable), expected, "{json}");
        }
    }
}
