//! The ordinary user's network: pods and Services on 127/8, which every Linux answers on without being told.

use super::{Error, Listeners, Network};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// See the module.
pub struct Loopback {
    range: String,
    first: u32,
    count: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_uid: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
    /// Where the search for a free address goes on: freed addresses rest for a while.
    next: u32,
    listeners: BTreeMap<String, Listeners>,
}

impl Loopback {
    /// `range` is a CIDR within 127.0.0.0/8, such as `127.42.0.0/16`.
    pub fn new(range: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Range(range.into(), why.into());
        let (base, bits) = range.split_once('/').ok_or_else(|| wrong("it is no CIDR such as 127.42.0.0/16"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong("its address is no IPv4 address"))?;
        let bits: u32 = bits.parse().map_err(|_| wrong("its length is no number"))?;
        if !base.is_loopback() || !(9..=30).contains(&bits) {
            return Err(wrong("without root it must lie within 127.0.0.0/8 and be a /9 to /30"));
        }
        let size = 1_u32 << (32 - bits);
        let network = u32::from(base) & !(size - 1);
        // The first (network) and last (broadcast) address stay free, as in any subnet.
        Ok(Self { range: range.into(), first: network + 1, count: size - 2, state: Mutex::default() })
    }

    fn owns(&self, address: Ipv4Addr) -> bool {
        (self.first..self.first + self.count).contains(&u32::from(address))
    }
}

impl State {
    fn take(&mut self, uid: &str, address: Ipv4Addr) -> IpAddr {
        self.by_uid.insert(uid.into(), address);
        self.by_address.insert(address, uid.into());
        address.into()
    }
}

#[async_trait]
impl Network for Loopback {
    async fn assign(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        let mut state = self.state.lock();
        if let Some(address) = state.by_uid.get(uid) {
            return Ok((*address).into());
        }
        if let Some(IpAddr::V4(address)) = keep
            && self.owns(address)
            && !state.by_address.contains_key(&address)
        {
            return Ok(state.take(uid, address));
        }
        for step in 0..self.count {
            let offset = (state.next + step) % self.count;
            let address = Ipv4Addr::from(self.first + offset);
            if !state.by_address.contains_key(&address) {
                state.next = (offset + 1) % self.count;
                return Ok(state.take(uid, address));
            }
        }
        Err(Error::Exhausted(self.range.clone(), state.by_uid.len()))
    }

    async fn release(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(address) = state.by_uid.remove(uid) {
            state.by_address.remove(&address);
        }
        state.listeners.remove(uid);
    }

