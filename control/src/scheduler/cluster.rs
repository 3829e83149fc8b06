//! The scheduler's picture of the cluster: nodes and what is placed on them, kept up to date change by change.
//!
//! A pod that was placed but whose binding has not come back yet counts at once (upstream calls that assumed), so the next decision
//! sees it. What is kept of a pod is small: its requests, its host ports, and the labels that it shares with the store.

use super::{
    devices::{self, Programs, model::DeviceId},
    pod::{HostPort, NodeTerm, Pod},
    resources::{Amounts, List, amounts, quantity},
    term::{Namespaces, Rules},
    volumes::limits,
};
use coracle_api::Status;
use coracle_apiserver::view::{Map, Text, parse, selector::Labelled};
use coracle_store::{Key, Meta, Object, Snapshot};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
#[derive(Clone, Debug, Default)]
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
    /// Images it has, by each of their names, and their size in bytes.
    pub images: Arc<HashMap<Box<str>, i64>>,
    /// What its pods ask for.
    pub requested: Amounts,
    /// The same for scores, where a container that asks for nothing counts for a little.
    pub weight: Amounts,
    /// Its pods.
    pub pods: HashMap<Key, Placed>,
    /// Whether the node object exists; pods can name nodes that do not.
    known: bool,
}

impl Node {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.as_slice().label(key)
    }

    /// Whether a node selector (`core/v1 NodeSelector`) selects it.
    pub fn is_selected(&self, selector: &Value) -> bool {
        selector["nodeSelectorTerms"].as_array().into_iter().flatten().any(|term| self.meets(term))
    }

    /// Whether it meets one term of a node selector; one without requirements is met by no node.
    pub fn meets(&self, term: &Value) -> bool {
        NodeTerm::deserialize(term).is_ok_and(|term| term.matches(&self.name, self.meta.labels.as_slice()))
    }

    /// Counts a pod in.
    pub fn add(&mut self, key: Key, placed: Placed) {
        self.requested.add(&placed.requests);
        self.weight.add(&placed.weight);
        self.pods.insert(key, placed);
    }

    /// Counts a pod out.
    pub fn remove(&mut self, key: &Key) -> Option<Placed> {
        let placed = self.pods.remove(key)?;
        self.requested.subtract(&placed.requests);
        self.weight.subtract(&placed.weight);
        Some(placed)
    }
}

/// A pod on a node.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Identity and labels, shared with the store.
    pub meta: Arc<Meta>,
    /// Host ports it takes.
    pub ports: Vec<HostPort>,
    /// What it says about other pods, if anything.
    pub rules: Option<Arc<Rules>>,
    /// Claims that it uses, by name.
    pub claims: Vec<Box<str>>,
    /// Higher is more important.
    pub priority: i64,
    /// RFC 3339, so that texts sort as times do; empty if it did not start.
    pub started: Box<str>,
    /// It is being deleted.
    pub deleting: bool,
    /// It is being deleted to make room.
    pub preempted: bool,
    requests: Amounts,
    weight: Amounts,
}

impl Placed {
    /// What is kept of a pod.
    pub fn of(object: &Object, pod: &Pod<'_>) -> Self {
        let requests = pod.requests();
        let rules = Rules::of(pod, &object.meta);
        Self {
            meta: Arc::clone(&object.meta),
            ports: pod.host_ports(),
            rules: (!rules.is_empty()).then(|| Arc::new(rules)),
            claims: pod.claims().map(|(name, _)| name.into()).collect(),
            priority: pod.spec.priority,
            started: (*pod.status.start_time).into(),
            deleting: pod.metadata.deleting(),
            preempted: pod.preempted(),
            weight: weight(&requests),
            requests,
        }
    }
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
    images: Vec<Image<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Image<'a> {
    #[serde(borrow)]
    names: Vec<Text<'a>>,
    size_bytes: i64,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceView<'a> {
    #[serde(borrow)]
    spec: ServiceSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec<'a> {
    #[serde(borrow)]
    selector: Map<'a>,
}

