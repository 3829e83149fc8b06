//! A volume whose labels name a zone or region is used there only; a node without such labels is everywhere.

use super::{Attempt, Refusal};
use crate::scheduler::cluster::Node;

/// The labels, each with the name it had before.
pub const LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    let zones = &attempt.volumes.zones;
    if zones.is_empty() || !LABELS.iter().any(|(now, before)| node.label(now).or(node.label(before)).is_some()) {
        return;
    }
    let within = |(key, values): &(Box<str>, Vec<Box<str>>)| {
        let now = LABELS.iter().find(|(_, before)| **before == **key).map(|(now, _)| *now);
        let here = node.label(key).or_else(|| node.label(now?));
        here.is_some_and(|here| values.iter().any(|value| **value == *here))
    };
    if !zones.iter().all(within) {
        refusal.lasting("node(s) had no available volume zone");
    }
}
