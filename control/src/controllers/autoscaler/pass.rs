//! One look at an autoscaler: from what was measured to a count, conditions, events and a status.

use super::{
    behavior::{self, Behavior, Bounds, History},
    metric::{self, Asked, Failure, Metric},
    remote::Reading,
    replicas::{Pod, Used},
};
use coracle_apiserver::view::{Condition, Meta, Text, stamp};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// A narrow view of `autoscaling/v2 HorizontalPodAutoscaler`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Autoscaler<'a> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    /// Spec.
    pub spec: Spec<'a>,
    status: State<'a>,
}

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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State<'a> {
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
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn now() -> Timestamp {
        "2026-01-02T03:30:00Z".parse().expect("a time")
    }

    /// Pods of one CPU each, with what they use of it; None for pods nothing is known of.
    struct Pods(Vec<Option<i64>>, Vec<Result<Reading, String>>);
    impl Sources for Pods {
        fn pods(&self, _resource: &str, _container: Option<&str>) -> Result<Vec<(Pod<'_>, Option<Used>)>, String> {
            const POD: &str = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]},"status":{"phase":"Running",
                "startTime":"2026-01-02T03:00:00Z","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:00:00Z"}]}}"#;
            let pod = |nth: usize, value: &Option<i64>| {
                let mut pod: Pod<'_> = serde_json::from_str(POD).expect("a pod");
                pod.metadata.name = format!("p{nth}").into();
                (pod, value.map(|value| Used { at: now(), window: SignedDuration::from_secs(15), value }))
            };
            Ok(self.0.iter().enumerate().map(|(nth, value)| pod(nth, value)).collect())
        }
        fn selected(&self) -> Result<Vec<Pod<'_>>, String> {
            Ok(self.pods("", None)?.into_iter().map(|(pod, _)| pod).collect())
        }
        fn told(&self, metric: usize) -> Result<Reading, String> {
            self.1.get(metric).cloned().unwrap_or_else(|| Err("unable to fetch metrics from external metrics API: away".into()))
        }
        fn present(&self) -> i64 {
            self.0.len() as i64
        }
    }

    fn scaler(metrics: Value) -> String {
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 6, "metrics": metrics},
            "status": {"currentReplicas": 3, "desiredReplicas": 3, "lastScaleTime": "2026-01-01T00:00:00Z"},
        })
        .to_string()
    }
    fn cpu(percent: i64) -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    type Looked = (Outcome, Value, Vec<(&'static str, &'static str, String)>);

    fn look(json: &str, current: i64, selected: &Selected, pods: Vec<Option<i64>>) -> Looked {
        look_at(json, current, selected, pods, Vec::new())
    }
    fn look_at(json: &str, current: i64, selected: &Selected, pods: Vec<Option<i64>>, told: Vec<Result<Reading, String>>) -> Looked {
        let autoscaler: Autoscaler<'_> = serde_json::from_str(json).expect("an autoscaler");
        let mut look = Look::new(&autoscaler, now());
        let outcome = decide(&autoscaler, current, selected, &Pods(pods, told), &mut History::default(), &mut look);
        if let Some(to) = outcome.rescale {
            look.rescaled(to, &outcome.reason);
        }
        let status = look.status(&autoscaler, Some(&outcome));
        (outcome, status, look.events)
    }
    fn conditions(status: &Value) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let shown = |c: &Value| format!("{}={} {}", text(&c["type"]), text(&c["status"]), text(&c["reason"]));
        status["conditions"].as_array().into_iter().flatten().map(shown).collect()
    }

    #[test]
    fn a_load_above_the_target_adds_replicas() {
        let (outcome, status, events) = look(&scaler(json!([cpu(50)])), 3, &Selected::Pods, vec![Some(800); 3]);
        assert_eq!(outcome.rescale, Some(5));
        assert_eq!(
            events,
            [("Normal", "SuccessfulRescale", "New size: 5; reason: cpu resource utilization (percentage of request) above target".into())]
        );
        assert_eq!(
            conditions(&status),
            ["AbleToScale=True SucceededRescale", "ScalingActive=True ValidMetricFound", "ScalingLimited=False DesiredWithinRange"]
        );
        assert_eq!(
            (&status["currentReplicas"], &status["desiredReplicas"], &status["lastScaleTime"]),
            (&json!(3), &json!(5), &json!("2026-01-02T03:30:00Z"))
        );
        assert_eq!(status["currentMetrics"][0]["resource"]["current"], json!({"averageUtilization": 80, "averageValue": "800m"}));
        let (outcome, status, _) = look(&scaler(json!([cpu(50)])), 3, &Selected::Pods, vec![Some(5000); 3]);
        assert_eq!((outcome.rescale, conditions(&status)[2].as_str()), (Some(6), "ScalingLimited=True TooManyReplicas"));
    }

    #[test]
    fn bounds_count_before_metrics() {
        let json = scaler(json!([cpu(50)]));
        let (outcome, _, events) = look(&json, 9, &Selected::Pods, Vec::new());
        assert_eq!((outcome.rescale, events[0].2.as_str()), (Some(6), "New size: 6; reason: Current number of replicas above Spec.MaxReplicas"));
        assert_eq!(look(&json, 1, &Selected::Pods, Vec::new()).0.rescale, Some(2));
        let (outcome, status, _) = look(&json, 0, &Selected::Pods, Vec::new());
        assert_eq!((outcome.rescale, conditions(&status)[1].as_str()), (None, "ScalingActive=False ScalingDisabled"));
        assert_eq!(status["lastScaleTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn what_cannot_be_measured_is_told_and_does_not_scale_down() {
        let queue = json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}});
        let (outcome, status, events) = look(&scaler(json!([cpu(50), queue])), 3, &Selected::Pods, vec![Some(10); 3]);
        assert_eq!((outcome.rescale, outcome.desired), (None, None));
        assert_eq!(conditions(&status)[1], "ScalingActive=False FailedGetExternalMetric");
        assert_eq!(events[0].1, "FailedGetExternalMetric");
        assert!(
            events[1].2.starts_with("invalid metrics (1 invalid out of 2), first error is: failed to get queue external metric value: "),
            "{events:?}"
        );
        let (outcome, status, _) = look(&scaler(json!([queue, cpu(50)])), 3, &Selected::Pods, vec![Some(800); 3]);
        assert_eq!((outcome.rescale, conditions(&status)[1].as_str()), (Some(5), "ScalingActive=True ValidMetricFound"), "up is safe");
        let (_, status, _) = look(&scaler(json!([cpu(50)])), 3, &Selected::Pods, vec![None; 3]);
        let message = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
        assert_eq!(
            (conditions(&status)[1].as_str(), &status["conditions"][1]["message"]),
            ("ScalingActive=False FailedGetResourceMetric", &json!(message))
        );
        let (_, status, events) = look(&scaler(json!([cpu(50)])), 3, &Selected::Nothing, Vec::new());
        assert_eq!((conditions(&status)[1].as_str(), events[0].1), ("ScalingActive=False InvalidSelector", "SelectorRequired"));
    }

    #[test]
    fn what_others_tell_counts_like_what_is_measured() {
        let target = |kind: &str, value: &str| match kind {
            "Value" => json!({"type": "Value", "value": value}),
            _ => json!({"type": "AverageValue", "averageValue": value}),
        };
        let about = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"});
        let object = |kind: &str, value: &str| json!({"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": about, "target": target(kind, value)}});
        let selector = json!({"matchLabels": {"queue": "jobs"}});
        let external = |kind: &str, value: &str| json!({"type": "External", "external": {"metric": {"name": "depth", "selector": selector}, "target": target(kind, value)}});
        let pods = |value: &str| json!({"type": "Pods", "pods": {"metric": {"name": "rate"}, "target": target("AverageValue", value)}});
        let of_pods = |values: &[i64]| {
            let used = |value: &i64| Used { at: now(), window: SignedDuration::from_secs(30), value: *value };
            Ok(Reading::Pods(values.iter().enumerate().map(|(nth, value)| (format!("p{nth}"), used(value))).collect()))
        };
        let values = |values: &[i64]| Ok(Reading::Values(values.to_vec()));
        let labels = "&LabelSelector{MatchLabels:map[string]string{queue: jobs,},MatchExpressions:[]LabelSelectorRequirement{},}";
        for (spec, told, replicas, name, field, shown) in [
            // 3 ready pods at 5/3 of the target; and by the whole of it.
            (object("Value", "30"), values(&[50_000]), 5, "Ingress metric hits".to_owned(), "object", json!({"value": "50"})),
            (object("AverageValue", "10"), values(&[41_000]), 5, "external metric hits(nil)".to_owned(), "object", json!({"averageValue": "13667m"})),
            (external("Value", "30"), values(&[20_000, 30_000]), 5, format!("external metric depth({labels})"), "external", json!({"value": "50"})),
            (
                external("AverageValue", "10"),
                values(&[31_000]),
                3,
                format!("external metric depth({labels})"),
                "external",
                json!({"averageValue": "10334m"}),
            ),
            (pods("100m"), of_pods(&[150, 150, 150]), 5, "pods metric rate".to_owned(), "pods", json!({"averageValue": "150m"})),
            (pods("100m"), of_pods(&[100, 100]), 3, "pods metric rate".to_owned(), "pods", json!({"averageValue": "100m"})),
        ] {
            let (outcome, status, _) = look_at(&scaler(json!([spec])), 3, &Selected::Pods, vec![Some(0); 3], vec![told]);
            assert_eq!(outcome.desired, Some(replicas), "{spec}");
            let message = format!("the HPA was able to successfully calculate a replica count from {name}");
            assert_eq!(status["conditions"][1]["message"], message, "{spec}");
            assert_eq!(status["currentMetrics"][0][field]["current"], shown, "{spec}");
            assert_eq!(status["currentMetrics"][0][field]["metric"]["name"], spec[field]["metric"]["name"]);
        }
        let away = || Err("unable to fetch metrics from external metrics API: away".to_owned());
        for (spec, reason, condition, event) in [
            (
                object("Value", "1"),
                "FailedGetObjectMetric",
                "unable to get metric hits: WHY on Ingress default/main",
                "failed to get object metric value: ",
            ),
            (
                object("AverageValue", "1"),
                "FailedGetObjectMetric",
                "unable to get metric hits: WHY on Ingress default/main",
                "failed to get object metric value: failed to get hits object metric: ",
            ),
            (pods("1"), "FailedGetPodsMetric", "unable to get metric rate: WHY", "failed to get pods metric value: "),
            (
                external("Value", "1"),
                "FailedGetExternalMetric",
                &format!("unable to get external metric default/depth/{labels}: WHY"),
                "failed to get depth external metric value: failed to get external metric depth: ",
            ),
            (
                external("AverageValue", "1"),
                "FailedGetExternalMetric",
                &format!("unable to get external metric default/depth/{labels}: WHY"),
                "failed to get depth external metric value: failed to get depth external metric: ",
            ),
        ] {
            let (outcome, status, events) = look_at(&scaler(json!([spec])), 3, &Selected::Pods, vec![Some(0); 3], vec![away()]);
            let why = condition.replace("WHY", "unable to fetch metrics from external metrics API: away");
            assert_eq!((outcome.rescale, conditions(&status)[1].as_str()), (None, format!("ScalingActive=False {reason}").as_str()));
            assert_eq!(status["conditions"][1]["message"], format!("the HPA was unable to compute the replica count: {why}"));
            assert_eq!(events[0], ("Warning", reason, why.clone()));
            assert_eq!(events[1].2, format!("invalid metrics (1 invalid out of 1), first error is: {event}{why}"));
        }
        let nobody = look_at(&scaler(json!([object("Value", "1")])), 3, &Selected::Pods, Vec::new(), vec![values(&[9000])]);
        assert!(
            nobody.1["conditions"][1]["message"]
                .as_str()
                .is_some_and(|m| m.ends_with("unable to calculate ready pods: no pods returned by selector while calculating replica count"))
        );
    }
}
