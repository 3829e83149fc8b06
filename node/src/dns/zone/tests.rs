use super::*;
use crate::mirror::Key;
use bytes::Bytes;
use serde_json::{Value, json};

fn zone(objects: &[(&str, &str, Value)]) -> Zone {
    let mut zone = Zone::new("cluster.local", [10, 96, 0, 10].into(), vec![([10, 96, 0, 0].into(), 16), ([10, 244, 0, 0].into(), 16)]).unwrap();
    for (resource, name, object) in objects {
        put(&mut zone, resource, name, Some(object.clone()));
    }
    zone
}

fn put(zone: &mut Zone, resource: &str, name: &str, object: Option<Value>) {
    zone.apply(&[(Key::new(resource, "shop", name), object.map(|object| Bytes::from(object.to_string())))]);
}

fn slice(service: &str, endpoints: Value, ports: Value) -> Value {
    json!({ "metadata": { "labels": { "kubernetes.io/service-name": service } }, "addressType": "IPv4", "endpoints": endpoints, "ports": ports })
}

fn shop() -> Zone {
    let ports = json!([{ "name": "Web", "protocol": "TCP", "port": 80 }, { "name": "dns", "protocol": "UDP", "port": 53 }]);
    let of_db = json!([{ "name": "sql", "protocol": "TCP", "port": 5432 }]);
    zone(&[
        (
            "services",
            "web",
            json!({ "spec": { "type": "ClusterIP", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports } }),
        ),
        ("services", "db", json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "name": "sql", "port": 5432 }] } })),
        ("services", "idle", json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } })),
        ("services", "out", json!({ "spec": { "type": "ExternalName", "externalName": "example.org" } })),
        ("services", "new", json!({ "spec": { "type": "ClusterIP" } })),
        (
            "endpointslices.discovery.k8s.io",
            "db-1",
            slice(
                "db",
                json!([
                    { "addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": { "ready": true } },
                    { "addresses": ["10.244.0.8"], "conditions": {} },
                    { "addresses": ["10.244.0.9"], "hostname": "db-2", "conditions": { "ready": false } },
                ]),
                of_db.clone(),
            ),
        ),
        // The same endpoint for another port.
        (
            "endpointslices.discovery.k8s.io",
            "db-2",
            slice("db", json!([{ "addresses": ["10.244.0.8"] }]), json!([{ "name": "admin", "protocol": "TCP", "port": 9000 }])),
        ),
        (
            "endpointslices.discovery.k8s.io",
            "web-1",
            slice("web", json!([{ "addresses": ["10.244.0.4"] }]), json!([{ "name": "Web", "port": 8080 }])),
        ),
        ("endpointslices.discovery.k8s.io", "idle-1", slice("idle", json!([]), json!([]))),
    ])
}

/// An answer in one line, as `dig +short` with what matters besides.
fn ask(zone: &Zone, name: &str, of: RecordType) -> String {
    let data = |records: &[Record]| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(", ");
    match zone.answer(&Name::from_ascii(name).unwrap(), of) {
        Answer::Elsewhere => "elsewhere".into(),
        Answer::NoName => "no name".into(),
        Answer::Found(found) => {
            let mut text = data(&found.records);
            if !found.additional.is_empty() {
                text = format!("{text} + {}", data(&found.additional));
            }
            if let Some(alias) = found.alias {
                text = format!("{text} = {alias}");
            }
            if text.is_empty() { "nothing".into() } else { text }
        }
    }
}

