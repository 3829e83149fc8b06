//! Cluster addresses and node ports: chosen here against one snapshot, reserved by the transaction.
//!
//! A reservation is a key of its own that must be absent when the service is stored; a lost race reruns the write, which then chooses another. (One
//! bitmap object for the whole range, as older Kubernetes has, makes every two creates of services a conflict.) The choice starts at a place drawn from
//! the service's name and the time, not at random, so that a simulation replays; the lower part of a range is left to services that ask for an address.

use super::{has_node_ports, is_headless, kind, needs_health_check};
use crate::{
    pipeline,
    resources::{
        Cx,
        cells::list,
        rules::{At, Causes},
    },
};
use coracle_api::status::Status;
use coracle_store::{Expect, Key, Op};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
};

/// Resource under which addresses are reserved.
pub const IPS: &str = "~service-ips";
/// Resource under which node ports are reserved.
pub const PORTS: &str = "~node-ports";

/// Whether a name of a resource is taken.
type Taken<'a> = Box<dyn Fn(&str, &str) -> bool + 'a>;

/// The ranges and what is taken in them.
pub(super) struct Pool<'a> {
    /// First address of the range (the network's own), and how many there are.
    network: (u32, u32),
    cidr: &'a str,
    ports: (u16, u16),
    seed: u64,
    taken: Taken<'a>,
}

impl<'a> Pool<'a> {
    pub(super) fn of(cx: &'a Cx<'_>) -> Result<Self, Status> {
        let config = &cx.core.config;
        let mut hasher = DefaultHasher::new();
        (&cx.request.namespace, &cx.request.name, cx.now.as_nanosecond(), cx.snapshot.revision()).hash(&mut hasher);
        Ok(Self {
            network: parse(&config.service_cidr)
                .ok_or_else(|| Status::internal(format!("the service range {:?} is not an IPv4 range; check --service-cidr", config.service_cidr)))?,
            cidr: &config.service_cidr,
            ports: config.node_ports,
            seed: hasher.finish(),
            taken: Box::new(|resource, name| cx.snapshot.get(&Key::new(resource, "", name)).is_some()),
        })
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let (first, size) = self.network;
        let offset = u32::from(ip).wrapping_sub(first);
        // Neither the network's own address nor its broadcast address.
        offset > 0 && offset < size.saturating_sub(1)
    }

    fn free_ip(&self) -> Option<Ipv4Addr> {
        let (first, size) = self.network;
        let usable = size.checked_sub(2).filter(|n| *n > 0)?;
        let reserved = (usable / 16).clamp(16, 256).min(usable / 2);
        self.search(usable, reserved, |offset| (IPS, Ipv4Addr::from(first + 1 + offset).to_string())).map(|offset| Ipv4Addr::from(first + 1 + offset))
    }

    fn free_port(&self, used: &BTreeSet<i64>) -> Option<i64> {
        let (first, last) = self.ports;
        let usable = u32::from(last.checked_sub(first)?) + 1;
        let reserved = (usable / 32).clamp(16, 128).min(usable / 2);
        let number = |offset: u32| i64::from(first) + i64::from(offset);
        self.search(usable, reserved, |offset| match used.contains(&number(offset)) {
            // Any reservation that exists would do; this service holds this one already.
            true => ("", String::new()),
            false => (PORTS, number(offset).to_string()),
        })
        .map(number)
    }

