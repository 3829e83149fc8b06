//! The claims of a StatefulSet's pods: which are missing, and who must own them for the retention policy to hold (KEP-1847).

use super::{StatefulSet, identity::claim_name};
use crate::controllers::action::Action;
use coracle_api::Status;
use coracle_apiserver::view::{Headed, Meta, Owner, parse};
use coracle_store::{Key, Object, Snapshot};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Resource id of claims.
pub const CLAIMS: &str = "persistentvolumeclaims";

/// The claims of a set that exist, by name.
pub struct Claims(BTreeMap<Box<str>, Arc<Object>>);

impl Claims {
    /// Reads them.
    pub fn of(snapshot: &Snapshot, set: &StatefulSet<'_>) -> Self {
        let infix: Vec<String> = set.claim_templates().map(|template| format!("{template}-{}-", set.metadata.name)).collect();
        let namespace = Some(&*set.metadata.namespace).filter(|_| !infix.is_empty());
        let all = namespace.into_iter().flat_map(|namespace| snapshot.range(CLAIMS, Some(namespace), None));
        let ours = all.filter(|claim| infix.iter().any(|prefix| claim.key.name.starts_with(&**prefix)));
        Self(ours.map(|claim| ((&*claim.key.name).into(), Arc::clone(claim))).collect())
    }

    #[cfg(test)]
    pub(super) fn from(objects: Vec<Arc<Object>>) -> Self {
        Self(objects.into_iter().map(|claim| ((&*claim.key.name).into(), claim)).collect())
    }

    fn meta(&self, name: &str) -> Result<Option<Meta<'_>>, Status> {
        self.0.get(name).map(|object| parse::<Headed<'_>>(object).map(|view| view.metadata)).transpose()
    }

    /// Creates what is missing for the pod of this number.
    ///
    /// # Errors
    /// A sentence about a claim that is there but on its way out.
    pub fn missing(&self, set: &StatefulSet<'_>, ordinal: i64) -> Result<Vec<Action>, Status> {
        let mut actions = Vec::new();
        for template in &set.spec.volume_claim_templates {
            let name = claim_name(template["metadata"]["name"].as_str().unwrap_or_default(), &set.metadata.name, ordinal);
            match self.meta(&name)? {
                None => actions.push(Action::Create { resource: CLAIMS, object: make(set, template, &name) }),
                Some(meta) if meta.deleting() => return Err(Status::internal(format_args!("pvc {name} is being deleted"))),
                Some(_) => {}
            }
        }
        Ok(actions)
    }

    /// Whether a claim still belongs to a namesake of the pod that is to be made: it is deleted with that pod, and must not be used.
    pub fn stale(&self, set: &StatefulSet<'_>, ordinal: i64) -> Result<bool, Status> {
        if set.spec.persistent_volume_claim_retention_policy.when_scaled != "Delete" {
            return Ok(false);
        }
        let pod = format!("{}-{ordinal}", set.metadata.name);
        for template in set.claim_templates() {
            let meta = self.meta(&claim_name(template, &set.metadata.name, ordinal))?;
            if meta.is_some_and(|meta| meta.owner_references.iter().any(|owner| is_pod(owner, &pod))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Brings the owners of a pod's claims in line with the policy. `uid` is the pod's, `condemned` that its number is no longer wanted.
    /// The names are of claims that somebody else controls, for which the policy cannot hold.
    pub fn retain(&self, set: &StatefulSet<'_>, us: &Owner<'_>, pod: &Meta<'_>, ordinal: i64, condemned: bool) -> Result<Retention, Status> {
        let mut retention = Retention::default();
        for template in set.claim_templates() {
            let name = claim_name(template, &set.metadata.name, ordinal);
            let Some(meta) = self.meta(&name)? else { continue };
            let Some(owners) = owners(set, us, pod, &meta, condemned, &mut retention, &name) else { continue };
            let owners = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
            let patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners } });
            retention.actions.push(Action::Patch { key: Key::new(CLAIMS, &*set.metadata.namespace, &*name), subresource: "", patch });
        }
        Ok(retention)
    }
}

/// See [`Claims::retain`].
#[derive(Debug, Default)]
pub struct Retention {
    /// Writes of owner references.
    pub actions: Vec<Action>,
    /// Claims that somebody else controls.
    pub conflicts: Vec<String>,
}

fn make(set: &StatefulSet<'_>, template: &Value, name: &str) -> Value {
    let mut metadata = json!({ "name": name, "namespace": set.metadata.namespace });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    for (key, value) in &set.spec.selector.match_labels {
        metadata["labels"][&**key] = json!(value);
    }
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"] })
}

fn is_pod(owner: &Owner<'_>, name: &str) -> bool {
    owner.api_version == "v1" && owner.kind == "Pod" && *owner.name == *name
}

