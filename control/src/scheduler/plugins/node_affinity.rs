//! Labels and names a node must have (`nodeSelector`, required node affinity) or should have (preferred).

use super::{Attempt, Refusal, to_best};
use crate::scheduler::{
    cluster::{Cluster, Node},
    pod::{NodeTerm, Pod},
};
use std::collections::BTreeSet;

/// The nodes that the pod can go to, where every term of its required affinity gives their names (as DaemonSets' pods do).
pub fn named(pod: &Pod<'_>) -> Option<BTreeSet<Box<str>>> {
    let required = pod.spec.affinity.node_affinity.required.as_ref()?;
    let names = |term: &NodeTerm<'_>| {
        let lists = term.match_fields.iter().filter(|field| field.key == "metadata.name" && field.operator == "In");
        let sets = lists.map(|field| field.values.iter().map(|name| Box::from(&**name)).collect::<BTreeSet<Box<str>>>());
        sets.reduce(|all, more| all.intersection(&more).cloned().collect())
    };
    let mut union = BTreeSet::new();
    for term in &required.node_selector_terms {
        union.append(&mut names(term)?);
    }
    Some(union)
}

/// Refuses nodes that selector or required affinity leave out.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if !attempt.args.node_affinity.allows(node) {
        refusal.lasting("node(s) didn't match scheduler-enforced node affinity");
    } else if attempt.named.as_ref().is_some_and(|names| !names.contains(&*node.name)) {
        refusal.lasting("node(s) didn't satisfy plugin(s) [NodeAffinity]");
    } else if !attempt.pod.spec.allows(&node.name, node.meta.labels.as_slice()) {
        refusal.lasting("node(s) didn't match Pod's node affinity/selector");
    }
}

/// Sums the weights of the preferences that the node meets.
pub fn score(attempt: &Attempt<'_, '_>, _: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let preferred = &attempt.pod.spec.affinity.node_affinity.preferred;
    let own =
        |node: &Node| preferred.iter().filter(|term| term.preference.matches(&node.name, node.meta.labels.as_slice())).map(|term| term.weight).sum();
    let of = |node: &&Node| -> i64 {
        let own: i64 = own(node);
        own + attempt.args.node_affinity.prefers(node)
    };
    to_best(nodes.iter().map(of).collect())
}
