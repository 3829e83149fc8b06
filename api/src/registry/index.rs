//! The rows by the keys they are looked up with.

use super::{Resource, ResourceRef, newest_first};
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// All rows. Cheap to clone; every clone sees rows that are added later. A reader takes the whole state of a moment and keeps no lock.
#[derive(Clone)]
pub struct Registry {
    built_in: Arc<[ResourceRef]>,
    custom: Arc<Mutex<BTreeMap<String, Vec<ResourceRef>>>>,
    rows: Arc<RwLock<Arc<Rows>>>,
}

/// One state of the registry; never changes.
#[derive(Default)]
struct Rows {
    /// Rows that are served: built-in ones as they were given, then custom ones by group, version and name.
    order: Vec<ResourceRef>,
    /// One row a resource, for those who look at its objects: of several versions the one that is stored.
    kinds: Vec<ResourceRef>,
    by_id: HashMap<String, ResourceRef>,
    by_path: HashMap<(String, String, String), ResourceRef>,
}

impl Rows {
    fn new(built_in: &[ResourceRef], custom: &BTreeMap<String, Vec<ResourceRef>>) -> Self {
        let mut rows = Self { order: built_in.to_vec(), ..Self::default() };
        for row in built_in {
            rows.name(row);
        }
        let mut added: Vec<&ResourceRef> = Vec::new();
        for of_one in custom.values() {
            // A definition cannot take the place of a built-in kind.
            let free = of_one.iter().filter(|row| !rows.by_id.contains_key(&row.id()));
            let mut free: Vec<&ResourceRef> = free.collect();
            free.sort_by_key(|row| !row.custom.as_ref().is_some_and(|custom| custom.storage));
            added.extend(free);
        }
        for row in &added {
            rows.name(row);
        }
        added.retain(|row| row.served());
        added.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| newest_first(&a.version, &b.version)).then_with(|| a.plural.cmp(&b.plural)));
        rows.order.extend(added.into_iter().cloned());
        rows
    }

    fn name(&mut self, row: &ResourceRef) {
        if let Entry::Vacant(place) = self.by_id.entry(row.id()) {
            place.insert(row.clone());
            self.kinds.push(row.clone());
        }
        if row.served() {
            self.by_path.insert((row.group.to_string(), row.version.to_string(), row.plural.to_string()), row.clone());
        }
    }
}

impl Registry {
    /// From rows in discovery's order.
    pub fn new(rows: Vec<Resource>) -> Self {
        let built_in: Arc<[ResourceRef]> = rows.into_iter().map(Arc::new).collect();
        let custom = BTreeMap::new();
        let rows = Rows::new(&built_in, &custom);
        Self { built_in, custom: Arc::new(Mutex::new(custom)), rows: Arc::new(RwLock::new(Arc::new(rows))) }
    }

    /// The built-in kinds.
    pub fn builtin() -> Self {
        Self::new(super::builtin())
    }

    fn now(&self) -> Arc<Rows> {
        // A poisoned lock still holds a whole table: it is only ever replaced.
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By id (`pods`, `deployments.apps`): of several versions the one that objects are stored in, served or not.
    pub fn by_id(&self, id: &str) -> Option<ResourceRef> {
        self.now().by_id.get(id).cloned()
    }

    /// By the parts of a request path.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<ResourceRef> {
        self.now().by_path.get(&(group.to_string(), version.to_string(), plural.to_string())).cloned()
    }

    /// By kind, for bodies and owner references.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<ResourceRef> {
        self.now().order.iter().find(|row| *row.group == *group && *row.version == *version && *row.kind == *kind).cloned()
    }

    /// One row for every resource there are objects of: of several versions the one that is stored, served or not.
    pub fn kinds(&self) -> Vec<ResourceRef> {
        self.now().kinds.clone()
    }

    /// Every row that is served, in discovery's order.
    pub fn all(&self) -> Vec<ResourceRef> {
        self.now().order.clone()
    }

    /// Groups (core first as ``) with their versions, in discovery's order.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<(String, Vec<String>)> = Vec::new();
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.now().order {
            let place = *at.entry(row.group.to_string()).or_insert_with(|| {
                order.push((row.group.to_string(), Vec::new()));
                order.len() - 1
            });
            if let Some((_, versions)) = order.get_mut(place)
                && !versions.iter().any(|version| **version == *row.version)
            {
                versions.push(row.version.to_string());
            }
        }
        order
    }

    /// Rows of one group version.
    pub fn of(&self, group: &str, version: &str) -> Vec<ResourceRef> {
        self.now().order.iter().filter(|row| *row.group == *group && *row.version == *version).cloned().collect()
    }

    /// The rows of one custom resource in every version, instead of those it had; none takes it away.
    pub fn replace(&self, id: &str, rows: Vec<Resource>) {
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match rows.is_empty() {
            true => custom.remove(id),
            false => custom.insert(id.to_string(), rows.into_iter().map(Arc::new).collect()),
        };
        if before.is_some() || custom.contains_key(id) {
            *self.rows.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Rows::new(&self.built_in, &custom));
        }
    }
}
