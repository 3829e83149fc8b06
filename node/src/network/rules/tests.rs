use super::{super::services::Protocol, *};
use std::net::Ipv4Addr;

const PODS: &str = "10.244.0.0/20";

fn front(port: u16) -> Frontend {
    Frontend { ip: Some(Ipv4Addr::new(10, 96, 0, 5)), protocol: Protocol::Tcp, port }
}

fn back(last: u8) -> Backend {
    Backend { ip: Ipv4Addr::new(10, 244, 8, last), port: 8080 }
}

fn rules(ports: Vec<(u16, Port)>) -> Rules {
    let ports = ports.into_iter().map(|(number, port)| (front(number), port)).collect();
    Rules::new(&Table { ports, ..Table::default() }, &[], PODS)
}

fn to(all: Vec<Backend>) -> Port {
    Port { all, ..Port::default() }
}

fn script(to: &Rules, from: &Rules) -> Vec<String> {
    to.changes("t", from).lines().map(Into::into).collect()
}

#[test]
fn equal_rules_need_nothing() {
    let rules = rules(vec![(80, to(vec![back(1)]))]);
    assert_eq!(rules.changes("t", &rules), "");
}

#[test]
fn a_new_service_is_reachable_only_when_its_chain_is_whole() {
    assert_eq!(
        script(&rules(vec![(80, to(vec![back(1), back(2)]))]), &Rules::default()),
        [
            "add chain ip t c-10.96.0.5-tcp-80",
            "add rule ip t c-10.96.0.5-tcp-80 meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.8.1 . 8080, 1 : 10.244.8.2 . 8080 }",
            "add element ip t hairpin { 10.244.8.1 . 10.244.8.1 }",
            "add element ip t hairpin { 10.244.8.2 . 10.244.8.2 }",
            "add element ip t services { 10.96.0.5 . tcp . 80 : goto c-10.96.0.5-tcp-80 }",
        ]
    );
}

#[test]
fn changed_and_gone_services_touch_only_themselves() {
    let from = rules(vec![(80, to(vec![back(1)])), (81, to(vec![back(1)])), (82, to(vec![back(1)]))]);
    assert_eq!(
        script(&rules(vec![(80, to(vec![back(1)])), (81, to(vec![]))]), &from),
        [
            "delete element ip t services { 10.96.0.5 . tcp . 82 : goto c-10.96.0.5-tcp-82 }",
            "flush chain ip t c-10.96.0.5-tcp-81",
            "flush chain ip t c-10.96.0.5-tcp-82",
            "delete chain ip t c-10.96.0.5-tcp-82",
        ]
    );
}

#[test]
fn what_comes_from_outside_leaves_with_the_nodes_address() {
    let node_port = Frontend { ip: None, protocol: Protocol::Tcp, port: 30080 };
    let external = Frontend { ip: Some(Ipv4Addr::new(192, 0, 2, 7)), ..front(80) };
    let port = Port { all: vec![back(1)], outside: vec![node_port, external], ..Port::default() };
    assert_eq!(
        script(&rules(vec![(80, port.clone())]), &rules(vec![(80, to(vec![back(1)]))])),
        [
            "add chain ip t x-10.96.0.5-tcp-80",
            "add rule ip t x-10.96.0.5-tcp-80 meta mark set meta mark | 0x4000 goto c-10.96.0.5-tcp-80",
            "add element ip t ports { tcp . 30080 : goto x-10.96.0.5-tcp-80 }",
            "add element ip t services { 192.0.2.7 . tcp . 80 : goto x-10.96.0.5-tcp-80 }",
        ]
    );
    let empty = Port { all: vec![], ..port };
    let refused = "add element ip t refused { 192.0.2.7 . tcp . 80 }".to_owned();
    assert!(script(&rules(vec![(80, empty)]), &Rules::default()).contains(&refused), "no machine is asked for an address that is a Service's");
}