    async fn sync_services(&self, services: Vec<Bytes>, slices: Vec<Bytes>) -> Result<Vec<(String, Listeners)>, Error> {
        let wanted = listeners(&services, &slices);
        let mut state = self.state.lock();
        let mut changed = Vec::new();
        let uids: Vec<String> = state.by_uid.keys().cloned().collect();
        for uid in uids {
            let address = state.by_uid.get(&uid).copied();
            let new = address.and_then(|a| wanted.get(&a)).cloned().unwrap_or_default();
            if state.listeners.get(&uid).map_or(&[][..], Vec::as_slice) != new.as_slice() {
                state.listeners.insert(uid.clone(), new.clone());
                changed.push((uid, new));
            }
        }
        Ok(changed)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    metadata: Meta,
    spec: ServiceSpec,
    endpoints: Vec<Endpoint>,
    ports: Vec<SlicePort>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ports: Vec<ServicePort>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServicePort {
    name: String,
    port: u16,
    protocol: String,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Conditions,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct SlicePort {
    name: String,
    port: u16,
}

/// Service listeners by pod address: those of ready endpoints, each Service port at the endpoint's own port.
fn listeners(services: &[Bytes], slices: &[Bytes]) -> HashMap<Ipv4Addr, Listeners> {
    let parse = |json: &Bytes| serde_json::from_slice::<Object>(json).ok();
    let services: HashMap<(String, String), ServiceSpec> =
        services.iter().filter_map(parse).map(|s| ((s.metadata.namespace, s.metadata.name), s.spec)).collect();
    let mut wanted: HashMap<Ipv4Addr, Listeners> = HashMap::new();
    for slice in slices.iter().filter_map(parse) {
        let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
        let Some(spec) = services.get(&(slice.metadata.namespace.clone(), service.clone())) else { continue };
        // Only loopback addresses can be listened on without root.
        let Some(ip) = spec.cluster_ip.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_loopback) else { continue };
        for port in spec.ports.iter().filter(|p| p.protocol.is_empty() || p.protocol == "TCP") {
            let Some(target) = slice.ports.iter().find(|p| p.name == port.name) else { continue };
            let ready = slice.endpoints.iter().filter(|e| e.conditions.ready != Some(false));
            for address in ready.flat_map(|e| &e.addresses).filter_map(|a| a.parse::<Ipv4Addr>().ok()) {
                wanted.entry(address).or_default().push((SocketAddr::from((ip, port.port)), target.port));
            }
        }
    }
    for list in wanted.values_mut() {
        list.sort_unstable();
        list.dedup();
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(value: serde_json::Value) -> Bytes {
        Bytes::from(value.to_string())
    }

    #[tokio::test]
    async fn addresses_are_stable_unique_kept_and_bounded() {
        let network = Loopback::new("127.42.0.0/29").unwrap();
        let a = network.assign("a", None).await.unwrap();
        assert_eq!(network.assign("a", None).await.unwrap(), a);
        let kept = "127.42.0.5".parse().unwrap();
        assert_eq!(network.assign("b", Some(kept)).await.unwrap(), kept);
        assert_ne!(network.assign("c", Some(kept)).await.unwrap(), kept, "it is taken");
        for uid in ["d", "e", "f"] {
            network.assign(uid, None).await.unwrap();
        }
        let error = network.assign("g", None).await.unwrap_err().to_string();
        assert!(error.contains("127.42.0.0/29") && error.contains("6 pods"), "{error}");
        network.release("b").await;
        assert_eq!(network.assign("g", None).await.unwrap(), kept);
    }

    #[test]
    fn a_range_outside_127_is_refused() {
        for range in ["10.0.0.0/16", "127.0.0.0/8", "127.1.0.0", "127.1.0.0/31", "x/9"] {
            assert!(Loopback::new(range).is_err(), "{range}");
        }
    }

    #[tokio::test]
    async fn ready_endpoints_listen_on_their_services() {
        let network = Loopback::new("127.42.0.0/24").unwrap();
        let a = network.assign("a", None).await.unwrap();
        let b = network.assign("b", None).await.unwrap();
        let service = bytes(json!({ "metadata": { "name": "web", "namespace": "d" }, "spec": { "clusterIP": "127.43.0.1",
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }] } }));
        let slice = |b_ready: bool| {
            bytes(json!({ "metadata": { "name": "web-1", "namespace": "d", "labels": { "kubernetes.io/service-name": "web" } },
            "ports": [{ "name": "http", "port": 8080 }, { "name": "dns", "port": 5353 }],
            "endpoints": [{ "addresses": [a.to_string()], "conditions": { "ready": true } }, { "addresses": [b.to_string()], "conditions": { "ready": b_ready } }] }))
        };
        let want = vec![("127.43.0.1:80".parse().unwrap(), 8080)];
        let got = network.sync_services(vec![service.clone()], vec![slice(false)]).await.unwrap();
        assert_eq!(got, vec![("a".to_string(), want.clone())]);
        let got = network.sync_services(vec![service], vec![slice(true)]).await.unwrap();
        assert_eq!(got, vec![("b".to_string(), want)]);
        let mut got = network.sync_services(vec![], vec![]).await.unwrap();
        got.sort();
        assert_eq!(got, vec![("a".to_string(), vec![]), ("b".to_string(), vec![])]);
    }
}
