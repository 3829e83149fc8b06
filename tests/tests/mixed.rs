//! Pods of both kinds: a component beside a real server, in one pod, as users of Kubernetes see it.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, is_root, main as suite};
use serde_json::Value;
use std::process::ExitCode;

const CASES: &[Case] = &[("a_sidecar_and_a_server", a_sidecar_and_a_server)];

fn main() -> ExitCode {
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    suite(Mode::Whole, CASES)
}

/// A server that only its own pod can reach, a component before it, and one that works and ends.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: both, namespace: NS}
spec:
  terminationGracePeriodSeconds: 2
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: server
    image: busybox:v1
    command: [sh, -c, 'echo page > /shared/index.html; echo serving; exec httpd -f -p 127.0.0.1:9000 -h /shared']
    volumeMounts: [{name: shared, mountPath: /shared}]
    readinessProbe: {exec: {command: [wget, -qO-, 'http://localhost:9000/']}, periodSeconds: 1, failureThreshold: 60}
  - name: front
    image: web:v1
    ports: [{containerPort: 8080}]
    volumeMounts: [{name: shared, mountPath: /shared, readOnly: true}]
    readinessProbe: {httpGet: {path: '/fetch?localhost:9000', port: 8080}, periodSeconds: 1, failureThreshold: 60}
    resources: {limits: {memory: 64Mi}}
  - name: worker
    image: probe:v1
    args: [write, /dev/termination-log, its, last, words, --, hello, --, sleep, '300', --, exit, '3']
"#;

fn a_sidecar_and_a_server(cluster: &Cluster) -> Result {
    cluster.import_busybox()?;
    let ns = cluster.namespace("mixed")?;
    cluster.apply(&POD.replace("NS", &ns))?;
    let status = |name: &str| -> Result<Value> {
        let pod = cluster.get(&["-n", &ns, "pod", "both"])?;
        let list = pod["status"]["containerStatuses"].as_array().context("no statuses")?;
        list.iter().find(|status| status["name"] == name).cloned().context("no such container")
    };
    // Both answer, the one through the other, and the third is restarted for ever.
    eventually("both are ready", 120, || {
        for name in ["server", "front"] {
            let status = status(name)?;
            ensure!(status["ready"] == true, "{status}");
        }
        let worker = status("worker")?;
        ensure!(worker["restartCount"].as_u64() >= Some(1), "{worker}");
        let end = &worker["lastState"]["terminated"];
        ensure!(end["exitCode"] == 3 && end["reason"] == "Error" && end["message"] == "its last words", "{worker}");
        Ok(())
    })?;
    let ip = cluster.kubectl(&["-n", &ns, "get", "pod", "both", "-o", "jsonpath={.status.podIP}"])?.ok()?;
    let get = |target: &str| cluster.host.get(&format!("http://{ip}:8080{target}"));
    ensure!(get("/fetch?localhost:9000")?.trim() == "fetched 200");
    ensure!(get("/read?/shared/index.html")? == "page\n");
    get("/log?asked")?;
    let inside = ["-n", &ns, "exec", "both", "-c", "server", "--", "wget", "-qO-", "http://localhost:8080/served"];
    ensure!(cluster.kubectl(&inside)?.ok()? == "1\n");
    for (container, text) in [("server", "serving\n"), ("front", "asked\n"), ("worker", "hello from probe\n")] {
        eventually("its log", 30, || {
            let log = cluster.kubectl(&["-n", &ns, "logs", "both", "-c", container])?.ok()?;
            ensure!(log.contains(text), "{container}: {log}");
            Ok(())
        })?;
    }
    let refused = cluster.kubectl(&["-n", &ns, "exec", "both", "-c", "front", "--", "sh"])?.err()?;
    ensure!(refused.contains("nothing can be run in a wasm container"), "{refused}");
    // The agent is killed: both go on, and the next one knows them.
    let before = (status("server")?["containerID"].clone(), status("front")?["containerID"].clone());
    cluster.kill()?;
    ensure!(get("/fetch?localhost:9000")?.trim() == "fetched 200", "without an agent");
    cluster.up()?;
    eventually("adopted", 60, || {
        let (server, front) = (status("server")?, status("front")?);
        ensure!(server["ready"] == true && front["ready"] == true, "{server} {front}");
        ensure!(server["restartCount"] == 0 && front["restartCount"] == 0, "{server} {front}");
        ensure!((server["containerID"].clone(), front["containerID"].clone()) == before);
        Ok(())
    })?;
    ensure!(get("/fetch?localhost:9000")?.trim() == "fetched 200", "with another agent");
    ensure!(cluster.kubectl(&["-n", &ns, "logs", "both", "-c", "front"])?.ok()?.contains("asked"));
    cluster.kubectl(&["-n", &ns, "delete", "pod", "both", "--timeout=60s"])?.ok()?;
    Ok(())
}
