//! Prefers nodes by how much of what they have is asked for: by default the one with the most left over, as the profile's strategy says otherwise.

use super::Attempt;
use crate::scheduler::cluster::{Cluster, Node};

/// See the module.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let strategy = &attempt.args.fit.scoring_strategy;
    nodes.iter().map(|node| strategy.score(&attempt.weight, &node.weight, &node.allocatable)).collect()
}
