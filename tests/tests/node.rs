//! The node as kubelet's users know it: pressure and eviction by thresholds, what is used and measured, what pods may have.

use anyhow::ensure;
use coracle_tests::{Alone, Cluster, Mode, Result, alone, eventually, has};
use serde_json::{Value, json};
use std::{fs, process::ExitCode};

const CASES: &[Alone] = &[
    ("pressure_refuses_and_evicts", pressure_refuses_and_evicts),
    ("a_bomb_of_forks_is_its_pods_alone", a_bomb_of_forks_is_its_pods_alone),
    ("what_is_used_is_told", what_is_used_is_told),
    ("files_are_pods", files_are_pods),
    ("huge_pages_are_a_volume", huge_pages_are_a_volume),
];

fn main() -> ExitCode {
    alone(CASES)
}

fn pod(ns: &str, name: &str, resources: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - {{name: main, image: 'hello:v1', ports: [{{containerPort: 8080}}], resources: {resources}}}\n"
    )
}

fn ended(cluster: &Cluster, ns: &str, name: &str) -> Result<Value> {
    eventually(&format!("{name} has failed"), 60, || {
        let status = cluster.get(&["-n", ns, "pod", name])?["status"].clone();
        ensure!(status["phase"] == "Failed", "{status}");
        Ok(status)
    })
}

