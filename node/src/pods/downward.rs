//! The downward API: fields of the pod and resources of its containers, for variables and files.

use super::spec::{Container, Pod, ResourceFieldRef};
use coracle_api::{names::quote, quantity::Quantity};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// What is known besides the pod's object.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub node_name: String,
    /// The node's address.
    pub host_ip: IpAddr,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// Allocatable of the node: stands in for absent limits.
    pub cpu_millis: i64,
    /// Allocatable memory, bytes.
    pub memory: i64,
    /// Processes use them: volumes may be paths of the machine, and files have modes and groups that count.
    pub host_paths: bool,
}

/// A field by its path, as `fieldRef` names it; `Err` says what is wrong with the path.
pub fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['a/b']` as (`metadata.labels`, `a/b`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key.strip_prefix('\'').and_then(|k| k.strip_suffix('\'')).or_else(|| key.strip_prefix('"').and_then(|k| k.strip_suffix('"')))?;
    Some((map, key))
}

/// `key="value"` lines, sorted, values escaped as Go's `%q` does.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// A container's resource in units of the divisor, rounded up.
pub fn resource(pod: &Pod, own: Option<&Container>, facts: &Facts, reference: &ResourceFieldRef) -> Result<String, String> {
    let container = if reference.container_name.is_empty() { own } else { pod.all_containers().find(|c| c.name == reference.container_name) };
    let container = container.ok_or_else(|| format!("container {} not found", reference.container_name))?;
    let (list, name) = reference.resource.split_once('.').ok_or_else(|| format!("unsupported container resource : {}", reference.resource))?;
    let list = match list {
        "limits" => &container.resources.limits,
        "requests" => &container.resources.requests,
        _ => return Err(format!("unsupported container resource : {}", reference.resource)),
    };
    // Allocatable stands in for limits that are not set, as upstream's MergeContainerResourceLimits does.
    let is_limit = reference.resource.starts_with("limits.");
    let cpu = name == "cpu";
    let value = match list.get(name) {
        Some(quantity) => parse(quantity)?,
        None if is_limit && cpu => Quantity::from_millis(facts.cpu_millis),
        None if is_limit && name == "memory" => Quantity::from_units(facts.memory),
        None => Quantity::from_units(0),
    };
    let divisor = match &reference.divisor {
        Some(divisor) => parse(divisor)?,
        None => Quantity::from_units(1),
    };
    let divisor = if divisor.is_zero() { Quantity::from_units(1) } else { divisor };
    let (value, divisor) = if cpu { (value.millis(), divisor.millis()) } else { (value.units(), divisor.units()) };
    Ok((value.max(0) as u64).div_ceil(divisor.max(1) as u64).to_string())
}

/// A quantity as JSON has it: text or a number.
pub fn parse(value: &Value) -> Result<Quantity, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Quantity::parse(&text).map_err(|e| format!("{text:?} is no quantity: {e}"))
}

#[cfg(test)]
impl Facts {
    /// Those of a node that tests have.
    pub fn sample() -> Self {
        Self {
            node_name: "n1".into(),
            host_ip: [10, 0, 0, 1].into(),
            pod_ip: Some([10, 1, 0, 2].into()),
            cpu_millis: 2000,
            memory: 1 << 30,
            host_paths: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "a", "namespace": "b", "uid": "u", "labels": { "app": "x", "zone/z": "é\"1\"" } },
            "spec": { "serviceAccountName": "sa", "containers": [
                { "name": "c", "resources": { "limits": { "cpu": "1500m" }, "requests": { "memory": "100Mi" } } } ] },
        }))
        .unwrap()
    }

    #[test]
    fn fields_by_path() {
        for (path, want) in [
            ("metadata.name", "a"),
            ("metadata.namespace", "b"),
            ("metadata.uid", "u"),
            ("metadata.labels['app']", "x"),
            ("metadata.labels['zone/z']", "é\"1\""),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"x\"\nzone/z=\"é\\\"1\\\"\""),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.1.0.2"),
            ("status.hostIP", "10.0.0.1"),
        ] {
            assert_eq!(field(&pod(), &Facts::sample(), path).as_deref(), Ok(want), "{path}");
        }
        assert!(field(&pod(), &Facts::sample(), "spec.restartPolicy").is_err());
    }

    #[test]
    fn resources_in_units_of_the_divisor_rounded_up() {
        for (name, divisor, want) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("limits.memory", None, "1073741824"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.memory", Some("1Mi"), "100"),
            ("requests.memory", Some("64Mi"), "2"),
            ("requests.cpu", None, "0"),
        ] {
            let pod = pod();
            let reference = ResourceFieldRef { container_name: "c".into(), resource: name.into(), divisor: divisor.map(|d| json!(d)) };
            assert_eq!(resource(&pod, None, &Facts::sample(), &reference).as_deref(), Ok(want), "{name} {divisor:?}");
        }
    }
}
