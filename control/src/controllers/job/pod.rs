//! What a Job looks at in a pod.

use super::{
    TRACKING,
    make::{FAILURES, IGNORED, INDEX},
};
use crate::{controllers::action::Action, view::View};
use coracle_apiserver::view::{Condition, Map, Meta, Text, condition, pod::Spec, time};
use coracle_store::Key;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// A narrow view of `core/v1 Pod`.
pub type Pod<'a> = View<'a, Spec<'a>, Status<'a>>;
/// The part of a pod's status that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status<'a> {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    #[serde(borrow)]
    pub phase: Text<'a>,
    /// Conditions.
    pub conditions: Vec<Condition<'a>>,
    /// Containers.
    pub container_statuses: Vec<Container<'a>>,
    /// Init containers.
    pub init_container_statuses: Vec<Container<'a>>,
}
/// The part of a container's status that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Restarts so far.
    pub restart_count: i64,
    /// How it is.
    pub state: State<'a>,
}
/// `core/v1 ContainerState`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct State<'a> {
    /// How it ended.
    #[serde(borrow)]
    pub terminated: Option<Terminated<'a>>,
}
/// `core/v1 ContainerStateTerminated`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated<'a> {
    /// When.
    #[serde(borrow)]
    pub finished_at: Text<'a>,
    /// How.
    pub exit_code: i64,
}

impl Pod<'_> {
    /// It ended well.
    pub fn succeeded(&self) -> bool {
        self.status.phase == "Succeeded"
    }
    /// It ended badly; a pod that is being deleted counts as such, unless only pods that ended are replaced.
    pub fn failed(&self, only_ended: bool) -> bool {
        self.status.phase == "Failed" || (!only_ended && self.metadata.deleting() && !self.succeeded())
    }
    /// It ended.
    pub fn ended(&self) -> bool {
        self.succeeded() || self.status.phase == "Failed"
    }
    /// It runs, or will.
    pub fn active(&self) -> bool {
        !self.ended() && !self.metadata.deleting()
    }
    /// It is on its way out and has not ended.
    pub fn terminating(&self) -> bool {
        self.metadata.deleting() && !self.ended()
    }
    /// Its Ready condition is true.
    pub fn ready(&self) -> bool {
        condition(&self.status.conditions, "Ready").is_some_and(Condition::is_true)
    }
    /// It is not counted yet.
    pub fn tracked(&self) -> bool {
        self.metadata.has_finalizer(TRACKING)
    }
    /// Its completion index.
    pub fn index(&self) -> Option<i64> {
        let of = |map: &Map<'_>| map.get(INDEX).and_then(|text| text.parse().ok()).filter(|index| *index >= 0);
        of(&self.metadata.annotations).or_else(|| of(&self.metadata.labels))
    }
    /// Failures of its index before it that count towards the limit.
    pub fn failures(&self) -> i64 {
        self.annotated(FAILURES)
    }
    /// Failures of its index before it that do not.
    pub fn ignored(&self) -> i64 {
        self.annotated(IGNORED)
    }
    fn annotated(&self, key: &str) -> i64 {
        self.metadata.annotations.get(key).and_then(|text| text.parse::<i32>().ok()).map_or(0, |count| count.max(0).into())
    }
    /// When it ended, as well as can be told.
    pub fn finished_at(&self) -> Timestamp {
        let ends = self.status.container_statuses.iter().map(|container| container.state.terminated.as_ref().and_then(|t| time(&t.finished_at)));
        let last = || ends.collect::<Option<Vec<_>>>()?.into_iter().max();
        let unready = || condition(&self.status.conditions, "Ready").filter(|c| c.status == "False").and_then(Condition::since);
        let deleted = || {
            let at = self.metadata.deletion_timestamp.as_deref().and_then(time)?;
            at.checked_sub(SignedDuration::from_secs(self.metadata.deletion_grace_period_seconds.unwrap_or(0))).ok()
        };
        last().or_else(unready).or_else(deleted).unwrap_or_else(|| self.metadata.created())
    }
    /// Restarts of all its containers.
    pub fn restarts(&self) -> i64 {
        self.status.container_statuses.iter().chain(&self.status.init_container_statuses).map(|c| c.restart_count).sum()
    }
    /// Its key.
    pub fn key(&self) -> Key {
        Key::new("pods", &*self.metadata.namespace, &*self.metadata.name)
    }
}

/// Takes the tracking finalizer from a pod.
pub fn untracked(key: &Key, meta: &Meta<'_>) -> Action {
    let left: Vec<&str> = meta.finalizers.iter().map(|f| &**f).filter(|f| *f != TRACKING).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    Action::Patch { key: key.clone(), subresource: "", patch: json!({ "metadata": { "uid": meta.uid, "finalizers": left } }) }
}
