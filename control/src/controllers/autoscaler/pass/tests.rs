//! Looks at autoscalers, alone and one after the other.

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

/// Counts and the reasons of `AbleToScale`, of looks at these seconds and with this use of each pod; the target follows.
fn over_time(json: &str, looks: &[(i64, i64)]) -> Vec<(i64, String)> {
    let (mut current, mut history) = (5, History::default());
    let mut look_once = |(second, used): &(i64, i64)| {
        let autoscaler: Autoscaler<'_> = serde_json::from_str(json).expect("an autoscaler");
        let mut look = Look::new(&autoscaler, now() + SignedDuration::from_secs(*second));
        let pods = Pods(vec![Some(*used); usize::try_from(current).expect("a count")], Vec::new());
        let outcome = decide(&autoscaler, current, &Selected::Pods, &pods, &mut history, &mut look);
        let status = look.status(&autoscaler, Some(&outcome));
        if let Some(to) = outcome.rescale {
            history.scaled(autoscaler.spec.behavior.as_ref(), current, to, look.now);
            current = to;
        }
        (current, status["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned())
    };
    looks.iter().map(&mut look_once).collect()
}

#[test]
fn a_falling_load_is_followed_once_it_stayed_low() {
    let stable = |count: i64| (count, "ScaleDownStabilized".to_owned());
    let ready = |count: i64| (count, "ReadyForNewScale".to_owned());
    // Half of each CPU is wanted and used; then a tenth, which two pods are enough for.
    let looks = [(0, 500), (15, 100), (120, 100), (299, 100), (300, 100), (315, 100)];
    let told = over_time(&scaler(json!([cpu(50)])), &looks);
    assert_eq!(told, [ready(5), stable(5), stable(5), stable(5), ready(2), ready(2)], "five minutes, as nothing else is said");
    // A peak within the window begins it anew.
    let looks = [(0, 500), (200, 100), (250, 400), (301, 100), (540, 100), (550, 100)];
    let told: Vec<i64> = over_time(&scaler(json!([cpu(50)])), &looks).into_iter().map(|(count, _)| count).collect();
    assert_eq!(told, [5, 5, 5, 4, 4, 2]);
    // What the autoscaler says of the way down: a shorter window, and one pod a minute.
    let mut slow: Value = serde_json::from_str(&scaler(json!([cpu(50)]))).expect("JSON");
    slow["spec"]["behavior"] = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
    });
    let looks = [(0, 500), (30, 100), (60, 100), (75, 100), (119, 100), (120, 100), (180, 100), (240, 100)];
    let told: Vec<i64> = over_time(&slow.to_string(), &looks).into_iter().map(|(count, _)| count).collect();
    assert_eq!(told, [5, 5, 4, 4, 4, 3, 2, 2], "at least two are wanted");
}
