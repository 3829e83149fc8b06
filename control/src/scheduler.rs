//! The scheduler: binds pods to nodes (Kubernetes' kube-scheduler with its default plugins).
//!
//! [`engine`] is pure: changes of pods and nodes go in, decisions come out. This file is its one task: it feeds the engine from three
//! watches and carries its decisions out, many bindings at a time, so that they share the log's fsync. Nothing is polled: a pod is
//! looked at in the moment it appears.

pub mod cluster;
pub mod engine;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod select;

use self::engine::{Decision, Engine};
use crate::{
    Tasks,
    client::Client,
    controllers::{Clock, identity, view::stamp},
    pipeline::PatchKind,
};
use coracle_api::Status;
use coracle_store::{Change, Error, Object, Scope, Snapshot, Store, Watch};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::json;
use std::{sync::Arc, time::Instant};

/// Bindings and reports under way at once.
const PARALLEL: usize = 128;

/// Starts the scheduler in this set of tasks.
pub fn start(client: &Client, clock: Clock, tasks: &Tasks) {
    let client = client.as_user(identity::scheduler());
    tasks.spawn("scheduler", run(client, clock));
}

struct Watches {
    pods: Watch,
    nodes: Watch,
    namespaces: Watch,
}

fn watch(store: &Store, engine: &mut Engine) -> Watches {
    let scope = |resource: &str| Scope { resource: Some(resource.into()), namespace: None, name: None, field: None };
    let now = Instant::now();
    engine.reset();
    let each = |snapshot: Snapshot, resource: &str, add: &mut dyn FnMut(&Arc<Object>)| snapshot.range(resource, None, None).for_each(add);
    let (snapshot, namespaces) = store.list_watch(scope("namespaces"));
    each(snapshot, "namespaces", &mut |object| engine.namespace(None, Some(object)));
    let (snapshot, nodes) = store.list_watch(scope("nodes"));
    each(snapshot, "nodes", &mut |object| engine.node(None, Some(object), now));
    let (snapshot, pods) = store.list_watch(scope("pods"));
    each(snapshot, "pods", &mut |object| engine.pod(None, Some(object), now));
    Watches { pods, nodes, namespaces }
}

type Ended = Option<(Arc<Object>, bool)>;

async fn run(client: Client, clock: Clock) {
    let store = client.store().clone();
    let mut engine = Engine::default();
    let mut watches = watch(&store, &mut engine);
    let mut running: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
    loop {
        while running.len() < PARALLEL {
            let Some(decision) = engine.decide(Instant::now()) else { break };
            running.push(Box::pin(carry_out(&client, &clock, decision)));
        }
        let due = if running.len() < PARALLEL { engine.next_due() } else { None };
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            changes = watches.pods.next() => changes.map(|changes| feed(changes, |prev, new| engine.pod(prev, new, Instant::now()))),
            changes = watches.nodes.next() => changes.map(|changes| feed(changes, |prev, new| engine.node(prev, new, Instant::now()))),
            changes = watches.namespaces.next() => changes.map(|changes| feed(changes, |prev, new| engine.namespace(prev, new))),
            Some(ended) = running.next(), if !running.is_empty() => {
                if let Some((pod, succeeded)) = ended {
                    engine.bound(&pod, succeeded, Instant::now());
                }
                Ok(())
            }
            () = timer => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "scheduler: a watch broke off; looking at everything again");
                // Bindings under way end first: a new picture must not be mixed with old promises.
                while running.next().await.is_some() {}
                watches = watch(&store, &mut engine);
            }
        }
    }
}

fn feed(changes: Vec<Arc<Change>>, mut to: impl FnMut(Option<&Arc<Object>>, Option<&Arc<Object>>)) {
    for change in changes {
        to(change.prev.as_ref(), change.new.as_ref());
    }
}

async fn carry_out(client: &Client, clock: &Clock, decision: Decision) -> Ended {
    match decision {
        Decision::Bind { pod, node } => {
            let succeeded = match bind(client, &pod, &node).await {
                Ok(()) => {
                    let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
                    client.event(&pod, "Normal", "Scheduled", &message);
                    true
                }
                // Gone or bound by somebody else: the watch tells.
                Err(status) if status.is_not_found() => true,
                Err(status) => {
                    tracing::warn!(namespace = %pod.key.namespace, pod = %pod.key.name, %node, error = %status.message, "binding failed; will try again");
                    client.event(&pod, "Warning", "FailedScheduling", &format!("binding rejected: {}", status.message));
                    false
                }
            };
            Some((pod, succeeded))
        }
        Decision::Unschedulable { pod, message } => {
            client.event(&pod, "Warning", "FailedScheduling", &message);
            if let Err(status) = report(client, &pod, &message, clock).await
                && !status.is_not_found()
            {
                tracing::warn!(namespace = %pod.key.namespace, pod = %pod.key.name, error = %status.message, "cannot tell that a pod fits nowhere");
            }
            None
        }
    }
}

async fn bind(client: &Client, pod: &Object, node: &str) -> Result<(), Status> {
    let key = &pod.key;
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": *key.name, "namespace": *key.namespace, "uid": pod.meta.uid },
        "target": { "kind": "Node", "name": node },
    });
    client.create_subresource("pods", &key.namespace, &key.name, "binding", body).await.map(drop)
}

async fn report(client: &Client, pod: &Object, message: &str, clock: &Clock) -> Result<(), Status> {
    let key = &pod.key;
    let since = {
        let pod: pod::Pod<'_> = crate::controllers::view::parse(pod)?;
        let old = crate::controllers::view::condition(&pod.status.conditions, "PodScheduled").filter(|c| c.status == "False");
        old.map_or_else(|| stamp(clock()), |c| c.last_transition_time.to_string())
    };
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": since });
    // Strategic: merged by type, so that conditions of others stay.
    let patch = json!({ "metadata": { "uid": pod.meta.uid }, "status": { "conditions": [condition] } });
    client.patch("pods", &key.namespace, &key.name, "status", PatchKind::Strategic, patch).await.map(drop)
}
