//! Small clusters for tests of single plugins and of the whole engine.

use super::{Attempt, Filter, Refusal, Score};
use crate::scheduler::{
    cluster::{Cluster, Node, Placed},
    pod::Pod,
};
use coracle_apiserver::{fixture::object, view::parse};
use coracle_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
        (into, from) => *into = from,
    }
}

/// A node with room for 110 pods and 8 GiB.
pub fn node(name: &str, cpu: &str, extra: Value) -> Arc<Object> {
    let mut node = json!({
        "metadata": { "name": name, "uid": name, "labels": { "kubernetes.io/hostname": name } }, "spec": {},
        "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } },
    });
    merge(&mut node, extra);
    object("nodes", 1, node)
}

/// A pod of namespace `n` with one container.
pub fn pod(name: &str, cpu: &str, extra: Value) -> Arc<Object> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "labels": { "app": name } },
        "spec": { "containers": [{ "resources": { "requests": { "cpu": cpu } } }] }, "status": { "phase": "Pending" },
    });
    merge(&mut pod, extra);
    object("pods", 1, pod)
}

/// Nodes with pods on them, and what else there is.
pub struct World {
    pub cluster: Cluster,
    pub snapshot: Snapshot,
}

impl World {
    /// Pods are placed where their `spec.nodeName` says.
    pub fn new(nodes: &[Arc<Object>], pods: &[Arc<Object>], others: &[Arc<Object>]) -> Self {
        let mut cluster = Cluster::default();
        for node in nodes {
            cluster.set_node(node).expect("a node");
        }
        for object in pods {
            let pod: Pod<'_> = parse(object).expect("a pod");
            cluster.place(&object.key, Placed::of(object, &pod), &pod.spec.node_name);
        }
        for object in others {
            match &*object.key.resource {
                "services" => cluster.set_service(&object.key, Some(object)).expect("a Service"),
                "namespaces" => drop(cluster.namespaces.insert(object.key.name.clone(), object.meta.clone())),
                _ => {}
            }
        }
        others.iter().for_each(|object| cluster.volume_changed(None, Some(object)));
        let snapshot = Snapshot::of(1, others.iter().cloned());
        cluster.read(&snapshot);
        Self { cluster, snapshot }
    }

    fn attempt<R>(&self, object: &Arc<Object>, look: impl FnOnce(&Attempt<'_, '_>) -> R) -> R {
        let pod: Pod<'_> = parse(object).expect("a pod");
        look(&Attempt::new(object, &pod, &self.cluster, &self.snapshot))
    }

    /// What a filter says of each node, by name; `ok` where it has no objection. `!` stands before what lasts.
    pub fn refusals(&self, filter: Filter, pod: &Arc<Object>) -> Vec<String> {
        self.attempt(pod, |attempt| {
            let say = |node: &Node| {
                let mut refusal = Refusal::default();
                filter(attempt, node, &mut refusal);
                match refusal.is_empty() {
                    true => "ok".to_owned(),
                    false => format!("{}{}", if refusal.lasting { "!" } else { "" }, refusal.reasons.join(", ")),
                }
            };
            self.cluster.nodes().map(say).collect()
        })
    }

    /// The scores of the nodes, by name.
    pub fn scores(&self, score: Score, pod: &Arc<Object>) -> Vec<i64> {
        let nodes: Vec<&Node> = self.cluster.nodes().collect();
        self.attempt(pod, |attempt| score(attempt, &self.cluster, &nodes))
    }

    /// Why no node at all will do, for the volumes' sake.
    pub fn impossible(&self, pod: &Arc<Object>) -> Option<String> {
        self.attempt(pod, |attempt| attempt.volumes.impossible.clone())
    }
}
