//! Keeps numbered pods with names, claims and an order of their own (Kubernetes' statefulset-controller).
//!
//! [`pass`] decides what is to be done next and what to report, [`identity`] who a pod is, [`claims`] what becomes of its storage; this file
//! reads the state and carries it out.

pub mod claims;
pub mod identity;
pub mod pass;

use self::{
    claims::{CLAIMS, Claims},
    pass::{State, Step},
};
use super::{
    Context,
    action::{Action, perform, perform_one},
    backoff::Backoff,
    history::{REVISION_LABEL, Subject},
    owned::{Parent, by_selector, pod_template},
    pod_control::batches,
    queue::Next,
    runner::{Controller, Event, every, namespace_ends},
};
use crate::view::{Strategy, View};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, Text, int_or_percent::IntOrPercent, parse, pod::Pod, selector::LabelSelector};
use coracle_store::{Key, Object, Snapshot};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const RESOURCE: &str = "statefulsets.apps";
const PARENT: Parent = Parent { resource: RESOURCE, api_version: "apps/v1", kind: "StatefulSet", selects: by_selector };
/// The label of a revision that holds its hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// A pod that ends again and again is replaced at least this often.
const LONGEST: Duration = Duration::from_secs(60);

/// A narrow view of `apps/v1 StatefulSet`.
pub type StatefulSet<'a> = View<'a, Spec<'a>, Report<'a>>;
/// `apps/v1 StatefulSetSpec` without the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Wanted pods; 1 unless given.
    pub replicas: Option<i64>,
    /// How long a pod must be ready to be available.
    pub min_ready_seconds: i64,
    /// `OrderedReady` or `Parallel`.
    #[serde(borrow)]
    pub pod_management_policy: Text<'a>,
    /// The headless Service that names the pods.
    pub service_name: Text<'a>,
    /// Which pods are ours.
    pub selector: LabelSelector<'a>,
    /// How pods are replaced.
    pub update_strategy: Strategy<'a, RollingUpdate<'a>>,
    /// Old revisions that are kept; 10 unless given.
    pub revision_history_limit: Option<i64>,
    /// Numbers of the pods.
    pub ordinals: Ordinals,
    /// What becomes of claims.
    pub persistent_volume_claim_retention_policy: RetentionPolicy<'a>,
    /// A claim of each is made for every pod.
    pub volume_claim_templates: Vec<Value>,
}
/// `apps/v1 RollingUpdateStatefulSetStrategy`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate<'a> {
    /// That many pods from the first keep the old template.
    pub partition: i64,
    /// Pods that may be missing; one at a time, in order, unless given.
    #[serde(borrow)]
    pub max_unavailable: Option<IntOrPercent<'a>>,
}
/// `apps/v1 StatefulSetOrdinals`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    /// Number of the first pod.
    pub start: i64,
}
/// `apps/v1 StatefulSetPersistentVolumeClaimRetentionPolicy`: `Retain` or `Delete`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionPolicy<'a> {
    /// When the set is deleted.
    #[serde(borrow)]
    pub when_deleted: Text<'a>,
    /// When a pod's number is no longer wanted.
    pub when_scaled: Text<'a>,
}
/// `apps/v1 StatefulSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// The generation this speaks of.
    pub observed_generation: i64,
    /// Pods that exist.
    pub replicas: i64,
    /// Ready pods.
    pub ready_replicas: i64,
    /// Pods of the current revision.
    pub current_replicas: i64,
    /// Pods of the update revision.
    pub updated_replicas: i64,
    /// Ready for minReadySeconds.
    pub available_replicas: i64,
    /// The revision that an update started from.
    #[serde(borrow)]
    pub current_revision: Text<'a>,
    /// The revision of the present template.
    pub update_revision: Text<'a>,
    /// How often a revision's name was taken by another template.
    pub collision_count: i64,
    /// None of ours.
    pub conditions: Vec<Condition<'a>>,
}

impl StatefulSet<'_> {
    /// Wanted pods.
    pub fn replicas(&self) -> i64 {
        self.spec.replicas.unwrap_or(1)
    }
    /// Names of the claim templates.
    pub fn claim_templates(&self) -> impl Iterator<Item = &str> {
        self.spec.volume_claim_templates.iter().filter_map(|template| template["metadata"]["name"].as_str())
    }
    /// Whether one pod follows the other.
    pub fn ordered(&self) -> bool {
        self.spec.pod_management_policy != "Parallel"
    }
}

/// See the module.
pub struct StatefulSets {
    context: Context,
    backoff: parking_lot::Mutex<Backoff>,
}

