//! Prefers the node with the most left over: the mean of the free shares of CPU and memory.

use super::Attempt;
use crate::scheduler::cluster::{Cluster, Node};

fn of(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    let free = |all: i64, used: i64| if all <= 0 || used > all { 0 } else { (all - used) * 100 / all };
    let cpu = free(node.allocatable.cpu, node.weight.cpu + attempt.weight.cpu);
    let memory = free(node.allocatable.memory, node.weight.memory + attempt.weight.memory);
    (cpu + memory) / 2
}

/// See the module.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    nodes.iter().map(|node| of(attempt, node)).collect()
}
