//! One look at an autoscaler: from what was measured to a count, conditions, events and a status.

use super::{
    behavior::{self, Behavior, Bounds, History},
    metric::{self, Asked, Failure, Metric},
    remote::Reading,
    replicas::{Pod, Used},
};
use crate::view::View;
use coracle_apiserver::view::{Condition, Text, stamp};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// A narrow view of `autoscaling/v2 HorizontalPodAutoscaler`.
pub type Autoscaler<'a> = View<'a, Spec<'a>, State<'a>>;

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// What is scaled.
    #[serde(borrow)]
    pub scale_target_ref: Target<'a>,
    min_replicas: Option<i64>,
    max_replicas: i64,
    /// By what.
    pub metrics: Vec<Value>,
    /// How fast.
    pub behavior: Option<Behavior>,
}

/// `autoscaling/v2 CrossVersionObjectReference`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target<'a> {
    /// `apps/v1`
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// `Deployment`
    pub kind: Text<'a>,
    /// Its name.
    pub name: Text<'a>,
}

/// `autoscaling/v2 HorizontalPodAutoscalerStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State<'a> {
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
    last_scale_time: Option<Text<'a>>,
    current_replicas: i64,
    desired_replicas: i64,
    current_metrics: Vec<Value>,
}

/// What the target's selector led to.
#[derive(Debug)]
pub enum Selected {
    /// Pods, which are nobody else's.
    Pods,
    /// There is no selector.
    Nothing,
    /// It cannot be read; why.
    Unreadable(String),
    /// Other autoscalers scale the same pods; a sentence that names all.
    Shared(String),
}

/// Where measurements come from.
pub trait Sources {
    /// The selected pods with what was measured of them, or of one container of each.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn pods(&self, resource: &str, container: Option<&str>) -> Result<Vec<(Pod<'_>, Option<Used>)>, String>;
    /// The selected pods alone.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn selected(&self) -> Result<Vec<Pod<'_>>, String>;
    /// What was told of a metric of the spec, by its place.
    fn told(&self, metric: usize) -> Result<Reading, String>;
    /// Replicas that the target has, whatever it wants.
    fn present(&self) -> i64;
}

/// Conditions and events of one look.
pub struct Look<'a> {
    conditions: Vec<Condition<'a>>,
    /// Type, reason and message.
    pub events: Vec<(&'static str, &'static str, String)>,
    now: Timestamp,
}

/// What comes of it.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// The target's count as it is.
    pub current: i64,
    /// What it shall be; None leaves what the status says.
    pub desired: Option<i64>,
    /// The count to write, if it is another one.
    pub rescale: Option<i64>,
    /// Why.
    pub reason: String,
    metrics: Vec<Value>,
}

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

impl<'a> Look<'a> {
    /// Begins with the conditions there are.
    pub fn new(autoscaler: &Autoscaler<'a>, now: Timestamp) -> Self {
        Self { conditions: autoscaler.status.conditions.clone(), events: Vec::new(), now }
    }

    fn set(&mut self, kind: &'static str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let at = match self.conditions.iter().position(|condition| condition.kind == kind) {
            Some(at) => at,
            None => {
                self.conditions.push(Condition { kind: kind.into(), ..Condition::default() });
                self.conditions.len() - 1
            }
        };
        let Some(condition) = self.conditions.get_mut(at) else { return };
        if condition.status != status {
            condition.status = status.into();
            condition.last_transition_time = stamp(self.now).into();
        }
        condition.reason = reason.to_owned().into();
        condition.message = message.into().into();
    }

    fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(("Warning", reason, message.into()));
    }

    /// The target has no scale that could be read.
    pub fn no_scale(&mut self, why: &str) {
        self.warn("FailedGetScale", why);
        self.set(ABLE, false, "FailedGetScale", format!("the HPA controller was unable to get the target's current scale: {why}"));
    }

    /// The count was written.
    pub fn rescaled(&mut self, to: i64, reason: &str) {
        self.set(ABLE, true, "SucceededRescale", format!("the HPA controller was able to update the target scale to {to}"));
        self.events.push(("Normal", "SuccessfulRescale", format!("New size: {to}; reason: {reason}")));
    }

    /// The count could not be written.
    pub fn not_rescaled(&mut self, to: i64, reason: &str, why: &str) {
        self.warn("FailedRescale", format!("New size: {to}; reason: {reason}; error: {why}"));
        self.set(ABLE, false, "FailedUpdateScale", format!("the HPA controller was unable to update the target scale: {why}"));
    }

    /// The status after this look; without an outcome only conditions are new.
    pub fn status(&self, autoscaler: &Autoscaler<'_>, outcome: Option<&Outcome>) -> Value {
        let was = &autoscaler.status;
        let conditions: Vec<Value> = self.conditions.iter().map(Condition::to_json).collect();
        let (current, desired, metrics) = match outcome {
            Some(outcome) => (outcome.current, outcome.desired.unwrap_or(was.desired_replicas), &outcome.metrics),
            None => (was.current_replicas, was.desired_replicas, &was.current_metrics),
        };
        let mut status = json!({"currentReplicas": current, "desiredReplicas": desired, "conditions": conditions});
        if !metrics.is_empty() {
            status["currentMetrics"] = json!(metrics);
        }
        let scaled = outcome.is_some_and(|outcome| outcome.rescale.is_some());
        let time = if scaled { Some(stamp(self.now)) } else { was.last_scale_time.as_ref().map(|time| time.to_string()) };
        if let Some(time) = time {
            status["lastScaleTime"] = time.into();
        }
        status
    }
}

