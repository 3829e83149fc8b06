//! The parts of Service and EndpointSlice that traffic depends on.

use super::Protocol;
use serde::Deserialize;
use std::{collections::BTreeMap, net::Ipv4Addr};

#[derive(Deserialize)]
pub struct Service {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    r#type: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    pub ports: Vec<ServicePort>,
    pub internal_traffic_policy: String,
    pub external_traffic_policy: String,
    pub health_check_node_port: u16,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    session_affinity: String,
    session_affinity_config: AffinityConfig,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: ClientIp,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: u16,
    pub node_port: u16,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Ingress {
    ip: String,
    ip_mode: Option<String>,
}

impl Service {
    /// Its address in the cluster.
    pub fn address(&self) -> Option<Ipv4Addr> {
        if self.spec.r#type == "ExternalName" {
            return None;
        }
        let ips: &[String] = if self.spec.cluster_ips.is_empty() { std::slice::from_ref(&self.spec.cluster_ip) } else { &self.spec.cluster_ips };
        ips.iter().find_map(|ip| ip.parse().ok())
    }

    /// Addresses that it has besides: a load balancer that is a proxy (`ipMode: Proxy`) is to be gone through.
    pub fn external(&self) -> impl Iterator<Item = Ipv4Addr> {
        let balanced = self.status.load_balancer.ingress.iter().filter(|at| at.ip_mode.as_deref() != Some("Proxy")).map(|at| &at.ip);
        self.spec.external_ips.iter().chain(balanced).filter_map(|ip| ip.parse().ok())
    }

    /// Seconds; three hours unless said.
    pub fn affinity(&self) -> Option<u32> {
        (self.spec.session_affinity == "ClientIP").then(|| self.spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(10_800))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    pub metadata: Metadata,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
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
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: Conditions,
    pub node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

impl Slice {
    /// With the name of its Service.
    pub fn read(json: &[u8]) -> Option<(String, Self)> {
        let slice: Self = serde_json::from_slice(json).ok()?;
        Some((slice.metadata.labels.get("kubernetes.io/service-name")?.clone(), slice))
    }

    /// Numbers of the port of this name.
    pub fn numbers(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let named =
            move |port: &&SlicePort| port.name.as_deref().unwrap_or_default() == name && Protocol::parse(port.protocol.as_deref()) == Some(protocol);
        self.ports.iter().filter(named).filter_map(|port| port.port)
    }
}
