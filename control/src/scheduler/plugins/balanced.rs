//! Prefers the node whose use of CPU and memory becomes more even, so that neither is left over useless.

use super::Attempt;
use crate::scheduler::cluster::{Cluster, Node};

/// 100 less the standard deviation of both shares of use; a resource that the node has none of does not count.
fn evenness(cpu: (i64, i64), memory: (i64, i64)) -> i64 {
    let shares = [cpu, memory].into_iter().filter(|(_, all)| *all > 0).map(|(used, all)| (used as f64 / all as f64).min(1.0));
    match shares.collect::<Vec<_>>()[..] {
        [cpu, memory] => ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64,
        _ => 100,
    }
}

fn of(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    let (asked, used, all) = (&attempt.requests, &node.requested, &node.allocatable);
    let with = evenness((used.cpu + asked.cpu, all.cpu), (used.memory + asked.memory, all.memory));
    let without = evenness((used.cpu, all.cpu), (used.memory, all.memory));
    50 + (50 + with - without) / 2
}

/// A pod that asks for nothing has no part in it.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let asks = attempt.requests.cpu > 0 || attempt.requests.memory > 0;
    nodes.iter().map(|node| if asks { of(attempt, node) } else { 0 }).collect()
}
