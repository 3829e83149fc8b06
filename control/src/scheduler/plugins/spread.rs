//! Spreads pods over places (`topologySpreadConstraints`): in no place may there be many more than where there are the fewest.
//!
//! A pod without constraints has upstream's own, as preferences: over nodes and over zones, among the pods of its Services and its owner.

use super::{Attempt, Refusal, taints};
use crate::scheduler::{
    args,
    cluster::{Cluster, Node, Placed},
    pod::{Pod, SpreadConstraint},
    term::like,
};
use coracle_apiserver::view::{Map, parse, selector::LabelSelector};
use coracle_store::{Key, Meta, Snapshot};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Upstream's constraints of pods without any: topology key and skew.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

#[derive(Clone, Debug)]
struct Constraint {
    key: Box<str>,
    skew: i64,
    /// None selects nothing.
    selector: Option<LabelSelector<'static>>,
    least_places: i64,
    /// Nodes that the pod's node affinity leaves out are not counted.
    by_affinity: bool,
    /// Nodes with taints that the pod does not bear are not counted.
    by_taints: bool,
}

impl Constraint {
    fn of(constraint: &SpreadConstraint<'_>, meta: &Meta) -> Self {
        let selector = constraint.label_selector.as_ref().map(|selector| {
            let mut selector = selector.detached();
            selector.match_expressions.extend(constraint.match_label_keys.iter().filter_map(|key| like(meta, key, "In")));
            selector
        });
        Self {
            key: (*constraint.topology_key).into(),
            skew: constraint.max_skew,
            selector,
            least_places: constraint.min_domains.unwrap_or(1),
            by_affinity: constraint.node_affinity_policy != "Ignore",
            by_taints: constraint.node_taints_policy == "Honor",
        }
    }

    fn selects(&self, labels: &Meta) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels.labels.as_slice()))
    }

    /// Whether a node is looked at.
    fn includes(&self, pod: &Pod<'_>, node: &Node) -> bool {
        (!self.by_affinity || pod.spec.allows(&node.name, node.meta.labels.as_slice())) && (!self.by_taints || taints::borne(pod, node))
    }

    /// Whether a pod that runs counts: those that go do not, nor does any where the selector is empty.
    fn counts(&self, namespace: &str, key: &Key, placed: &Placed) -> bool {
        !placed.deleting
            && *key.namespace == *namespace
            && self.selector.as_ref().is_some_and(|selector| !selector.is_empty() && selector.matches(placed.meta.labels.as_slice()))
    }

    fn count(&self, namespace: &str, node: &Node) -> i64 {
        node.pods.iter().filter(|(key, placed)| self.counts(namespace, key, placed)).count() as i64
    }
}

/// How pods like one are spread.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// What must hold, and the pods of each place.
    hard: Vec<(Constraint, BTreeMap<Box<str>, i64>)>,
    /// What should hold.
    soft: Vec<Constraint>,
    /// The preferences are upstream's own: nodes without a zone are scored too.
    default: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Owner<'a> {
    #[serde(borrow)]
    spec: OwnerSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnerSpec<'a> {
    #[serde(borrow)]
    selector: LabelSelector<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct PlainOwner<'a> {
    #[serde(borrow)]
    spec: PlainOwnerSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct PlainOwnerSpec<'a> {
    #[serde(borrow)]
    selector: Map<'a>,
}

