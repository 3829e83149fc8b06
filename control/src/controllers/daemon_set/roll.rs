//! How a DaemonSet's new template replaces the old one, node by node, within maxUnavailable or maxSurge.
//!
//! Without surge an old pod is deleted, and the node, having none, gets a new one. With surge the new pod comes first, and the old one goes
//! when the new one is available.

use super::{
    ByNode, DaemonSet,
    manage::Wanted,
    template::{Host, Template},
};
use coracle_apiserver::view::pod::{Availability, Pod};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The pods of one node that are not on their way out.
enum Node<'p, 'a> {
    /// More than one of a template: the next pass over the nodes mends that.
    Crowded,
    /// At most one of the new template and one of an old.
    Pods { new: Option<&'p Pod<'a>>, old: Option<&'p Pod<'a>> },
}

fn sort<'p, 'a>(pods: &[&'p Pod<'a>], template: &Template) -> Node<'p, 'a> {
    let (mut new, mut old) = (None, None);
    for &pod in pods.iter().filter(|pod| !pod.metadata.deleting()) {
        let place = if template.made(pod) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return Node::Crowded;
        }
    }
    Node::Pods { new, old }
}

/// Adds to what is to be done.
pub fn decide(set: &DaemonSet<'_>, hosts: &[Host], nodes: &ByNode<'_, '_>, template: &Template, now: Timestamp, wanted: &mut Wanted) {
    let desired = hosts.iter().filter(|host| host.wanted).count() as i64;
    let surge = set.surge(desired);
    let mut unavailable = set.unavailable(desired);
    if desired > 0 && surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    // Nodes that should have a pod and have none count as well.
    let mut sorted: BTreeMap<&str, Node<'_, '_>> = nodes.iter().map(|(name, pods)| (&**name, sort(pods, template))).collect();
    for host in hosts.iter().filter(|host| host.wanted) {
        sorted.entry(&host.name).or_insert(Node::Pods { new: None, old: None });
    }
    let available = |pod: &Pod<'_>| pod.availability(set.spec.min_ready_seconds, now) == Availability::Available;
    if surge == 0 { replace(sorted, unavailable, available, wanted) } else { exceed(sorted, hosts, desired, surge, available, wanted) }
}

fn replace(nodes: BTreeMap<&str, Node<'_, '_>>, most: i64, available: impl Fn(&Pod<'_>) -> bool, wanted: &mut Wanted) {
    let mut missing = 0;
    let mut candidates = Vec::new();
    for node in nodes.into_values() {
        match node {
            Node::Pods { new: Some(new), old: None } => missing += i64::from(!available(new)),
            Node::Pods { new: None, old: Some(old) } if available(old) => candidates.push(old),
            // It serves nobody: nothing is lost.
            Node::Pods { new: None, old: Some(old) } => {
                missing += 1;
                wanted.drop(old);
            }
            _ => missing += 1,
        }
    }
    let room = usize::try_from(most - missing).unwrap_or(0);
    candidates.into_iter().take(room).for_each(|pod| wanted.drop(pod));
}

fn exceed(nodes: BTreeMap<&str, Node<'_, '_>>, hosts: &[Host], desired: i64, most: i64, available: impl Fn(&Pod<'_>) -> bool, wanted: &mut Wanted) {
    let may_run = |node: &str| hosts.iter().any(|host| *host.name == *node && host.wanted);
    let (mut surging, mut serving) = (0, 0);
    let (mut candidates, mut strays) = (Vec::new(), Vec::new());
    for (name, node) in nodes {
        let Node::Pods { new, old } = node else {
            surging += 1;
            continue;
        };
        serving += i64::from(old.or(new).is_some_and(&available));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) => match (available(old), may_run(name)) {
                (false, false) => wanted.drop(old),
                (false, true) => wanted.create.push(name.to_owned()),
                (true, false) => strays.push(old),
                (true, true) => candidates.push(name.to_owned()),
            },
            (Some(new), Some(_)) if !available(new) => surging += 1,
            (Some(_), Some(old)) => wanted.drop(old),
        }
    }
    // Pods on nodes that are no longer chosen serve until others do.
    strays.into_iter().take(usize::try_from(serving - desired).unwrap_or(0)).for_each(|pod| wanted.drop(pod));
    wanted.create.extend(candidates.into_iter().take(usize::try_from(most - surging).unwrap_or(0)));
}
