//! apimachinery/resource_quota: what a quota counts, from its first status until what was counted is gone. What refusals say is told by `quota`.

use super::{items, made, name, namespace, ok, patched, put, reached};
use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    // One namespace after the other: each spec has its own.
    the_status_comes_promptly(&mut admin).await;
    services_are_counted(&mut admin).await;
    secrets_and_config_maps_are_counted(&mut admin).await;
    pods_are_charged(&mut admin).await;
    controllers_are_counted(&mut admin).await;
    pods_with_an_end_are_apart(&mut admin).await;
    pods_that_ask_for_nothing_are_apart(&mut admin).await;
    quotas_change_and_go(&mut admin).await;
    quotas_have_a_life(&mut admin).await;
    the_status_is_the_controllers(&mut admin).await;
}

fn path(place: &str, kind: &str) -> String {
    format!("/api/v1/namespaces/{place}/{kind}")
}

/// The quota of most of upstream's specs.
fn hard() -> Value {
    json!({"pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1", "replicationcontrollers": "10",
        "resourcequotas": "1", "cpu": "1", "memory": "500Mi", "configmaps": "10", "secrets": "10", "persistentvolumeclaims": "10",
        "requests.storage": "10Gi", "ephemeral-storage": "50Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi", "requests.example.com/dongle": "3", "count/replicasets.apps": "5"})
}

/// A namespace with that quota in it, whose status counts itself.
async fn limited(admin: &mut Peer, place: &str) {
    namespace(admin, place).await;
    made(admin, &path(place, "resourcequotas"), json!({"metadata": {"name": "q"}, "spec": {"hard": hard()}})).await;
    used(admin, place, "q", json!({"resourcequotas": "1"})).await;
}

/// Waits until a quota says that so much is used of these.
async fn used(admin: &mut Peer, place: &str, quota: &str, wanted: Value) {
    reached(admin, &path(place, "resourcequotas"), quota, &wanted.to_string(), |quota| {
        wanted.as_object().is_some_and(|wanted| wanted.iter().all(|(key, amount)| quota["status"]["used"][key] == *amount))
    })
    .await;
}

/// Deletes at once, without a grace period.
async fn gone(admin: &mut Peer, path: &str) {
    ok(&admin.send("DELETE", path, "application/json", json!({"gracePeriodSeconds": 0}).to_string()).await);
}

#[track_caller]
fn forbidden(answer: &Answer) {
    assert_eq!((answer.code, answer.reason()), (403, "Forbidden"), "{}", answer.body);
    assert!(answer.message().contains("exceeded quota: q, requested: "), "{}", answer.message());
}

fn pod(name: &str, requests: Value, limits: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"schedulerName": "nobody", "containers": [{"name": "pause", "image": "i",
        "resources": {"requests": requests, "limits": limits}}]}})
}

/// "should create a ResourceQuota and ensure its status is promptly calculated."
async fn the_status_comes_promptly(admin: &mut Peer) {
    limited(admin, "quota-status").await;
    let status = admin.get(&format!("{}/q", path("quota-status", "resourcequotas"))).await.body["status"].clone();
    assert_eq!(status["hard"], hard());
    assert_eq!(status["used"].as_object().map(serde_json::Map::len), hard().as_object().map(serde_json::Map::len), "{status}");
}

