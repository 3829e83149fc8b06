//! A cordoned node takes only pods that bear being there.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    let bears = || attempt.pod.spec.tolerations.iter().any(|t| t.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule"));
    if node.unschedulable && !bears() {
        refusal.lasting("node(s) were unschedulable");
    }
}