    /// The first free place at or after the drawn one, the reserved lower part last.
    fn search(&self, usable: u32, reserved: u32, name: impl Fn(u32) -> (&'static str, String)) -> Option<u32> {
        let upper = usable - reserved;
        let start = u32::try_from(self.seed % u64::from(upper.max(1))).unwrap_or_default();
        let above = (0..upper).map(|step| reserved + (start + step) % upper);
        above.chain(0..reserved).find(|offset| match name(*offset) {
            ("", _) => false,
            (resource, name) => !(self.taken)(resource, &name),
        })
    }
}

fn parse(cidr: &str) -> Option<(u32, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    let (address, bits) = (address.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok().filter(|bits| (1..=32).contains(bits))?);
    let size = 1u32.checked_shl(32 - bits)?;
    Some((u32::from(address) & !(size - 1), size))
}

/// Fills in addresses, families and node ports of a service whose other fields are prepared.
pub(super) fn fill(pool: &Pool<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
    let mut causes = Causes::new();
    if kind(new) != "ExternalName" {
        families(new);
        address(pool, old, new, &mut causes)?;
    }
    node_ports(pool, old, new, &mut causes)?;
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Service", new["metadata"]["name"].as_str().unwrap_or_default(), causes))
}

/// IPv4 alone, unless the client asks otherwise (which validation answers).
fn families(new: &mut Value) {
    let spec = &mut new["spec"];
    let dual = is_headless_spec(spec) && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = if dual { "RequireDualStack".into() } else { "SingleStack".into() };
    }
    if list(&spec["ipFamilies"]).is_empty() {
        spec["ipFamilies"] = if dual && spec["ipFamilyPolicy"] != "SingleStack" { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
    }
}

fn is_headless_spec(spec: &Value) -> bool {
    spec["clusterIPs"][0] == "None"
}

fn address(pool: &Pool<'_>, old: Option<&Value>, new: &mut Value, causes: &mut Causes) -> Result<(), Status> {
    if is_headless(new) {
        return Ok(());
    }
    let asked = new["spec"]["clusterIPs"][0].as_str().unwrap_or_default().to_string();
    if asked.is_empty() {
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let ip = pool.free_ip().ok_or_else(|| Status::internal(format!("failed to allocate a serviceIP for Service {name:?}: range is full")))?;
        new["spec"]["clusterIP"] = ip.to_string().into();
        new["spec"]["clusterIPs"] = json!([ip.to_string()]);
        return Ok(());
    }
    if old.is_some_and(|old| held_ips(old).any(|ip| ip == asked)) {
        return Ok(());
    }
    // What is no address at all is refused by validation.
    let Ok(ip) = asked.parse::<Ipv4Addr>() else { return Ok(()) };
    let why = if !pool.contains(ip) {
        format!("failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}", pool.cidr)
    } else if (pool.taken)(IPS, &asked) {
        format!("failed to allocate IP {ip}: provided IP is already allocated")
    } else {
        return Ok(());
    };
    let root = At::root(new);
    root.field("spec").field("clusterIPs").invalid(causes, &why);
    Ok(())
}

fn node_ports(pool: &Pool<'_>, old: Option<&Value>, new: &mut Value, causes: &mut Causes) -> Result<(), Status> {
    let held: BTreeSet<i64> = old.into_iter().flat_map(held_ports).collect();
    let mut used: BTreeSet<i64> = held_ports(new).collect();
    let full = || Status::internal("failed to allocate a nodePort: range is full");
    let (first, last) = (i64::from(pool.ports.0), i64::from(pool.ports.1));
    let why = |number: i64| {
        if !(first..=last).contains(&number) {
            Some(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"))
        } else if !held.contains(&number) && (pool.taken)(PORTS, &number.to_string()) {
            Some("provided port is already allocated".to_string())
        } else {
            None
        }
    };
    let root = At::root(new);
    let spec = root.field("spec");
    for port in spec.field("ports").items() {
        let at = port.field("nodePort");
        if let Some(why) = at.int().filter(|number| *number != 0 && has_node_ports(new)).and_then(why) {
            at.invalid(causes, &why);
        }
    }
    let check = spec.field("healthCheckNodePort");
    if let Some(why) = check.int().filter(|number| *number != 0 && needs_health_check(new)).and_then(why) {
        check.invalid(causes, &why);
    }
    if !causes.is_empty() {
        return Ok(());
    }
    let wanted = kind(new) == "NodePort" || kind(new) == "LoadBalancer" && new["spec"]["allocateLoadBalancerNodePorts"] != false;
    if wanted {
        for place in 0..list(&new["spec"]["ports"]).len() {
            let port = &new["spec"]["ports"][place];
            if port["nodePort"].as_i64().unwrap_or_default() != 0 {
                continue;
            }
            // One number serves the same port in both protocols.
            let twin = list(&new["spec"]["ports"])
                .iter()
                .find(|other| {
                    other["port"] == port["port"] && other["protocol"] != port["protocol"] && other["nodePort"].as_i64().is_some_and(|n| n != 0)
                })
                .and_then(|other| other["nodePort"].as_i64());
            let number = match twin {
                Some(number) => number,
                None => pool.free_port(&used).ok_or_else(full)?,
            };
            used.insert(number);
            new["spec"]["ports"][place]["nodePort"] = number.into();
        }
    }
    if needs_health_check(new) && new["spec"]["healthCheckNodePort"].as_i64().unwrap_or_default() == 0 {
        new["spec"]["healthCheckNodePort"] = pool.free_port(&used).ok_or_else(full)?.into();
    }
    Ok(())
}

/// Addresses that a stored service holds.
fn held_ips(service: &Value) -> impl Iterator<Item = &str> {
    list(&service["spec"]["clusterIPs"]).iter().filter_map(Value::as_str).filter(|ip| !ip.is_empty() && *ip != "None")
}

/// Node ports that a service holds.
fn held_ports(service: &Value) -> impl Iterator<Item = i64> {
    let spec = &service["spec"];
    let ports = list(&spec["ports"]).iter().map(|port| &port["nodePort"]);
    ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_i64).filter(|number| *number != 0)
}

/// What a service holds, as (resource, name).
fn held(service: &Value) -> BTreeSet<(&'static str, String)> {
    let ips = held_ips(service).map(|ip| (IPS, ip.to_string()));
    ips.chain(held_ports(service).map(|number| (PORTS, number.to_string()))).collect()
}

/// Takes what the new service holds and the old one did not, and gives back the rest.
pub(super) fn reservations(old: Option<&Value>, new: Option<&Value>, ops: &mut Vec<Op>) {
    let (before, now) = (old.map(held).unwrap_or_default(), new.map(held).unwrap_or_default());
    let metadata = &new.or(old).unwrap_or(&Value::Null)["metadata"];
    let owner = format!("services/{}/{}", metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default());
    for (resource, name) in now.difference(&before) {
        ops.push(Op::Put { key: Key::new(*resource, "", name.as_str()), expect: Expect::Absent, draft: pipeline::reservation(&owner) });
    }
    for (resource, name) in before.difference(&now) {
        ops.push(Op::Delete { key: Key::new(*resource, "", name.as_str()), expect: Expect::Any });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool<'a>(taken: &'a [(&'a str, &'a str)], seed: u64) -> Pool<'a> {
        Pool {
            network: parse("10.96.0.0/24").expect("range"),
            cidr: "10.96.0.0/24",
            ports: (30000, 30099),
            seed,
            taken: Box::new(move |resource, name| taken.contains(&(resource, name))),
        }
    }

