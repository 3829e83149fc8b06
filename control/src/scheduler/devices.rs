//! The device claims of a pod that is to be placed (dynamic resource allocation, KEP-4381): which of them have devices, where those can be used, and which devices the others
//! could have on a node.
//!
//! As with volumes, a claim is given its devices first ([`Devices::steps`]), and the pod is looked at again: what was given says on which nodes it can be used. Until
//! that is written the engine remembers which devices are spoken for. Devices that are shared, that are made of counters, or that are made ready while a pod waits, are left alone.

pub mod allocate;
mod budget;
pub mod known;
pub mod model;
pub mod pools;

use super::{
    cluster::{Cluster, Node},
    pod::Pod,
};
use crate::controllers::action::Action;
use allocate::{Candidate, Failure, Source, allocate};
use budget::{BYTE, Budget, LOOK, Share};
use coracle_apiserver::{resources::selector, view::parse};
use coracle_store::{Key, Object, Snapshot};
use known::{Known, ids};
use model::{Claim, Class, DeviceId};
use parking_lot::Mutex;
use pools::Gathered;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

/// Resource id of claims.
pub const CLAIMS: &str = "resourceclaims.resource.k8s.io";
/// Resource id of slices.
pub const SLICES: &str = "resourceslices.resource.k8s.io";
/// Resource id of classes.
pub const CLASSES: &str = "deviceclasses.resource.k8s.io";
/// Keeps a claim for as long as it has devices.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Most consumers of one claim.
pub const MOST_CONSUMERS: usize = 256;
/// Compiled selectors that are kept.
const MOST_PROGRAMS: usize = 128;

/// Why a node cannot be used, in upstream's words.
const NOT_HERE: &str = "resourceclaim not available on the node";
const NOT_ENOUGH: &str = "cannot allocate all claims";

/// Selectors that were compiled.
#[derive(Clone, Debug, Default)]
pub struct Programs(Arc<Mutex<BTreeMap<String, Arc<selector::Compiled>>>>);

impl Programs {
    fn get(&self, expression: &str) -> Arc<selector::Compiled> {
        if let Some(known) = self.0.lock().get(expression) {
            return known.clone();
        }
        let compiled = Arc::new(selector::Compiled::of(expression));
        let mut all = self.0.lock();
        if all.len() >= MOST_PROGRAMS {
            all.clear();
        }
        all.insert(expression.to_owned(), compiled.clone());
        compiled
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Why no node will do, if so.
    pub impossible: Option<String>,
    /// As the pod names them.
    claims: Vec<Arc<Claim>>,
    consumer: Value,
    pools: Arc<Gathered>,
    classes: Arc<BTreeMap<String, Class>>,
    known: Arc<Known>,
    /// Devices that claims are being given.
    promised: Arc<BTreeSet<DeviceId>>,
    programs: Programs,
    search: Rc<RefCell<Search>>,
}

/// What was found for a pod so far, and what finding more may cost.
#[derive(Debug, Default)]
struct Search {
    budget: Budget,
    /// What its claims would be given on a node: whatever other pods come or go, this stays.
    nodes: HashMap<Arc<str>, Result<Option<Vec<Value>>, Failure>>,
    selectors: Selectors,
}

/// Selectors of one pod, and what they said of devices.
#[derive(Debug, Default)]
struct Selectors {
    compiled: HashMap<String, (usize, Arc<selector::Compiled>)>,
    /// By selector and by where the device lies: devices that can be used on many nodes are asked about once.
    said: HashMap<(usize, usize), Result<bool, String>>,
}

impl Selectors {
    /// Whether a selector selects a device; None if the share does not suffice to say so.
    fn ask(&mut self, programs: &Programs, expression: &str, candidate: &Candidate<'_>, share: &mut Share) -> Option<Result<bool, String>> {
        if !self.compiled.contains_key(expression) {
            if !share.pay(BYTE * expression.len() as u64) {
                return None;
            }
            self.compiled.insert(expression.to_owned(), (self.compiled.len(), programs.get(expression)));
        }
        let (nth, program) = self.compiled.get(expression)?;
        let device = candidate.device;
        let asked = (*nth, std::ptr::from_ref(device).addr());
        if let Some(said) = self.said.get(&asked) {
            return Some(said.clone());
        }
        let limit = share.cost.min(selector::MOST_COST);
        let (said, cost) = program.selects(&candidate.id.driver, &device.attributes, &device.capacity, device.allow_multiple_allocations, limit);
        // What one selector may cost is the selector's own fault; that there was less left is not.
        if !share.pay(cost.saturating_add(LOOK)) && limit < selector::MOST_COST {
            return None;
        }
        self.said.insert(asked, said.clone());
        Some(said)
    }
}

/// The name of each claim of a pod, and whether it was made for the pod; a sentence while it is not there.
fn names(pod: &Pod<'_>) -> impl Iterator<Item = Result<(String, bool), String>> {
    pod.spec.resource_claims.iter().filter_map(|claim| {
        if let Some(name) = &claim.resource_claim_name {
            return Some(Ok((name.to_string(), false)));
        }
        let told = pod.status.resource_claim_statuses.iter().find(|told| told.name == claim.name);
        match told {
            // Nothing had to be made for it.
            Some(told) => told.resource_claim_name.as_ref().map(|name| Ok((name.to_string(), true))),
            None => Some(Err(format!("pod \"{}/{}\": ResourceClaim not created yet", pod.metadata.namespace, pod.metadata.name))),
        }
    })
}

/// What cannot be read keeps the pod waiting: a claim that is left out would have its devices given twice.
fn read<T: DeserializeOwned>(object: &Object) -> Result<T, String> {
    parse(object).map_err(|status| status.message)
}

impl Devices {
    /// Looks at the claims of a pod.
    pub fn of(object: &Object, pod: &Pod<'_>, cluster: &Cluster, snapshot: &Snapshot) -> Self {
        let mut devices = Self { programs: cluster.programs.clone(), ..Self::default() };
        if pod.spec.resource_claims.is_empty() {
            return devices;
        }
        devices.consumer = json!({"resource": "pods", "name": *object.key.name, "uid": object.meta.uid});
        if let Err(why) = devices.look(object, pod, cluster, snapshot) {
            devices.impossible = Some(why);
        }
        devices
    }

