//! Which pods of a DaemonSet come and go for the sake of the nodes: one where there should be one, none where there should not.

use super::{
    ByNode, DaemonSet,
    template::{Host, Template},
};
use crate::controllers::action::Action;
use coracle_apiserver::view::pod::{Availability, Pod};
use coracle_store::Key;
use jiff::Timestamp;
use std::time::Duration;

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go (key, uid).
    pub delete: Vec<(Key, String)>,
    /// Nodes whose failed pod is replaced.
    pub failed: Vec<String>,
    /// Events.
    pub events: Vec<Action>,
    /// When a failed pod may be replaced.
    pub again: Option<Duration>,
}

impl Wanted {
    /// Nothing comes and nothing goes.
    pub fn is_settled(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    /// A pod goes.
    pub fn drop(&mut self, pod: &Pod<'_>) {
        self.delete.push((Key::new("pods", &*pod.metadata.namespace, &*pod.metadata.name), pod.metadata.uid.to_string()));
    }
}

/// Decides it; `left` is how long a node must wait after failures.
pub fn decide(
    set: &DaemonSet<'_>,
    hosts: &[Host],
    nodes: &ByNode<'_, '_>,
    template: &Template,
    left: &dyn Fn(&str) -> Option<Duration>,
    now: Timestamp,
) -> Wanted {
    let mut wanted = Wanted::default();
    for host in hosts {
        let pods = nodes.get(&host.name);
        match pods {
            None if host.wanted => wanted.create.push(host.name.to_string()),
            None => {}
            Some(pods) if host.kept => {
                let running = clear(&mut wanted, host, pods, left);
                if set.surge(1) > 0 {
                    surge(&mut wanted, set, host, &running, template, now);
                } else {
                    // The oldest that is bound stays.
                    running.iter().skip(1).for_each(|pod| wanted.drop(pod));
                }
            }
            Some(pods) => pods.iter().filter(|pod| !pod.metadata.deleting()).for_each(|pod| wanted.drop(pod)),
        }
    }
    // Pods that wait for a node that does not exist would wait for ever.
    for (node, pods) in nodes {
        if hosts.binary_search_by(|host| host.name.cmp(node)).is_err() {
            pods.iter().filter(|pod| pod.spec.node_name.is_empty()).for_each(|pod| wanted.drop(pod));
        }
    }
    wanted
}

/// The pods of a node that run or will, once those that ended are on their way out.
fn clear<'p, 'a>(wanted: &mut Wanted, host: &Host, pods: &[&'p Pod<'a>], left: &dyn Fn(&str) -> Option<Duration>) -> Vec<&'p Pod<'a>> {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.metadata.deleting()) {
        let (namespace, name, node) = (&pod.metadata.namespace, &pod.metadata.name, &host.name);
        match &*pod.status.phase {
            "Failed" => {
                if let Some(left) = left(node) {
                    wanted.again = Some(wanted.again.map_or(left, |other| other.min(left)));
                    continue;
                }
                let message = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                wanted.events.push(Action::Event { kind: "Warning", reason: "FailedDaemonPod", message });
                wanted.failed.push(node.to_string());
                wanted.drop(pod);
            }
            "Succeeded" => {
                let message = format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
                wanted.events.push(Action::Event { kind: "Normal", reason: "SucceededDaemonPod", message });
                wanted.drop(pod);
            }
            _ => running.push(*pod),
        }
    }
    running
}

/// With surge a node may have two pods, while the new one is not available yet and the old one still ready.
fn surge(wanted: &mut Wanted, set: &DaemonSet<'_>, host: &Host, running: &[&Pod<'_>], template: &Template, now: Timestamp) {
    match running {
        [] if host.wanted => return wanted.create.push(host.name.to_string()),
        [] | [_] => return,
        _ => {}
    }
    let (mut new, mut old): (Option<&Pod<'_>>, Option<&Pod<'_>>) = (None, None);
    for &pod in running {
        let place = if pod.metadata.labels.get(super::REVISION_LABEL).is_some_and(|hash| **hash == *template.hash()) { &mut new } else { &mut old };
        match place {
            None => *place = Some(pod),
            Some(_) => wanted.drop(pod),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!old.ready() || new.availability(set.spec.min_ready_seconds, now) == Availability::Available)
    {
        wanted.drop(old);
    }
}
