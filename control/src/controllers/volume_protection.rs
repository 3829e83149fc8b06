//! Claims, volumes and attribute classes that are deleted stay until nothing uses them (Kubernetes' pvc-, pv- and
//! volumeattributesclass-protection controllers): their finalizers go when no pod that runs somewhere names the claim, when the volume is not
//! bound, and when no claim and no volume names the class. A finalizer that is missing (an object from before) is added.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::View;
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    admission::storage::FINALIZERS,
    view::{Headed, Meta, Text, parse},
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::json;

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const CLASSES: &str = "volumeattributesclasses.storage.k8s.io";

/// See the module.
pub struct VolumeProtection {
    claims: Context,
    volumes: Context,
    classes: Context,
}

impl VolumeProtection {
    /// Acting as the three protection controllers, each for its kind.
    pub fn new(context: &Context) -> Self {
        Self {
            claims: context.acting_as("pvc-protection-controller"),
            volumes: context.acting_as("pv-protection-controller"),
            classes: context.acting_as("volumeattributesclass-protection-controller"),
        }
    }

    fn acting_for(&self, resource: &str) -> &Context {
        match resource {
            CLAIMS => &self.claims,
            VOLUMES => &self.volumes,
            _ => &self.classes,
        }
    }
}

type Pod<'a> = View<'a, PodSpec<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec<'a> {
    #[serde(borrow)]
    node_name: Text<'a>,
    volumes: Vec<Volume<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Volume<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    persistent_volume_claim: Option<Claim<'a>>,
    ephemeral: Option<serde::de::IgnoredAny>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Claim<'a> {
    #[serde(borrow)]
    claim_name: Text<'a>,
}

impl Pod<'_> {
    /// Names of the claims that the pod mounts.
    fn claims(&self) -> impl Iterator<Item = String> + '_ {
        self.spec.volumes.iter().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.to_string()),
            (None, Some(_)) => Some(format!("{}-{}", self.metadata.name, volume.name)),
            (None, None) => None,
        })
    }

    /// Deleted for good: its node is done with it.
    fn shut_down(&self) -> bool {
        self.metadata.deleting() && self.metadata.deletion_grace_period_seconds == Some(0)
    }

    /// Whether it keeps this claim in use. A pod without a node does not: no node will start it while the claim is being deleted.
    fn uses(&self, claim: &Meta<'_>) -> bool {
        if self.spec.node_name.is_empty() {
            return false;
        }
        self.spec.volumes.iter().any(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(named), _) => *named.claim_name == *claim.name,
            (None, Some(_)) => {
                !self.shut_down() && *claim.name == *format!("{}-{}", self.metadata.name, volume.name) && claim.controlled_by(&self.metadata.uid)
            }
            (None, None) => false,
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Storage<'a> {
    #[serde(borrow)]
    spec: StorageSpec<'a>,
    status: StorageStatus<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StorageSpec<'a> {
    #[serde(borrow)]
    volume_attributes_class_name: Option<Text<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StorageStatus<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    current_volume_attributes_class_name: Option<Text<'a>>,
    modify_volume_status: Option<Modify<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Modify<'a> {
    #[serde(borrow)]
    target_volume_attributes_class_name: Text<'a>,
}

impl Storage<'_> {
    /// Attribute classes that a claim or volume names.
    fn classes(&self) -> impl Iterator<Item = &str> {
        let target = self.status.modify_volume_status.as_ref().map(|modify| &*modify.target_volume_attributes_class_name);
        let named = [&self.spec.volume_attributes_class_name, &self.status.current_volume_attributes_class_name];
        named.into_iter().flatten().map(|name| &**name).chain(target)
    }
}

/// What a look at one object decides.
fn decide(key: &Key, finalizer: &str, metadata: &Meta<'_>, in_use: impl FnOnce() -> Result<bool, Status>) -> Result<Option<Action>, Status> {
    let held = metadata.has_finalizer(finalizer);
    let others = metadata.finalizers.iter().filter(|f| ***f != *finalizer).map(|f| f.to_string());
    let finalizers: Vec<String> = match (metadata.deleting(), held) {
        (true, true) if !in_use()? => others.collect(),
        (false, false) => others.chain([finalizer.to_string()]).collect(),
        _ => return Ok(None),
    };
    let patch = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}});
    Ok(Some(Action::Patch { key: key.clone(), subresource: "", patch }))
}