fn a_bomb_of_forks_is_its_pods_alone() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &["--pod-max-pids", "100"])?;
    cluster.up()?;
    cluster.import_busybox()?;
    let ns = cluster.namespace("forks")?;
    let run = |name: &str, script: &str| {
        let container = json!({ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script] });
        let spec = json!({ "terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container] });
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns }, "spec": spec }).to_string())
    };
    run("neighbour", "sleep 1000")?;
    // A shell that cannot fork ends; the first process stays.
    run("bomb", "bomb() { bomb & bomb & sleep 1000; }; (while :; do bomb; done) & exec sleep 1000")?;
    cluster.ready(&ns, "neighbour")?;
    cluster.ready(&ns, "bomb")?;
    eventually("it is told why it has no more", 60, || {
        let events = cluster.kubectl(&["-n", &ns, "describe", "pod", "bomb"])?.ok()?;
        has(&events, &["PidsLimitReached", "it has as many as a pod may have (100, see --pod-max-pids)"])
    })?;
    has(&cluster.logs(&ns, "bomb")?, &["can't fork: Resource temporarily unavailable"])?;
    ensure!(cluster.kubectl_in(&ns, &["exec", "neighbour", "--", "echo", "here"])?.ok()? == "here\n");
    run("later", "(true; true) & wait")?;
    ensure!(cluster.finished(&ns, "later")?["phase"] == "Succeeded");
    let status = cluster.get(&["node", "test-node"])?["status"].clone();
    ensure!(condition(&status, "Ready").is_some_and(|one| one["status"] == "True"), "{status}");
    ensure!(condition(&status, "PIDPressure").is_some_and(|one| one["status"] == "False"), "{status}");
    ensure!(raw(&cluster, "configz")?.contains("\"podPidsLimit\":100"), "{}", raw(&cluster, "configz")?);
    cluster.kubectl(&["-n", &ns, "delete", "pod", "bomb", "--timeout=60s"])?.ok()?;
    cluster.stop()
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// No machine has all of its memory left, so this threshold is always met.
fn pressure_refuses_and_evicts() -> Result {
    // A hard one would leave pods nothing to ask for.
    let soft = ["--eviction-soft", "memory.available<99.9%", "--eviction-soft-grace-period", "memory.available=1s"];
    let cluster = Cluster::stopped(Mode::Whole, &[&soft[..], &["--eviction-pressure-transition-period", "1s"]].concat())?;
    cluster.up()?;
    cluster.import("hello", "hello:v1")?;
    let ns = cluster.namespace("pressure")?;
    eventually("the node tells of its pressure", 30, || {
        let node = cluster.get(&["node", "test-node"])?;
        let memory = condition(&node["status"], "MemoryPressure").cloned().unwrap_or_default();
        ensure!(memory["status"] == "True" && memory["reason"] == "KubeletHasInsufficientMemory", "{memory}");
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        ensure!(taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/memory-pressure" && taint["effect"] == "NoSchedule"), "{taints:?}");
        Ok(())
    })?;
    cluster.apply(&pod(&ns, "asks-nothing", "{}", "  nodeName: test-node\n"))?;
    let status = ended(&cluster, &ns, "asks-nothing")?;
    ensure!(status["reason"] == "Evicted" && status["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. ", "{status}");
    ensure!(status.get("containerStatuses").is_none(), "{status}");

    // The taint keeps the scheduler away, so it is bound here.
    cluster.apply(&pod(&ns, "asks-little", "{requests: {memory: 1Mi}}", "  nodeName: test-node\n"))?;
    let status = ended(&cluster, &ns, "asks-little")?;
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(status["reason"] == "Evicted" && message.starts_with("The node was low on resource: memory. Threshold quantity: "), "{status}");
    let disruption = condition(&status, "DisruptionTarget").cloned().unwrap_or_default();
    ensure!(disruption["status"] == "True" && disruption["reason"] == "TerminationByKubelet" && disruption["message"] == message, "{status}");
    eventually("events tell of it", 20, || {
        let events = cluster.get(&["-n", &ns, "events"])?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let told = events
            .iter()
            .any(|event| event["reason"] == "Evicted" && event["involvedObject"]["name"] == "asks-little" && event["message"] == message);
        ensure!(told, "{events:?}");
        let node = cluster.get(&["-n", "default", "events"])?.to_string();
        ensure!(node.contains("EvictionThresholdMet") && node.contains("Attempting to reclaim memory"), "{node}");
        Ok(())
    })?;
    let metrics = raw(&cluster, "metrics")?;
    ensure!(metrics.contains("kubelet_evictions{eviction_signal=\"memory.available\"}"), "{metrics}");
    cluster.stop()
}

fn raw(cluster: &Cluster, path: &str) -> Result<String> {
    cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/test-node/proxy/{path}")])?.ok()
}

fn what_is_used_is_told() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &["--system-reserved", "cpu=100m,memory=64Mi", "--kube-reserved", "memory=36Mi"])?;
    cluster.up()?;
    cluster.import("hello", "hello:v1")?;
    let ns = cluster.namespace("used")?;
    let probe = "{}, livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1}";
    cluster.apply(&pod(&ns, "web", probe, ""))?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/web", "--timeout=30s"])?.ok()?;

    let node = cluster.get(&["node", "test-node"])?["status"].clone();
    let bytes = |list: &str| -> i64 { node[list]["memory"].as_str().map_or(0, kibibytes) };
    // Both reserves, and the threshold that the tests start with.
    ensure!(bytes("capacity") - bytes("allocatable") == (64 + 36 + 50) << 10, "{node}");
    ensure!(node["nodeInfo"]["bootID"].as_str().is_some_and(|id| id.len() == 36) && node["nodeInfo"]["architecture"].is_string(), "{node}");

    let summary: Value = serde_json::from_str(&raw(&cluster, "stats/summary")?)?;
    ensure!(summary["node"]["nodeName"] == "test-node" && summary["node"]["memory"]["workingSetBytes"].as_u64() > Some(0), "{summary}");
    ensure!(summary["node"]["fs"]["capacityBytes"].as_u64() > Some(0) && summary["node"]["rlimit"]["maxpid"].as_u64() > Some(0), "{summary}");
    let pods = summary["pods"].as_array().cloned().unwrap_or_default();
    let web = pods.iter().find(|pod| pod["podRef"]["name"] == "web").cloned().unwrap_or_default();
    ensure!(web["podRef"]["namespace"] == ns && web["containers"][0]["name"] == "main", "{summary}");
    ensure!(web["containers"][0]["cpu"]["usageCoreNanoSeconds"].is_u64() && web["ephemeral-storage"]["usedBytes"].is_u64(), "{web}");

    let cadvisor = raw(&cluster, "metrics/cadvisor")?;
    let series = |name: &str| cadvisor.lines().any(|line| line.starts_with(&format!("{name}{{container=\"main\",")) && line.contains("pod=\"web\""));
    ensure!(series("container_cpu_usage_seconds_total") && series("container_memory_working_set_bytes"), "{cadvisor}");
    ensure!(cadvisor.contains("machine_cpu_cores{"), "{cadvisor}");
    ensure!(raw(&cluster, "metrics/resource")?.contains("node_cpu_usage_seconds_total "));
    eventually("probes are counted", 20, || {
        let probes = raw(&cluster, "metrics/probes")?;
        ensure!(probes.contains("pod=\"web\"") && probes.contains("probe_type=\"Liveness\",result=\"successful\""), "{probes}");
        Ok(())
    })?;
    ensure!(raw(&cluster, "metrics")?.contains("kubelet_running_pods "));
    ensure!(raw(&cluster, "healthz")? == "ok");
    ensure!(raw(&cluster, "pods")?.contains("\"PodList\"") && raw(&cluster, "configz")?.contains("\"memory.available\":\"50Mi\""));
    ensure!(cluster.kubectl(&["get", "--raw", "/api/v1/nodes/test-node/proxy/exec/a/b/c"])?.ok().is_err(), "what is not served is refused");

    // Kubelet's own rule: nodes/metrics is for /metrics and nothing else.
    let as_reader = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/test-node/proxy/{path}"), "--as", "reader"]);
    ensure!(as_reader("metrics")?.ok().is_err());
    cluster.kubectl(&["create", "clusterrole", "scrapes", "--verb=get", "--resource=nodes/metrics"])?.ok()?;
    cluster.kubectl(&["create", "clusterrolebinding", "scrapes", "--clusterrole=scrapes", "--user=reader"])?.ok()?;
    eventually("the role is known", 10, || as_reader("metrics/resource")?.ok().map(drop))?;
    ensure!(as_reader("stats/summary")?.ok().is_err());
    cluster.stop()
}

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Huge pages of the machine that it had not before; given back when dropped.
struct HugePages(String);

