//! A pod that names its node goes there or nowhere.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    let name = &*attempt.pod.spec.node_name;
    if !name.is_empty() && *name != *node.name {
        refusal.lasting("node(s) didn't match the requested node name");
    }
}
