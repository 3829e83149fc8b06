//! Rolls a Deployment's template out over ReplicaSets (Kubernetes' deployment-controller).
//!
//! [`rollout`] decides each pass as a pure function of the Deployment and its sets; this file reads the state and carries it out. A
//! pass does one step; what it wrote comes back through the watch as the next pass.

pub mod bounds;
pub mod revision;
pub mod rollout;
pub mod status;
pub mod template;

use self::rollout::{Set, State};
use super::{
    Context,
    action::{Action, Plan, perform, perform_one},
    owned::{Parent, by_selector, dependents, pod_template},
    queue::Next,
    replica_set::ReplicaSet,
    runner::{Controller, Event, every, namespace_ends},
};
use crate::view::{Strategy, View};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, parse, pod::Pod, selector::LabelSelector};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

const RESOURCE: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";
const PARENT: Parent = Parent { resource: RESOURCE, api_version: "apps/v1", kind: "Deployment", selects: by_selector };
/// "No limit" in progressDeadlineSeconds and revisionHistoryLimit.
const UNLIMITED: i64 = i32::MAX as i64;

/// A narrow view of `apps/v1 Deployment`.
pub type Deployment<'a> = View<'a, Spec<'a>, Report<'a>>;
/// `apps/v1 DeploymentSpec` without the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Wanted pods; 1 unless given.
    pub replicas: Option<i64>,
    /// How long a pod must be ready to be available.
    pub min_ready_seconds: i64,
    /// Nothing is rolled out while set.
    pub paused: bool,
    /// After how long without progress the rollout counts as failed.
    pub progress_deadline_seconds: Option<i64>,
    /// Old sets that are kept.
    pub revision_history_limit: Option<i64>,
    /// Which sets and pods are ours.
    #[serde(borrow)]
    pub selector: LabelSelector<'a>,
    /// How pods are replaced.
    pub strategy: Strategy<'a, bounds::RollingUpdate<'a>>,
}
/// `apps/v1 DeploymentStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// The generation this speaks of.
    pub observed_generation: i64,
    /// Pods of all sets.
    pub replicas: i64,
    /// Pods of the new set.
    pub updated_replicas: i64,
    /// Ready pods.
    pub ready_replicas: i64,
    /// Available pods.
    pub available_replicas: i64,
    /// Wanted by the sets, but not available.
    pub unavailable_replicas: i64,
    /// Pods being deleted.
    pub terminating_replicas: i64,
    /// How often a set's name was taken by another template.
    pub collision_count: i64,
    /// `Available`, `Progressing`, `ReplicaFailure`.
    #[serde(borrow)]
    pub conditions: Vec<Condition<'a>>,
}

impl Deployment<'_> {
    /// Wanted pods.
    pub fn replicas(&self) -> i64 {
        self.spec.replicas.unwrap_or(1)
    }
    /// The progress deadline, if there is one.
    pub fn deadline(&self) -> Option<i64> {
        self.spec.progress_deadline_seconds.filter(|seconds| *seconds != UNLIMITED)
    }
    /// How many old sets are kept, if limited.
    pub fn history(&self) -> Option<i64> {
        self.spec.revision_history_limit.filter(|limit| *limit != UNLIMITED)
    }
}

/// See the module.
pub struct Deployments {
    context: Context,
}

impl Deployments {
    /// Acting as `deployment-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("deployment-controller") }
    }

    /// A new set was refused: a namesake of another template moves the hash on, anything else is told in status and event.
    async fn refused(&self, about: &Object, deployment: &Deployment<'_>, name: &str, error: Status) -> Result<(), Status> {
        let client = &self.context.client;
        if error.reason == "AlreadyExists" {
            let count = deployment.status.collision_count + 1;
            let key = Key::new(RESOURCE, about.key.namespace.clone(), about.key.name.clone());
            let patch = json!({ "metadata": { "uid": deployment.metadata.uid }, "status": { "collisionCount": count } });
            perform(client, Some(about), vec![Action::Patch { key, subresource: "status", patch }]).await?;
            return Err(error);
        }
        if namespace_ends(&error) {
            return Ok(());
        }
        let message = format!("Failed to create new replica set \"{name}\": {}", error.message);
        if deployment.deadline().is_some() {
            let mut report = deployment.status.clone();
            status::set(&mut report.conditions, "Progressing", "False", "ReplicaSetCreateError", message.clone(), self.context.now());
            if report != deployment.status {
                perform(client, Some(about), vec![Action::Status(status::to_json(&report))]).await?;
            }
        }
        client.event(about, "Warning", "ReplicaSetCreateError", &message);
        Err(error)
    }
}

/// Whether a set still has pods that have not ended.
fn has_pods(snapshot: &Snapshot, uid: &str) -> Result<bool, Status> {
    for pod in dependents(snapshot, uid, "pods") {
        if !parse::<Pod<'_>>(&pod)?.terminal() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.new.map(|object| object.key.clone())),
            SETS => event.versions().for_each(|set| PARENT.route(set, event.snapshot, keys)),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, RESOURCE, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let Some(object) = client.store().snapshot().get(key) else { return Ok(Next::Idle) };
        let deployment: Deployment<'_> = parse(&object)?;
        if deployment.spec.selector.is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
            perform(client, Some(&object), vec![Action::Event { kind: "Warning", reason: "SelectingAll", message }]).await?;
            return Ok(Next::Idle);
        }
        let us = PARENT.reference(&deployment.metadata);
        let objects = PARENT.claim(client, SETS, &deployment.metadata, &deployment.spec.selector, |_| true, |_| true).await?;
        let snapshot = client.store().snapshot();

        let wanted = template::without_hash(pod_template(&object)?);
        let recreate = deployment.spec.strategy.kind == "Recreate";
        let mut sets = Vec::new();
        for set in &objects {
            let view: ReplicaSet<'_> = parse(set)?;
            let current = template::without_hash(pod_template(set)?) == wanted;
            let has_pods = recreate && has_pods(&snapshot, &view.metadata.uid)?;
            sets.push(Set::new(view, current, has_pods));
        }

        let Plan { actions, next } = State::new(&deployment, &wanted, &us, sets, self.context.now()).decide();
        for action in actions {
            if let Action::Create { resource: SETS, object: set } = action {
                let name = set.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
                if let Err(error) = perform_one(client, Some(&object), Action::Create { resource: SETS, object: set }).await {
                    return self.refused(&object, &deployment, &name, error).await.map(|()| Next::Idle);
                }
            } else {
                perform_one(client, Some(&object), action).await?;
            }
        }
        Ok(next)
    }
}
