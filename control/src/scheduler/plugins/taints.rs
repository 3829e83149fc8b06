//! Taints keep pods away that do not bear them, or are avoided where possible (`PreferNoSchedule`).

use super::{Attempt, Refusal, to_least};
use crate::scheduler::{
    cluster::{Cluster, Node, Taint},
    pod::Pod,
};

/// Whether the pod bears a taint.
fn tolerated(pod: &Pod<'_>, taint: &Taint) -> bool {
    pod.spec.tolerations.iter().any(|t| t.tolerates(&taint.key, &taint.value, &taint.effect))
}

/// Whether a node has no taint that keeps the pod away.
pub fn borne(pod: &Pod<'_>, node: &Node) -> bool {
    node.taints.iter().all(|taint| taint.effect == "PreferNoSchedule" || tolerated(pod, taint))
}

/// One taint is enough to keep a pod away.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if !borne(attempt.pod, node) {
        refusal.lasting("node(s) had untolerated taint(s)");
    }
}

/// Taints that would rather not have the pod; fewer are better.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let avoids = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerated(attempt.pod, taint);
    to_least(nodes.iter().map(|node| node.taints.iter().filter(avoids).count() as i64).collect())
}
