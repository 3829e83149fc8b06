//! apps/deployment: rollouts of running pods, as the replica sets and the status of a deployment show them.

use super::{delete, gone, items, made, name, namespace, patched, put, reached, settled, template};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    the_next_revision_follows_the_adopted_one(&mut admin).await;
    recreation_never_runs_old_and_new_together(&mut admin).await;
    old_sets_are_cleaned_away(&mut admin).await;
    a_rollout_may_be_rolled_over(&mut admin).await;
    scale_is_a_resource_of_its_own(&mut admin).await;
    scaling_is_proportional(&mut admin).await;
    lifecycle(&mut admin).await;
    the_status_is_written_and_put_right(&mut admin).await;
}

fn deployments(place: &str) -> String {
    format!("/apis/apps/v1/namespaces/{place}/deployments")
}

fn sets(place: &str) -> String {
    format!("/apis/apps/v1/namespaces/{place}/replicasets")
}

fn labels() -> Value {
    json!({"name": "sample-pod"})
}

fn deployment(key: &str, replicas: u32, image: &str) -> Value {
    let mut template = template(&labels());
    template["spec"]["containers"][0]["image"] = image.into();
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels()}, "template": template});
    json!({"metadata": {"name": key, "labels": labels()}, "spec": spec})
}

/// A bare set that a deployment of the same labels takes over.
async fn older_set(admin: &mut Peer, place: &str, revision: Option<&str>) {
    namespace(admin, place).await;
    let own = json!({"name": "sample-pod", "pod": "web"});
    let mut set = json!({"metadata": {"name": "older"}, "spec": {"replicas": 1, "selector": {"matchLabels": own}, "template": template(&own)}});
    if let Some(revision) = revision {
        set["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": revision});
    }
    set["metadata"]["labels"] = own;
    made(admin, &sets(place), set).await;
    reached(admin, &sets(place), "older", "its pod is ready", |set| set["status"]["readyReplicas"] == 1).await;
}

fn complete(deployment: &Value) -> bool {
    let (wanted, status) = (&deployment["spec"]["replicas"], &deployment["status"]);
    ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| &status[field] == wanted)
        && status["observedGeneration"] == deployment["metadata"]["generation"]
}

fn revision(object: &Value) -> &str {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap_or_default()
}

async fn the_next_revision_follows_the_adopted_one(admin: &mut Peer) {
    older_set(admin, "d-rolling", Some("3546343826724305832")).await;
    made(admin, &deployments("d-rolling"), deployment("web", 1, "i:2")).await;
    let done = reached(admin, &deployments("d-rolling"), "web", "it is complete", complete).await;
    assert_eq!(revision(&done), "3546343826724305833");
    let all = items(admin, &sets("d-rolling")).await;
    let older = all.iter().find(|set| name(set) == "older").expect("the adopted set is kept");
    assert_eq!((all.len(), &older["spec"]["replicas"]), (2, &json!(0)));
    assert_eq!(older["metadata"]["ownerReferences"][0]["uid"], done["metadata"]["uid"]);
}

async fn recreation_never_runs_old_and_new_together(admin: &mut Peer) {
    namespace(admin, "d-recreate").await;
    let mut first = deployment("web", 2, "i:1");
    first["spec"]["strategy"] = json!({"type": "Recreate"});
    let pods = "/api/v1/namespaces/d-recreate/pods";
    let mut events = admin.watch(&format!("{pods}?watch=true")).await;
    made(admin, &deployments("d-recreate"), first).await;
    reached(admin, &deployments("d-recreate"), "web", "it is complete", complete).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    patched(admin, &format!("{}/web", deployments("d-recreate")), "strategic-merge", image).await;
    let done = reached(admin, &deployments("d-recreate"), "web", "the second is complete", |d| complete(d) && revision(d) == "2").await;
    assert_eq!(done["status"]["readyReplicas"], 2);
    // In the order of the events: the first pod of the second template comes when no pod of the first runs.
    let (mut old, mut new) = (BTreeSet::new(), 0);
    while new < 2 {
        let event = events.next().await.expect("an event");
        let pod = &event["object"];
        let ended = event["type"] == "DELETED" || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if pod["spec"]["containers"][0]["image"] == "i:1" {
            if ended {
                old.remove(name(pod));
            } else {
                old.insert(name(pod).to_owned());
            }
        } else if event["type"] == "ADDED" {
            new += 1;
            assert_eq!(old, BTreeSet::new(), "old pods run still");
        }
    }
}

