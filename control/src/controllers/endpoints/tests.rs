use super::*;
use crate::controllers::endpoint_slice::endpoints::State;

fn service(json: &str) -> Service<'_> {
    serde_json::from_str(json).expect("a service")
}

fn port(name: &str, number: i64) -> Port {
    Port { name: name.into(), protocol: "TCP".into(), port: number, app_protocol: None }
}

fn backend(nth: usize, ready: bool, terminating: bool) -> Backend {
    Backend {
        addresses: vec![format!("10.0.{}.{}", nth / 250, nth % 250)],
        conditions: State { ready, serving: ready, terminating },
        target_ref: Target { kind: "Pod".into(), namespace: "n".into(), name: format!("p{nth}"), uid: format!("u{nth}") },
        node_name: Some("n1".into()),
        ..Backend::default()
    }
}

fn stored(action: &Action) -> Endpoints {
    match action {
        Action::Create { object, .. } => serde_json::from_value(object.clone()).expect("endpoints"),
        other => panic!("no creation: {other:?}"),
    }
}

const WEB: &str = r#"{"metadata":{"name":"web","namespace":"n","labels":{"app":"web"}},"spec":{"clusterIP":"10.96.0.9","ports":[{"port":80}]}}"#;

#[test]
fn pods_that_offer_the_same_stand_together() {
    let group = |ports: Vec<Port>, backends: Vec<Backend>| (("IPv4", ports), backends);
    // The second pod has no port of the name `b`.
    let groups = BTreeMap::from([
        group(vec![port("a", 80), port("b", 81)], vec![backend(1, true, false), backend(3, false, false), backend(4, true, true)]),
        group(vec![port("a", 80)], vec![backend(2, true, false)]),
    ]);
    let made = plan(&service(WEB), &groups, None);
    let Action::Create { object, .. } = &made[0] else { panic!("{made:?}") };
    let ips = |list: &Value| list.as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str()).collect::<Vec<_>>().join(" ");
    let shown: Vec<(String, String, Value)> = object["subsets"]
        .as_array()
        .expect("subsets")
        .iter()
        .map(|subset| (ips(&subset["addresses"]), ips(&subset["notReadyAddresses"]), subset["ports"][0]["port"].clone()))
        .collect();
    assert_eq!(shown, [("10.0.0.1 10.0.0.2".into(), "10.0.0.3".into(), json!(80)), ("10.0.0.1".into(), "10.0.0.3".into(), json!(81))]);
    assert_eq!(object["subsets"][0]["addresses"][0]["targetRef"]["name"], "p1");
    assert_eq!(object["metadata"]["labels"], json!({"app": "web", MANAGED_BY: OURS}));

    let endpoints = stored(&made[0]);
    assert_eq!(plan(&service(WEB), &groups, Some(&endpoints)), [], "nothing changed");
    let none = plan(&service(WEB), &BTreeMap::new(), Some(&endpoints));
    assert!(matches!(&*none, [Action::Patch { patch, .. }] if patch["subsets"].is_null()), "{none:?}");
}

#[test]
fn headless_services_may_be_without_ports() {
    let groups = BTreeMap::from([(("IPv4", Ports::new()), vec![backend(1, true, false)])]);
    let headless = r#"{"metadata":{"name":"web","namespace":"n"},"spec":{"clusterIP":"None"}}"#;
    let endpoints = stored(&plan(&service(headless), &groups, None)[0]);
    assert_eq!((endpoints.subsets.len(), endpoints.subsets[0].addresses.len()), (1, 1));
    assert_eq!(endpoints.metadata.labels[HEADLESS], "");
    assert_eq!(stored(&plan(&service(WEB), &groups, None)[0]).subsets, [], "no pod has the port");
}

#[test]
fn too_many_addresses_are_cut_by_share_and_said_to_be() {
    let of = |from: usize, count: usize, ready: bool| (from..from + count).map(|nth| backend(nth, ready, false)).collect::<Vec<_>>();
    let groups = BTreeMap::from([(("IPv4", vec![port("", 80)]), of(0, 900, true)), (("IPv4", vec![port("", 81)]), of(900, 300, true))]);
    let endpoints = stored(&plan(&service(WEB), &groups, None)[0]);
    assert_eq!(endpoints.subsets.iter().map(|s| s.addresses.len()).collect::<Vec<_>>(), [750, 250]);
    assert_eq!(endpoints.metadata.annotations[OVER_CAPACITY], "truncated");
    assert_eq!(plan(&service(WEB), &groups, Some(&endpoints)), [], "cut the same way every time");
    let fewer = BTreeMap::from([(("IPv4", vec![port("", 80)]), [of(0, 900, true), of(900, 300, false)].concat())]);
    let changed = plan(&service(WEB), &fewer, Some(&endpoints));
    let Action::Patch { patch, .. } = &changed[0] else { panic!("{changed:?}") };
    let len = |field: &str| patch["subsets"][0][field].as_array().map_or(0, Vec::len);
    assert_eq!((len("addresses"), len("notReadyAddresses")), (900, 100));
}

#[test]
fn an_address_that_is_said_to_be_both_is_not_ready() {
    let subset = |json: Value| serde_json::from_value::<Subset>(json).expect("a subset");
    let packed = pack(vec![
        subset(json!({"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]})),
        subset(json!({"notReadyAddresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]})),
        subset(json!({"addresses": [{"ip": "192.0.2.1"}], "ports": null})),
    ]);
    let shown: Vec<_> = packed.iter().map(|s| (s.ports.len(), s.addresses.len(), s.not_ready_addresses.len())).collect();
    assert_eq!(shown, [(0, 1, 0), (1, 0, 1)]);
}
