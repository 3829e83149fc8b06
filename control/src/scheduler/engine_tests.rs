//! Changes in, decisions out, on small clusters.

use super::*;
use crate::scheduler::plugins::fixture::{node, pod};
use coracle_apiserver::fixture::object;
use serde_json::{Value, json};
use std::time::Duration;

#[path = "engine_tests/devices.rs"]
mod devices;

struct Fixture {
    engine: Engine,
    now: Instant,
    /// What is looked up: claims, volumes, budgets.
    others: Vec<Arc<Object>>,
}

impl Fixture {
    fn new(nodes: &[Arc<Object>]) -> Self {
        Self::with(vec![Profile::default()], nodes)
    }
    fn with(profiles: Vec<Profile>, nodes: &[Arc<Object>]) -> Self {
        let mut fixture = Self { engine: Engine::new(profiles.into()), now: Instant::now(), others: Vec::new() };
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
        let snapshot = Snapshot::of(1, self.others.iter().cloned());
        while let Some(decision) = self.engine.decide(&snapshot, self.now) {
            said.push(match decision {
                Decision::Bind { pod, node } => format!("{} → {node}", pod.key.name),
                Decision::Unschedulable { message, .. } => message,
                Decision::Preempt { pod, node, victims, .. } => {
                    let victims: Vec<&str> = victims.iter().map(|victim| &*victim.key.name).collect();
                    format!("{} → {node} without {}", pod.key.name, victims.join(", "))
                }
                Decision::Prepare { pod, patches, .. } => {
                    let patches: Vec<String> = patches.iter().map(|(key, patch)| format!("{} {patch}", key.name)).collect();
                    format!("{} needs {}", pod.key.name, patches.join(", "))
                }
                Decision::Claim { pod, steps, promised } => {
                    let step = |step: &Action| match step {
                        Action::Patch { key, subresource, patch } => format!("{}/{subresource} {patch}", key.name),
                        other => format!("{other:?}"),
                    };
                    let steps: Vec<String> = steps.iter().map(step).collect();
                    format!("{} claims {} ({} promised)", pod.key.name, steps.join(", "), promised.len())
                }
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
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
    assert_eq!(Fixture::one(&[], &pod("p", "2", json!({}))), "no nodes available to schedule pods");
    let one = &nodes[..1];
    for (spec, expected) in [
        (json!({ "nodeSelector": { "disk": "ssd" } }), "1 node(s) didn't match Pod's node affinity/selector"),
        (json!({ "containers": [{ "resources": { "requests": { "example.com/gpu": "1" } } }] }), "1 Insufficient example.com/gpu"),
        (json!({ "containers": [{ "resources": { "requests": { "memory": "9Gi", "cpu": 2 } } }] }), "1 Insufficient cpu, 1 Insufficient memory"),
    ] {
        assert_eq!(
            Fixture::one(one, &pod("p", "0", json!({ "spec": spec }))),
            format!(
                "0/1 nodes are available: {expected}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        );
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
    assert_eq!(
        fixture.decide(),
        [
            "p → a",
            "q → a",
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ]
    );
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
    assert_eq!(
        fixture.decide(),
        [
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ]
    );
    // Its own condition comes back: no new attempt.
    let told = json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod." }] } });
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
    assert_eq!(
        try_second(port("", "TCP")),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
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
    assert_eq!(
        fixture.decide(),
        [
            "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        ]
    );
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
    assert_eq!(
        fixture.decide(),
        [
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
        "its pod still counts"
    );
}

fn important(name: &str, cpu: &str, priority: i64, extra: Value) -> Arc<Object> {
    let mut pod = serde_json::from_slice::<Value>(&pod(name, cpu, extra).json).expect("json");
    pod["spec"]["priority"] = json!(priority);
    object("pods", 1, pod)
}

fn at(node: &str) -> Value {
    json!({ "spec": { "nodeName": node } })
}

fn budget(name: &str, app: &str, allowed: i64) -> Arc<Object> {
    let spec = json!({ "selector": { "matchLabels": { "app": app } } });
    let budget = json!({ "metadata": { "name": name, "namespace": "n" }, "spec": spec, "status": { "disruptionsAllowed": allowed } });
    object("poddisruptionbudgets.policy", 1, budget)
}

#[test]
fn room_is_made_for_the_more_important() {
    let cases = [
        // (who runs, the budgets, the decision)
        (vec![("low", "a", 1), ("lower", "b", 0)], vec![], "p → b without lower"),
        (vec![("one", "a", 1), ("two", "a", 1), ("three", "b", 2)], vec![], "p → a without one, two"),
        (vec![("same", "a", 10), ("low", "b", 9)], vec![], "p → b without low"),
        (vec![("low", "a", 1), ("high", "b", 5)], vec![("low", 0)], "p → b without high"),
        (vec![("low", "a", 1), ("high", "b", 5)], vec![("low", 1)], "p → a without low"),
        (vec![("low", "a", 1), ("high", "b", 5)], vec![("low", 0), ("high", 0)], "p → a without low"),
    ];
    for (running, budgets, expected) in cases {
        let mut fixture = Fixture::new(&[node("a", "1", json!({})), node("b", "1", json!({}))]);
        for (name, node, priority) in &running {
            let cpu = if running.len() == 3 && *node == "a" { "500m" } else { "1" };
            fixture.add(&important(name, cpu, *priority, at(node)));
        }
        fixture.others = budgets.iter().map(|(app, allowed)| budget(app, app, *allowed)).collect();
        fixture.add(&important("p", "1", 10, json!({})));
        assert_eq!(fixture.decide(), [expected], "{running:?} {budgets:?}");
    }
}

#[test]
fn no_more_go_than_must_and_the_important_are_spared() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    for (name, cpu, priority) in [("x", "300m", 1), ("y", "300m", 3), ("z", "300m", 2)] {
        fixture.add(&important(name, cpu, priority, at("a")));
    }
    fixture.add(&important("p", "400m", 10, json!({})));
    assert_eq!(fixture.decide(), ["p → a without x"]);
    // Of equals the one that began last goes.
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    for (name, started) in [("x", "2026-01-01T00:00:00Z"), ("y", "2026-01-02T00:00:00Z")] {
        fixture.add(&important(name, "500m", 1, json!({ "spec": { "nodeName": "a" }, "status": { "startTime": started } })));
    }
    fixture.add(&important("p", "500m", 10, json!({})));
    assert_eq!(fixture.decide(), ["p → a without y"]);
}

#[test]
fn who_may_not_or_cannot_make_room_says_so() {
    let full = |extra: Value| {
        let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
        fixture.add(&important("low", "1", 1, at("a")));
        fixture.add(&important("p", "1", 10, extra));
        fixture.decide().pop().unwrap_or_default()
    };
    let head = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption:";
    assert_eq!(full(json!({ "spec": { "preemptionPolicy": "Never" } })), format!("{head} not eligible due to preemptionPolicy=Never."));
    let mut fixture = Fixture::new(&[node("a", "1", json!({})), node("c", "1", json!({ "spec": { "unschedulable": true } }))]);
    fixture.add(&important("big", "800m", 20, at("a")));
    fixture.add(&important("low", "100m", 1, at("a")));
    fixture.add(&important("p", "1", 10, json!({})));
    assert_eq!(
        fixture.decide(),
        [
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling."
        ]
    );
}

#[test]
fn room_that_was_made_is_kept_until_it_is_there() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    let low = important("low", "1", 1, at("a"));
    fixture.add(&low);
    let waiting = important("p", "1", 10, json!({}));
    fixture.add(&waiting);
    assert_eq!(fixture.decide(), ["p → a without low"]);
    // The victim takes its time to go.
    let told = json!({ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" });
    let going =
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "nodeName": "a" }, "status": { "conditions": [told] } });
    let going = important("low", "1", 1, going);
    fixture.engine.pod(Some(&low), Some(&going), fixture.now);
    let nominated = important("p", "1", 10, json!({ "status": { "nominatedNodeName": "a" } }));
    fixture.engine.pod(Some(&waiting), Some(&nominated), fixture.now);
    fixture.engine.waits(&nominated, change::NODE | change::GONE, true, fixture.now);
    fixture.now += Duration::from_secs(1);
    fixture.engine.node(None, Some(&node("tiny", "1m", json!({}))), fixture.now);
    assert_eq!(
        fixture.decide(),
        [
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to a terminating pod on the nominated node."
        ]
    );
    // It goes: those of less priority that came since do not take the place.
    fixture.add(&important("late", "500m", 5, json!({})));
    fixture.now += Duration::from_secs(1);
    fixture.engine.pod(Some(&going), None, fixture.now);
    let said = fixture.decide();
    assert_eq!(said[0], "p → a");
    assert!(said[1].starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{said:?}");
}

#[test]
fn the_nominated_keep_their_room_from_others_of_no_more_priority() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    fixture.add(&important("low", "1", 1, at("a")));
    fixture.add(&important("p", "1", 10, json!({})));
    assert_eq!(fixture.decide(), ["p → a without low"]);
    fixture.engine.pod(Some(&important("low", "1", 1, at("a"))), None, fixture.now);
    fixture.add(&important("equal", "1", 10, json!({})));
    assert!(fixture.decide()[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."), "the room is kept");
    fixture.add(&important("above", "1", 11, json!({})));
    assert_eq!(fixture.decide(), ["above → a"], "those above need not wait");
}

#[test]
fn victims_that_stand_in_the_way_by_their_rules_go_too() {
    let away = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "p" } }, "topologyKey": "kubernetes.io/hostname" }] });
    let mut fixture = Fixture::new(&[node("a", "4", json!({}))]);
    fixture.add(&important("shy", "100m", 1, json!({ "spec": { "nodeName": "a", "affinity": { "podAntiAffinity": away } } })));
    fixture.add(&important("calm", "100m", 1, at("a")));
    fixture.add(&important("p", "1", 10, json!({})));
    assert_eq!(fixture.decide(), ["p → a without shy"]);
}

#[test]
fn a_pod_waits_for_what_may_help_it_alone() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    fixture.add(&pod("p", "100m", json!({ "spec": { "nodeSelector": { "disk": "ssd" } } })));
    assert_eq!(fixture.decide().len(), 1);
    fixture.now += Duration::from_secs(60);
    let other = pod("q", "1", at("a"));
    fixture.add(&other);
    fixture.engine.pod(Some(&other), None, fixture.now);
    fixture.engine.volume(None, None, fixture.now);
    assert_eq!(fixture.engine.next_due(), None);
    assert!(fixture.decide().is_empty());
    fixture.engine.node(None, Some(&node("s", "1", json!({ "metadata": { "labels": { "disk": "ssd" } } }))), fixture.now);
    assert_eq!(fixture.decide(), ["p → s"]);
}

#[test]
fn volumes_are_chosen_before_pods_are_bound() {
    let mut fixture = Fixture::new(&[node("a", "1", json!({}))]);
    let metadata = json!({ "name": "c", "namespace": "n", "uid": "c" });
    let claim = |spec: Value, status: Value| object("persistentvolumeclaims", 1, json!({ "metadata": metadata, "spec": spec, "status": status }));
    let class = json!({ "metadata": { "name": "late" }, "provisioner": "disks.example.com", "volumeBindingMode": "WaitForFirstConsumer" });
    fixture.others = vec![claim(json!({ "storageClassName": "late" }), json!({})), object("storageclasses.storage.k8s.io", 1, class)];
    let user = pod("p", "100m", json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } }));
    fixture.add(&user);
    let said = fixture.decide();
    assert!(said[0].starts_with("p needs c {") && said[0].contains(r#""volume.kubernetes.io/selected-node":"a""#), "{said:?}");
    fixture.engine.waits(&user, change::VOLUME, true, fixture.now);
    fixture.now += Duration::from_secs(1);
    let volume = object("persistentvolumes", 1, json!({ "metadata": { "name": "v" }, "spec": {} }));
    fixture.others = vec![claim(json!({ "storageClassName": "late", "volumeName": "v" }), json!({ "phase": "Bound" })), volume];
    fixture.engine.volume(None, None, fixture.now);
    assert_eq!(fixture.decide(), ["p → a"]);
}

#[test]
fn profiles_serve_their_own() {
    let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- {}\n- schedulerName: careless\n  plugins: {filter: {disabled: [{name: TaintToleration}]}}\n";
    let profiles = crate::scheduler::profile::read(text).expect("a configuration");
    let mut fixture = Fixture::new(&[]);
    fixture.engine = Engine::new(profiles.into());
    fixture.engine.node(None, Some(&node("t", "1", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }))), fixture.now);
    for scheduler in ["default-scheduler", "careless", "nobody"] {
        fixture.add(&pod(scheduler, "100m", json!({ "spec": { "schedulerName": scheduler } })));
    }
    let said = fixture.decide();
    assert_eq!((said.len(), said[1].as_str()), (2, "careless → t"), "{said:?}");
}

