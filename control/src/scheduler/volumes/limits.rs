//! How many volumes of a CSI driver a node takes (`CSINode.spec.drivers[].allocatable.count`): what its pods use, and what is attached to it, counts once each.
//!
//! Looked up once an attempt, and only where a driver of the pod's own volumes is bounded somewhere. Volumes of the kinds that were built into Kubernetes are not counted as their drivers'.

use super::{CLAIMS, CLASSES, Claim, Class, VOLUMES};
use crate::scheduler::{cluster::Node, pod::Pod};
use coracle_apiserver::view::{Text, parse};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashMap},
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
#[serde(default)]
struct VolumeSpec<'a> {
    #[serde(borrow)]
    csi: Option<Csi<'a>>,
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

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Volumes of the pod.
    new: BTreeSet<Unique>,
    /// Most volumes by driver, of the nodes that have such bounds.
    most: HashMap<Arc<str>, Vec<(Box<str>, usize)>>,
    /// Volumes by the namespace and the name of the claim.
    claimed: HashMap<(Arc<str>, Box<str>), Unique>,
    /// Volumes that are attached to a node.
    attached: HashMap<Box<str>, BTreeSet<Unique>>,
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

impl Limits {
    /// Looks at the claims of a pod, and at what bounds them.
    pub fn of(key: &Key, pod: &Pod<'_>, snapshot: &Snapshot) -> Self {
        let claims = pod.claims().filter_map(|(name, _)| snapshot.get(&Key::new(CLAIMS, key.namespace.clone(), name.as_str())));
        let new: BTreeSet<Unique> = claims.filter_map(|object| volume(&object, snapshot)).collect();
        let concerns = |driver: &str| new.iter().any(|(its, _)| **its == *driver);
        let mut limits = Self::default();
        if new.is_empty() {
            return limits;
        }
        for object in snapshot.range(CSI_NODES, None, None) {
            let Ok(node) = parse::<CsiNode<'_>>(object) else { continue };
            let bounds = node.spec.drivers.iter().filter(|driver| concerns(&driver.name));
            let bounds: Vec<_> = bounds.filter_map(|driver| Some(((*driver.name).into(), driver.allocatable.count?))).collect();
            if !bounds.is_empty() {
                limits.most.insert(object.key.name.clone(), bounds);
            }
        }
        if limits.most.is_empty() {
            return limits;
        }
        for object in snapshot.range(CLAIMS, None, None) {
            if let Some(volume) = volume(object, snapshot).filter(|(driver, _)| concerns(driver)) {
                limits.claimed.insert((object.key.namespace.clone(), (*object.key.name).into()), volume);
            }
        }
        for object in snapshot.range(ATTACHMENTS, None, None) {
            let Ok(Attachment { spec }) = parse::<Attachment<'_>>(object) else { continue };
            let name =
                spec.source.persistent_volume_name.as_deref().filter(|_| concerns(&spec.attacher) && limits.most.contains_key(&*spec.node_name));
            if let Some((_, handle)) = name.and_then(|name| handle(name, snapshot)) {
                limits.attached.entry((*spec.node_name).into()).or_default().insert(((*spec.attacher).into(), handle));
            }
        }
        limits.new = new;
        limits
    }

    /// Whether the pod's volumes are too many for a node.
    pub fn exceeded(&self, node: &Node) -> bool {
        let Some(most) = self.most.get(&node.name) else { return false };
        let claims = node.pods.iter().flat_map(|(key, placed)| placed.claims.iter().map(|claim| (key.namespace.clone(), claim.clone())));
        let mut there: BTreeSet<&Unique> = claims.filter_map(|claim| self.claimed.get(&claim)).collect();
        there.extend(self.attached.get(&*node.name).into_iter().flatten());
        let of = |driver: &str, volumes: &mut dyn Iterator<Item = &Unique>| volumes.filter(|(its, _)| **its == *driver).count();
        most.iter().any(|(driver, most)| {
            let more = of(driver, &mut self.new.iter().filter(|volume| !there.contains(volume)));
            more > 0 && of(driver, &mut there.iter().copied()) + more > *most
        })
    }
}
