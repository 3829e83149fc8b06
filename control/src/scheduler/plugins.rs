//! The rules by which a node is found: filters say where a pod can run, scores where it should. One file each, named as in
//! upstream's configuration ([`PLUGINS`]).

pub mod balanced;
pub mod dynamic_resources;
pub mod fit;
pub mod image_locality;
pub mod inter_pod;
pub mod least_allocated;
pub mod node_affinity;
pub mod node_name;
pub mod ports;
pub mod spread;
pub mod taints;
pub mod unschedulable;
pub mod volume_binding;
pub mod volume_limits;
pub mod volume_restrictions;
pub mod volume_zone;

use super::{
    args::Args,
    cluster::{Cluster, Node, Placed, weight},
    devices::Devices,
    pod::{HostPort, Pod},
    resources::Amounts,
    term::Rules,
    volumes::Volumes,
};
use coracle_store::{Key, Meta, Object, Snapshot};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

/// A pod that is to be placed, with what was computed about it once.
#[derive(Clone)]
pub struct Attempt<'p, 'a> {
    /// What the pod's profile tells the plugins.
    pub args: Arc<Args>,
    /// Its key.
    pub key: &'p Key,
    /// The pod.
    pub pod: &'p Pod<'a>,
    /// Its labels as the store keeps them.
    pub meta: &'p Meta,
    /// What it asks for.
    pub requests: Amounts,
    /// The same for scores.
    pub weight: Amounts,
    /// Host ports it takes.
    pub ports: Vec<HostPort>,
    /// The only nodes that its affinity names, if it names any.
    pub named: Option<BTreeSet<Box<str>>>,
    /// Where other pods attract or repel it.
    pub neighbours: inter_pod::Neighbours,
    /// How pods like it are spread.
    pub spread: spread::Spread,
    /// Where its volumes can be.
    pub volumes: Volumes,
    /// Which devices it has or could have.
    pub devices: Devices,
}

impl<'p, 'a> Attempt<'p, 'a> {
    /// Prepares an attempt against the present cluster; claims, volumes and owners are looked up in the snapshot.
    pub fn new(object: &'p Object, pod: &'p Pod<'a>, cluster: &Cluster, snapshot: &Snapshot) -> Self {
        Self::with(object, pod, cluster, snapshot, &Args::standard())
    }

    /// The same for a profile with these arguments.
    pub fn with(object: &'p Object, pod: &'p Pod<'a>, cluster: &Cluster, snapshot: &Snapshot, args: &Arc<Args>) -> Self {
        let requests = pod.requests();
        let (key, meta) = (&object.key, &*object.meta);
        Self {
            key,
            pod,
            meta,
            weight: weight(&requests),
            requests,
            ports: pod.host_ports(),
            named: node_affinity::named(pod),
            neighbours: inter_pod::Neighbours::of(Rules::of(pod, meta), &key.namespace, meta, cluster, &args.inter_pod),
            spread: spread::Spread::of(pod, meta, cluster, snapshot, &args.spread),
            args: args.clone(),
            volumes: Volumes::of(key, pod, cluster, snapshot),
            devices: Devices::of(object, pod, cluster, snapshot),
        }
    }

    /// Supposes that a pod comes to a node (`sign` 1) or goes from it (-1). The node itself is the caller's to change.
    pub fn suppose(&mut self, node: &Node, key: &Key, placed: &Placed, sign: i64, cluster: &Cluster) {
        self.neighbours.suppose((&self.key.namespace, self.meta), node, key, placed, sign, cluster);
        self.spread.suppose(self.pod, node, key, placed, sign);
        self.volumes.suppose(&self.key.namespace, key, placed, sign);
    }
}

/// Kinds of change that may let a pod fit, as bits.
pub mod change {
    /// A node came, changed or went.
    pub const NODE: u8 = 1;
    /// A placed pod went.
    pub const GONE: u8 = 2;
    /// A pod was placed, or a placed one changed.
    pub const PLACED: u8 = 4;
    /// A claim, a volume or a storage class changed.
    pub const VOLUME: u8 = 8;
    /// A claim of devices, a class of them, or what a node has of them changed.
    pub const DEVICE: u8 = 16;
}

