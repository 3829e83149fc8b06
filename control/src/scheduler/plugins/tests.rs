//! Each plugin alone, in tables: what it says of each node of a small cluster.

use super::{fixture::*, *};
use coracle_apiserver::fixture::object;
use serde_json::{Value, json};
use std::sync::Arc;

fn filter(name: &str) -> Filter {
    PLUGINS.iter().find(|plugin| plugin.name == name).and_then(|plugin| plugin.filter).expect("a filter")
}

fn score(name: &str) -> Score {
    PLUGINS.iter().find(|plugin| plugin.name == name).and_then(|plugin| plugin.score).expect("a score").0
}

fn zoned(name: &str, zone: &str) -> Arc<Object> {
    node(name, "4", json!({ "metadata": { "labels": { "zone": zone } } }))
}

fn on(node: &str, app: &str) -> Arc<Object> {
    let name = format!("{app}-{node}-{}", rand::random::<u32>());
    pod(&name, "100m", json!({ "metadata": { "labels": { "app": app } }, "spec": { "nodeName": node } }))
}

fn spec(spec: Value) -> Arc<Object> {
    pod("p", "100m", json!({ "metadata": { "labels": { "app": "web", "rev": "2" } }, "spec": spec }))
}

fn constraint(extra: Value) -> Arc<Object> {
    let mut constraint =
        json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } });
    for (key, value) in extra.as_object().into_iter().flatten() {
        constraint[key] = value.clone();
    }
    spec(json!({ "topologySpreadConstraints": [constraint] }))
}

const SKEWED: &str = "node(s) didn't match pod topology spread constraints";

#[test]
fn spread_keeps_places_level() {
    let nodes = [zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), node("n", "4", json!({}))];
    let unlabelled = format!("!{SKEWED} (missing required label)");
    let world = World::new(&nodes, &[on("a1", "web"), on("a2", "other")], &[]);
    for (why, extra, expected) in [
        ("the zone with one is ahead", json!({}), [SKEWED, SKEWED, "ok"]),
        ("by no more than two", json!({ "maxSkew": 2 }), ["ok", "ok", "ok"]),
        ("nothing is selected", json!({ "labelSelector": null }), ["ok", "ok", "ok"]),
        ("three places are asked for, so the least is none", json!({ "maxSkew": 2, "minDomains": 3 }), ["ok", "ok", "ok"]),
        ("the pod's own revision counts alone", json!({ "matchLabelKeys": ["rev"] }), ["ok", "ok", "ok"]),
    ] {
        let said = world.refusals(filter("PodTopologySpread"), &constraint(extra));
        assert_eq!((&said[..3], &said[3]), (&expected.map(String::from)[..], &unlabelled), "{why}");
    }
    // With fewer places than asked for, a place may have no more than the skew.
    let world = World::new(&nodes[..3], &[on("a1", "web"), on("b1", "web")], &[]);
    assert_eq!(world.refusals(filter("PodTopologySpread"), &constraint(json!({}))), ["ok", "ok", "ok"]);
    assert_eq!(world.refusals(filter("PodTopologySpread"), &constraint(json!({ "minDomains": 3 }))), [SKEWED, SKEWED, SKEWED]);
}

