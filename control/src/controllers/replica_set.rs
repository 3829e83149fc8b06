//! Keeps as many pods of a template as a ReplicaSet wants (Kubernetes' replicaset-controller).
//!
//! [`scale`] decides how many to make and which to delete, [`status`] what to report; this file reads the state and carries it out.

pub mod scale;
pub mod status;

use self::{
    scale::{Candidate, Diff},
    status::Report,
};
use super::{
    Context,
    action::{Action, perform, perform_one},
    claim::{Claim, claim, patch},
    pod::{Pod, from_template},
    queue::Next,
    runner::{Controller, Event, every, namespace_ends},
    selector::LabelSelector,
    view::{Condition, Headed, Map, Meta, Owner, Text, parse},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_store::{Key, Object, Snapshot};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

const RESOURCE: &str = "replicasets.apps";
/// Pods made or deleted in one run; the next run goes on.
const BURST: usize = 500;

/// A narrow view of `apps/v1 ReplicaSet`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaSet<'a> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    /// Spec.
    pub spec: Spec<'a>,
    /// Status.
    pub status: State<'a>,
}
/// `apps/v1 ReplicaSetSpec`, without what is in the template but its labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Wanted pods; 1 unless given.
    pub replicas: Option<i64>,
    /// How long a pod must be ready to be available.
    pub min_ready_seconds: i64,
    /// Which pods are ours.
    #[serde(borrow)]
    pub selector: LabelSelector<'a>,
    /// The template's metadata.
    pub template: Template<'a>,
}
/// The part of the template that status looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template<'a> {
    /// Its metadata.
    #[serde(borrow)]
    pub metadata: TemplateMeta<'a>,
}
/// Labels of the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMeta<'a> {
    /// Its labels.
    #[serde(borrow)]
    pub labels: Map<'a>,
}
/// `apps/v1 ReplicaSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct State<'a> {
    /// Active pods.
    pub replicas: i64,
    /// Active pods that carry all labels of the template.
    pub fully_labeled_replicas: i64,
    /// Ready ones.
    pub ready_replicas: i64,
    /// Ready for minReadySeconds.
    pub available_replicas: i64,
    /// Pods being deleted.
    pub terminating_replicas: i64,
    /// The generation this speaks of.
    pub observed_generation: i64,
    /// `ReplicaFailure`.
    #[serde(borrow)]
    pub conditions: Vec<Condition<'a>>,
}

/// See the module.
pub struct ReplicaSets {
    context: Context,
}

impl ReplicaSets {
    /// Acting as `replicaset-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("replicaset-controller") }
    }

    /// Makes `count` pods in batches that double, so that a quota that is used up costs one refusal and not hundreds.
    async fn create(&self, about: &Object, pod: &Value, count: usize) -> Result<(), Status> {
        for batch in scale::batches(count) {
            let made = join_all((0..batch).map(|_| self.context.client.create("pods", &about.key.namespace, pod.clone()))).await;
            let mut failure = None;
            for result in made {
                match result {
                    Ok(pod) => self.context.client.event(about, "Normal", "SuccessfulCreate", &format!("Created pod: {}", pod.key.name)),
                    Err(status) => {
                        if !namespace_ends(&status) {
                            self.context.client.event(about, "Warning", "FailedCreate", &format!("Error creating: {}", status.message));
                        }
                        failure = Some(status);
                    }
                }
            }
            if let Some(status) = failure {
                return Err(status);
            }
        }
        Ok(())
    }

    async fn delete(&self, about: &Object, pods: Vec<(Key, String)>) -> Result<(), Status> {
        let deletions = pods.into_iter().map(|(key, uid)| async move {
            let name = key.name.clone();
            let result = perform_one(&self.context.client, None, Action::Delete { key, uid, propagation: None, grace: None }).await;
            match &result {
                Ok(()) => self.context.client.event(about, "Normal", "SuccessfulDelete", &format!("Deleted pod: {name}")),
                Err(status) => self.context.client.event(about, "Warning", "FailedDelete", &format!("Error deleting: {}", status.message)),
            }
            result
        });
        join_all(deletions).await.into_iter().collect()
    }
}

/// Pods that are ours or may become so.
fn candidates(snapshot: &Snapshot, set: &ReplicaSet<'_>) -> Vec<Arc<Object>> {
    let selector = &set.spec.selector;
    let uid = &*set.metadata.uid;
    snapshot
        .range("pods", Some(&set.metadata.namespace), None)
        .filter(|pod| pod.meta.owners.iter().any(|owner| **owner == *uid) || (!selector.is_empty() && selector.matches(pod.meta.labels.as_slice())))
        .cloned()
        .collect()
}

