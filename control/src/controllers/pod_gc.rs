//! Pods that nobody will ever end (Kubernetes' pod-garbage-collector): those bound to nodes that no longer exist, those deleted before
//! they were bound, and the oldest of too many that have ended.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, parse, pod::Pod, stamp};
use coracle_store::{Key, Object, Snapshot};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Ended pods that are kept, as upstream.
const KEPT: usize = 12_500;
/// How long a node must be gone: it may be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);

/// See the module.
pub struct PodGarbage {
    context: Context,
    gone: parking_lot::Mutex<std::collections::HashMap<Key, Instant>>,
}

impl PodGarbage {
    /// Acting as `pod-garbage-collector`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("pod-garbage-collector"), gone: parking_lot::Mutex::default() }
    }
}

/// The key that stands for "too many ended pods".
fn ended() -> Key {
    Key::new("~ended-pods", "", "")
}

/// Ends a pod without its node: it is marked failed, if it had not ended, and deleted without grace.
fn end(key: &Key, pod: &Pod<'_>, message: &str, now: Timestamp) -> Vec<Action> {
    let uid = pod.metadata.uid.to_string();
    let mut actions = Vec::new();
    if !pod.terminal() {
        let mut conditions: Vec<Value> = pod.status.conditions.iter().filter(|c| c.kind != "DisruptionTarget").map(Condition::to_json).collect();
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message, "lastTransitionTime": stamp(now),
        }));
        let patch = json!({
            "metadata": { "uid": uid, "resourceVersion": pod.metadata.resource_version },
            "status": { "phase": "Failed", "conditions": conditions },
        });
        actions.push(Action::Patch { key: key.clone(), subresource: "status", patch });
    }
    actions.push(Action::Delete { key: key.clone(), uid, propagation: None, grace: Some(0) });
    actions
}

/// The oldest ended pods beyond the number that is kept.
fn surplus(mut pods: Vec<(&Key, String, Timestamp)>, kept: usize) -> Vec<Action> {
    let surplus = pods.len().saturating_sub(kept);
    pods.sort_by(|a, b| (a.2, &*a.0.namespace, &*a.0.name).cmp(&(b.2, &*b.0.namespace, &*b.0.name)));
    pods.into_iter().take(surplus).map(|(key, uid, _)| Action::Delete { key: key.clone(), uid, propagation: None, grace: Some(0) }).collect()
}

fn has_ended(object: &Object) -> bool {
    matches!(object.meta.field("status.phase"), Some("Succeeded" | "Failed"))
}

#[async_trait]
impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.prev, event.new) {
            ("nodes", Some(prev), None) => {
                self.gone.lock().insert(prev.key.clone(), Instant::now());
                keys.push(prev.key.clone());
            }
            ("nodes", None, Some(new)) => drop(self.gone.lock().remove(&new.key)),
            ("pods", prev, Some(new)) => {
                if has_ended(new) && !prev.is_some_and(|prev| has_ended(prev)) && event.snapshot.count("pods", None) > KEPT {
                    keys.push(ended());
                }
                match new.meta.field("spec.nodeName").filter(|name| !name.is_empty()) {
                    None => keys.extend(std::str::from_utf8(&new.json).ok().filter(|j| j.contains("\"deletionTimestamp\"")).map(|_| new.key.clone())),
                    Some(node) => {
                        let node = Key::new("nodes", "", node);
                        if prev.is_none_or(|prev| prev.meta.fields != new.meta.fields) && event.snapshot.get(&node).is_none() {
                            self.gone.lock().entry(node.clone()).or_insert_with(Instant::now);
                            keys.push(node);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        let mut nodes = HashSet::new();
        for pod in snapshot.range("pods", None, None) {
            match pod.meta.field("spec.nodeName").filter(|name| !name.is_empty()) {
                Some(node) => drop(nodes.insert(node)),
                None => keys.push(pod.key.clone()),
            }
        }
        let missing = nodes.into_iter().map(|node| Key::new("nodes", "", node)).filter(|key| snapshot.get(key).is_none());
        for key in missing {
            self.gone.lock().entry(key.clone()).or_insert_with(Instant::now);
            keys.push(key);
        }
        keys.push(ended());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let now = self.context.now();
        match &*key.resource {
            "nodes" => {
                let Some(since) = self.gone.lock().get(key).copied() else { return Ok(Next::Idle) };
                let waited = since.elapsed();
                if waited < QUARANTINE {
                    return Ok(Next::After(QUARANTINE - waited));
                }
                if snapshot.get(key).is_none() {
                    for object in snapshot.range("pods", None, None).filter(|pod| pod.meta.field("spec.nodeName") == Some(&*key.name)) {
                        perform(client, Some(object), end(&object.key, &parse(object)?, "PodGC: node no longer exists", now)).await?;
                    }
                }
                self.gone.lock().remove(key);
            }
            "pods" => {
                let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
                let pod: Pod<'_> = parse(&object)?;
                if pod.metadata.deleting() && pod.spec.node_name.is_empty() && pod.metadata.finalizers.is_empty() {
                    let delete = Action::Delete { key: key.clone(), uid: pod.metadata.uid.to_string(), propagation: None, grace: Some(0) };
                    perform(client, Some(&object), vec![delete]).await?;
                }
            }
            _ => {
                if snapshot.count("pods", None) > KEPT {
                    let pods = snapshot.range("pods", None, None).filter(|pod| has_ended(pod));
                    let pods = pods.map(|pod| Ok((&pod.key, pod.meta.uid.to_string(), parse::<Pod<'_>>(pod)?.metadata.created())));
                    let actions = surplus(pods.collect::<Result<_, Status>>()?, KEPT);
                    perform(client, None, actions).await?;
                }
            }
        }
        Ok(Next::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_gone_node_fails_and_goes() {
        let pod: Pod<'_> = serde_json::from_str(r#"{"metadata":{"uid":"u"},"status":{"phase":"Running"}}"#).expect("pod");
        let key = Key::new("pods", "n", "p");
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let [Action::Patch { patch, .. }, Action::Delete { grace: Some(0), .. }] = &end(&key, &pod, "gone", now)[..] else { panic!("patch, delete") };
        assert_eq!((&patch["status"]["phase"], &patch["status"]["conditions"][0]["reason"]), (&json!("Failed"), &json!("DeletionByPodGC")));
        let pod: Pod<'_> = serde_json::from_str(r#"{"status":{"phase":"Succeeded"}}"#).expect("pod");
        assert_eq!(end(&key, &pod, "gone", now).len(), 1);
    }

    #[test]
    fn the_oldest_ended_pods_go_first() {
        let keys: Vec<Key> = ["a", "b", "c"].iter().map(|name| Key::new("pods", "n", *name)).collect();
        let at = |second: i64| Timestamp::from_second(second).expect("time");
        let pods = vec![(&keys[0], "a".to_owned(), at(3)), (&keys[1], "b".to_owned(), at(1)), (&keys[2], "c".to_owned(), at(2))];
        let names: Vec<String> = surplus(pods, 1)
            .into_iter()
            .filter_map(|action| match action {
                Action::Delete { key, .. } => Some(key.name.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["b", "c"]);
    }
}
