//! Finds the node for one pod: filters, then scores.

use super::{
    cluster::{Cluster, Node},
    plugins::{Attempt, FILTERS, Reasons, SCORES, normalise},
};
use std::{collections::BTreeMap, sync::Arc};

/// Why no node was found, as the message of the condition and the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoFit(pub String);

/// The best node. Among equals `turn` chooses, so that a series of like pods spreads.
///
/// # Errors
/// When no node passes all filters, with the reasons counted as upstream prints them.
pub fn select(attempt: &Attempt<'_, '_>, cluster: &Cluster, turn: usize) -> Result<Arc<str>, NoFit> {
    let mut fitting: Vec<&Node> = Vec::new();
    let mut histogram: BTreeMap<String, usize> = BTreeMap::new();
    let mut total = 0;
    let mut reasons = Reasons::new();
    for node in cluster.nodes() {
        total += 1;
        for filter in FILTERS {
            filter(attempt, node, &mut reasons);
            if !reasons.is_empty() {
                break;
            }
        }
        if reasons.is_empty() {
            fitting.push(node);
        }
        for reason in reasons.drain(..) {
            *histogram.entry(reason.into_owned()).or_default() += 1;
        }
    }
    match fitting.as_slice() {
        [] => Err(NoFit(explain(total, &histogram))),
        [only] => Ok(only.name.clone()),
        _ => Ok(best(attempt, &fitting, turn)),
    }
}

fn explain(total: usize, histogram: &BTreeMap<String, usize>) -> String {
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut lines: Vec<String> = histogram.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    format!("0/{total} nodes are available: {}.", lines.join(", "))
}

fn best(attempt: &Attempt<'_, '_>, nodes: &[&Node], turn: usize) -> Arc<str> {
    let mut totals = vec![0i64; nodes.len()];
    for score in &SCORES {
        let mut scores: Vec<i64> = nodes.iter().map(|node| (score.of)(attempt, node)).collect();
        normalise(score.scale, &mut scores);
        for (total, score_of_node) in totals.iter_mut().zip(scores) {
            *total += score.weight * score_of_node;
        }
    }
    let most = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<&&Node> = nodes.iter().zip(&totals).filter(|(_, total)| **total == most).map(|(node, _)| node).collect();
    equals.get(turn % equals.len().max(1)).map_or_else(|| "".into(), |node| node.name.clone())
}
