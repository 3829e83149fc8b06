//! A node must be where the pod's volumes are, or can come to be.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if let Some(reason) = attempt.volumes.unreachable.get(&node.name) {
        refusal.lasting(*reason);
    }
}