#[test]
fn spread_counts_the_nodes_that_its_policies_say() {
    let tainted =
        node("c1", "4", json!({ "metadata": { "labels": { "zone": "c" } }, "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }));
    let nodes = [zoned("a1", "a"), zoned("b1", "b"), tainted];
    let pods = [on("a1", "web"), on("b1", "web")];
    let world = World::new(&nodes, &pods, &[]);
    let say = |extra: Value, more: Value| {
        let mut pod: Value = serde_json::from_slice(&constraint(extra).json).expect("json");
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        world.refusals(filter("PodTopologySpread"), &object("pods", 1, pod))
    };
    assert_eq!(say(json!({}), json!({})), [SKEWED, SKEWED, "ok"], "taints are not looked at");
    assert_eq!(say(json!({ "nodeTaintsPolicy": "Honor" }), json!({})), ["ok", "ok", "ok"], "the tainted zone does not count");
    assert_eq!(say(json!({ "nodeTaintsPolicy": "Honor" }), json!({ "tolerations": [{ "operator": "Exists" }] })), [SKEWED, SKEWED, "ok"]);
    let in_a_and_b = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a", "b"] }] }] } } } });
    assert_eq!(say(json!({}), in_a_and_b.clone())[..2], ["ok", "ok"], "zones that the pod may not use do not count");
    assert_eq!(say(json!({ "nodeAffinityPolicy": "Ignore" }), in_a_and_b)[..2], [SKEWED, SKEWED]);
}

#[test]
fn pods_that_go_and_other_namespaces_do_not_count() {
    let going = pod(
        "g",
        "1",
        json!({ "metadata": { "labels": { "app": "web" }, "deletionTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "nodeName": "a1" } }),
    );
    let foreign = pod("f", "1", json!({ "metadata": { "namespace": "m", "labels": { "app": "web" } }, "spec": { "nodeName": "a1" } }));
    let world = World::new(&[zoned("a1", "a"), zoned("b1", "b")], &[going, foreign], &[]);
    assert_eq!(world.refusals(filter("PodTopologySpread"), &constraint(json!({}))), ["ok", "ok"]);
}

#[test]
fn spread_scores_as_upstream() {
    let nodes = [zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), node("n", "4", json!({}))];
    let world = World::new(&nodes, &[on("a1", "web"), on("a1", "web"), on("b1", "web")], &[]);
    let soft = constraint(json!({ "whenUnsatisfiable": "ScheduleAnyway" }));
    // Counts 2, 2, 1 weigh ln 4 = 1.39: 3, 3, 1; a node without the label gets nothing.
    assert_eq!(world.scores(score("PodTopologySpread"), &soft), [33, 33, 100, 0]);
    assert_eq!(world.scores(score("PodTopologySpread"), &constraint(json!({}))), [0; 4], "what must hold is no preference");
    // Without constraints, pods of the same Service are spread over nodes.
    let service = |selector: Value| object("services", 1, json!({ "metadata": { "name": "s", "namespace": "n" }, "spec": { "selector": selector } }));
    let with = |service: Arc<Object>| {
        World::new(&nodes, &[on("a1", "web"), on("a1", "web")], &[service]).scores(score("PodTopologySpread"), &spec(json!({})))
    };
    let scores = with(service(json!({ "app": "web" })));
    assert!(scores[0] < scores[1] && scores[1] == 100 && scores[3] == 100, "{scores:?}");
    assert_eq!(with(service(json!({ "app": "other" }))), [0; 4]);
    // And those of the same owner.
    let owner = object(
        "replicasets.apps",
        1,
        json!({ "metadata": { "name": "r", "namespace": "n", "uid": "r" }, "spec": { "selector": { "matchLabels": { "app": "web" } } } }),
    );
    let owned = pod(
        "p",
        "1",
        json!({ "metadata": { "labels": { "app": "web" }, "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] } }),
    );
    let scores = World::new(&nodes, &[on("b1", "web")], &[owner]).scores(score("PodTopologySpread"), &owned);
    assert!(scores[2] < scores[0], "{scores:?}");
}

fn affinity(kind: &str, term: Value) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

const FAR: &str = "!node(s) didn't match pod affinity rules";
const NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const UNWELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

#[test]
fn affinity_is_about_pods_of_places() {
    let nodes = [zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")];
    let elsewhere = pod("e", "1", json!({ "metadata": { "namespace": "m", "labels": { "app": "db", "rev": "2" } }, "spec": { "nodeName": "b1" } }));
    let team = |name: &str, team: &str| object("namespaces", 1, json!({ "metadata": { "name": name, "labels": { "team": team } } }));
    let world = World::new(&nodes, &[on("a1", "db"), elsewhere], &[team("n", "x"), team("m", "y")]);
    let db = json!({ "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "zone" });
    let with = |extra: Value| {
        let mut term = db.clone();
        for (key, value) in extra.as_object().into_iter().flatten() {
            term[key] = value.clone();
        }
        term
    };
    for (why, term, near, away) in [
        ("its own namespace", db.clone(), ["ok", "ok", FAR], [NEAR, NEAR, "ok"]),
        ("a namespace by name", with(json!({ "namespaces": ["m"] })), [FAR, FAR, "ok"], ["ok", "ok", NEAR]),
        ("namespaces by label", with(json!({ "namespaceSelector": { "matchLabels": { "team": "y" } } })), [FAR, FAR, "ok"], ["ok", "ok", NEAR]),
        ("all namespaces", with(json!({ "namespaceSelector": {} })), ["ok", "ok", "ok"], [NEAR, NEAR, NEAR]),
        ("on the same node", with(json!({ "topologyKey": "kubernetes.io/hostname" })), ["ok", FAR, FAR], [NEAR, "ok", "ok"]),
        ("of the pod's revision", with(json!({ "namespaceSelector": {}, "matchLabelKeys": ["rev"] })), [FAR, FAR, "ok"], ["ok", "ok", NEAR]),
        ("of another revision", with(json!({ "namespaceSelector": {}, "mismatchLabelKeys": ["rev"] })), ["ok", "ok", FAR], [NEAR, NEAR, "ok"]),
        ("a label no node has", with(json!({ "topologyKey": "rack" })), [FAR; 3], ["ok"; 3]),
    ] {
        assert_eq!(world.refusals(filter("InterPodAffinity"), &spec(affinity("podAffinity", term.clone()))), near, "near: {why}");
        assert_eq!(world.refusals(filter("InterPodAffinity"), &spec(affinity("podAntiAffinity", term))), away, "away: {why}");
    }
}

#[test]
fn all_attracting_rules_must_meet_in_one_pod_and_the_first_of_a_group_is_free() {
    let nodes = [zoned("a1", "a"), zoned("b1", "b")];
    let term = |key: &str, value: &str| json!({ "labelSelector": { "matchLabels": { key: value } }, "topologyKey": "zone" });
    let both = |second: Value| {
        spec(json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term("app", "db"), second] } } }))
    };
    let world = World::new(&nodes, &[on("a1", "db"), on("b1", "web")], &[]);
    assert_eq!(world.refusals(filter("InterPodAffinity"), &both(term("app", "web"))), [FAR, FAR], "no pod is both");
    let own = spec(affinity("podAffinity", term("rev", "2")));
    assert_eq!(world.refusals(filter("InterPodAffinity"), &own), ["ok", "ok"]);
    let there = pod("q", "1", json!({ "metadata": { "labels": { "rev": "2" } }, "spec": { "nodeName": "b1" } }));
    assert_eq!(World::new(&nodes, &[there], &[]).refusals(filter("InterPodAffinity"), &own), [FAR, "ok"]);
}

#[test]
fn rules_of_pods_that_run_count_too() {
    let nodes = [zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")];
    let says = |kind: &str, how: &str, term: Value| {
        let spec = json!({ "nodeName": "a1", "affinity": { kind: { how: [term] } } });
        pod("q", "1", json!({ "spec": spec }))
    };
    let web = json!({ "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "zone" });
    let (required, preferred) = ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let weighted = json!({ "weight": 5, "podAffinityTerm": web });
    let incoming = spec(json!({}));
    let repelled = World::new(&nodes, &[says("podAntiAffinity", required, web.clone())], &[]);
    assert_eq!(repelled.refusals(filter("InterPodAffinity"), &incoming), [UNWELCOME, UNWELCOME, "ok"]);
    for (kind, how, term, expected) in [
        ("podAffinity", required, web.clone(), [100, 100, 0]),
        ("podAffinity", preferred, weighted.clone(), [100, 100, 0]),
        ("podAntiAffinity", preferred, weighted.clone(), [0, 0, 100]),
    ] {
        assert_eq!(World::new(&nodes, &[says(kind, how, term)], &[]).scores(score("InterPodAffinity"), &incoming), expected, "{kind} {how}");
    }
    let prefers = spec(json!({ "affinity": { "podAffinity": { preferred: [weighted] } } }));
    assert_eq!(World::new(&nodes, &[on("b1", "web")], &[]).scores(score("InterPodAffinity"), &prefers), [0, 0, 100]);
}

#[test]
fn resources_fit_or_never_will() {
    let extended = json!({ "status": { "allocatable": { "example.com/gpu": "2" } } });
    let world = World::new(&[node("a", "1", json!({})), node("b", "4", extended)], &[on("a", "x")], &[]);
    for (requests, expected) in [
        (json!({ "cpu": "900m" }), ["ok", "ok"]),
        (json!({ "cpu": "1" }), ["Insufficient cpu", "ok"]),
        (json!({ "cpu": "2", "memory": "9Gi" }), ["!Insufficient cpu, Insufficient memory", "!Insufficient memory"]),
        (json!({ "example.com/gpu": "1" }), ["!Insufficient example.com/gpu", "ok"]),
        (json!({ "ephemeral-storage": "1" }), ["!Insufficient ephemeral-storage", "!Insufficient ephemeral-storage"]),
    ] {
        let pod = spec(json!({ "containers": [{ "resources": { "requests": requests } }] }));
        assert_eq!(world.refusals(filter("NodeResourcesFit"), &pod), expected, "{requests}");
    }
    let overhead = spec(json!({ "overhead": { "cpu": "850m" } }));
    assert_eq!(world.refusals(filter("NodeResourcesFit"), &overhead), ["Insufficient cpu", "ok"]);
    let small = World::new(&[node("a", "1", json!({ "status": { "allocatable": { "pods": "1" } } }))], &[on("a", "x")], &[]);
    assert_eq!(small.refusals(filter("NodeResourcesFit"), &spec(json!({}))), ["Too many pods"]);
}

#[test]
fn names_and_labels_of_nodes() {
    let world = World::new(&[zoned("a1", "a"), zoned("b1", "b")], &[], &[]);
    let terms = |terms: Value| json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } });
    let named = |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    let off = "!node(s) didn't match Pod's node affinity/selector";
    for (spec_of, expected) in [
        (json!({ "nodeSelector": { "zone": "a" } }), ["ok", off]),
        (terms(json!([named("b1")])), ["!node(s) didn't satisfy plugin(s) [NodeAffinity]", "ok"]),
        (terms(json!([named("b1"), { "matchExpressions": [{ "key": "zone", "operator": "Exists" }] }])), ["ok", "ok"]),
        (terms(json!([{ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["a"] }] }])), [off, "ok"]),
    ] {
        assert_eq!(world.refusals(filter("NodeAffinity"), &spec(spec_of.clone())), expected, "{spec_of}");
    }
    let prefers = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 10, "preference": { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["b"] }] } },
        { "weight": 5, "preference": { "matchExpressions": [{ "key": "zone", "operator": "Exists" }] } }] } } });
    assert_eq!(world.scores(score("NodeAffinity"), &spec(prefers)), [33, 100]);
    assert_eq!(world.refusals(filter("NodeName"), &spec(json!({ "nodeName": "b1" }))), ["!node(s) didn't match the requested node name", "ok"]);
}

