//! Keeps the index in step with the store.

use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, index::Index};
use coracle_store::{Change, Error, Scope, Store};
use parking_lot::RwLock;
use std::sync::Arc;

/// Runs until the store is closed. After falling too far behind it begins again from a snapshot; until then the old rules hold.
pub async fn follow(store: &Store, rules: &RwLock<Index>) {
    loop {
        // The watches first, the snapshot after: nothing falls between, and what is seen twice is put twice.
        let watch = |resource: &str| {
            let scope = Scope { resource: Some(resource.into()), namespace: None, name: None, field: None };
            store.list_watch(scope).1
        };
        let mut watches = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS].map(watch);
        let fresh = Index::of(&store.snapshot());
        *rules.write() = fresh;
        loop {
            let [a, b, c, d] = &mut watches;
            let batch = tokio::select! {
                batch = a.next() => batch,
                batch = b.next() => batch,
                batch = c.next() => batch,
                batch = d.next() => batch,
            };
            match batch {
                Ok(changes) => apply(rules, &changes),
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "RBAC rules are read anew");
                    break;
                }
            }
        }
    }
}

fn apply(rules: &RwLock<Index>, changes: &[Arc<Change>]) {
    let mut index = rules.write();
    for change in changes {
        index.apply(change.prev.as_deref(), change.new.as_deref());
    }
    index.aggregate();
}
