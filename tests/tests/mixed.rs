//! Pods of both kinds: a component beside a real server, in one pod, as users of Kubernetes see it.

use anyhow::{Context, ensure};
use coracle_tests::{Alone, Cluster, Mode, Output, Result, alone, eventually, is_root};
use serde_json::Value;
use std::{fs, process::ExitCode};

/// Each with a cluster of its own: one of them kills its agent.
const CASES: &[Alone] =
    &[("a_sidecar_and_a_server", a_sidecar_and_a_server), ("files_go_in_and_out_of_components", files_go_in_and_out_of_components)];

fn main() -> ExitCode {
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    alone(CASES)
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
    resources: {requests: {cpu: 10m}}
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

fn a_sidecar_and_a_server() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
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
    eventually("all of their logs", 30, || {
        let all = cluster.kubectl(&["-n", &ns, "logs", "both", "--all-containers", "--prefix", "--since-time=2020-01-01T00:00:00Z"])?.ok()?;
        for line in ["[pod/both/server] serving\n", "[pod/both/front] asked\n", "[pod/both/worker] hello from probe\n"] {
            ensure!(all.contains(line), "{line}: {all}");
        }
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["-n", &ns, "logs", "both", "-c", "server", "--limit-bytes=5"])?.ok()? == "servi");
    // It is given more memory while it runs.
    let refused = get("/allocate?100").expect_err("beyond the limit").to_string();
    ensure!(refused.contains("500"), "{refused}");
    let more = r#"{"spec":{"containers":[{"name":"front","resources":{"limits":{"memory":"256Mi"}}}]}}"#;
    cluster.kubectl(&["-n", &ns, "patch", "pod", "both", "--subresource", "resize", "-p", more])?.ok()?;
    eventually("it has more", 60, || {
        let front = status("front")?;
        ensure!(front["resources"]["limits"]["memory"] == "256Mi" && front["restartCount"] == 0, "{front}");
        ensure!(get("/allocate?100")? == "100\n");
        Ok(())
    })?;
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
    cluster.stop()
}

/// A component with a volume of its own and a fixed one, alone and beside a process.
const FILES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed, namespace: NS}
data: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: NS}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}, {name: fixed, configMap: {name: fixed}}]
  containers:
  - name: web
    image: web:v1
    ports: [{containerPort: 8080}]
    volumeMounts: [{name: data, mountPath: /data}, {name: fixed, mountPath: /etc/fixed}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 60}
"#;

fn files_go_in_and_out_of_components() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.import_busybox()?;
    let ns = cluster.namespace("files")?;
    let beside = "    securityContext: {runAsUser: 1234, runAsGroup: 1235}\n  - {name: beside, image: 'busybox:v1', command: [sleep, '1000'], volumeMounts: [{name: data, mountPath: /data}]}\n";
    let local = cluster.dir().join("copied");
    fs::create_dir_all(local.join("below"))?;
    fs::write(local.join("below/page"), "from outside\n")?;
    // More than a pipe holds at once.
    fs::write(local.join("large"), vec![b'x'; 3 << 20])?;
    let large = local.join("large").to_string_lossy().into_owned();
    for (name, more) in [("alone", ""), ("beside", beside)] {
        cluster.apply(&(FILES.replace("NS", &ns).replace("NAME", name) + more))?;
        cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"])?.ok()?;
        let ip = cluster.kubectl(&["-n", &ns, "get", "pod", name, "-o", "jsonpath={.status.podIP}"])?.ok()?;
        let cp = |from: &str, to: &str| cluster.kubectl(&["-n", &ns, "cp", "-c", "web", from, to]);
        cp(&local.to_string_lossy(), &format!("{name}:/data/copied"))?.ok()?;
        // The component reads it, as its own.
        ensure!(cluster.host.get(&format!("http://{ip}:8080/read?/data/copied/below/page"))? == "from outside\n");
        let back = cluster.dir().join(format!("back-{name}"));
        cp(&format!("{name}:/data/copied"), &back.to_string_lossy())?.ok()?;
        ensure!(fs::read_to_string(back.join("below/page"))? == "from outside\n");
        ensure!(fs::read(back.join("large"))? == fs::read(local.join("large"))?);
        let run = |words: &[&str]| cluster.kubectl(&[&["-n", &ns, "exec", name, "-c", "web", "--"], words].concat());
        if name == "beside" {
            // A process beside it sees whose files they are: the component's own user's.
            let owner = ["-n", &ns, "exec", name, "-c", "beside", "--", "stat", "-c", "%u:%g", "/data/copied", "/data/copied/below/page"];
            ensure!(cluster.kubectl(&owner)?.ok()? == "1234:1235\n1234:1235\n");
        }
        ensure!(run(&["cat", "/etc/fixed/key"])?.ok()? == "value");
        ensure!(run(&["ls", "/data/copied"])?.ok()? == "below\nlarge\n");
        for (refused, why) in [
            (run(&["cat", "/etc/passwd"])?.err()?, "nothing is mounted"),
            (run(&["sh", "-c", "ls"])?.err()?, "nothing can be run in a wasm container"),
        ] {
            ensure!(refused.contains(why), "{refused}");
        }
        // The reason comes though most of the file was not read.
        for (speech, on) in [("websocket", "true"), ("spdy", "false")] {
            for (there, why) in [("/etc/fixed/new", "read-only"), ("/nowhere/new", "nothing is mounted")] {
                let words = ["-n", &ns, "cp", "-c", "web", &large, &format!("{name}:{there}")];
                let refused = Output::of(cluster.kubectl_command(&words).env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", on), "")?.err()?;
                ensure!(refused.contains(why), "{speech}: {there}: {refused}");
            }
        }
    }
    cluster.stop()
}
