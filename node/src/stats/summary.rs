//! `stats/summary`, in the shape of `k8s.io/kubelet/pkg/apis/stats/v1alpha1`: pure.

use super::{ContainerUse, PodUse, Snapshot, disk::FileSystem};
use crate::volumes::walk::Used;
use coracle_runtime::{Stats, stats::Interface};
use serde_json::{Value, json};

/// The whole of it; what was not measured is left out.
pub fn summary(snapshot: &Snapshot) -> Value {
    let time = snapshot.at.rfc3339();
    json!({ "node": node(snapshot, &time), "pods": snapshot.pods.iter().map(|pod| self::pod(pod, snapshot, &time)).collect::<Vec<_>>() })
}

fn node(snapshot: &Snapshot, time: &str) -> Value {
    let machine = &snapshot.machine;
    let working_set = machine.working_set();
    let pods = snapshot
        .pods
        .iter()
        .fold((0_u64, 0_u64), |(cpu, memory), pod| (cpu.saturating_add(pod.whole.cpu_nanos), memory.saturating_add(pod.whole.memory_bytes)));
    let booted = crate::pods::time::Time(machine.booted.saturating_mul(1000)).rfc3339();
    let agent = &snapshot.agent;
    let mut node = json!({
        "nodeName": snapshot.node, "startTime": booted,
        "systemContainers": [
            { "name": "kubelet", "startTime": booted, "cpu": { "time": time, "usageCoreNanoSeconds": agent.cpu_nanos },
              "memory": { "time": time, "usageBytes": agent.rss, "workingSetBytes": agent.rss, "rssBytes": agent.rss } },
            { "name": "pods", "startTime": booted, "cpu": { "time": time, "usageCoreNanoSeconds": pods.0 },
              "memory": { "time": time, "usageBytes": pods.1, "workingSetBytes": pods.1 } },
        ],
        "cpu": { "time": time, "usageNanoCores": snapshot.nano_cores, "usageCoreNanoSeconds": machine.cpu_nanos },
        "memory": {
            "time": time, "availableBytes": machine.available, "usageBytes": machine.usage, "workingSetBytes": working_set, "rssBytes": machine.rss,
            "pageFaults": machine.faults.0, "majorPageFaults": machine.faults.1,
        },
        "swap": { "time": time, "swapAvailableBytes": machine.swap.1, "swapUsageBytes": machine.swap.0.saturating_sub(machine.swap.1) },
        "network": network(&machine.interfaces, machine.uplink.as_deref(), time),
    });
    if let Some(disk) = &snapshot.disk {
        let all = Used { bytes: disk.capacity.saturating_sub(disk.available), inodes: disk.inodes.saturating_sub(disk.inodes_free) };
        node["fs"] = file_system(Some(disk), all, time);
        node["runtime"] = json!({
            "imageFs": file_system(Some(disk), Used { bytes: snapshot.images, ..all }, time),
            "containerFs": file_system(Some(disk), written(snapshot), time),
        });
    }
    if let Some((most, running)) = snapshot.pids {
        node["rlimit"] = json!({ "time": time, "maxpid": most, "curproc": running });
    }
    drop_nulls(node)
}

/// What all containers wrote to their own file systems.
fn written(snapshot: &Snapshot) -> Used {
    snapshot.pods.iter().filter_map(|pod| pod.disk.as_ref()).flat_map(|disk| disk.written.values()).fold(Used::default(), |sum, used| sum.plus(*used))
}

