//! How many volumes of a CSI driver a node takes (`CSINode.spec.drivers[].allocatable.count`): what its pods use, and what is attached to it, counts once each.
//!
//! What claims, attachments and nodes say is read once each time that it changes ([`Known`]): a pod costs a look at the claims of the pods of each node, and nothing where no driver of its own
//! volumes is bounded. Volumes of the kinds that were built into Kubernetes are not counted as their drivers'.

use super::{CLAIMS, CLASSES, Claim, ClaimRef, Class, VOLUMES};
use crate::scheduler::{cluster::Node, pod::Pod};
use coracle_apiserver::view::{Text, parse};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Resource id of what drivers say of nodes.
pub const CSI_NODES: &str = "csinodes.storage.k8s.io";
/// Resource id of what is attached where.
pub const ATTACHMENTS: &str = "volumeattachments.storage.k8s.io";

/// Driver, and its name for the volume; a claim without a volume yet stands for the volume it will have.
type Unique = (Box<str>, Box<str>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Volume<'a> {
    #[serde(borrow)]
    spec: VolumeSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec<'a> {
    #[serde(borrow)]
    csi: Option<Csi<'a>>,
    claim_ref: Option<ClaimRef<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Csi<'a> {
    #[serde(borrow)]
    driver: Text<'a>,
    volume_handle: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct CsiNode<'a> {
    #[serde(borrow)]
    spec: Drivers<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Drivers<'a> {
    #[serde(borrow)]
    drivers: Vec<Driver<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Driver<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    allocatable: Allocatable,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Allocatable {
    count: Option<usize>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Attachment<'a> {
    #[serde(borrow)]
    spec: AttachmentSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AttachmentSpec<'a> {
    #[serde(borrow)]
    attacher: Text<'a>,
    node_name: Text<'a>,
    source: Source<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source<'a> {
    #[serde(borrow)]
    persistent_volume_name: Option<Text<'a>>,
}

/// What is known of all claims, of what is attached, and of what bounds nodes.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// By namespace and name of the claim; None where nothing leads to a volume.
    claims: HashMap<Arc<str>, HashMap<Arc<str>, Option<Unique>>>,
    /// By node and attachment.
    attached: HashMap<Box<str>, HashMap<Arc<str>, Unique>>,
    /// Where an attachment was counted.
    places: HashMap<Arc<str>, Box<str>>,
    /// Most volumes by driver, of the nodes that have such bounds.
    most: HashMap<Arc<str>, Vec<(Box<str>, usize)>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Volumes of the pod.
    new: BTreeSet<Unique>,
    known: Arc<Known>,
}

/// The driver's name for a volume.
fn handle(name: &str, snapshot: &Snapshot) -> Option<Unique> {
    let object = snapshot.get(&Key::new(VOLUMES, "", name))?;
    let csi = parse::<Volume<'_>>(&object).ok()?.spec.csi?;
    (!csi.driver.is_empty() && !csi.volume_handle.is_empty()).then(|| ((*csi.driver).into(), (*csi.volume_handle).into()))
}

/// The volume of a claim, or what it will be given.
fn volume(object: &Object, snapshot: &Snapshot) -> Option<Unique> {
    let claim: Claim<'_> = parse(object).ok()?;
    let name = &*claim.spec.volume_name;
    if !name.is_empty() && snapshot.get(&Key::new(VOLUMES, "", name)).is_some() {
        return handle(name, snapshot);
    }
    let class = snapshot.get(&Key::new(CLASSES, "", claim.class()))?;
    let provisioner = parse::<Class<'_>>(&class).ok()?.provisioner;
    // No driver's handle can be like this: it has the NUL that JSON's texts have only escaped.
    Some(((*provisioner).into(), format!("\0{}/{}", object.key.namespace, object.key.name).into()))
}