/// Why a node is out, in upstream's words, which `kubectl describe` shows.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The reasons.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether it holds whichever pods go from the node.
    pub lasting: bool,
    /// Whether it is the pod's own mistake, which would come out wherever it went.
    pub mistake: bool,
    /// Kinds of [`change`] that may end it.
    pub hears: u8,
}

impl Refusal {
    /// A reason that may end when pods go.
    pub fn push(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.reasons.push(reason.into());
    }

    /// A reason that other pods have no part in.
    pub fn lasting(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.push(reason);
        self.lasting = true;
    }

    /// A mistake of the pod's own: it is to be told, and the pod goes nowhere until it is mended.
    pub fn everywhere(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.lasting(reason);
        self.mistake = true;
    }

    /// Whether the node is not out.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Adds the reasons why the pod cannot run on the node.
pub type Filter = fn(&Attempt<'_, '_>, &Node, &mut Refusal);

/// Scores of these nodes, each 0 to 100.
pub type Score = fn(&Attempt<'_, '_>, &Cluster, &[&Node]) -> Vec<i64>;

/// A rule or a preference, or both.
pub struct Plugin {
    /// Upstream's name of it.
    pub name: &'static str,
    /// The rule.
    pub filter: Option<Filter>,
    /// The preference, and upstream's weight of it.
    pub score: Option<(Score, i64)>,
    /// Kinds of [`change`] after which what it refused may fit.
    pub hears: u8,
}

const fn plugin(name: &'static str, filter: Option<Filter>, score: Option<(Score, i64)>, hears: u8) -> Plugin {
    Plugin { name, filter, score, hears }
}

/// All of them, in upstream's order: the first filter that objects ends it.
pub const PLUGINS: [Plugin; 16] = {
    use change::{DEVICE, GONE, NODE, PLACED, VOLUME};
    [
        plugin("NodeUnschedulable", Some(unschedulable::filter), None, NODE),
        plugin("NodeName", Some(node_name::filter), None, NODE),
        plugin("TaintToleration", Some(taints::filter), Some((taints::score, 3)), NODE),
        plugin("NodeAffinity", Some(node_affinity::filter), Some((node_affinity::score, 2)), NODE),
        plugin("NodePorts", Some(ports::filter), None, NODE | GONE),
        plugin("NodeResourcesFit", Some(fit::filter), Some((least_allocated::score, 1)), NODE | GONE | PLACED),
        plugin("VolumeRestrictions", Some(volume_restrictions::filter), None, NODE | GONE | VOLUME),
        plugin("NodeVolumeLimits", Some(volume_limits::filter), None, NODE | GONE | VOLUME),
        plugin("VolumeBinding", Some(volume_binding::filter), None, NODE | VOLUME),
        plugin("VolumeZone", Some(volume_zone::filter), None, NODE | VOLUME),
        plugin("PodTopologySpread", Some(spread::filter), Some((spread::score, 2)), NODE | GONE | PLACED),
        plugin("InterPodAffinity", Some(inter_pod::filter), Some((inter_pod::score, 2)), NODE | GONE | PLACED),
        plugin("DynamicResources", Some(dynamic_resources::filter), None, NODE | DEVICE),
        plugin("DefaultPreemption", None, None, 0),
        plugin("NodeResourcesBalancedAllocation", None, Some((balanced::score, 1)), 0),
        plugin("ImageLocality", None, Some((image_locality::score, 1)), 0),
    ]
};

/// The best node gets 100, the others in proportion.
fn to_best(mut scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = if most == 0 { 0 } else { *score * 100 / most };
    }
    scores
}

/// The node with the least gets 100.
fn to_least(mut scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = if most == 0 { 100 } else { 100 - *score * 100 / most };
    }
    scores
}

/// From the lowest (0) to the highest (100); scores may be negative.
fn to_span(mut scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    let least = scores.iter().copied().min().unwrap_or(0);
    for score in &mut scores {
        *score = if most == least { 0 } else { (*score - least) * 100 / (most - least) };
    }
    scores
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
