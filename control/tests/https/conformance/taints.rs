//! node/taints: what bears a taint stays, for as long as it bears it.

use super::{gone, made, namespace, ok, patched, played, reached, settled};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const KEY: &str = "kubernetes.io/e2e-evict-taint-key";
const PODS: &str = "/api/v1/namespaces/taints/pods";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "taints").await;
    for node in ["t1", "t2", "t3"] {
        played::node(cluster, node, json!({"kubernetes.io/hostname": node}), json!([{"key": "taints", "effect": "NoSchedule"}])).await;
    }
    each_pod_bears_a_taint_as_long_as_it_says(&mut admin).await;
    a_taint_that_goes_evicts_nobody(&mut admin).await;
}

/// A pod that runs on a node; the tolerations beside the one for the node itself.
async fn running(admin: &mut Peer, key: &str, node: &str, mut tolerations: Value, finalizers: Value) {
    tolerations.as_array_mut().expect("tolerations").push(json!({"key": "taints", "operator": "Exists"}));
    let spec =
        json!({"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": tolerations, "containers": [{"name": "pause", "image": "run"}]});
    made(admin, PODS, json!({"metadata": {"name": key, "finalizers": finalizers}, "spec": spec})).await;
    reached(admin, PODS, key, "it runs", |pod| pod["status"]["phase"] == "Running").await;
}

fn bears(seconds: Option<u32>) -> Value {
    let mut toleration = json!({"key": KEY, "value": "evictTaintVal", "effect": "NoExecute"});
    if let Some(seconds) = seconds {
        toleration["tolerationSeconds"] = seconds.into();
    }
    json!([toleration])
}

async fn taint(admin: &mut Peer, node: &str, tainted: bool) {
    let mut taints = vec![json!({"key": "taints", "effect": "NoSchedule"})];
    if tainted {
        taints.push(json!({"key": KEY, "value": "evictTaintVal", "effect": "NoExecute"}));
    }
    patched(admin, &format!("/api/v1/nodes/{node}"), "merge", json!({"spec": {"taints": taints}})).await;
}

async fn each_pod_bears_a_taint_as_long_as_it_says(admin: &mut Peer) {
    running(admin, "none", "t1", json!([]), json!(["example.com/test-finalizer"])).await;
    running(admin, "forever", "t1", bears(None), Value::Null).await;
    running(admin, "longer", "t1", bears(Some(3)), Value::Null).await;
    running(admin, "shorter", "t1", bears(Some(1)), Value::Null).await;
    let revision = admin.get(PODS).await.body["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let mut events = admin.watch(&format!("{PODS}?watch=true&resourceVersion={revision}")).await;
    taint(admin, "t1", true).await;
    let none = reached(admin, PODS, "none", "it is told to go", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    let conditions = none["status"]["conditions"].as_array().expect("conditions");
    let told = conditions.iter().find(|one| one["type"] == "DisruptionTarget").expect("the condition");
    assert_eq!(
        (&told["status"], &told["reason"], &told["message"]),
        (&json!("True"), &json!("DeletionByTaintManager"), &json!("Taint manager: deleting due to NoExecute taint"))
    );
    gone(&mut events, "shorter").await;
    gone(&mut events, "longer").await;
    patched(admin, &format!("{PODS}/none"), "merge", json!({"metadata": {"finalizers": null}})).await;
    settled(admin, PODS, "one pod stays", |list| list.len() == 1 && super::name(&list[0]) == "forever" && list[0]["status"]["phase"] == "Running")
        .await;
    ok(&admin.send("DELETE", PODS, "application/json", String::new()).await);
}

async fn a_taint_that_goes_evicts_nobody(admin: &mut Peer) {
    running(admin, "spared", "t2", bears(Some(3)), Value::Null).await;
    running(admin, "evicted", "t3", bears(Some(3)), Value::Null).await;
    let mut events = admin.watch(&format!("{PODS}?watch=true&fieldSelector=metadata.name%3Devicted")).await;
    // The spared one's time would be over before the other's.
    taint(admin, "t2", true).await;
    taint(admin, "t3", true).await;
    taint(admin, "t2", false).await;
    gone(&mut events, "evicted").await;
    let spared = admin.get(&format!("{PODS}/spared")).await;
    assert!(spared.code == 200 && spared.body["metadata"]["deletionTimestamp"].is_null(), "{}", spared.body);
}
