//! The Node object, its status and its lease: how the cluster knows that this node is here.

use crate::{
    agent::Options,
    eviction::Observed,
    images::Images,
    pods::time::Time,
    session::{CallError, Link},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Renewal of the lease.
const LEASE: Duration = Duration::from_secs(10);
/// Validity of the lease, seconds, as kubelet's default.
const LEASE_SECONDS: i64 = 40;
/// Report of an unchanged status.
const STATUS: Duration = Duration::from_secs(300);

/// What the machine has.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system that the data directory is on.
    pub disk: i64,
    /// Of `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// Of `/etc/os-release`.
    pub os_image: String,
    /// Of `/etc/machine-id`.
    pub machine_id: String,
    /// Of the running kernel.
    pub boot_id: String,
}

impl Machine {
    /// Reads this machine.
    pub fn read(data_dir: &std::path::Path) -> Self {
        let line = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_string()).unwrap_or_default();
        let memory = line("/proc/meminfo")
            .lines()
            .find_map(|l| l.strip_prefix("MemTotal:"))
            .and_then(|l| l.trim().strip_suffix("kB"))
            .and_then(|kb| kb.trim().parse::<i64>().ok())
            .map_or(0, |kb| kb.saturating_mul(1024));
        let disk = rustix::fs::statvfs(data_dir).map_or(0, |s| i64::try_from(s.f_blocks.saturating_mul(s.f_frsize)).unwrap_or(i64::MAX));
        let os_image = line("/etc/os-release")
            .lines()
            .find_map(|l| l.strip_prefix("PRETTY_NAME="))
            .map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_string());
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            memory,
            disk,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image,
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// Memory that pods may use: all but a small reserve for the agent itself.
    pub fn allocatable_memory(&self) -> i64 {
        (self.memory - (100 << 20)).max(self.memory / 2)
    }
}

/// Go's names for machine architectures, which images and labels use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Pressures that a status reports: which of them holds is for [`eviction::Thresholds`](crate::eviction::Thresholds) to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Too little memory is left.
    pub memory: bool,
    /// Too little of the disk is left.
    pub disk: bool,
    /// Process ids are nearly used up.
    pub pid: bool,
}

/// Condition types and how long each has had its value.
#[derive(Clone, Debug, Default)]
pub struct Since {
    values: std::collections::BTreeMap<&'static str, (bool, Time)>,
}

impl Since {
    fn of(&mut self, kind: &'static str, value: bool, now: Time) -> Time {
        let entry = self.values.entry(kind).or_insert((value, now));
        if entry.0 != value {
            *entry = (value, now);
        }
        entry.1
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
pub fn status(options: &Options, machine: &Machine, images: Vec<Value>, pressure: Pressure, since: &mut Since, now: Time) -> Value {
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
    let mut add = |kind: &'static str, value: bool, reason: &str, message: &str| {
        let changed = since.of(kind, value, now);
        conditions.push(json!({
            "type": kind, "status": if value { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": changed.rfc3339(),
        }));
    };
    for (kind, value, bad, bad_message, good, good_message) in pressures {
        if value { add(kind, true, bad, bad_message) } else { add(kind, false, good, good_message) }
    }
    add("Ready", true, "KubeletReady", "kubelet is posting ready status");
    let capacity = |memory: i64| {
        json!({
            "cpu": machine.cpus.to_string(), "memory": format!("{}Ki", memory / 1024), "pods": options.max_pods.to_string(),
            "ephemeral-storage": format!("{}Ki", machine.disk / 1024),
        })
    };
    json!({
        "capacity": capacity(machine.memory), "allocatable": capacity(machine.allocatable_memory()), "conditions": conditions,
        "addresses": [{ "type": "InternalIP", "address": options.node_ip.to_string() }, { "type": "Hostname", "address": options.node_name }],
        "images": images,
        "nodeInfo": {
            "machineID": machine.machine_id, "systemUUID": machine.machine_id, "bootID": machine.boot_id, "kernelVersion": machine.kernel,
            "osImage": machine.os_image, "containerRuntimeVersion": options.runtime_version, "kubeletVersion": options.version,
            "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": architecture(),
        },
    })
}

/// Registers, then keeps status and lease fresh until cancelled. Everything is said again after a cut.
pub async fn run(options: &Options, machine: &Machine, images: &Images, link: &Link, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = report(options, machine, images, link) => {}
        () = lease(options, link) => {}
    }
}

fn pressed(options: &Options) -> Pressure {
    options.eviction_hard.pressure(&Observed::read(&options.data_dir))
}

async fn report(options: &Options, machine: &Machine, images: &Images, link: &Link) {
    let mut since = Since::default();
    let mut wait = Duration::from_millis(100);
    loop {
        link.connected().await;
        let (pressure, stamp) = (pressed(options), images.stamp());
        let status = status(options, machine, images.status(), pressure, &mut since, Time::now());
        match register(options, link, status).await {
            Ok(()) => {
                wait = Duration::from_millis(100);
                // Until the machine's state or its images change, five minutes pass, or a new link is there (the control plane may be a new one).
                let due = tokio::time::Instant::now() + STATUS;
                loop {
                    tokio::select! {
                        () = link.reconnected() => break,
                        () = tokio::time::sleep(LEASE) => {}
                    }
                    if tokio::time::Instant::now() >= due || pressed(options) != pressure || images.stamp() != stamp {
                        break;
                    }
                }
            }
            Err(why) => {
                tracing::warn!(%why, "register this node; tried again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LEASE);
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