impl Known {
    /// What is to be read again when this object came, changed or went.
    pub fn concerns(&self, object: &Object) -> Vec<Key> {
        match &*object.key.resource {
            CLAIMS | CSI_NODES | ATTACHMENTS => vec![object.key.clone()],
            VOLUMES => {
                let claim = parse::<Volume<'_>>(object).ok().and_then(|volume| volume.spec.claim_ref);
                claim.map(|claim| Key::new(CLAIMS, &*claim.namespace, &*claim.name)).into_iter().collect()
            }
            CLASSES => {
                let names = |(namespace, claims): (&Arc<str>, &HashMap<Arc<str>, _>)| {
                    claims.keys().map(|name| Key::new(CLAIMS, namespace.clone(), name.clone())).collect::<Vec<_>>()
                };
                self.claims.iter().flat_map(names).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A claim, an attachment or a node's bounds are like this now, or gone.
    pub fn read(&mut self, key: &Key, object: Option<&Object>, snapshot: &Snapshot) {
        match &*key.resource {
            CLAIMS => self.claim(key, object, snapshot),
            ATTACHMENTS => self.attachment(key, object, snapshot),
            CSI_NODES => {
                let node = object.and_then(|object| parse::<CsiNode<'_>>(object).ok()).unwrap_or_default();
                let most: Vec<_> = node.spec.drivers.iter().filter_map(|driver| Some(((*driver.name).into(), driver.allocatable.count?))).collect();
                match most.is_empty() {
                    true => drop(self.most.remove(&key.name)),
                    false => drop(self.most.insert(key.name.clone(), most)),
                }
            }
            _ => {}
        }
    }

    fn claim(&mut self, key: &Key, object: Option<&Object>, snapshot: &Snapshot) {
        let claims = self.claims.entry(key.namespace.clone()).or_default();
        match object {
            Some(object) => drop(claims.insert(key.name.clone(), volume(object, snapshot))),
            None => drop(claims.remove(&key.name)),
        }
        if claims.is_empty() {
            self.claims.remove(&key.namespace);
        }
    }

    fn attachment(&mut self, key: &Key, object: Option<&Object>, snapshot: &Snapshot) {
        if let Some(node) = self.places.remove(&key.name)
            && let Some(there) = self.attached.get_mut(&node)
        {
            there.remove(&key.name);
            if there.is_empty() {
                self.attached.remove(&node);
            }
        }
        let Some(Attachment { spec }) = object.and_then(|object| parse(object).ok()) else { return };
        if let Some((_, handle)) = spec.source.persistent_volume_name.as_deref().and_then(|name| handle(name, snapshot)) {
            let node: Box<str> = (*spec.node_name).into();
            self.places.insert(key.name.clone(), node.clone());
            self.attached.entry(node).or_default().insert(key.name.clone(), ((*spec.attacher).into(), handle));
        }
    }

    fn of_claim(&self, namespace: &str, name: &str) -> Option<&Unique> {
        self.claims.get(namespace)?.get(name)?.as_ref()
    }
}

impl Limits {
    /// Looks at the claims of a pod.
    pub fn of(key: &Key, pod: &Pod<'_>, known: &Arc<Known>, snapshot: &Snapshot) -> Self {
        if known.most.is_empty() {
            return Self::default();
        }
        let claims = pod.claims().filter_map(|(name, _)| snapshot.get(&Key::new(CLAIMS, key.namespace.clone(), name.as_str())));
        Self { new: claims.filter_map(|object| volume(&object, snapshot)).collect(), known: known.clone() }
    }

    /// Whether the pod's volumes are too many for a node.
    pub fn exceeded(&self, node: &Node) -> bool {
        let most = self.known.most.get(&node.name).into_iter().flatten();
        let mut concerned = most.filter(|(driver, _)| self.new.iter().any(|(its, _)| its == driver)).peekable();
        if concerned.peek().is_none() {
            return false;
        }
        let claims = node.pods.iter().flat_map(|(key, placed)| placed.claims.iter().map(|claim| (&*key.namespace, &**claim)));
        let mut there: HashSet<&Unique> = claims.filter_map(|(namespace, name)| self.known.of_claim(namespace, name)).collect();
        there.extend(self.known.attached.get(&*node.name).into_iter().flat_map(HashMap::values));
        concerned.any(|(driver, most)| {
            let more = self.new.iter().filter(|volume| volume.0 == *driver && !there.contains(volume)).count();
            more > 0 && there.iter().filter(|volume| volume.0 == *driver).count() + more > *most
        })
    }
}
