//! The rows by the keys they are looked up with.

use super::{Resource, ResourceRef};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
};

/// All rows. Cheap to clone; every clone sees rows that are added later.
#[derive(Clone)]
pub struct Registry {
    rows: Arc<RwLock<Arc<Rows>>>,
}

/// One state of the registry; never changes.
#[derive(Default)]
struct Rows {
    order: Vec<ResourceRef>,
    by_id: HashMap<String, ResourceRef>,
    by_path: HashMap<(String, String, String), ResourceRef>,
}

impl Rows {
    fn new(order: Vec<ResourceRef>) -> Self {
        let mut rows = Self::default();
        for row in &order {
            // A resource served in several versions is stored once, under its first row.
            rows.by_id.entry(row.id()).or_insert_with(|| row.clone());
            rows.by_path.insert((row.group.to_string(), row.version.to_string(), row.plural.to_string()), row.clone());
        }
        rows.order = order;
        rows
    }
}

impl Registry {
    /// From rows in discovery's order.
    pub fn new(rows: Vec<Resource>) -> Self {
        Self { rows: Arc::new(RwLock::new(Arc::new(Rows::new(rows.into_iter().map(Arc::new).collect())))) }
    }

    /// The built-in kinds.
    pub fn builtin() -> Self {
        Self::new(super::builtin())
    }

    fn now(&self) -> Arc<Rows> {
        // A poisoned lock still holds a whole table: it is only ever replaced.
        self.rows.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// By id (`pods`, `deployments.apps`): the row objects are stored under.
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

    /// Every row, in discovery's order.
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

    /// Adds a row, or replaces the one with the same group, version and plural.
    pub fn put(&self, row: Resource) {
        self.change(|order| {
            let row = Arc::new(row);
            match order.iter_mut().find(|r| r.group == row.group && r.version == row.version && r.plural == row.plural) {
                Some(place) => *place = row,
                None => order.push(row),
            }
        });
    }

    /// Removes the rows of one resource in every version.
    pub fn remove(&self, id: &str) {
        self.change(|order| order.retain(|row| row.id() != id));
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<ResourceRef>)) {
        let mut rows = self.rows.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut order = rows.order.clone();
        edit(&mut order);
        *rows = Arc::new(Rows::new(order));
    }
}
