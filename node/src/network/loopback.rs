//! The ordinary user's network: pods and Services on 127/8, which every Linux answers on without being told.

use super::{
    Error, Listeners, Network,
    checks::Checks,
    pool::{Pool, Range},
    services::{self, Backend, Frontend, HostPort, Protocol, Table},
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// See the module.
pub struct Loopback {
    state: Mutex<State>,
    checks: Checks,
}

struct State {
    pool: Pool,
    listeners: BTreeMap<String, Listeners>,
    hosts: BTreeMap<String, Vec<HostPort>>,
}

impl Loopback {
    /// `range` is a CIDR within 127.0.0.0/8, such as `127.42.0.0/16`.
    pub fn new(range: &str) -> Result<Self, Error> {
        let parsed = Range::parse(range)?;
        if !parsed.network.is_loopback() || parsed.bits < 9 {
            return Err(Error::Range(range.into(), "without root it must lie within 127.0.0.0/8 and be a /9 to /30".into()));
        }
        Ok(Self {
            state: Mutex::new(State { pool: Pool::new(parsed), listeners: BTreeMap::new(), hosts: BTreeMap::new() }),
            checks: Checks::default(),
        })
    }
}

#[async_trait]
impl Network for Loopback {
    async fn assign(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        self.state.lock().pool.assign(uid, keep)
    }

    async fn release(&self, uid: &str) {
        let mut state = self.state.lock();
        state.pool.release(uid);
        state.listeners.remove(uid);
        state.hosts.remove(uid);
    }

    async fn host_ports(&self, uid: &str, ports: Vec<HostPort>) {
        self.state.lock().hosts.insert(uid.into(), ports);
    }

    async fn sync_services(&self, services: Vec<Bytes>, slices: Vec<Bytes>, node: &str) -> Result<Vec<(String, Listeners)>, Error> {
        let table = services::table(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), node);
        self.checks.set(&table.checks);
        let mut state = self.state.lock();
        let State { pool, listeners, hosts } = &mut *state;
        let wanted = self::listeners(&table, hosts.values().flatten());
        let mut changed = Vec::new();
        for (uid, address) in pool.iter() {
            let new = wanted.get(address).cloned().unwrap_or_default();
            if listeners.get(uid).map_or(&[][..], Vec::as_slice) != new.as_slice() {
                listeners.insert(uid.clone(), new.clone());
                changed.push((uid.clone(), new));
            }
        }
        Ok(changed)
    }
}

/// Listeners by pod address: each port of a Service, of the node for a Service and of the node for the pod at the pod's own port. Of Services' addresses only
/// those on loopback can be listened on without root.
fn listeners<'a>(table: &Table, hosts: impl Iterator<Item = &'a HostPort>) -> HashMap<Ipv4Addr, Listeners> {
    let mut wanted: HashMap<Ipv4Addr, Listeners> = HashMap::new();
    let mut listen = |front: &Frontend, to: &Backend| {
        let ip = front.ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        if front.protocol == Protocol::Tcp && (front.ip.is_none() || ip.is_loopback()) {
            wanted.entry(to.ip).or_default().push((SocketAddr::from((ip, front.port)), to.port));
        }
    };
    for (front, port) in &table.ports {
        let inside = if port.inside_local { &port.local } else { &port.all };
        inside.iter().for_each(|backend| listen(front, backend));
        let outside = if port.outside_local { &port.local } else { &port.all };
        port.outside.iter().for_each(|front| outside.iter().for_each(|backend| listen(front, backend)));
    }
    hosts.for_each(|host| listen(&host.front, &host.to));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(value: serde_json::Value) -> Bytes {
        Bytes::from(value.to_string())
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
        let got = network.sync_services(vec![service.clone()], vec![slice(false)], "n").await.unwrap();
        assert_eq!(got, vec![("a".to_string(), want.clone())]);
        let got = network.sync_services(vec![service], vec![slice(true)], "n").await.unwrap();
        assert_eq!(got, vec![("b".to_string(), want)]);
        let mut got = network.sync_services(vec![], vec![], "n").await.unwrap();
        got.sort();
        assert_eq!(got, vec![("a".to_string(), vec![]), ("b".to_string(), vec![])]);
    }

    #[tokio::test]
    async fn ports_of_the_node_are_listened_on_by_pods() {
        let network = Loopback::new("127.42.0.0/24").unwrap();
        let IpAddr::V4(a) = network.assign("a", None).await.unwrap() else { panic!("an IPv4 address") };
        let service = bytes(json!({ "metadata": { "name": "web", "namespace": "d" }, "spec": { "type": "NodePort", "clusterIP": "127.43.0.1",
            "externalIPs": ["192.0.2.7"], "ports": [{ "port": 8000, "nodePort": 30080 }] } }));
        let slice = bytes(json!({ "metadata": { "name": "web-1", "namespace": "d", "labels": { "kubernetes.io/service-name": "web" } },
            "ports": [{ "port": 8080 }], "endpoints": [{ "addresses": [a.to_string()] }] }));
        let front = Frontend { ip: Some(Ipv4Addr::LOCALHOST), protocol: Protocol::Tcp, port: 9000 };
        network.host_ports("a", vec![HostPort { front, to: Backend { ip: a, port: 8080 } }]).await;
        let got = network.sync_services(vec![service], vec![slice], "n").await.unwrap();
        let at = |text: &str| (text.parse().unwrap(), 8080);
        assert_eq!(got, vec![("a".to_string(), vec![at("127.43.0.1:8000"), at("0.0.0.0:30080"), at("127.0.0.1:9000")])]);
        network.release("a").await;
        assert_eq!(network.sync_services(vec![], vec![], "n").await.unwrap(), vec![]);
    }
}
