//! Cluster addresses and node ports: chosen here against one snapshot, reserved by the transaction.
//!
//! A reservation is a key of its own that must be absent when the service is stored; a lost race reruns the write, which then chooses another. (One
//! bitmap object for the whole range, as older Kubernetes has, makes every two creates of services a conflict.) An address's reservation is its
//! IPAddress object. The choice starts at a place drawn from the service's name and the time, not at random, so that a simulation replays; the lower
//! part of a range is left to services that ask for an address.

use super::{has_node_ports, is_headless, kind, needs_health_check};
use crate::{
    pipeline::{self, object},
    resources::{
        Cx,
        cells::list,
        networking::address::{self, IP_ADDRESSES, SERVICE_CIDRS},
        rules::{At, Causes, syntax},
    },
};
use coracle_api::status::Status;
use coracle_store::{Expect, Key, Op, Snapshot};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// Resource under which node ports are reserved.
pub const PORTS: &str = "~node-ports";

/// Whether a name of a resource is taken.
type Taken<'a> = Box<dyn Fn(&str, &str) -> bool + 'a>;

/// A range that addresses may be given from.
pub(super) struct Range {
    /// First address (the network's own), and how many there are.
    network: (u32, u32),
    cidr: String,
    /// The ServiceCIDR, and its revision when it was looked at.
    of: (Key, u64),
}

impl Range {
    fn contains(&self, ip: Ipv4Addr) -> bool {
        let (first, size) = self.network;
        let offset = u32::from(ip).wrapping_sub(first);
        // Neither the network's own address nor its broadcast address.
        offset > 0 && offset < size.saturating_sub(1)
    }
}

/// The open ranges of IPv4, the cluster's own first.
fn open_ranges(snapshot: &Snapshot) -> Vec<Range> {
    let mut ranges = Vec::new();
    for object in snapshot.range(SERVICE_CIDRS, None, None) {
        // What cannot be read gives no addresses.
        let Ok(cidr) = serde_json::from_slice::<Value>(&object.json) else { continue };
        let open = address::is_open(&cidr);
        for text in list(&cidr["spec"]["cidrs"]).iter().filter_map(Value::as_str).filter(|_| open) {
            if let Some(network) = parse(text) {
                ranges.push(Range { network, cidr: text.to_string(), of: (object.key.clone(), object.revision) });
            }
        }
    }
    ranges.sort_by_key(|range| &*range.of.0.name != address::DEFAULT);
    ranges
}

/// The ranges and what is taken in them.
pub(super) struct Pool<'a> {
    ranges: Vec<Range>,
    ports: (u16, u16),
    seed: u64,
    taken: Taken<'a>,
}

impl<'a> Pool<'a> {
    pub(super) fn of(cx: &'a Cx<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        (&cx.request.namespace, &cx.request.name, cx.now.as_nanosecond(), cx.snapshot.revision()).hash(&mut hasher);
        Self {
            ranges: open_ranges(cx.snapshot),
            ports: cx.core.config.node_ports,
            seed: hasher.finish(),
            taken: Box::new(|resource, name| cx.snapshot.get(&Key::new(resource, "", name)).is_some()),
        }
    }