/// Decides what the target's count shall be.
pub fn decide(
    autoscaler: &Autoscaler<'_>,
    current: i64,
    selected: &Selected,
    sources: &dyn Sources,
    history: &mut History,
    look: &mut Look<'_>,
) -> Outcome {
    let spec = &autoscaler.spec;
    let bounds = Bounds { least: spec.min_replicas.unwrap_or(1), most: spec.max_replicas };
    look.set(ABLE, true, "SucceededGetScale", "the HPA controller was able to get the target's current scale");
    history.begin(current, look.now);
    let plain = |wanted: i64, reason: &str| Outcome {
        current,
        desired: Some(wanted),
        rescale: (wanted != current).then_some(wanted),
        reason: reason.into(),
        metrics: Vec::new(),
    };
    if current == 0 {
        look.set(ACTIVE, false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
        return plain(0, "");
    }
    if current > bounds.most {
        return plain(bounds.most, "Current number of replicas above Spec.MaxReplicas");
    }
    if current < bounds.least {
        return plain(bounds.least, "Current number of replicas below Spec.MinReplicas");
    }
    let (wanted, metric, metrics) = match measure(autoscaler, current, selected, sources, look) {
        Ok(found) => found,
        Err((why, metrics)) => {
            look.warn("FailedComputeMetricsReplicas", why);
            return Outcome { current, desired: None, rescale: None, reason: String::new(), metrics };
        }
    };
    let decided = behavior::decide(history, spec.behavior.as_ref(), bounds, current, wanted, look.now);
    look.set(ABLE, true, decided.able.0, decided.able.1);
    look.set(LIMITED, decided.limited.0, decided.limited.1, decided.limited.2);
    let reason = match wanted.cmp(&current) {
        std::cmp::Ordering::Greater => format!("{metric} above target"),
        std::cmp::Ordering::Less => "All metrics below target".into(),
        std::cmp::Ordering::Equal => String::new(),
    };
    Outcome { metrics, ..plain(decided.replicas, &reason) }
}

/// A count, the name of the metric that wants it, and what each metric is.
type Measured = (i64, String, Vec<Value>);

/// What the metrics want: the most that any of them does, with its name, and what each of them is. A metric that cannot be read keeps the target from being scaled down.
fn measure(
    autoscaler: &Autoscaler<'_>,
    current: i64,
    selected: &Selected,
    sources: &dyn Sources,
    look: &mut Look<'_>,
) -> Result<Measured, (String, Vec<Value>)> {
    let selectable = match selected {
        Selected::Pods => None,
        Selected::Nothing => Some(("SelectorRequired", "InvalidSelector", "selector is required".to_owned())),
        Selected::Unreadable(why) => {
            let message = format!("couldn't convert selector into a corresponding internal selector object: {why}");
            Some(("InvalidSelector", "InvalidSelector", message))
        }
        Selected::Shared(message) => Some(("AmbiguousSelector", "AmbiguousSelector", message.clone())),
    };
    if let Some((event, reason, message)) = selectable {
        look.warn(event, message.clone());
        let told = if event == "SelectorRequired" { "the HPA target's scale is missing a selector".to_owned() } else { message.clone() };
        look.set(ACTIVE, false, reason, told);
        return Err((message, Vec::new()));
    }
    let specs = &autoscaler.spec.metrics;
    let mut best: Option<(i64, String)> = None;
    let mut statuses = Vec::new();
    let mut failed: Vec<Failure> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match metric::one(&Asked { autoscaler, spec, index, current, sources, now: look.now }) {
            Ok(Metric { replicas, name, status }) => {
                statuses.push(status);
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
                }
            }
            Err(failure) => {
                look.warn(failure.reason, failure.message.clone());
                // Upstream keeps an empty place for it.
                statuses.push(json!({"type": ""}));
                failed.push(failure);
            }
        }
    }
    let Some(first) = failed.first() else {
        let Some((replicas, name)) = best else { return Err(("no metrics are named".into(), statuses)) };
        look.set(ACTIVE, true, "ValidMetricFound", format!("the HPA was able to successfully calculate a replica count from {name}"));
        return Ok((replicas, name, statuses));
    };
    match best {
        Some((replicas, name)) if replicas >= current => {
            look.set(ACTIVE, true, "ValidMetricFound", format!("the HPA was able to successfully calculate a replica count from {name}"));
            Ok((replicas, name, statuses))
        }
        _ => {
            look.set(ACTIVE, false, first.reason, format!("the HPA was unable to compute the replica count: {}", first.message));
            let why = format!("invalid metrics ({} invalid out of {}), first error is: {}: {}", failed.len(), specs.len(), first.what, first.message);
            Err((why, statuses))
        }
    }
}

#[cfg(test)]
mod tests;
