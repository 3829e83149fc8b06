//! Changes in, decisions out, on small clusters.

use super::*;
use crate::controllers::fixture::object;
use serde_json::{Value, json};
use std::time::Duration;

fn node(name: &str, cpu: &str, extra: Value) -> Arc<Object> {
    let mut node = json!({
        "metadata": { "name": name, "uid": name, "labels": { "kubernetes.io/hostname": name } }, "spec": {},
        "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } },
    });
    merge(&mut node, extra);
    object("nodes", 1, node)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
        (into, from) => *into = from,
    }
}

fn pod(name: &str, cpu: &str, extra: Value) -> Arc<Object> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "labels": { "app": name } },
        "spec": { "containers": [{ "resources": { "requests": { "cpu": cpu } } }] }, "status": { "phase": "Pending" },
    });
    merge(&mut pod, extra);
    object("pods", 1, pod)
}

struct Fixture {
    engine: Engine,
    now: Instant,
}

impl Fixture {
    fn new(nodes: &[Arc<Object>]) -> Self {
        let mut fixture = Self { engine: Engine::default(), now: Instant::now() };
        for node in nodes {
            fixture.engine.node(None, Some(node), fixture.now);
        }
        fixture
    }
    fn add(&mut self, pod: &Arc<Object>) {
        self.engine.pod(None, Some(pod), self.now);
    }
    /// All decisions there are now, as `pod → node` or the message.
    fn decide(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(decision) = self.engine.decide(self.now) {
            said.push(match decision {
                Decision::Bind { pod, node } => format!("{} → {node}", pod.key.name),
                Decision::Unschedulable { message, .. } => message,
            });
        }
        said
    }
    fn one(nodes: &[Arc<Object>], pod: &Arc<Object>) -> String {
        let mut fixture = Self::new(nodes);
        fixture.add(pod);
        fixture.decide().pop().unwrap_or_default()
    }
}

#[test]
fn filters_say_why_in_upstreams_words() {
    let tainted = json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } });
    let cordoned = json!({ "spec": { "unschedulable": true } });
    let nodes = [node("a", "1", json!({})), node("b", "1", json!({})), node("t", "9", tainted), node("u", "9", cordoned)];
    assert_eq!(
        Fixture::one(&nodes, &pod("p", "2", json!({}))),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
    assert_eq!(Fixture::one(&[], &pod("p", "2", json!({}))), "no nodes available to schedule pods");
    let one = &nodes[..1];
    for (spec, expected) in [
        (json!({ "nodeSelector": { "disk": "ssd" } }), "1 node(s) didn't match Pod's node affinity/selector"),
        (json!({ "containers": [{ "resources": { "requests": { "example.com/gpu": "1" } } }] }), "1 Insufficient example.com/gpu"),
        (json!({ "containers": [{ "resources": { "requests": { "memory": "9Gi", "cpu": 2 } } }] }), "1 Insufficient cpu, 1 Insufficient memory"),
    ] {
        assert_eq!(Fixture::one(one, &pod("p", "0", json!({ "spec": spec }))), format!("0/1 nodes are available: {expected}."));
    }
}

#[test]
fn tolerations_selectors_and_affinity_let_pods_in() {
    let tainted =
        json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }, "metadata": { "labels": { "disk": "ssd" } } });
    let nodes = [node("t", "1", tainted)];
    let fits = |spec: Value| Fixture::one(&nodes, &pod("p", "100m", json!({ "spec": spec }))) == "p → t";
    assert!(fits(json!({ "tolerations": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] })));
    assert!(fits(json!({ "tolerations": [{ "operator": "Exists" }] })));
    assert!(!fits(json!({ "tolerations": [{ "key": "k", "value": "other" }] })));
    let with = |required: Value| {
        json!({ "tolerations": [{ "operator": "Exists" }], "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": required } } } })
    };
    assert!(fits(with(json!([{ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] }]))));
    assert!(fits(with(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["t"] }] }]))));
    assert!(fits(with(
        json!([{ "matchExpressions": [{ "key": "x", "operator": "Exists" }] }, { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }])
    )));
    assert!(!fits(with(json!([{}]))), "an empty term matches nothing");
}

#[test]
fn decisions_count_before_their_bindings_come_back() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    for name in ["p", "q", "r"] {
        fixture.add(&pod(name, "400m", json!({})));
    }
    assert_eq!(fixture.decide(), ["p → a", "q → a", "0/1 nodes are available: 1 Insufficient cpu."]);
    // The first binding fails: its place is free again, and the waiting pod hears of it.
    fixture.engine.bound(&pod("p", "400m", json!({})), false, fixture.now);
    fixture.now += Duration::from_secs(1);
    let said = fixture.decide();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("→ a")), "{said:?}");
}

#[test]
fn waiting_pods_hear_of_room() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    let big = pod("big", "1", json!({ "spec": { "nodeName": "a" } }));
    fixture.add(&big);
    let waiting = pod("p", "500m", json!({}));
    fixture.add(&waiting);
    assert_eq!(fixture.decide(), ["0/1 nodes are available: 1 Insufficient cpu."]);
    // Its own condition comes back: no new attempt.
    let told = json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu." }] } });
    let told = pod("p", "500m", told);
    fixture.engine.pod(Some(&waiting), Some(&told), fixture.now);
    fixture.now += Duration::from_secs(60);
    assert!(fixture.decide().is_empty());
    fixture.engine.pod(Some(&big), None, fixture.now);
    assert_eq!(fixture.decide(), ["p → a"]);

    let mut fixture = Fixture::new(&[]);
    fixture.add(&waiting);
    fixture.decide();
    fixture.now += Duration::from_millis(10);
    fixture.engine.node(None, Some(&node("a", "1", json!({}))), fixture.now);
    assert_eq!(fixture.decide(), ["p → a"]);
}

