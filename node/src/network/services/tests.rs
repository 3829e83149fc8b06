use super::*;
use serde_json::{Value, json};

fn service(spec: Value) -> Vec<u8> {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}).to_string().into_bytes()
}

fn plain(ip: &str) -> Vec<u8> {
    service(json!({"clusterIP": ip, "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}))
}

fn slice(endpoints: Value) -> Vec<u8> {
    let body = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
    body.to_string().into_bytes()
}

fn read(service: &[u8], slice: &[u8]) -> Vec<(Frontend, Port)> {
    table([service], [slice], "here").ports.into_iter().collect()
}

const FRONT: Frontend = Frontend { ip: Some(Ipv4Addr::new(10, 96, 0, 9)), protocol: Protocol::Tcp, port: 80 };

fn back(last: u8) -> Backend {
    Backend { ip: Ipv4Addr::new(10, 0, 0, last), port: 8080 }
}

fn only(all: Vec<Backend>) -> Vec<(Frontend, Port)> {
    vec![(FRONT, Port { all, ..Port::default() })]
}

#[test]
fn ready_endpoints_serve() {
    let slice = slice(json!([
        {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
        {"addresses": ["10.0.0.1"]},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}
    ]));
    assert_eq!(read(&plain("10.96.0.9"), &slice), only(vec![back(1), back(2)]));
}

#[test]
fn terminating_endpoints_serve_when_none_is_ready() {
    let slice = slice(json!([
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}}
    ]));
    assert_eq!(read(&plain("10.96.0.9"), &slice), only(vec![back(3)]));
}

#[test]
fn no_backend_is_still_a_port_and_headless_is_none() {
    assert_eq!(read(&plain("10.96.0.9"), &slice(json!([]))), only(vec![]));
    assert_eq!(read(&plain("None"), &slice(json!([]))), []);
    assert_eq!(read(&service(json!({"type": "ExternalName", "externalName": "x"})), &slice(json!([]))), []);
}

#[test]
fn junk_is_left_out() {
    assert_eq!(read(b"{", b"[]"), []);
}

#[test]
fn what_is_this_nodes_is_known() {
    let endpoints = slice(json!([
        {"addresses": ["10.0.0.1"], "nodeName": "here", "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.0.0.2"], "nodeName": "there"},
    ]));
    let asked = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30100, "externalIPs": ["192.0.2.7"], "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    let table = table([&*service(asked)], [&*endpoints], "here");
    let expected = Port {
        all: vec![back(2)],
        local: vec![back(1)],
        inside_local: true,
        outside_local: true,
        affinity: Some(60),
        outside: vec![Frontend { ip: None, port: 30080, ..FRONT }, Frontend { ip: Some([192, 0, 2, 7].into()), ..FRONT }],
    };
    assert_eq!(table.ports, BTreeMap::from([(FRONT, expected)]));
    assert_eq!(table.checks, BTreeMap::from([(30100, Check { namespace: "n".into(), name: "s".into(), local: 1 })]));
}

#[test]
fn a_load_balancers_address_is_the_services_unless_it_is_a_proxys() {
    let object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"name": "web", "port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "x"}]}}});
    let ports = read(object.to_string().as_bytes(), &slice(json!([])));
    assert_eq!(ports[0].1.outside, [Frontend { ip: Some([192, 0, 2, 1].into()), ..FRONT }]);
}

#[test]
fn the_apis_address_is_in_its_slice() {
    let slice = json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "ports": [{"name": "https", "port": 6443}], "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]});
    assert_eq!(api_servers(slice.to_string().as_bytes()), ["127.0.0.1:6443".parse().unwrap()]);
    assert_eq!(api_servers(b"{"), []);
}
