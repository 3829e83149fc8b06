//! `metrics.k8s.io`: NodeMetrics and PodMetrics, made of what nodes tell when somebody asks, never stored (upstream: metrics-server).

use super::{
    Hooks,
    cells::{self, list},
};
use crate::{
    metrics::Usage,
    pipeline::{
        Answer, Core, Request, Verb,
        list::{Filter, Page},
        object,
    },
};
use async_trait::async_trait;
use coracle_api::{names::rfc3339, quantity::Quantity, registry::Column, status::Status};
use coracle_store::{Key, Object, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Hooks of `nodes.metrics.k8s.io`.
pub struct NodeMetrics;
/// Hooks of `pods.metrics.k8s.io`.
pub struct PodMetrics;

const API_VERSION: &str = "metrics.k8s.io/v1beta1";

fn columns() -> Option<Vec<Column>> {
    Some(cells::columns(&[
        cells::NAME,
        ("cpu", "CPU time used per second."),
        ("memory", "Memory in use."),
        ("Window", "Over what time that was measured."),
    ]))
}

/// The cells of a node, or of a pod with the sum over its containers.
fn row(metrics: &Value) -> Vec<Value> {
    let parts = if metrics["usage"].is_object() { std::slice::from_ref(metrics) } else { list(&metrics["containers"]) };
    let sum = |resource: &str| {
        let quantities = parts.iter().filter_map(|part| Quantity::parse(part["usage"][resource].as_str()?).ok());
        quantities.fold(Quantity::ZERO, Quantity::plus).to_string()
    };
    vec![cells::name(metrics), sum("cpu").into(), sum("memory").into(), metrics["window"].clone()]
}

#[async_trait]
impl Hooks for NodeMetrics {
    fn columns(&self) -> Option<Vec<Column>> {
        columns()
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        core.metrics.wanted().await;
        Some(answer(core, request, "nodes", node))
    }
}

#[async_trait]
impl Hooks for PodMetrics {
    fn columns(&self) -> Option<Vec<Column>> {
        columns()
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        core.metrics.wanted().await;
        Some(answer(core, request, "pods", pod))
    }
}

/// What is known of one stored node or pod.
type Make = fn(&Core, &Object) -> Option<Value>;

fn answer(core: &Core, request: &Request, of: &str, make: Make) -> Result<Answer, Status> {
    let snapshot: Snapshot = core.store.snapshot();
    let made = |stored: &Arc<Object>| {
        let value = make(core, stored)?;
        Some(Object::from_draft(stored.key.clone(), &object::draft(&request.resource, &value), 0))
    };
    match request.verb {
        Verb::Get => {
            let found = snapshot.get(&Key::new(of, request.namespace.as_str(), request.name.as_str()));
            // As metrics-server says it: by its kind, and with the namespace.
            let name = if request.namespace.is_empty() { request.name.clone() } else { format!("{}/{}", request.namespace, request.name) };
            let missing = || Status::not_found("metrics.k8s.io", &format!("{}metrics", of.trim_end_matches('s')), &name);
            let object = found.as_ref().and_then(made).ok_or_else(missing)?;
            Ok(Answer::Object { object, created: false })
        }
        Verb::List => {
            let filter = Filter::of(request)?;
            let namespace = (!request.namespace.is_empty()).then_some(request.namespace.as_str());
            let items = snapshot.range(of, namespace, None).filter(|object| filter.matches(object)).filter_map(made).collect();
            Ok(Answer::List(Box::new(Page { row: request.resource.clone(), revision: 0, next: String::new(), remaining: None, items })))
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn usage(usage: Usage) -> Value {
    let (cpu, memory) = usage.quantities();
    json!({"cpu": cpu, "memory": memory})
}

/// A Go duration: `15s`, `1.002s`.
fn duration(window: SignedDuration) -> String {
    let text = format!("{:.3}", window.as_secs_f64());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn about(kind: &str, stored: &Object, at: Timestamp, window: SignedDuration) -> Value {
    let mut metadata = json!({"name": &*stored.key.name, "creationTimestamp": rfc3339(at)});
    if !stored.key.namespace.is_empty() {
        metadata["namespace"] = (*stored.key.namespace).into();
    }
    for (label, value) in &stored.meta.labels {
        metadata["labels"][&**label] = (**value).into();
    }
    json!({"kind": kind, "apiVersion": API_VERSION, "metadata": metadata, "timestamp": rfc3339(at), "window": duration(window)})
}

fn node(core: &Core, stored: &Object) -> Option<Value> {
    let sample = core.metrics.node(&stored.key.name)?;
    let mut value = about("NodeMetrics", stored, sample.at, sample.window);
    value["usage"] = usage(sample.usage);
    Some(value)
}

fn pod(core: &Core, stored: &Object) -> Option<Value> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        node_name: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Pod {
        spec: Spec,
    }
    let bound: Pod = serde_json::from_slice(&stored.json).ok()?;
    let sample = core.metrics.pod(&bound.spec.node_name, &stored.meta.uid).filter(|sample| !sample.containers.is_empty())?;
    let mut value = about("PodMetrics", stored, sample.at, sample.window);
    value["containers"] = sample.containers.iter().map(|(name, used)| json!({"name": name, "usage": usage(*used)})).collect();
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_over_containers() {
        let pod = json!({"metadata": {"name": "a"}, "window": "15s", "containers": [
            {"name": "x", "usage": {"cpu": "250m", "memory": "1Mi"}}, {"name": "y", "usage": {"cpu": "500m", "memory": "1Mi"}}]});
        assert_eq!(row(&pod), ["a", "750m", "2Mi", "15s"]);
        let node = json!({"metadata": {"name": "n"}, "window": "1s", "usage": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(row(&node), ["n", "1", "1Gi", "1s"]);
    }

    #[test]
    fn windows_are_go_durations() {
        assert_eq!(duration(SignedDuration::from_millis(15_002)), "15.002s");
        assert_eq!(duration(SignedDuration::from_secs(15)), "15s");
        assert_eq!(duration(SignedDuration::from_secs(100)), "100s");
    }
}
