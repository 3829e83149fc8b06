//! Keeps as many pods of a template as a ReplicaSet or a ReplicationController wants (Kubernetes' replicaset-controller and
//! replication-controller).
//!
//! [`scale`] decides how many to make and which to delete, [`status`] what to report; this file reads the state and carries it out.

pub mod controller;
pub mod scale;
pub mod status;

use self::{
    scale::{Candidate, Diff},
    status::Report,
};
use super::{
    Context,
    action::{Action, perform},
    owned::{Parent, by_map, by_selector, dependents, pod_template},
    pod_control,
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::View;
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{
    Condition, Map, parse,
    pod::{Pod, from_template},
    selector::LabelSelector,
    time,
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

const RESOURCE: &str = "replicasets.apps";
/// Pods made or deleted in one run; the next run goes on.
const BURST: usize = 500;

/// A narrow view of `apps/v1 ReplicaSet`.
pub type ReplicaSet<'a> = View<'a, Spec<'a>, State<'a>>;
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

/// One of the two kinds.
pub struct Kind {
    /// Name of the controller and of its service account.
    name: &'static str,
    account: &'static str,
    parent: Parent,
    read: for<'a> fn(&'a Object) -> Result<ReplicaSet<'a>, Status>,
    /// Its status counts pods that are being deleted.
    terminating: bool,
}

/// `apps/v1 ReplicaSet`.
pub const REPLICA_SET: Kind = Kind {
    name: "replicaset-controller",
    account: "replicaset-controller",
    parent: Parent { resource: RESOURCE, api_version: "apps/v1", kind: "ReplicaSet", selects: by_selector },
    read: |object| parse(object),
    terminating: true,
};

/// `v1 ReplicationController`.
pub const REPLICATION_CONTROLLER: Kind = Kind {
    name: "replication-controller",
    account: "replication-controller",
    parent: Parent { resource: "replicationcontrollers", api_version: "v1", kind: "ReplicationController", selects: by_map },
    read: controller::read,
    terminating: false,
};

/// See the module.
pub struct ReplicaSets {
    context: Context,
    kind: &'static Kind,
}

impl ReplicaSets {
    /// For one of the kinds, acting as its service account.
    pub fn new(context: &Context, kind: &'static Kind) -> Self {
        Self { context: context.acting_as(kind.account), kind }
    }
}

/// How many active pods of sibling sets (those of the same Deployment) run on each node: deletion thins out the crowded nodes.
fn crowd(snapshot: &Snapshot, set: &ReplicaSet<'_>) -> Result<HashMap<String, usize>, Status> {
    let siblings = match set.metadata.controller() {
        Some(owner) => dependents(snapshot, &owner.uid, RESOURCE).iter().map(|set| set.meta.uid.to_string()).collect(),
        None => vec![set.metadata.uid.to_string()],
    };
    let mut nodes = HashMap::new();
    for pod in siblings.iter().flat_map(|uid| dependents(snapshot, uid, "pods")) {
        let view: Pod<'_> = parse(&pod)?;
        if view.active() && !view.spec.node_name.is_empty() {
            *nodes.entry(view.spec.node_name.to_string()).or_default() += 1;
        }
    }
    Ok(nodes)
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            "pods" => event.versions().for_each(|pod| self.kind.parent.route(pod, event.snapshot, keys)),
            resource if *resource == *self.kind.parent.resource => keys.extend(event.new.map(|object| object.key.clone())),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, self.kind.parent.resource, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let store = client.store();
        let Some(object) = store.snapshot().get(key) else { return Ok(Next::Idle) };
        let Kind { parent, read, .. } = self.kind;
        let set = read(&object)?;
        let uid = &*set.metadata.uid;
        let us = parent.reference(&set.metadata);
        let fresh;
        let active = |pod: &Object| parse::<Pod<'_>>(pod).is_ok_and(|pod| pod.active());
        let pods = parent.claim(client, "pods", &set.metadata, &set.spec.selector, |_| true, active).await?;
        let mut views = pods.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;

        let owned = views.iter().filter(|pod| pod.active());
        let mut failure = None;
        let (mut more, mut changed, mut breath) = (false, false, None);
        if !set.metadata.deleting() {
            let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
            let crowd = if owned.clone().count() > wanted { crowd(&store.snapshot(), &set)? } else { HashMap::new() };
            let active: Vec<Candidate<'_>> = owned.map(|pod| Candidate::new(pod, &crowd)).collect();
            match scale::diff(active, wanted, BURST, self.context.now()) {
                Diff::None => {}
                Diff::Create(count) => {
                    let ended = views.iter().filter(|pod| pod.metadata.controlled_by(uid) && pod.status.phase == "Failed");
                    let failed: Vec<_> = ended.filter_map(|pod| time(&pod.metadata.creation_timestamp)).collect();
                    breath = scale::breath(&failed, wanted, self.context.now());
                    let count = if breath.is_some() { 0 } else { count };
                    changed = count > 0;
                    let template = pod_template(&object)?;
                    let pod = from_template(&template, &key.namespace, &format!("{}-", key.name), &us);
                    failure = pod_control::create(client, &object, std::iter::repeat_n(pod, count)).await.err();
                    more = count == BURST;
                }
                Diff::Delete(names) => {
                    changed = true;
                    more = names.len() == BURST;
                    let chosen = names.into_iter().map(|(name, uid)| (Key::new("pods", key.namespace.clone(), name), uid)).collect();
                    failure = pod_control::delete(client, &object, chosen).await.err();
                }
            }
        }

        // What was just made or deleted is in a fresh snapshot: the status needs no second round.
        if changed {
            drop(views);
            fresh = dependents(&store.snapshot(), uid, "pods");
            views = fresh.iter().map(|pod| parse::<Pod<'_>>(pod)).collect::<Result<Vec<_>, _>>()?;
        }
        let owned: Vec<&Pod<'_>> = views.iter().filter(|pod| pod.metadata.controlled_by(uid)).collect();
        let Report { status, again } = status::report(&set, &owned, self.kind.terminating, failure.as_ref().map(|f| &*f.message), self.context.now());
        if let Some(status) = status {
            perform(client, Some(&object), vec![Action::Status(status)]).await?;
        }
        match failure {
            Some(status) => Err(status),
            None if more => Ok(Next::After(Duration::ZERO)),
            None => Ok(again.into_iter().chain(breath).min().map_or(Next::NotBefore(rest(owned.len())), Next::After)),
        }
    }
}

/// Sets of many pods gather changes for a moment: a run looks at all of them.
fn rest(pods: usize) -> Duration {
    Duration::from_micros(50).saturating_mul(u32::try_from(pods).unwrap_or(u32::MAX)).min(Duration::from_secs(1))
}
