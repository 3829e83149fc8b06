//! A node must have what the pod asks for left over, and room for one more pod.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// See the module. What is more than the whole node has no pod's going will give.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    let (wanted, all, used) = (&attempt.requests, &node.allocatable, &node.requested);
    if node.pods.len() as i64 + 1 > node.most_pods {
        refusal.push("Too many pods");
    }
    let mut need = |name: &str, wanted: i64, all: i64, used: i64| {
        if wanted > 0 && wanted > all - used && !attempt.args.fit.ignores(name) {
            refusal.push(format!("Insufficient {name}"));
            refusal.lasting |= wanted > all;
        }
    };
    need("cpu", wanted.cpu, all.cpu, used.cpu);
    need("memory", wanted.memory, all.memory, used.memory);
    need("ephemeral-storage", wanted.storage, all.storage, used.storage);
    for (name, wanted) in &wanted.others {
        let of = |amounts: &std::collections::BTreeMap<Box<str>, i64>| amounts.get(name).copied().unwrap_or(0);
        need(name, *wanted, of(&all.others), of(&used.others));
    }
}
