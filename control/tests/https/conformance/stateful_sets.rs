//! apps/statefulset: order, health and revisions of pods with names.

use super::{items, made, name, namespace, ok, patched, put, reached, settled, template, the_status_is_told};
use crate::cluster::{Cluster, Events, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    updates_and_rollbacks(&mut admin).await;
    canaries_and_phases(&mut admin).await;
    scaling_halts_at_ill_pods(&mut admin).await;
    bursts_do_not(&mut admin).await;
    failed_pods_are_made_again(&mut admin).await;
    scale_and_collections(&mut admin).await;
    the_status_is_written(&mut admin).await;
    numbers_begin_where_they_are_told(&mut admin).await;
    claims_go_as_the_policy_says(&mut admin).await;
}

fn sets(place: &str) -> String {
    format!("/apis/apps/v1/namespaces/{place}/statefulsets")
}

fn pods(place: &str) -> String {
    format!("/api/v1/namespaces/{place}/pods")
}

async fn set(admin: &mut Peer, place: &str, replicas: u32, more: Value) -> Value {
    namespace(admin, place).await;
    let labels = json!({"foo": "bar"});
    let mut spec = json!({"replicas": replicas, "serviceName": "test", "selector": {"matchLabels": labels}, "template": template(&labels)});
    spec["template"]["spec"]["containers"][0]["image"] = "i:1".into();
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    made(admin, &sets(place), json!({"metadata": {"name": "ss", "labels": labels}, "spec": spec})).await;
    ready(admin, place, replicas).await
}

