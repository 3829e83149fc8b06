//! The objects themselves.

use crate::{
    aggregation,
    pipeline::{Config, object},
    resources::{cells::list, networking::address},
};
use coracle_api::{registry::Registry, status::Status};
use coracle_store::{Key, Snapshot};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// First address of a range: the `kubernetes` Service's.
pub fn first_address(cidr: &str) -> Option<IpAddr> {
    let base: IpAddr = cidr.split('/').next()?.parse().ok()?;
    Some(match base {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base).checked_add(1)?).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base).checked_add(1)?).into()),
    })
}

/// The tenth address of an IPv4 range: cluster DNS's. None where the range has no such.
pub fn dns_address(cidr: &str) -> Option<Ipv4Addr> {
    let (base, bits) = cidr.split_once('/')?;
    let roomy = bits.parse::<u8>().is_ok_and(|bits| bits <= 28);
    base.parse::<Ipv4Addr>().ok().filter(|_| roomy).and_then(|base| u32::from(base).checked_add(10)).map(Into::into)
}

/// The system namespaces.
pub(super) const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

const CA_NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service \
                       IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(super) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

/// What a namespace has from its first moment: its `default` service account and the ConfigMap `kube-root-ca.crt`. Later they are put
/// back by controllers; made together with the namespace, a pod created right after it does not have to wait.
pub fn companions(namespace: &str, ca_pem: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": ca_pem},
            "metadata": {"name": "kube-root-ca.crt", "namespace": namespace, "annotations": {"kubernetes.io/description": CA_NOTE}},
        }),
    ]
}

/// Priority classes of the system, runtime classes of this server.
pub(super) fn classes() -> Vec<Value> {
    let priority = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        })
    };
    let runtime = |name: &str| json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name});
    vec![
        priority("system-cluster-critical", 2_000_000_000, "For pods the cluster cannot do without, on whichever node they run."),
        priority("system-node-critical", 2_000_001_000, "For pods their node cannot do without; above every other priority."),
        runtime("wasm"),
        runtime("oci"),
    ]
}

/// Service `kubernetes` of the default namespace with its endpoints in both forms: the API by the first address of the service range.
pub(super) fn api_service(config: &Config) -> Vec<Value> {
    let Some(ip) = first_address(&config.service_cidr) else { return Vec::new() };
    let (family, port) = (if ip.is_ipv4() { "IPv4" } else { "IPv6" }, config.api_addr.port());
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "internalTrafficPolicy": "Cluster", "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}], "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    });
    // An API that listens everywhere is reached on this machine by loopback.
    let address = match config.api_addr.ip() {
        any if any.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    vec![service, slice, endpoints]
}

/// Service `kube-dns`, at whose address every node answers itself. Whoever runs pods with the label that it selects has those asked instead. Not made where
/// another Service was given the address before.
pub(super) fn dns_service(snapshot: &Snapshot, config: &Config) -> Vec<Value> {
    let Some(ip) = dns_address(&config.service_cidr).map(IpAddr::V4) else { return Vec::new() };
    let mine = address::for_service(&ip, "kube-system", "kube-dns");
    let taken = snapshot.get(&Key::new(address::IP_ADDRESSES, "", ip.to_string()));
    if taken.is_some_and(|stored| !object::parse(&stored).is_ok_and(|stored| address::belongs_to(&stored, "kube-system", "kube-dns"))) {
        return Vec::new();
    }
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")], "selector": {"k8s-app": "kube-dns"}, "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    });
    vec![service, mine]
}

/// An APIService for each built-in group version but the one they are in themselves.
pub(super) fn api_services(registry: &Registry, now: &str) -> Vec<Value> {
    let mut services = Vec::new();
    for (group, versions) in registry.groups().into_iter().filter(|(group, _)| group != "apiregistration.k8s.io") {
        for version in versions.iter().filter(|version| registry.of(&group, version).iter().all(|row| row.custom.is_none())) {
            let mut service = aggregation::local_service(&group, version, aggregation::priority(&group, version), "onstart");
            service["status"] = json!({"conditions": [aggregation::local(now)]});
            services.push(service);
        }
    }
    services
}

/// The range that Services get their addresses from, open at once.
pub(super) fn service_cidr(config: &Config, now: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": address::DEFAULT}, "spec": {"cidrs": [config.service_cidr]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": now}]},
    })
}

/// Every Service's address is taken by an IPAddress, so that no other Service gets it.
pub(super) fn addresses(snapshot: &Snapshot, config: &Config, mut put: impl FnMut(Value) -> Result<(), Status>) -> Result<(), Status> {
    // The API's own Service is being made by the same plan.
    let own = snapshot.get(&Key::new("services", "default", "kubernetes")).is_none();
    if let Some(ip) = first_address(&config.service_cidr).filter(|_| own) {
        put(address::for_service(&ip, "default", "kubernetes"))?;
    }
    for service in snapshot.range("services", None, None) {
        let value = object::parse(service)?;
        for ip in list(&value["spec"]["clusterIPs"]).iter().filter_map(Value::as_str).filter_map(|ip| ip.parse().ok()) {
            put(address::for_service(&ip, &service.key.namespace, &service.key.name))?;
        }
    }
    Ok(())
}

/// The stored Service or slice with the API's present address, if it has another.
pub(super) fn follow_address(stored: &Value, wanted: &Value) -> Option<Value> {
    let fields: &[&str] = match wanted["kind"].as_str() {
        Some("Service") if wanted["metadata"]["name"] == "kubernetes" => &["/spec/ports"],
        Some("EndpointSlice") => &["/endpoints", "/ports"],
        Some("Endpoints") => &["/subsets"],
        // Other servers shall trust the certificate of this start.
        Some("ConfigMap") if wanted["metadata"]["name"] == "extension-apiserver-authentication" => &["/data"],
        _ => return None,
    };
    let mut new = stored.clone();
    for field in fields {
        if let (Some(have), Some(want)) = (new.pointer_mut(field), wanted.pointer(field)) {
            *have = want.clone();
        }
    }
    (new != *stored).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_address_is_the_api_servers() {
        assert_eq!(first_address("10.96.0.0/16").map(|ip| ip.to_string()).as_deref(), Some("10.96.0.1"));
        assert_eq!(first_address("fd00::/108").map(|ip| ip.to_string()).as_deref(), Some("fd00::1"));
        assert_eq!(first_address("x"), None);
        assert_eq!(dns_address("10.96.0.0/16").map(|ip| ip.to_string()).as_deref(), Some("10.96.0.10"));
        assert_eq!([dns_address("10.96.0.0/29"), dns_address("fd00::/108")], [None, None]);
    }
}