fn pod(pod: &PodUse, snapshot: &Snapshot, time: &str) -> Value {
    let view = &pod.view;
    let containers: Vec<Value> = pod.containers.iter().map(|container| self::container(container, pod, snapshot, time)).collect();
    let limits: Option<u64> = pod.containers.iter().map(|container| container.view.memory_limit.filter(|limit| *limit > 0)).sum();
    let mut value = json!({
        "podRef": { "namespace": view.namespace, "name": view.name, "uid": &*view.uid }, "startTime": view.start_time, "containers": containers,
        "cpu": cpu(&pod.whole, pod.nano_cores, time), "memory": memory(&pod.whole, limits, time),
    });
    if !pod.interfaces.is_empty() {
        value["network"] = network(&pod.interfaces, Some("eth0"), time);
    }
    if let Some(group) = &pod.whole.group {
        value["process_stats"] = json!({ "process_count": group.tasks });
    }
    if let Some(disk) = &pod.disk {
        let volumes = disk.volumes.iter().map(|(name, (used, own))| {
            let mut volume = file_system(own.as_ref().or(snapshot.disk.as_ref()), *used, time);
            volume["name"] = json!(name);
            volume
        });
        value["volume"] = volumes.collect();
        value["ephemeral-storage"] = file_system(snapshot.disk.as_ref(), disk.total(), time);
    }
    drop_nulls(value)
}

fn container(container: &ContainerUse, pod: &PodUse, snapshot: &Snapshot, time: &str) -> Value {
    let (view, stats) = (&container.view, &container.stats);
    let mut value = json!({
        "name": view.name, "startTime": view.started.map(|started| started.rfc3339()),
        "cpu": cpu(stats, container.nano_cores, time), "memory": memory(stats, view.memory_limit.filter(|limit| *limit > 0), time),
    });
    if let Some(disk) = &pod.disk {
        let of = |map: &std::collections::BTreeMap<String, Used>| map.get(&view.name).copied().unwrap_or_default();
        value["rootfs"] = file_system(snapshot.disk.as_ref(), of(&disk.written), time);
        value["logs"] = file_system(snapshot.disk.as_ref(), of(&disk.logs), time);
    }
    drop_nulls(value)
}

fn cpu(stats: &Stats, nano_cores: Option<u64>, time: &str) -> Value {
    json!({ "time": time, "usageNanoCores": nano_cores, "usageCoreNanoSeconds": stats.cpu_nanos })
}

fn memory(stats: &Stats, limit: Option<u64>, time: &str) -> Value {
    let group = stats.group.as_ref();
    json!({
        "time": time, "availableBytes": limit.map(|limit| limit.saturating_sub(stats.memory_bytes)),
        "usageBytes": group.map_or(stats.memory_bytes, |group| group.usage_bytes), "workingSetBytes": stats.memory_bytes,
        "rssBytes": group.map(|group| group.rss_bytes), "pageFaults": group.map(|group| group.faults.0),
        "majorPageFaults": group.map(|group| group.faults.1),
    })
}

fn file_system(of: Option<&FileSystem>, used: Used, time: &str) -> Value {
    json!({
        "time": time, "availableBytes": of.map(|fs| fs.available), "capacityBytes": of.map(|fs| fs.capacity), "usedBytes": used.bytes,
        "inodesFree": of.map(|fs| fs.inodes_free), "inodes": of.map(|fs| fs.inodes), "inodesUsed": used.inodes,
    })
}

fn network(interfaces: &[Interface], main: Option<&str>, time: &str) -> Value {
    let device = |interface: &Interface| {
        json!({ "name": interface.name, "rxBytes": interface.received.bytes, "rxErrors": interface.received.errors,
                "txBytes": interface.sent.bytes, "txErrors": interface.sent.errors })
    };
    let chosen = interfaces.iter().find(|interface| Some(interface.name.as_str()) == main);
    let mut value = chosen.map_or_else(|| json!({ "name": "" }), device);
    value["time"] = json!(time);
    value["interfaces"] = interfaces.iter().map(device).collect();
    value
}