#[test]
fn services_have_addresses() {
    use RecordType::{A, AAAA, ANY, MX, TXT};
    let zone = shop();
    for (name, of, expected) in [
        ("web.shop.svc.cluster.local.", A, "10.96.0.5"),
        ("web.shop.svc.cluster.local.", AAAA, "fd00::5"),
        ("WEB.Shop.SVC.cluster.LOCAL.", A, "10.96.0.5"),
        ("web.shop.svc.cluster.local.", MX, "nothing"),
        ("web.shop.svc.cluster.local.", ANY, "nothing"),
        ("db.shop.svc.cluster.local.", A, "10.244.0.7, 10.244.0.8"),
        ("db.shop.svc.cluster.local.", AAAA, "nothing"),
        ("idle.shop.svc.cluster.local.", A, "no name"),
        ("new.shop.svc.cluster.local.", A, "no name"),
        ("gone.shop.svc.cluster.local.", A, "no name"),
        ("web.other.svc.cluster.local.", A, "no name"),
        ("web.cluster.local.", A, "no name"),
        ("shop.svc.cluster.local.", A, "nothing"),
        ("other.svc.cluster.local.", A, "no name"),
        ("sho.svc.cluster.local.", A, "no name"),
        ("svc.cluster.local.", A, "nothing"),
        ("web.shop.svc.", A, "elsewhere"),
        ("web.", A, "elsewhere"),
        (".", RecordType::NS, "elsewhere"),
        ("notcluster.local.", A, "elsewhere"),
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("ns.dns.cluster.local.", A, "10.96.0.10"),
        ("dns.cluster.local.", A, "nothing"),
        ("cluster.local.", A, "nothing"),
        ("cluster.local.", RecordType::NS, "ns.dns.cluster.local."),
    ] {
        assert_eq!(ask(&zone, name, of), expected, "{name} {of}");
    }
    assert!(ask(&zone, "cluster.local.", RecordType::SOA).starts_with("ns.dns.cluster.local. hostmaster.cluster.local. "));
}

#[test]
fn endpoints_have_names_of_their_own() {
    use RecordType::{A, AAAA};
    let zone = shop();
    for (name, of, expected) in [
        ("db-0.db.shop.svc.cluster.local.", A, "10.244.0.7"),
        ("db-0.db.shop.svc.cluster.local.", AAAA, "nothing"),
        ("10-244-0-8.db.shop.svc.cluster.local.", A, "10.244.0.8"),
        ("10-244-0-7.db.shop.svc.cluster.local.", A, "no name"),
        ("db-2.db.shop.svc.cluster.local.", A, "no name"),
        ("10-244-0-4.web.shop.svc.cluster.local.", A, "10.244.0.4"),
        ("x.db-0.db.shop.svc.cluster.local.", A, "no name"),
        ("10-1-2-3.shop.pod.cluster.local.", A, "10.1.2.3"),
        ("10-1-2-3.shop.pod.cluster.local.", AAAA, "nothing"),
        ("fd00--1.shop.pod.cluster.local.", AAAA, "fd00::1"),
        ("10-1-2.shop.pod.cluster.local.", A, "no name"),
        ("name.shop.pod.cluster.local.", A, "no name"),
        ("shop.pod.cluster.local.", A, "nothing"),
        ("x.10-1-2-3.shop.pod.cluster.local.", A, "no name"),
    ] {
        assert_eq!(ask(&zone, name, of), expected, "{name} {of}");
    }
}

#[test]
fn named_ports_are_found() {
    use RecordType::{A, SRV};
    let zone = shop();
    for (name, of, expected) in [
        ("_web._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local. + 10.96.0.5, fd00::5"),
        ("_dns._udp.web.shop.svc.cluster.local.", SRV, "0 100 53 web.shop.svc.cluster.local. + 10.96.0.5, fd00::5"),
        ("_web._tcp.web.shop.svc.cluster.local.", A, "nothing"),
        ("_tcp.web.shop.svc.cluster.local.", SRV, "nothing"),
        ("_sctp.web.shop.svc.cluster.local.", SRV, "no name"),
        ("_web._udp.web.shop.svc.cluster.local.", SRV, "no name"),
        ("web.tcp.web.shop.svc.cluster.local.", SRV, "no name"),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            SRV,
            "0 50 5432 db-0.db.shop.svc.cluster.local., 0 50 5432 10-244-0-8.db.shop.svc.cluster.local. + 10.244.0.7, 10.244.0.8",
        ),
        ("_admin._tcp.db.shop.svc.cluster.local.", SRV, "0 100 9000 10-244-0-8.db.shop.svc.cluster.local. + 10.244.0.8"),
        ("web.shop.svc.cluster.local.", SRV, "0 50 80 web.shop.svc.cluster.local., 0 50 53 web.shop.svc.cluster.local. + 10.96.0.5, fd00::5"),
        ("_sql._tcp.idle.shop.svc.cluster.local.", SRV, "no name"),
    ] {
        assert_eq!(ask(&zone, name, of), expected, "{name} {of}");
    }
}

