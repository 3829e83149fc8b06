//! Which devices can be used on a node: slices gathered to pools, of which the newest generation counts and an unfinished one does not.

use super::{
    allocate::{Candidate, INCOMPLETE, INVALID, Pool},
    model::{DeviceId, Place, Slice},
};
use crate::scheduler::cluster::Node;
use coracle_api::selector::Selector;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Whether a node selector selects the node.
pub fn selects(selector: &Value, node: &Node) -> bool {
    selector["nodeSelectorTerms"].as_array().into_iter().flatten().any(|its| term(its, node))
}

/// Whether one term of a node selector selects the node; one without requirements selects nothing.
pub fn term(term: &Value, node: &Node) -> bool {
    let given = |field: &str| term[field].as_array().is_some_and(|list| !list.is_empty());
    let (expressions, fields) = (given("matchExpressions"), given("matchFields"));
    let labels = || Selector::from_node_requirements(&term["matchExpressions"]).is_ok_and(|selector| selector.matches_pairs(&node.meta.labels));
    let name = |field: &str| (field == "metadata.name").then_some(&*node.name);
    let itself = || Selector::from_node_requirements(&term["matchFields"]).is_ok_and(|selector| selector.matches(name));
    (expressions || fields) && (!expressions || labels()) && (!fields || itself())
}

fn is_at(place: &Place, node: &Node) -> bool {
    match (&place.node_name, &place.node_selector) {
        (Some(name), _) if !name.is_empty() => **name == *node.name,
        _ if place.all_nodes => true,
        (_, Some(selector)) => selects(selector, node),
        _ => false,
    }
}

/// The pools that have devices for a node.
pub fn gather<'d>(slices: &'d [Arc<Slice>], node: &Node) -> Vec<Pool<'d>> {
    let mut by_pool: BTreeMap<(&str, &str), Vec<&'d Slice>> = BTreeMap::new();
    // Counters that devices share are not counted here: such pools are left alone.
    for slice in slices.iter().filter(|slice| slice.spec.shared_counters.is_empty()) {
        by_pool.entry((&slice.spec.driver, &slice.spec.pool.name)).or_default().push(slice);
    }
    let mut pools = Vec::new();
    for ((driver, name), mut slices) in by_pool {
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max().unwrap_or(0);
        slices.retain(|slice| slice.spec.pool.generation == newest);
        let mut pool = Pool { name: (driver.into(), name.into()), ..Pool::default() };
        for slice in &slices {
            for device in &slice.spec.devices {
                let place = if slice.spec.per_device_node_selection { &device.place } else { &slice.spec.place };
                if is_at(place, node) {
                    let id = DeviceId { driver: driver.into(), pool: name.into(), device: device.name.clone() };
                    pool.devices.push(Candidate { id, device, place });
                }
            }
        }
        if pool.devices.is_empty() {
            continue;
        }
        let whole = slices.first().is_some_and(|slice| slice.spec.pool.resource_slice_count == slices.len());
        let names: BTreeSet<&str> = pool.devices.iter().map(|candidate| candidate.id.device.as_str()).collect();
        pool.unusable = match (whole, names.len() == pool.devices.len()) {
            (false, _) => Some(INCOMPLETE),
            (true, false) => Some(INVALID),
            (true, true) => None,
        };
        pools.push(pool);
    }
    pools
}
