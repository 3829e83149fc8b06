//! Service: its addresses and ports are reserved in the same transaction that stores it, so two can never hold the same one.

mod allocate;
mod prepare;
pub(super) mod validate;

pub(super) use validate::special_address;

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, count, list, text_or},
};
use crate::{
    nodes,
    pipeline::{Answer, Core, Request},
};
use async_trait::async_trait;
use coracle_api::{
    registry::Column,
    status::{Cause, Status},
};
use coracle_store::Op;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};

/// Hooks of `services`.
pub struct Service;

const HEADINGS: &[Heading] = &[
    NAME,
    ("Type", "How the service is exposed."),
    ("Cluster-IP", "Its address inside the cluster."),
    ("External-IP", "Its addresses outside the cluster."),
    ("Port(s)", "Its ports, and the node ports they are reached by."),
    AGE,
    ("+Selector", "Which pods serve it, by their labels."),
];

#[async_trait]
impl Hooks for Service {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        prepare::on_create(new);
        allocate::fill(&allocate::Pool::of(cx), None, new)
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if !cx.subresource().is_empty() {
            return Ok(());
        }
        prepare::on_update(old, new);
        allocate::fill(&allocate::Pool::of(cx), Some(old), new)
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => validate::status(old, new, causes),
            _ => validate::service(old, new, causes),
        }
    }
    fn also(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>, ops: &mut Vec<Op>) -> Result<(), Status> {
        allocate::reservations(cx, old, new, ops)
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        nodes::serve(core, request).await
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

/// The type, `ClusterIP` if none is said.
fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

/// `clusterIP: None`
fn is_headless(service: &Value) -> bool {
    let spec = &service["spec"];
    spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None"
}

fn has_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// Reached from outside the cluster.
fn is_external(service: &Value) -> bool {
    has_node_ports(service) || kind(service) == "ClusterIP" && !list(&service["spec"]["externalIPs"]).is_empty()
}

/// A load balancer that must know on which nodes the pods are.
fn needs_health_check(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn row(service: &Value) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (count(&port["port"]), text_or(&port["protocol"], "TCP"));
            match count(&port["nodePort"]) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        cells::name(service),
        kind(service).into(),
        text_or(&spec["clusterIPs"][0], &text_or(&spec["clusterIP"], "<none>")).into(),
        external_ip(service).into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age::of(service),
        cells::labels(&spec["selector"]).into(),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let external: Vec<&str> = list(&spec["externalIPs"]).iter().filter_map(Value::as_str).collect();
    let joined = |list: Vec<&str>, otherwise: &str| if list.is_empty() { otherwise.into() } else { list.join(",") };
    match kind(service) {
        "ClusterIP" | "NodePort" => joined(external, "<none>"),
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = list(&service["status"]["loadBalancer"]["ingress"])
                .iter()
                .filter_map(|at| [&at["ip"], &at["hostname"]].into_iter().filter_map(Value::as_str).find(|text| !text.is_empty()))
                .collect();
            joined(ingress.into_iter().chain(external).collect(), "<pending>")
        }
        "ExternalName" => text_or(&spec["externalName"], ""),
        _ => "<unknown>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn golden(spec: Value, status: Value) -> String {
        let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": spec, "status": status});
        let row = row(&service);
        assert_eq!(row.len(), HEADINGS.len());
        cells::golden(&row, "2026-01-02T03:04:05Z")
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let http = json!([{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP", "nodePort": 30443}]);
        assert_eq!(
            golden(
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": http, "selector": {"a": "b"}}),
                json!({})
            ),
            "s | ClusterIP | 10.96.0.1 | <none> | 80/TCP,443:30443/TCP | 5s | a=b"
        );
        assert_eq!(
            golden(json!({"type": "ExternalName", "externalName": "example.com"}), json!({})),
            "s | ExternalName | <none> | example.com | <none> | 5s | <none>"
        );
        let balanced = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.2"]});
        assert_eq!(golden(balanced.clone(), json!({})), "s | LoadBalancer | 10.96.0.2 | <pending> | <none> | 5s | <none>");
        assert_eq!(
            golden(balanced, json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}})),
            "s | LoadBalancer | 10.96.0.2 | 1.2.3.4 | <none> | 5s | <none>"
        );
        assert_eq!(golden(json!({"clusterIP": "None"}), json!({})), "s | ClusterIP | None | <none> | <none> | 5s | <none>");
    }
}