/// Waits until this many are ready and the status is of the newest spec.
async fn ready(admin: &mut Peer, place: &str, replicas: u32) -> Value {
    reached(admin, &sets(place), "ss", &format!("{replicas} are ready"), |set| {
        let status = &set["status"];
        let counted = status["readyReplicas"].as_u64().unwrap_or(0) == u64::from(replicas) && status["replicas"] == replicas;
        counted && status["observedGeneration"] == set["metadata"]["generation"]
    })
    .await
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Names, images and revisions of the pods.
async fn shown(admin: &mut Peer, place: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = items(admin, &pods(place)).await;
    all.iter()
        .map(|pod| {
            (
                text(&pod["metadata"]["name"]),
                text(&pod["spec"]["containers"][0]["image"]),
                text(&pod["metadata"]["labels"]["controller-revision-hash"]),
            )
        })
        .collect()
}

fn revisions(set: &Value) -> (String, String) {
    let text = |field: &str| set["status"][field].as_str().unwrap_or_default().to_owned();
    (text("currentRevision"), text("updateRevision"))
}

/// What a readiness probe that fails, or is well again, does.
async fn health(admin: &mut Peer, place: &str, pod: &str, well: bool) {
    let status = if well { "True" } else { "False" };
    let conditions = json!([{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": status}]);
    patched(admin, &format!("{}/{pod}/status", pods(place)), "strategic-merge", json!({"status": {"conditions": conditions}})).await;
}

async fn updates_and_rollbacks(admin: &mut Peer) {
    const PLACE: &str = "ss-updates";
    let (first, same) = revisions(&set(admin, PLACE, 3, json!({})).await);
    assert_eq!(first, same);
    assert!(shown(admin, PLACE).await.iter().all(|(_, _, revision)| *revision == first));
    for (from, to) in [("i:1", "i:2"), ("i:2", "i:1")] {
        health(admin, PLACE, "ss-1", false).await;
        ready_count(admin, PLACE, 2).await;
        let begun = admin.get(&pods(PLACE)).await.body["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
        let mut events = admin.watch(&format!("{}?watch=true&resourceVersion={begun}", pods(PLACE))).await;
        patched(admin, &format!("{}/ss", sets(PLACE)), "strategic-merge", image(to)).await;
        let begun = reached(admin, &sets(PLACE), "ss", "there is another revision", |set| {
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
                && set["status"]["currentRevision"] != set["status"]["updateRevision"]
        })
        .await;
        let (_, update) = revisions(&begun);
        assert_eq!(update == first, to == "i:1", "going back is the first revision again");
        health(admin, PLACE, "ss-1", true).await;
        let done = reached(admin, &sets(PLACE), "ss", "it is rolled out", |set| {
            set["status"]["currentRevision"] == update && set["status"]["readyReplicas"] == 3 && set["status"]["updatedReplicas"] == 3
        })
        .await;
        assert_eq!(revisions(&done), (update.clone(), update.clone()));
        let all = shown(admin, PLACE).await;
        assert!(all.len() == 3 && all.iter().all(|(_, image, revision)| image == to && *revision == update), "{from} → {to}: {all:?}");
        assert_eq!(order(&mut events, "DELETED", 3).await, ["ss-2", "ss-1", "ss-0"]);
    }
}

async fn ready_count(admin: &mut Peer, place: &str, count: u64) {
    let counted = |set: &Value| set["status"]["readyReplicas"].as_u64().unwrap_or(0) == count;
    reached(admin, &sets(place), "ss", &format!("{count} are ready"), counted).await;
}

/// The next so many events of a type, by the names of their pods.
async fn order(events: &mut Events, kind: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        let event = events.next().await.expect("an event");
        if event["type"] == kind {
            names.push(name(&event["object"]).to_owned());
        }
    }
    names
}

async fn canaries_and_phases(admin: &mut Peer) {
    const PLACE: &str = "ss-canary";
    let partition = |at: u32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": at}});
    let (current, _) = revisions(&set(admin, PLACE, 3, json!({"updateStrategy": partition(3)})).await);
    patched(admin, &format!("{}/ss", sets(PLACE)), "strategic-merge", image("i:2")).await;
    let begun =
        reached(admin, &sets(PLACE), "ss", "there is another revision", |set| set["status"]["currentRevision"] != set["status"]["updateRevision"])
            .await;
    let (_, update) = revisions(&begun);
    ready(admin, PLACE, 3).await;
    let parted = |at: usize| {
        let (current, update) = (current.clone(), update.clone());
        move |all: &[(String, String, String)]| {
            all.len() == 3
                && all.iter().enumerate().all(|(index, (_, image, revision))| match index < at {
                    true => image == "i:1" && *revision == current,
                    false => image == "i:2" && *revision == update,
                })
        }
    };
    assert!(parted(3)(&shown(admin, PLACE).await), "a partition of all holds all back");
    for at in [2, 1, 0] {
        patched(admin, &format!("{}/ss", sets(PLACE)), "merge", json!({"spec": {"updateStrategy": partition(at)}})).await;
        reached(admin, &sets(PLACE), "ss", &format!("all from {at} on are new"), |set| {
            let status = &set["status"];
            status["updatedReplicas"] == 3 - at && status["readyReplicas"] == 3 && status["observedGeneration"] == set["metadata"]["generation"]
        })
        .await;
        let all = shown(admin, PLACE).await;
        assert!(parted(at as usize)(&all), "{at}: {all:?}");
        if at == 2 {
            // A pod that is lost comes back as it was, on either side of the partition.
            let before = items(admin, &pods(PLACE)).await;
            for pod in ["ss-0", "ss-2"] {
                ok(&admin.send("DELETE", &format!("{}/{pod}", pods(PLACE)), "application/json", String::new()).await);
            }
            settled(admin, &pods(PLACE), "both are back", |now| {
                let other = |pod: &&Value| before.iter().all(|old| old["metadata"]["uid"] != pod["metadata"]["uid"]);
                now.len() == 3 && now.iter().filter(other).count() == 2 && now.iter().all(|pod| pod["status"]["phase"] == "Running")
            })
            .await;
            let all = shown(admin, PLACE).await;
            assert!(parted(2)(&all), "{all:?}");
        }
    }
    reached(admin, &sets(PLACE), "ss", "the update is the current revision", |set| set["status"]["currentRevision"] == update).await;
}

async fn scaling_halts_at_ill_pods(admin: &mut Peer) {
    const PLACE: &str = "ss-scaling";
    set(admin, PLACE, 1, json!({})).await;
    let mut events = admin.watch(&format!("{}?watch=true", pods(PLACE))).await;
    health(admin, PLACE, "ss-0", false).await;
    ready_count(admin, PLACE, 0).await;
    scale(admin, PLACE, 3).await;
    observed(admin, PLACE).await;
    assert_eq!(items(admin, &pods(PLACE)).await.len(), 1, "no other is made while the first is ill");
    health(admin, PLACE, "ss-0", true).await;
    ready(admin, PLACE, 3).await;
    assert_eq!(order(&mut events, "ADDED", 3).await, ["ss-0", "ss-1", "ss-2"]);
    for pod in ["ss-0", "ss-1", "ss-2"] {
        health(admin, PLACE, pod, false).await;
    }
    ready_count(admin, PLACE, 0).await;
    scale(admin, PLACE, 0).await;
    observed(admin, PLACE).await;
    let left = items(admin, &pods(PLACE)).await;
    assert!(left.len() == 3 && left.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null()), "none goes while others are ill: {left:?}");
    for pod in ["ss-0", "ss-1", "ss-2"] {
        // The last may be on its way already when the others are well.
        let well = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        admin.send("PATCH", &format!("{}/{pod}/status", pods(PLACE)), "application/strategic-merge-patch+json", well).await;
    }
    assert_eq!(order(&mut events, "DELETED", 3).await, ["ss-2", "ss-1", "ss-0"]);
}

async fn scale(admin: &mut Peer, place: &str, replicas: u32) {
    patched(admin, &format!("{}/ss/scale", sets(place)), "merge", json!({"spec": {"replicas": replicas}})).await;
}

/// Waits until the controller has seen the newest spec.
async fn observed(admin: &mut Peer, place: &str) {
    reached(admin, &sets(place), "ss", "it is seen", |set| set["status"]["observedGeneration"] == set["metadata"]["generation"]).await;
}

async fn bursts_do_not(admin: &mut Peer) {
    const PLACE: &str = "ss-burst";
    set(admin, PLACE, 1, json!({"podManagementPolicy": "Parallel"})).await;
    health(admin, PLACE, "ss-0", false).await;
    ready_count(admin, PLACE, 0).await;
    scale(admin, PLACE, 3).await;
    settled(admin, &pods(PLACE), "three are made", |pods| pods.len() == 3).await;
    ready_count(admin, PLACE, 2).await;
    health(admin, PLACE, "ss-0", true).await;
    ready(admin, PLACE, 3).await;
    for pod in ["ss-0", "ss-1", "ss-2"] {
        health(admin, PLACE, pod, false).await;
    }
    ready_count(admin, PLACE, 0).await;
    scale(admin, PLACE, 0).await;
    settled(admin, &pods(PLACE), "all go", |pods| pods.is_empty()).await;
    ready(admin, PLACE, 0).await;
}

async fn failed_pods_are_made_again(admin: &mut Peer) {
    const PLACE: &str = "ss-failed";
    set(admin, PLACE, 1, json!({})).await;
    let first = admin.get(&format!("{}/ss-0", pods(PLACE))).await.body;
    patched(admin, &format!("{}/ss-0/status", pods(PLACE)), "merge", json!({"status": {"phase": "Failed", "reason": "NodePorts"}})).await;
    reached(admin, &pods(PLACE), "ss-0", "another runs in its place", |pod| {
        pod["metadata"]["uid"] != first["metadata"]["uid"] && pod["status"]["phase"] == "Running"
    })
    .await;
}

async fn scale_and_collections(admin: &mut Peer) {
    const PLACE: &str = "ss-scale";
    set(admin, PLACE, 1, json!({})).await;
    let path = format!("{}/ss/scale", sets(PLACE));
    let mut scale = admin.get(&path).await.body;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(1)));
    scale["metadata"]["resourceVersion"] = "".into();
    scale["spec"]["replicas"] = 2.into();
    assert_eq!(put(admin, &path, &scale).await["spec"]["replicas"], 2);
    patched(admin, &path, "strategic-merge", json!({"spec": {"replicas": 4}})).await;
    assert_eq!(admin.get(&format!("{}/ss", sets(PLACE))).await.body["spec"]["replicas"], 4);
    let mut patch = image("i:2");
    patch["metadata"] = json!({"labels": {"test-ss": "patched"}});
    patch["spec"]["replicas"] = 2.into();
    patched(admin, &format!("{}/ss", sets(PLACE)), "strategic-merge", patch).await;
    reached(admin, &sets(PLACE), "ss", "the patch is rolled out", |set| {
        let status = &set["status"];
        status["readyReplicas"] == 2
            && status["updatedReplicas"] == 2
            && status["replicas"] == 2
            && status["currentRevision"] == status["updateRevision"]
    })
    .await;
    assert_eq!(items(admin, "/apis/apps/v1/statefulsets?labelSelector=test-ss%3Dpatched").await.len(), 1);
    let all = format!("{}?labelSelector=test-ss%3Dpatched", sets(PLACE));
    ok(&admin.send("DELETE", &all, "application/json", json!({"gracePeriodSeconds": 1}).to_string()).await);
    settled(admin, &sets(PLACE), "it goes", |list| list.is_empty()).await;
    settled(admin, &pods(PLACE), "its pods go", |list| list.is_empty()).await;
}

async fn the_status_is_written(admin: &mut Peer) {
    const PLACE: &str = "ss-status";
    let set = set(admin, PLACE, 1, json!({})).await;
    let sets = sets(PLACE);
    the_status_is_told(admin, &format!("{sets}?"), &format!("{sets}/ss/status"), &set).await;
}

async fn names(admin: &mut Peer, place: &str) -> Vec<String> {
    shown(admin, place).await.into_iter().map(|(name, ..)| name).collect()
}

async fn numbers_begin_where_they_are_told(admin: &mut Peer) {
    const PLACE: &str = "ss-ordinals";
    set(admin, PLACE, 2, json!({"ordinals": {"start": 2}})).await;
    assert_eq!(names(admin, PLACE).await, ["ss-2", "ss-3"]);
    for (ordinals, wanted) in [(json!({"start": 3}), ["ss-3", "ss-4"]), (json!({"start": 2}), ["ss-2", "ss-3"]), (Value::Null, ["ss-0", "ss-1"])] {
        patched(admin, &format!("{}/ss", sets(PLACE)), "merge", json!({"spec": {"ordinals": ordinals}})).await;
        settled(admin, &pods(PLACE), &format!("{wanted:?}"), |list| list.iter().map(name).eq(wanted)).await;
        ready(admin, PLACE, 2).await;
    }
}

/// What a provisioner and the volume controller do for a claim.
async fn bound(admin: &mut Peer, place: &str, claim: &str) {
    let claims = format!("/api/v1/namespaces/{place}/persistentvolumeclaims");
    let volume = format!("{place}-{claim}");
    let spec =
        json!({"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "ss-none", "hostPath": {"path": "/nowhere"}});
    made(admin, "/api/v1/persistentvolumes", json!({"metadata": {"name": volume}, "spec": spec})).await;
    settled(admin, &claims, &format!("there is {claim}"), |list| list.iter().any(|one| name(one) == claim)).await;
    patched(admin, &format!("{claims}/{claim}"), "merge", json!({"spec": {"volumeName": volume}})).await;
    patched(admin, &format!("{claims}/{claim}/status"), "merge", json!({"status": {"phase": "Bound"}})).await;
}

async fn claims_go_as_the_policy_says(admin: &mut Peer) {
    const PLACE: &str = "ss-claims";
    namespace(admin, PLACE).await;
    let claims = format!("/api/v1/namespaces/{PLACE}/persistentvolumeclaims");
    let labels = json!({"foo": "bar"});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "ss-none", "resources": {"requests": {"storage": "1Mi"}}}});
    let policy = json!({"whenDeleted": "Retain", "whenScaled": "Delete"});
    let spec = json!({"replicas": 3, "serviceName": "test", "selector": {"matchLabels": labels}, "template": template(&labels), "podManagementPolicy": "Parallel",
        "volumeClaimTemplates": [claim], "persistentVolumeClaimRetentionPolicy": policy});
    made(admin, &sets(PLACE), json!({"metadata": {"name": "ss"}, "spec": spec})).await;
    for number in 0..3 {
        bound(admin, PLACE, &format!("data-ss-{number}")).await;
    }
    ready(admin, PLACE, 3).await;
    // Scaled down: the claim of the last goes after its pod, but for one that somebody else manages.
    let other = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": made(admin, &format!("/api/v1/namespaces/{PLACE}/configmaps"), json!({"metadata": {"name": "other"}})).await["metadata"]["uid"], "controller": true}]);
    patched(admin, &format!("{claims}/data-ss-1"), "merge", json!({"metadata": {"ownerReferences": other}})).await;
    patched(admin, &format!("{}/ss/scale", sets(PLACE)), "merge", json!({"spec": {"replicas": 1}})).await;
    settled(admin, &claims, "the claim of the last goes", |list| list.iter().map(name).eq(["data-ss-0", "data-ss-1"])).await;
    // Deleted: kept, until it is wanted that they go as well.
    let whole = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}});
    patched(admin, &format!("{}/ss", sets(PLACE)), "merge", whole).await;
    reached(admin, &claims, "data-ss-0", "it belongs to the set", |claim| claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet").await;
    ok(&admin.send("DELETE", &format!("{}/ss", sets(PLACE)), "application/json", String::new()).await);
    settled(admin, &claims, "the set's claim goes", |list| list.iter().map(name).eq(["data-ss-1"])).await;
}
