//! The Node object, its status and its lease: how the cluster knows that this node is here.

use crate::{
    agent::Options,
    events::{About, Recorder},
    images::Images,
    machine::{Machine, architecture, resources},
    pods::time::Time,
    session::{CallError, Link},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What schedulers and admission ask before they give a node pods or changes that older ones would not understand (KEP-5328), by upstream's names and sorted.
const DECLARED: [&str; 3] =
    ["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"];
/// Renewal of the lease.
const LEASE: Duration = Duration::from_secs(10);
/// Validity of the lease, seconds, as kubelet's default.
const LEASE_SECONDS: i64 = 40;
/// The runtime of processes, which have users and groups.
const PROCESSES: &str = "oci";
/// Report of an unchanged status.
const STATUS: Duration = Duration::from_secs(300);

/// Pressures that a status reports: which of them holds is for [`eviction`](crate::eviction) to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Too little memory is left.
    pub memory: bool,
    /// Too little of the disk is left.
    pub disk: bool,
    /// Process ids are nearly used up.
    pub pid: bool,
}

/// Why each condition is as it is, and since when.
#[derive(Clone, Debug, Default)]
pub struct Since {
    reasons: BTreeMap<&'static str, (&'static str, Time)>,
    /// Reasons that nobody was told of.
    news: Vec<&'static str>,
}

impl Since {
    fn of(&mut self, kind: &'static str, reason: &'static str, now: Time) -> Time {
        if let Some((_, since)) = self.reasons.get(kind).filter(|(known, _)| *known == reason) {
            return *since;
        }
        self.reasons.insert(kind, (reason, now));
        self.news.push(reason);
        now
    }

    /// The events of what has changed, as kubelet names them: reason and message.
    fn events(&mut self, node: &str) -> impl Iterator<Item = (String, String)> {
        self.news.drain(..).map(move |reason| {
            let reason = reason.replacen("Kubelet", "Node", 1);
            let message = format!("Node {node} status is now: {reason}");
            (reason, message)
        })
    }
}

/// The Node object as created.
pub fn node(options: &Options) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": options.node_name, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture(),
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture(),
    });
    for (key, value) in &options.labels {
        labels[key] = json!(value);
    }
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": options.node_name, "labels": labels },
        "spec": { "podCIDR": options.pod_cidr, "podCIDRs": [options.pod_cidr] },
    })
}

