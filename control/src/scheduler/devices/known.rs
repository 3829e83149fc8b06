//! Devices there are and devices that claims have, read once each time that they change: every pod with claims looks at all of them.

use super::{
    CLAIMS, SLICES,
    model::{DeviceId, GivenDevice, Slice},
    pools::Gathered,
};
use coracle_apiserver::view::parse;
use coracle_store::{Key, Object};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Known {
    slices: BTreeMap<Key, Arc<Slice>>,
    pools: Arc<Gathered>,
    given: HashMap<Key, Vec<DeviceId>>,
    /// How many claims have a device: never more than one, but for mistakes of others.
    holders: HashMap<DeviceId, usize>,
    /// What could not be read keeps pods waiting: a claim that is left out would have its devices given twice.
    unreadable: BTreeMap<Key, String>,
}

/// What is read of a claim here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Allocated {
    status: AllocatedStatus,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct AllocatedStatus {
    allocation: Option<super::model::Allocation>,
}

impl Known {
    /// A slice or a claim is like this now, or gone. [`Known::gather`] follows.
    pub fn read(&mut self, key: &Key, object: Option<&Object>) {
        self.unreadable.remove(key);
        let failed = match &*key.resource {
            SLICES => self.slice(key, object),
            CLAIMS => self.claim(key, object),
            _ => Ok(()),
        };
        if let Err(status) = failed {
            self.unreadable.insert(key.clone(), status.message);
        }
    }

    fn slice(&mut self, key: &Key, object: Option<&Object>) -> Result<(), coracle_api::Status> {
        self.slices.remove(key);
        if let Some(object) = object {
            self.slices.insert(key.clone(), Arc::new(parse(object)?));
        }
        Ok(())
    }

    fn claim(&mut self, key: &Key, object: Option<&Object>) -> Result<(), coracle_api::Status> {
        for id in self.given.remove(key).into_iter().flatten() {
            if let Some(holders) = self.holders.get_mut(&id) {
                *holders -= 1;
                if *holders == 0 {
                    self.holders.remove(&id);
                }
            }
        }
        let Some(object) = object else { return Ok(()) };
        let allocation = parse::<Allocated>(object)?.status.allocation.unwrap_or_default();
        let given = ids(allocation.devices.results);
        given.iter().for_each(|id| *self.holders.entry(id.clone()).or_default() += 1);
        if !given.is_empty() {
            self.given.insert(key.clone(), given);
        }
        Ok(())
    }

    /// Slices changed: their pools are put together anew.
    pub fn gather(&mut self) {
        self.pools = Arc::new(Gathered::of(self.slices.values()));
    }

    /// The pools.
    ///
    /// # Errors
    /// When something could not be read.
    pub fn pools(&self) -> Result<Arc<Gathered>, String> {
        self.unreadable.values().next().map_or_else(|| Ok(self.pools.clone()), |why| Err(why.clone()))
    }

    /// Whether a claim has a device.
    pub fn is_given(&self, id: &DeviceId) -> bool {
        self.holders.contains_key(id)
    }
}

/// The devices that are given to one claim alone: those of administrators are given to others as well.
pub fn ids(results: Vec<GivenDevice>) -> Vec<DeviceId> {
    results.into_iter().filter(|given| !given.admin_access).map(|given| given.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::fixture::object;
    use serde_json::{Value, json};

    fn claim(name: &str, results: Value) -> Arc<Object> {
        let status = json!({"allocation": {"devices": {"results": results}}});
        object(CLAIMS, 1, json!({"metadata": {"name": name, "namespace": "n"}, "status": status}))
    }

    #[test]
    fn a_device_is_given_for_as_long_as_a_claim_has_it() {
        let result = |device: &str| json!({"driver": "d", "pool": "p", "device": device});
        let id = |device: &str| DeviceId { driver: "d".into(), pool: "p".into(), device: device.into() };
        let mut known = Known::default();
        let (one, two) = (claim("one", json!([result("a"), result("b")])), claim("two", json!([result("b")])));
        for object in [&one, &two] {
            known.read(&object.key, Some(object));
        }
        assert!(known.is_given(&id("a")) && known.is_given(&id("b")));
        known.read(&one.key, Some(&claim("one", json!([]))));
        assert!(!known.is_given(&id("a")) && known.is_given(&id("b")), "the second has it still");
        known.read(&two.key, None);
        assert!(!known.is_given(&id("b")));
        let mut admin = result("c");
        admin["adminAccess"] = json!(true);
        let admin = claim("admin", json!([admin]));
        known.read(&admin.key, Some(&admin));
        assert!(!known.is_given(&id("c")));
        assert!(known.holders.is_empty() && known.given.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_until_it_is_gone() {
        let mut known = Known::default();
        let broken = object(SLICES, 1, json!({"metadata": {"name": "s"}, "spec": {"devices": "none"}}));
        known.read(&broken.key, Some(&broken));
        known.gather();
        assert!(known.pools().is_err());
        known.read(&broken.key, None);
        known.gather();
        assert!(known.pools().is_ok());
    }
}
