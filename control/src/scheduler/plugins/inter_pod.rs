//! Affinity to pods and away from pods: rules about what else runs in the same place (nodes with one value of a label).
//!
//! The places are worked out once per attempt, not once per node.

use super::{Attempt, Reasons};
use crate::{
    controllers::{selector::Labelled, view::parse},
    scheduler::{
        cluster::{Cluster, Node},
        pod::{Pod, PodTerm},
    },
};
use coracle_store::{Key, Meta};
use std::collections::{BTreeMap, BTreeSet};

/// A place: a topology key and its value.
type Place = (Box<str>, Box<str>);

/// What other pods mean for this one.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// For each required affinity term: its topology key, the values where it is met, and whether the pod itself would meet it
    /// while no pod anywhere does (the first of a group).
    attracting: Vec<(Box<str>, BTreeSet<Box<str>>, bool)>,
    /// Where the pod must not be by its own rules.
    repelling: BTreeSet<Place>,
    /// Where it must not be by the rules of pods that are there.
    repelled: BTreeSet<Place>,
    /// What preferred rules add or take away.
    preferred: BTreeMap<Place, i64>,
}

fn in_namespace(term: &PodTerm<'_>, own: &str, namespace: &str, cluster: &Cluster) -> bool {
    if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        return *own == *namespace;
    }
    term.namespaces.iter().any(|n| **n == *namespace)
        || term.namespace_selector.as_ref().is_some_and(|selector| {
            selector.is_empty() || cluster.namespaces.get(namespace).is_some_and(|meta| selector.matches(meta.labels.as_slice()))
        })
}

/// Whether a term of a pod of namespace `own` speaks of a pod with these labels.
fn speaks_of(term: &PodTerm<'_>, own: &str, namespace: &str, labels: &Meta, cluster: &Cluster) -> bool {
    term.label_selector.as_ref().is_some_and(|selector| selector.matches(labels.labels.as_slice())) && in_namespace(term, own, namespace, cluster)
}

fn value<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.meta.labels.as_slice().label(key)
}

/// Where pods are that a term speaks of, and how many.
fn places(term: &PodTerm<'_>, own: &str, cluster: &Cluster) -> BTreeMap<Box<str>, i64> {
    let mut found = BTreeMap::new();
    for node in cluster.nodes() {
        let Some(value) = value(node, &term.topology_key) else { continue };
        let count = node.pods.iter().filter(|(key, placed)| speaks_of(term, own, &key.namespace, &placed.meta, cluster)).count() as i64;
        if count > 0 {
            *found.entry(value.into()).or_default() += count;
        }
    }
    found
}

impl Neighbours {
    /// Works out the places for a pod.
    pub fn of(pod: &Pod<'_>, meta: &Meta, cluster: &Cluster) -> Self {
        let own = &*pod.metadata.namespace;
        let affinity = &pod.spec.affinity;
        let mut neighbours = Self::default();
        for term in &affinity.pod_affinity.required {
            let values: BTreeSet<_> = places(term, own, cluster).into_keys().collect();
            let first = values.is_empty() && speaks_of(term, own, own, meta, cluster);
            neighbours.attracting.push(((*term.topology_key).into(), values, first));
        }
        for term in &affinity.pod_anti_affinity.required {
            let values = places(term, own, cluster).into_keys();
            neighbours.repelling.extend(values.map(|value| ((*term.topology_key).into(), value)));
        }
        for (sign, weighted) in
            affinity.pod_affinity.preferred.iter().map(|t| (1, t)).chain(affinity.pod_anti_affinity.preferred.iter().map(|t| (-1, t)))
        {
            let term = &weighted.pod_affinity_term;
            for (value, count) in places(term, own, cluster) {
                *neighbours.preferred.entry(((*term.topology_key).into(), value)).or_default() += sign * weighted.weight * count;
            }
        }
        for node in cluster.nodes() {
            for (Key { namespace, .. }, object) in node.pods.iter().filter_map(|(key, placed)| Some((key, placed.anti_affine.as_ref()?))) {
                let Ok(there) = parse::<Pod<'_>>(object) else { continue };
                for term in &there.spec.affinity.pod_anti_affinity.required {
                    if let Some(value) = value(node, &term.topology_key)
                        && speaks_of(term, namespace, own, meta, cluster)
                    {
                        neighbours.repelled.insert(((*term.topology_key).into(), value.into()));
                    }
                }
            }
        }
        neighbours
    }
}

fn among(places: &BTreeSet<Place>, node: &Node) -> bool {
    places.iter().any(|(key, v)| value(node, key) == Some(&**v))
}

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, reasons: &mut Reasons) {
    let neighbours = &attempt.neighbours;
    let attracted = neighbours.attracting.iter().all(|(key, values, first)| value(node, key).is_some_and(|v| *first || values.contains(v)));
    if !attracted {
        reasons.push("node(s) didn't match pod affinity rules".into());
    } else if among(&neighbours.repelling, node) {
        reasons.push("node(s) didn't match pod anti-affinity rules".into());
    } else if among(&neighbours.repelled, node) {
        reasons.push("node(s) didn't satisfy existing pods anti-affinity rules".into());
    }
}

/// What the preferred rules say of the node.
pub fn score(attempt: &Attempt<'_, '_>, node: &Node) -> i64 {
    attempt.neighbours.preferred.iter().filter(|((key, v), _)| value(node, key) == Some(&**v)).map(|(_, weight)| weight).sum()
}
