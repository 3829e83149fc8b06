//! Watches over nodes (Kubernetes' node-lifecycle-controller and taint-eviction-controller): a node that is silent is Unknown, taints
//! follow its conditions, and pods that do not bear a `NoExecute` taint are deleted.
//!
//! Silence is measured by this process' own clock from the moment a renewal was seen, not by the times nodes write: their clocks
//! may be wrong, and a control plane that was down must not find all its nodes dead when it comes back.

pub mod eviction;
pub mod health;

use self::{
    eviction::Verdict,
    health::{Node, decide},
};
use super::{
    Context,
    action::{Action, perform, perform_one},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::scheduler::pod::Pod as Tolerant;
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, Text, condition, parse, pod::Pod, stamp};
use coracle_store::{Key, Object, Snapshot};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

const LEASES: &str = "leases.coordination.k8s.io";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a node may be silent (upstream's node-monitor-grace-period is 50 s, and was 40 s until 1.32).
pub const GRACE: Duration = Duration::from_secs(40);

/// The pods bound to a node.
fn pods_on<'s>(snapshot: &'s Snapshot, node: &'s str) -> impl Iterator<Item = &'s Arc<Object>> {
    snapshot.range("pods", None, None).filter(move |pod| pod.meta.field("spec.nodeName") == Some(node))
}

/// Conditions and taints of nodes.
pub struct NodeLifecycle {
    context: Context,
    /// The last sign of life of each node and when it was seen.
    signs: Mutex<HashMap<Arc<str>, (String, Instant)>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Lease<'a> {
    #[serde(borrow)]
    spec: LeaseSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec<'a> {
    #[serde(borrow)]
    renew_time: Text<'a>,
}

impl NodeLifecycle {
    /// Acting as `node-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("node-controller"), signs: Mutex::default() }
    }

    /// For how long a node has given no new sign of life.
    fn silence(&self, name: &Arc<str>, sign: String) -> Duration {
        let now = Instant::now();
        let mut signs = self.signs.lock();
        match signs.get(name) {
            Some((last, seen)) if *last == sign => now.duration_since(*seen),
            _ => {
                signs.insert(name.clone(), (sign, now));
                Duration::ZERO
            }
        }
    }

    /// Pods of a node that went silent are not ready for anyone.
    async fn doubt_pods(&self, snapshot: &Snapshot, node: &str) -> Result<(), Status> {
        for object in pods_on(snapshot, node) {
            let pod: Pod<'_> = parse(object)?;
            if !pod.ready() {
                continue;
            }
            let now = stamp(self.context.now());
            let conditions: Vec<Value> = pod
                .status
                .conditions
                .iter()
                .map(|c| match &*c.kind {
                    "Ready" => Condition { status: "False".into(), last_transition_time: now.clone().into(), ..c.clone() }.to_json(),
                    _ => c.to_json(),
                })
                .collect();
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version }, "status": { "conditions": conditions },
            });
            let result = perform_one(&self.context.client, None, Action::Patch { key: object.key.clone(), subresource: "status", patch }).await;
            match result {
                Err(status) if status.is_not_found() => {}
                result => result?,
            }
            self.context.client.event(object, "Warning", "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            "nodes" => {
                if event.new.is_none()
                    && let Some(key) = event.key()
                {
                    self.signs.lock().remove(&key.name);
                }
                keys.extend(event.key().cloned());
            }
            LEASES => keys.extend(event.key().filter(|key| &*key.namespace == LEASE_NAMESPACE).map(|key| Key::new("nodes", "", key.name.clone()))),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "nodes", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        let node: Node<'_> = parse(&object)?;
        let lease = snapshot.get(&Key::new(LEASES, LEASE_NAMESPACE, key.name.clone()));
        let renewed = match &lease {
            Some(lease) => parse::<Lease<'_>>(lease)?.spec.renew_time.to_string(),
            None => String::new(),
        };
        if !self.signs.lock().contains_key(&key.name) {
            self.context.client.event(&object, "Normal", "RegisteredNode", &format!("Registered Node {} in Controller", key.name));
        }
        let silence = self.silence(&key.name, format!("{renewed} {}", node.heartbeat()));
        let verdict = decide(key, &node, silence, GRACE, self.context.now());
        perform(&self.context.client, Some(&object), verdict.actions).await?;
        if verdict.doubt_pods {
            self.doubt_pods(&snapshot, &key.name).await?;
        }
        Ok(verdict.again.map_or(Next::Idle, Next::After))
    }
}

/// Whether a pod came to a node, or bears other taints than before.
fn moved(prev: &Object, new: &Object) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct View<'a> {
        #[serde(borrow)]
        spec: ViewSpec<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ViewSpec<'a> {
        #[serde(borrow)]
        tolerations: Option<&'a RawValue>,
    }
    fn tolerations(object: &Object) -> Option<&str> {
        parse::<View<'_>>(object).ok()?.spec.tolerations.map(RawValue::get)
    }
    prev.meta.field("spec.nodeName") != new.meta.field("spec.nodeName") || tolerations(prev) != tolerations(new)
}