/// The pods that belong together with this one: of its Services and its owner.
fn companions(pod: &Pod<'_>, meta: &Meta, cluster: &Cluster, snapshot: &Snapshot) -> LabelSelector<'static> {
    let namespace = &*pod.metadata.namespace;
    let mut selector = LabelSelector { match_labels: cluster.selected_by(namespace, meta), ..LabelSelector::default() };
    let Some(owner) = pod.metadata.controller() else { return selector };
    let found = |resource: &str| snapshot.get(&Key::new(resource, namespace, &*owner.name));
    let resource = match (&*owner.api_version, &*owner.kind) {
        ("apps/v1", "ReplicaSet") => "replicasets.apps",
        ("apps/v1", "StatefulSet") => "statefulsets.apps",
        ("v1", "ReplicationController") => {
            if let Some(object) = found("replicationcontrollers")
                && let Ok(owner) = parse::<PlainOwner<'_>>(&object)
            {
                selector.match_labels.extend(owner.spec.selector.iter().map(|(key, value)| (key.detached(), value.detached())));
            }
            return selector;
        }
        _ => return selector,
    };
    if let Some(object) = found(resource)
        && let Ok(owner) = parse::<Owner<'_>>(&object)
    {
        let theirs = owner.spec.selector.detached();
        selector.match_labels.extend(theirs.match_labels);
        selector.match_expressions.extend(theirs.match_expressions);
    }
    selector
}

impl Spread {
    /// Counts the places for a pod.
    pub fn of(pod: &Pod<'_>, meta: &Meta, cluster: &Cluster, snapshot: &Snapshot, args: &args::Spread) -> Self {
        let constraints = &pod.spec.topology_spread_constraints;
        if constraints.is_empty() {
            let selector = companions(pod, meta, cluster, snapshot);
            let default = |(key, skew): (&str, i64)| Constraint {
                key: key.into(),
                skew,
                selector: Some(selector.clone()),
                least_places: 1,
                by_affinity: true,
                by_taints: false,
            };
            let Some(listed) = args.listed() else {
                let soft = if selector.is_empty() { Vec::new() } else { DEFAULTS.map(default).into() };
                return Self { soft, default: true, ..Self::default() };
            };
            let of = |kind: &'static str| listed.iter().filter(move |c| c.when_unsatisfiable == kind).map(|c| default((&c.topology_key, c.max_skew)));
            let mut spread = Self::default();
            if !selector.is_empty() {
                spread.hard = of("DoNotSchedule").map(|constraint| (constraint, BTreeMap::new())).collect();
                spread.soft = of("ScheduleAnyway").collect();
            }
            return spread.counted(pod, cluster);
        }
        let of = |kind: &'static str| constraints.iter().filter(move |c| *c.when_unsatisfiable == *kind).map(|c| Constraint::of(c, meta));
        let spread = Self {
            hard: of("DoNotSchedule").map(|constraint| (constraint, BTreeMap::new())).collect(),
            soft: of("ScheduleAnyway").collect(),
            default: false,
        };
        spread.counted(pod, cluster)
    }

    /// With the pods of each place of what must hold.
    fn counted(mut self, pod: &Pod<'_>, cluster: &Cluster) -> Self {
        for node in cluster.nodes() {
            let keys: Vec<Box<str>> = self.hard.iter().map(|(constraint, _)| constraint.key.clone()).collect();
            if !keys.iter().all(|key| node.label(key).is_some()) {
                continue;
            }
            for (constraint, places) in &mut self.hard {
                if let Some(value) = node.label(&constraint.key).filter(|_| constraint.includes(pod, node)) {
                    *places.entry(value.into()).or_default() += constraint.count(&pod.metadata.namespace, node);
                }
            }
        }
        self
    }

    /// Counts a pod in or out.
    pub fn suppose(&mut self, pod: &Pod<'_>, node: &Node, key: &Key, placed: &Placed, sign: i64) {
        if *key.namespace != *pod.metadata.namespace || !self.hard.iter().all(|(constraint, _)| node.label(&constraint.key).is_some()) {
            return;
        }
        for (constraint, places) in &mut self.hard {
            if constraint.counts(&pod.metadata.namespace, key, placed)
                && constraint.includes(pod, node)
                && let Some(value) = node.label(&constraint.key)
            {
                *places.entry(value.into()).or_default() += sign;
            }
        }
    }
}

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    for (constraint, places) in &attempt.spread.hard {
        let Some(value) = node.label(&constraint.key) else {
            refusal.lasting("node(s) didn't match pod topology spread constraints (missing required label)");
            return;
        };
        let few = (places.len() as i64) < constraint.least_places;
        let least = if few { 0 } else { places.values().copied().min().unwrap_or(i64::from(i32::MAX)) };
        let own = i64::from(constraint.selects(attempt.meta));
        if places.get(value).copied().unwrap_or(0) + own - least > constraint.skew {
            refusal.push("node(s) didn't match pod topology spread constraints");
            return;
        }
    }
}

/// Fewer pods of the kind in the node's places are better. A constraint weighs more the more places it has.
pub fn score(attempt: &Attempt<'_, '_>, cluster: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let Spread { soft, default, .. } = &attempt.spread;
    let (pod, namespace) = (attempt.pod, &*attempt.pod.metadata.namespace);
    if soft.is_empty() {
        return vec![0; nodes.len()];
    }
    let labelled = |node: &Node| *default || soft.iter().all(|constraint| node.label(&constraint.key).is_some());
    let scored: Vec<&&Node> = nodes.iter().filter(|node| labelled(node)).collect();
    let mut sums = vec![0f64; scored.len()];
    for constraint in soft {
        let on_nodes = *constraint.key == *HOSTNAME;
        let mut places: BTreeMap<&str, i64> = BTreeMap::new();
        if !on_nodes {
            let known: BTreeSet<&str> = scored.iter().map(|node| node.label(&constraint.key).unwrap_or_default()).collect();
            places = known.into_iter().map(|value| (value, 0)).collect();
            for node in cluster.nodes().filter(|node| labelled(node) && constraint.includes(pod, node)) {
                if let Some(count) = places.get_mut(node.label(&constraint.key).unwrap_or_default()) {
                    *count += constraint.count(namespace, node);
                }
            }
        }
        let size = if on_nodes { scored.len() } else { places.len() };
        let weight = ((size + 2) as f64).ln();
        for (sum, node) in sums.iter_mut().zip(&scored) {
            let Some(value) = node.label(&constraint.key) else { continue };
            let count = if on_nodes { constraint.count(namespace, node) } else { places.get(value).copied().unwrap_or(0) };
            *sum += count as f64 * weight + (constraint.skew - 1) as f64;
        }
    }
    let sums: Vec<i64> = sums.into_iter().map(|sum| sum.round() as i64).collect();
    let (most, least) = (sums.iter().copied().max().unwrap_or(0), sums.iter().copied().min().unwrap_or(0));
    let mut sums = sums.into_iter();
    let mut of = |node: &&Node| match labelled(node).then(|| sums.next()).flatten() {
        None => 0,
        Some(_) if most == 0 => 100,
        Some(sum) => 100 * (most + least - sum) / most,
    };
    nodes.iter().map(&mut of).collect()
}
