//! What upstream's conformance suite takes for granted of an API server and its controllers: the same sequences of calls and checks, in our words.
//!
//! A file is a file of `test/e2e` upstream, a function a spec of it. What the operations of every kind have in common is proven by `operations`.

#[path = "api/cluster.rs"]
mod cluster;
#[path = "conformance/collector.rs"]
mod collector;
#[path = "conformance/definitions.rs"]
mod definitions;
#[path = "conformance/namespaces.rs"]
mod namespaces;
#[path = "conformance/openapi.rs"]
mod openapi;
#[path = "conformance/owners.rs"]
mod owners;
#[path = "conformance/reading.rs"]
mod reading;

use cluster::{Answer, Cluster, Peer};
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
async fn kinds_of_ones_own() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    definitions::all(&mut admin).await;
    openapi::all(&mut admin).await;
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
            events.next().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what}"))
}

/// A template of one container that sleeps.
fn template(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
