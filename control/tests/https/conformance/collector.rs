//! apimachinery/garbage_collector: what goes with its owner, what stays, and in which order.

use super::{delete, items, made, name, namespace, patched, settled, template};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    pods_go_with_their_controller(&mut admin).await;
    orphans_stay(&mut admin).await;
    replica_sets_go_with_their_deployment(&mut admin).await;
    orphaned_replica_sets_stay(&mut admin).await;
    foreground_keeps_the_owner_until_all_are_gone(&mut admin).await;
    dependents_of_two_owners_stay(&mut admin).await;
    circles_do_not_block(&mut admin).await;
    owners_elsewhere_own_nothing(&mut admin).await;
}

fn core(namespace: &str, kind: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{kind}")
}

fn controller(name: &str, replicas: u32) -> Value {
    let labels = json!({"of": name});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": labels, "template": template(&labels)}})
}

async fn replicated(admin: &mut Peer, namespace: &str, name: &str, replicas: u32) -> Value {
    let made = made(admin, &core(namespace, "replicationcontrollers"), controller(name, replicas)).await;
    let seen =
        move |list: &[Value]| list.iter().any(|rc| super::name(rc) == name && rc["status"]["replicas"].as_u64().unwrap_or(0) == u64::from(replicas));
    settled(admin, &core(namespace, "replicationcontrollers"), "the controller counts its pods", seen).await;
    made
}

async fn pods_go_with_their_controller(admin: &mut Peer) {
    namespace(admin, "gc-background").await;
    let rc = replicated(admin, "gc-background", "simple", 2).await;
    delete(admin, &core("gc-background", "replicationcontrollers/simple"), &rc, "Background").await;
    settled(admin, &core("gc-background", "pods"), "the pods go", |pods| pods.is_empty()).await;
}

async fn orphans_stay(admin: &mut Peer) {
    namespace(admin, "gc-orphan").await;
    let rc = replicated(admin, "gc-orphan", "simple", 10).await;
    delete(admin, &core("gc-orphan", "replicationcontrollers/simple"), &rc, "Orphan").await;
    settled(admin, &core("gc-orphan", "replicationcontrollers"), "the controller goes", |list| list.is_empty()).await;
    let pods = items(admin, &core("gc-orphan", "pods")).await;
    assert_eq!(pods.len(), 10);
    assert!(pods.iter().all(|pod| pod["metadata"]["ownerReferences"].is_null() && pod["metadata"]["deletionTimestamp"].is_null()));
}

fn deployment() -> Value {
    let labels = json!({"of": "simple"});
    json!({"metadata": {"name": "simple"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template(&labels)}})
}

fn apps(namespace: &str, kind: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/{kind}")
}

async fn deployed(admin: &mut Peer, namespace: &str) -> Value {
    let made = made(admin, &apps(namespace, "deployments"), deployment()).await;
    let counts = |list: &[Value]| list.iter().any(|rs| rs["status"]["replicas"] == 2);
    settled(admin, &apps(namespace, "replicasets"), "a replica set with two pods", counts).await;
    made
}

async fn replica_sets_go_with_their_deployment(admin: &mut Peer) {
    namespace(admin, "gc-sets").await;
    let deployment = deployed(admin, "gc-sets").await;
    delete(admin, &apps("gc-sets", "deployments/simple"), &deployment, "Background").await;
    settled(admin, &apps("gc-sets", "replicasets"), "the replica set goes", |list| list.is_empty()).await;
    settled(admin, &core("gc-sets", "pods"), "the pods go", |list| list.is_empty()).await;
}

async fn orphaned_replica_sets_stay(admin: &mut Peer) {
    namespace(admin, "gc-orphaned-sets").await;
    let deployment = deployed(admin, "gc-orphaned-sets").await;
    delete(admin, &apps("gc-orphaned-sets", "deployments/simple"), &deployment, "Orphan").await;
    settled(admin, &apps("gc-orphaned-sets", "deployments"), "the deployment goes", |list| list.is_empty()).await;
    let sets = items(admin, &apps("gc-orphaned-sets", "replicasets")).await;
    assert_eq!((sets.len(), &sets[0]["metadata"]["ownerReferences"]), (1, &Value::Null));
    assert_eq!(items(admin, &core("gc-orphaned-sets", "pods")).await.len(), 2);
}

