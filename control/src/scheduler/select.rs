//! Finds the node for one pod: filters, then scores.

use super::{
    cluster::{Cluster, Node},
    plugins::{Attempt, Refusal, change},
    profile::Profile,
};
use std::{collections::BTreeMap, sync::Arc};

/// Why no node was found.
#[derive(Clone, Debug, Default)]
pub struct NoFit {
    total: usize,
    whole: Option<String>,
    /// What is wrong with the pod itself, if that came out.
    pub mistake: Option<String>,
    reasons: Reasons,
    /// Nodes on which it may fit if pods go from them.
    pub curable: Vec<Arc<str>>,
    /// Kinds of [`change`] after which it may fit.
    pub hears: u8,
}

/// Reasons, and how many nodes each keeps out.
#[derive(Clone, Debug, Default)]
pub struct Reasons(BTreeMap<String, usize>);

impl Reasons {
    /// Counts a reason for so many nodes.
    pub fn add(&mut self, reason: &str, nodes: usize) {
        if nodes > 0 {
            *self.0.entry(reason.to_owned()).or_default() += nodes;
        }
    }

    /// As upstream prints it: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
    pub fn message(&self, total: usize) -> String {
        let mut lines: Vec<String> = self.0.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort();
        format!("0/{total} nodes are available: {}.", lines.join(", "))
    }
}

impl NoFit {
    /// As condition and event say it.
    pub fn message(&self) -> String {
        if let Some(mistake) = &self.mistake {
            return mistake.clone();
        }
        match &self.whole {
            _ if self.total == 0 => "no nodes available to schedule pods".to_owned(),
            Some(why) => format!("0/{} nodes are available: {why}.", self.total),
            None => self.reasons.message(self.total),
        }
    }

    /// Whether a reason keeps it from some node.
    pub fn has(&self, reason: &str) -> bool {
        self.reasons.0.contains_key(reason)
    }

    /// How many nodes there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

fn filter(attempt: &Attempt<'_, '_>, node: &Node, profile: &Profile) -> Refusal {
    let mut refusal = Refusal::default();
    for (filter, hears) in &profile.filters {
        filter(attempt, node, &mut refusal);
        if !refusal.is_empty() {
            refusal.hears = *hears;
            break;
        }
    }
    refusal
}

/// Whether the pod fits on the node: both beside the pods of no less priority for which room is kept there, and without them.
pub fn check(attempt: &Attempt<'_, '_>, node: &Node, cluster: &Cluster, profile: &Profile) -> Refusal {
    let priority = attempt.pod.spec.priority;
    let mut nominees = cluster.nominees(&node.name).filter(|(key, placed)| placed.priority >= priority && *key != attempt.key).peekable();
    if nominees.peek().is_some() {
        let (mut fuller, mut supposed) = (node.clone(), attempt.clone());
        for (key, placed) in nominees {
            fuller.add(key.clone(), placed.clone());
            supposed.suppose(&fuller, key, placed, 1, cluster);
        }
        let refusal = filter(&supposed, &fuller, profile);
        if !refusal.is_empty() {
            // The room is given back when such a pod goes, or goes elsewhere.
            return Refusal { hears: refusal.hears | change::GONE | change::PLACED, ..refusal };
        }
    }
    filter(attempt, node, profile)
}

/// The best node. Among equals `turn` chooses, so that a series of like pods spreads.
///
/// # Errors
/// When no node passes all filters.
pub fn select(attempt: &Attempt<'_, '_>, cluster: &Cluster, profile: &Profile, turn: usize) -> Result<Arc<str>, NoFit> {
    let mut no = NoFit { total: cluster.nodes().count(), hears: change::NODE, ..NoFit::default() };
    if no.total == 0 {
        return Err(no);
    }
    if let Some(why) = &attempt.volumes.impossible {
        no.whole = Some(why.clone());
        no.hears |= change::VOLUME;
        return Err(no);
    }
    if let Some(why) = &attempt.devices.impossible {
        no.whole = Some(why.clone());
        no.hears |= change::DEVICE;
        return Err(no);
    }
    // Where room was made for it, it goes.
    if let Some(node) = cluster.node(&attempt.pod.status.nominated_node_name)
        && check(attempt, node, cluster, profile).is_empty()
    {
        return Ok(node.name.clone());
    }
    let mut fitting: Vec<&Node> = Vec::new();
    for node in cluster.nodes() {
        let refusal = check(attempt, node, cluster, profile);
        if refusal.is_empty() {
            fitting.push(node);
            continue;
        }
        no.hears |= refusal.hears;
        if refusal.mistake {
            no.mistake = Some(refusal.reasons.join(", "));
            return Err(no);
        }
        refusal.reasons.iter().for_each(|reason| no.reasons.add(reason, 1));
        if !refusal.lasting {
            no.curable.push(node.name.clone());
        }
    }
    match fitting.as_slice() {
        [] => Err(no),
        [only] => Ok(only.name.clone()),
        _ => Ok(best(attempt, cluster, profile, &fitting, turn)),
    }
}

fn best(attempt: &Attempt<'_, '_>, cluster: &Cluster, profile: &Profile, nodes: &[&Node], turn: usize) -> Arc<str> {
    let mut totals = vec![0i64; nodes.len()];
    for (score, weight) in &profile.scores {
        for (total, of_node) in totals.iter_mut().zip(score(attempt, cluster, nodes)) {
            *total += weight * of_node;
        }
    }
    let most = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<&&Node> = nodes.iter().zip(&totals).filter(|(_, total)| **total == most).map(|(node, _)| node).collect();
    equals.get(turn % equals.len().max(1)).map_or_else(|| "".into(), |node| node.name.clone())
}
