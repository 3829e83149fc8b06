//! Prefers nodes that have the pod's images; less so while few nodes have them, so that not all pods go to those.

use super::Attempt;
use crate::scheduler::cluster::{Cluster, Node};
use std::borrow::Cow;

const MB: i64 = 1024 * 1024;
/// Less than this is no reason.
const LEAST: i64 = 23 * MB;
/// More than this for each container is no better.
const MOST: i64 = 1000 * MB;

/// A name without a tag means `latest`.
fn full(name: &str) -> Cow<'_, str> {
    let tagged = name.rfind(':').map_or(-1, |at| at as i64) > name.rfind('/').map_or(-1, |at| at as i64);
    if tagged { name.into() } else { format!("{name}:latest").into() }
}

/// See the module.
pub fn score(attempt: &Attempt<'_, '_>, cluster: &Cluster, nodes: &[&Node]) -> Vec<i64> {
    let (images, containers) = attempt.pod.images();
    let mut sums = vec![0i64; nodes.len()];
    for image in images {
        let image = full(image);
        if !nodes.iter().any(|node| node.images.contains_key(&*image)) {
            continue;
        }
        let (all, having) = cluster.nodes().fold((0, 0), |(all, having), node| (all + 1, having + i64::from(node.images.contains_key(&*image))));
        for (sum, node) in sums.iter_mut().zip(nodes) {
            *sum += node.images.get(&*image).map_or(0, |size| (*size as f64 * (having as f64 / f64::from(all))) as i64);
        }
    }
    let most = MOST * (containers as i64).max(1);
    sums.into_iter().map(|sum| 100 * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)).collect()
}
