//! A pod that names its node goes there or nowhere.

use super::{Attempt, Reasons};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let name = &*attempt.pod.spec.node_name;
    if !name.is_empty() && *name != *node.name {
        reasons.push("node(s) didn't match the requested node name".into());
    }
}
