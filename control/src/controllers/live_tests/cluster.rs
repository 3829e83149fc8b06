//! A control plane in this process, and a node that is played by the test.

use crate::control::{Control, Options as ControlOptions};
use coracle_apiserver::{
    client::{Client, DeleteOptions},
    pipeline::PatchKind,
    view::stamp,
};
use coracle_link::pki::Authority;
use coracle_store::{Object, Scope};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Cluster {
    pub(super) control: Control,
    pub(super) client: Client,
    _dir: tempfile::TempDir,
}

pub(super) fn value(object: &Object) -> Value {
    serde_json::from_slice(&object.json).expect("stored JSON")
}

impl Cluster {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(&dir.path().join("pki")).expect("an authority");
        let any = "127.0.0.1:0".parse().expect("an address");
        let options = ControlOptions {
            data_dir: dir.path().into(),
            api_addr: any,
            link_addr: any,
            pod_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/16".into(),
            authority,
            settings: Default::default(),
        };
        let control = Control::start(options).await.expect("a control plane");
        let client = control.client().clone();
        Self { control, client, _dir: dir }
    }

    pub(super) async fn stop(self) {
        let late = self.control.stop().await;
        assert!(late.is_empty(), "late: {late:?}");
    }

    /// Waits, change by change, until the condition holds.
    pub(super) async fn until<T>(&self, what: &str, mut check: impl FnMut(&Client) -> Option<T>) -> T {
        let scope = Scope { resource: None, namespace: None, name: None, field: None };
        let (_, mut watch) = self.client.store().list_watch(scope);
        let wait = async {
            loop {
                if let Some(found) = check(&self.client) {
                    return found;
                }
                watch.next().await.expect("a watch");
            }
        };
        let found = tokio::time::timeout(LIMIT, wait).await;
        found.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}\n{}", self.dump()))
    }

    fn dump(&self) -> String {
        let snapshot = self.client.store().snapshot();
        let mut text = String::new();
        for resource in ["nodes", "namespaces", "deployments.apps", "replicasets.apps", "jobs.batch", "pods", "events"] {
            for object in snapshot.range(resource, None, None) {
                let value = value(object);
                text += &format!("{resource} {}: {} {} {}\n", object.key.name, value["status"], value["reason"], value["message"]);
            }
        }
        text
    }

    pub(super) fn all(&self, resource: &str) -> Vec<Value> {
        self.client.store().snapshot().range(resource, Some("default"), None).map(|object| value(object)).collect()
    }

    pub(super) async fn create(&self, resource: &str, object: Value) -> Arc<Object> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.client.create(resource, &namespace, object).await.unwrap_or_else(|status| panic!("{resource}: {status}"))
    }

    pub(super) async fn patch(&self, resource: &str, name: &str, patch: Value) {
        self.client.patch(resource, "default", name, "", PatchKind::Strategic, patch).await.unwrap_or_else(|status| panic!("{name}: {status}"));
    }

    pub(super) async fn add_node(&self, name: &str) {
        let at = stamp(Timestamp::now());
        self.create("nodes", json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } })).await;
        let status = json!({ "status": {
            "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" }, "capacity": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": at, "lastTransitionTime": at }],
        } });
        self.client.patch("nodes", "", name, "status", PatchKind::Merge, status).await.expect("a status");
    }
}

/// Plays the node: bound pods run and are ready at once, those of Jobs succeed, deleted ones go.
pub(super) async fn play_node(client: Client, stop: CancellationToken) {
    let scope = Scope { resource: Some("pods".into()), namespace: None, name: None, field: None };
    let (_, mut watch) = client.store().list_watch(scope);
    let mut address = 0u32;
    loop {
        let changes = tokio::select! {
            () = stop.cancelled() => return,
            changes = watch.next() => changes.expect("a watch"),
        };
        for pod in changes.iter().filter_map(|change| change.new.as_ref()) {
            let Some(pod) = client.get("pods", &pod.key.namespace, &pod.key.name) else { continue };
            let object = value(&pod);
            let (namespace, name) = (&*pod.key.namespace, &*pod.key.name);
            if object["metadata"].get("deletionTimestamp").is_some() {
                if object["metadata"]["deletionGracePeriodSeconds"] != json!(0) {
                    let options = DeleteOptions { grace_seconds: Some(0), uid: Some(pod.meta.uid.to_string()), ..DeleteOptions::default() };
                    drop(client.delete("pods", namespace, name, options).await);
                }
            } else if object["spec"].get("nodeName").is_some() && !matches!(object["status"]["phase"].as_str(), Some("Running" | "Succeeded")) {
                address += 1;
                let job = object["metadata"]["ownerReferences"][0]["kind"] == "Job";
                let (phase, ready) = if job { ("Succeeded", "False") } else { ("Running", "True") };
                let at = stamp(Timestamp::now());
                let ip = format!("10.244.{}.{}", address / 250, address % 250 + 1);
                let status = json!({ "status": {
                    "phase": phase, "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": at }],
                } });
                drop(client.patch("pods", namespace, name, "status", PatchKind::Strategic, status).await);
            }
        }
    }
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}
