//! Which devices can be used on a node: slices gathered to pools, of which the newest generation counts and an unfinished one does not.

use super::{
    allocate::{Candidate, INCOMPLETE, INVALID, Pool},
    model::{Device, DeviceId, Place, Slice},
};
use crate::scheduler::cluster::Node;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

fn is_at(place: &Place, node: &Node) -> bool {
    match (&place.node_name, &place.node_selector) {
        (Some(name), _) if !name.is_empty() => **name == *node.name,
        _ if place.all_nodes => true,
        (_, Some(selector)) => node.is_selected(selector),
        _ => false,
    }
}

/// The slices of a pool that count.
#[derive(Clone, Debug)]
struct Whole {
    driver: String,
    name: String,
    /// Each with what its devices are called.
    slices: Vec<(Arc<Slice>, Vec<DeviceId>)>,
    /// None is missing.
    whole: bool,
    /// No two devices have one name.
    unique: bool,
}

/// All slices, put together to pools.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    pools: Vec<Whole>,
    /// Which pools are about a node, by its name.
    near: HashMap<String, Vec<usize>>,
    /// Pools that may be about any node.
    wide: Vec<usize>,
}

impl Gathered {
    /// Puts slices together.
    pub fn of<'s>(slices: impl Iterator<Item = &'s Arc<Slice>>) -> Self {
        let mut by_pool: BTreeMap<(&str, &str), Vec<&'s Arc<Slice>>> = BTreeMap::new();
        // Counters that devices share are not counted here: such pools are left alone.
        for slice in slices.filter(|slice| slice.spec.shared_counters.is_empty()) {
            by_pool.entry((&slice.spec.driver, &slice.spec.pool.name)).or_default().push(slice);
        }
        let mut gathered = Self::default();
        for (nth, ((driver, name), mut slices)) in by_pool.into_iter().enumerate() {
            let newest = slices.iter().map(|slice| slice.spec.pool.generation).max().unwrap_or(0);
            slices.retain(|slice| slice.spec.pool.generation == newest);
            let nodes: Option<BTreeSet<&str>> = slices.iter().map(|slice| slice.spec.at_one_node()).collect();
            match nodes {
                Some(nodes) => nodes.into_iter().for_each(|node| gathered.near.entry(node.into()).or_default().push(nth)),
                None => gathered.wide.push(nth),
            }
            let whole = slices.first().is_some_and(|slice| slice.spec.pool.resource_slice_count == slices.len());
            let id = |device: &Device| DeviceId { driver: driver.into(), pool: name.into(), device: device.name.clone() };
            let slices = slices.into_iter().map(|slice| (slice.clone(), slice.spec.devices.iter().map(id).collect())).collect();
            let mut whole = Whole { driver: driver.into(), name: name.into(), slices, whole, unique: false };
            whole.unique = unique(whole.slices.iter().flat_map(|(_, ids)| ids));
            gathered.pools.push(whole);
        }
        gathered
    }

    /// The pools that have devices for a node.
    pub fn at(&self, node: &Node) -> Vec<Pool<'_>> {
        let near = self.near.get(&*node.name).into_iter().flatten();
        let all: BTreeSet<usize> = near.chain(&self.wide).copied().collect();
        all.into_iter().filter_map(|nth| self.pools.get(nth)?.at(node)).collect()
    }
}

fn unique<'i>(mut ids: impl Iterator<Item = &'i DeviceId>) -> bool {
    let mut seen = HashSet::new();
    ids.all(|id| seen.insert(&*id.device))
}

impl Whole {
    /// The pool, if it has devices for a node.
    fn at(&self, node: &Node) -> Option<Pool<'_>> {
        let mut pool = Pool { name: (self.driver.clone(), self.name.clone()), ..Pool::default() };
        for (slice, ids) in &self.slices {
            let of_slice = !slice.spec.per_device_node_selection;
            if of_slice && !is_at(&slice.spec.place, node) {
                continue;
            }
            for (device, id) in slice.spec.devices.iter().zip(ids) {
                let place = if of_slice { &slice.spec.place } else { &device.place };
                if of_slice || is_at(place, node) {
                    pool.devices.push(Candidate { id, device, place });
                }
            }
        }
        if pool.devices.is_empty() {
            return None;
        }
        pool.unusable = match () {
            () if !self.whole => Some(INCOMPLETE),
            () if self.unique || unique(pool.devices.iter().map(|candidate| candidate.id)) => None,
            () => Some(INVALID),
        };
        Some(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{cluster::Cluster, plugins::fixture};
    use serde_json::{Value, json};

    fn slice(pool: &str, generation: u32, count: u32, more: Value) -> Arc<Slice> {
        let mut spec = json!({"driver": "d", "pool": {"name": pool, "generation": generation, "resourceSliceCount": count}});
        spec.as_object_mut().expect("a spec").extend(more.as_object().cloned().unwrap_or_default());
        Arc::new(serde_json::from_value(json!({ "spec": spec })).expect("a slice"))
    }

    /// What there is on nodes `a` and `b` (in zone `east`), as `pool: devices`, and why a pool is unusable.
    fn there(slices: &[Arc<Slice>]) -> [Vec<String>; 2] {
        let gathered = Gathered::of(slices.iter());
        let mut cluster = Cluster::default();
        for (name, labels) in [("a", json!({})), ("b", json!({"zone": "east"}))] {
            cluster.set_node(&fixture::node(name, "1", json!({"metadata": {"labels": labels}}))).expect("a node");
        }
        let shown = |pool: &Pool<'_>| {
            let devices: Vec<&str> = pool.devices.iter().map(|candidate| candidate.id.device.as_str()).collect();
            format!("{}: {}{}", pool.name.1, devices.join(" "), pool.unusable.map(|why| format!(" ({why})")).unwrap_or_default())
        };
        ["a", "b"].map(|name| gathered.at(cluster.node(name).expect("the node")).iter().map(shown).collect())
    }

    #[test]
    fn nodes_have_the_devices_of_their_pools_newest_slices() {
        let devices = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        let at = |node: &str, names: &[&str]| json!({"nodeName": node, "devices": devices(names)});
        let east = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["east"]}]}]});
        assert_eq!(
            there(&[
                slice("a", 1, 1, at("a", &["old"])),
                slice("a", 2, 2, at("a", &["x"])),
                slice("a", 2, 2, at("a", &["y"])),
                slice("b", 1, 2, at("b", &["z"])),
                slice("net", 1, 1, json!({"allNodes": true, "devices": devices(&["n"])})),
                slice("rack", 1, 1, json!({"nodeSelector": east, "devices": devices(&["r"])})),
                slice("parts", 1, 1, json!({"allNodes": true, "sharedCounters": [{}], "devices": devices(&["p"])})),
            ]),
            [vec!["a: x y", "net: n"], vec!["b: z (currently being updated)", "net: n", "rack: r"]]
                .map(|all| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
        );
        // Devices that say where they are themselves; two of one name trouble only the node that has both.
        let own = json!([{"name": "one", "nodeName": "a"}, {"name": "two", "nodeSelector": east}, {"name": "two", "allNodes": true}]);
        let own = slice("own", 1, 1, json!({"perDeviceNodeSelection": true, "devices": own}));
        assert_eq!(there(&[own]), [vec!["own: one two".to_owned()], vec!["own: two two (currently invalid)".to_owned()]]);
    }
}
