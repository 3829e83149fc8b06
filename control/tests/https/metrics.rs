//! Metrics of nodes and pods, and what autoscalers make of them: a node that is played over a real link.

use crate::cluster::{Cluster, Peer, eventually};
use bytes::Bytes;
use coracle_link::{
    Connection,
    protocol::{Open, Reply},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

const TOP: &str = "/apis/metrics.k8s.io/v1beta1";

/// A node that tells of one pod that uses as much of a CPU as `millis` says.
fn play(node: Arc<dyn Connection>, uid: String, millis: Arc<AtomicU64>) {
    let began = Instant::now();
    tokio::spawn(async move {
        while let Ok(mut stream) = node.accept().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            if !matches!(Open::decode(&frame), Ok(Open::Stats)) {
                continue;
            }
            let nanos = began.elapsed().as_nanos() as u64 / 1000 * millis.load(SeqCst);
            let measured = json!({"usageCoreNanoSeconds": nanos});
            let memory = json!({"workingSetBytes": 64 << 20});
            let body = json!({
                "node": {"cpu": measured, "memory": memory},
                "pods": [{"podRef": {"uid": uid}, "containers": [{"name": "c", "cpu": measured, "memory": memory}]}],
            });
            let _ = stream.send(Reply { code: 200, body: Bytes::from(body.to_string()) }.encode()).await;
            let _ = stream.finish().await;
        }
    });
}

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> crate::cluster::Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

