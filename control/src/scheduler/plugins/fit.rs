//! A node must have what the pod asks for left over, and room for one more pod.

use super::{Attempt, Reasons};
use crate::scheduler::cluster::Node;

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let (wanted, free, used) = (&attempt.requests, &node.allocatable, &node.requested);
    if node.pods.len() as i64 + 1 > node.most_pods {
        reasons.push("Too many pods".into());
    }
    for (name, wanted, left) in [
        ("cpu", wanted.cpu, free.cpu - used.cpu),
        ("memory", wanted.memory, free.memory - used.memory),
        ("ephemeral-storage", wanted.storage, free.storage - used.storage),
    ] {
        if wanted > 0 && wanted > left {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    for (name, wanted) in &wanted.others {
        let left = free.others.get(name).copied().unwrap_or(0) - used.others.get(name).copied().unwrap_or(0);
        if *wanted > 0 && *wanted > left {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
}
