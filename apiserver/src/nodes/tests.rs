//! A store with pods in it, for the tests of what nodes are fed and asked.

mod feed;
mod sessions;

use super::*;
use coracle_store::{Draft, Expect, Key, Meta, Op, Store, Txn};
use serde_json::{Value, json};
use std::time::Duration;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(coracle_store::Options::new(dir.path())).await.unwrap();
        Self { _dir: dir, store }
    }
    async fn put(&self, resource: &str, namespace: &str, name: &str, object: Value) -> u64 {
        self.commit(vec![Op::Put { key: Key::new(resource, namespace, name), expect: Expect::Any, draft: draft(object) }]).await
    }
    async fn delete(&self, resource: &str, namespace: &str, name: &str) -> u64 {
        self.commit(vec![Op::Delete { key: Key::new(resource, namespace, name), expect: Expect::Any }]).await
    }
    async fn commit(&self, ops: Vec<Op>) -> u64 {
        self.store.commit(Txn { ops }).await.map(|c| c.revision).unwrap_or_default()
    }
}

fn draft(mut object: Value) -> Draft {
    object["metadata"]["resourceVersion"] = "".into();
    let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (k, v) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        labels.push((k.as_str().into(), v.as_str().unwrap().into()));
    }
    let mut fields: Vec<(Box<str>, Box<str>)> = Vec::new();
    if let Some(node) = object["spec"]["nodeName"].as_str() {
        fields.push(("spec.nodeName".into(), node.into()));
    }
    let uid = object["metadata"]["uid"].as_str().unwrap_or("u").into();
    let json = object.to_string();
    let mark = "\"resourceVersion\":\"";
    let hole = (json.find(mark).unwrap() + mark.len()) as u32;
    Draft { json: json.into(), hole, meta: Meta { uid, labels, fields, owners: vec![] }.into() }
}

fn pod(node: &str, secrets: &[&str]) -> Value {
    let volumes: Vec<Value> = secrets.iter().map(|s| json!({"name": s, "secret": {"secretName": s}})).collect();
    let containers = json!([{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]);
    json!({"metadata": {"uid": "pod-uid"}, "spec": {"nodeName": node, "serviceAccountName": "default", "volumes": volumes, "containers": containers}})
}
