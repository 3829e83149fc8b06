//! Deletes what its owners left behind (Kubernetes' generic-garbage-collector): background, foreground and orphan deletion.
//!
//! Upstream keeps a graph of the whole cluster in memory, fed by a watch per resource, and asks the API server again about owners it
//! has not seen. Here the store's index of owners is the graph, and its snapshot is never in doubt about what exists, so there is
//! neither a second graph nor a cache of absent owners.

pub mod decide;

use self::decide::{Owned, Standing, dependent, release_orphans, without_finalizer};
use super::{
    Context, Kinds,
    action::{Action, perform, perform_one},
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::{Scope, Status};
use coracle_apiserver::view::{Headed, Owner, parse};
use coracle_store::{Key, Object, Snapshot};
use futures::{StreamExt, TryStreamExt, stream};

/// Finalizer of an object that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to be left without it.
pub const ORPHAN: &str = "orphan";
/// Writes under way at once for one object.
const PARALLEL: usize = 32;

/// See the module.
pub struct Garbage {
    context: Context,
    kinds: Kinds,
}

impl Garbage {
    /// Acting as `generic-garbage-collector`.
    pub fn new(context: &Context, kinds: Kinds) -> Self {
        Self { context: context.acting_as("generic-garbage-collector"), kinds }
    }

    /// Resource id and scope of an owner; None if its kind is not known.
    fn kind(&self, owner: &Owner<'_>) -> Option<(String, Scope)> {
        let kinds = (self.kinds)();
        let kind = kinds.iter().find(|kind| *kind.group == *owner.group() && *kind.kind == *owner.kind)?;
        Some((kind.id(), kind.scope))
    }

    /// Where an owner would be; None if its kind is not known or it cannot be an owner from there.
    fn owner_key(&self, owner: &Owner<'_>, namespace: &str) -> Option<Key> {
        match self.kind(owner)? {
            (id, Scope::Cluster) => Some(Key::new(id, "", &*owner.name)),
            // A cluster-scoped object cannot be owned by one in a namespace.
            (_, Scope::Namespaced) if namespace.is_empty() => None,
            (id, Scope::Namespaced) => Some(Key::new(id, namespace, &*owner.name)),
        }
    }

    /// Whether an owner is there, but in a namespace from which it cannot own an object of `namespace`.
    fn is_elsewhere(&self, snapshot: &Snapshot, owner: &Owner<'_>, namespace: &str) -> bool {
        let Some((id, Scope::Namespaced)) = self.kind(owner) else { return false };
        let others = snapshot.range("namespaces", None, None).map(|other| &other.key.name).filter(|other| ***other != *namespace);
        let mut owners = others.filter_map(|other| snapshot.get(&Key::new(id.as_str(), other.clone(), &*owner.name)));
        owners.any(|found| *found.meta.uid == *owner.uid)
    }

    /// Owners in other namespaces own nothing here: that is told.
    fn tell(&self, snapshot: &Snapshot, object: &Object) -> Result<(), Status> {
        let namespace = &*object.key.namespace;
        for owner in &parse::<Headed<'_>>(object)?.metadata.owner_references {
            let stands =
                matches!(self.owner_key(owner, namespace), Some(key) if snapshot.get(&key).is_some_and(|found| *found.meta.uid == *owner.uid));
            if !stands && self.is_elsewhere(snapshot, owner, namespace) {
                let Owner { api_version, kind, name, uid, .. } = owner;
                let reference = format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]");
                let message = format!("ownerRef {reference} does not exist in namespace \"{namespace}\"");
                self.context.client.event(object, "Warning", "OwnerRefInvalidNamespace", &message);
            }
        }
        Ok(())
    }

    fn standing(&self, snapshot: &Snapshot, owner: &Owner<'_>, namespace: &str) -> Result<Standing, Status> {
        let Some(key) = self.owner_key(owner, namespace) else { return Ok(Standing::Unknown) };
        let Some(object) = snapshot.get(&key).filter(|object| *object.meta.uid == *owner.uid) else { return Ok(Standing::Absent) };
        let view: Headed<'_> = parse(&object)?;
        let waits = view.metadata.deleting() && view.metadata.has_finalizer(FOREGROUND);
        Ok(if waits { Standing::Waiting } else { Standing::Present })
    }

    /// What is to be done about an object for its owners' sake.
    fn judge(&self, snapshot: &Snapshot, object: &Object) -> Result<Vec<Action>, Status> {
        let view: Headed<'_> = parse(object)?;
        let mut owners = Vec::new();
        for owner in &view.metadata.owner_references {
            owners.push((owner, self.standing(snapshot, owner, &object.key.namespace)?));
        }
        let below = snapshot.dependents(&object.meta.uid);
        let mut circle = false;
        for below in &below {
            let meta = parse::<Headed<'_>>(below)?.metadata;
            circle |= meta.deleting() && meta.has_finalizer(FOREGROUND);
        }
        Ok(dependent(&object.key, &view.metadata, &owners, Owned { any: !below.is_empty(), circle }))
    }

    async fn each(&self, actions: Vec<Action>) -> Result<(), Status> {
        let client = &self.context.client;
        let writes = actions.into_iter().map(|action| async move {
            match perform_one(client, None, action).await {
                Err(status) if status.is_not_found() => Ok(()),
                result => result,
            }
        });
        stream::iter(writes).buffer_unordered(PARALLEL).try_collect::<()>().await
    }
}