impl StatefulSets {
    /// Acting as `statefulset-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("statefulset-controller"), backoff: parking_lot::Mutex::new(Backoff::up_to(LONGEST)) }
    }

    /// Carries out one step and tells of it.
    async fn take(&self, about: &Object, step: Step) -> Result<(), Status> {
        let client = &self.context.client;
        let (set, pod, verb) = (&about.key.name, &step.pod, step.verb);
        for name in &step.conflicts {
            let message = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim"
            );
            client.event(about, "Warning", "ConflictingController", &message);
        }
        let failed = |status: Status| {
            if !namespace_ends(&status) {
                let message = format!("{verb} Pod {pod} in StatefulSet {set} failed error: {}", status.message);
                client.event(about, "Warning", &format!("Failed{verb}"), &message);
            }
            status
        };
        if let Some(status) = step.refused {
            return Err(failed(status));
        }
        for action in step.actions {
            let claim = match &action {
                Action::Create { resource: CLAIMS, object } => object["metadata"]["name"].as_str().map(str::to_owned),
                _ => None,
            };
            let makes_pod = matches!(&action, Action::Create { resource: "pods", .. });
            let result = perform_one(client, Some(about), action).await;
            match (result, claim) {
                (Ok(()), Some(claim)) => {
                    let message = format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success");
                    client.event(about, "Normal", "SuccessfulCreate", &message);
                }
                (Ok(()), None) => {}
                (Err(status), None) if makes_pod && status.reason == "AlreadyExists" => return Err(status),
                (Err(mut status), Some(claim)) => {
                    status.message = format!("failed to create PVC {claim}: {}", status.message);
                    return Err(failed(status));
                }
                (Err(status), None) => return Err(failed(status)),
            }
        }
        if step.told {
            client.event(about, "Normal", &format!("Successful{verb}"), &format!("{verb} Pod {pod} in StatefulSet {set} successful"));
        }
        Ok(())
    }

    /// One step after the other, or, where order does not matter, in batches that double.
    async fn take_all(&self, about: &Object, steps: Vec<Step>, ordered: bool) -> Result<(), Status> {
        let mut steps = steps.into_iter();
        let sizes: Vec<usize> = if ordered { vec![1; steps.len()] } else { batches(steps.len()).collect() };
        for size in sizes {
            let batch: Vec<_> = steps.by_ref().take(size).map(|step| self.take(about, step)).collect();
            join_all(batch).await.into_iter().collect::<Result<(), Status>>()?;
        }
        Ok(())
    }
}

/// Sets that may wait for a claim that went.
fn waiting(claim: &Object, snapshot: &Snapshot, keys: &mut Vec<Key>) {
    let waits = |set: &&std::sync::Arc<Object>| claim.key.name.contains(&*format!("-{}-", set.key.name));
    keys.extend(snapshot.range(RESOURCE, Some(&claim.key.namespace), None).filter(waits).map(|set| set.key.clone()));
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.new.map(|object| object.key.clone())),
            "pods" | super::history::REVISIONS => event.versions().for_each(|object| PARENT.route(object, event.snapshot, keys)),
            CLAIMS => {
                if let (Some(claim), None) = (event.prev, event.new) {
                    waiting(claim, event.snapshot, keys);
                }
            }
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
        let set: StatefulSet<'_> = parse(&object)?;
        let member = |pod: &Object| identity::parts(&pod.key.name).is_some_and(|(parent, _)| *parent == *set.metadata.name);
        let objects = PARENT.claim(client, "pods", &set.metadata, &set.spec.selector, member, |_| true).await?;
        let pods = objects.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;

        let template = pod_template(&object)?;
        let subject = Subject {
            parent: &PARENT,
            meta: &set.metadata,
            selector: &set.spec.selector,
            template: &template,
            collisions: set.status.collision_count,
            hash_label: HASH_LABEL,
        };
        let history = subject.settle(client).await?;
        let Some(update) = history.revisions.get(history.update) else { return Ok(Next::Idle) };
        let current = history.revisions.iter().find(|revision| *revision.name == *set.status.current_revision).unwrap_or(update);

        let claims = Claims::of(&store.snapshot(), &set);
        let owner = PARENT.reference(&set.metadata);
        let (uid, generation) = (&*set.metadata.uid, set.metadata.generation);
        let wait = |pod: &str| self.backoff.lock().left(uid, generation, pod, Instant::now());
        let state = State { set: &set, owner: &owner, pods: &pods, current, update, claims: &claims, wait: &wait, now: self.context.now() };
        let decided = state.decide(history.collisions)?;
        for step in decided.phases[0].iter().filter(|step| step.verb == "Delete") {
            self.backoff.lock().failed(uid, generation, &step.pod, Instant::now());
        }
        let mut report = decided.report;
        let mut failure = None;
        for phase in decided.phases {
            if failure.is_none() {
                failure = self.take_all(&object, phase, set.ordered()).await.err();
            }
        }
        for step in decided.updates {
            if failure.is_none() {
                failure = self.take(&object, step).await.err();
                // Known before the pod is seen to go: where it came from is decided by this count.
                report.current_replicas -= i64::from(failure.is_none());
            }
        }
        if report != set.status {
            let written = perform(client, Some(&object), vec![Action::Status(pass::to_json(&report))]).await;
            failure = failure.or(written.err());
        }
        let mut live: BTreeSet<&str> = [&*current.name, &*update.name].into();
        live.extend(pods.iter().filter_map(|pod| pod.metadata.labels.get(REVISION_LABEL).map(|name| &**name)));
        subject.forget(client, &history, &live, set.spec.revision_history_limit.unwrap_or(10)).await?;
        match failure {
            Some(status) => Err(status),
            None => Ok(decided.again.map_or(Next::Idle, Next::After)),
        }
    }
}
