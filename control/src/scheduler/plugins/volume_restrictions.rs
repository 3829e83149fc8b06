//! A claim that only one pod may use (`ReadWriteOncePod`) is not used by a second.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, _: &Node, refusal: &mut Refusal) {
    if attempt.volumes.sole.values().any(|users| *users > 0) {
        refusal.push("node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod");
    }
}