#[test]
fn images_draw_pods() {
    let has = |names: Value, size: i64| json!({ "status": { "images": [{ "names": names, "sizeBytes": size }] } });
    let nodes = [
        node("a", "4", has(json!(["web:latest", "registry.example/web@sha256:0"]), 1_000_000_000)),
        node("b", "4", has(json!(["web:v2"]), 1_000_000_000)),
        node("c", "4", json!({})),
    ];
    let world = World::new(&nodes, &[], &[]);
    let image = |image: &str| spec(json!({ "containers": [{ "image": image }] }));
    // A third of the nodes have it: a third of its size counts.
    assert_eq!(world.scores(score("ImageLocality"), &image("web")), [30, 0, 0]);
    assert_eq!(world.scores(score("ImageLocality"), &image("web:v2")), [0, 30, 0]);
    assert_eq!(world.scores(score("ImageLocality"), &image("none")), [0, 0, 0]);
}

#[test]
fn room_is_scored_by_share_and_evenness() {
    let world = World::new(&[node("a", "1", json!({})), node("b", "4", json!({}))], &[], &[]);
    let pod = |cpu: &str, memory: &str| spec(json!({ "containers": [{ "resources": { "requests": { "cpu": cpu, "memory": memory } } }] }));
    // a: CPU half free, memory 3/4; b: 7/8 and 3/4.
    assert_eq!(world.scores(score("NodeResourcesFit"), &pod("500m", "2Gi")), [62, 81]);
    // From even to uneven by 1/8, and by 1/16.
    assert_eq!(world.scores(score("NodeResourcesBalancedAllocation"), &pod("500m", "2Gi")), [68, 71]);
    assert_eq!(world.scores(score("NodeResourcesBalancedAllocation"), &spec(json!({ "containers": [{}] }))), [0, 0]);
}
