//! Makes Jobs at the times of a schedule (Kubernetes' cronjob-controller).
//!
//! [`schedule`](coracle_apiserver::resources::cron_job::schedule) says when, [`pass`] what is to be done about it now; this file reads the state and carries it out.

pub mod pass;

use self::pass::State;
use super::{
    Context,
    action::{Action, perform, perform_one},
    owned::{Parent, dependents},
    queue::Next,
    runner::{Controller, Event, every, namespace_ends},
};
use crate::view::{Nothing, View};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Condition, Headed, Text, parse};
use coracle_store::{Key, Object, Snapshot};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

const RESOURCE: &str = "cronjobs.batch";
const JOBS: &str = "jobs.batch";
/// A CronJob has no selector: it knows its Jobs by their owner alone.
const PARENT: Parent = Parent { resource: RESOURCE, api_version: "batch/v1", kind: "CronJob", selects: |_, _| false };

/// A narrow view of `batch/v1 CronJob`.
pub type CronJob<'a> = View<'a, Spec<'a>, Report<'a>>;
/// `batch/v1 CronJobSpec` without the template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// A cron expression.
    #[serde(borrow)]
    pub schedule: Text<'a>,
    /// The zone it is read in; UTC unless given.
    pub time_zone: Option<Text<'a>>,
    /// How late a Job may be made.
    pub starting_deadline_seconds: Option<i64>,
    /// `Allow`, `Forbid`, `Replace`.
    pub concurrency_policy: Text<'a>,
    /// No Job is made while set.
    pub suspend: bool,
    /// Successful Jobs that are kept.
    pub successful_jobs_history_limit: Option<i64>,
    /// Failed Jobs that are kept.
    pub failed_jobs_history_limit: Option<i64>,
}
/// `batch/v1 CronJobStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// Jobs that have not ended.
    #[serde(borrow)]
    pub active: Vec<Reference<'a>>,
    /// The time for which the last Job was made.
    pub last_schedule_time: Text<'a>,
    /// When the last successful Job ended.
    pub last_successful_time: Text<'a>,
}
/// `core/v1 ObjectReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference<'a> {
    /// API group and version.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// Kind.
    pub kind: Text<'a>,
    /// Namespace.
    pub namespace: Text<'a>,
    /// Name.
    pub name: Text<'a>,
    /// Identity.
    pub uid: Text<'a>,
    /// Revision when it was noted.
    pub resource_version: Text<'a>,
}

impl Reference<'_> {
    fn to_json(&self) -> Value {
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "namespace": self.namespace, "name": self.name, "uid": self.uid,
            "resourceVersion": self.resource_version,
        })
    }

    fn to(job: &Object) -> Reference<'static> {
        Reference {
            api_version: "batch/v1".into(),
            kind: "Job".into(),
            namespace: job.key.namespace.to_string().into(),
            name: job.key.name.to_string().into(),
            uid: job.meta.uid.to_string().into(),
            resource_version: job.revision.to_string().into(),
        }
    }
}

/// What is looked at in a Job.
pub type Job<'a> = View<'a, Nothing, JobStatus<'a>>;
/// The part of a Job's status that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus<'a> {
    /// `Complete`, `Failed`.
    #[serde(borrow)]
    pub conditions: Vec<Condition<'a>>,
    /// When it began.
    pub start_time: Text<'a>,
    /// When it succeeded.
    pub completion_time: Text<'a>,
}

/// See the module.
pub struct CronJobs {
    context: Context,
}

impl CronJobs {
    /// Acting as `cronjob-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("cronjob-controller") }
    }

    /// Makes the Job for a time; None if there is one of its name that is somebody else's, or is counted already.
    async fn start(&self, about: &Object, cron: &CronJob<'_>, scheduled: Timestamp) -> Result<Option<Reference<'static>>, Status> {
        let client = &self.context.client;
        let whole: Value = parse(about)?;
        let template = whole.pointer("/spec/jobTemplate").cloned().unwrap_or_else(|| json!({}));
        let job = pass::job(cron, &template, PARENT.reference(&cron.metadata).to_json(), scheduled);
        match client.create(JOBS, &about.key.namespace, job).await {
            Ok(job) => {
                client.event(about, "Normal", "SuccessfulCreate", &format!("Created job {}", job.key.name));
                Ok(Some(Reference::to(&job)))
            }
            Err(status) if status.reason == "AlreadyExists" => {
                let name = pass::job_name(&cron.metadata.name, scheduled);
                let Some(job) = client.get(JOBS, &about.key.namespace, &name) else { return Err(status) };
                let ours = parse::<Headed<'_>>(&job)?.metadata.controlled_by(&cron.metadata.uid);
                let counted = cron.status.active.iter().any(|active| *active.uid == *job.meta.uid);
                Ok((ours && !counted).then(|| Reference::to(&job)))
            }
            Err(status) => {
                if !namespace_ends(&status) {
                    client.event(about, "Warning", "FailedCreate", &format!("Error creating job: {}", status.message));
                }
                Err(status)
            }
        }
    }
}

#[async_trait]
impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            RESOURCE => keys.extend(event.new.map(|object| object.key.clone())),
            JOBS => event.versions().for_each(|job| PARENT.route(job, event.snapshot, keys)),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, RESOURCE, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        let cron: CronJob<'_> = parse(&object)?;
        let objects = dependents(&snapshot, &cron.metadata.uid, JOBS);
        let ours = objects.iter().filter(|job| job.key.namespace == key.namespace);
        let mut jobs = ours.map(|job| parse::<Job<'_>>(job)).collect::<Result<Vec<_>, _>>()?;
        jobs.retain(|job| job.metadata.controlled_by(&cron.metadata.uid));
        let exists = |name: &str| snapshot.get(&Key::new(JOBS, key.namespace.clone(), name)).is_some();
        let decided = State { cron: &cron, jobs: &jobs, exists: &exists, now: self.context.now() }.decide();

        perform(client, Some(&object), decided.events).await?;
        for (job, uid) in decided.deletions {
            let name = job.name.clone();
            let result = perform_one(client, None, Action::Delete { key: job, uid, propagation: Some("Background"), grace: None }).await;
            match result {
                Ok(()) => client.event(&object, "Normal", "SuccessfulDelete", &format!("Deleted job {name}")),
                Err(status) => {
                    client.event(&object, "Warning", "FailedDelete", &format!("Deleted job: {}", status.message));
                    return Err(status);
                }
            }
        }
        let mut report = decided.report;
        let mut failure = None;
        if let Some(scheduled) = decided.start {
            match self.start(&object, &cron, scheduled).await {
                Ok(Some(job)) => pass::started(&mut report, job, scheduled),
                Ok(None) => {}
                Err(status) => failure = Some(status),
            }
        }
        if report != cron.status {
            perform(client, Some(&object), vec![Action::Status(pass::to_json(&report))]).await?;
        }
        match failure {
            Some(status) => Err(status),
            None => Ok(decided.again.map_or(Next::Idle, Next::After)),
        }
    }
}