/// Millionths of a CPU in a quantity.
fn micros(quantity: &Value) -> f64 {
    let text = quantity.as_str().expect("a quantity");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().expect("a number");
    match unit {
        "n" => number / 1000.0,
        "u" => number,
        "m" => number * 1000.0,
        _ => number * 1_000_000.0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    let groups = admin.get("/apis").await.body;
    assert!(groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "metrics.k8s.io"));
    let node = json!({"metadata": {"name": "n1"}});
    assert_eq!(admin.post("/api/v1/nodes", node).await.code, 201);

    // One replica of a ReplicationController without a controller's help: its pod is made here, bound and running.
    let template = json!({"metadata": {"labels": {"app": "busy"}}, "spec": {"schedulerName": "nobody", "containers": [
        {"name": "c", "image": "busy:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}});
    let set = json!({"metadata": {"name": "busy"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "busy"}}, "template": template}});
    assert_eq!(admin.post("/apis/apps/v1/namespaces/default/replicasets", set).await.code, 201);
    let mut pods = admin.watch("/api/v1/namespaces/default/pods?watch=true&labelSelector=app%3Dbusy").await;
    let pod = pods.next().await.expect("a pod")["object"].clone();
    let (name, uid) = (pod["metadata"]["name"].as_str().expect("a name").to_owned(), pod["metadata"]["uid"].as_str().expect("a uid").to_owned());
    let bound = admin.post(&format!("/api/v1/namespaces/default/pods/{name}/binding"), json!({"target": {"kind": "Node", "name": "n1"}})).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
    let long_ago = "2020-01-01T00:00:00Z";
    let running = json!({"status": {"phase": "Running", "startTime": long_ago, "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}});
    assert_eq!(merge(&mut admin, &format!("/api/v1/namespaces/default/pods/{name}/status"), running).await.code, 200);

    let millis = Arc::new(AtomicU64::new(400));
    play(cluster.node("n1").await, uid, millis.clone());
    shown(&mut admin, &name).await;
    scaled(&mut admin).await;
    kinds_of_ones_own_scale_by_a_container(&mut admin).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

async fn shown(admin: &mut Peer, name: &str) {
    // Who asks first waits for two readings; a node whose link came in between has its second one a moment later.
    let path = format!("{TOP}/namespaces/default/pods/{name}");
    let one = eventually(async || admin.get(&path).await, |one| one.code == 200).await;
    assert_eq!(one.code, 200, "{}", one.body);
    let one = one.body;
    let usage = &one["containers"][0]["usage"];
    assert_eq!((&one["kind"], &one["metadata"]["labels"]["app"], &usage["memory"]), (&json!("PodMetrics"), &json!("busy"), &json!("64Mi")), "{one}");
    let cpu = micros(&usage["cpu"]);
    assert!((300_000.0..500_000.0).contains(&cpu), "400m of a CPU: {one}");
    for (selector, found) in [("labelSelector=app%3Dbusy", 1), ("labelSelector=app%3Didle", 0), ("fieldSelector=metadata.name%3Dother", 0)] {
        let list = admin.get(&format!("{TOP}/namespaces/default/pods?{selector}")).await.body;
        assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("PodMetricsList"), Some(found)), "{selector}");
    }
    let missing = admin.get(&format!("{TOP}/namespaces/default/pods/none")).await;
    assert_eq!((missing.code, missing.message()), (404, "podmetrics.metrics.k8s.io \"default/none\" not found"));
    assert_eq!(admin.get(&format!("{TOP}/pods")).await.body["items"].as_array().map(Vec::len), Some(1));
    let node = admin.get(&format!("{TOP}/nodes/n1")).await.body;
    assert_eq!((&node["kind"], &node["usage"]["memory"]), (&json!("NodeMetrics"), &json!("64Mi")));
    let table = admin.accept(&format!("{TOP}/nodes"), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!((&table["columnDefinitions"][1]["name"], &table["rows"][0]["cells"][2]), (&json!("cpu"), &json!("64Mi")));
    let refused = admin.post(&format!("{TOP}/nodes"), json!({})).await;
    assert_eq!(refused.code, 405);
}

/// 400m of 100m asked for are four times the use, and half of that is wanted: eight replicas, of which four come at once.
async fn scaled(admin: &mut Peer) {
    const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "busy"}, "minReplicas": 1, "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
    });
    let mut watch = admin.watch(&format!("{AUTOSCALERS}?watch=true")).await;
    assert_eq!(admin.post(AUTOSCALERS, json!({"metadata": {"name": "busy"}, "spec": spec})).await.code, 201);
    let status = loop {
        let event = watch.next().await.expect("an event");
        let status = event["object"]["status"].clone();
        if status["desiredReplicas"] == 4 {
            break status;
        }
    };
    let condition = |kind: &str| {
        let all = status["conditions"].as_array().expect("conditions");
        let found = all.iter().find(|condition| condition["type"] == kind).unwrap_or_else(|| panic!("{kind}: {status}"));
        (found["status"].as_str().unwrap_or_default().to_owned(), found["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(condition("AbleToScale"), ("True".into(), "SucceededRescale".into()));
    assert_eq!(condition("ScalingActive"), ("True".into(), "ValidMetricFound".into()));
    assert_eq!(condition("ScalingLimited"), ("True".into(), "ScaleUpLimit".into()));
    let set = admin.get("/apis/apps/v1/namespaces/default/replicasets/busy").await.body;
    assert_eq!(set["spec"]["replicas"], 4);
    let gone = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}, "maxReplicas": 2});
    assert_eq!(admin.post(AUTOSCALERS, json!({"metadata": {"name": "astray"}, "spec": gone})).await.code, 201);
    loop {
        let event = watch.next().await.expect("an event");
        let condition = &event["object"]["status"]["conditions"][0];
        if event["object"]["metadata"]["name"] == "astray" && condition["reason"] == "FailedGetScale" {
            let message = "the HPA controller was unable to get the target's current scale: deployments.apps \"none\" not found";
            assert_eq!((&condition["status"], &condition["message"]), (&json!("False"), &json!(message)));
            break;
        }
    }
}

/// A custom resource that selects the same pods, one of whose containers is looked at: two replicas are all that is allowed.
async fn kinds_of_ones_own_scale_by_a_container(admin: &mut Peer) {
    const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    const CROWDS: &str = "/apis/scaled.example.com/v1/namespaces/default/crowds";
    assert_eq!(admin.send("DELETE", &format!("{AUTOSCALERS}/busy"), "", String::new()).await.code, 200);
    let number = json!({"type": "integer"});
    let status = json!({"type": "object", "properties": {"replicas": number, "selector": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": number}}, "status": status}});
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}, "scale": scale}});
    let definition = json!({"metadata": {"name": "crowds.scaled.example.com"}, "spec": {"group": "scaled.example.com", "scope": "Namespaced",
        "names": {"plural": "crowds", "kind": "Crowd"}, "versions": [version]}});
    assert_eq!(admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.code, 201);
    let crowd = json!({"apiVersion": "scaled.example.com/v1", "kind": "Crowd", "metadata": {"name": "ours"}, "spec": {"replicas": 1}});
    let made = eventually(async || admin.post(CROWDS, crowd.clone()).await, |answer| answer.code != 404).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let counted = json!({"status": {"replicas": 1, "selector": "app=busy"}});
    assert_eq!(merge(admin, &format!("{CROWDS}/ours/status"), counted).await.code, 200);
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "scaled.example.com/v1", "kind": "Crowd", "name": "ours"}, "minReplicas": 1, "maxReplicas": 2,
        "metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": target}}],
    });
    let mut watch = admin.watch(&format!("{AUTOSCALERS}?watch=true&fieldSelector=metadata.name%3Dcrowd")).await;
    assert_eq!(admin.post(AUTOSCALERS, json!({"metadata": {"name": "crowd"}, "spec": spec})).await.code, 201);
    let status = loop {
        let event = watch.next().await.expect("an event");
        if event["object"]["status"]["desiredReplicas"] == 2 {
            break event["object"]["status"].clone();
        }
    };
    let current = &status["currentMetrics"][0]["containerResource"];
    assert_eq!((&current["container"], current["current"]["averageUtilization"].as_i64() > Some(100)), (&json!("c"), true), "{status}");
    assert_eq!(admin.get(&format!("{CROWDS}/ours")).await.body["spec"]["replicas"], 2);
    // There is no such container.
    let spec = json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "none", "target": target}}]});
    assert_eq!(merge(admin, &format!("{AUTOSCALERS}/crowd"), json!({ "spec": spec })).await.code, 200);
    loop {
        let event = watch.next().await.expect("an event");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "ScalingActive" && condition["reason"] == "FailedGetContainerResourceMetric") {
            break;
        }
    }
}
