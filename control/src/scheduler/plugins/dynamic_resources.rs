//! A node must have the devices that the pod's claims were given, or enough of those that they ask for.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if let Some(why) = attempt.devices.refuse(node) {
        refusal.lasting(why);
    }
}
