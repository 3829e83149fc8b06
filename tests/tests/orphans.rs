//! Agents and shims that are killed again and again leave nothing in the machine of pods that are gone: processes, control groups, mounts, devices, rules, files.
//!
//! `CORACLE_CYCLES` says how often (25 unless said).

use anyhow::{Context, ensure};
use coracle_tests::{Alone, Cluster, Mode, Output, Result, alone, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const CASES: &[Alone] = &[("containers_outlive_their_agent", containers_outlive_their_agent), ("kills_leave_nothing", kills_leave_nothing)];
const CYCLES: usize = 25;
const NS: &str = "default";

fn main() -> ExitCode {
    alone(CASES)
}

fn pod(name: &str, cycle: usize) -> Value {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": NS }, "spec": {
        "terminationGracePeriodSeconds": 1,
        "volumes": [{ "name": "fast", "emptyDir": { "medium": "Memory" } }, { "name": "disk", "emptyDir": {} }],
        "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", "echo begun; exec sleep 86400"],
            "ports": [{ "containerPort": 80, "hostPort": 9000 + cycle % 500 }],
            "volumeMounts": [{ "name": "fast", "mountPath": "/fast" }, { "name": "disk", "mountPath": "/disk" }] }] } });
    // Every class has groups of its own.
    match cycle % 3 {
        0 => {}
        1 => pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1m" } }),
        _ => pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "100m", "memory": "32Mi" } }),
    }
    pod
}

fn kills_leave_nothing() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    if cluster.host.name().is_none() {
        println!("left out: only root has containers");
        return Ok(());
    }
    let cycles = std::env::var("CORACLE_CYCLES").ok().map(|text| text.parse()).transpose().context("CORACLE_CYCLES")?.unwrap_or(CYCLES);
    cluster.up()?;
    cluster.import_busybox()?;
    let mut uids = Vec::new();
    for cycle in 0..cycles {
        let name = format!("cycle-{cycle}");
        cluster.apply(&pod(&name, cycle).to_string())?;
        uids.push(cluster.get(&["-n", NS, "pod", &name])?["metadata"]["uid"].as_str().context("no uid")?.to_owned());
        // At another moment of its life each time.
        match cycle % 5 {
            0 => {}
            1 => eventually("a shim", 60, || {
                ensure!(!shims(&cluster).is_empty());
                Ok(())
            })?,
            2 => ready(&cluster, &name)?,
            3 => {
                ready(&cluster, &name)?;
                remove(&cluster, &name)?;
            }
            _ => {
                ready(&cluster, &name)?;
                for shim in shims(&cluster) {
                    // One that has just ended does not matter.
                    Output::of(Command::new("kill").args(["-KILL", &shim.to_string()]), "")?;
                }
            }
        }
        cluster.kill()?;
        if cycle % 7 == 3 {
            // Nobody sees this pod again.
            shims(&cluster).iter().try_for_each(|shim| Output::of(Command::new("kill").args(["-KILL", &shim.to_string()]), "").map(drop))?;
        }
        cluster.up().with_context(|| format!("cycle {cycle}"))?;
        if let Some(before) = cycle.checked_sub(1) {
            remove(&cluster, &format!("cycle-{before}"))?;
        }
    }
    // Those that are there work.
    let last = format!("cycle-{}", cycles.saturating_sub(1));
    if cycles % 5 != 4 {
        ready(&cluster, &last)?;
    }
    cluster.kubectl(&["-n", NS, "delete", "pods", "--all", "--timeout=120s"])?.ok()?;
    eventually("nothing is left", 60, || {
        let left = left(&cluster, &uids)?;
        ensure!(left.is_empty(), "{}", left.join("\n"));
        Ok(())
    })?;
    cluster.stop()
}

