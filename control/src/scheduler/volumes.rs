//! The claims of a pod that is to be placed: where their volumes are, or can come to be.
//!
//! A claim that waits for its first consumer is told the node ([`steps`]): a volume that fits is reserved for it, or its provisioner
//! is. Then the pod waits until the claim is bound, and is looked at again; the bound volume's own affinity brings it to the same
//! node. (Upstream holds the pod back inside its binding instead.)

pub mod limits;

use super::{
    cluster::{Cluster, Node, Placed},
    plugins::volume_zone::LABELS,
    pod::{NodeSelector, Pod},
    resources::{List, Requirements, quantity},
};
use crate::view::View;
use coracle_apiserver::view::{
    Text, parse,
    selector::{LabelSelector, Labelled},
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const SELECTED: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";

type Claim<'a> = View<'a, ClaimSpec<'a>, Phase<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec<'a> {
    #[serde(borrow)]
    access_modes: Vec<Text<'a>>,
    volume_name: Text<'a>,
    storage_class_name: Option<Text<'a>>,
    volume_mode: Text<'a>,
    resources: Requirements<'a>,
    selector: Option<LabelSelector<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Phase<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
}
type Volume<'a> = View<'a, VolumeSpec<'a>, Phase<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec<'a> {
    #[serde(borrow)]
    access_modes: Vec<Text<'a>>,
    capacity: List<'a>,
    storage_class_name: Text<'a>,
    volume_mode: Text<'a>,
    node_affinity: VolumeAffinity<'a>,
    claim_ref: Option<ClaimRef<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct VolumeAffinity<'a> {
    #[serde(borrow)]
    required: Option<NodeSelector<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ClaimRef<'a> {
    #[serde(borrow)]
    namespace: Text<'a>,
    name: Text<'a>,
    uid: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Class<'a> {
    #[serde(borrow)]
    provisioner: Text<'a>,
    volume_binding_mode: Text<'a>,
    allowed_topologies: Vec<Topology<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Topology<'a> {
    #[serde(borrow)]
    match_label_expressions: Vec<TopologyLabel<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct TopologyLabel<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    values: Vec<Text<'a>>,
}

impl Claim<'_> {
    fn class(&self) -> &str {
        let old = self.metadata.annotations.get(CLASS).map(|class| &**class);
        old.or(self.spec.storage_class_name.as_deref()).unwrap_or_default()
    }

    fn bound(&self) -> bool {
        !self.spec.volume_name.is_empty() && (self.metadata.annotations.contains_key(BOUND) || self.status.phase == "Bound")
    }

    fn is_named(&self, reference: &ClaimRef<'_>) -> bool {
        *reference.name == *self.metadata.name
            && *reference.namespace == *self.metadata.namespace
            && (reference.uid.is_empty() || *reference.uid == *self.metadata.uid)
    }

    /// Whether a volume would do: free or meant for this claim, of its class, large enough, with its modes.
    fn fits(&self, volume: &Volume<'_>, labels: &coracle_store::Meta) -> bool {
        let mode = |mode: &str| if mode.is_empty() { "Filesystem".to_owned() } else { mode.to_owned() };
        let size = |list: &List<'_>| list.get("storage").map(quantity).map_or(0, |size| size.units());
        let spec = &volume.spec;
        let free = spec.claim_ref.as_ref().map_or(volume.status.phase == "Available", |reference| self.is_named(reference));
        free && !volume.metadata.deleting()
            && *spec.storage_class_name == *self.class()
            && mode(&spec.volume_mode) == mode(&self.spec.volume_mode)
            && self.spec.access_modes.iter().all(|wanted| spec.access_modes.contains(wanted))
            && size(&spec.capacity) >= size(&self.spec.resources.requests)
            && self.spec.selector.as_ref().is_none_or(|selector| selector.matches(labels.labels.as_slice()))
    }
}

impl Volume<'_> {
    fn reaches(&self, node: &Node) -> bool {
        let required = self.spec.node_affinity.required.as_ref();
        required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term.matches(&node.name, node.meta.labels.as_slice())))
    }

    fn size(&self) -> i64 {
        self.spec.capacity.get("storage").map(quantity).map_or(0, |size| size.units())
    }
}

impl Class<'_> {
    fn provisions(&self) -> bool {
        !self.provisioner.is_empty() && self.provisioner != NO_PROVISIONER
    }

    fn allows(&self, node: &Node) -> bool {
        let label = |wanted: &TopologyLabel<'_>| node.label(&wanted.key).is_some_and(|value| wanted.values.iter().any(|v| **v == *value));
        self.allowed_topologies.is_empty() || self.allowed_topologies.iter().any(|term| term.match_label_expressions.iter().all(label))
    }
}