async fn foreground_keeps_the_owner_until_all_are_gone(admin: &mut Peer) {
    namespace(admin, "gc-foreground").await;
    let rc = replicated(admin, "gc-foreground", "simple", 10).await;
    let mut pods = admin.watch(&format!("{}?watch=true", core("gc-foreground", "pods"))).await;
    delete(admin, &core("gc-foreground", "replicationcontrollers/simple"), &rc, "Foreground").await;
    settled(admin, &core("gc-foreground", "replicationcontrollers"), "the controller goes", |list| list.is_empty()).await;
    assert_eq!(items(admin, &core("gc-foreground", "pods")).await.len(), 0, "none is left when the owner is gone");
    let mut deleted = 0;
    while deleted < 10 {
        let event = pods.next().await.expect("an event");
        deleted += u32::from(event["type"] == "DELETED");
    }
}

async fn dependents_of_two_owners_stay(admin: &mut Peer) {
    namespace(admin, "gc-two").await;
    let going = replicated(admin, "gc-two", "going", 10).await;
    let staying = made(admin, &core("gc-two", "replicationcontrollers"), controller("staying", 0)).await;
    let pods = items(admin, &core("gc-two", "pods")).await;
    let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "staying", "uid": staying["metadata"]["uid"]});
    for pod in &pods[..5] {
        let both =
            patched(admin, &core("gc-two", &format!("pods/{}", name(pod))), "strategic-merge", json!({"metadata": {"ownerReferences": [owner]}}))
                .await;
        assert_eq!(both["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(2), "references merge by uid");
    }
    delete(admin, &core("gc-two", "replicationcontrollers/going"), &going, "Foreground").await;
    settled(admin, &core("gc-two", "replicationcontrollers"), "the controller goes", |list| list.len() == 1).await;
    let left = items(admin, &core("gc-two", "pods")).await;
    assert_eq!(left.len(), 5);
    for pod in left {
        assert!(pod["metadata"]["deletionTimestamp"].is_null());
        assert_eq!(pod["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1), "{pod}");
    }
}

async fn circles_do_not_block(admin: &mut Peer) {
    namespace(admin, "gc-circle").await;
    let mut pods = Vec::new();
    for at in 1..=3 {
        let pod = json!({"metadata": {"name": format!("pod{at}")}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pods.push(made(admin, &core("gc-circle", "pods"), pod).await);
    }
    for at in 0..3 {
        let owner = &pods[(at + 2) % 3];
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": name(owner), "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true});
        let path = core("gc-circle", &format!("pods/pod{}", at + 1));
        patched(admin, &path, "strategic-merge", json!({"metadata": {"ownerReferences": [reference]}})).await;
    }
    delete(admin, &core("gc-circle", "pods/pod1"), &pods[0], "Foreground").await;
    settled(admin, &core("gc-circle", "pods"), "the circle goes", |list| list.is_empty()).await;
}

async fn owners_elsewhere_own_nothing(admin: &mut Peer) {
    for place in ["gc-here", "gc-there"] {
        namespace(admin, place).await;
    }
    let owner = made(admin, &core("gc-there", "configmaps"), json!({"metadata": {"name": "owner"}})).await;
    let uid = owner["metadata"]["uid"].as_str().expect("a uid");
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    let told = |list: &[Value], about: &str, place: &str| {
        let message = format!("ownerRef [v1/ConfigMap, namespace: {place}, name: owner, uid: {uid}] does not exist in namespace \"{place}\"");
        let about = |event: &&Value| event["involvedObject"]["name"] == about && event["reason"] == "OwnerRefInvalidNamespace";
        list.iter().filter(about).any(|event| event["type"] == "Warning" && event["message"] == message)
    };
    // In a namespace: as if the owner was not there.
    made(admin, &core("gc-here", "secrets"), json!({"metadata": {"name": "theirs", "ownerReferences": reference}})).await;
    settled(admin, &core("gc-here", "events"), "it is told", |list| told(list, "theirs", "gc-here")).await;
    settled(admin, &core("gc-here", "secrets"), "it goes", |list| list.iter().all(|one| name(one) != "theirs")).await;
    // In none: it cannot be owned from a namespace, and nothing is concluded.
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    made(admin, classes, json!({"metadata": {"name": "gc-class", "ownerReferences": reference}, "value": 1})).await;
    settled(admin, &core("default", "events"), "it is told", |list| told(list, "gc-class", "")).await;
    let class = admin.get(&format!("{classes}/gc-class")).await;
    assert!(class.code == 200 && class.body["metadata"]["deletionTimestamp"].is_null(), "{}", class.body);
}
