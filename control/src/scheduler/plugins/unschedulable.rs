//! A cordoned node takes only pods that bear being there.

use super::{Attempt, Reasons};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let bears = || attempt.pod.spec.tolerations.iter().any(|t| t.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule"));
    if node.unschedulable && !bears() {
        reasons.push("node(s) were unschedulable".into());
    }
}