#[test]
fn ended_pods_hold_nothing_and_others_pods_are_left_alone() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    fixture.add(&pod("done", "1", json!({ "spec": { "nodeName": "a" }, "status": { "phase": "Succeeded" } })));
    fixture.add(&pod("gated", "1", json!({ "spec": { "schedulingGates": [{ "name": "g" }] } })));
    fixture.add(&pod("other", "1", json!({ "spec": { "schedulerName": "mine" } })));
    assert!(fixture.decide().is_empty());
    let gated = pod("gated", "1", json!({ "spec": { "schedulingGates": [{ "name": "g" }] } }));
    fixture.engine.pod(Some(&gated), Some(&pod("gated", "1", json!({}))), fixture.now);
    assert_eq!(fixture.decide(), ["gated → a"]);
}

#[test]
fn host_ports_are_taken_once() {
    let port =
        |ip: &str, protocol: &str| json!({ "spec": { "containers": [{ "ports": [{ "hostPort": 80, "hostIP": ip, "protocol": protocol }] }] } });
    let try_second = |second: Value| {
        let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
        fixture.add(&pod("p", "0", port("10.0.0.1", "TCP")));
        fixture.decide();
        fixture.add(&pod("q", "0", second));
        fixture.decide().pop().unwrap_or_default()
    };
    assert_eq!(try_second(port("10.0.0.2", "TCP")), "q → a");
    assert_eq!(try_second(port("10.0.0.1", "UDP")), "q → a");
    assert_eq!(try_second(port("", "TCP")), "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
}

#[test]
fn pods_attract_and_repel_each_other() {
    let zone = |zone: &str| json!({ "metadata": { "labels": { "zone": zone } } });
    let nodes = [node("a1", "4", zone("a")), node("a2", "4", zone("a")), node("b1", "4", zone("b"))];
    let rule = |kind: &str, app: &str, key: &str| {
        json!({ "spec": { "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": key }] } } } })
    };
    let mut fixture = Fixture::new(&nodes);
    fixture.add(&pod("db", "1", json!({ "spec": { "nodeName": "b1" } })));
    fixture.add(&pod("near", "1", rule("podAffinity", "db", "zone")));
    assert_eq!(fixture.decide(), ["near → b1"]);
    fixture.add(&pod("away", "1", rule("podAntiAffinity", "db", "zone")));
    let said = fixture.decide();
    assert!(said == ["away → a1"] || said == ["away → a2"], "{said:?}");
    fixture.add(&pod("lonely", "1", rule("podAffinity", "nobody", "zone")));
    assert_eq!(fixture.decide(), ["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."]);
    fixture.add(&pod("first", "1", rule("podAffinity", "first", "zone")));
    assert_eq!(fixture.decide().len(), 1, "the first of its group may go anywhere");
    // What `away` says about `db` holds the other way round too.
    fixture.add(&pod("db", "1", json!({ "metadata": { "name": "db2", "uid": "db2" } })));
    assert_eq!(fixture.decide(), ["db2 → b1"]);
}

#[test]
fn like_pods_spread_and_preferences_count() {
    let mut fixture = Fixture::new(&[node("a", "4", json!({})), node("b", "4", json!({})), node("c", "4", json!({}))]);
    for name in ["p", "q", "r"] {
        fixture.add(&pod(name, "500m", json!({})));
    }
    let mut nodes: Vec<String> = fixture.decide().iter().filter_map(|line| line.split(" → ").nth(1).map(str::to_owned)).collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b", "c"]);

    let soft = json!({ "spec": { "taints": [{ "key": "k", "effect": "PreferNoSchedule" }] } });
    assert_eq!(Fixture::one(&[node("soft", "8", soft), node("hard", "2", json!({}))], &pod("p", "1", json!({}))), "p → hard");
    let prefers = json!({ "spec": { "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 50, "preference": { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] } }] } } } });
    let ssd = json!({ "metadata": { "labels": { "disk": "ssd" } } });
    assert_eq!(Fixture::one(&[node("a", "8", json!({})), node("ssd", "2", ssd)], &pod("p", "1", prefers)), "p → ssd");
}

#[test]
fn a_gone_node_takes_no_pods_and_may_come_back() {
    let a = node("a", "1", json!({}));
    let mut fixture = Fixture::new(std::slice::from_ref(&a));
    fixture.add(&pod("old", "800m", json!({ "spec": { "nodeName": "a" } })));
    fixture.engine.node(Some(&a), None, fixture.now);
    fixture.add(&pod("p", "500m", json!({})));
    assert_eq!(fixture.decide(), ["no nodes available to schedule pods"]);
    fixture.now += Duration::from_secs(1);
    fixture.engine.node(None, Some(&a), fixture.now);
    assert_eq!(fixture.decide(), ["0/1 nodes are available: 1 Insufficient cpu."], "its pod still counts");
}
