//! Taints keep pods away that do not bear them, or are avoided where possible (`PreferNoSchedule`).

use super::{Attempt, Reasons};
use crate::scheduler::cluster::{Node, Taint};

fn tolerated(attempt: &Attempt<'_, '_>, taint: &Taint) -> bool {
    attempt.pod.spec.tolerations.iter().any(|t| t.tolerates(&taint.key, &taint.value, &taint.effect))
}

/// One taint is enough to keep a pod away.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let keeps_away = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(attempt, taint);
    if node.taints.iter().find(keeps_away).is_some() {
        reasons.push("node(s) had untolerated taint(s)".into());
    }
}

/// Taints that would rather not have the pod; fewer are better.
pub fn score(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(attempt, taint)).count() as i64
}