impl HugePages {
    fn set_aside(least: u64) -> Result<Option<Self>> {
        let Ok(before) = fs::read_to_string(PAGES) else { return Ok(None) };
        let count = || fs::read_to_string(PAGES).map(|text| text.trim().parse::<u64>().unwrap_or(0));
        let there = count()? >= least || fs::write(PAGES, least.to_string()).is_ok() && count()? >= least;
        let aside = Self(before);
        Ok(there.then_some(aside))
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(PAGES, self.0.trim());
    }
}

fn huge_pages_are_a_volume() -> Result {
    let pages = HugePages::set_aside(4)?;
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    if cluster.host.name().is_none() || pages.is_none() {
        println!("left out: no root, or no memory in pieces of 2 MiB");
        return Ok(());
    }
    cluster.up()?;
    cluster.import_busybox()?;
    let ns = cluster.namespace("huge")?;
    let pod = |name: &str, limits: Value| {
        let script = "fallocate -l 4194304 /huge/two && echo two; stat -f -c %s /huge; grep -c ' /huge hugetlbfs ' /proc/mounts";
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns }, "spec": { "restartPolicy": "Never",
            "volumes": [{ "name": "huge", "emptyDir": { "medium": "HugePages" } }],
            "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
                "resources": { "limits": limits }, "volumeMounts": [{ "name": "huge", "mountPath": "/huge" }] }] } });
        cluster.apply(&pod.to_string())
    };
    pod("some", json!({ "cpu": "10m", "memory": "32Mi", "hugepages-2Mi": "4Mi" }))?;
    pod("much", json!({ "cpu": "10m", "memory": "32Mi", "hugepages-2Mi": "1Ti" }))?;
    pod("none", json!({ "cpu": "10m" }))?;
    ensure!(cluster.finished(&ns, "some")?["phase"] == "Succeeded", "{}", cluster.logs(&ns, "some")?);
    let text = cluster.logs(&ns, "some")?;
    ensure!(text == "two\n2097152\n1\n", "{text}");
    for (name, words) in [
        ("much", &["FailedScheduling", "Insufficient hugepages-2Mi"][..]),
        ("none", &["FailedMount", "hugePages storage requested, but there is no resource request for huge pages"]),
    ] {
        let events = || cluster.kubectl_in(&ns, &["get", "events", "--field-selector", &format!("involvedObject.name={name}")])?.ok();
        eventually("why it does not begin", 60, || has(&events()?, words))?;
    }
    cluster.stop()
}