/// Its status.
pub fn status(
    options: &Options,
    machine: &Machine,
    handlers: &[&str],
    images: Vec<Value>,
    pressure: Pressure,
    since: &mut Since,
    now: Time,
) -> Value {
    let mut conditions = Vec::new();
    let pressures = [
        (
            "MemoryPressure",
            pressure.memory,
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            pressure.disk,
            "KubeletHasDiskPressure",
            "kubelet has disk pressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            pressure.pid,
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
    ];
    let mut add = |kind: &'static str, value: bool, reason: &'static str, message: &str| {
        let changed = since.of(kind, reason, now);
        conditions.push(json!({
            "type": kind, "status": if value { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": changed.rfc3339(),
        }));
    };
    for (kind, value, bad, bad_message, good, good_message) in pressures {
        if value { add(kind, true, bad, bad_message) } else { add(kind, false, good, good_message) }
    }
    add("Ready", true, "KubeletReady", "kubelet is posting ready status");
    json!({
        "capacity": machine.capacity(options.max_pods), "allocatable": resources(&options.allocatable(machine), options.max_pods), "conditions": conditions,
        "addresses": [{ "type": "InternalIP", "address": options.node_ip.to_string() }, { "type": "Hostname", "address": options.node_name }],
        "images": images,
        "nodeInfo": {
            "machineID": machine.machine_id, "systemUUID": machine.system_uuid, "bootID": machine.boot_id, "kernelVersion": machine.kernel,
            "osImage": machine.os_image, "containerRuntimeVersion": options.runtime_version, "kubeletVersion": options.version,
            "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": architecture(),
            // None is said of a machine without, and taken back from one that had some.
            "swap": (machine.swap > 0).then(|| json!({ "capacity": machine.swap })),
        },
        "runtimeHandlers": runtime_handlers(handlers),
        "features": { "supplementalGroupsPolicy": handlers.contains(&PROCESSES) },
        "declaredFeatures": DECLARED,
    })
}

/// The runtimes and what they can do (KEP-3857, KEP-127). The one without a name is who runs pods that name none; that is decided by their images, so it can do what processes can.
fn runtime_handlers(handlers: &[&str]) -> Vec<Value> {
    let processes = handlers.contains(&PROCESSES);
    let one = |name: &str, processes: bool| {
        let users = processes && std::path::Path::new("/proc/self/ns/user").exists();
        json!({ "name": name, "features": { "recursiveReadOnlyMounts": true, "userNamespaces": users } })
    };
    std::iter::once(one("", processes)).chain(handlers.iter().map(|name| one(name, *name == PROCESSES))).collect()
}

/// What a report is made of.
pub struct Reporter {
    /// The agent's options.
    pub options: Arc<Options>,
    /// The machine's size.
    pub machine: Machine,
    /// The runtimes' names.
    pub handlers: Vec<&'static str>,
    /// Images.
    pub images: Images,
    /// What the node runs short of.
    pub pressure: watch::Receiver<Pressure>,
    /// The API.
    pub link: Link,
    /// Where changes are told.
    pub recorder: Recorder,
}

impl Reporter {
    /// Registers, then keeps status and lease fresh until cancelled. Everything is said again after a cut.
    pub async fn run(mut self, cancel: CancellationToken) {
        let (options, link) = (self.options.clone(), self.link.clone());
        self.recorder.record(About::node(&options.node_name), false, "Starting", "Starting kubelet.");
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.report() => {}
            () = lease(&options, &link) => {}
        }
    }

    async fn report(&mut self) {
        let mut since = Since::default();
        let mut wait = Duration::from_millis(100);
        loop {
            self.link.connected().await;
            let (pressure, stamp) = (*self.pressure.borrow_and_update(), self.images.stamp());
            let images = self.images.status();
            let status = status(&self.options, &self.machine, &self.handlers, images, pressure, &mut since, Time::now());
            match register(&self.options, &self.link, status).await {
                Ok(()) => {
                    wait = Duration::from_millis(100);
                    for (reason, message) in since.events(&self.options.node_name) {
                        self.recorder.record(About::node(&self.options.node_name), false, &reason, &message);
                    }
                    self.due(stamp).await;
                }
                Err(why) => {
                    tracing::warn!(%why, "register this node; tried again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LEASE);
                }
            }
        }
    }

    /// Until a pressure or the images change, five minutes pass, or a new link is there (the control plane may be a new one).
    async fn due(&mut self, stamp: Option<std::time::SystemTime>) {
        let due = tokio::time::Instant::now() + STATUS;
        loop {
            tokio::select! {
                () = self.link.reconnected() => return,
                Ok(()) = self.pressure.changed() => return,
                () = tokio::time::sleep(LEASE) => {}
            }
            if tokio::time::Instant::now() >= due || self.images.stamp() != stamp {
                return;
            }
        }
    }
}

async fn register(options: &Options, link: &Link, status: Value) -> Result<(), CallError> {
    let path = format!("/api/v1/nodes/{}", options.node_name);
    let patch = json!({ "status": status }).to_string().into_bytes();
    let status_path = format!("{path}/status");
    let patch_status = || link.call("PATCH", &status_path, "application/strategic-merge-patch+json", patch.clone());
    match patch_status().await {
        Ok(_) => {}
        Err(why) if why.code() == Some(404) => {
            let mut object = node(options);
            object["status"] = status;
            match link.call("POST", "/api/v1/nodes", "application/json", object.to_string().into_bytes()).await {
                Ok(_) => {}
                Err(why) if why.code() == Some(409) => {}
                Err(why) => return Err(why),
            }
            patch_status().await?;
            return Ok(());
        }
        Err(why) => return Err(why),
    }
    // An object from an earlier life keeps its other labels and taints.
    let labels = json!({ "metadata": { "labels": node(options)["metadata"]["labels"] } });
    match link.call("PATCH", &path, "application/merge-patch+json", labels.to_string().into_bytes()).await {
        Err(why) if why.transient() => Err(why),
        Err(why) => {
            tracing::warn!(%why, "update this node's labels");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

async fn lease(options: &Options, link: &Link) {
    let base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let path = format!("{base}/{}", options.node_name);
    let spec = || json!({ "holderIdentity": options.node_name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": Time::now().rfc3339_micro() });
    loop {
        link.connected().await;
        let renewed = link.call("PATCH", &path, "application/merge-patch+json", json!({ "spec": spec() }).to_string().into_bytes()).await;
        let result = match renewed {
            Err(why) if why.code() == Some(404) => {
                let object = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": options.node_name, "namespace": "kube-node-lease" }, "spec": spec(),
                });
                link.call("POST", base, "application/json", object.to_string().into_bytes()).await
            }
            other => other,
        };
        let wait = match result {
            Ok(_) => LEASE,
            Err(why) => {
                tracing::debug!(%why, "renew this node's lease; tried again");
                Duration::from_secs(1)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once() {
        let mut since = Since::default();
        let (first, later) = (Time(0), Time(5_000));
        let told = |since: &mut Since| since.events("n").collect::<Vec<_>>();
        assert_eq!(since.of("PIDPressure", "KubeletHasSufficientPID", first), first);
        assert_eq!(told(&mut since), [("NodeHasSufficientPID".to_owned(), "Node n status is now: NodeHasSufficientPID".to_owned())]);
        assert_eq!(since.of("PIDPressure", "KubeletHasSufficientPID", later), first);
        assert!(told(&mut since).is_empty());
        assert_eq!(since.of("PIDPressure", "KubeletHasInsufficientPID", later), later);
        assert_eq!(told(&mut since)[0].0, "NodeHasInsufficientPID");
    }
}
