//! How many pods of an application may be missing at will (Kubernetes' disruption-controller): keeps the status of PodDisruptionBudgets, on
//! which evictions decide.
//!
//! [`budget`] counts; this file reads the state and writes it. Pods that were to be disrupted and were not are its business, too.

pub mod budget;

use self::budget::decide;
use super::{
    Context, Kinds,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    pipeline::object::at,
    view::{
        Condition, Headed, Owner,
        budget::{BUDGETS, Budget, budgets_of},
        condition, parse,
        pod::Pod,
        stamp,
    },
};
use coracle_store::{Key, Object, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// After this time a pod that was to be disrupted is none any more.
const STALE: SignedDuration = SignedDuration::from_secs(2 * 60);

/// See the module.
pub struct Disruptions {
    context: Context,
    kinds: Kinds,
}

/// For how long a pod still counts as one that is to be disrupted; None if it does not.
fn doubtful(pod: &Pod<'_>, now: Timestamp) -> Option<SignedDuration> {
    let told = condition(&pod.status.conditions, "DisruptionTarget").filter(|c| c.is_true() && c.reason != "TerminationByKubelet")?;
    if pod.metadata.deleting() || pod.terminal() {
        return None;
    }
    Some((STALE - now.duration_since(told.since()?)).max(SignedDuration::ZERO))
}

impl Disruptions {
    /// Acting as `disruption-controller`.
    pub fn new(context: &Context, kinds: Kinds) -> Self {
        Self { context: context.acting_as("disruption-controller"), kinds }
    }

    /// The identity and wanted number of pods of what an owner reference leads to: for the set of a Deployment that of the Deployment.
    fn scale(&self, snapshot: &Snapshot, namespace: &str, owner: &Owner<'_>) -> Result<Option<(String, i64)>, String> {
        let kinds = (self.kinds)();
        let find = |owner: &Owner<'_>| kinds.iter().find(|kind| *kind.group == *owner.group() && *kind.kind == *owner.kind);
        let Some(kind) = find(owner) else { return Err(format!("no matches for kind \"{}\" in version \"{}\"", owner.kind, owner.api_version)) };
        let Some(paths) = &kind.scale else { return Err(format!("{} does not implement the scale subresource", kind.id())) };
        let Some(object) = snapshot.get(&Key::new(kind.id(), namespace, &*owner.name)).filter(|object| *object.meta.uid == *owner.uid) else {
            return Ok(None);
        };
        let whole: Value = parse(&object).map_err(|status: Status| status.message)?;
        let above = parse::<Headed<'_>>(&object).map_err(|status| status.message)?;
        if let Some(above) = above.metadata.controller().filter(|above| find(above).is_some_and(|kind| kind.scale.is_some())) {
            return self.scale(snapshot, namespace, above);
        }
        Ok(Some((object.meta.uid.to_string(), at(&whole, &paths.spec).as_i64().unwrap_or(1))))
    }

    async fn settle(&self, snapshot: &Snapshot, object: &Arc<Object>) -> Result<Next, Status> {
        let view: Budget<'_> = parse(object)?;
        let pods = snapshot.range("pods", Some(&object.key.namespace), None).filter(|pod| view.selects(pod.meta.labels.as_slice()));
        let objects: Vec<Arc<Object>> = pods.cloned().collect();
        let pods = objects.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        let scale = |owner: &Owner<'_>| self.scale(snapshot, &object.key.namespace, owner);
        let decided = decide(&view, &pods, &scale, self.context.now());
        let client = &self.context.client;
        for name in decided.not_deleted {
            if let Some(pod) = objects.iter().find(|pod| *pod.key.name == *name) {
                let message = format!("Pod was expected by PDB {}/{} to be deleted but it wasn't", object.key.namespace, object.key.name);
                client.event(pod, "Warning", "NotDeleted", &message);
            }
        }
        perform(client, Some(object), decided.actions).await?;
        Ok(decided.again.map_or(Next::Idle, Next::After))
    }

    /// A pod that was not disrupted in time says so no longer.
    async fn acquit(&self, object: &Arc<Object>) -> Result<Next, Status> {
        let pod: Pod<'_> = parse(object)?;
        let now = self.context.now();
        match doubtful(&pod, now) {
            None => return Ok(Next::Idle),
            Some(left) if left > SignedDuration::ZERO => return Ok(Next::After(left.unsigned_abs())),
            Some(_) => {}
        }
        let free =
            Condition { kind: "DisruptionTarget".into(), status: "False".into(), last_transition_time: stamp(now).into(), ..Condition::default() };
        let conditions: Vec<Value> = pod.status.conditions.iter().map(|c| if c.kind == free.kind { free.to_json() } else { c.to_json() }).collect();
        let meta = &pod.metadata;
        let patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version }, "status": { "conditions": conditions } });
        perform(&self.context.client, None, vec![Action::Patch { key: object.key.clone(), subresource: "status", patch }]).await?;
        Ok(Next::Idle)
    }
}

fn mentions_disruption(pod: &Object) -> bool {
    std::str::from_utf8(&pod.json).is_ok_and(|json| json.contains("\"DisruptionTarget\""))
}

#[async_trait]
impl Controller for Disruptions {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            BUDGETS => keys.extend(event.new.map(|object| object.key.clone())),
            "pods" => {
                for pod in event.versions() {
                    keys.extend(budgets_of(event.snapshot, pod).iter().map(|budget| budget.key.clone()));
                }
                keys.extend(event.new.filter(|pod| mentions_disruption(pod)).map(|pod| pod.key.clone()));
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, BUDGETS, keys);
        keys.extend(snapshot.range("pods", None, None).filter(|pod| mentions_disruption(pod)).map(|pod| pod.key.clone()));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        if &*key.resource == BUDGETS { self.settle(&snapshot, &object).await } else { self.acquit(&object).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_stays_is_doubted_for_two_minutes() {
        let now: Timestamp = "2026-01-01T00:01:30Z".parse().expect("time");
        let left = |status: &str, reason: &str, extra: &str| {
            let pod = format!(
                r#"{{"metadata":{{{extra}}},"status":{{"phase":"Running","conditions":[{{"type":"DisruptionTarget","status":"{status}",
                "reason":"{reason}","lastTransitionTime":"2026-01-01T00:00:00Z"}}]}}}}"#
            );
            doubtful(&serde_json::from_str(&pod).expect("a pod"), now).map(|left| left.as_secs())
        };
        assert_eq!(left("True", "EvictionByEvictionAPI", ""), Some(30));
        assert_eq!(left("False", "", ""), None);
        assert_eq!(left("True", "TerminationByKubelet", ""), None);
        assert_eq!(left("True", "EvictionByEvictionAPI", r#""deletionTimestamp":"2026-01-01T00:00:00Z""#), None);
        assert_eq!(doubtful(&Pod::default(), now), None);
    }
}
