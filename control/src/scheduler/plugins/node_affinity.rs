//! Labels and names a node must have (`nodeSelector`, required node affinity) or should have (preferred).

use super::{Attempt, Reasons};
use crate::scheduler::cluster::Node;

/// Refuses nodes that selector or required affinity leave out.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    if !attempt.pod.spec.allows(&node.name, node.meta.labels.as_slice()) {
        reasons.push("node(s) didn't match Pod's node affinity/selector".into());
    }
}

/// Sums the weights of the preferences that the node meets.
pub fn score(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    let preferred = &attempt.pod.spec.affinity.node_affinity.preferred;
    preferred.iter().filter(|term| term.preference.matches(&node.name, node.meta.labels.as_slice())).map(|term| term.weight).sum()
}
