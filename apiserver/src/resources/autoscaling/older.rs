//! `autoscaling/v1`: a form that knows a CPU target only. What else an autoscaler has is carried in annotations, as upstream's conversion does, so that an
//! older client that reads and writes one back takes nothing away.

use crate::{
    pipeline::object::{at, set},
    resources::{Form, cells::list},
};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CARRIERS: [&str; 4] = [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS];

pub(super) const FORMS: &[Form] = &[Form { api_version: "autoscaling/v1", store, show }];

/// Fields of one kind of metric: their name in the older form and their path in the newer one. `!` marks quantities that the older form always has.
type Fields = &'static [(&'static str, &'static str)];

/// By the field that describes the metric.
const SPECS: [(&str, Fields); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("!targetValue", "target.value"),
            ("averageValue", "target.averageValue"),
        ],
    ),
    ("pods", &[("metricName", "metric.name"), ("selector", "metric.selector"), ("!targetAverageValue", "target.averageValue")]),
    ("resource", RESOURCE),
    ("containerResource", RESOURCE),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("targetValue", "target.value"),
            ("targetAverageValue", "target.averageValue"),
        ],
    ),
];
const RESOURCE: Fields = &[
    ("name", "name"),
    ("container", "container"),
    ("targetAverageUtilization", "target.averageUtilization"),
    ("targetAverageValue", "target.averageValue"),
];

const STATUSES: [(&str, Fields); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("!currentValue", "current.value"),
            ("averageValue", "current.averageValue"),
        ],
    ),
    ("pods", &[("metricName", "metric.name"), ("selector", "metric.selector"), ("!currentAverageValue", "current.averageValue")]),
    ("resource", RESOURCE_STATUS),
    ("containerResource", RESOURCE_STATUS),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("!currentValue", "current.value"),
            ("currentAverageValue", "current.averageValue"),
        ],
    ),
];
const RESOURCE_STATUS: Fields = &[
    ("name", "name"),
    ("container", "container"),
    ("currentAverageUtilization", "current.averageUtilization"),
    ("!currentAverageValue", "current.averageValue"),
];

/// A metric as the older form writes it.
fn to_older(table: &[(&str, Fields)], metric: &Value) -> Value {
    let mut older = json!({"type": metric["type"]});
    for (source, fields) in table.iter().filter(|(source, _)| metric[source].is_object()) {
        for (name, path) in *fields {
            match (at(&metric[source], path), name.strip_prefix('!')) {
                (Value::Null, None) => {}
                (Value::Null, Some(name)) => older[source][name] = "0".into(),
                (value, always) => older[source][always.unwrap_or(name)] = value.clone(),
            }
        }
    }
    older
}

/// A metric out of the older form.
fn to_newer(table: &[(&str, Fields)], metric: &Value) -> Value {
    let mut newer = json!({"type": metric["type"]});
    for (source, fields) in table.iter().filter(|(source, _)| metric[source].is_object()) {
        newer[source] = json!({});
        for (name, path) in *fields {
            let value = &metric[source][name.trim_start_matches('!')];
            if !value.is_null() {
                set(&mut newer[source], path, value.clone());
            }
        }
    }
    newer
}

