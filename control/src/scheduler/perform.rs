//! Carries the scheduler's decisions out: bindings, conditions, events, and the deletion of pods that make room.

use super::{
    engine::{Decision, Engine},
    pod::Pod,
    preempt::Victim,
};
use crate::controllers::{Clock, action};
use coracle_api::Status;
use coracle_apiserver::{
    client::{Client, DeleteOptions},
    pipeline::PatchKind,
    view::{condition, parse, stamp},
};
use coracle_store::{Key, Object};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};

/// Victims of one pod that are deleted at once.
const PARALLEL: usize = 16;

/// How the carrying out of a decision ended.
pub(super) enum Ended {
    Told,
    Bound(Arc<Object>, bool),
    Waits(Arc<Object>, u8, bool),
    Claimed(Arc<Object>, Vec<Key>, bool),
}

impl Ended {
    /// Reports it.
    pub(super) fn tell(self, engine: &mut Engine, now: Instant) {
        match self {
            Ended::Told => {}
            Ended::Bound(pod, succeeded) => engine.bound(&pod, succeeded, now),
            Ended::Waits(pod, hears, succeeded) => engine.waits(&pod, hears, succeeded, now),
            Ended::Claimed(pod, promised, succeeded) => engine.claimed(&pod, &promised, succeeded, now),
        }
    }
}

/// What becomes of a pod's `nominatedNodeName`.
enum Nominated<'n> {
    Stays,
    Is(&'n str),
    None,
}

pub(super) async fn perform(client: &Client, clock: &Clock, decision: Decision) -> Ended {
    match decision {
        Decision::Bind { pod, node } => bind(client, pod, &node).await,
        Decision::Unschedulable { pod, message, give_up } => {
            let nominated = if give_up { Nominated::None } else { Nominated::Stays };
            tell(client, &pod, &message, nominated, clock).await;
            Ended::Told
        }
        Decision::Preempt { pod, message, node, victims, outdone, hears } => {
            // First of all it is told where it goes: should this process end now, the next one knows for whom room was made.
            tell(client, &pod, &message, Nominated::Is(&node), clock).await;
            for key in &outdone {
                let patch = json!({ "status": { "nominatedNodeName": null } });
                let _gone = client.patch("pods", &key.namespace, &key.name, "status", PatchKind::Merge, patch).await;
            }
            let going = stream::iter(victims).map(|victim| make_way(client, clock, &pod, &node, victim));
            let outcome = going.buffer_unordered(PARALLEL).try_collect::<()>().await;
            if let Err(status) = &outcome {
                warn(&pod, status, "cannot make room for a pod; will try again");
            }
            Ended::Waits(pod, hears, outcome.is_ok())
        }
        Decision::Prepare { pod, patches, hears } => {
            let outcome = prepare(client, patches).await;
            if let Err(status) = &outcome {
                warn(&pod, status, "cannot choose volumes for a pod; will try again");
            }
            Ended::Waits(pod, hears, outcome.is_ok())
        }
        Decision::Claim { pod, steps, promised } => {
            let outcome = action::perform(client, None, steps).await;
            if let Err(status) = &outcome {
                warn(&pod, status, "cannot give devices to a pod's claims; will try again");
            }
            Ended::Claimed(pod, promised, outcome.is_ok())
        }
    }
}

fn warn(pod: &Object, status: &Status, what: &str) {
    tracing::warn!(namespace = %pod.key.namespace, pod = %pod.key.name, error = %status.message, "{what}");
}

async fn bind(client: &Client, pod: Arc<Object>, node: &str) -> Ended {
    let key = &pod.key;
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": *key.name, "namespace": *key.namespace, "uid": pod.meta.uid },
        "target": { "kind": "Node", "name": node },
    });
    let succeeded = match client.create_subresource("pods", &key.namespace, &key.name, "binding", body).await {
        Ok(_) => {
            client.event(&pod, "Normal", "Scheduled", &format!("Successfully assigned {}/{} to {node}", key.namespace, key.name));
            true
        }
        // Gone or bound by somebody else: the watch tells.
        Err(status) if status.is_not_found() => true,
        Err(status) => {
            warn(&pod, &status, "binding failed; will try again");
            client.event(&pod, "Warning", "FailedScheduling", &format!("binding rejected: {}", status.message));
            false
        }
    };
    Ended::Bound(pod, succeeded)
}

/// Deletes a victim, with the condition that says why.
async fn make_way(client: &Client, clock: &Clock, preemptor: &Object, node: &str, victim: Victim) -> Result<(), Status> {
    let key = &victim.key;
    let Some(object) = client.get("pods", &key.namespace, &key.name).filter(|object| object.meta.uid == victim.uid) else { return Ok(()) };
    let scheduler = parse::<Pod<'_>>(preemptor)?.scheduler().to_owned();
    let target = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "lastTransitionTime": stamp(clock()),
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
    });
    let patch = json!({ "metadata": { "uid": victim.uid }, "status": { "conditions": [target] } });
    let delete = async {
        client.patch("pods", &key.namespace, &key.name, "status", PatchKind::Strategic, patch).await?;
        let options = DeleteOptions { uid: Some(victim.uid.to_string()), ..DeleteOptions::default() };
        client.delete("pods", &key.namespace, &key.name, options).await
    };
    match delete.await {
        Ok(()) => {
            client.event(&object, "Normal", "Preempted", &format!("Preempted by pod {} on node {node}", preemptor.meta.uid));
            Ok(())
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status),
    }
}

async fn prepare(client: &Client, patches: Vec<(Key, Value)>) -> Result<(), Status> {
    for (key, patch) in patches {
        client.patch(&key.resource, &key.namespace, &key.name, "", PatchKind::Merge, patch).await?;
    }
    Ok(())
}

/// Event and condition of a pod that fits nowhere.
async fn tell(client: &Client, pod: &Object, message: &str, nominated: Nominated<'_>, clock: &Clock) {
    client.event(pod, "Warning", "FailedScheduling", message);
    if let Err(status) = report(client, pod, message, nominated, clock).await
        && !status.is_not_found()
    {
        warn(pod, &status, "cannot tell that a pod fits nowhere");
    }
}

async fn report(client: &Client, pod: &Object, message: &str, nominated: Nominated<'_>, clock: &Clock) -> Result<(), Status> {
    let key = &pod.key;
    let since = {
        let pod: Pod<'_> = parse(pod)?;
        let old = condition(&pod.status.conditions, "PodScheduled").filter(|c| c.status == "False");
        old.map_or_else(|| stamp(clock()), |c| c.last_transition_time.to_string())
    };
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": since });
    // Strategic: merged by type, so that conditions of others stay.
    let mut patch = json!({ "metadata": { "uid": pod.meta.uid }, "status": { "conditions": [condition] } });
    match nominated {
        Nominated::Stays => {}
        Nominated::Is(node) => patch["status"]["nominatedNodeName"] = node.into(),
        Nominated::None => patch["status"]["nominatedNodeName"] = Value::Null,
    }
    client.patch("pods", &key.namespace, &key.name, "status", PatchKind::Strategic, patch).await.map(drop)
}
