//! Affinity to pods and away from pods: rules about what else runs in the same place (nodes with one value of a label).
//!
//! The places are counted once per attempt, not once per node; what is supposed of a single pod is added to the counts.

use super::{Attempt, Refusal, to_span};
use crate::scheduler::{
    args::InterPod,
    cluster::{Cluster, Node, Placed},
    term::{Rules, Term},
};
use coracle_store::{Key, Meta};
use std::collections::BTreeMap;

/// How many pods there are in each place, or what they weigh: by topology key and value.
#[derive(Clone, Debug, Default)]
struct Places(BTreeMap<Box<str>, BTreeMap<Box<str>, i64>>);

impl Places {
    fn add(&mut self, node: &Node, key: &str, amount: i64) {
        let Some(value) = node.label(key) else { return };
        if !self.0.contains_key(key) {
            self.0.insert(key.into(), BTreeMap::new());
        }
        let Some(values) = self.0.get_mut(key) else { return };
        match values.get_mut(value) {
            Some(count) => *count += amount,
            None => drop(values.insert(value.into(), amount)),
        }
    }

    fn at(&self, node: &Node, key: &str) -> i64 {
        self.0.get(key).and_then(|values| values.get(node.label(key)?)).copied().unwrap_or(0)
    }

    fn any(&self) -> bool {
        self.0.values().flat_map(BTreeMap::values).any(|count| *count > 0)
    }

    /// All that is said of the node's places.
    fn all_at<'s>(&'s self, node: &'s Node) -> impl Iterator<Item = i64> + 's {
        self.0.iter().filter_map(|(key, values)| values.get(node.label(key)?)).copied()
    }
}

/// What other pods mean for this one.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    rules: Rules,
    /// Where pods are that all attracting rules speak of.
    attracting: Places,
    /// The pod would meet its own attracting rules: the first of a group may go anywhere.
    first: bool,
    /// Where pods are that it must not be near by its own rules.
    repelling: Places,
    /// Where it must not be by the rules of pods that are there.
    repelled: Places,
    /// What preferred rules add or take away: its own, and those of pods that are there.
    preferred: Places,
    args: InterPod,
}

impl Neighbours {
    /// Counts the places for a pod of this namespace with these rules and labels.
    pub fn of(rules: Rules, namespace: &str, meta: &Meta, cluster: &Cluster, args: &InterPod) -> Self {
        let first = rules.attracting.iter().all(|term| term.speaks_of(namespace, meta, &cluster.namespaces));
        let mut neighbours = Self { first, rules, args: args.clone(), ..Self::default() };
        let speaks = !neighbours.rules.is_empty();
        for node in cluster.nodes() {
            for (key, placed) in node.pods.iter().filter(|(_, placed)| speaks || placed.rules.is_some()) {
                neighbours.suppose((namespace, meta), node, key, placed, 1, cluster);
            }
        }
        neighbours
    }

    /// Counts a pod in or out, for a pod of this namespace and labels.
    pub fn suppose(&mut self, (own, meta): (&str, &Meta), node: &Node, key: &Key, placed: &Placed, sign: i64, cluster: &Cluster) {
        let there = |term: &&Term| term.speaks_of(&key.namespace, &placed.meta, &cluster.namespaces);
        let rules = &self.rules;
        if !rules.attracting.is_empty() && rules.attracting.iter().all(|term| there(&term)) {
            rules.attracting.iter().for_each(|term| self.attracting.add(node, &term.topology_key, sign));
        }
        rules.repelling.iter().filter(there).for_each(|term| self.repelling.add(node, &term.topology_key, sign));
        rules.preferred.iter().filter(there).for_each(|term| self.preferred.add(node, &term.topology_key, sign * term.weight));
        let Some(theirs) = &placed.rules else { return };
        let of_this = |term: &&Term| term.speaks_of(own, meta, &cluster.namespaces);
        theirs.repelling.iter().filter(of_this).for_each(|term| self.repelled.add(node, &term.topology_key, sign));
        // A pod that must be near others would have them near.
        let required = self.args.hard_pod_affinity_weight;
        if required > 0 {
            theirs.attracting.iter().filter(of_this).for_each(|term| self.preferred.add(node, &term.topology_key, sign * required));
        }
        theirs.preferred.iter().filter(of_this).for_each(|term| self.preferred.add(node, &term.topology_key, sign * term.weight));
    }
}

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    let Neighbours { rules, attracting, first, repelling, repelled, .. } = &attempt.neighbours;
    let labelled = rules.attracting.iter().all(|term| node.label(&term.topology_key).is_some());
    let near = || rules.attracting.iter().all(|term| attracting.at(node, &term.topology_key) > 0);
    if !labelled || !(near() || *first && !attracting.any()) {
        refusal.lasting("node(s) didn't match pod affinity rules");
    } else if rules.repelling.iter().any(|term| repelling.at(node, &term.topology_key) > 0) {
        refusal.push("node(s) didn't match pod anti-affinity rules");
    } else if repelled.all_at(node).any(|count| count > 0) {
        refusal.push("node(s) didn't satisfy existing pods anti-affinity rules");
    }
}

/// What the preferred rules say of the nodes.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    if attempt.neighbours.args.ignore_preferred_terms_of_existing_pods && attempt.neighbours.rules.preferred.is_empty() {
        return vec![0; nodes.len()];
    }
    to_span(nodes.iter().map(|node| attempt.neighbours.preferred.all_at(node).sum()).collect())
}
