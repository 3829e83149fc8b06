//! Runs pods to completion (Kubernetes' job-controller and ttl-after-finished-controller).
//!
//! [`pass`] decides, from the Job and its pods alone; nothing is remembered between passes. Pods carry a finalizer until they are
//! counted: an ended pod's uid first goes into the status, then its finalizer is taken away, then the uid becomes a number, so that
//! every pod is counted exactly once however often this process dies in between.

pub mod backoff;
pub mod failure;
pub mod indexes;
pub mod make;
pub mod pass;
pub mod pod;
mod staff;
pub mod success;

use self::{failure::FailurePolicy, pod::Pod, success::SuccessPolicy};
use crate::view::View;

use super::{
    Context,
    action::{Action, perform, perform_one},
    owned::{Parent, by_selector, dependents, pod_template},
    pod_control,
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, Headed, Text, parse, selector::LabelSelector};
use coracle_store::{Key, Snapshot};
use serde::Deserialize;

const RESOURCE: &str = "jobs.batch";
const PARENT: Parent = Parent { resource: RESOURCE, api_version: "batch/v1", kind: "Job", selects: by_selector };
/// Held by a pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// A narrow view of `batch/v1 Job`.
pub type Job<'a> = View<'a, Spec<'a>, Report<'a>>;
/// The part of `batch/v1 JobSpec` that is acted on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Pods at once; 1 unless given.
    pub parallelism: Option<i64>,
    /// Pods that must succeed; absent: one success ends it.
    pub completions: Option<i64>,
    /// Failures that are borne; 6 unless given.
    pub backoff_limit: Option<i64>,
    /// Seconds from its start.
    pub active_deadline_seconds: Option<i64>,
    /// Seconds from its end to its deletion.
    pub ttl_seconds_after_finished: Option<i64>,
    /// Its pods are taken away and none is made.
    pub suspend: bool,
    /// `NonIndexed` or `Indexed`.
    #[serde(borrow)]
    pub completion_mode: Text<'a>,
    /// `TerminatingOrFailed` or `Failed`: when a pod is replaced.
    pub pod_replacement_policy: Text<'a>,
    /// Failures that are borne for each index, instead of for all together.
    pub backoff_limit_per_index: Option<i64>,
    /// Indexes that may fail for good before the Job does.
    pub max_failed_indexes: Option<i64>,
    /// What failures of pods mean.
    pub pod_failure_policy: Option<FailurePolicy<'a>>,
    /// When it has succeeded early.
    pub success_policy: Option<SuccessPolicy<'a>>,
    /// Somebody else runs it, if set and not ours.
    pub managed_by: Text<'a>,
    /// Its pods.
    pub selector: LabelSelector<'a>,
    /// What of the template is looked at.
    pub template: Template<'a>,
}
/// The part of the template that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template<'a> {
    /// Its spec.
    #[serde(borrow)]
    pub spec: TemplateSpec<'a>,
}
/// The part of the template's spec that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateSpec<'a> {
    /// `Never` or `OnFailure`.
    #[serde(borrow)]
    pub restart_policy: Text<'a>,
}
/// `batch/v1 JobStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// Pods that run or will.
    pub active: i64,
    /// Active pods that are ready.
    pub ready: i64,
    /// Pods that succeeded and are counted.
    pub succeeded: i64,
    /// Pods that failed and are counted.
    pub failed: i64,
    /// Pods being deleted.
    pub terminating: i64,
    /// Such as `0-2,5`.
    #[serde(borrow)]
    pub completed_indexes: Text<'a>,
    /// With a limit per index: those that failed for good.
    pub failed_indexes: Option<Text<'a>>,
    /// When it began, or was resumed.
    pub start_time: Text<'a>,
    /// When it succeeded.
    pub completion_time: Text<'a>,
    /// Ended pods that still hold the finalizer, or just lost it.
    pub uncounted_terminated_pods: Uncounted<'a>,
    /// `Complete`, `Failed`, `Suspended`, `SuccessCriteriaMet`, `FailureTarget`.
    pub conditions: Vec<Condition<'a>>,
}
/// `batch/v1 UncountedTerminatedPods`: uids.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Uncounted<'a> {
    /// Succeeded.
    #[serde(borrow)]
    pub succeeded: Vec<Text<'a>>,
    /// Failed.
    pub failed: Vec<Text<'a>>,
}

