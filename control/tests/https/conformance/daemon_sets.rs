//! apps/daemon_set: a pod on each node that fits, and how templates replace one another.

use super::{items, made, name, namespace, ok, patched, played, put, reached, settled, template, the_status_is_told};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The nodes of this file have a label, and a taint that keeps the pods of others away.
const OURS: &str = "daemons";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    for node in ["d1", "d2"] {
        played::node(cluster, node, json!({OURS: "yes"}), json!([{"key": OURS, "effect": "NoSchedule"}])).await;
    }
    simple(&mut admin).await;
    complex(&mut admin).await;
    failed_pods_are_made_again(&mut admin).await;
    templates_roll(&mut admin).await;
    going_back_restarts_nothing(&mut admin).await;
    the_status_is_written(&mut admin).await;
}

fn sets(place: &str) -> String {
    format!("/apis/apps/v1/namespaces/{place}/daemonsets")
}

fn pods(place: &str) -> String {
    format!("/api/v1/namespaces/{place}/pods")
}

async fn set(admin: &mut Peer, place: &str, selector: Value) -> Value {
    namespace(admin, place).await;
    let labels = json!({"daemonset-name": "ds"});
    let mut template = template(&labels);
    template["spec"]["containers"][0]["image"] = "i:1".into();
    template["spec"]["nodeSelector"] = selector;
    template["spec"]["tolerations"] = json!([{"key": OURS, "operator": "Exists"}]);
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    made(admin, &sets(place), json!({"metadata": {"name": "ds", "labels": labels}, "spec": spec})).await
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Waits until this many nodes should have a pod, have it, and it is of the newest template and ready.
async fn everywhere(admin: &mut Peer, place: &str, nodes: u32) -> Value {
    reached(admin, &sets(place), "ds", &format!("pods on {nodes} nodes"), |set| {
        let status = &set["status"];
        let fields = ["desiredNumberScheduled", "currentNumberScheduled", "numberReady"];
        let counted = fields.iter().all(|field| status[field] == nodes)
            && ["updatedNumberScheduled", "numberAvailable"].iter().all(|field| status[field].as_u64().unwrap_or(0) == u64::from(nodes));
        counted && status["observedGeneration"] == set["metadata"]["generation"]
    })
    .await
}

async fn simple(admin: &mut Peer) {
    set(admin, "ds-simple", json!({OURS: "yes"})).await;
    everywhere(admin, "ds-simple", 2).await;
    let first = items(admin, &pods("ds-simple")).await;
    let nodes: BTreeSet<_> = first.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["d1", "d2"]));
    ok(&admin.send("DELETE", &format!("{}/{}", pods("ds-simple"), name(&first[0])), "application/json", String::new()).await);
    settled(admin, &pods("ds-simple"), "it is revived", |pods| pods.len() == 2 && pods.iter().all(|pod| name(pod) != name(&first[0]))).await;
    everywhere(admin, "ds-simple", 2).await;
    let all = format!("{}?labelSelector=daemonset-name%3Dds", sets("ds-simple"));
    assert_eq!(items(admin, &all).await.len(), 1);
    ok(&admin.send("DELETE", &all, "application/json", String::new()).await);
    settled(admin, &sets("ds-simple"), "it goes", |list| list.is_empty()).await;
    settled(admin, &pods("ds-simple"), "its pods go", |list| list.is_empty()).await;
}

async fn complex(admin: &mut Peer) {
    set(admin, "ds-complex", json!({"color": "blue"})).await;
    everywhere(admin, "ds-complex", 0).await;
    assert!(items(admin, &pods("ds-complex")).await.is_empty());
    let color = |color: &str| json!({"metadata": {"labels": {"color": color}}});
    patched(admin, "/api/v1/nodes/d1", "merge", color("blue")).await;
    everywhere(admin, "ds-complex", 1).await;
    patched(admin, "/api/v1/nodes/d1", "merge", color("green")).await;
    settled(admin, &pods("ds-complex"), "the pod goes", |pods| pods.is_empty()).await;
    let green = json!({"spec": {"template": {"spec": {"nodeSelector": {"color": "green"}}}, "updateStrategy": {"type": "RollingUpdate"}}});
    patched(admin, &format!("{}/ds", sets("ds-complex")), "strategic-merge", green).await;
    everywhere(admin, "ds-complex", 1).await;
    let there = items(admin, &pods("ds-complex")).await;
    assert_eq!((there.len(), &there[0]["spec"]["nodeName"]), (1, &json!("d1")));
}