    fn look(&mut self, object: &Object, pod: &Pod<'_>, cluster: &Cluster, snapshot: &Snapshot) -> Result<(), String> {
        let (namespace, name) = (&object.key.namespace, &object.key.name);
        for found in names(pod) {
            let (claim_name, own) = found?;
            let key = Key::new(CLAIMS, namespace.clone(), claim_name.as_str());
            let stored = snapshot.get(&key).ok_or_else(|| format!("resourceclaim.resource.k8s.io \"{claim_name}\" not found"))?;
            let claim: Claim = read(&stored)?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim \"{claim_name}\" is being deleted"));
            }
            if own && !claim.metadata.owner_references.iter().any(|owner| owner.controller && *owner.uid == *object.meta.uid) {
                return Err(format!("ResourceClaim {namespace}/{claim_name} was not created for Pod {namespace}/{name} (Pod is not owner)"));
            }
            if claim.status.allocation.is_none() && cluster.promised.contains_key(&key) {
                return Err(format!("resource claim {namespace}/{claim_name} is in the process of being allocated"));
            }
            if claim.status.allocation.is_some() && claim.status.reserved_for.len() >= MOST_CONSUMERS && !self.holds(&claim) {
                return Err("resourceclaim in use".into());
            }
            if !self.claims.iter().any(|known| known.metadata.uid == claim.metadata.uid) {
                self.claims.push(Arc::new(claim));
            }
        }
        if self.open().next().is_none() {
            return Ok(());
        }
        let mut classes = BTreeMap::new();
        for request in self.open().flat_map(|claim| &claim.spec.devices.requests) {
            for exact in request.options() {
                let name = &exact.device_class_name;
                if classes.contains_key(name) {
                    continue;
                }
                let stored = snapshot.get(&Key::new(CLASSES, "", name.as_str()));
                let stored = stored.ok_or_else(|| format!("request {}: device class {name} does not exist", request.named(exact)))?;
                classes.insert(name.clone(), read::<Class>(&stored)?);
            }
        }
        self.classes = Arc::new(classes);
        self.known = cluster.devices.clone();
        self.pools = self.known.pools()?;
        self.promised = Arc::new(cluster.promised.values().flatten().cloned().collect());
        self.search.borrow_mut().budget = Budget::new(cluster.nodes().count());
        Ok(())
    }

    fn holds(&self, claim: &Claim) -> bool {
        claim.status.reserved_for.iter().any(|consumer| consumer["uid"] == self.consumer["uid"])
    }

    /// Claims without devices.
    fn open(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.iter().filter(|claim| claim.status.allocation.is_none())
    }

    /// What the claims without devices would be given on a node; None if it has not enough of them.
    fn allocate(&self, node: &Node) -> Result<Option<Vec<Value>>, Failure> {
        let open: Vec<Arc<Claim>> = self.open().cloned().collect();
        if open.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut search = self.search.borrow_mut();
        let Search { budget, nodes, selectors } = &mut *search;
        if let Some(found) = nodes.get(&node.name) {
            return found.clone();
        }
        let part = budget.share();
        let (share, selectors) = (RefCell::new(part), RefCell::new(selectors));
        let pools = self.pools.at(node);
        let selects =
            |expression: &str, candidate: &Candidate<'_>| selectors.borrow_mut().ask(&self.programs, expression, candidate, &mut share.borrow_mut());
        let taken = |id: &DeviceId| self.promised.contains(id) || self.known.is_given(id);
        let found = allocate(&open, &Source { pools: &pools, taken: &taken, classes: &self.classes, selects: &selects, share: &share });
        budget.settle(part, share.into_inner());
        nodes.insert(node.name.clone(), found.clone());
        found
    }

    /// Why the pod's claims keep it from a node, if they do.
    pub fn refuse(&self, node: &Node) -> Option<Failure> {
        if self.claims.is_empty() {
            return None;
        }
        let away = |claim: &Arc<Claim>| {
            let selector = claim.status.allocation.as_ref().and_then(|allocation| allocation.node_selector.as_ref());
            selector.is_some_and(|selector| !node.is_selected(selector))
        };
        if self.claims.iter().any(away) {
            return Some(Failure::Node(NOT_HERE));
        }
        match self.allocate(node) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Failure::Node(NOT_ENOUGH)),
            Err(failure) => Some(failure),
        }
    }

    /// What has to be written before the pod can go to a node, and the devices that are spoken for until it is.
    pub fn steps(&self, node: &Node) -> (Vec<Action>, Vec<(Key, Vec<DeviceId>)>) {
        let (mut steps, mut promised) = (Vec::new(), Vec::new());
        let Ok(Some(given)) = self.allocate(node) else { return (steps, promised) };
        let mut given = given.into_iter();
        for claim in &self.claims {
            if claim.status.allocation.is_none() {
                let Some(allocation) = given.next() else { continue };
                let results = serde_json::from_value(allocation["devices"]["results"].clone()).unwrap_or_default();
                promised.push((claim.key(), ids(results)));
                steps.extend(give(claim, &allocation, &self.consumer));
            } else if !self.holds(claim) {
                let consumers: Vec<&Value> = claim.status.reserved_for.iter().chain([&self.consumer]).collect();
                steps.push(tell(claim, json!({"reservedFor": consumers})));
            }
        }
        (steps, promised)
    }

    /// Gives devices back that can be used on no node where the pod could go, if nobody but the pod uses them: one claim at a time.
    pub fn release(&self, refused: impl Fn(&str) -> bool) -> Option<Action> {
        if !refused(NOT_HERE) {
            return None;
        }
        let bound = |claim: &&Arc<Claim>| claim.status.allocation.as_ref().is_some_and(|allocation| allocation.node_selector.is_some());
        let alone = |claim: &&Arc<Claim>| match claim.status.reserved_for.as_slice() {
            [] => true,
            [one] => one["uid"] == self.consumer["uid"],
            _ => false,
        };
        let claim = self.claims.iter().filter(bound).find(alone)?;
        Some(tell(claim, json!({"allocation": null, "reservedFor": null})))
    }
}

/// A write for a claim, if nobody wrote it since it was read.
fn tell(claim: &Claim, status: Value) -> Action {
    let metadata = &claim.metadata;
    let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version}, "status": status});
    Action::Patch { key: claim.key(), subresource: "status", patch }
}

/// Gives a claim devices. It is protected first: what has devices must not go before they were given back.
pub(crate) fn give(claim: &Claim, allocation: &Value, consumer: &Value) -> Vec<Action> {
    let metadata = &claim.metadata;
    let mut steps = Vec::new();
    if !metadata.finalizers.iter().any(|its| its == FINALIZER) {
        let finalizers: Vec<&str> = metadata.finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
        let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers}});
        steps.push(Action::Patch { key: claim.key(), subresource: "", patch });
    }
    steps.push(tell(claim, json!({"allocation": allocation, "reservedFor": [consumer]})));
    steps
}
