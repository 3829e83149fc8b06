//! What upstream's conformance suite takes for granted of an API server and its controllers: the same sequences of calls and checks, in our words.
//!
//! A file is a file of `test/e2e` upstream, a function a spec of it. What the operations of every kind have in common is proven by `operations`.

mod accounts;
mod aggregator;
mod applying;
mod budgets;
mod certificates;
mod collector;
mod daemon_sets;
mod definitions;
mod deployments;
mod events;
mod hooks;
mod jobs;
mod namespaces;
mod network;
mod openapi;
mod owners;
mod played;
mod pods;
mod quotas;
mod reading;
mod refusals;
mod replica_sets;
mod scheduling;
mod stateful_sets;
mod storage;
mod taints;
mod versions;

use crate::cluster::{Answer, Cluster, Events, Peer};
use serde_json::{Value, json};
use std::time::Duration;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_and_owners() {
    let cluster = Cluster::start().await;
    tokio::join!(collector::all(&cluster), namespaces::all(&cluster), owners::all(&cluster), reading::all(&cluster));
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_by_themselves() {
    let cluster = Cluster::start().await;
    let small = async { tokio::join!(aggregator::all(&cluster), certificates::all(&cluster), events::all(&cluster), storage::all(&cluster)) };
    tokio::join!(small, quotas::all(&cluster), hooks::all(&cluster));
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_whose_revision_is_gone() {
    reading::chunks_go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_of_ones_own() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    definitions::all(&mut admin).await;
    openapi::all(&mut admin).await;
    versions::all(&cluster).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_what_is_around_them() {
    let cluster = Cluster::start().await;
    played::node(&cluster, "n1", json!({}), json!([])).await;
    let around = async { tokio::join!(network::all(&cluster), accounts::all(&cluster), applying::all(&cluster)) };
    tokio::join!(pods::all(&cluster), scheduling::all(&cluster), taints::all(&cluster), around, refusals::all(&cluster));
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads() {
    let cluster = Cluster::start().await;
    played::node(&cluster, "n1", json!({}), json!([])).await;
    let sets =
        async { tokio::join!(deployments::all(&cluster), replica_sets::all(&cluster), stateful_sets::all(&cluster), daemon_sets::all(&cluster)) };
    tokio::join!(sets, jobs::all(&cluster), budgets::all(&cluster));
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

/// A new namespace.
async fn namespace(admin: &mut Peer, name: &str) {
    ok(&admin.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await);
}

/// What was made.
async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    ok(&answer);
    answer.body
}

async fn patched(admin: &mut Peer, path: &str, kind: &str, patch: Value) -> Value {
    let answer = admin.send("PATCH", path, &format!("application/{kind}-patch+json"), patch.to_string()).await;
    ok(&answer);
    answer.body
}

async fn put(admin: &mut Peer, path: &str, object: &Value) -> Value {
    let answer = admin.send("PUT", path, "application/json", object.to_string()).await;
    ok(&answer);
    answer.body
}

/// Reads, changes and writes, again after a lost race: controllers write these too.
async fn written(admin: &mut Peer, path: &str, change: impl Fn(&mut Value)) -> Value {
    loop {
        let mut object = admin.get(path).await.body;
        change(&mut object);
        let answer = admin.send("PUT", path, "application/json", object.to_string()).await;
        if answer.code != 409 {
            ok(&answer);
            return answer.body;
        }
    }
}

/// Conditions that others put into a workload's status are kept, and told to who watches its list (with a query) since it was as `before`.
async fn the_status_is_told(admin: &mut Peer, list: &str, path: &str, before: &Value) {
    let since = before["metadata"]["resourceVersion"].as_str().expect("a revision");
    let mut events = admin.watch(&format!("{list}&watch=true&resourceVersion={since}")).await;
    let condition = |kind: &str| json!([{"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test"}]);
    written(admin, path, |set| set["status"]["conditions"] = condition("StatusUpdate")).await;
    told_of(&mut events, "StatusUpdate").await;
    patched(admin, path, "merge", json!({"status": {"conditions": condition("StatusPatched")}})).await;
    told_of(&mut events, "StatusPatched").await;
}

/// Deletes with this propagation and the object's uid as precondition.
async fn delete(admin: &mut Peer, path: &str, object: &Value, propagation: &str) {
    let options = json!({"propagationPolicy": propagation, "preconditions": {"uid": object["metadata"]["uid"]}});
    ok(&admin.send("DELETE", path, "application/json", options.to_string()).await);
}

async fn items(admin: &mut Peer, path: &str) -> Vec<Value> {
    let list = admin.get(path).await;
    ok(&list);
    list.body["items"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn ok(answer: &Answer) {
    assert!((200..300).contains(&answer.code), "{}: {}", answer.code, String::from_utf8_lossy(&answer.bytes));
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Asks until the items of a list are as wanted; the list is read again at each change that a watch tells.
async fn settled(admin: &mut Peer, path: &str, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let watch = format!("{path}{}watch=true&allowWatchBookmarks=false", if path.contains('?') { "&" } else { "?" });
    let waiting = async {
        loop {
            let list = admin.get(path).await;
            let found = list.body["items"].as_array().cloned().unwrap_or_default();
            if wanted(&found) {
                return found;
            }
            let revision = list.body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let mut events = admin.watch(&format!("{watch}&resourceVersion={revision}")).await;
            // A watch that is quiet is no mistake of its own: what was waited for is told below.
            let _ = tokio::time::timeout(Duration::from_secs(15), events.next()).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), waiting).await {
        Ok(found) => found,
        Err(_) => {
            let left = items(admin, path).await;
            let left: Vec<_> = left.iter().map(|one| (&one["metadata"]["name"], &one["metadata"]["ownerReferences"], &one["status"])).collect();
            panic!("{what}: {left:?}")
        }
    }
}

/// Waits for a state of one object of a collection.
async fn reached(admin: &mut Peer, collection: &str, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let one = format!("{collection}?fieldSelector=metadata.name%3D{name}");
    let what = format!("{collection}/{name}: {what}");
    settled(admin, &one, &what, |list| list.first().is_some_and(&wanted)).await.remove(0)
}

/// Reads events until an object of this name is deleted.
async fn gone(events: &mut Events, name: &str) {
    loop {
        let event = events.next().await.expect("an event");
        if event["type"] == "DELETED" && self::name(&event["object"]) == name {
            return;
        }
    }
}

/// Reads events until a status has a condition of this type.
async fn told_of(events: &mut Events, condition: &str) {
    loop {
        let event = events.next().await.expect("an event");
        if event["object"]["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == condition)) {
            return;
        }
    }
}

/// A template of one container that sleeps.
fn template(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
