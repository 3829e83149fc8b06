//! What a service's fields mean together before addresses are given: a client may say `clusterIP` or `clusterIPs`, may leave out what was allocated, and
//! may change the type and keep what only the old type had.

use super::{has_node_ports, is_external, kind, needs_health_check};
use crate::resources::cells::list;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn spec(service: &mut Value) -> &mut Map<String, Value> {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    match &mut service["spec"] {
        Value::Object(spec) => spec,
        // Just made one.
        _ => unreachable!("spec is an object"),
    }
}

fn text<'a>(service: &'a Value, name: &str) -> &'a str {
    service["spec"][name].as_str().unwrap_or_default()
}

pub(super) fn on_create(new: &mut Value) {
    if new["spec"].get("type").is_none() {
        spec(new).insert("type".into(), "ClusterIP".into());
    }
    let ip = text(new, "clusterIP").to_string();
    if !ip.is_empty() && list(&new["spec"]["clusterIPs"]).is_empty() {
        spec(new).insert("clusterIPs".into(), json!([ip]));
    }
}

pub(super) fn on_update(old: &Value, new: &mut Value) {
    if new["spec"].get("type").is_none() {
        spec(new).insert("type".into(), "ClusterIP".into());
    }
    normalize(old, new);
    keep_allocated(old, new);
    drop_what_the_type_has_not(old, new);
}

/// Only `clusterIP` was changed: `clusterIPs` follows.
fn normalize(old: &Value, new: &mut Value) {
    let (before, now) = (text(old, "clusterIP"), text(new, "clusterIP").to_string());
    if before == now || old["spec"]["clusterIPs"] != new["spec"]["clusterIPs"] {
        return;
    }
    if now.is_empty() {
        spec(new).remove("clusterIPs");
    } else {
        spec(new).insert("clusterIPs".into(), json!([now]));
    }
}

/// What was allocated and is not said now stays.
fn keep_allocated(old: &Value, new: &mut Value) {
    if kind(old) != "ExternalName" && kind(new) != "ExternalName" {
        let spec = spec(new);
        if spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().is_empty() {
            copy(old, spec, "clusterIP");
        }
        let same = spec.get("clusterIP") == old["spec"].get("clusterIP");
        if same && list(spec.get("clusterIPs").unwrap_or(&Value::Null)).is_empty() {
            copy(old, spec, "clusterIPs");
        }
        if !spec.contains_key("ipFamilyPolicy") {
            copy(old, spec, "ipFamilyPolicy");
        }
        if !spec.contains_key("ipFamilies") {
            copy(old, spec, "ipFamilies");
        }
    }
    if has_node_ports(old) && has_node_ports(new) {
        let mut used: BTreeSet<i64> = list(&new["spec"]["ports"]).iter().filter_map(|port| port["nodePort"].as_i64()).collect();
        for port in new
            .pointer_mut("/spec/ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter(|port| port["nodePort"].as_i64().unwrap_or_default() == 0)
        {
            let name = port["name"].as_str().unwrap_or_default();
            let before = list(&old["spec"]["ports"]).iter().find(|old| old["name"].as_str().unwrap_or_default() == name);
            if let Some(kept) = before.and_then(|old| old["nodePort"].as_i64()).filter(|kept| *kept != 0 && used.insert(*kept)) {
                port["nodePort"] = kept.into();
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && new["spec"].get("healthCheckNodePort").is_none() {
        copy(old, spec(new), "healthCheckNodePort");
    }
}

fn copy(old: &Value, spec: &mut Map<String, Value>, name: &str) {
    if let Some(value) = old["spec"].get(name) {
        spec.insert(name.into(), value.clone());
    }
}

/// What only the old type had goes, if the client did not touch it; what it did touch is for validation to refuse.
fn drop_what_the_type_has_not(old: &Value, new: &mut Value) {
    let mut gone: Vec<&str> = Vec::new();
    if kind(old) != "ExternalName" && kind(new) == "ExternalName" {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if kind(new) != "LoadBalancer" && !new["status"]["loadBalancer"].is_null() {
        new["status"]["loadBalancer"] = json!({});
    }
    if is_external(old) && !is_external(new) {
        gone.push("externalTrafficPolicy");
    }
    if needs_health_check(old) && !needs_health_check(new) {
        gone.push("healthCheckNodePort");
    }
    let node_ports = |service: &Value| list(&service["spec"]["ports"]).iter().map(|port| port["nodePort"].clone()).collect::<Vec<_>>();
    if has_node_ports(old) && !has_node_ports(new) && node_ports(old) == node_ports(new) {
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
    for name in gone {
        if old["spec"].get(name) == new["spec"].get(name) {
            spec(new).remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "externalTrafficPolicy": "Cluster", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}})
    }

    #[test]
    fn what_was_allocated_stays() {
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"name": "http", "port": 81}], "externalTrafficPolicy": "Cluster"}});
        on_update(&stored(), &mut new);
        let mut want = stored();
        want["spec"]["ports"][0]["port"] = 81.into();
        assert_eq!(new, want);
    }

    #[test]
    fn another_type_drops_what_it_has_not() {
        let mut new = stored();
        new["spec"]["type"] = "ClusterIP".into();
        on_update(&stored(), &mut new);
        assert_eq!(new["spec"]["ports"], json!([{"name": "http", "port": 80}]));
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
        let mut new = stored();
        new["spec"]["type"] = "ExternalName".into();
        on_update(&stored(), &mut new);
        assert!(new["spec"].get("clusterIP").is_none() && new["spec"].get("ipFamilies").is_none());
    }

    #[test]
    fn the_list_follows_the_single_address() {
        let mut new = stored();
        new["spec"]["clusterIP"] = "10.96.0.9".into();
        on_update(&stored(), &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        let mut new = json!({"spec": {"clusterIP": "None"}});
        on_create(&mut new);
        assert_eq!(new, json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}}));
    }
}
