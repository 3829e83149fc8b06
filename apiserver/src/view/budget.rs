//! PodDisruptionBudgets: what the disruption controller counts, and what an eviction reads and takes.

use super::{
    Condition, Meta, Text, condition,
    int_or_percent::IntOrPercent,
    parse,
    selector::{LabelSelector, Labelled},
    stamp,
};
use coracle_store::{Object, Snapshot};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The resource.
pub const BUDGETS: &str = "poddisruptionbudgets.policy";
/// The condition of a budget.
const ALLOWED: &str = "DisruptionAllowed";

/// A narrow view of `policy/v1 PodDisruptionBudget`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Budget<'a> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    /// Spec.
    pub spec: Spec<'a>,
    /// Status.
    pub status: Report<'a>,
}
/// `policy/v1 PodDisruptionBudgetSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Pods that must be healthy.
    #[serde(borrow)]
    pub min_available: Option<IntOrPercent<'a>>,
    /// Pods that may be missing.
    pub max_unavailable: Option<IntOrPercent<'a>>,
    /// Which pods; none if absent, all of the namespace if empty.
    pub selector: Option<LabelSelector<'a>>,
    /// `IfHealthyBudget` (the default) or `AlwaysAllow`.
    pub unhealthy_pod_eviction_policy: Text<'a>,
}
/// `policy/v1 PodDisruptionBudgetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report<'a> {
    /// The generation this speaks of.
    pub observed_generation: i64,
    /// Pods whose eviction was allowed and that are not seen to go yet, and when.
    #[serde(borrow)]
    pub disrupted_pods: BTreeMap<Text<'a>, Text<'a>>,
    /// Evictions that are allowed.
    pub disruptions_allowed: i64,
    /// Healthy pods.
    pub current_healthy: i64,
    /// Pods that must be healthy.
    pub desired_healthy: i64,
    /// Pods that there should be.
    pub expected_pods: i64,
    /// `DisruptionAllowed`.
    pub conditions: Vec<Condition<'a>>,
}

impl Budget<'_> {
    /// Whether it speaks of pods with these labels.
    pub fn selects<L: Labelled + ?Sized>(&self, labels: &L) -> bool {
        self.spec.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// The budgets that speak of a pod.
pub fn budgets_of(snapshot: &Snapshot, pod: &Object) -> Vec<Arc<Object>> {
    let speaks = |budget: &&Arc<Object>| parse::<Budget<'_>>(budget).is_ok_and(|view| view.selects(pod.meta.labels.as_slice()));
    snapshot.range(BUDGETS, Some(&pod.key.namespace), None).filter(speaks).cloned().collect()
}

/// Sets the condition; its transition time moves when its status does.
pub fn set(report: &mut Report<'_>, status: &'static str, reason: &'static str, message: String, now: Timestamp) {
    let since = condition(&report.conditions, ALLOWED).filter(|c| *c.status == *status).map(|c| c.last_transition_time.to_string());
    report.conditions.retain(|c| c.kind != ALLOWED);
    report.conditions.push(Condition {
        kind: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or_else(|| stamp(now)).into(),
        observed_generation: report.observed_generation,
        ..Condition::default()
    });
}

/// The condition that follows from the count.
pub fn note(report: &mut Report<'_>, now: Timestamp) {
    match report.disruptions_allowed {
        1.. => set(report, "True", "SufficientPods", String::new(), now),
        _ => set(report, "False", "InsufficientPods", String::new(), now),
    }
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
    let mut json = json!({
        "observedGeneration": report.observed_generation,
        "disruptionsAllowed": report.disruptions_allowed,
        "currentHealthy": report.current_healthy,
        "desiredHealthy": report.desired_healthy,
        "expectedPods": report.expected_pods,
        "conditions": report.conditions.iter().map(Condition::to_json).collect::<Vec<_>>(),
    });
    if !report.disrupted_pods.is_empty() {
        let pods: Map<String, Value> = report.disrupted_pods.iter().map(|(name, at)| (name.to_string(), json!(at))).collect();
        json["disruptedPods"] = Value::Object(pods);
    }
    json
}