/// What the claims of a pod mean for nodes.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Why no node will do, if so.
    pub impossible: Option<String>,
    /// Nodes that a volume cannot be used on, and why.
    pub unreachable: HashMap<Arc<str>, &'static str>,
    /// Labels of zones and regions that volumes name, and their values.
    pub zones: Vec<(Box<str>, Vec<Box<str>>)>,
    /// How many volumes nodes take.
    pub limits: limits::Limits,
    /// Claims that one pod alone may use, and how many use them.
    pub sole: BTreeMap<Box<str>, i64>,
}

/// A claim that is not bound, its class, and the volumes that would do, smallest first.
struct Waiting<'o> {
    claim: Claim<'o>,
    class: Class<'o>,
    volumes: Vec<(Volume<'o>, &'o Arc<Object>)>,
}

/// How a claim that waits can be served on a node.
enum Serve<'w, 'o> {
    Volume(&'w Volume<'o>),
    Provisioner,
}

impl<'o> Waiting<'o> {
    fn serve(&self, node: &Node, taken: &[&str]) -> Option<Serve<'_, 'o>> {
        if let Some(selected) = self.claim.metadata.annotations.get(SELECTED) {
            return (**selected == *node.name).then_some(Serve::Provisioner);
        }
        let mut fitting = self.volumes.iter().filter(|(volume, _)| volume.reaches(node) && !taken.contains(&&*volume.metadata.name));
        match fitting.next() {
            Some((volume, _)) => Some(Serve::Volume(volume)),
            None => (self.class.provisions() && self.class.allows(node)).then_some(Serve::Provisioner),
        }
    }
}

/// Objects that claims lead to, held while they are read.
#[derive(Default)]
struct Found {
    claims: Vec<Arc<Object>>,
    classes: Vec<Option<Arc<Object>>>,
    volumes: Vec<Arc<Object>>,
}

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const CLASSES: &str = "storageclasses.storage.k8s.io";