/// The owner references that a claim should have; None if it is to be left as it is.
fn owners(
    set: &StatefulSet<'_>,
    us: &Owner<'_>,
    pod: &Meta<'_>,
    claim: &Meta<'_>,
    condemned: bool,
    retention: &mut Retention,
    name: &str,
) -> Option<Vec<Value>> {
    let policy = &set.spec.persistent_volume_claim_retention_policy;
    let (on_scale, on_delete) = (policy.when_scaled == "Delete", policy.when_deleted == "Delete");
    let is_set = |owner: &Owner<'_>| owner.api_version == us.api_version && owner.kind == us.kind && owner.name == us.name;
    let refs = &claim.owner_references;
    // Somebody of our name who is not us: a set or a pod from before. Its claims are the garbage collector's.
    let first = |same: &dyn Fn(&Owner<'_>) -> bool, uid: &str| refs.iter().find(|o| same(o)).is_some_and(|o| *o.uid != *uid);
    if first(&is_set, &us.uid) || first(&|owner| is_pod(owner, &pod.name), &pod.uid) {
        return None;
    }
    let stranger = |owner: &&Owner<'_>| match () {
        () if is_set(owner) => owner.uid != us.uid,
        () if is_pod(owner, &pod.name) => owner.uid != pod.uid,
        () => owner.controller,
    };
    let unexpected = (on_scale || on_delete) && refs.iter().any(|owner| stranger(&owner));
    let has = |uid: &str| refs.iter().any(|owner| *owner.uid == *uid);
    let (set_owns, pod_owns) = (has(&us.uid), has(&pod.uid));
    let (want_set, want_pod) = match unexpected {
        true => (false, false),
        false => (on_delete && !(on_scale && condemned), on_scale && condemned),
    };
    if unexpected && (set_owns || pod_owns) {
        retention.conflicts.push(name.to_owned());
    }
    let not_controlling = refs.iter().any(|owner| (owner.uid == us.uid || owner.uid == pod.uid) && !owner.controller);
    if (set_owns, pod_owns) == (want_set, want_pod) && (unexpected || !not_controlling) {
        return None;
    }
    let mut owners: Vec<Value> = refs.iter().filter(|owner| !is_set(owner) && !is_pod(owner, &pod.name)).map(Owner::to_json).collect();
    if want_set {
        owners.push(us.to_json());
    }
    if want_pod {
        let pod = Owner {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: true,
            block_owner_deletion: true,
        };
        owners.push(pod.to_json());
    }
    Some(owners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::fixture;

    fn set(when_scaled: &str, when_deleted: &str) -> String {
        json!({ "metadata": { "name": "web", "namespace": "n", "uid": "s1" }, "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "persistentVolumeClaimRetentionPolicy": { "whenScaled": when_scaled, "whenDeleted": when_deleted },
            "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "tier": "gold" } }, "spec": { "accessModes": ["ReadWriteOnce"] } }] } })
        .to_string()
    }

    fn claim(owners: Value) -> Claims {
        let object = json!({ "metadata": { "name": "data-web-0", "namespace": "n", "uid": "c", "ownerReferences": owners } });
        Claims::from(vec![fixture::object(CLAIMS, 1, object)])
    }

    fn of_set(uid: &str) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": uid, "controller": true, "blockOwnerDeletion": true })
    }
    fn of_pod(uid: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": uid, "controller": true, "blockOwnerDeletion": true })
    }

    /// What the owners become, or None if they stay.
    fn retained(policy: (&str, &str), condemned: bool, owners: Value) -> Option<Value> {
        let text = set(policy.0, policy.1);
        let set: StatefulSet<'_> = serde_json::from_str(&text).expect("a set");
        let us = super::super::PARENT.reference(&set.metadata);
        let pod = Meta { name: "web-0".into(), uid: "p1".into(), ..Meta::default() };
        let retention = claim(owners).retain(&set, &us, &pod, 0, condemned).expect("judged");
        match &retention.actions[..] {
            [] => None,
            [Action::Patch { patch, .. }] => Some(patch["metadata"]["ownerReferences"].clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_policy_says_who_owns_a_claim() {
        let (retain, delete) = ("Retain", "Delete");
        assert_eq!(retained((retain, retain), false, json!([])), None);
        assert_eq!(retained((retain, retain), false, json!([of_set("s1")])), Some(Value::Null));
        assert_eq!(retained((retain, delete), false, json!([])), Some(json!([of_set("s1")])));
        assert_eq!(retained((retain, delete), true, json!([of_set("s1")])), None, "scaling keeps the claim");
        assert_eq!(retained((delete, retain), false, json!([])), None);
        assert_eq!(retained((delete, retain), true, json!([])), Some(json!([of_pod("p1")])));
        assert_eq!(retained((delete, delete), false, json!([of_pod("p1")])), Some(json!([of_set("s1")])), "scaled up again in time");
        assert_eq!(retained((delete, delete), true, json!([of_set("s1")])), Some(json!([of_pod("p1")])));
        let mut loose = of_set("s1");
        loose["controller"] = json!(false);
        assert_eq!(retained((retain, delete), false, json!([loose])), Some(json!([of_set("s1")])));
    }

    #[test]
    fn what_others_own_is_left_to_them() {
        assert_eq!(retained(("Retain", "Delete"), false, json!([of_set("s0")])), None, "a set from before");
        assert_eq!(retained(("Delete", "Delete"), true, json!([of_pod("p0")])), None, "a pod from before");
        let other = json!({ "apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true });
        assert_eq!(retained(("Retain", "Delete"), false, json!([other])), None);
        assert_eq!(retained(("Retain", "Delete"), false, json!([other, of_set("s1")])), Some(json!([other])));
        let friend = json!({ "apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x" });
        assert_eq!(retained(("Retain", "Delete"), false, json!([friend])), Some(json!([friend, of_set("s1")])));
    }

    #[test]
    fn a_missing_claim_is_made_with_the_selectors_labels() {
        let text = set("Delete", "Retain");
        let set: StatefulSet<'_> = serde_json::from_str(&text).expect("a set");
        let actions = claim(json!([])).missing(&set, 1).expect("possible");
        let [Action::Create { object, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(object["metadata"], json!({ "name": "data-web-1", "namespace": "n", "labels": { "app": "web", "tier": "gold" } }));
        assert_eq!(object["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        assert_eq!(claim(json!([])).missing(&set, 0).expect("there"), []);
        assert!(claim(json!([of_pod("p0")])).stale(&set, 0).expect("judged"));
        assert!(!claim(json!([of_set("s1")])).stale(&set, 0).expect("judged"));
    }
}