/// Deletes pods from nodes whose `NoExecute` taints they do not bear (any longer).
pub struct Evictions {
    context: Context,
    /// Pods that will have to go from each node if nothing changes.
    pending: Mutex<HashMap<Arc<str>, HashSet<Key>>>,
    /// Since when nodes have taints that do not say so.
    seen: Mutex<HashMap<Arc<str>, eviction::Seen>>,
}

impl Evictions {
    /// Acting as `node-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("node-controller"), pending: Mutex::default(), seen: Mutex::default() }
    }

    /// Since when the taints of a node are there.
    fn look(&self, node: &Arc<str>, taints: &[health::Taint<'_>]) -> eviction::Seen {
        let mut all = self.seen.lock();
        let mut seen = all.remove(node).unwrap_or_default();
        seen.look(taints, self.context.now());
        if !seen.is_empty() {
            all.insert(node.clone(), seen.clone());
        }
        seen
    }

    /// Remembers who has to go from a node, and tells of those that need not any more.
    fn note(&self, node: &Arc<str>, pending: HashSet<Key>, snapshot: &Snapshot) {
        let before = match pending.is_empty() {
            true => self.pending.lock().remove(node),
            false => self.pending.lock().insert(node.clone(), pending.clone()),
        };
        for key in before.unwrap_or_default().difference(&pending) {
            let Some(pod) = snapshot.get(key).filter(|pod| !parse::<Tolerant<'_>>(pod).is_ok_and(|pod| pod.metadata.deleting())) else { continue };
            let message = format!("Cancelling deletion of Pod {}/{}", key.namespace, key.name);
            self.context.client.event(&pod, "Normal", "TaintManagerEviction", &message);
        }
    }

    async fn evict(&self, object: &Object) -> Result<(), Status> {
        let client = &self.context.client;
        let pod: Pod<'_> = parse(object)?;
        client.event(object, "Normal", "TaintManagerEviction", &format!("Marking for deletion Pod {}/{}", object.key.namespace, object.key.name));
        let mut conditions: Vec<Value> = pod.status.conditions.iter().filter(|c| c.kind != "DisruptionTarget").map(Condition::to_json).collect();
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": stamp(self.context.now()),
        }));
        let uid = pod.metadata.uid.to_string();
        let patch = json!({ "metadata": { "uid": uid, "resourceVersion": pod.metadata.resource_version }, "status": { "conditions": conditions } });
        let key = object.key.clone();
        let actions =
            vec![Action::Patch { key: key.clone(), subresource: "status", patch }, Action::Delete { key, uid, propagation: None, grace: None }];
        match perform(client, None, actions).await {
            Err(status) if status.is_not_found() => Ok(()),
            result => result,
        }
    }
}

#[async_trait]
impl Controller for Evictions {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        let Some(new) = event.new else { return };
        match event.resource {
            "nodes" => keys.push(new.key.clone()),
            "pods" if event.prev.is_none_or(|prev| moved(prev, new)) => {
                keys.extend(new.meta.field("spec.nodeName").filter(|name| !name.is_empty()).map(|name| Key::new("nodes", "", name)));
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "nodes", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else {
            self.seen.lock().remove(&key.name);
            return Ok(Next::Idle);
        };
        let node: Node<'_> = parse(&object)?;
        let seen = self.look(&key.name, &node.spec.taints);
        if !node.spec.taints.iter().any(|taint| taint.effect == "NoExecute") {
            self.note(&key.name, HashSet::new(), &snapshot);
            return Ok(Next::Idle);
        }
        let now = self.context.now();
        let mut again: Option<Duration> = None;
        let mut pending = HashSet::new();
        for pod in pods_on(&snapshot, &key.name) {
            let view: Tolerant<'_> = parse(pod)?;
            if view.metadata.deleting() || view.terminal() {
                continue;
            }
            let bound = condition(&view.status.conditions, "PodScheduled").filter(|c| c.is_true()).and_then(Condition::since);
            let came = bound.unwrap_or(view.metadata.created());
            match eviction::judge(&view.spec.tolerations, &node.spec.taints, &seen, came, now) {
                Verdict::Stays => {}
                Verdict::Goes => {
                    pending.insert(pod.key.clone());
                    self.evict(pod).await?;
                }
                Verdict::GoesIn(time) => {
                    pending.insert(pod.key.clone());
                    again = Some(again.map_or(time, |other| other.min(time)));
                }
            }
        }
        self.note(&key.name, pending, &snapshot);
        Ok(again.map_or(Next::Idle, Next::After))
    }
}
