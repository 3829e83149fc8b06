//! What a controller owns, the same for every kind that controls pods, sets or revisions: who an object belongs to, and what is to be
//! adopted and let go of.

use super::{
    action::{Action, perform},
    claim::{Claim, claim, patch},
};
use coracle_api::Status;
use coracle_apiserver::{
    client::Client,
    view::{
        Headed, Map, Meta, Owner, Text, parse,
        selector::{LabelSelector, Labelled},
    },
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A kind whose objects control others.
#[derive(Clone, Copy, Debug)]
pub struct Parent {
    /// Resource id, such as `replicasets.apps`.
    pub resource: &'static str,
    /// As owner references have it, such as `apps/v1`.
    pub api_version: &'static str,
    /// Such as `ReplicaSet`.
    pub kind: &'static str,
    /// Whether `spec.selector` of a parent matches the labels of an object; an empty selector matches nothing here.
    pub selects: fn(&Object, &Object) -> bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Selecting<S: Default> {
    spec: SelectingSpec<S>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectingSpec<S: Default> {
    selector: S,
}

/// [`Parent::selects`] of kinds with a `metav1.LabelSelector`.
pub fn by_selector(parent: &Object, object: &Object) -> bool {
    let labels = object.meta.labels.as_slice();
    parse::<Selecting<LabelSelector<'_>>>(parent).is_ok_and(|view| !view.spec.selector.is_empty() && view.spec.selector.matches(labels))
}

/// [`Parent::selects`] of kinds with a plain map of labels.
pub fn by_map(parent: &Object, object: &Object) -> bool {
    let labels = object.meta.labels.as_slice();
    parse::<Selecting<Map<'_>>>(parent).is_ok_and(|view| {
        let wanted = &view.spec.selector;
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.label(key) == Some(&**value))
    })
}

/// The pod template of a stored workload, whole.
///
/// # Errors
/// The object cannot be read.
pub fn pod_template(workload: &Object) -> Result<Value, Status> {
    let whole: Value = parse(workload)?;
    Ok(whole.pointer("/spec/template").cloned().unwrap_or_else(|| json!({})))
}

/// The objects of one resource that name this owner.
pub fn dependents(snapshot: &Snapshot, owner: &str, resource: &str) -> Vec<Arc<Object>> {
    let mut all = snapshot.dependents(owner);
    all.retain(|object| *object.key.resource == *resource);
    all
}

impl Parent {
    /// The reference that what it controls carries.
    pub fn reference<'a>(&self, meta: &Meta<'a>) -> Owner<'a> {
        Owner {
            api_version: Text::from(self.api_version),
            kind: Text::from(self.kind),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            controller: true,
            block_owner_deletion: true,
        }
    }

    /// Whether a reference is to an object of this kind, in whatever version.
    pub fn is_kind_of(&self, owner: &Owner<'_>) -> bool {
        *owner.kind == *self.kind && *owner.group() == *self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Adds the parent that controls an object; for one that nobody controls, those that would adopt it.
    pub fn route(&self, object: &Object, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        if !object.meta.owners.is_empty() {
            let Ok(view) = parse::<Headed<'_>>(object) else { return };
            if let Some(owner) = view.metadata.controller() {
                if self.is_kind_of(owner) {
                    keys.push(Key::new(self.resource, object.key.namespace.clone(), &*owner.name));
                }
                return;
            }
        }
        for parent in snapshot.range(self.resource, Some(&object.key.namespace), None) {
            if (self.selects)(parent, object) {
                keys.push(parent.key.clone());
            }
        }
    }

    /// Adopts what matches and nobody controls, releases what matches no longer, and returns what the parent of this metadata controls
    /// then. `matches` is asked besides the selector; only what `adopts` is taken.
    ///
    /// # Errors
    /// A lost race or a refusal.
    pub async fn claim(
        &self,
        client: &Client,
        resource: &str,
        meta: &Meta<'_>,
        selector: &LabelSelector<'_>,
        matches: impl Fn(&Object) -> bool,
        adopts: impl Fn(&Object) -> bool,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let us = self.reference(meta);
        // A selector of nothing judges nobody.
        let idle = meta.deleting() || selector.is_empty();
        let candidates = || -> Vec<Arc<Object>> {
            let snapshot = client.store().snapshot();
            let ours = |object: &Object| object.meta.owners.iter().any(|owner| **owner == *meta.uid);
            let selected = |object: &Object| !selector.is_empty() && selector.matches(object.meta.labels.as_slice());
            snapshot.range(resource, Some(&meta.namespace), None).filter(|object| ours(object) || selected(object)).cloned().collect()
        };
        let controlled = |objects: Vec<Arc<Object>>| -> Result<(Vec<Arc<Object>>, Vec<Action>), Status> {
            let (mut kept, mut claims) = (Vec::with_capacity(objects.len()), Vec::new());
            for object in objects {
                let view: Headed<'_> = parse(&object)?;
                let selected = !selector.is_empty() && selector.matches(&view.metadata.labels) && matches(&object);
                match claim(&view.metadata, &us.uid, selected, idle) {
                    Claim::Adopt if adopts(&object) => claims.push(patch(object.key.clone(), &view.metadata, &us, true)),
                    Claim::Release => claims.push(patch(object.key.clone(), &view.metadata, &us, false)),
                    _ => {}
                }
                if view.metadata.controlled_by(&us.uid) {
                    drop(view);
                    kept.push(object);
                }
            }
            Ok((kept, claims))
        };
        let (kept, claims) = controlled(candidates())?;
        if claims.is_empty() {
            return Ok(kept);
        }
        perform(client, None, claims).await?;
        controlled(candidates()).map(|(kept, _)| kept)
    }
}
