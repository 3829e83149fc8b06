//! scheduling/predicates and scheduling/preemption: where pods fit, and who makes room for whom.

use super::{items, made, name, namespace, patched, played, put, reached, settled};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/scheduling/pods";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
/// What the node of this file has five of.
const RESOURCE: &str = "scheduling.k8s.io/foo";
/// And what it has a thousand of.
const MANY: &str = "scheduling.k8s.io/bar";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "scheduling").await;
    played::node(cluster, "s1", json!({"room": "small"}), json!([{"key": "room", "effect": "NoSchedule"}])).await;
    for (resource, count) in [("foo", "5"), ("bar", "1k")] {
        let add = |list: &str| json!({"op": "add", "path": format!("/status/{list}/scheduling.k8s.io~1{resource}"), "value": count});
        let extended = json!([add("capacity"), add("allocatable")]);
        super::ok(&admin.send("PATCH", "/api/v1/nodes/s1/status", "application/json-patch+json", extended.to_string()).await);
    }
    classes_change_but_for_their_value(&mut admin).await;
    selectors_are_respected(&mut admin).await;
    ports_conflict(&mut admin).await;
    the_important_take_the_room_of_others(&mut admin).await;
    no_more_of_a_set_go_than_must(&mut admin).await;
}

fn pod(key: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": key}, "spec": {"terminationGracePeriodSeconds": 0, "nodeSelector": {"room": "small"},
        "tolerations": [{"key": "room", "operator": "Exists"}], "containers": [{"name": "c", "image": "run"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        match field.as_str() {
            "ports" => pod["spec"]["containers"][0]["ports"] = value.clone(),
            "wants" => pod["spec"]["containers"][0]["resources"] = json!({"limits": value, "requests": value}),
            _ => pod["spec"][field] = value.clone(),
        }
    }
    pod
}

async fn scheduled(admin: &mut Peer, key: &str) -> Value {
    reached(admin, PODS, key, "it is scheduled", |pod| pod["spec"]["nodeName"] == "s1").await
}

async fn refused(admin: &mut Peer, key: &str, why: &str) {
    reached(admin, PODS, key, "it says why it waits", |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["reason"] == "Unschedulable" && one["message"].as_str().is_some_and(|message| message.contains(why)))
    })
    .await;
}

async fn classes_change_but_for_their_value(admin: &mut Peer) {
    for (key, value) in [("low", 1), ("medium", 100), ("high", 1000), ("top", 10_000)] {
        let class = made(admin, CLASSES, json!({"metadata": {"name": key}, "value": value})).await;
        let refused = admin
            .send("PATCH", &format!("{CLASSES}/{key}"), "application/strategic-merge-patch+json", json!({"value": value * 10}).to_string())
            .await;
        assert_eq!(refused.code, 422, "{}", refused.body);
        let mut changed = class;
        changed["description"] = "updated description".into();
        assert_eq!(put(admin, &format!("{CLASSES}/{key}"), &changed).await["value"], value);
    }
}

async fn selectors_are_respected(admin: &mut Peer) {
    made(admin, PODS, pod("restricted", json!({"nodeSelector": {"label": "nonempty"}}))).await;
    refused(admin, "restricted", "node(s) didn't match Pod's node affinity/selector").await;
    patched(admin, "/api/v1/nodes/s1", "merge", json!({"metadata": {"labels": {"label": "nonempty"}}})).await;
    scheduled(admin, "restricted").await;
    made(admin, PODS, pod("filler", json!({"wants": {"cpu": "5600m"}}))).await;
    scheduled(admin, "filler").await;
    made(admin, PODS, pod("additional", json!({"wants": {"cpu": "4"}}))).await;
    refused(admin, "additional", "Insufficient cpu").await;
    for key in ["restricted", "filler", "additional"] {
        super::ok(&admin.send("DELETE", &format!("{PODS}/{key}"), "", String::new()).await);
    }
}

async fn ports_conflict(admin: &mut Peer) {
    let ports = |ip: &str, protocol: &str| json!({"ports": [{"hostPort": 54322, "containerPort": 8080, "hostIP": ip, "protocol": protocol}]});
    made(admin, PODS, pod("port-all", ports("", "TCP"))).await;
    scheduled(admin, "port-all").await;
    made(admin, PODS, pod("port-one", ports("127.0.0.1", "TCP"))).await;
    refused(admin, "port-one", "node(s) didn't have free ports for the requested pod ports").await;
    made(admin, PODS, pod("port-udp", ports("127.0.0.1", "UDP"))).await;
    scheduled(admin, "port-udp").await;
    for key in ["port-all", "port-one", "port-udp"] {
        super::ok(&admin.send("DELETE", &format!("{PODS}/{key}"), "", String::new()).await);
    }
}

