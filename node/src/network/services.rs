//! What Services ask for, as pure data: which address, protocol and port leads to which backends.
//!
//! Follows kube-proxy's reading of Service and EndpointSlice: ready endpoints serve; if none is ready, those that are still serving
//! while they terminate do (KEP-1669). A frontend without backends is kept, so that it can be refused instead of timing out.

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

/// Transport protocol of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// In the kernel's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The Service's cluster IP.
    pub ip: Ipv4Addr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
}

/// Where a connection is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod's port.
    pub port: u16,
}

/// All frontends with their backends, both sorted.
pub type Table = BTreeMap<Frontend, Vec<Backend>>;

#[derive(Deserialize)]
struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Spec {
    #[serde(rename = "clusterIPs", default)]
    cluster_ips: Vec<String>,
    #[serde(rename = "clusterIP", default)]
    cluster_ip: String,
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Deserialize)]
struct ServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    ports: Vec<SlicePort>,
}

#[derive(Deserialize)]
struct SlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

/// Reads Services and EndpointSlices (canonical JSON each). What cannot be read is left out: the API server validated it, so it is of a newer kind.
pub fn table<'a>(services: impl IntoIterator<Item = &'a [u8]>, slices: impl IntoIterator<Item = &'a [u8]>) -> Table {
    let mut by_service: BTreeMap<(String, String), Vec<Slice>> = BTreeMap::new();
    for json in slices {
        let Ok(slice) = serde_json::from_slice::<Slice>(json) else { continue };
        let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
        by_service.entry((slice.metadata.namespace.clone(), service.clone())).or_default().push(slice);
    }
    let mut table = Table::new();
    for json in services {
        let Ok(service) = serde_json::from_slice::<Service>(json) else { continue };
        let ips: Vec<&String> =
            if service.spec.cluster_ips.is_empty() { vec![&service.spec.cluster_ip] } else { service.spec.cluster_ips.iter().collect() };
        // Headless ("None"), not yet allocated and IPv6 addresses have no frontend here.
        let Some(ip) = ips.iter().find_map(|ip| ip.parse::<Ipv4Addr>().ok()) else { continue };
        let slices = by_service.get(&(service.metadata.namespace, service.metadata.name)).map(Vec::as_slice).unwrap_or_default();
        for port in &service.spec.ports {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
            table.insert(Frontend { ip, protocol, port: port.port }, backends(slices, port, protocol));
        }
    }
    table
}

fn backends(slices: &[Slice], port: &ServicePort, protocol: Protocol) -> Vec<Backend> {
    let name = port.name.as_deref().unwrap_or("");
    let choose = |usable: fn(&Conditions) -> bool| {
        let mut found = Vec::new();
        for slice in slices {
            let matching = slice
                .ports
                .iter()
                .filter(|port| port.name.as_deref().unwrap_or("") == name && Protocol::parse(port.protocol.as_deref()) == Some(protocol));
            for number in matching.filter_map(|port| port.port) {
                let addresses =
                    slice.endpoints.iter().filter(|endpoint| usable(&endpoint.conditions)).filter_map(|endpoint| endpoint.addresses.first());
                found.extend(addresses.filter_map(|text| text.parse().ok()).filter_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(Backend { ip, port: number }),
                    IpAddr::V6(_) => None,
                }));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    };
    let ready = choose(|conditions| conditions.ready.unwrap_or(true));
    if !ready.is_empty() {
        return ready;
    }
    choose(|conditions| conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ip: &str) -> Vec<u8> {
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": ip, "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}})
            .to_string()
            .into_bytes()
    }

    fn slice(endpoints: serde_json::Value) -> Vec<u8> {
        let body = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        body.to_string().into_bytes()
    }

    fn read(service: &[u8], slice: &[u8]) -> Vec<(Frontend, Vec<Backend>)> {
        table([service], [slice]).into_iter().collect()
    }

    const FRONT: Frontend = Frontend { ip: Ipv4Addr::new(10, 96, 0, 9), protocol: Protocol::Tcp, port: 80 };

    fn back(last: u8) -> Backend {
        Backend { ip: Ipv4Addr::new(10, 0, 0, last), port: 8080 }
    }

    #[test]
    fn ready_endpoints_serve() {
        let slice = slice(json!([
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}
        ]));
        assert_eq!(read(&service("10.96.0.9"), &slice), [(FRONT, vec![back(1), back(2)])]);
    }

    #[test]
    fn terminating_endpoints_serve_when_none_is_ready() {
        let slice = slice(json!([
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}}
        ]));
        assert_eq!(read(&service("10.96.0.9"), &slice), [(FRONT, vec![back(3)])]);
    }

    #[test]
    fn no_backend_is_still_a_frontend_and_headless_is_none() {
        assert_eq!(read(&service("10.96.0.9"), &slice(json!([]))), [(FRONT, vec![])]);
        assert_eq!(read(&service("None"), &slice(json!([]))), []);
    }

    #[test]
    fn junk_is_left_out() {
        assert_eq!(read(b"{", b"[]"), []);
    }
}