/// How many active pods of sibling sets (those of the same Deployment) run on each node: deletion thins out the crowded nodes.
fn crowd(snapshot: &Snapshot, set: &ReplicaSet<'_>) -> Result<HashMap<String, usize>, Status> {
    let siblings = match set.metadata.controller() {
        Some(owner) => snapshot.dependents(&owner.uid).into_iter().filter(|o| &*o.key.resource == RESOURCE).map(|o| o.meta.uid.to_string()).collect(),
        None => vec![set.metadata.uid.to_string()],
    };
    let mut nodes = HashMap::new();
    for pod in siblings.iter().flat_map(|uid| snapshot.dependents(uid)).filter(|o| &*o.key.resource == "pods") {
        let view: Pod<'_> = parse(&pod)?;
        if view.active() && !view.spec.node_name.is_empty() {
            *nodes.entry(view.spec.node_name.to_string()).or_default() += 1;
        }
    }
    Ok(nodes)
}

/// The ReplicaSet that manages a pod, and for a pod nobody manages those that would adopt it.
fn sets_of(pod: &Object, snapshot: &Snapshot, keys: &mut Vec<Key>) {
    if !pod.meta.owners.is_empty() {
        let Ok(view) = parse::<Headed<'_>>(pod) else { return };
        if let Some(owner) = view.metadata.controller() {
            if owner.kind == "ReplicaSet" && owner.group() == "apps" {
                keys.push(Key::new(RESOURCE, pod.key.namespace.clone(), &*owner.name));
            }
            return;
        }
    }
    for set in snapshot.range(RESOURCE, Some(&pod.key.namespace), None) {
        let Ok(view) = parse::<ReplicaSet<'_>>(set) else { continue };
        if !view.spec.selector.is_empty() && view.spec.selector.matches(pod.meta.labels.as_slice()) {
            keys.push(set.key.clone());
        }
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.new.map(|object| object.key.clone())),
            "pods" => event.versions().for_each(|pod| sets_of(pod, event.snapshot, keys)),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, RESOURCE, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let store = client.store();
        let mut snapshot = store.snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        let set: ReplicaSet<'_> = parse(&object)?;
        let uid = &*set.metadata.uid;
        let us = Owner {
            api_version: Text::from("apps/v1"),
            kind: Text::from("ReplicaSet"),
            name: set.metadata.name.clone(),
            uid: set.metadata.uid.clone(),
            controller: true,
            block_owner_deletion: true,
        };

        let mut claims = Vec::new();
        let mut pods = candidates(&snapshot, &set);
        let mut views = pods.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        for (pod, view) in pods.iter().zip(&views) {
            match claim(&view.metadata, uid, &set.spec.selector, set.metadata.deleting()) {
                Claim::Adopt if view.active() => claims.push(patch(pod.key.clone(), &view.metadata, &us, true)),
                Claim::Release => claims.push(patch(pod.key.clone(), &view.metadata, &us, false)),
                _ => {}
            }
        }
        if !claims.is_empty() {
            perform(client, None, claims).await?;
            snapshot = store.snapshot();
            drop(views);
            pods = candidates(&snapshot, &set);
            views = pods.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        }

        let owned = views.iter().filter(|pod| pod.metadata.controlled_by(uid) && pod.active());
        let mut failure = None;
        let (mut more, mut changed) = (false, false);
        if !set.metadata.deleting() {
            let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
            let crowd = if owned.clone().count() > wanted { crowd(&snapshot, &set)? } else { HashMap::new() };
            let active: Vec<Candidate<'_>> = owned.map(|pod| Candidate::new(pod, &crowd)).collect();
            match scale::diff(active, wanted, BURST, self.context.now()) {
                Diff::None => {}
                Diff::Create(count) => {
                    changed = true;
                    let whole: Value = parse(&object)?;
                    let template = whole.pointer("/spec/template").cloned().unwrap_or_else(|| json!({}));
                    let pod = from_template(&template, &key.namespace, &format!("{}-", key.name), &us);
                    failure = self.create(&object, &pod, count).await.err();
                    more = count == BURST;
                }
                Diff::Delete(names) => {
                    changed = true;
                    more = names.len() == BURST;
                    let chosen = names.into_iter().map(|(name, uid)| (Key::new("pods", key.namespace.clone(), name), uid)).collect();
                    failure = self.delete(&object, chosen).await.err();
                }
            }
        }

        // What was just made or deleted is in a fresh snapshot: the status needs no second round.
        if changed {
            drop(views);
            pods = candidates(&store.snapshot(), &set);
            views = pods.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        }
        let owned: Vec<&Pod<'_>> = views.iter().filter(|pod| pod.metadata.controlled_by(&set.metadata.uid)).collect();
        let Report { status, again } = status::report(&set, &owned, failure.as_ref().map(|f| &*f.message), self.context.now());
        if let Some(status) = status {
            perform(client, Some(&object), vec![Action::Status(status)]).await?;
        }
        match failure {
            Some(status) => Err(status),
            None if more => Ok(Next::After(Duration::ZERO)),
            None => Ok(again.map_or(Next::NotBefore(rest(owned.len())), Next::After)),
        }
    }
}

/// Sets of many pods gather changes for a moment: a run looks at all of them.
fn rest(pods: usize) -> Duration {
    Duration::from_micros(50).saturating_mul(u32::try_from(pods).unwrap_or(u32::MAX)).min(Duration::from_secs(1))
}
