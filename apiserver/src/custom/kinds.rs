//! The set of custom kinds: registry rows that follow the stored definitions, on every server by itself.

use super::{DEFINITIONS, Kind, definition, key};
use coracle_api::Registry;
use coracle_store::{Error, Scope, Store};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// The custom kinds of this server. What it knows is always made from the newest stored state, by whoever finds that it is behind.
pub struct Kinds {
    store: Store,
    registry: Registry,
    known: Mutex<HashMap<Box<str>, Arc<Kind>>>,
}

impl Kinds {
    /// Knows what is stored already.
    pub fn new(store: Store, registry: Registry) -> Self {
        let kinds = Self { store, registry, known: Mutex::default() };
        kinds.catch_up();
        kinds
    }

    /// Brings the rows of one definition up to what is stored.
    pub fn refresh(&self, definition: &str) {
        let mut known = self.known.lock();
        // Taken under the lock, so that what is known never goes back.
        let stored = self.store.snapshot().get(&key(definition));
        let before = known.get(definition).cloned();
        let Some(object) = stored else {
            if let Some(before) = before {
                known.remove(definition);
                self.registry.replace(definition, Vec::new());
                before.versions.iter().for_each(|version| version.alive.cancel());
            }
            return;
        };
        if before.as_ref().is_some_and(|before| before.revision == object.revision) {
            return;
        }
        match definition::read(&object, before.as_deref()) {
            Ok(made) => {
                known.insert(definition.into(), made.kind.clone());
                let served: Vec<_> = made.rows.iter().filter(|row| row.served()).map(|row| row.version.clone()).collect();
                let ended = before.iter().flat_map(|before| &before.versions).filter(|version| !served.contains(&version.name));
                self.registry.replace(definition, made.rows);
                ended.for_each(|version| version.alive.cancel());
            }
            Err(error) => tracing::error!(%error, definition, "a stored CustomResourceDefinition cannot be read; its kind is not served"),
        }
    }

    /// Brings everything up to what is stored: for readers who may have seen a definition before this server's own watch did.
    pub fn catch_up(&self) {
        let snapshot = self.store.snapshot();
        let known: HashMap<Box<str>, u64> = self.known.lock().iter().map(|(name, kind)| (name.clone(), kind.revision)).collect();
        let mut seen = 0;
        for object in snapshot.range(DEFINITIONS, None, None) {
            match known.get(&*object.key.name) {
                Some(revision) => {
                    seen += 1;
                    if *revision != object.revision {
                        self.refresh(&object.key.name);
                    }
                }
                None => self.refresh(&object.key.name),
            }
        }
        if seen < known.len() {
            known.keys().filter(|name| snapshot.get(&key(name)).is_none()).for_each(|name| self.refresh(name));
        }
    }

    /// Follows the stored definitions until the store closes.
    pub async fn run(&self) {
        loop {
            let (_, mut watch) = self.store.list_watch(Scope::resource(DEFINITIONS));
            self.catch_up();
            loop {
                match watch.next().await {
                    Ok(changes) => changes.iter().filter_map(|change| change.key()).for_each(|key| self.refresh(&key.name)),
                    Err(Error::Gone { .. }) => break,
                    Err(_) => return,
                }
            }
        }
    }
}