async fn the_important_take_the_room_of_others(admin: &mut Peer) {
    let two = |class: &str| json!({"wants": {RESOURCE: "2"}, "priorityClassName": class});
    for (key, class) in [("victim", "low"), ("bystander", "medium")] {
        let mut pod = pod(key, two(class));
        if key == "victim" {
            pod["metadata"]["finalizers"] = json!(["example.com/test-finalizer"]);
        }
        made(admin, PODS, pod).await;
        scheduled(admin, key).await;
    }
    made(admin, PODS, pod("preemptor", two("high"))).await;
    let victim = reached(admin, PODS, "victim", "it is told to go", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    let conditions = victim["status"]["conditions"].as_array().expect("conditions");
    let told = conditions.iter().find(|one| one["type"] == "DisruptionTarget").expect("the condition");
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("PreemptionByScheduler")));
    patched(admin, &format!("{PODS}/victim"), "merge", json!({"metadata": {"finalizers": null}})).await;
    scheduled(admin, "preemptor").await;
    // A critical pod finds its room in the system's namespace.
    let critical = pod("critical", two("system-cluster-critical"));
    made(admin, "/api/v1/namespaces/kube-system/pods", critical).await;
    reached(admin, "/api/v1/namespaces/kube-system/pods", "critical", "it is scheduled", |pod| pod["spec"]["nodeName"] == "s1").await;
    assert_eq!(admin.get(&format!("{PODS}/bystander")).await.code, 404);
    let stays = admin.get(&format!("{PODS}/preemptor")).await.body;
    assert!(stays["metadata"]["name"] == "preemptor" && stays["metadata"]["deletionTimestamp"].is_null(), "{stays}");
}

/// The pods of two sets make room for one that is more important; those that take their place wait, and push nobody out.
async fn no_more_of_a_set_go_than_must(admin: &mut Peer) {
    const PLACE: &str = "preempting";
    namespace(admin, PLACE).await;
    let pods = format!("/api/v1/namespaces/{PLACE}/pods");
    for (set, class, count) in [("rs-pod1", "low", "200"), ("rs-pod2", "medium", "300"), ("rs-pod3", "high", "450")] {
        let labels = json!({"name": set});
        let template = json!({"metadata": {"labels": labels}, "spec": pod("", json!({"wants": {MANY: count}, "priorityClassName": class}))["spec"]});
        let set = json!({"metadata": {"name": set}, "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}});
        made(admin, &format!("/apis/apps/v1/namespaces/{PLACE}/replicasets"), set).await;
    }
    let runs = |list: &[Value]| list.len() == 3 && list.iter().all(|pod| pod["status"]["phase"] == "Running");
    let first = settled(admin, &pods, "each set has its pod", runs).await;
    made(admin, &pods, pod("pod4", json!({"wants": {MANY: "500"}, "priorityClassName": "top"}))).await;
    reached(admin, &pods, "pod4", "it is scheduled", |pod| pod["spec"]["nodeName"] == "s1").await;
    let of = |list: &[Value], set: &str| list.iter().filter(|pod| name(pod).starts_with(set)).cloned().collect::<Vec<_>>();
    let waits = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "PodScheduled" && one["reason"] == "Unschedulable")
    };
    let replaced = |list: &[Value]| ["rs-pod1", "rs-pod2"].iter().all(|set| matches!(&of(list, set)[..], [one] if waits(one)));
    settled(admin, &pods, "what went waits for room", replaced).await;
    let now = items(admin, &pods).await;
    let (before, after) = (of(&first, "rs-pod3"), of(&now, "rs-pod3"));
    assert_eq!((now.len(), &after[0]["metadata"]["uid"]), (4, &before[0]["metadata"]["uid"]), "{now:?}");
    for set in ["rs-pod1", "rs-pod2"] {
        assert_ne!(of(&now, set)[0]["metadata"]["uid"], of(&first, set)[0]["metadata"]["uid"], "{set}");
    }
}
