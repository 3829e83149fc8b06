//! apimachinery/namespace: a namespace takes what is in it along; its labels, status and finalizers change as asked.

use super::{items, made, patched, put, reached, settled, template};
use crate::cluster::{Cluster, Peer};
use serde_json::json;

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    pods_and_services_go(&mut admin).await;
    labels_change(&mut admin).await;
    the_status_changes(&mut admin).await;
    finalizers_hold(&mut admin).await;
    pods_go_before_all_else(&mut admin).await;
}

async fn pods_and_services_go(admin: &mut Peer) {
    super::namespace(admin, "ns-content").await;
    let mut pod = template(&json!({"a": "b"}));
    pod["metadata"]["name"] = "p".into();
    made(admin, "/api/v1/namespaces/ns-content/pods", pod).await;
    made(
        admin,
        "/api/v1/namespaces/ns-content/services",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
    )
    .await;
    let going = admin.send("DELETE", "/api/v1/namespaces/ns-content", "application/json", String::new()).await;
    assert_eq!((going.code, &going.body["status"]["phase"]), (200, &json!("Terminating")), "{}", going.body);
    let refused = admin.post("/api/v1/namespaces/ns-content/configmaps", json!({"metadata": {"name": "late"}})).await;
    if refused.code != 404 {
        assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
        assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    }
    settled(admin, "/api/v1/namespaces?fieldSelector=metadata.name%3Dns-content", "the namespace goes", |list| list.is_empty()).await;
    super::namespace(admin, "ns-content").await;
    for kind in ["pods", "services"] {
        assert!(items(admin, &format!("/api/v1/namespaces/ns-content/{kind}")).await.is_empty(), "no {kind} in the new one");
    }
}

async fn labels_change(admin: &mut Peer) {
    super::namespace(admin, "ns-labels").await;
    let path = "/api/v1/namespaces/ns-labels";
    let before = admin.get(path).await.body;
    assert_eq!(before["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "ns-labels"}));
    let after = patched(admin, path, "strategic-merge", json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await;
    assert_eq!(after["metadata"]["labels"]["testLabel"], "testValue");
    let number = |object: &serde_json::Value| object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(number(&before) < number(&after));
    let mut update = after;
    update["metadata"]["labels"]["ns-labels"] = "updated".into();
    assert_eq!(put(admin, path, &update).await["metadata"]["labels"]["ns-labels"], "updated");
}

async fn the_status_changes(admin: &mut Peer) {
    super::namespace(admin, "ns-status").await;
    let path = "/api/v1/namespaces/ns-status/status";
    assert_eq!(admin.get(path).await.body["status"]["phase"], "Active");
    let condition = json!({"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"});
    let patch = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "ns-status"}}, "status": {"conditions": [condition]}});
    let after = patched(admin, path, "merge", patch).await;
    assert_eq!(
        (&after["metadata"]["annotations"]["e2e-patched-ns-status"], &after["status"]["conditions"]),
        (&json!("ns-status"), &json!([condition]))
    );
    let mut update = admin.get(path).await.body;
    let more = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test"});
    update["status"]["conditions"].as_array_mut().expect("conditions").push(more.clone());
    assert_eq!(put(admin, path, &update).await["status"]["conditions"], json!([condition, more]));
}

async fn finalizers_hold(admin: &mut Peer) {
    super::namespace(admin, "ns-finalizer").await;
    let (path, finalizer) = ("/api/v1/namespaces/ns-finalizer", "e2e.example.com/fakeFinalizer");
    let mut namespace = admin.get(path).await.body;
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    namespace["spec"]["finalizers"] = json!(["kubernetes", finalizer]);
    let mut held = put(admin, &format!("{path}/finalize"), &namespace).await;
    assert_eq!(held["spec"]["finalizers"], json!(["kubernetes", finalizer]));
    held["spec"]["finalizers"] = json!(["kubernetes"]);
    assert_eq!(put(admin, &format!("{path}/finalize"), &held).await["spec"]["finalizers"], json!(["kubernetes"]));
}

async fn pods_go_before_all_else(admin: &mut Peer) {
    super::namespace(admin, "ns-order").await;
    let (pods, maps) = ("/api/v1/namespaces/ns-order/pods", "/api/v1/namespaces/ns-order/configmaps");
    let mut pod = template(&json!({"a": "b"}));
    pod["metadata"] = json!({"name": "test-pod", "finalizers": ["e2e.example.com/finalizer"]});
    made(admin, pods, pod).await;
    made(admin, maps, json!({"metadata": {"name": "test-configmap"}, "data": {"key": "value"}})).await;
    super::ok(&admin.send("DELETE", "/api/v1/namespaces/ns-order", "application/json", String::new()).await);
    let going = reached(admin, "/api/v1/namespaces", "ns-order", "it says what is left", |namespace| {
        let conditions = namespace["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "NamespaceFinalizersRemaining" && one["status"] == "True"))
    })
    .await;
    let condition = |kind: &str| {
        let all = going["status"]["conditions"].as_array().expect("conditions");
        all.iter().find(|one| one["type"] == kind).map(|one| one["message"].as_str().unwrap_or_default().to_owned()).expect("the condition")
    };
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(condition("NamespaceDeletionContentFailure"), "All content successfully deleted, may be waiting on finalization");
    assert_eq!(condition("NamespaceContentRemaining"), "Some resources are remaining: pods. has 1 resource instances");
    let held = "Some content in the namespace has finalizers remaining: e2e.example.com/finalizer in 1 resource instances";
    assert_eq!(condition("NamespaceFinalizersRemaining"), held);
    let map = admin.get(&format!("{maps}/test-configmap")).await;
    assert!(map.code == 200 && map.body["metadata"]["deletionTimestamp"].is_null(), "{}", map.body);
    assert!(admin.get(&format!("{pods}/test-pod")).await.body["metadata"]["deletionTimestamp"].is_string());
    patched(admin, &format!("{pods}/test-pod"), "merge", json!({"metadata": {"finalizers": null}})).await;
    settled(admin, "/api/v1/namespaces?fieldSelector=metadata.name%3Dns-order", "the namespace goes", |list| list.is_empty()).await;
}