fn in_use(snapshot: &Snapshot, object: &Object, metadata: &Meta<'_>) -> Result<bool, Status> {
    let key = &object.key;
    match &*key.resource {
        CLAIMS => {
            for pod in snapshot.range("pods", Some(&key.namespace), None) {
                if parse::<Pod<'_>>(pod)?.uses(metadata) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        VOLUMES => Ok(&*parse::<Storage<'_>>(object)?.status.phase == "Bound"),
        _ => {
            for other in [CLAIMS, VOLUMES].into_iter().flat_map(|resource| snapshot.range(resource, None, None)) {
                if parse::<Storage<'_>>(other)?.classes().any(|class| *class == *key.name) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

#[async_trait]
impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "volume-protection-controller"
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            CLAIMS | VOLUMES => {
                keys.extend(event.new.map(|new| new.key.clone()));
                // A class may be free now.
                if let Some(prev) = event.prev.and_then(|prev| parse::<Storage<'_>>(prev).ok()) {
                    keys.extend(prev.classes().map(|class| Key::new(CLASSES, "", class)));
                }
            }
            CLASSES => keys.extend(event.new.map(|new| new.key.clone())),
            "pods" => {
                // Only a pod that ends sets claims free.
                let (Some(prev), new) = (event.prev, event.new) else { return };
                let ended = |pod: &Object| matches!(pod.meta.field("status.phase"), Some("Succeeded" | "Failed"));
                if new
                    .is_none_or(|new| ended(new) && !ended(prev) || std::str::from_utf8(&new.json).is_ok_and(|j| j.contains("\"deletionTimestamp\"")))
                    && let Ok(pod) = parse::<Pod<'_>>(prev)
                {
                    keys.extend(pod.claims().map(|claim| Key::new(CLAIMS, prev.key.namespace.clone(), claim)));
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        for (resource, _) in FINALIZERS {
            every(snapshot, resource, keys);
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let context = self.acting_for(&key.resource);
        let snapshot = context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        let Some((_, finalizer)) = FINALIZERS.iter().find(|(resource, _)| **resource == *key.resource) else { return Ok(Next::Idle) };
        let headed: Headed<'_> = parse(&object)?;
        let action = decide(key, finalizer, &headed.metadata, || in_use(&snapshot, &object, &headed.metadata))?;
        perform(&context.client, None, action.into_iter().collect()).await.map(|()| Next::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    fn meta(json: &str) -> Meta<'_> {
        parse_bytes::<Headed<'_>>(json.as_bytes()).expect("metadata").metadata
    }

    #[test]
    fn a_finalizer_goes_when_nothing_uses_the_object() {
        let key = Key::new(CLAIMS, "n", "c");
        let finalizers = |metadata: &str, used: bool| {
            decide(&key, "k/p", &meta(metadata), || Ok(used)).expect("decided").map(|action| match action {
                Action::Patch { patch, .. } => patch["metadata"]["finalizers"].clone(),
                other => panic!("{other:?}"),
            })
        };
        let deleted = r#"{"metadata":{"deletionTimestamp":"t","finalizers":["k/p","x/y"]}}"#;
        assert_eq!(finalizers(deleted, false), Some(json!(["x/y"])));
        assert_eq!(finalizers(deleted, true), None);
        assert_eq!(finalizers(r#"{"metadata":{}}"#, true), Some(json!(["k/p"])));
        assert_eq!(finalizers(r#"{"metadata":{"finalizers":["k/p"]}}"#, false), None);
    }

    #[test]
    fn pods_use_what_they_name_while_they_have_a_node() {
        let claim = |owner: &str| format!(r#"{{"metadata":{{"name":"a-data","ownerReferences":[{{"uid":"{owner}","controller":true}}]}}}}"#);
        let pod = |node: &str, volume: &str, rest: &str| {
            format!(r#"{{"metadata":{{"name":"a","uid":"u"{rest}}},"spec":{{"nodeName":"{node}","volumes":[{volume}]}}}}"#)
        };
        let uses = |pod: String, claim: String| parse_bytes::<Pod<'_>>(pod.as_bytes()).expect("pod").uses(&meta(&claim));
        let named = r#"{"name":"v","persistentVolumeClaim":{"claimName":"a-data"}}"#;
        let own = r#"{"name":"data","ephemeral":{"volumeClaimTemplate":{}}}"#;
        assert!(uses(pod("n1", named, ""), claim("x")));
        assert!(!uses(pod("", named, ""), claim("x")));
        assert!(uses(pod("n1", own, ""), claim("u")));
        assert!(!uses(pod("n1", own, ""), claim("x")), "somebody else's claim of that name");
        assert!(!uses(pod("n1", own, r#","deletionTimestamp":"t","deletionGracePeriodSeconds":0"#), claim("u")));
    }

    #[test]
    fn classes_are_named_in_three_places() {
        let claim = r#"{"spec":{"volumeAttributesClassName":"a"},"status":{"currentVolumeAttributesClassName":"b","modifyVolumeStatus":{"targetVolumeAttributesClassName":"c"}}}"#;
        assert_eq!(parse_bytes::<Storage<'_>>(claim.as_bytes()).expect("claim").classes().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
