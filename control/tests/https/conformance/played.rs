//! A node that is played over the API: it tells of its pods what their images say.
//!
//! `exit:CODE` ends with that code, `odd:CODE` does in pods of an odd index and with 0 in others, `once:CODE` in the first pod of a name or index alone;
//! `absent:TAG` (a number) never starts; all others run and are ready. Deleted pods go at once.

use crate::cluster::{Cluster, Peer};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};

const BEAT: Duration = Duration::from_secs(10);

/// A ready node with these labels and taints, which plays until the cluster stops.
pub async fn node(cluster: &Cluster, name: &str, labels: Value, taints: Value) {
    let mut admin = cluster.admin().await;
    super::made(&mut admin, "/api/v1/nodes", json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})).await;
    let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
    super::made(&mut admin, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
    let room = json!({"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "10Gi"});
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now(), "lastTransitionTime": now()}]);
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": ready, "addresses": addresses}});
    super::patched(&mut admin, &format!("/api/v1/nodes/{name}/status"), "merge", status).await;
    let mut pods = cluster.admin().await.watch(&format!("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3D{name}")).await;
    let mut played = Played {
        admin,
        lease: format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"),
        seen: HashSet::new(),
        told: HashSet::new(),
        pods: 0,
    };
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                _ = beat.tick() => played.renew().await,
                event = pods.next() => match event {
                    Some(event) if event["type"] != "DELETED" => played.pod(&event["object"]).await,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    });
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How a pod goes.
enum Fate {
    Runs,
    Ends(i64),
    Waits,
}

struct Played {
    admin: Peer,
    lease: String,
    /// Pods of which one has failed.
    seen: HashSet<String>,
    /// Whose fate is told: there may be older events of them under way.
    told: HashSet<String>,
    pods: u32,
}

impl Played {
    async fn renew(&mut self) {
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        self.patch(&self.lease.clone(), json!({"spec": {"renewTime": at}})).await;
    }

    /// What is refused has changed meanwhile, and is told again.
    async fn patch(&mut self, path: &str, patch: Value) {
        self.admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await;
    }

    async fn pod(&mut self, pod: &Value) {
        let metadata = &pod["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = format!("/api/v1/namespaces/{}/pods/{}", text(&metadata["namespace"]), text(&metadata["name"]));
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let ended = matches!(phase, "Succeeded" | "Failed");
        if metadata["deletionTimestamp"].is_string() {
            if !ended {
                self.patch(&format!("{path}/status"), json!({"metadata": {"uid": metadata["uid"]}, "status": self.status(pod, &Fate::Ends(137))}))
                    .await;
            }
            let last = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}});
            self.admin.send("DELETE", &path, "application/json", last.to_string()).await;
        } else if phase != "Running" && !ended && self.told.insert(text(&metadata["uid"])) {
            let fate = self.fate(pod);
            if !matches!(fate, Fate::Waits) {
                self.pods += 1;
                self.patch(&format!("{path}/status"), json!({"metadata": {"uid": metadata["uid"]}, "status": self.status(pod, &fate)})).await;
            }
        }
    }

    fn fate(&mut self, pod: &Value) -> Fate {
        let metadata = &pod["metadata"];
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let index: Option<u32> = metadata["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().and_then(|index| index.parse().ok());
        let Some((how, code)) = image.split_once(':').and_then(|(how, code)| Some((how, code.parse().ok()?))) else { return Fate::Runs };
        match how {
            "absent" => Fate::Waits,
            "exit" => Fate::Ends(code),
            "odd" => Fate::Ends(if index.is_some_and(|index| index % 2 == 1) { code } else { 0 }),
            "once" => {
                let of = format!("{} {} {index:?}", metadata["namespace"], metadata["generateName"]);
                let first = self.seen.insert(of);
                // A pod that restarts its containers fails without anybody else's help, and goes on.
                let restarts = pod["spec"]["restartPolicy"] != "Never";
                Fate::Ends(if first && !restarts { code } else { 0 })
            }
            _ => Fate::Runs,
        }
    }

    fn status(&self, pod: &Value, fate: &Fate) -> Value {
        let ip = format!("10.244.{}.{}", self.pods / 250, self.pods % 250 + 1);
        let (phase, ready, state) = match fate {
            Fate::Ends(code) => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                let phase = if *code == 0 { "Succeeded" } else { "Failed" };
                (phase, false, json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}}))
            }
            _ => ("Running", true, json!({"running": {"startedAt": now()}})),
        };
        let condition = |kind: &str, holds: bool| {
            let status = if holds { "True" } else { "False" };
            json!({"type": kind, "status": status, "lastTransitionTime": now()})
        };
        let mut conditions: Vec<Value> = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|one| !matches!(one["type"].as_str(), Some("Initialized" | "ContainersReady" | "Ready")));
        conditions.extend([condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready)]);
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten().map(|container| {
            json!({"name": container["name"], "image": container["image"], "imageID": "sha256:1", "restartCount": 0, "ready": ready, "started": ready, "state": state})
        });
        json!({
            "phase": phase, "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}], "podIP": ip, "podIPs": [{"ip": ip}], "startTime": pod["metadata"]["creationTimestamp"],
            "conditions": conditions, "containerStatuses": containers.collect::<Vec<_>>(), "observedGeneration": pod["metadata"]["generation"],
        })
    }
}
