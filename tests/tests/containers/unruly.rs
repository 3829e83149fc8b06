//! Containers that misbehave: what becomes of them is told, and neither the node nor other pods notice.

use super::{left, pod};
use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually};
use std::{fs, path::PathBuf};

/// Leaves twenty processes behind that end soon, and is then a program that waits for nobody.
const FORSAKEN: &str = "i=0; while [ $i -lt 20 ]; do (sleep 2 &); i=$((i+1)); done; exec sleep 1000";
/// Processes that have ended and were not waited for, as a container sees them.
const DEAD: &str = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; true";

pub fn who_misbehaves_does_so_alone(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("unruly")?;
    let alive = "livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}";
    pod(cluster, &ns, "neighbour", "while :; do sleep 1; done", alive, "")?;
    let deaf = "livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1}";
    pod(cluster, &ns, "deaf", "trap '' TERM; while :; do sleep 0.1; done", deaf, "")?;
    pod(cluster, &ns, "fills-memory", "tail /dev/zero", "resources: {limits: {memory: 16Mi}}", "  restartPolicy: Never\n")?;
    pod(cluster, &ns, "talks", "exec yes $(seq -s, 1 300)", "", "")?;
    pod(cluster, &ns, "forsakes", FORSAKEN, "", "")?;
    pod(cluster, &ns, "is-helped", FORSAKEN, "", "  shareProcessNamespace: true\n")?;
    eventually("who does not listen is killed after its grace", 60, || {
        let status = cluster.status(&ns, "deaf")?;
        let last = &status["containerStatuses"][0]["lastState"]["terminated"];
        ensure!(last["exitCode"] == 137 && last["reason"] == "Error", "{status}");
        Ok(())
    })?;
    let ended = cluster.finished(&ns, "fills-memory")?;
    let ended = &ended["containerStatuses"][0]["state"]["terminated"];
    ensure!(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, "{ended}");

    let dead = |name: &str| -> Result<u64> { Ok(cluster.kubectl_in(&ns, &["exec", name, "--", "sh", "-c", DEAD])?.ok()?.trim().parse()?) };
    for (name, number) in [("forsakes", 20), ("is-helped", 0)] {
        cluster.ready(&ns, name)?;
        eventually(&format!("{number} dead processes in {name}"), 60, || {
            let sleeping = cluster.kubectl_in(&ns, &["exec", name, "--", "sh", "-c", "ps -o args | grep -c '^sleep 2'; true"])?.ok()?;
            ensure!(sleeping.trim() == "0" && dead(name)? == number, "{sleeping} still run, {} are dead", dead(name)?);
            Ok(())
        })?;
    }
    let uid = |name: &str| cluster.kubectl(&["-n", &ns, "get", "pod", name, "-o", "jsonpath={.metadata.uid}"])?.ok();
    let logs = cluster.data_dir().join("pods").join(uid("talks")?).join("logs/main");
    let sizes = || -> Result<Vec<(PathBuf, u64)>> {
        let files = fs::read_dir(&logs)?.flatten();
        // One that is gone meanwhile was the oldest.
        Ok(files.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect())
    };
    eventually("as many logs as are kept, and more was said", 120, || {
        let files = sizes()?;
        ensure!(files.len() == 5, "{files:?}");
        Ok(())
    })?;
    let first = cluster.kubectl_in(&ns, &["logs", "talks", "--tail=1", "--timestamps"])?.ok()?;
    eventually("they were moved on", 120, || {
        let oldest = fs::read_to_string(logs.join("0.log.4")).context("the oldest log")?;
        let time = oldest.split(' ').next().unwrap_or_default();
        ensure!(Some(time) > first.split(' ').next(), "the oldest line is of {time}");
        Ok(())
    })?;
    let files = sizes()?;
    // A line beyond 10 MiB each.
    ensure!(files.len() <= 5 && files.iter().map(|(_, size)| size).sum::<u64>() < 5 * (10 << 20) + (64 << 10), "{files:?}");

    let gone = uid("forsakes")?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "forsakes", "talks", "deaf", "is-helped", "--timeout=60s"])?.ok()?;
    eventually("nothing of it", 60, || {
        let left = left(cluster, &gone);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let status = cluster.status(&ns, "neighbour")?;
    let main = &status["containerStatuses"][0];
    ensure!(main["ready"] == true && main["restartCount"] == 0, "{status}");
    let conditions = cluster.get(&["node", "test-node"])?["status"]["conditions"].clone();
    let wrong = conditions.as_array().into_iter().flatten().find(|one| (one["status"] == "True") != (one["type"] == "Ready"));
    ensure!(wrong.is_none(), "{conditions}");
    Ok(())
}