async fn old_sets_are_cleaned_away(admin: &mut Peer) {
    older_set(admin, "d-cleanup", None).await;
    let mut events = admin.watch("/api/v1/namespaces/d-cleanup/pods?watch=true").await;
    let mut one = deployment("web", 1, "i:2");
    one["spec"]["revisionHistoryLimit"] = 0.into();
    made(admin, &deployments("d-cleanup"), one).await;
    settled(admin, &sets("d-cleanup"), "the older set goes", |sets| sets.len() == 1 && name(&sets[0]) != "older").await;
    let mut added = Vec::new();
    loop {
        let event = events.next().await.expect("an event");
        match event["type"].as_str() {
            Some("ADDED") => added.push(event["object"]["spec"]["containers"][0]["image"].clone()),
            Some("DELETED") => break,
            _ => {}
        }
    }
    added.retain(|image| image == "i:2");
    assert_eq!(added.len(), 1, "one pod is made");
}

async fn a_rollout_may_be_rolled_over(admin: &mut Peer) {
    older_set(admin, "d-rollover", None).await;
    let mut first = deployment("web", 1, "absent:1");
    first["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    first["spec"]["minReadySeconds"] = 1.into();
    made(admin, &deployments("d-rollover"), first).await;
    let stuck = reached(admin, &deployments("d-rollover"), "web", "the update begins", |d| d["status"]["updatedReplicas"] == 1).await;
    assert_eq!(revision(&stuck), "1");
    let both =
        settled(admin, &sets("d-rollover"), "each set has a pod", |sets| sets.len() == 2 && sets.iter().all(|set| set["status"]["replicas"] == 1))
            .await;
    assert!(both.iter().all(|set| set["spec"]["replicas"] == 1), "{both:?}");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:3"}]}}}});
    patched(admin, &format!("{}/web", deployments("d-rollover")), "strategic-merge", image).await;
    let done = reached(admin, &deployments("d-rollover"), "web", "the third is complete", |d| complete(d) && d["status"]["readyReplicas"] == 1).await;
    assert_eq!(revision(&done), "2");
    let all = settled(admin, &sets("d-rollover"), "the others are empty", |sets| {
        sets.iter().filter(|set| set["spec"]["replicas"] == 0 && set["status"]["replicas"] == 0).count() == 2
    })
    .await;
    assert_eq!(all.len(), 3);
}

async fn scale_is_a_resource_of_its_own(admin: &mut Peer) {
    namespace(admin, "d-scale").await;
    made(admin, &deployments("d-scale"), deployment("web", 1, "i:1")).await;
    reached(admin, &deployments("d-scale"), "web", "it is complete", complete).await;
    let path = format!("{}/web/scale", deployments("d-scale"));
    let mut scale = admin.get(&path).await.body;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!("Scale"), &json!(1), &json!(1)));
    assert_eq!(scale["status"]["selector"], "name=sample-pod");
    scale["metadata"]["resourceVersion"] = Value::Null;
    scale["spec"]["replicas"] = 2.into();
    assert_eq!(put(admin, &path, &scale).await["spec"]["replicas"], 2);
    assert_eq!(admin.get(&format!("{}/web", deployments("d-scale"))).await.body["spec"]["replicas"], 2);
    patched(admin, &path, "strategic-merge", json!({"spec": {"replicas": 4}})).await;
    reached(admin, &deployments("d-scale"), "web", "four are there", |d| complete(d) && d["spec"]["replicas"] == 4).await;
}

async fn scaling_is_proportional(admin: &mut Peer) {
    namespace(admin, "d-proportional").await;
    let mut ten = deployment("web", 10, "i:1");
    ten["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    made(admin, &deployments("d-proportional"), ten).await;
    reached(admin, &deployments("d-proportional"), "web", "it is complete", complete).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "absent:404"}]}}}});
    patched(admin, &format!("{}/web", deployments("d-proportional")), "strategic-merge", image).await;
    let of = |sets: &[Value], revision: &str| sets.iter().find(|set| self::revision(set) == revision).cloned().unwrap_or_default();
    let has = |set: &Value, replicas: u32, available: u32| {
        let available_is = set["status"]["availableReplicas"].as_u64().unwrap_or(0) == u64::from(available);
        set["spec"]["replicas"] == replicas && set["status"]["replicas"] == replicas && available_is
    };
    settled(admin, &sets("d-proportional"), "eight and five", |sets| has(&of(sets, "1"), 8, 8) && has(&of(sets, "2"), 5, 0)).await;
    patched(admin, &format!("{}/web", deployments("d-proportional")), "merge", json!({"spec": {"replicas": 30}})).await;
    settled(admin, &sets("d-proportional"), "twenty and thirteen", |sets| has(&of(sets, "1"), 20, 20) && has(&of(sets, "2"), 13, 0)).await;
}