/// As [`to_newer`], with the target's type, which the older form leaves to what is set.
fn spec_to_newer(metric: &Value) -> Value {
    let mut newer = to_newer(&SPECS, metric);
    for (source, _) in SPECS {
        if !newer[source].is_object() {
            continue;
        }
        let target = &mut newer[source]["target"];
        let is = |field: &str| !target[field].is_null();
        let kind = match source {
            "object" if is("averageValue") => "AverageValue",
            "object" => "Value",
            "external" if is("value") => "Value",
            "resource" | "containerResource" if is("averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        // The older form cannot leave it out.
        if source == "object"
            && kind == "AverageValue"
            && target["value"] == "0"
            && let Some(target) = target.as_object_mut()
        {
            target.remove("value");
        }
        target["type"] = kind.into();
    }
    newer
}

fn is_cpu_target(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && !metric["resource"]["target"]["averageUtilization"].is_null()
}

/// Go's own spelling of the fields of a behavior, which upstream writes without its JSON names.
fn spelled(value: &Value, letter: fn(char) -> char) -> Value {
    match value {
        Value::Array(list) => list.iter().map(|value| spelled(value, letter)).collect(),
        Value::Object(map) => {
            let respell = |key: &str| {
                let mut letters = key.chars();
                letters.next().map(letter).into_iter().chain(letters).collect::<String>()
            };
            Value::Object(map.iter().map(|(key, value)| (respell(key), spelled(value, letter))).collect())
        }
        other => other.clone(),
    }
}

fn take(object: &mut Value, field: &str) -> Value {
    object.as_object_mut().and_then(|map| map.remove(field)).unwrap_or_default()
}

/// Takes the annotations out, of which `carried` gets those that carry something.
fn annotations(object: &mut Value, carried: &mut Map<String, Value>) -> Map<String, Value> {
    let mut all = match take(&mut object["metadata"], "annotations") {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    for carrier in CARRIERS {
        if let Some(value) = all.remove(carrier) {
            carried.insert(carrier.into(), value);
        }
    }
    all
}

fn put_annotations(object: &mut Value, annotations: Map<String, Value>) {
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = Value::Object(annotations);
    }
}

fn show(autoscaler: &mut Value) {
    let mut notes = annotations(autoscaler, &mut Map::new());
    let mut note = |name: &str, value: Value| {
        notes.insert(name.into(), value.to_string().into());
    };
    let metrics = take(&mut autoscaler["spec"], "metrics");
    let (cpu, others): (Vec<&Value>, Vec<&Value>) = list(&metrics).iter().partition(|metric| is_cpu_target(metric));
    if let Some(cpu) = cpu.first() {
        autoscaler["spec"]["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    if !others.is_empty() {
        note(METRICS, others.into_iter().map(|metric| to_older(&SPECS, metric)).collect());
    }
    let behavior = take(&mut autoscaler["spec"], "behavior");
    if behavior.is_object() {
        note(BEHAVIOR, spelled(&behavior, |letter| letter.to_ascii_uppercase()));
    }
    if autoscaler["status"].is_object() {
        let current = take(&mut autoscaler["status"], "currentMetrics");
        let cpu = list(&current).iter().find(|metric| metric["type"] == "Resource" && metric["resource"]["name"] == "cpu");
        let percent = cpu.map(|metric| metric["resource"]["current"]["averageUtilization"].clone()).filter(|percent| !percent.is_null());
        if let Some(percent) = percent {
            autoscaler["status"]["currentCPUUtilizationPercentage"] = percent;
        }
        if !list(&current).is_empty() {
            note(CURRENT_METRICS, list(&current).iter().map(|metric| to_older(&STATUSES, metric)).collect());
        }
        let conditions = take(&mut autoscaler["status"], "conditions");
        if !list(&conditions).is_empty() {
            note(CONDITIONS, conditions);
        }
    }
    put_annotations(autoscaler, notes);
}

fn store(autoscaler: &mut Value) {
    let mut carried = Map::new();
    let notes = annotations(autoscaler, &mut carried);
    // What cannot be read is dropped, as upstream has it.
    let read = |name: &str| carried.get(name).and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let cpu = take(&mut autoscaler["spec"], "targetCPUUtilizationPercentage");
    let mut metrics: Vec<Value> = read(METRICS).map(|others| list(&others).iter().map(spec_to_newer).collect()).unwrap_or_default();
    if !cpu.is_null() {
        let target = json!({"type": "Utilization", "averageUtilization": cpu});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        autoscaler["spec"]["metrics"] = Value::Array(metrics);
    }
    if let Some(behavior) = read(BEHAVIOR).map(|behavior| spelled(&behavior, |letter| letter.to_ascii_lowercase())).filter(Value::is_object) {
        autoscaler["spec"]["behavior"] = behavior;
    }
    let percent = match autoscaler["status"].is_object() {
        true => take(&mut autoscaler["status"], "currentCPUUtilizationPercentage"),
        false => Value::Null,
    };
    let current = match read(CURRENT_METRICS) {
        Some(current) => list(&current).iter().map(|metric| to_newer(&STATUSES, metric)).collect(),
        None if !percent.is_null() => vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})],
        None => Vec::new(),
    };
    if !current.is_empty() {
        autoscaler["status"]["currentMetrics"] = Value::Array(current);
    }
    if let Some(conditions) = read(CONDITIONS).filter(Value::is_array) {
        autoscaler["status"]["conditions"] = conditions;
    }
    put_annotations(autoscaler, notes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        json!({
            "metadata": {"name": "a", "annotations": {"mine": "kept"}},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "rps"},
                        "target": {"type": "AverageValue", "averageValue": "2"}}},
                    {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "1"}}}, "target": {"type": "Value", "value": "30"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
            },
            "status": {
                "currentReplicas": 1,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "70m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        })
    }

    #[test]
    fn nothing_is_lost_in_the_older_form() {
        let mut older = full();
        show(&mut older);
        assert_eq!(older["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(older["status"], json!({"currentReplicas": 1, "currentCPUUtilizationPercentage": 7}));
        let notes = &older["metadata"]["annotations"];
        assert_eq!(notes[BEHAVIOR], r#"{"ScaleDown":{"Policies":[{"PeriodSeconds":15,"Type":"Pods","Value":1}],"StabilizationWindowSeconds":0}}"#);
        assert!(notes[METRICS].as_str().is_some_and(|text| text.contains(r#""targetValue":"0""#)), "{notes}");
        store(&mut older);
        assert_eq!(older, full());
    }

    #[test]
    fn a_plain_older_autoscaler_has_a_metric() {
        let mut object = json!({"metadata": {"annotations": {METRICS: "not json"}}, "spec": {"targetCPUUtilizationPercentage": 60}});
        store(&mut object);
        let target = json!({"type": "Utilization", "averageUtilization": 60});
        assert_eq!(object["spec"], json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}));
        assert!(object["metadata"]["annotations"].is_null());
    }
}