fn drop_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(|value| *value = drop_nulls(value.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| *value = drop_nulls(value.take())),
        _ => {}
    }
    value
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        pods::{
            time::Time,
            views::{ContainerView, View},
        },
        stats::{disk::OnDisk, machine::Machine},
    };
    use coracle_runtime::stats::{Group, Traffic};
    use std::sync::Arc;

    /// A pod of processes with one container, on a node of two cores.
    pub fn snapshot() -> Snapshot {
        let container = ContainerView {
            name: "main".into(),
            attempt: 1,
            created: true,
            previous: None,
            alive: true,
            over: false,
            waiting: None,
            started: Some(Time(1_000)),
            image: "busybox:v1".into(),
            memory_limit: Some(100),
        };
        let group =
            |path: &str| Group { path: path.into(), usage_bytes: 90, rss_bytes: 40, tasks: 3, throttled: (9, 8, 7_000_000_000), ..Group::default() };
        let stats = |path: &str| Stats { cpu_nanos: 1_500_000_000, memory_bytes: 60, group: Some(group(path)), written: None };
        let view = View {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
            ip: None,
            containers: vec![container.clone()],
            start_time: "1970-01-01T00:00:00Z".into(),
            active: true,
            from_file: false,
        };
        let used = |bytes| Used { bytes, inodes: 1 };
        let fs = FileSystem { capacity: 1000, available: 600, inodes: 10, inodes_free: 4 };
        let disk = OnDisk {
            logs: [("main".into(), used(5))].into(),
            written: [("main".into(), used(7))].into(),
            volumes: [("cache".into(), (used(11), None)), ("memory".into(), (used(13), Some(FileSystem { capacity: 20, ..fs })))].into(),
        };
        let interface = Interface {
            name: "eth0".into(),
            received: Traffic { bytes: 100, packets: 2, errors: 0, dropped: 1 },
            sent: Traffic { bytes: 50, ..Traffic::default() },
        };
        Snapshot {
            at: Time(2_000),
            node: "n1".into(),
            machine: Machine { cpu_nanos: 4_000_000_000, memory: 1000, available: 300, usage: 900, ..Machine::default() },
            nano_cores: Some(5),
            agent: crate::stats::machine::Agent::default(),
            disk: Some(fs),
            pids: Some((100, 40)),
            images: 17,
            pods: vec![PodUse {
                view: Arc::new(view),
                containers: vec![ContainerUse { view: container, stats: stats("/coracle/podu/main-1"), nano_cores: None }],
                whole: stats("/coracle/podu"),
                nano_cores: Some(250),
                interfaces: vec![interface],
                disk: Some(Arc::new(disk)),
            }],
        }
    }

    #[test]
    fn the_summary_has_kubelets_shape() {
        let summary = summary(&snapshot());
        let node = &summary["node"];
        assert_eq!((&node["nodeName"], &node["memory"]["workingSetBytes"], &node["cpu"]["usageNanoCores"]), (&json!("n1"), &json!(700), &json!(5)));
        assert_eq!(
            node["fs"],
            json!({ "time": "1970-01-01T00:00:02Z", "availableBytes": 600, "capacityBytes": 1000, "usedBytes": 400, "inodesFree": 4, "inodes": 10, "inodesUsed": 6 })
        );
        assert_eq!((&node["runtime"]["imageFs"]["usedBytes"], &node["rlimit"]["curproc"]), (&json!(17), &json!(40)));
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({ "namespace": "default", "name": "web", "uid": "u" }));
        assert_eq!(
            (&pod["memory"]["availableBytes"], &pod["memory"]["usageBytes"], &pod["cpu"]["usageNanoCores"]),
            (&json!(40), &json!(90), &json!(250))
        );
        assert_eq!(
            (&pod["network"]["name"], &pod["network"]["rxBytes"], &pod["network"]["interfaces"][0]["txBytes"]),
            (&json!("eth0"), &json!(100), &json!(50))
        );
        assert_eq!((&pod["process_stats"]["process_count"], &pod["ephemeral-storage"]["usedBytes"]), (&json!(3), &json!(23)), "memory is no disk");
        assert_eq!((&pod["volume"][1]["name"], &pod["volume"][1]["capacityBytes"]), (&json!("memory"), &json!(20)));
        let container = &pod["containers"][0];
        assert_eq!(
            (&container["rootfs"]["usedBytes"], &container["logs"]["usedBytes"], &container["startTime"]),
            (&json!(7), &json!(5), &json!("1970-01-01T00:00:01Z"))
        );
        assert!(container["cpu"].get("usageNanoCores").is_none(), "what is not known is not said");
    }
}
