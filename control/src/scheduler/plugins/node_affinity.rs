//! Labels and names a node must have (`nodeSelector`, required node affinity) or should have (preferred).

use super::{Attempt, Reasons};
use crate::{
    controllers::selector::Labelled,
    scheduler::{
        cluster::{Node, carries},
        pod::NodeTerm,
    },
};

fn matches(term: &NodeTerm<'_>, node: &Node) -> bool {
    // A term without requirements matches nothing.
    (!term.match_expressions.is_empty() || !term.match_fields.is_empty())
        && term.match_expressions.iter().all(|r| r.met_by(node.meta.labels.as_slice().label(&r.key)))
        && term.match_fields.iter().all(|r| r.key == "metadata.name" && r.met_by(Some(&node.name)))
}

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let spec = &attempt.pod.spec;
    let selected = carries(&node.meta, &spec.node_selector);
    let required = spec.affinity.node_affinity.required.as_ref();
    let required = required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)));
    if !selected || !required {
        reasons.push("node(s) didn't match Pod's node affinity/selector".into());
    }
}

/// Weights of the preferences that the node meets.
pub fn score(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    attempt.pod.spec.affinity.node_affinity.preferred.iter().filter(|term| matches(&term.preference, node)).map(|term| term.weight).sum()
}
