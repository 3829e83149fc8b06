//! What names need of Services and EndpointSlices, read from their canonical JSON.

use serde::Deserialize;
use std::{collections::BTreeMap, net::IpAddr};

/// Resource ids.
pub const SERVICES: &str = "services";
pub const SLICES: &str = "endpointslices.discovery.k8s.io";

/// A Service.
pub struct Service {
    /// What its name leads to.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// What a Service's name leads to.
pub enum Kind {
    /// Its own addresses.
    Address(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name.
    Elsewhere(String),
    /// It has no address yet.
    Nothing,
}

/// A port, of a Service or of its endpoints.
pub struct Port {
    /// In small letters; may be empty.
    pub name: String,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// An EndpointSlice.
pub struct Slice {
    /// Its Service.
    pub service: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Their ports.
    pub ports: Vec<Port>,
}

/// An endpoint.
pub struct Endpoint {
    /// Its address (one; clients of the API take the others for the same).
    pub address: IpAddr,
    /// Its own name below the Service's.
    pub hostname: Option<String>,
    /// Answers, or its Service is to name it whether it does or not.
    pub ready: bool,
}

impl Endpoint {
    /// By what it is known below its Service: its own name, or its address with dashes.
    pub fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.address.to_string().replace(['.', ':'], "-"))
    }
}

#[derive(Deserialize)]
struct ServiceObject {
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    r#type: String,
    external_name: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    ports: Vec<PortObject>,
}

#[derive(Deserialize)]
struct PortObject {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct SliceObject {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Vec<EndpointObject>,
    #[serde(default)]
    ports: Vec<PortObject>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct EndpointObject {
    #[serde(default)]
    addresses: Vec<String>,
    hostname: Option<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Deserialize, Default)]
struct Conditions {
    ready: Option<bool>,
}

fn ports(ports: Vec<PortObject>) -> Vec<Port> {
    let read = |port: PortObject| {
        let protocol = port.protocol.unwrap_or_else(|| "TCP".into()).to_lowercase();
        Some(Port { name: port.name.unwrap_or_default().to_lowercase(), protocol, port: port.port? })
    };
    ports.into_iter().filter_map(read).collect()
}

impl Service {
    /// None: not understood.
    pub fn read(json: &[u8]) -> Option<Self> {
        let Spec { r#type, external_name, cluster_ip, mut cluster_ips, ports: list } = serde_json::from_slice::<ServiceObject>(json).ok()?.spec;
        if cluster_ips.is_empty() {
            cluster_ips.push(cluster_ip);
        }
        let ips: Vec<IpAddr> = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let kind = match () {
            // Digits with dots are taken for a name, and no name server knows it (as CoreDNS has it).
            () if r#type == "ExternalName" && external_name.trim_end_matches('.').parse::<IpAddr>().is_ok() => Kind::Nothing,
            () if r#type == "ExternalName" => Kind::Elsewhere(external_name),
            () if cluster_ips.iter().any(|ip| ip == "None") => Kind::Headless,
            () if ips.is_empty() => Kind::Nothing,
            () => Kind::Address(ips),
        };
        Some(Self { kind, ports: ports(list) })
    }
}

impl Slice {
    /// None: not understood, or of no Service.
    pub fn read(json: &[u8]) -> Option<Self> {
        let mut slice = serde_json::from_slice::<SliceObject>(json).ok()?;
        let service = slice.metadata.labels.remove("kubernetes.io/service-name")?;
        let endpoint = |endpoint: EndpointObject| {
            Some(Endpoint {
                address: endpoint.addresses.first()?.parse().ok()?,
                hostname: endpoint.hostname.filter(|name| !name.is_empty()).map(|name| name.to_lowercase()),
                ready: endpoint.conditions.ready.unwrap_or(true),
            })
        };
        Some(Self { service, endpoints: slice.endpoints.into_iter().filter_map(endpoint).collect(), ports: ports(slice.ports) })
    }
}
