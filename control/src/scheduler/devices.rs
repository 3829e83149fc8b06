//! The device claims of a pod that is to be placed (dynamic resource allocation, KEP-4381): which of them have devices, where those can be used, and which devices the others
//! could have on a node.
//!
//! As with volumes, a claim is given its devices first ([`Devices::steps`]), and the pod is looked at again: what was given says on which nodes it can be used. Until
//! that is written the engine remembers which devices are spoken for. Devices that are shared, that are made of counters, or that are made ready while a pod waits, are left alone.

pub mod allocate;
pub mod model;
pub mod pools;

use super::{
    cluster::{Cluster, Node},
    pod::Pod,
};
use allocate::{Candidate, Source, allocate};
use coracle_apiserver::{resources::selector, view::parse};
use coracle_store::{Key, Object, Snapshot};
use model::{Claim, Class, DeviceId, Slice};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
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
const MOST_CONSUMERS: usize = 256;
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

/// One write for a claim: its key, the subresource, a merge patch.
pub type Step = (Key, &'static str, Value);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Why no node will do, if so.
    pub impossible: Option<String>,
    /// As the pod names them.
    claims: Vec<Arc<Claim>>,
    consumer: Value,
    slices: Vec<Arc<Slice>>,
    classes: Arc<BTreeMap<String, Class>>,
    taken: Arc<BTreeSet<DeviceId>>,
    programs: Programs,
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
        let class = |object: &Arc<Object>| Ok((object.key.name.to_string(), read::<Class>(object)?));
        self.classes = Arc::new(snapshot.range(CLASSES, None, None).map(class).collect::<Result<_, String>>()?);
        for claim in self.claims.iter().filter(|claim| claim.status.allocation.is_none()) {
            for request in &claim.spec.devices.requests {
                if let Some(exact) = request.options().iter().find(|exact| !self.classes.contains_key(&exact.device_class_name)) {
                    return Err(format!("request {}: device class {} does not exist", request.named(exact), exact.device_class_name));
                }
            }
        }
        self.slices = snapshot.range(SLICES, None, None).map(|object| read(object).map(Arc::new)).collect::<Result<_, String>>()?;
        let mut taken: BTreeSet<DeviceId> = cluster.promised.values().flatten().cloned().collect();
        for object in snapshot.range(CLAIMS, None, None) {
            let given = read::<Claim>(object)?.status.allocation.unwrap_or_default().devices.results;
            taken.extend(given.into_iter().filter(|given| !given.admin_access).map(|given| given.id));
        }
        self.taken = Arc::new(taken);
        Ok(())
    }

    fn holds(&self, claim: &Claim) -> bool {
        claim.status.reserved_for.iter().any(|consumer| consumer["uid"] == self.consumer["uid"])
    }

    /// Claims without devices.
    fn open(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.iter().filter(|claim| claim.status.allocation.is_none())
    }

    fn allocate(&self, node: &Node) -> Result<Option<Vec<Value>>, String> {
        let open: Vec<Arc<Claim>> = self.open().cloned().collect();
        if open.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let pools = pools::gather(&self.slices, node);
        let selects = |expression: &str, candidate: &Candidate<'_>| {
            let device = candidate.device;
            self.programs.get(expression).selects(&candidate.id.driver, &device.attributes, &device.capacity, device.allow_multiple_allocations)
        };
        allocate(&open, &Source { pools: &pools, taken: &self.taken, classes: &self.classes, selects: &selects })
    }

    /// Why the pod's claims keep it from a node, if they do.
    pub fn refuse(&self, node: &Node) -> Option<String> {
        if self.claims.is_empty() {
            return None;
        }
        let away = |claim: &Arc<Claim>| {
            let selector = claim.status.allocation.as_ref().and_then(|allocation| allocation.node_selector.as_ref());
            selector.is_some_and(|selector| !pools::selects(selector, node))
        };
        if self.claims.iter().any(away) {
            return Some(NOT_HERE.into());
        }
        match self.allocate(node) {
            Ok(Some(_)) => None,
            Ok(None) => Some(NOT_ENOUGH.into()),
            Err(why) => Some(why),
        }
    }

    /// What has to be written before the pod can go to a node, and the devices that are spoken for until it is.
    pub fn steps(&self, node: &Node) -> (Vec<Step>, Vec<(Key, Vec<DeviceId>)>) {
        let (mut steps, mut promised) = (Vec::new(), Vec::new());
        let Ok(Some(given)) = self.allocate(node) else { return (steps, promised) };
        let mut given = given.into_iter();
        for claim in &self.claims {
            let metadata = &claim.metadata;
            let key = Key::new(CLAIMS, metadata.namespace.as_str(), metadata.name.as_str());
            if claim.status.allocation.is_none() {
                let Some(allocation) = given.next() else { continue };
                let results: Vec<model::GivenDevice> = serde_json::from_value(allocation["devices"]["results"].clone()).unwrap_or_default();
                promised.push((key.clone(), results.into_iter().filter(|given| !given.admin_access).map(|given| given.id).collect()));
                if !metadata.finalizers.iter().any(|its| its == FINALIZER) {
                    let finalizers: Vec<&str> = metadata.finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
                    let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers}});
                    steps.push((key.clone(), "", patch));
                }
                let status = json!({"allocation": allocation, "reservedFor": [self.consumer]});
                steps.push((key, "status", json!({"metadata": {"uid": metadata.uid}, "status": status})));
            } else if !self.holds(claim) {
                let consumers: Vec<&Value> = claim.status.reserved_for.iter().chain([&self.consumer]).collect();
                let metadata = json!({"uid": metadata.uid, "resourceVersion": metadata.resource_version});
                steps.push((key, "status", json!({"metadata": metadata, "status": {"reservedFor": consumers}})));
            }
        }
        (steps, promised)
    }

    /// Gives devices back that can be used on no node where the pod could go, if nobody but the pod uses them: one claim at a time.
    pub fn release(&self, refused: impl Fn(&str) -> bool) -> Option<Step> {
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
        let metadata = &claim.metadata;
        let key = Key::new(CLAIMS, metadata.namespace.as_str(), metadata.name.as_str());
        let preconditions = json!({"uid": metadata.uid, "resourceVersion": metadata.resource_version});
        Some((key, "status", json!({"metadata": preconditions, "status": {"allocation": null, "reservedFor": null}})))
    }
}
