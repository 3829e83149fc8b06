//! A node takes so many volumes of a CSI driver and no more.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if attempt.volumes.limits.exceeded(node) {
        refusal.push("node(s) exceed max volume count");
    }
}
