//! Pods that wait for devices.

use super::*;

/// A cluster of nodes with two devices each, and a claim of `gpu` for pod `p` with these selectors.
fn with_devices(nodes: &[&str], selectors: &[&str]) -> (Fixture, Arc<Object>) {
    let mut fixture = Fixture::new(&nodes.iter().map(|name| node(name, "4", json!({}))).collect::<Vec<_>>());
    let slice = |name: &&str| {
        let device = |device: &str| json!({"name": device, "attributes": {"model": {"string": "a100"}, *name: {"bool": true}}});
        let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": "gpu.example.com", "pool": pool, "nodeName": name, "devices": [device("g0"), device("g1")]});
        object("resourceslices.resource.k8s.io", 1, json!({"metadata": {"name": format!("{name}-gpus")}, "spec": spec}))
    };
    fixture.others = nodes.iter().map(slice).collect();
    let selectors: Vec<Value> = selectors.iter().map(|expression| json!({"cel": {"expression": expression}})).collect();
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": selectors});
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": exactly}]}});
    let metadata = json!({"name": "c", "namespace": "n", "uid": "c", "resourceVersion": "7"});
    fixture.others.push(object("deviceclasses.resource.k8s.io", 1, json!({"metadata": {"name": "gpu"}, "spec": {}})));
    fixture.others.push(object("resourceclaims.resource.k8s.io", 7, json!({ "metadata": metadata, "spec": spec })));
    for other in fixture.others.clone() {
        fixture.engine.devices(None, Some(&other), fixture.now);
    }
    let user = pod("p", "100m", json!({ "spec": { "resourceClaims": [{ "name": "gpu", "resourceClaimName": "c" }] } }));
    (fixture, user)
}

#[test]
fn claims_have_devices_before_pods_are_bound_and_nobody_else_has_them() {
    let (mut fixture, user) = with_devices(&["a"], &["device.attributes['gpu.example.com'].model == 'a100'"]);
    fixture.add(&user);
    let said = fixture.decide();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(r#"p claims c/ {"metadata":{"finalizers":["resource.kubernetes.io/delete-protection"],"resourceVersion":"7""#),
        "{said:?}"
    );
    assert!(said[0].contains(r#""device":"g0""#) && said[0].ends_with("(1 promised)"), "{said:?}");
    // It is written; the watch is late, and another pod asks for a device meanwhile.
    let given = |name: &str, device: &str| {
        let result = json!({"request": "r", "driver": "gpu.example.com", "pool": "a", "device": device});
        let status = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}]});
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "finalizers": ["resource.kubernetes.io/delete-protection"]});
        object("resourceclaims.resource.k8s.io", 8, json!({"metadata": metadata, "status": status}))
    };
    let open = fixture.others.pop().expect("the claim");
    let mut other: Value = serde_json::from_slice(&open.json).expect("a claim");
    (other["metadata"]["name"], other["metadata"]["uid"]) = (json!("d"), json!("d"));
    fixture.others.extend([given("c", "g0"), object("resourceclaims.resource.k8s.io", 9, other)]);
    fixture.engine.claimed(&user, &[Key::new("resourceclaims.resource.k8s.io", "n", "c")], true, fixture.now);
    fixture.add(&pod("q", "100m", json!({ "spec": { "resourceClaims": [{ "name": "gpu", "resourceClaimName": "d" }] } })));
    let said = fixture.decide();
    assert_eq!((said.len(), said[0].as_str()), (2, "p → a"), "{said:?}");
    assert!(said[1].starts_with("q claims d/") && said[1].contains(r#""device":"g1""#), "{said:?}");
}

#[test]
fn a_selector_that_fails_on_one_node_keeps_the_pod_from_all() {
    let (mut fixture, user) = with_devices(&["a", "b"], &["device.attributes['gpu.example.com'].a"]);
    fixture.add(&user);
    let why = r#"running "DynamicResources" filter plugin: claim n/c: selector #0: CEL runtime error: no such key: a"#;
    assert_eq!(fixture.decide(), [why]);
    let (mut fixture, user) = with_devices(&["a"], &["device.attributes['gpu.example.com'].a"]);
    fixture.add(&user);
    assert!(fixture.decide()[0].starts_with("p claims c/"));
}

#[test]
fn selectors_that_cost_too_much_are_told_and_leave_the_scheduler_its_time() {
    // Within what one selector may cost, but there are many of them: each node's part is spent before there is an answer.
    let selectors: Vec<String> = (0..32)
        .map(|nth| format!("[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, a + b + c > {})))", nth - 40))
        .collect();
    let nodes: Vec<String> = (0..200).map(|nth| format!("node{nth:03}")).collect();
    let (nodes, selectors): (Vec<&str>, Vec<&str>) = (nodes.iter().map(String::as_str).collect(), selectors.iter().map(String::as_str).collect());
    let (mut fixture, user) = with_devices(&nodes, &selectors);
    fixture.add(&user);
    fixture.add(&pod("plain", "100m", json!({})));
    let said = fixture.decide();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("0/200 nodes are available: 200 timed out trying to allocate devices."), "{said:?}");
    assert!(said[1].starts_with("plain → "), "{said:?}");
    // Nothing changed: the answer would be the same.
    fixture.now += Duration::from_secs(3600);
    assert_eq!(fixture.decide(), Vec::<String>::new());
    // One such selector is no hardship.
    let (mut fixture, user) = with_devices(&nodes, &selectors[..1]);
    fixture.add(&user);
    assert!(fixture.decide()[0].starts_with("p claims c/"));
}