    fn free_ip(&self) -> Option<Ipv4Addr> {
        self.ranges.iter().find_map(|range| {
            let (first, size) = range.network;
            let usable = size.checked_sub(2).filter(|n| *n > 0)?;
            let reserved = (usable / 16).clamp(16, 256).min(usable / 2);
            let at = |offset: u32| Ipv4Addr::from(first + 1 + offset);
            self.search(usable, reserved, |offset| (IP_ADDRESSES, at(offset).to_string())).map(at)
        })
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
    let (IpAddr::V4(address), bits @ 1..) = syntax::range(cidr)? else { return None };
    let size = 1u32.checked_shl(32 - u32::from(bits))?;
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
    let why = if !pool.ranges.iter().any(|range| range.contains(ip)) {
        let ranges: Vec<&str> = pool.ranges.iter().map(|range| range.cidr.as_str()).collect();
        format!("failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}", ranges.join(","))
    } else if (pool.taken)(IP_ADDRESSES, &asked) {
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
    let ips = held_ips(service).map(|ip| (IP_ADDRESSES, ip.to_string()));
    ips.chain(held_ports(service).map(|number| (PORTS, number.to_string()))).collect()
}

/// Takes what the new service holds and the old one did not, and gives back the rest.
pub(super) fn reservations(cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>, ops: &mut Vec<Op>) -> Result<(), Status> {
    let (before, now) = (old.map(held).unwrap_or_default(), new.map(held).unwrap_or_default());
    let metadata = &new.or(old).unwrap_or(&Value::Null)["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    for (resource, held) in now.difference(&before) {
        let key = Key::new(*resource, "", held.as_str());
        let draft = match *resource {
            IP_ADDRESSES => {
                // The range stays open while an address is taken from it.
                let ip = held.parse::<IpAddr>().map_err(|_| Status::internal(format_args!("{held:?} is no address")))?;
                if let IpAddr::V4(ip) = ip
                    && let Some(Range { of: (key, revision), .. }) = open_ranges(cx.snapshot).into_iter().find(|range| range.contains(ip))
                {
                    ops.push(Op::Check { key, expect: Expect::Revision(revision) });
                }
                address_draft(cx, &ip, namespace, name)?
            }
            _ => pipeline::reservation(&format!("services/{namespace}/{name}")),
        };
        ops.push(Op::Put { key, expect: Expect::Absent, draft });
    }
    for (resource, held) in before.difference(&now) {
        let key = Key::new(*resource, "", held.as_str());
        let theirs = |stored: &Arc<coracle_store::Object>| {
            *resource == IP_ADDRESSES && object::parse(stored).is_ok_and(|address| !address::belongs_to(&address, namespace, name))
        };
        // An address that somebody else has by now is not this service's to give back.
        if cx.snapshot.get(&key).as_ref().is_none_or(theirs) {
            continue;
        }
        ops.push(Op::Delete { key, expect: Expect::Any });
    }
    Ok(())
}

fn address_draft(cx: &Cx<'_>, ip: &IpAddr, namespace: &str, name: &str) -> Result<coracle_store::Draft, Status> {
    let row = cx.core.registry.by_id(IP_ADDRESSES).ok_or_else(|| Status::internal("no registry row for IPAddress"))?;
    let mut object = address::for_service(ip, namespace, name);
    object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = cx.timestamp().into();
    Ok(object::draft(&row, &object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool<'a>(taken: &'a [(&'a str, &'a str)], seed: u64) -> Pool<'a> {
        Pool {
            ranges: vec![Range {
                network: parse("10.96.0.0/24").expect("range"),
                cidr: "10.96.0.0/24".into(),
                of: (Key::new(SERVICE_CIDRS, "", address::DEFAULT), 1),
            }],
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
        let service = filled(&pool(&[(IP_ADDRESSES, "10.96.0.17")], 0), None, json!({})).expect("filled");
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.18");
        // The search wraps, and reaches the lower part when the upper one is full.
        let all: Vec<String> = (17..255).map(|n| format!("10.96.0.{n}")).collect();
        let taken: Vec<(&str, &str)> = all.iter().map(|ip| (IP_ADDRESSES, ip.as_str())).collect();
        assert_eq!(filled(&pool(&taken, 77), None, json!({})).expect("filled")["spec"]["clusterIP"], "10.96.0.1");
        let all: Vec<String> = (1..255).map(|n| format!("10.96.0.{n}")).collect();
        let taken: Vec<(&str, &str)> = all.iter().map(|ip| (IP_ADDRESSES, ip.as_str())).collect();
        assert!(filled(&pool(&taken, 77), None, json!({})).expect_err("full").contains("range is full"));
    }

    #[test]
    fn asked_for_addresses_are_given_or_refused() {
        assert_eq!(filled(&pool(&[], 0), None, json!({"clusterIP": "10.96.0.9"})).expect("free")["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(
            filled(&pool(&[(IP_ADDRESSES, "10.96.0.9")], 0), None, json!({"clusterIP": "10.96.0.9"})).expect_err("taken"),
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
    fn a_second_range_is_used_when_the_first_is_full() {
        let all: Vec<String> = (1..255).map(|n| format!("10.96.0.{n}")).collect();
        let taken: Vec<(&str, &str)> = all.iter().map(|ip| (IP_ADDRESSES, ip.as_str())).collect();
        let mut pool = pool(&taken, 0);
        pool.ranges.push(Range {
            network: parse("10.97.0.0/28").expect("range"),
            cidr: "10.97.0.0/28".into(),
            of: (Key::new(SERVICE_CIDRS, "", "more"), 1),
        });
        assert_eq!(filled(&pool, None, json!({})).expect("filled")["spec"]["clusterIP"], "10.97.0.8");
        assert_eq!(filled(&pool, None, json!({"clusterIP": "10.97.0.9"})).expect("filled")["spec"]["clusterIPs"], json!(["10.97.0.9"]));
        assert!(filled(&pool, None, json!({"clusterIP": "10.98.0.9"})).expect_err("outside").ends_with("10.96.0.0/24,10.97.0.0/28"));
    }

    #[test]
    fn what_is_held_can_be_told() {
        let service =
            json!({"spec": {"clusterIPs": ["10.96.0.5"], "ports": [{"nodePort": 30001}, {"nodePort": 30001}], "healthCheckNodePort": 30002}});
        let held: Vec<String> = held(&service).into_iter().map(|(resource, name)| format!("{resource} {name}")).collect();
        assert_eq!(held, ["ipaddresses.networking.k8s.io 10.96.0.5", "~node-ports 30001", "~node-ports 30002"]);
    }
}