/// Selectors of the Services of a namespace, by name.
type Services = BTreeMap<Arc<str>, Map<'static>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<Arc<str>, Node>,
    places: HashMap<Key, Arc<str>>,
    /// Pods for which room was made, and on which node.
    nominees: HashMap<Key, (Arc<str>, Placed)>,
    services: HashMap<Arc<str>, Services>,
    /// Labels of namespaces, for affinity to pods of other namespaces.
    pub namespaces: Namespaces,
    /// Devices that claims are being given, until that is written.
    pub promised: BTreeMap<Key, Vec<DeviceId>>,
    /// Selectors of devices.
    pub programs: Programs,
    /// Devices, and who has them.
    pub devices: Arc<devices::known::Known>,
    /// Volumes, and where they are.
    pub volumes: Arc<limits::Known>,
    /// What has to be read again of those two.
    stale: HashSet<Key>,
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
        let images = view.status.images.iter().flat_map(|image| image.names.iter().map(|name| ((**name).into(), image.size_bytes)));
        node.images = Arc::new(images.collect());
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
    pub fn place(&mut self, key: &Key, placed: Placed, node: &str) {
        self.remove_pod(key);
        self.nominees.remove(key);
        let node = self.nodes.entry(node.into()).or_insert_with(|| Node { name: node.into(), ..Node::default() });
        node.add(key.clone(), placed);
        self.places.insert(key.clone(), node.name.clone());
    }

    /// What was placed of this pod.
    pub fn placed_mut(&mut self, key: &Key) -> Option<&mut Placed> {
        self.nodes.get_mut(self.places.get(key)?)?.pods.get_mut(key)
    }

    /// A pod went or ended; true if it was placed, or room was kept for it.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let nominated = self.nominees.remove(key).is_some();
        let Some(name) = self.places.remove(key) else { return nominated };
        if let Some(node) = self.nodes.get_mut(&name) {
            node.remove(key);
            if !node.known && node.pods.is_empty() {
                self.nodes.remove(&name);
            }
        }
        true
    }

    /// Gives the room back that was kept for a pod; true if there was some.
    pub fn give_back(&mut self, key: &Key) -> bool {
        self.nominees.remove(key).is_some()
    }

    /// Keeps room on a node for a pod that waits; an empty name gives it back. True if room came free.
    pub fn nominate(&mut self, key: &Key, node: &str, placed: impl FnOnce() -> Placed) -> bool {
        if self.places.contains_key(key) {
            return false;
        }
        if node.is_empty() {
            return self.give_back(key);
        }
        let old = self.nominees.insert(key.clone(), (node.into(), placed()));
        old.is_some_and(|(before, _)| *before != *node)
    }

    /// Pods for which room is kept on a node.
    pub fn nominees(&self, node: &str) -> impl Iterator<Item = (&Key, &Placed)> {
        self.nominees.iter().filter(move |(_, (name, _))| **name == *node).map(|(key, (_, placed))| (key, placed))
    }

    /// A Service came, changed or went.
    ///
    /// # Errors
    /// When the object is no Service.
    pub fn set_service(&mut self, key: &Key, object: Option<&Object>) -> Result<(), Status> {
        let services = self.services.entry(key.namespace.clone()).or_default();
        services.remove(&key.name);
        if let Some(object) = object {
            let selector = parse::<ServiceView<'_>>(object)?.spec.selector;
            if !selector.is_empty() {
                services.insert(key.name.clone(), selector.iter().map(|(key, value)| (key.detached(), value.detached())).collect());
            }
        }
        if services.is_empty() {
            self.services.remove(&key.namespace);
        }
        Ok(())
    }

    /// What the scheduler keeps of this object is to be read again.
    pub fn changed(&mut self, key: Key) {
        self.stale.insert(key);
    }

    /// The same for what the volumes of claims depend on.
    pub fn volume_changed(&mut self, prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        self.stale.extend([prev, new].into_iter().flatten().flat_map(|object| self.volumes.concerns(object)));
    }

    /// Reads what changed.
    pub fn read(&mut self, snapshot: &Snapshot) {
        if self.stale.is_empty() {
            return;
        }
        let (devices, volumes) = (Arc::make_mut(&mut self.devices), Arc::make_mut(&mut self.volumes));
        let mut slices = false;
        for key in self.stale.drain() {
            let object = snapshot.get(&key);
            match &*key.resource {
                devices::CLAIMS | devices::SLICES => {
                    slices |= &*key.resource == devices::SLICES;
                    devices.read(&key, object.as_deref());
                }
                _ => volumes.read(&key, object.as_deref(), snapshot),
            }
        }
        if slices {
            devices.gather();
        }
    }

    /// The labels that Services of the namespace select a pod with these labels by, all together.
    pub fn selected_by(&self, namespace: &str, labels: &Meta) -> Map<'static> {
        let all = self.services.get(namespace).into_iter().flat_map(BTreeMap::values);
        let selecting = all.filter(|selector| selector.iter().all(|(key, value)| labels.labels.as_slice().label(key) == Some(&**value)));
        selecting.flat_map(|selector| selector.iter().map(|(key, value)| (key.clone(), value.clone()))).collect()
    }
}