async fn lifecycle(admin: &mut Peer) {
    namespace(admin, "d-life").await;
    let path = format!("{}/web", deployments("d-life"));
    let since = admin.get("/apis/apps/v1/deployments?labelSelector=static%3Dtrue").await.body["metadata"]["resourceVersion"].clone();
    let since = since.as_str().expect("a revision");
    let mut events = admin.watch(&format!("{}?watch=true&labelSelector=static%3Dtrue&resourceVersion={since}", deployments("d-life"))).await;
    let mut one = deployment("web", 2, "i:1");
    one["metadata"]["labels"] = json!({"static": "true"});
    one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1.into();
    made(admin, &deployments("d-life"), one.clone()).await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    reached(admin, &deployments("d-life"), "web", "both are ready", |d| d["status"]["readyReplicas"] == 2).await;

    let patch = json!({"metadata": {"labels": {"which": "patched"}}, "spec": {"replicas": 1, "template": {"spec": {
        "terminationGracePeriodSeconds": 2, "containers": [{"name": "c", "image": "i:2"}]}}}});
    patched(admin, &path, "strategic-merge", patch).await;
    let done = reached(admin, &deployments("d-life"), "web", "the patch is rolled out", |d| complete(d) && d["status"]["readyReplicas"] == 1).await;
    let spec = &done["spec"]["template"]["spec"];
    assert_eq!((&spec["containers"][0]["image"], &spec["terminationGracePeriodSeconds"]), (&json!("i:2"), &json!(2)));
    assert_eq!(items(admin, "/apis/apps/v1/deployments?labelSelector=static%3Dtrue").await.len(), 1);

    // The object as it was first made, without a version: it is written whatever is there.
    one["metadata"]["labels"]["which"] = "updated".into();
    one["spec"]["template"]["spec"]["containers"][0]["image"] = "i:3".into();
    put(admin, &path, &one).await;
    let got = admin.get(&format!("{path}/status")).await.body;
    assert_eq!((&got["spec"]["template"]["spec"]["containers"][0]["image"], &got["metadata"]["labels"]["which"]), (&json!("i:3"), &json!("updated")));
    reached(admin, &deployments("d-life"), "web", "the update is rolled out", |d| complete(d) && d["status"]["readyReplicas"] == 2).await;
    let wrong = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    let answer = patched(admin, &format!("{path}/status"), "strategic-merge", wrong).await;
    assert_eq!(answer["status"]["readyReplicas"].as_u64().unwrap_or(0), 0);
    reached(admin, &deployments("d-life"), "web", "the status is put right", |d| complete(d) && d["status"]["readyReplicas"] == 2).await;
    let all = format!("{}?labelSelector=static%3Dtrue", deployments("d-life"));
    super::ok(&admin.send("DELETE", &all, "application/json", json!({"gracePeriodSeconds": 1}).to_string()).await);
    gone(&mut events, "web").await;
    settled(admin, &sets("d-life"), "its sets go", |sets| sets.is_empty()).await;
}

async fn the_status_is_written_and_put_right(admin: &mut Peer) {
    namespace(admin, "d-status").await;
    made(admin, &deployments("d-status"), deployment("web", 1, "i:1")).await;
    let done = reached(admin, &deployments("d-status"), "web", "it is complete", complete).await;
    let since = done["metadata"]["resourceVersion"].as_str().expect("a revision");
    let mut events = admin.watch(&format!("{}?watch=true&resourceVersion={since}", deployments("d-status"))).await;
    let path = format!("{}/web/status", deployments("d-status"));
    let mut changed = admin.get(&path).await.body;
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    changed["status"]["conditions"].as_array_mut().expect("conditions").push(condition);
    put(admin, &path, &changed).await;
    super::told_of(&mut events, "StatusUpdate").await;
    patched(admin, &path, "merge", json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}})).await;
    super::told_of(&mut events, "StatusPatched").await;
    let left = admin.get(&format!("{}/web", deployments("d-status"))).await.body;
    delete(admin, &format!("{}/web", deployments("d-status")), &left, "Background").await;
    settled(admin, &deployments("d-status"), "it goes", |list| list.is_empty()).await;
}