    fn filled(pool: &Pool<'_>, old: Option<&Value>, spec: Value) -> Result<Value, String> {
        let mut service = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec});
        super::super::prepare::on_create(&mut service);
        fill(pool, old, &mut service).map_err(|status| status.message)?;
        Ok(service)
    }

    #[test]
    fn every_service_gets_an_address_of_its_own() {
        let service = filled(&pool(&[], 0), None, json!({})).expect("filled");
        assert_eq!(
            service["spec"],
            json!({"type": "ClusterIP", "clusterIP": "10.96.0.17", "clusterIPs": ["10.96.0.17"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
        );
        let service = filled(&pool(&[(IPS, "10.96.0.17")], 0), None, json!({})).expect("filled");
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.18");
        // The search wraps, and reaches the lower part when the upper one is full.
        let all: Vec<String> = (17..255).map(|n| format!("10.96.0.{n}")).collect();
        let taken: Vec<(&str, &str)> = all.iter().map(|ip| (IPS, ip.as_str())).collect();
        assert_eq!(filled(&pool(&taken, 77), None, json!({})).expect("filled")["spec"]["clusterIP"], "10.96.0.1");
        let all: Vec<String> = (1..255).map(|n| format!("10.96.0.{n}")).collect();
        let taken: Vec<(&str, &str)> = all.iter().map(|ip| (IPS, ip.as_str())).collect();
        assert!(filled(&pool(&taken, 77), None, json!({})).expect_err("full").contains("range is full"));
    }

    #[test]
    fn asked_for_addresses_are_given_or_refused() {
        assert_eq!(filled(&pool(&[], 0), None, json!({"clusterIP": "10.96.0.9"})).expect("free")["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(
            filled(&pool(&[(IPS, "10.96.0.9")], 0), None, json!({"clusterIP": "10.96.0.9"})).expect_err("taken"),
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
        );
        assert_eq!(
            filled(&pool(&[], 0), None, json!({"clusterIP": "10.97.0.9"})).expect_err("outside"),
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.9\"]: failed to allocate IP 10.97.0.9: the provided IP (10.97.0.9) is not in the valid range. The range of valid IPs is 10.96.0.0/24"
        );
        assert_eq!(
            filled(&pool(&[], 0), None, json!({"clusterIP": "None", "selector": {"a": "b"}})).expect("headless")["spec"]["ipFamilies"],
            json!(["IPv4"])
        );
        assert!(filled(&pool(&[], 0), None, json!({"type": "ExternalName"})).expect("name")["spec"].get("clusterIP").is_none());
    }

    #[test]
    fn node_ports_are_given_to_types_that_have_them() {
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]);
        let service = filled(&pool(&[], 0), None, json!({"type": "NodePort", "ports": ports})).expect("filled");
        let given: Vec<i64> = held_ports(&service).collect();
        assert_eq!(given, [30016, 30016, 30017]);
        assert_eq!(
            filled(&pool(&[(PORTS, "30005")], 0), None, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]})).expect_err("taken"),
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated"
        );
        assert_eq!(
            filled(&pool(&[], 0), None, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})).expect_err("outside"),
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30099"
        );
    }

    #[test]
    fn reservations_follow_what_is_held() {
        let old = json!({"spec": {"clusterIPs": ["10.96.0.5"], "ports": [{"nodePort": 30001}]}});
        let new = json!({"spec": {"clusterIPs": ["10.96.0.5"], "ports": [{"nodePort": 30002}, {"nodePort": 30002}]}});
        let shown = |old: Option<&Value>, new: Option<&Value>| -> Vec<String> {
            let mut ops = Vec::new();
            reservations(old, new, &mut ops);
            ops.iter()
                .map(|op| match op {
                    Op::Put { key, expect, .. } => format!("take {} {} {}", key.resource, key.name, *expect == Expect::Absent),
                    Op::Delete { key, .. } => format!("give {} {}", key.resource, key.name),
                    Op::Check { .. } => "check".into(),
                })
                .collect()
        };
        assert_eq!(shown(None, Some(&old)), ["take ~node-ports 30001 true", "take ~service-ips 10.96.0.5 true"]);
        assert_eq!(shown(Some(&old), Some(&new)), ["take ~node-ports 30002 true", "give ~node-ports 30001"]);
        assert_eq!(shown(Some(&new), None), ["give ~node-ports 30002", "give ~service-ips 10.96.0.5"]);
        assert_eq!(shown(Some(&old), Some(&old)), Vec::<String>::new());
    }
}
