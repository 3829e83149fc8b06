//! Prefers the node on which CPU and memory would be used to a similar share, so that neither is left over useless.

use super::Attempt;
use crate::scheduler::cluster::Node;

/// 100 less the standard deviation of both shares.
pub fn score(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    let share = |all: i64, used: i64| if all <= 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) };
    let cpu = share(node.allocatable.cpu, node.requested.cpu + attempt.requests.cpu);
    let memory = share(node.allocatable.memory, node.requested.memory + attempt.requests.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
}