impl Job<'_> {
    /// Whether its pods have numbers.
    pub fn indexed(&self) -> bool {
        self.spec.completion_mode == "Indexed"
    }
    /// Successes that are needed, 0 where any one is enough.
    pub fn completions(&self) -> i64 {
        self.spec.completions.unwrap_or(0)
    }
}

/// See the module.
pub struct Jobs {
    context: Context,
    /// Deletes finished Jobs.
    reaper: Context,
}

impl Jobs {
    /// Acting as `job-controller`, and as `ttl-after-finished-controller` to delete finished Jobs.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("job-controller"), reaper: context.acting_as("ttl-after-finished-controller") }
    }

    /// Pods that still hold the finalizer though their Job is gone (or another by that name): they are let go.
    async fn release_orphans(&self, snapshot: &Snapshot, key: &Key, uid: &str) -> Result<(), Status> {
        let mut actions = Vec::new();
        for pod in snapshot.range("pods", Some(&key.namespace), None).filter(|pod| !pod.meta.owners.is_empty()) {
            let meta = parse::<Headed<'_>>(pod)?.metadata;
            let left = meta.controller().is_some_and(|owner| owner.kind == "Job" && *owner.name == *key.name && *owner.uid != *uid);
            if left && meta.has_finalizer(TRACKING) {
                actions.push(pod::untracked(&pod.key, &meta));
            }
        }
        for action in actions {
            match perform_one(&self.context.client, None, action).await {
                Err(status) if status.is_not_found() => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Active pods of a Job as they are now.
fn active(snapshot: &Snapshot, uid: &str) -> Result<i64, Status> {
    let mut count = 0;
    for pod in dependents(snapshot, uid, "pods") {
        count += i64::from(parse::<Pod<'_>>(&pod)?.active());
    }
    Ok(count)
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.key().cloned()),
            "pods" => event.versions().for_each(|pod| PARENT.route(pod, event.snapshot, keys)),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, RESOURCE, keys);
        for pod in snapshot.range("pods", None, None).filter(|pod| !pod.meta.owners.is_empty()) {
            let Ok(view) = parse::<Headed<'_>>(pod) else { continue };
            if let Some(owner) = view.metadata.controller().filter(|owner| owner.kind == "Job" && view.metadata.has_finalizer(TRACKING)) {
                keys.push(Key::new(RESOURCE, pod.key.namespace.clone(), &*owner.name));
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let Some(object) = snapshot.get(key) else {
            self.release_orphans(&snapshot, key, "").await?;
            return Ok(Next::Idle);
        };
        let job: Job<'_> = parse(&object)?;
        if !job.spec.managed_by.is_empty() && job.spec.managed_by != "kubernetes.io/job-controller" {
            return Ok(Next::Idle);
        }
        let us = PARENT.reference(&job.metadata);
        let objects = PARENT.claim(client, "pods", &job.metadata, &job.spec.selector, |_| true, |_| true).await?;
        let pods = objects.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        let decided = pass::decide(&job, &pods, self.context.now());
        let gone = |result: Result<(), Status>| match result {
            Err(status) if status.is_not_found() => Ok(()),
            result => result,
        };
        for action in decided.given_up {
            gone(perform_one(client, None, action).await)?;
        }
        pod_control::delete(client, &object, decided.deletions).await?;
        let mut failure = None;
        if !decided.create.is_empty() {
            let template = pod_template(&object)?;
            let pods = decided.create.iter().map(|new| make::pod(&template, &key.namespace, &us, *new));
            failure = pod_control::create(client, &object, pods).await.err();
        }
        if let Some(mut report) = decided.report {
            if failure.is_some() {
                report.active = active(&client.store().snapshot(), &us.uid)?;
            }
            perform(client, Some(&object), vec![Action::Status(pass::to_json(&report))]).await?;
        }
        perform(client, Some(&object), decided.events).await?;
        // After the status, which makes the pods counted, and whatever else changed about them meanwhile.
        for action in decided.releases {
            gone(perform_one(client, None, action).await)?;
        }
        if decided.expired {
            let delete = Action::Delete { key: key.clone(), uid: us.uid.to_string(), propagation: Some("Foreground"), grace: None };
            perform(&self.reaper.client, None, vec![delete]).await?;
        }
        if let Some(status) = failure {
            return Err(status);
        }
        Ok(decided.again.map_or(Next::Idle, Next::After))
    }
}
