//! Keeps one pod on every node that may have it (Kubernetes' daemonset-controller).
//!
//! [`template`] says which nodes those are and how their pods are made, [`manage`] which pods come and go, [`roll`] how a new template
//! replaces an old one, [`status`] what is reported; this file reads the state and carries it out.

pub mod manage;
pub mod roll;
pub mod status;
pub mod template;

use self::template::Host;
use super::{
    Context,
    action::{Action, perform},
    backoff::Backoff,
    history::{REVISION_LABEL, REVISIONS, Subject},
    node_lifecycle::health::Node,
    owned::{Parent, by_selector, dependents, pod_template},
    pod_control,
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::{Strategy, View};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, int_or_percent::IntOrPercent, parse, pod::Pod, selector::LabelSelector};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

const RESOURCE: &str = "daemonsets.apps";
const PARENT: Parent = Parent { resource: RESOURCE, api_version: "apps/v1", kind: "DaemonSet", selects: by_selector };
/// Pods made or deleted in one run.
const BURST: usize = 250;
/// A node that refuses its pod is left alone for at most this long.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A narrow view of `apps/v1 DaemonSet`.
pub type DaemonSet<'a> = View<'a, Spec<'a>, Report<'a>>;
/// `apps/v1 DaemonSetSpec` without the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Which pods are ours.
    #[serde(borrow)]
    pub selector: LabelSelector<'a>,
    /// How pods are replaced.
    pub update_strategy: Strategy<'a, RollingUpdate<'a>>,
    /// How long a pod must be ready to be available.
    pub min_ready_seconds: i64,
    /// Old revisions that are kept; 10 unless given.
    pub revision_history_limit: Option<i64>,
}
/// `apps/v1 RollingUpdateDaemonSet`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate<'a> {
    /// Nodes whose pod may be missing; 1 unless given.
    #[serde(borrow)]
    pub max_unavailable: Option<IntOrPercent<'a>>,
    /// Nodes that may have a new pod beside their old one.
    pub max_surge: Option<IntOrPercent<'a>>,
}
/// `apps/v1 DaemonSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// Nodes that have a pod and should.
    pub current_number_scheduled: i64,
    /// Nodes that have a pod and should not.
    pub number_misscheduled: i64,
    /// Nodes that should have a pod.
    pub desired_number_scheduled: i64,
    /// Nodes whose pod is ready.
    pub number_ready: i64,
    /// The generation this speaks of.
    pub observed_generation: i64,
    /// Nodes whose pod is of the present template.
    pub updated_number_scheduled: i64,
    /// Nodes whose pod is available.
    pub number_available: i64,
    /// Nodes that should have an available pod, and have none.
    pub number_unavailable: i64,
    /// How often a revision's name was taken by another template.
    pub collision_count: i64,
    /// None of ours.
    #[serde(borrow)]
    pub conditions: Vec<Condition<'a>>,
}

impl DaemonSet<'_> {
    fn rolling(&self) -> Option<&RollingUpdate<'_>> {
        self.spec.update_strategy.rolling_update.as_ref().filter(|_| self.spec.update_strategy.kind == "RollingUpdate")
    }
    /// Nodes of `total` that may have two pods.
    pub fn surge(&self, total: i64) -> i64 {
        self.rolling().and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |surge| surge.of(total, true))
    }
    /// Nodes of `total` whose pod may be missing.
    pub fn unavailable(&self, total: i64) -> i64 {
        self.rolling().map_or(0, |rolling| rolling.max_unavailable.as_ref().map_or(1, |most| most.of(total, true)))
    }
}

/// The pods of a set by the node that they are on, or are meant for.
pub type ByNode<'p, 'a> = BTreeMap<Box<str>, Vec<&'p Pod<'a>>>;

/// See the module.
pub struct DaemonSets {
    context: Context,
    /// When failed pods may be replaced.
    backoff: parking_lot::Mutex<Backoff>,
}

impl DaemonSets {
    /// Acting as `daemon-set-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("daemon-set-controller"), backoff: parking_lot::Mutex::new(Backoff::up_to(LONGEST)) }
    }

    /// Nodes in the order of their names, and how each stands to the set.
    fn hosts(snapshot: &Snapshot, template: &template::Template) -> Result<Vec<Host>, Status> {
        let spec = template.spec()?;
        snapshot.range("nodes", None, None).map(|node| Ok(Host::new(&spec, &parse::<Node<'_>>(node)?))).collect()
    }
}

/// The pods by node; without those that ended and only wait to be removed.
fn by_node<'p, 'a>(objects: &[Arc<Object>], pods: &'p [Pod<'a>]) -> Result<ByNode<'p, 'a>, Status> {
    let mut nodes = ByNode::new();
    for (object, pod) in objects.iter().zip(pods).filter(|(_, pod)| !(pod.terminal() && pod.metadata.deleting())) {
        if let Some(node) = template::target(object, pod)? {
            nodes.entry(node.into()).or_default().push(pod);
        }
    }
    for pods in nodes.values_mut() {
        let order = |pod: &&Pod<'_>| (pod.spec.node_name.is_empty(), pod.metadata.creation_timestamp.to_string(), pod.metadata.name.to_string());
        pods.sort_by_cached_key(order);
    }
    Ok(nodes)
}

fn views(objects: &[Arc<Object>]) -> Result<Vec<Pod<'_>>, Status> {
    objects.iter().map(|pod| parse(pod)).collect()
}