/// What containers say and how they end while no agent is there is not lost.
fn containers_outlive_their_agent() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    if cluster.host.name().is_none() {
        println!("left out: only root has containers");
        return Ok(());
    }
    cluster.up()?;
    cluster.import_busybox()?;
    let make = |name: &str, script: &str| -> Result<PathBuf> {
        let mut pod = pod(name, 0);
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["containers"][0]["ports"] = json!([]);
        pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
        cluster.apply(&pod.to_string())?;
        ready(&cluster, name)?;
        let uid = cluster.get(&["-n", NS, "pod", name])?["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        Ok(cluster.data_dir().join("pods").join(uid).join("logs/main/0.log"))
    };
    let counting = make("counts", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")?;
    let ending = make("ends", "while [ ! -e /disk/end ]; do sleep 0.02; done; echo last words; exit 4")?;
    let id = |name: &str| -> Result<Value> { Ok(cluster.get(&["-n", NS, "pod", name])?["status"]["containerStatuses"][0].clone()) };
    let before = id("counts")?;
    cluster.kill()?;
    let length = || fs::read_to_string(&counting).map_or(0, |text| text.lines().count());
    let said = length();
    let disk = ending.parent().and_then(Path::parent).and_then(Path::parent).context("a pod's directory")?.join("volumes/disk");
    fs::write(disk.join("end"), "")?;
    eventually("both go on without an agent", 30, || {
        ensure!(fs::read_to_string(&ending)?.contains("last words") && length() > said + 20);
        Ok(())
    })?;
    cluster.up()?;
    eventually("the end is told", 30, || {
        let status = cluster.get(&["-n", NS, "pod", "ends"])?["status"].clone();
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        ensure!(status["phase"] == "Failed" && ended["exitCode"] == 4 && ended["reason"] == "Error", "{status}");
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["-n", NS, "logs", "ends"])?.ok()? == "last words\n");
    let after = id("counts")?;
    ensure!(after["containerID"] == before["containerID"] && after["restartCount"] == 0 && after["state"]["running"].is_object(), "{after}");
    let log = cluster.kubectl(&["-n", NS, "logs", "counts"])?.ok()?;
    let numbers = log.lines().map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    ensure!(numbers.len() > said + 20 && numbers.iter().enumerate().all(|(index, number)| index + 1 == *number), "a line is missing: {numbers:?}");
    cluster.stop()
}

fn ready(cluster: &Cluster, name: &str) -> Result {
    cluster.kubectl(&["-n", NS, "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=120s"])?.ok().map(drop)
}

fn remove(cluster: &Cluster, name: &str) -> Result {
    cluster.kubectl(&["-n", NS, "delete", "pod", name, "--ignore-not-found", "--wait=false"])?.ok().map(drop)
}

/// The cluster's shims: each writes to a log in its pod's directory.
fn shims(cluster: &Cluster) -> Vec<u32> {
    let data = cluster.data_dir();
    let of_cluster = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "coracle-shim")
            && fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|path| path.starts_with(&data))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_cluster).collect()
}

/// What the machine still has of pods.
fn left(cluster: &Cluster, uids: &[String]) -> Result<Vec<String>> {
    let mut left: Vec<String> = shims(cluster).iter().map(|pid| format!("shim {pid}")).collect();
    let data = cluster.data_dir();
    let pods = data.join("pods");
    left.extend(fs::read_dir(&pods)?.flatten().map(|entry| entry.path().display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let pods = pods.to_string_lossy().into_owned();
    left.extend(mounts.lines().filter(|line| line.contains(&pods)).map(|line| format!("mount {line}")));
    left.extend(groups(Path::new("/sys/fs/cgroup"), uids).iter().map(|group| format!("group {}", group.display())));
    let devices = cluster.host.run("ip", &["-o", "link"])?.ok()?;
    let device = |line: &str| line.split_whitespace().nth(1).is_some_and(|name| name.starts_with("cor") && !name.starts_with("coracle0"));
    left.extend(devices.lines().filter(|line| device(line)).map(|line| format!("device {line}")));
    let rules = cluster.host.run("nft", &["list", "table", "ip", "coracle"])?.ok()?;
    left.extend(rules.lines().filter(|line| line.trim().starts_with("chain h-")).map(|line| format!("rule {line}")));
    Ok(left)
}

/// Groups of those pods, in each tree.
fn groups(root: &Path, uids: &[String]) -> Vec<PathBuf> {
    let trees = fs::read_dir(root).into_iter().flatten().flatten().map(|tree| tree.path()).chain([root.to_path_buf()]);
    let classes = trees.flat_map(|tree| ["coracle", "coracle/burstable", "coracle/besteffort"].map(|class| tree.join(class)));
    let of_pods = |group: &PathBuf| group.file_name().is_some_and(|name| uids.iter().any(|uid| name.to_string_lossy() == format!("pod{uid}")));
    classes.flat_map(|class| fs::read_dir(class).into_iter().flatten().flatten().map(|group| group.path())).filter(of_pods).collect()
}
