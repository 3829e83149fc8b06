//! apimachinery/aggregator: registrations of other servers as objects. What is asked of the servers themselves is told by `aggregation`.

use super::{items, made, ok, patched, written};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.flunders.example.com";

pub async fn all(cluster: &Cluster) {
    registrations_have_a_life(&mut cluster.admin().await).await;
}

fn has(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|one| one["type"] == condition && one["reason"] == "E2E" && one["message"] == "Set from e2e test")
}

async fn registrations_have_a_life(admin: &mut Peer) {
    let spec = json!({"group": "flunders.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "sample-api"}});
    made(admin, SERVICES, json!({"metadata": {"name": NAME}, "spec": spec})).await;
    let (one, status) = (format!("{SERVICES}/{NAME}"), format!("{SERVICES}/{NAME}/status"));
    let changed = patched(admin, &one, "merge", json!({"spec": {"versionPriority": 400}})).await;
    assert_eq!(changed["spec"]["versionPriority"], 400);
    assert!(items(admin, SERVICES).await.iter().any(|service| super::name(service) == NAME));
    patched(admin, &one, "strategic-merge", json!({"metadata": {"labels": {"e2e-apiservice": "patched"}}})).await;

    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    let add = |object: &mut Value, kind: &str| {
        let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.push(condition(kind));
        object["status"]["conditions"] = conditions.into();
    };
    let updated = written(admin, &status, |object| {
        add(object, "StatusUpdated");
        object["metadata"]["labels"]["e2e-apiservice"] = "by its status".into();
    })
    .await;
    assert!(has(&updated, "StatusUpdated"), "{updated}");
    assert_eq!(updated["metadata"]["labels"]["e2e-apiservice"], "patched", "metadata is not the status' business");
    assert!(has(&admin.get(&status).await.body, "StatusUpdated"));

    let replaced = written(admin, &one, |object| object["metadata"]["labels"] = json!({NAME: "updated"})).await;
    assert_eq!(replaced["metadata"]["labels"], json!({NAME: "updated"}));
    let mut object = admin.get(&status).await.body;
    add(&mut object, "StatusPatched");
    patched(admin, &status, "merge", json!({"status": {"conditions": object["status"]["conditions"]}})).await;
    assert!(has(&admin.get(&status).await.body, "StatusPatched"));

    let selected = format!("{SERVICES}?labelSelector={NAME}%3Dupdated");
    assert_eq!(items(admin, &selected).await.len(), 1);
    ok(&admin.send("DELETE", &selected, "", String::new()).await);
    assert_eq!(items(admin, &selected).await.len(), 0);
}
