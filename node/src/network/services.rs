//! What Services ask for, as pure data: which address, protocol and port leads to which backends.
//!
//! Follows kube-proxy's reading of Service and EndpointSlice: ready endpoints serve; if none is ready, those that are still serving while they terminate do
//! (KEP-1669); a policy `Local` takes those of this node alone. A port without backends is kept, so that it can be refused instead of timing out.

mod object;

use object::{Conditions, Service, ServicePort, Slice};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
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

    /// As objects have it; nothing means TCP. None: not carried here.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// A Service's address; none: any address of the node.
    pub ip: Option<Ipv4Addr>,
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

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Every backend in the cluster, sorted.
    pub all: Vec<Backend>,
    /// Those on this node, sorted.
    pub local: Vec<Backend>,
    /// `internalTrafficPolicy: Local`
    pub inside_local: bool,
    /// `externalTrafficPolicy: Local`
    pub outside_local: bool,
    /// Seconds for which a client stays with its backend.
    pub affinity: Option<u32>,
    /// Node port, external addresses.
    pub outside: Vec<Frontend>,
}

/// What is asked of a load balancer's health check node port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Of the Service.
    pub namespace: String,
    /// Of the Service.
    pub name: String,
    /// Endpoints on this node.
    pub local: usize,
}

/// All ports of Services by their place in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Ports by cluster address, protocol and number.
    pub ports: BTreeMap<Frontend, Port>,
    /// Health checks by node port.
    pub checks: BTreeMap<u16, Check>,
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address of the node that it is asked for at; none: all.
    pub front: Frontend,
    /// The pod's end.
    pub to: Backend,
}

/// Reads Services and EndpointSlices (canonical JSON each) for the node of this name. What cannot be read is left out: the API server validated it, so it is of a
/// newer kind.
pub fn table<'a>(services: impl IntoIterator<Item = &'a [u8]>, slices: impl IntoIterator<Item = &'a [u8]>, node: &str) -> Table {
    let mut by_service: BTreeMap<(String, String), Vec<Slice>> = BTreeMap::new();
    for json in slices {
        let Some((service, slice)) = Slice::read(json) else { continue };
        by_service.entry((slice.metadata.namespace.clone(), service)).or_default().push(slice);
    }
    let mut table = Table::default();
    for json in services {
        let Ok(service) = serde_json::from_slice::<Service>(json) else { continue };
        // Headless ("None"), not yet allocated and IPv6 addresses have no frontend here.
        let Some(ip) = service.address() else { continue };
        let place = (service.metadata.namespace.clone(), service.metadata.name.clone());
        let slices = by_service.get(&place).map(Vec::as_slice).unwrap_or_default();
        let (inside_local, outside_local) = (service.spec.internal_traffic_policy == "Local", service.spec.external_traffic_policy == "Local");
        let mut on_node = 0;
        for port in &service.spec.ports {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
            let local = backends(slices, port, protocol, Some(node));
            on_node = on_node.max(local.len());
            let node_port = (port.node_port != 0).then_some(Frontend { ip: None, protocol, port: port.node_port });
            let external = service.external().map(|ip| Frontend { ip: Some(ip), protocol, port: port.port });
            let asked = Port {
                all: backends(slices, port, protocol, None),
                local,
                inside_local,
                outside_local,
                affinity: service.affinity(),
                outside: node_port.into_iter().chain(external).collect(),
            };
            table.ports.insert(Frontend { ip: Some(ip), protocol, port: port.port }, asked);
        }
        if outside_local && service.spec.health_check_node_port != 0 {
            table.checks.insert(service.spec.health_check_node_port, Check { namespace: place.0, name: place.1, local: on_node });
        }
    }
    table
}

fn backends(slices: &[Slice], port: &ServicePort, protocol: Protocol, node: Option<&str>) -> Vec<Backend> {
    let choose = |usable: fn(&Conditions) -> bool| {
        let mut found = Vec::new();
        for slice in slices {
            for number in slice.numbers(port.name.as_deref().unwrap_or_default(), protocol) {
                let endpoints = slice.endpoints.iter().filter(|endpoint| usable(&endpoint.conditions));
                let here = endpoints.filter(|endpoint| node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node)));
                found.extend(here.filter_map(|endpoint| endpoint.addresses.first()).filter_map(|text| text.parse().ok()).filter_map(|ip| match ip {
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

/// Where the API server is, by its Service's own slice.
pub fn api_servers(slice: &[u8]) -> Vec<SocketAddr> {
    let Some((_, slice)) = Slice::read(slice) else { return Vec::new() };
    let ready = slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready.unwrap_or(true));
    let ips: Vec<IpAddr> = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok()).collect();
    slice.numbers("https", Protocol::Tcp).flat_map(|port| ips.iter().map(move |ip| SocketAddr::new(*ip, port))).collect()
}

#[cfg(test)]
mod tests;
