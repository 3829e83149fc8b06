//! A node must have the devices that the pod's claims were given, or enough of those that they ask for.

use super::{Attempt, Refusal};
use crate::scheduler::{cluster::Node, devices::allocate::Failure};

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    match attempt.devices.refuse(node) {
        None => {}
        Some(Failure::Node(why)) => refusal.lasting(why),
        Some(Failure::Claim(why)) => refusal.everywhere(format!("running \"DynamicResources\" filter plugin: {why}")),
    }
}