/// Static pods: the API shows what it cannot change.
fn files_are_pods() -> Result {
    let dir = tempfile::tempdir()?;
    let manifests = dir.path().join("manifests");
    let cluster = Cluster::stopped(Mode::Whole, &["--pod-manifest-path", &manifests.to_string_lossy()])?;
    cluster.up()?;
    cluster.import("hello", "hello:v1")?;
    // Only root has containers.
    let containers = cluster.host.name().is_some();
    let mut names = vec!["web"];
    if containers {
        cluster.import_busybox()?;
        names.push("box");
    }
    let manifest = |name: &str, label: &str| {
        let container = match name {
            "web" => "{name: main, image: 'hello:v1', imagePullPolicy: Never, ports: [{containerPort: 8080}]}",
            _ => "{name: main, image: 'busybox:v1', imagePullPolicy: Never, command: [sh, -c, 'echo from a file; exec sleep 86400']}",
        };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{is: {label}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{container}]\n"
        )
    };
    for name in &names {
        fs::write(manifests.join(format!("{name}.yaml")), manifest(name, "first"))?;
    }
    let mirror = |name: &str| cluster.get(&["-n", "default", "pod", &format!("{name}-test-node")]);
    let ready = |name: &str, so: &dyn Fn(&Value) -> bool| {
        eventually(&format!("{name} is there"), 60, || {
            let pod = mirror(name)?;
            ensure!(condition(&pod["status"], "Ready").is_some_and(|ready| ready["status"] == "True") && so(&pod), "{pod}");
            Ok(pod)
        })
    };
    for name in names {
        let pod = ready(name, &|_| true)?;
        let notes = &pod["metadata"]["annotations"];
        ensure!(notes["kubernetes.io/config.source"] == "file" && notes["kubernetes.io/config.seen"].is_string(), "{pod}");
        ensure!(
            notes["kubernetes.io/config.mirror"].is_string() && notes["kubernetes.io/config.mirror"] == notes["kubernetes.io/config.hash"],
            "{pod}"
        );
        let owner = &pod["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Node" && owner["name"] == "test-node" && owner["controller"] == true, "{pod}");
        ensure!(pod["spec"].get("serviceAccountName").is_none(), "it has nothing of the API: {pod}");
        let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
        let (uid, id, hash) = (pod["metadata"]["uid"].clone(), container(&pod), notes["kubernetes.io/config.hash"].clone());
        if name == "box" {
            let log = cluster.kubectl(&["logs", "box-test-node"])?.ok()?;
            ensure!(log == "from a file\n", "{log}");
        }
        // Who deletes the mirror does not delete the pod.
        cluster.kubectl(&["delete", "pod", &format!("{name}-test-node"), "--wait=false"])?.ok()?;
        let again = ready(name, &|pod| pod["metadata"]["uid"] != uid && pod["metadata"].get("deletionTimestamp").is_none())?;
        ensure!(container(&again) == id && again["status"]["containerStatuses"][0]["restartCount"] == 0, "it was not touched: {again}");
        // Nor does who kills the agent.
        cluster.kill()?;
        cluster.up()?;
        let kept = ready(name, &|_| true)?;
        ensure!(container(&kept) == id && kept["metadata"]["uid"] == again["metadata"]["uid"], "{kept}");
        // Another content is another pod.
        fs::write(manifests.join(format!("{name}.yaml")), manifest(name, "second"))?;
        let other = ready(name, &|pod| pod["metadata"]["labels"]["is"] == "second")?;
        ensure!(other["metadata"]["annotations"]["kubernetes.io/config.hash"] != hash && container(&other) != id, "{other}");
        fs::remove_file(manifests.join(format!("{name}.yaml")))?;
        eventually("with its file it goes", 60, || {
            ensure!(mirror(name).is_err_and(|why| why.to_string().contains("NotFound")));
            Ok(())
        })?;
    }
    cluster.stop()
}

/// `123Ki`, `5Mi` or `2Gi` in kibibytes.
fn kibibytes(text: &str) -> i64 {
    let number = |suffix: &str, scale: i64| Some(text.strip_suffix(suffix)?.parse::<i64>().ok()? * scale);
    number("Ki", 1).or_else(|| number("Mi", 1 << 10)).or_else(|| number("Gi", 1 << 20)).unwrap_or(0)
}
