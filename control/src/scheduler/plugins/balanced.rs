//! Prefers the node whose use of resources (CPU and memory, or as the profile says) becomes more even, so that none is left over useless.

use super::Attempt;
use crate::scheduler::{
    args::amount,
    cluster::{Cluster, Node},
};
use coracle_api::amounts::Amounts;

/// 100 less the standard deviation of the shares of use; a resource that the node has none of does not count.
fn evenness(attempt: &Attempt<'_, '_>, node: &Node, asked: Option<&Amounts>) -> i64 {
    let used = |name: &str| amount(&node.requested, name) + asked.map_or(0, |asked| amount(asked, name));
    let names = attempt.args.balanced.resources.iter().map(|resource| resource.name.as_str());
    let shares = names.filter_map(|name| {
        let all = amount(&node.allocatable, name);
        // Extended resources count for pods that ask for them.
        let counts = all > 0 && (!name.contains('/') || amount(&attempt.requests, name) > 0);
        counts.then(|| (used(name) as f64 / all as f64).min(1.0))
    });
    let deviation = match shares.collect::<Vec<_>>()[..] {
        [] | [_] => 0.0,
        [one, other] => (one - other).abs() / 2.0,
        ref more => {
            let mean = more.iter().sum::<f64>() / more.len() as f64;
            (more.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / more.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * 100.0) as i64
}

fn of(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    let (with, without) = (evenness(attempt, node, Some(&attempt.requests)), evenness(attempt, node, None));
    50 + (50 + with - without) / 2
}

/// A pod that asks for nothing has no part in it.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let asks = attempt.args.balanced.resources.iter().any(|resource| amount(&attempt.requests, &resource.name) > 0);
    nodes.iter().map(|node| if asks { of(attempt, node) } else { 0 }).collect()
}
