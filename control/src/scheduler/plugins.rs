//! The rules by which a node is found: filters say where a pod can run, scores where it should. One file each.

pub mod balanced;
pub mod fit;
pub mod inter_pod;
pub mod least_allocated;
pub mod node_affinity;
pub mod node_name;
pub mod ports;
pub mod taints;
pub mod unschedulable;

use super::{
    cluster::{Cluster, Node, weight},
    pod::{HostPort, Pod},
    resources::Amounts,
};
use coracle_store::Meta;
use std::borrow::Cow;

/// A pod that is to be placed, with what was computed about it once.
pub struct Attempt<'p, 'a> {
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
    /// Where other pods attract or repel it.
    pub neighbours: inter_pod::Neighbours,
}

impl<'p, 'a> Attempt<'p, 'a> {
    /// Prepares an attempt against the present cluster.
    pub fn new(pod: &'p Pod<'a>, meta: &'p Meta, cluster: &Cluster) -> Self {
        let requests = pod.requests();
        let weight = weight(&requests);
        let ports = pod.host_ports();
        Self { pod, meta, weight, requests, ports, neighbours: inter_pod::Neighbours::of(pod, meta, cluster) }
    }
}

/// Why a node is out, in upstream's words, which `kubectl describe` shows.
pub type Reasons = Vec<Cow<'static, str>>;

/// Adds the reasons why the pod cannot run on the node.
pub type Filter = fn(&Attempt<'_, '_>, &Node, &mut Reasons);

/// In the order they are asked; the first that objects ends it.
pub const FILTERS: [Filter; 7] =
    [unschedulable::filter, node_name::filter, taints::filter, node_affinity::filter, ports::filter, fit::filter, inter_pod::filter];

/// How a raw score becomes 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// It already is.
    Plain,
    /// The best node gets 100, the others in proportion.
    Best,
    /// The node with the least gets 100.
    Least,
    /// From the lowest (0) to the highest (100); scores may be negative.
    Span,
}

/// A score of a node.
pub struct Score {
    /// How much it counts.
    pub weight: i64,
    /// How it is scaled.
    pub scale: Scale,
    /// The raw score.
    pub of: fn(&Attempt<'_, '_>, &Node) -> i64,
}

/// Upstream's weights.
pub const SCORES: [Score; 5] = [
    Score { weight: 3, scale: Scale::Least, of: taints::score },
    Score { weight: 2, scale: Scale::Best, of: node_affinity::score },
    Score { weight: 2, scale: Scale::Span, of: inter_pod::score },
    Score { weight: 1, scale: Scale::Plain, of: least_allocated::score },
    Score { weight: 1, scale: Scale::Plain, of: balanced::score },
];

/// Scales raw scores to 0..=100.
pub fn normalise(scale: Scale, scores: &mut [i64]) {
    let most = scores.iter().copied().max().unwrap_or(0);
    let least = scores.iter().copied().min().unwrap_or(0);
    for score in scores {
        *score = match scale {
            Scale::Plain => *score,
            Scale::Best if most == 0 => 0,
            Scale::Best => *score * 100 / most,
            Scale::Least if most == 0 => 100,
            Scale::Least => 100 - *score * 100 / most,
            Scale::Span if most == least => 0,
            Scale::Span => (*score - least) * 100 / (most - least),
        };
    }
}
