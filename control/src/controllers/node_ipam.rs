//! Gives each node its range of pod addresses (`spec.podCIDR`) out of the cluster's.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Text, parse};
use coracle_store::{Key, Snapshot};
use serde::Deserialize;
use serde_json::json;
use std::{collections::HashSet, fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 range, such as `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    first: u32,
    prefix: u8,
}

/// A range that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("\"{0}\" is no IPv4 range such as 10.244.0.0/16 (its address must be the first of the range)")]
pub struct BadRange(String);

impl FromStr for Range {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let first = u32::from(address.parse::<Ipv4Addr>().map_err(|_| bad())?);
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix)).ok_or_else(bad)?;
        if prefix < 32 && first << prefix != 0 {
            return Err(bad());
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl Range {
    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }
    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
    /// The ranges of this length within it; itself, if it is not longer.
    fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let prefix = prefix.max(self.prefix);
        let size = 1u64 << (32 - prefix);
        (u64::from(self.first)..=u64::from(self.last())).step_by(size as usize).map(move |first| Self { first: first as u32, prefix })
    }
}

/// The first free range of this length.
fn free(cluster: Range, node_prefix: u8, used: &HashSet<Range>) -> Option<Range> {
    cluster.parts(node_prefix).find(|part| !used.iter().any(|used| used.overlaps(*part)))
}

/// See the module.
pub struct NodeIpam {
    context: Context,
    cluster: Range,
    node_prefix: u8,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Node<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow, rename = "podCIDR")]
    pod_cidr: Text<'a>,
}

impl NodeIpam {
    /// Acting as `node-controller`; each node gets a range of this prefix length.
    pub fn new(context: &Context, cluster: Range, node_prefix: u8) -> Self {
        Self { context: context.acting_as("node-controller"), cluster, node_prefix }
    }
}

#[async_trait]
impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    /// One at a time: each decision must see the last one.
    fn concurrency(&self) -> usize {
        1
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.prev, event.new) {
            ("nodes", None, Some(new)) => keys.push(new.key.clone()),
            // A range is free again: somebody may wait for it.
            ("nodes", Some(_), None) => every(event.snapshot, "nodes", keys),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "nodes", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        if !parse::<Node<'_>>(&object)?.spec.pod_cidr.is_empty() {
            return Ok(Next::Idle);
        }
        let mut used = HashSet::new();
        for node in snapshot.range("nodes", None, None) {
            used.extend(parse::<Node<'_>>(node)?.spec.pod_cidr.parse::<Range>());
        }
        let action = match free(self.cluster, self.node_prefix, &used) {
            Some(range) => {
                let range = range.to_string();
                let patch = json!({ "metadata": { "uid": object.meta.uid }, "spec": { "podCIDR": range, "podCIDRs": [range] } });
                Action::Patch { key: key.clone(), subresource: "", patch }
            }
            None => {
                Action::Event { kind: "Normal", reason: "CIDRNotAvailable", message: format!("Node {} status is now: CIDRNotAvailable", key.name) }
            }
        };
        perform(&self.context.client, Some(&object), vec![action]).await?;
        Ok(Next::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_out_once_until_none_is_left() {
        let cluster: Range = "10.244.0.0/16".parse().expect("range");
        let mut used = HashSet::new();
        let mut given = Vec::new();
        while let Some(range) = free(cluster, 20, &used) {
            used.insert(range);
            given.push(range.to_string());
        }
        assert_eq!(given.len(), 16);
        assert_eq!((&*given[0], &*given[1], &*given[15]), ("10.244.0.0/20", "10.244.16.0/20", "10.244.240.0/20"));
        let foreign: Range = "10.244.8.0/24".parse().expect("range");
        assert_eq!(free(cluster, 20, &[foreign].into()).map(|r| r.to_string()).as_deref(), Some("10.244.16.0/20"));
        assert_eq!(free(cluster, 8, &HashSet::new()), Some(cluster), "a range that is too small is given whole");
    }

    #[test]
    fn bad_ranges_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "fd00::/8", "10.0.0.0/0"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
        assert_eq!("1.2.3.4/32".parse::<Range>().expect("range").to_string(), "1.2.3.4/32");
    }
}
