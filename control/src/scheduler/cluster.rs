//! The scheduler's picture of the cluster: nodes and what is placed on them, kept up to date change by change.
//!
//! A pod that was placed but whose binding has not come back yet counts at once (upstream calls that assumed), so the next decision
//! sees it. What is kept of a pod is small: its requests, its host ports, and the labels that it shares with the store.

use super::{
    pod::{HostPort, Pod},
    resources::{Amounts, List, amounts, quantity},
};
use crate::controllers::view::{Text, parse};
use coracle_api::Status;
use coracle_store::{Key, Meta, Object};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// `core/v1 Taint`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: String,
}

/// A node and what is placed on it.
#[derive(Debug, Default)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Labels, shared with the store.
    pub meta: Arc<Meta>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Taints.
    pub taints: Vec<Taint>,
    /// What pods may use.
    pub allocatable: Amounts,
    /// How many pods it takes.
    pub most_pods: i64,
    /// What its pods ask for.
    pub requested: Amounts,
    /// The same for scores, where a container that asks for nothing counts for a little.
    pub weight: Amounts,
    /// Its pods.
    pub pods: HashMap<Key, Placed>,
    /// Whether the node object exists; pods can name nodes that do not.
    known: bool,
}

/// A pod on a node.
#[derive(Debug)]
pub struct Placed {
    /// Labels, shared with the store.
    pub meta: Arc<Meta>,
    /// Host ports it takes.
    pub ports: Vec<HostPort>,
    /// Kept only if it keeps other pods away from itself.
    pub anti_affine: Option<Arc<Object>>,
    requests: Amounts,
    weight: Amounts,
}

/// What a container that asks for nothing weighs in scores.
const LITTLE: (i64, i64) = (100, 200 * 1024 * 1024);

/// Requests with a little where nothing is asked for.
pub fn weight(requests: &Amounts) -> Amounts {
    let or = |value: i64, little: i64| if value == 0 { little } else { value };
    Amounts { cpu: or(requests.cpu, LITTLE.0), memory: or(requests.memory, LITTLE.1), ..Amounts::default() }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeView<'a> {
    #[serde(borrow)]
    spec: NodeSpec<'a>,
    status: NodeStatus<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec<'a> {
    unschedulable: bool,
    #[serde(borrow)]
    taints: Vec<TaintView<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct TaintView<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    value: Text<'a>,
    effect: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus<'a> {
    #[serde(borrow)]
    allocatable: List<'a>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<Arc<str>, Node>,
    places: HashMap<Key, Arc<str>>,
    /// Labels of namespaces, for affinity to pods of other namespaces.
    pub namespaces: HashMap<Arc<str>, Arc<Meta>>,
}

impl Cluster {
    /// The nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.known)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).filter(|node| node.known)
    }

    /// Whether a pod is placed (or assumed to be).
    pub fn places(&self, pod: &Key) -> bool {
        self.places.contains_key(pod)
    }

    /// A node came or changed; true if a pod that did not fit before may fit now.
    ///
    /// # Errors
    /// When the object is no node.
    pub fn set_node(&mut self, object: &Object) -> Result<bool, Status> {
        let view: NodeView<'_> = parse(object)?;
        let taints = view.spec.taints.iter();
        let taints: Vec<Taint> = taints.map(|t| Taint { key: t.key.to_string(), value: t.value.to_string(), effect: t.effect.to_string() }).collect();
        let allocatable = amounts(&view.status.allocatable);
        // A node that has not said what it has takes nothing yet.
        let unsaid = if view.status.allocatable.is_empty() { 0 } else { 110 };
        let most_pods = view.status.allocatable.get("pods").map_or(unsaid, |value| quantity(value).units());
        let name = &object.key.name;
        let node = self.nodes.entry(name.clone()).or_insert_with(|| Node { name: name.clone(), ..Node::default() });
        let changed = !node.known
            || node.taints != taints
            || node.unschedulable != view.spec.unschedulable
            || node.allocatable != allocatable
            || node.most_pods != most_pods
            || node.meta.labels != object.meta.labels;
        node.known = true;
        node.meta = Arc::clone(&object.meta);
        node.taints = taints;
        node.unschedulable = view.spec.unschedulable;
        node.allocatable = allocatable;
        node.most_pods = most_pods;
        Ok(changed)
    }

    /// A node went. Its pods are still counted should it come back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.known = false;
            if node.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Places a pod on a node, moving it if it was counted elsewhere.
    pub fn place(&mut self, object: &Arc<Object>, pod: &Pod<'_>, node: &str) {
        let key = &object.key;
        self.remove_pod(key);
        let requests = pod.requests();
        let weight = weight(&requests);
        let anti_affine = (!pod.spec.affinity.pod_anti_affinity.required.is_empty()).then(|| Arc::clone(object));
        let node = self.nodes.entry(node.into()).or_insert_with(|| Node { name: node.into(), ..Node::default() });
        node.requested.add(&requests);
        node.weight.add(&weight);
        let placed = Placed { meta: Arc::clone(&object.meta), ports: pod.host_ports(), anti_affine, requests, weight };
        node.pods.insert(key.clone(), placed);
        self.places.insert(key.clone(), node.name.clone());
    }

    /// A pod went or ended; true if it was placed.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(name) = self.places.remove(key) else { return false };
        if let Some(node) = self.nodes.get_mut(&name) {
            if let Some(placed) = node.pods.remove(key) {
                node.requested.subtract(&placed.requests);
                node.weight.subtract(&placed.weight);
            }
            if !node.known && node.pods.is_empty() {
                self.nodes.remove(&name);
            }
        }
        true
    }
}