async fn failed_pods_are_made_again(admin: &mut Peer) {
    set(admin, "ds-failed", json!({OURS: "yes"})).await;
    everywhere(admin, "ds-failed", 2).await;
    let mut ill = items(admin, &pods("ds-failed")).await.remove(0);
    ill["metadata"]["resourceVersion"] = Value::Null;
    ill["status"]["phase"] = "Failed".into();
    put(admin, &format!("{}/{}/status", pods("ds-failed"), name(&ill)), &ill).await;
    settled(admin, &pods("ds-failed"), "another comes in its place", |pods| {
        pods.len() == 2 && pods.iter().all(|pod| name(pod) != name(&ill) && pod["status"]["phase"] == "Running")
    })
    .await;
    everywhere(admin, "ds-failed", 2).await;
}

async fn hash_of(admin: &mut Peer, place: &str, revision: u32) -> Value {
    let path = format!("/apis/apps/v1/namespaces/{place}/controllerrevisions");
    let list = settled(admin, &path, "the revision is there", |list| list.iter().any(|one| one["revision"] == revision)).await;
    let found = list.into_iter().find(|one| one["revision"] == revision).expect("it is there");
    found["metadata"]["labels"]["controller-revision-hash"].clone()
}

async fn templates_roll(admin: &mut Peer) {
    set(admin, "ds-roll", json!({OURS: "yes"})).await;
    everywhere(admin, "ds-roll", 2).await;
    let first = hash_of(admin, "ds-roll", 1).await;
    let all = |pods: &[Value], hash: &Value| pods.iter().all(|pod| pod["metadata"]["labels"]["controller-revision-hash"] == *hash);
    assert!(all(&items(admin, &pods("ds-roll")).await, &first));
    patched(admin, &format!("{}/ds", sets("ds-roll")), "strategic-merge", image("i:2")).await;
    everywhere(admin, "ds-roll", 2).await;
    let second = hash_of(admin, "ds-roll", 2).await;
    let now = settled(admin, &pods("ds-roll"), "the old pods are gone", |pods| pods.len() == 2 && all(pods, &second)).await;
    assert!(first != second && now.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "i:2"));
}

async fn going_back_restarts_nothing(admin: &mut Peer) {
    set(admin, "ds-back", json!({OURS: "yes"})).await;
    everywhere(admin, "ds-back", 2).await;
    patched(admin, &format!("{}/ds", sets("ds-back")), "strategic-merge", image("absent:1")).await;
    let is = |pod: &Value, image: &str| pod["spec"]["containers"][0]["image"] == image && pod["metadata"]["deletionTimestamp"].is_null();
    let part = settled(admin, &pods("ds-back"), "one is replaced and the other waits", |pods| {
        pods.len() == 2 && pods.iter().any(|pod| is(pod, "absent:1")) && pods.iter().any(|pod| is(pod, "i:1"))
    })
    .await;
    let kept = part.iter().find(|pod| is(pod, "i:1")).expect("one of the first template");
    patched(admin, &format!("{}/ds", sets("ds-back")), "strategic-merge", image("i:1")).await;
    everywhere(admin, "ds-back", 2).await;
    let now = items(admin, &pods("ds-back")).await;
    assert!(now.iter().all(|pod| is(pod, "i:1")) && now.iter().any(|pod| pod["metadata"]["uid"] == kept["metadata"]["uid"]), "{now:?}");
}

async fn the_status_is_written(admin: &mut Peer) {
    set(admin, "ds-status", json!({OURS: "yes"})).await;
    let set = everywhere(admin, "ds-status", 2).await;
    let sets = sets("ds-status");
    the_status_is_told(admin, &format!("{sets}?"), &format!("{sets}/ds/status"), &set).await;
}