impl Found {
    /// Looks the claims of a pod up; a sentence if one cannot be used.
    fn of(key: &Key, pod: &Pod<'_>, snapshot: &Snapshot) -> Result<Self, String> {
        let mut found = Self::default();
        for (name, own) in pod.claims() {
            let Some(object) = snapshot.get(&Key::new(CLAIMS, key.namespace.clone(), name.as_str())) else {
                return Err(match own {
                    true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""),
                    false => format!("persistentvolumeclaim \"{name}\" not found"),
                });
            };
            let claim: Claim<'_> = parse(&object).map_err(|error| error.message)?;
            if claim.status.phase == "Lost" {
                return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"", claim.spec.volume_name));
            }
            if claim.metadata.deleting() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if own && !claim.metadata.controlled_by(&pod.metadata.uid) {
                let (namespace, pod) = (&key.namespace, &key.name);
                return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
            }
            let class = (!claim.bound()).then(|| snapshot.get(&Key::new(CLASSES, "", claim.class()))).flatten();
            found.classes.push(class);
            found.claims.push(object);
        }
        if found.claims.iter().any(|object| parse::<Claim<'_>>(object).is_ok_and(|claim| !claim.bound())) {
            found.volumes = snapshot.range(VOLUMES, None, None).cloned().collect();
        }
        Ok(found)
    }

    /// The claims that are not bound.
    ///
    /// # Errors
    /// When one of them should have been bound before its pod.
    fn waiting(&self) -> Result<Vec<Waiting<'_>>, String> {
        let mut all = Vec::new();
        for (object, class) in self.claims.iter().zip(&self.classes) {
            let claim: Claim<'_> = parse(object).map_err(|error| error.message)?;
            if claim.bound() {
                continue;
            }
            let class: Class<'_> = class.as_ref().map(|class| parse(class)).transpose().map_err(|error| error.message)?.unwrap_or_default();
            if class.volume_binding_mode != "WaitForFirstConsumer" || !claim.spec.volume_name.is_empty() {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            let volumes = self.volumes.iter().filter_map(|object| Some((parse::<Volume<'_>>(object).ok()?, object)));
            let mut volumes: Vec<_> = volumes.filter(|(volume, object)| claim.fits(volume, &object.meta)).collect();
            // A volume that is meant for the claim goes first, then the smallest.
            volumes.sort_by_key(|(volume, object)| (volume.spec.claim_ref.is_none(), volume.size(), object.key.name.clone()));
            all.push(Waiting { claim, class, volumes });
        }
        Ok(all)
    }
}

impl Volumes {
    /// Looks at the claims of a pod.
    pub fn of(key: &Key, pod: &Pod<'_>, cluster: &Cluster, snapshot: &Snapshot) -> Self {
        let mut volumes = Self::default();
        if pod.claims().next().is_none() {
            return volumes;
        }
        volumes.limits = limits::Limits::of(key, pod, &cluster.volumes, snapshot);
        if let Err(why) = volumes.look(key, pod, cluster, snapshot) {
            volumes.impossible = Some(why);
        }
        volumes
    }

    fn look(&mut self, key: &Key, pod: &Pod<'_>, cluster: &Cluster, snapshot: &Snapshot) -> Result<(), String> {
        let found = Found::of(key, pod, snapshot)?;
        let waiting = found.waiting()?;
        for object in &found.claims {
            let claim: Claim<'_> = parse(object).map_err(|error| error.message)?;
            if claim.spec.access_modes.iter().any(|mode| *mode == "ReadWriteOncePod") {
                self.sole.insert((*object.key.name).into(), 0);
            }
            if claim.bound() {
                self.bound(snapshot.get(&Key::new(VOLUMES, "", &*claim.spec.volume_name)).as_deref(), cluster)?;
            }
        }
        if !self.sole.is_empty() {
            for node in cluster.nodes() {
                node.pods.iter().for_each(|(other, placed)| self.suppose(&key.namespace, other, placed, 1));
            }
        }
        for node in cluster.nodes() {
            let mut taken = Vec::new();
            for claim in &waiting {
                match claim.serve(node, &taken) {
                    Some(Serve::Volume(volume)) => taken.push(&*volume.metadata.name),
                    Some(Serve::Provisioner) => {}
                    None => drop(self.unreachable.insert(node.name.clone(), NO_VOLUME)),
                }
            }
        }
        Ok(())
    }

    /// A volume that a claim is bound to.
    fn bound(&mut self, object: Option<&Object>, cluster: &Cluster) -> Result<(), String> {
        let Some(object) = object else {
            let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
            self.unreachable.extend(cluster.nodes().map(|node| (node.name.clone(), gone)));
            return Ok(());
        };
        let volume: Volume<'_> = parse(object).map_err(|error| error.message)?;
        let far = cluster.nodes().filter(|node| !volume.reaches(node));
        self.unreachable.extend(far.map(|node| (node.name.clone(), "node(s) didn't match PersistentVolume's node affinity")));
        for key in LABELS.iter().flat_map(|(now, before)| [*now, *before]) {
            if let Some(values) = object.meta.labels.as_slice().label(key) {
                self.zones.push((key.into(), values.split("__").map(Into::into).collect()));
            }
        }
        Ok(())
    }

    /// Counts a pod in or out among the users of claims that one pod alone may use.
    pub fn suppose(&mut self, namespace: &str, key: &Key, placed: &Placed, sign: i64) {
        if *key.namespace != *namespace {
            return;
        }
        for claim in &placed.claims {
            if let Some(users) = self.sole.get_mut(claim) {
                *users += sign;
            }
        }
    }
}

/// What must be written before a pod can be bound to a node, as merge patches; and the claims it waits for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// What is patched, and how.
    pub patches: Vec<(Key, Value)>,
    /// Names of claims that are not bound.
    pub waiting: Vec<String>,
}

/// The steps for a pod that goes to this node; nothing waits if all its claims are bound.
pub fn steps(key: &Key, pod: &Pod<'_>, node: &Node, snapshot: &Snapshot) -> Steps {
    let mut steps = Steps::default();
    if pod.claims().next().is_none() {
        return steps;
    }
    let Ok(found) = Found::of(key, pod, snapshot) else { return steps };
    let Ok(waiting) = found.waiting() else { return steps };
    let mut taken = Vec::new();
    for Waiting { claim, .. } in &waiting {
        steps.waiting.push(claim.metadata.name.to_string());
    }
    for waits in &waiting {
        let claim = &waits.claim.metadata;
        match waits.serve(node, &taken) {
            Some(Serve::Volume(volume)) => {
                taken.push(&*volume.metadata.name);
                if volume.spec.claim_ref.as_ref().is_some_and(|reference| *reference.uid == *claim.uid) {
                    continue;
                }
                let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace, "name": claim.name,
                    "uid": claim.uid, "resourceVersion": claim.resource_version });
                let patch = json!({
                    "metadata": { "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version,
                        "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
                    "spec": { "claimRef": reference },
                });
                steps.patches.push((Key::new(VOLUMES, "", &*volume.metadata.name), patch));
            }
            Some(Serve::Provisioner) if !claim.annotations.contains_key(SELECTED) => {
                let patch =
                    json!({ "metadata": { "uid": claim.uid, "resourceVersion": claim.resource_version, "annotations": { SELECTED: &*node.name } } });
                steps.patches.push((Key::new(CLAIMS, &*claim.namespace, &*claim.name), patch));
            }
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests;
