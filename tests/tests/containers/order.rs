//! Init containers and sidecars among the others: who begins when, and who ends when.

use anyhow::ensure;
use coracle_tests::{Cluster, Result, eventually, has};
use serde_json::{Value, json};
use std::fs;

/// A container of `busybox:v1` that shares /order with the others.
fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        "volumeMounts": [{ "name": "order", "mountPath": "/order" }] })
}

/// A sidecar that tells of its beginning and of its end, and has started when `probe` succeeds.
fn sidecar(name: &str, more: &str, probe: &str) -> Value {
    let script = format!(
        "trap 'echo {name} ends >> /order/log; cat /order/log; exit 0' TERM; echo {name} >> /order/log; touch /order/{name}; while :; do {more} sleep 0.1; done"
    );
    let mut sidecar = container(name, &script);
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({ "exec": { "command": ["test", "-f", probe] }, "periodSeconds": 1, "failureThreshold": 600 });
    sidecar
}

fn pod(cluster: &Cluster, ns: &str, name: &str, policy: &str, volume: &Value, inits: &[Value], main: &Value) -> Result {
    cluster.import_busybox()?;
    let mut order = volume.clone();
    order["name"] = "order".into();
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns },
        "spec": { "restartPolicy": policy, "volumes": [order], "initContainers": inits, "containers": [main] } });
    cluster.apply(&pod.to_string()).map(drop)
}

pub fn containers_begin_and_end_in_order(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("order")?;
    let inits = [
        container("first", "echo first >> /order/log"),
        sidecar("side", "", "/order/go"),
        container("second", "echo second >> /order/log"),
        sidecar("late", "", "/order/late"),
    ];
    let main = container("main", "echo main >> /order/log; sleep 0.5; echo main ends >> /order/log");
    pod(cluster, &ns, "steps", "Never", &json!({ "emptyDir": {} }), &inits, &main)?;
    eventually("the sidecar runs", 60, || {
        let status = cluster.status(&ns, "steps")?;
        let list = &status["initContainerStatuses"];
        ensure!(list[0]["state"]["terminated"]["reason"] == "Completed" && list[1]["state"]["running"].is_object(), "{status}");
        Ok(())
    })?;
    let side = |script: &str| cluster.kubectl_in(&ns, &["exec", "steps", "-c", "side", "--", "sh", "-c", script])?.ok();
    // Some probes have failed by then, or none has been made: nothing comes after it either way.
    side("until test -e /order/side; do sleep 0.1; done; sleep 1.5")?;
    ensure!(side("cat /order/log")? == "first\nside\n");
    let status = cluster.status(&ns, "steps")?;
    let list = &status["initContainerStatuses"];
    ensure!(list[1]["started"] == false && list[2]["state"]["waiting"]["reason"] == "PodInitializing", "{status}");
    ensure!(status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing" && status["phase"] == "Pending", "{status}");
    has(
        &cluster.kubectl_in(&ns, &["logs", "steps", "-c", "main"])?.err()?,
        &["container \"main\" in pod \"steps\" is waiting to start: PodInitializing"],
    )?;
    side("touch /order/go")?;
    let status = cluster.finished(&ns, "steps")?;
    ensure!(status["phase"] == "Succeeded", "{status}");
    for state in status["initContainerStatuses"].as_array().into_iter().flatten() {
        ensure!(state["state"]["terminated"]["exitCode"] == 0 && state["restartCount"] == 0, "{state}");
    }
    // The one that ends last has seen it all.
    let told = cluster.kubectl_in(&ns, &["logs", "steps", "-c", "side"])?.ok()?;
    ensure!(told == "first\nside\nsecond\nlate\nmain\nmain ends\nlate ends\nside ends\n", "{told}");
    Ok(())
}

pub fn a_sidecar_begins_anew_and_ends_last(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("sidecars")?;
    let dir = cluster.dir().join("sidecars");
    let volume = json!({ "hostPath": { "path": dir, "type": "DirectoryOrCreate" } });
    let mut side = sidecar("side", "if test -e /order/die; then rm /order/die; exit 3; fi;", "/order/side");
    // It hears of the end with the others.
    side["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sh", "-c", "echo side hears >> /order/log"] } } });
    let main = container("main", "trap 'sleep 1; echo main ends >> /order/log; exit 0' TERM; while :; do sleep 0.1; done");
    // Whatever the pod's policy is.
    pod(cluster, &ns, "web", "Never", &volume, &[side], &main)?;
    cluster.ready(&ns, "web")?;
    fs::write(dir.join("die"), "")?;
    eventually("it is there again", 60, || {
        let status = cluster.status(&ns, "web")?;
        let (side, main) = (&status["initContainerStatuses"][0], &status["containerStatuses"][0]);
        ensure!(side["restartCount"] == 1 && side["ready"] == true && side["lastState"]["terminated"]["exitCode"] == 3, "{status}");
        ensure!(main["restartCount"] == 0 && main["ready"] == true && status["phase"] == "Running", "the pod does not notice: {status}");
        Ok(())
    })?;
    cluster.kubectl_in(&ns, &["delete", "pod", "web", "--timeout=60s"])?.ok()?;
    let told = fs::read_to_string(dir.join("log"))?;
    ensure!(told == "side\nside\nside hears\nmain ends\nside ends\n", "{told}");
    Ok(())
}

pub fn what_fails_at_first_holds_the_others(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("failing")?;
    let scratch = json!({ "emptyDir": {} });
    pod(cluster, &ns, "over", "Never", &scratch, &[container("bad", "exit 9"), container("next", "true")], &container("main", "true"))?;
    let once = container("once", "test -e /order/seen || { touch /order/seen; exit 1; }");
    pod(cluster, &ns, "again", "OnFailure", &scratch, &[once], &container("main", "true"))?;
    let over = cluster.finished(&ns, "over")?;
    let list = &over["initContainerStatuses"];
    ensure!(over["phase"] == "Failed" && list[0]["state"]["terminated"]["exitCode"] == 9, "{over}");
    for state in [&list[1], &over["containerStatuses"][0]] {
        ensure!(state["containerID"].is_null() && state["state"]["waiting"]["reason"] == "PodInitializing", "{over}");
    }
    ensure!(cluster.kubectl_in(&ns, &["get", "pod", "over"])?.ok()?.contains("Init:Error"));
    let again = cluster.finished(&ns, "again")?;
    let once = &again["initContainerStatuses"][0];
    ensure!(again["phase"] == "Succeeded" && once["restartCount"] == 1 && once["lastState"]["terminated"]["exitCode"] == 1, "{again}");
    Ok(())
}