#[test]
fn an_external_name_is_an_alias() {
    let zone = shop();
    assert_eq!(ask(&zone, "out.shop.svc.cluster.local.", RecordType::A), "example.org. = example.org.");
    assert_eq!(ask(&zone, "out.shop.svc.cluster.local.", RecordType::CNAME), "example.org.");
    assert_eq!(ask(&zone, "x.out.shop.svc.cluster.local.", RecordType::A), "no name");
    let mut zone = shop();
    for literal in ["192.0.2.1", "192.0.2.1.", "fd00::1"] {
        put(&mut zone, "services", "out", Some(json!({ "spec": { "type": "ExternalName", "externalName": literal } })));
        for of in [RecordType::A, RecordType::CNAME] {
            assert_eq!(ask(&zone, "out.shop.svc.cluster.local.", of), "no name", "an address is no name: {literal}");
        }
    }
}

#[test]
fn addresses_have_names() {
    use RecordType::{A, PTR};
    let zone = shop();
    for (name, of, expected) in [
        ("5.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
        ("7.0.244.10.in-addr.arpa.", PTR, "db-0.db.shop.svc.cluster.local."),
        ("5.0.96.10.in-addr.arpa.", A, "nothing"),
        // Without a name of its own a pod has none; nobody else knows it either.
        ("8.0.244.10.in-addr.arpa.", PTR, "no name"),
        ("8.8.8.8.in-addr.arpa.", PTR, "elsewhere"),
        ("10.in-addr.arpa.", PTR, "elsewhere"),
        ("x.in-addr.arpa.", PTR, "elsewhere"),
    ] {
        assert_eq!(ask(&zone, name, of), expected, "{name} {of}");
    }
    let six = Name::from_ascii("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.").unwrap();
    assert_eq!(ask(&zone, &six.to_ascii(), PTR), "web.shop.svc.cluster.local.");
}

#[test]
fn names_come_and_go_with_their_objects() {
    let mut zone = shop();
    let headless = json!({ "spec": { "clusterIP": "None" } });
    put(&mut zone, "services", "web", Some(headless));
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::A), "10.244.0.4");
    assert_eq!(ask(&zone, "5.0.96.10.in-addr.arpa.", RecordType::PTR), "no name");
    put(
        &mut zone,
        "endpointslices.discovery.k8s.io",
        "db-1",
        Some(slice("db", json!([{ "addresses": ["10.244.0.9"], "hostname": "db-2" }]), json!([]))),
    );
    assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", RecordType::A), "10.244.0.9, 10.244.0.8");
    assert_eq!(ask(&zone, "7.0.244.10.in-addr.arpa.", RecordType::PTR), "no name");
    assert_eq!(ask(&zone, "9.0.244.10.in-addr.arpa.", RecordType::PTR), "db-2.db.shop.svc.cluster.local.");
    for (resource, name) in [
        ("endpointslices.discovery.k8s.io", "db-1"),
        ("endpointslices.discovery.k8s.io", "db-2"),
        ("endpointslices.discovery.k8s.io", "web-1"),
        ("endpointslices.discovery.k8s.io", "idle-1"),
        ("services", "web"),
        ("services", "db"),
        ("services", "idle"),
        ("services", "out"),
        ("services", "new"),
    ] {
        put(&mut zone, resource, name, None);
    }
    assert_eq!((zone.services.len(), zone.slices.len(), zone.of_service.len(), zone.reverse.len()), (0, 0, 0, 0), "nothing is kept");
    assert_eq!(ask(&zone, "shop.svc.cluster.local.", RecordType::A), "no name");
}

#[test]
fn records_keep_the_askers_spelling_and_live_for_five_seconds() {
    let zone = shop();
    let name = Name::from_ascii("wEb.ShOp.svc.cluster.local.").unwrap();
    let Answer::Found(found) = zone.answer(&name, RecordType::A) else { panic!("found") };
    assert!(found.records.iter().all(|record| record.name.eq_case(&name) && record.ttl == 5));
    assert_eq!(zone.authority().ttl, 5);
}

#[test]
fn junk_is_no_name() {
    let mut zone = shop();
    zone.apply(&[(Key::new("services", "shop", "web"), Some(Bytes::from_static(b"{")))]);
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::A), "no name");
    let binary = Name::from_labels([&b"\xff\xfe"[..], b"shop", b"svc", b"cluster", b"local"]).unwrap();
    assert_eq!(zone.answer(&binary, RecordType::A), Answer::NoName);
    put(&mut zone, "services", "odd", Some(json!({ "spec": { "type": "ExternalName", "externalName": "a..b" } })));
    assert_eq!(ask(&zone, "odd.shop.svc.cluster.local.", RecordType::A), "nothing");
}
