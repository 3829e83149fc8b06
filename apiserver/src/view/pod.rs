//! What controllers look at in a pod, and how a pod is made from a template.

use super::{Condition, Meta, Owner, Text, condition};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A narrow view of `core/v1 Pod`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod<'a> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    /// Spec.
    pub spec: Spec<'a>,
    /// Status.
    pub status: Status<'a>,
}

/// The part of a pod's spec that controllers look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Where it runs; empty until it is bound.
    #[serde(borrow)]
    pub node_name: Text<'a>,
}

/// The part of a pod's status that controllers look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status<'a> {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    #[serde(borrow)]
    pub phase: Text<'a>,
    /// Conditions.
    pub conditions: Vec<Condition<'a>>,
    /// Containers.
    pub container_statuses: Vec<Container>,
    /// When the node accepted it.
    pub start_time: Text<'a>,
}

/// The part of a container's status that controllers look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Restarts so far.
    pub restart_count: i64,
}

impl Pod<'_> {
    /// Whether it has ended for good.
    pub fn terminal(&self) -> bool {
        self.status.phase == "Succeeded" || self.status.phase == "Failed"
    }

    /// Whether it counts as a replica: neither ended nor being deleted.
    pub fn active(&self) -> bool {
        !self.terminal() && !self.metadata.deleting()
    }

    /// Whether its Ready condition is true.
    pub fn ready(&self) -> bool {
        condition(&self.status.conditions, "Ready").is_some_and(Condition::is_true)
    }

    /// Since when it is ready.
    pub fn ready_since(&self) -> Option<Timestamp> {
        condition(&self.status.conditions, "Ready").filter(|c| c.is_true()).and_then(Condition::since)
    }

    /// Whether it has been ready for `min_ready_seconds`; if not yet, but ready, after what time it will have been.
    pub fn availability(&self, min_ready_seconds: i64, now: Timestamp) -> Availability {
        if !self.ready() {
            return Availability::Unavailable;
        }
        if min_ready_seconds <= 0 {
            return Availability::Available;
        }
        let Some(since) = self.ready_since() else { return Availability::Unavailable };
        let left = SignedDuration::from_secs(min_ready_seconds) - now.duration_since(since);
        if left <= SignedDuration::ZERO { Availability::Available } else { Availability::In(left.unsigned_abs()) }
    }
}

/// See [`Pod::availability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Ready for long enough.
    Available,
    /// Ready, and available after this time if it stays so.
    In(std::time::Duration),
    /// Not ready.
    Unavailable,
}

/// A pod made from a `PodTemplateSpec`, owned by its controller, named by the server (`generateName`).
pub fn from_template(template: &Value, namespace: &str, generate_name: &str, owner: &Owner<'_>) -> Value {
    made(template, namespace, ("generateName", generate_name), owner)
}

/// The same with a name of its own.
pub fn named_from_template(template: &Value, namespace: &str, name: &str, owner: &Owner<'_>) -> Value {
    made(template, namespace, ("name", name), owner)
}

fn made(template: &Value, namespace: &str, (field, name): (&str, &str), owner: &Owner<'_>) -> Value {
    let mut metadata = Map::new();
    metadata.insert(field.into(), json!(name));
    metadata.insert("namespace".into(), json!(namespace));
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.get("metadata").and_then(|m| m.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert("ownerReferences".into(), json!([owner.to_json()]));
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})) })
}