fn mentions(object: &Object, word: &str) -> bool {
    std::str::from_utf8(&object.json).is_ok_and(|json| json.contains(word))
}

#[async_trait]
impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn concurrency(&self) -> usize {
        64
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.prev, event.new) {
            (Some(prev), None) => keys.extend(event.snapshot.dependents(&prev.meta.uid).iter().map(|o| o.key.clone())),
            (prev, Some(new)) => {
                let reowned = !new.meta.owners.is_empty() && prev.is_none_or(|prev| prev.meta.owners != new.meta.owners);
                if reowned || mentions(new, "\"foregroundDeletion\"") || mentions(new, "\"orphan\"") {
                    keys.push(new.key.clone());
                }
            }
            (None, None) => {}
        }
        // An owner may wait for this one: it went, is going, or has been let go of.
        let Some(prev) = event.prev.filter(|prev| !prev.meta.owners.is_empty()) else { return };
        let matters = event.new.is_none_or(|new| new.meta.owners != prev.meta.owners || mentions(new, "\"deletionTimestamp\""));
        if matters && let Ok(view) = parse::<Headed<'_>>(prev) {
            for owner in &view.metadata.owner_references {
                if let Some(key) = self.owner_key(owner, &prev.key.namespace)
                    && event.snapshot.get(&key).is_some_and(|owner| mentions(&owner, "\"foregroundDeletion\""))
                {
                    keys.push(key);
                }
            }
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        for (resource, _) in snapshot.resources() {
            for object in snapshot.range(resource, None, None) {
                if !object.meta.owners.is_empty() || mentions(object, "\"foregroundDeletion\"") || mentions(object, "\"orphan\"") {
                    keys.push(object.key.clone());
                }
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        if key.resource.starts_with('~') {
            return Ok(Next::Idle);
        }
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        let view: Headed<'_> = parse(&object)?;
        let meta = &view.metadata;
        if !meta.deleting() {
            self.tell(&snapshot, &object)?;
            self.each(self.judge(&snapshot, &object)?).await?;
        } else if meta.has_finalizer(ORPHAN) {
            let mut releases = Vec::new();
            for below in snapshot.dependents(&meta.uid) {
                releases.push(release_orphans(&below.key, &parse::<Headed<'_>>(&below)?.metadata, &meta.uid));
            }
            self.each(releases).await?;
            perform(&self.context.client, None, vec![without_finalizer(key, meta, ORPHAN)]).await?;
        } else if meta.has_finalizer(FOREGROUND) {
            let mut deletions = Vec::new();
            let mut blocked = false;
            for below in snapshot.dependents(&meta.uid) {
                let view: Headed<'_> = parse(&below)?;
                blocked |= view.metadata.owner_references.iter().any(|o| o.uid == meta.uid && o.block_owner_deletion);
                if !view.metadata.deleting() {
                    deletions.extend(self.judge(&snapshot, &below)?);
                }
            }
            self.each(deletions).await?;
            if !blocked {
                perform(&self.context.client, None, vec![without_finalizer(key, meta, FOREGROUND)]).await?;
            }
        }
        Ok(Next::Idle)
    }
}
