//! apps/replica_set and apps/rc: sets of running pods and what is written of them.

use super::{gone, items, made, name, namespace, ok, patched, put, reached, settled, template, the_status_is_told};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    for kind in [&REPLICA_SETS, &CONTROLLERS] {
        every_replica_runs(&mut admin, kind).await;
        scales(&mut admin, kind).await;
        statuses(&mut admin, kind).await;
        lifecycle(&mut admin, kind).await;
    }
    a_full_quota_shows_until_there_is_room(&mut admin).await;
}

struct Kind {
    plural: &'static str,
    base: &'static str,
}

const REPLICA_SETS: Kind = Kind { plural: "replicasets", base: "/apis/apps/v1" };
const CONTROLLERS: Kind = Kind { plural: "replicationcontrollers", base: "/api/v1" };

impl Kind {
    fn path(&self, place: &str) -> String {
        format!("{}/namespaces/{place}/{}", self.base, self.plural)
    }

    fn object(&self, replicas: u32) -> Value {
        let labels = json!({"name": "sample-pod"});
        let selector = if self.plural == "replicasets" { json!({"matchLabels": labels}) } else { labels.clone() };
        json!({"metadata": {"name": "web", "labels": {"e2e": "testing"}}, "spec": {"replicas": replicas, "selector": selector, "template": template(&labels)}})
    }

    async fn ready(&self, admin: &mut Peer, place: &str, replicas: u32) -> Value {
        let what = format!("{replicas} of {} are ready", self.plural);
        reached(admin, &self.path(place), "web", &what, |set| {
            let status = &set["status"];
            let all = ["replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"].iter().all(|field| status[field] == replicas);
            all && set["spec"]["replicas"] == replicas && status["observedGeneration"] == set["metadata"]["generation"]
        })
        .await
    }
}

async fn place(admin: &mut Peer, what: &str, kind: &Kind) -> String {
    let place = format!("{what}-{}", kind.plural);
    namespace(admin, &place).await;
    place
}

async fn every_replica_runs(admin: &mut Peer, kind: &Kind) {
    let place = place(admin, "basic", kind).await;
    let set = made(admin, &kind.path(&place), kind.object(2)).await;
    kind.ready(admin, &place, 2).await;
    let pods = items(admin, &format!("/api/v1/namespaces/{place}/pods?labelSelector=name%3Dsample-pod")).await;
    assert_eq!(pods.len(), 2);
    for pod in pods {
        assert_eq!((&pod["status"]["phase"], pod["metadata"]["deletionTimestamp"].is_null()), (&json!("Running"), true));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], set["metadata"]["uid"]);
        assert!(name(&pod).starts_with("web-") && pod["status"]["podIP"].is_string());
    }
}

async fn scales(admin: &mut Peer, kind: &Kind) {
    let place = place(admin, "scale", kind).await;
    made(admin, &kind.path(&place), kind.object(1)).await;
    kind.ready(admin, &place, 1).await;
    let path = format!("{}/web/scale", kind.path(&place));
    let mut scale = admin.get(&path).await.body;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(1)));
    scale["metadata"]["resourceVersion"] = Value::Null;
    scale["spec"]["replicas"] = 2.into();
    assert_eq!(put(admin, &path, &scale).await["spec"]["replicas"], 2);
    assert_eq!(kind.ready(admin, &place, 2).await["spec"]["replicas"], 2);
    patched(admin, &path, "strategic-merge", json!({"spec": {"replicas": 4}})).await;
    kind.ready(admin, &place, 4).await;
}

async fn statuses(admin: &mut Peer, kind: &Kind) {
    let place = place(admin, "status", kind).await;
    made(admin, &kind.path(&place), kind.object(1)).await;
    let set = kind.ready(admin, &place, 1).await;
    let sets = kind.path(&place);
    the_status_is_told(admin, &format!("{sets}?labelSelector=e2e%3Dtesting"), &format!("{sets}/web/status"), &set).await;
}

async fn lifecycle(admin: &mut Peer, kind: &Kind) {
    let place = place(admin, "life", kind).await;
    let path = format!("{}/web", kind.path(&place));
    let mut events = admin.watch(&format!("{}?watch=true&labelSelector=e2e%3Dtesting", kind.path(&place))).await;
    let mut first = kind.object(1);
    made(admin, &kind.path(&place), first.clone()).await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    kind.ready(admin, &place, 1).await;
    let patch = json!({"metadata": {"labels": {"which": "patched"}}, "spec": {"replicas": 3, "template": {"spec": {
        "terminationGracePeriodSeconds": 2, "containers": [{"name": "c", "image": "i:2"}]}}}});
    let answer = patched(admin, &path, "strategic-merge", patch).await;
    assert_eq!((&answer["metadata"]["labels"]["which"], &answer["spec"]["replicas"]), (&json!("patched"), &json!(3)));
    kind.ready(admin, &place, 3).await;
    // Counts that somebody else writes are counted again.
    let wrong = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    let answer = patched(admin, &format!("{path}/status"), "strategic-merge", wrong).await;
    assert_eq!(answer["status"]["readyReplicas"].as_u64().unwrap_or(0), 0);
    kind.ready(admin, &place, 3).await;
    first["metadata"]["labels"]["which"] = "updated".into();
    first["spec"]["replicas"] = 2.into();
    let updated = put(admin, &path, &first).await;
    assert_eq!(updated["metadata"]["labels"]["which"], "updated");
    kind.ready(admin, &place, 2).await;
    assert_eq!(items(admin, &format!("{}/{}?labelSelector=which%3Dupdated", kind.base, kind.plural)).await.len(), 1);
    ok(&admin.send("DELETE", &format!("{}?labelSelector=e2e%3Dtesting", kind.path(&place)), "application/json", String::new()).await);
    gone(&mut events, "web").await;
    // What is not said is said by the kind: controllers leave their pods behind, sets take them along.
    let left = if kind.plural == "replicasets" { 0 } else { 2 };
    settled(admin, &format!("/api/v1/namespaces/{place}/pods"), "its pods are as the kind has it", |pods| {
        pods.len() == left && pods.iter().all(|pod| pod["metadata"]["ownerReferences"].is_null() && pod["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
}

/// The condition that a quota leaves behind goes once the set asks for no more than there is room for.
async fn a_full_quota_shows_until_there_is_room(admin: &mut Peer) {
    for kind in [&REPLICA_SETS, &CONTROLLERS] {
        let place = place(admin, "quota", kind).await;
        let quotas = format!("/api/v1/namespaces/{place}/resourcequotas");
        made(admin, &quotas, json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}})).await;
        reached(admin, &quotas, "two", "the quota is counted", |quota| quota["status"]["hard"]["pods"] == "2").await;
        made(admin, &kind.path(&place), kind.object(3)).await;
        let failing = |set: &Value| {
            let conditions = set["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "ReplicaFailure" && one["status"] == "True" && one["reason"] == "FailedCreate")
        };
        reached(admin, &kind.path(&place), "web", "the failure shows", failing).await;
        patched(admin, &format!("{}/web/scale", kind.path(&place)), "merge", json!({"spec": {"replicas": 2}})).await;
        let well = |set: &Value| set["status"]["readyReplicas"] == 2 && !failing(set);
        reached(admin, &kind.path(&place), "web", "the failure is gone", well).await;
    }
}