/// "… and capture the life of a service."
async fn services_are_counted(admin: &mut Peer) {
    const PLACE: &str = "quota-services";
    limited(admin, PLACE).await;
    let services = path(PLACE, "services");
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80, "targetPort": 80}]}});
    made(admin, &services, service("test-service", "ClusterIP")).await;
    made(admin, &services, service("test-service-np", "NodePort")).await;
    forbidden(&admin.post(&services, service("test-service-lb", "LoadBalancer")).await);
    used(admin, PLACE, "q", json!({"resourcequotas": "1", "services": "2", "services.nodeports": "1", "services.loadbalancers": "0"})).await;
    // One that gives its balancer's traffic no node port takes none.
    let mut direct = service("test-service-lb", "LoadBalancer");
    direct["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    made(admin, &services, direct).await;
    used(admin, PLACE, "q", json!({"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"})).await;
    for name in ["test-service", "test-service-np", "test-service-lb"] {
        gone(admin, &format!("{services}/{name}")).await;
    }
    used(admin, PLACE, "q", json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"})).await;
}

/// "… and capture the life of a secret.", "… of a configMap."
async fn secrets_and_config_maps_are_counted(admin: &mut Peer) {
    const PLACE: &str = "quota-data";
    limited(admin, PLACE).await;
    for (kind, before, after) in [("secrets", "0", "1"), ("configmaps", "1", "2")] {
        used(admin, PLACE, "q", json!({"resourcequotas": "1", kind: before})).await;
        made(admin, &path(PLACE, kind), json!({"metadata": {"name": "test"}})).await;
        used(admin, PLACE, "q", json!({kind: after})).await;
        gone(admin, &format!("{}/test", path(PLACE, kind))).await;
        used(admin, PLACE, "q", json!({kind: before})).await;
    }
}

/// "… and capture the life of a pod."
async fn pods_are_charged(admin: &mut Peer) {
    const PLACE: &str = "quota-pods";
    limited(admin, PLACE).await;
    let pods = path(PLACE, "pods");
    let requests = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    made(admin, &pods, pod("test-pod", requests, json!({"example.com/dongle": "2"}))).await;
    let charged = json!({"resourcequotas": "1", "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
        "requests.example.com/dongle": "2"});
    used(admin, PLACE, "q", charged.clone()).await;
    forbidden(&admin.post(&pods, pod("fail-pod", json!({"cpu": "600m", "memory": "100Mi"}), json!({}))).await);
    let dongles = json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    forbidden(&admin.post(&pods, pod("fail-pod-for-extended-resource", dongles, json!({"example.com/dongle": "2"}))).await);
    let mut changed = admin.get(&format!("{pods}/test-pod")).await.body;
    changed["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "100m", "memory": "100Mi"});
    let refused = admin.send("PUT", &format!("{pods}/test-pod"), "application/json", changed.to_string()).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
    used(admin, PLACE, "q", charged).await;
    gone(admin, &format!("{pods}/test-pod")).await;
    let nothing =
        json!({"resourcequotas": "1", "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0", "requests.example.com/dongle": "0"});
    used(admin, PLACE, "q", nothing).await;
}

/// "… and capture the life of a replication controller.", "… of a replica set."
async fn controllers_are_counted(admin: &mut Peer) {
    const PLACE: &str = "quota-controllers";
    limited(admin, PLACE).await;
    let labels = json!({"name": "test"});
    let sets = format!("/apis/apps/v1/namespaces/{PLACE}/replicasets");
    for (key, path, selector) in [
        ("replicationcontrollers", path(PLACE, "replicationcontrollers"), labels.clone()),
        ("count/replicasets.apps", sets, json!({"matchLabels": labels})),
    ] {
        used(admin, PLACE, "q", json!({key: "0"})).await;
        let spec = json!({"replicas": 0, "selector": selector, "template": super::template(&labels)});
        made(admin, &path, json!({"metadata": {"name": "test"}, "spec": spec})).await;
        used(admin, PLACE, "q", json!({key: "1"})).await;
        gone(admin, &format!("{path}/test")).await;
        used(admin, PLACE, "q", json!({key: "0"})).await;
    }
}

/// Two quotas of opposite scopes, whose status is there.
async fn scoped(admin: &mut Peer, place: &str, [one, other]: [&str; 2], hard: Value) {
    namespace(admin, place).await;
    for scope in [one, other] {
        let spec = json!({"hard": hard, "scopes": [scope]});
        made(admin, &path(place, "resourcequotas"), json!({"metadata": {"name": scope.to_lowercase()}, "spec": spec})).await;
        used(admin, place, &scope.to_lowercase(), json!({"pods": "0"})).await;
    }
}

/// A pod is counted by one of two quotas as long as it is there, and never by the other.
async fn counted_by(admin: &mut Peer, place: &str, pod: Value, [one, other]: [&str; 2], amounts: &Value) {
    let (all, nothing) = (path(place, "pods"), zero(amounts));
    let pod = made(admin, &all, pod).await;
    used(admin, place, &one.to_lowercase(), amounts.clone()).await;
    used(admin, place, &other.to_lowercase(), nothing.clone()).await;
    gone(admin, &format!("{all}/{}", name(&pod))).await;
    used(admin, place, &one.to_lowercase(), nothing.clone()).await;
    used(admin, place, &other.to_lowercase(), nothing).await;
}

fn zero(amounts: &Value) -> Value {
    amounts.as_object().into_iter().flatten().map(|(key, _)| (key.clone(), json!("0"))).collect::<serde_json::Map<_, _>>().into()
}

/// "should verify ResourceQuota with terminating scopes."
async fn pods_with_an_end_are_apart(admin: &mut Peer) {
    const PLACE: &str = "quota-terminating";
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"});
    scoped(admin, PLACE, ["Terminating", "NotTerminating"], hard).await;
    let amounts = json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1", "limits.memory": "400Mi"});
    let asks = |name: &str| pod(name, json!({"cpu": "500m", "memory": "200Mi"}), json!({"cpu": "1", "memory": "400Mi"}));
    counted_by(admin, PLACE, asks("test-pod"), ["NotTerminating", "Terminating"], &amounts).await;
    let mut ends = asks("terminating-pod");
    ends["spec"]["activeDeadlineSeconds"] = 3600.into();
    counted_by(admin, PLACE, ends, ["Terminating", "NotTerminating"], &amounts).await;
}

/// "should verify ResourceQuota with best effort scope."
async fn pods_that_ask_for_nothing_are_apart(admin: &mut Peer) {
    const PLACE: &str = "quota-effort";
    scoped(admin, PLACE, ["BestEffort", "NotBestEffort"], json!({"pods": "5"})).await;
    let amounts = json!({"pods": "1"});
    counted_by(admin, PLACE, pod("test-pod", json!({}), json!({})), ["BestEffort", "NotBestEffort"], &amounts).await;
    let asks = pod("burstable-pod", json!({"cpu": "500m", "memory": "200Mi"}), json!({"cpu": "1", "memory": "400Mi"}));
    counted_by(admin, PLACE, asks, ["NotBestEffort", "BestEffort"], &amounts).await;
}

/// "should be able to update and delete ResourceQuota."
async fn quotas_change_and_go(admin: &mut Peer) {
    namespace(admin, "quota-update").await;
    let quotas = path("quota-update", "resourcequotas");
    let quota = |cpu: &str, memory: &str| json!({"metadata": {"name": "test-quota"}, "spec": {"hard": {"cpu": cpu, "memory": memory}}});
    made(admin, &quotas, quota("1", "500Mi")).await;
    let one = format!("{quotas}/test-quota");
    assert_eq!(admin.get(&one).await.body["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    // Without a revision, as upstream's client sends it again.
    assert_eq!(put(admin, &one, &quota("2", "1Gi")).await["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(admin.get(&one).await.body["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    gone(admin, &one).await;
    assert_eq!(admin.get(&one).await.code, 404);
}

/// "should manage the lifecycle of a ResourceQuota"
async fn quotas_have_a_life(admin: &mut Peer) {
    namespace(admin, "quota-life").await;
    let quotas = path("quota-life", "resourcequotas");
    let quota = json!({"metadata": {"name": "life", "labels": {"e2e-rq-label": "life"}}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a revision");
    assert!(revision(&made(admin, &quotas, quota).await) > 0);
    let listed = items(admin, "/api/v1/resourcequotas?labelSelector=e2e-rq-label%3Dlife").await;
    assert_eq!(listed.iter().map(name).collect::<Vec<_>>(), ["life"]);
    let patch = json!({"metadata": {"labels": {"life": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let after = patched(admin, &format!("{quotas}/life"), "strategic-merge", patch).await;
    assert_eq!(after["metadata"]["labels"], json!({"e2e-rq-label": "life", "life": "patched"}));
    assert_eq!(after["spec"]["hard"], json!({"cpu": "1", "memory": "750Mi"}));
    assert!(revision(&after) > revision(&listed[0]));
    ok(&admin.send("DELETE", &format!("{quotas}?labelSelector=e2e-rq-label%3Dlife"), "application/json", String::new()).await);
    assert_eq!(admin.get(&format!("{quotas}/life")).await.code, 404);
}

/// "should apply changes to a resourcequota status"
async fn the_status_is_the_controllers(admin: &mut Peer) {
    namespace(admin, "quota-reset").await;
    let quotas = path("quota-reset", "resourcequotas");
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "500m", "memory": "500Mi"}}});
    made(admin, &quotas, quota).await;
    let (one, status) = (format!("{quotas}/q"), format!("{quotas}/q/status"));
    let reset = |hard: Value| move |quota: &Value| quota["status"]["hard"] == hard && quota["spec"]["hard"] == hard;
    // Written with what is hard alone, after a lost race again.
    loop {
        let mut object = admin.get(&one).await.body;
        object["status"] = json!({"hard": object["spec"]["hard"]});
        let answer = admin.send("PUT", &status, "application/json", object.to_string()).await;
        if answer.code != 409 {
            ok(&answer);
            break;
        }
    }
    reached(admin, &quotas, "q", "the status that was written", reset(json!({"cpu": "500m", "memory": "500Mi"}))).await;
    let changed = patched(admin, &one, "strategic-merge", json!({"spec": {"hard": {"cpu": "1", "memory": "1Gi"}}})).await;
    patched(admin, &status, "strategic-merge", json!({"status": {"hard": changed["spec"]["hard"]}})).await;
    reached(admin, &quotas, "q", "the status that was patched", reset(json!({"cpu": "1", "memory": "1Gi"}))).await;
    let seen = admin.get(&status).await.body;
    assert_eq!((&seen["kind"], &seen["status"]["hard"]), (&json!("ResourceQuota"), &json!({"cpu": "1", "memory": "1Gi"})));
    let wrong = patched(admin, &status, "strategic-merge", json!({"status": {"hard": {"cpu": "2", "memory": "2Gi"}}})).await;
    assert_eq!(wrong["status"]["hard"], json!({"cpu": "2", "memory": "2Gi"}));
    assert_eq!(wrong["spec"]["hard"], json!({"cpu": "1", "memory": "1Gi"}), "the spec is not the status' business");
    reached(admin, &quotas, "q", "the controller says again what is hard", reset(json!({"cpu": "1", "memory": "1Gi"}))).await;
}