#[test]
fn profiles_tell_their_plugins() {
    let nodes = [node("full", "4", json!({})), node("idle", "4", json!({ "metadata": { "labels": { "disk": "ssd" } } }))];
    let placed = |told: &str| {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n";
        let profiles = crate::scheduler::profile::read(&format!("{head}- pluginConfig: [{told}]\n")).expect("a configuration");
        let mut fixture = Fixture::with(profiles, &nodes);
        fixture.add(&pod("there", "2", json!({ "spec": { "nodeName": "full" } })));
        fixture.add(&pod("p", "1", json!({ "spec": { "priority": -1 } })));
        fixture.decide().pop().unwrap_or_default()
    };
    assert_eq!(placed(""), "p → idle", "most is left there");
    let packed = "{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 100}]}}}, {name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu}]}}";
    assert_eq!(placed(packed), "p → full");
    let term = |value: &str| format!("{{nodeSelectorTerms: [{{matchExpressions: [{{key: disk, operator: In, values: [{value}]}}]}}]}}");
    let required =
        |value: &str| format!("{{name: NodeAffinity, args: {{addedAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {}}}}}}}", term(value));
    assert_eq!(placed(&format!("{packed}, {}", required("ssd"))), "p → idle", "the profile's nodes alone");
    assert!(
        placed(&required("tape")).starts_with("0/2 nodes are available: 2 node(s) didn't match scheduler-enforced node affinity."),
        "{}",
        placed(&required("tape"))
    );
    let spread = "{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: []}}";
    assert_eq!(placed(spread), "p → idle");
}