#[test]
fn local_policies_take_this_nodes_backends_alone() {
    let node_port = Frontend { ip: None, protocol: Protocol::Tcp, port: 30080 };
    let port = Port { all: vec![back(1), back(2)], local: vec![back(2)], outside_local: true, outside: vec![node_port], ..Port::default() };
    let chain = |rules: &Rules, name: &str| rules.chains.get(&format!("{name}-10.96.0.5-tcp-80")).cloned();
    let outside = rules(vec![(80, port.clone())]);
    assert_eq!(
        chain(&outside, "x").unwrap(),
        [
            "ip saddr 10.244.0.0/20 goto c-10.96.0.5-tcp-80",
            "fib saddr type local meta mark set meta mark | 0x4000 goto c-10.96.0.5-tcp-80",
            "goto l-10.96.0.5-tcp-80"
        ]
    );
    assert_eq!(chain(&outside, "l").unwrap(), ["meta l4proto tcp dnat ip to 10.244.8.2:8080"]);
    assert_eq!(outside.elements[&("services", "10.96.0.5 . tcp . 80".into())].as_deref(), Some("c-10.96.0.5-tcp-80"));
    let inside = rules(vec![(80, Port { inside_local: true, outside_local: false, ..port.clone() })]);
    assert_eq!(inside.elements[&("services", "10.96.0.5 . tcp . 80".into())].as_deref(), Some("l-10.96.0.5-tcp-80"));
    // Elsewhere there are some: no answer. Nowhere: a refusal.
    let none_here = rules(vec![(80, Port { local: vec![], ..port.clone() })]);
    assert_eq!(chain(&none_here, "l").unwrap(), ["drop"]);
    let nowhere = rules(vec![(80, Port { local: vec![], all: vec![], ..port })]);
    assert_eq!(chain(&nowhere, "l").unwrap(), Vec::<String>::new());
}

#[test]
fn clients_stay_with_their_backend() {
    let port = |backends: Vec<Backend>| Port { all: backends, affinity: Some(60), ..Port::default() };
    let one = rules(vec![(80, port(vec![back(1)]))]);
    assert_eq!(
        script(&one, &Rules::default()),
        [
            "add set ip t a-10.96.0.5-tcp-80-10.244.8.1-8080-60 { type ipv4_addr; flags dynamic,timeout; timeout 60s; size 65536; }",
            "add chain ip t b-10.96.0.5-tcp-80-10.244.8.1-8080",
            "add chain ip t c-10.96.0.5-tcp-80",
            "add rule ip t b-10.96.0.5-tcp-80-10.244.8.1-8080 update @a-10.96.0.5-tcp-80-10.244.8.1-8080-60 { ip saddr } meta l4proto tcp dnat ip to 10.244.8.1:8080",
            "add rule ip t c-10.96.0.5-tcp-80 ip saddr @a-10.96.0.5-tcp-80-10.244.8.1-8080-60 goto b-10.96.0.5-tcp-80-10.244.8.1-8080",
            "add rule ip t c-10.96.0.5-tcp-80 numgen random mod 1 vmap { 0 : goto b-10.96.0.5-tcp-80-10.244.8.1-8080 }",
            "add element ip t hairpin { 10.244.8.1 . 10.244.8.1 }",
            "add element ip t services { 10.96.0.5 . tcp . 80 : goto c-10.96.0.5-tcp-80 }",
        ]
    );
    // Who stayed with the first still does when there is a second.
    let two = script(&rules(vec![(80, port(vec![back(1), back(2)]))]), &one);
    assert!(!two.iter().any(|line| line.contains("set ip t a-10.96.0.5-tcp-80-10.244.8.1")), "{two:?}");
    let gone = script(&rules(vec![(80, port(vec![]))]), &one);
    assert_eq!(gone.last().unwrap(), "delete set ip t a-10.96.0.5-tcp-80-10.244.8.1-8080-60");
}

#[test]
fn a_backend_on_loopback_is_none() {
    let rules = rules(vec![(443, to(vec![Backend { ip: Ipv4Addr::LOCALHOST, port: 6443 }]))]);
    assert_eq!(rules.chains, BTreeMap::from([("c-10.96.0.5-tcp-443".into(), vec![])]));
}

#[test]
fn host_ports_lead_to_their_pod() {
    let host = |ip: Option<Ipv4Addr>, port: u16| HostPort { front: Frontend { ip, protocol: Protocol::Udp, port }, to: back(9) };
    let hosts = [host(None, 5353), host(Some(Ipv4Addr::LOCALHOST), 5354)];
    assert_eq!(
        script(&Rules::new(&Table::default(), &hosts, PODS), &Rules::default()),
        [
            "add chain ip t h-127.0.0.1-udp-5354",
            "add chain ip t h-any-udp-5353",
            "add rule ip t h-127.0.0.1-udp-5354 meta l4proto udp dnat ip to 10.244.8.9:8080",
            "add rule ip t h-any-udp-5353 meta l4proto udp dnat ip to 10.244.8.9:8080",
            "add element ip t hairpin { 10.244.8.9 . 10.244.8.9 }",
            "add element ip t ports { udp . 5353 : goto h-any-udp-5353 }",
            "add element ip t services { 127.0.0.1 . udp . 5354 : goto h-127.0.0.1-udp-5354 }",
        ]
    );
}