/// Whether a change of a node may change what it should run.
fn matters(prev: Option<&Arc<Object>>, new: Option<&Arc<Object>>) -> bool {
    let (Some(prev), Some(new)) = (prev, new) else { return true };
    let taints = |node: &Arc<Object>| parse::<Node<'_>>(node).map(|node| node.spec.taints.iter().map(|taint| taint.to_json()).collect::<Vec<_>>());
    prev.meta.labels != new.meta.labels || taints(prev).ok() != taints(new).ok()
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemon-set-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.new.map(|object| object.key.clone())),
            "pods" | REVISIONS => event.versions().for_each(|object| PARENT.route(object, event.snapshot, keys)),
            "nodes" if matters(event.prev, event.new) => every(event.snapshot, RESOURCE, keys),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, RESOURCE, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let store = client.store();
        let Some(object) = store.snapshot().get(key) else { return Ok(Next::Idle) };
        let set: DaemonSet<'_> = parse(&object)?;
        if set.metadata.deleting() {
            return Ok(Next::Idle);
        }
        if set.spec.selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            client.event(&object, "Warning", "SelectingAll", message);
            return Ok(Next::Idle);
        }
        let plain = pod_template(&object)?;
        let subject = Subject {
            parent: &PARENT,
            meta: &set.metadata,
            selector: &set.spec.selector,
            template: &plain,
            collisions: set.status.collision_count,
            hash_label: REVISION_LABEL,
        };
        let history = subject.settle(client).await?;
        let Some(update) = history.revisions.get(history.update) else { return Ok(Next::Idle) };
        let template = template::Template::new(&plain, &set.metadata, &update.hash);

        let objects = PARENT.claim(client, "pods", &set.metadata, &set.spec.selector, |_| true, |_| true).await?;
        let pods = views(&objects)?;
        let nodes = by_node(&objects, &pods)?;
        let hosts = Self::hosts(&store.snapshot(), &template)?;
        let now = self.context.now();
        let mut wanted = {
            let backoff = self.backoff.lock();
            let left = |node: &str| backoff.left(&set.metadata.uid, set.status.observed_generation, node, Instant::now());
            manage::decide(&set, &hosts, &nodes, &template, &left, now)
        };
        if wanted.is_settled() && set.spec.update_strategy.kind == "RollingUpdate" {
            roll::decide(&set, &hosts, &nodes, &template, now, &mut wanted);
        }
        {
            let mut backoff = self.backoff.lock();
            for node in &wanted.failed {
                backoff.failed(&set.metadata.uid, set.status.observed_generation, node, Instant::now());
            }
        }
        perform(client, Some(&object), std::mem::take(&mut wanted.events)).await?;
        let more = wanted.create.len() > BURST || wanted.delete.len() > BURST;
        let us = PARENT.reference(&set.metadata);
        let made: Vec<Value> = wanted.create.iter().take(BURST).map(|node| template.pod(&key.namespace, &us, node)).collect();
        let gone: Vec<(Key, String)> = wanted.delete.iter().take(BURST).cloned().collect();
        let mut failure = pod_control::create(client, &object, made.into_iter()).await.err();
        failure = failure.or(pod_control::delete(client, &object, gone).await.err());

        // What was just made or deleted is in a fresh snapshot: the status needs no second round.
        let objects = dependents(&store.snapshot(), &set.metadata.uid, "pods");
        let pods = views(&objects)?;
        let nodes = by_node(&objects, &pods)?;
        let (report, again) = status::report(&set, &hosts, &nodes, &template, history.collisions, now);
        if report != set.status {
            let written = perform(client, Some(&object), vec![Action::Status(status::to_json(&report))]).await;
            failure = failure.or(written.err());
        }
        let live: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.labels.get(REVISION_LABEL).map(|hash| &**hash)).collect();
        let mut named: BTreeSet<&str> =
            history.revisions.iter().filter(|revision| live.contains(&*revision.hash)).map(|revision| &*revision.name).collect();
        named.insert(&update.name);
        subject.forget(client, &history, &named, set.spec.revision_history_limit.unwrap_or(10)).await?;
        if let Some(status) = failure {
            return Err(status);
        }
        if more {
            return Ok(Next::After(Duration::ZERO));
        }
        let earliest = [wanted.again, again].into_iter().flatten().min();
        Ok(earliest.map_or(Next::Idle, Next::After))
    }
}

#[cfg(test)]
#[path = "daemon_set/tests.rs"]
mod tests;
