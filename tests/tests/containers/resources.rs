//! What containers may use: changed while they run, and what is added to it.

use super::{events, pod};
use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually, has};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// `kubectl patch --subresource resize` (KEP-1287).
pub fn resources_change_in_place(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("resize")?;
    let resources = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } });
    let policy = "resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: memory, restartPolicy: RestartContainer}]";
    for (name, policy) in [("both", String::new()), ("restarts", format!(", {policy}"))] {
        let container = format!("resources: {}{policy}", resources("100m", "32Mi"));
        pod(cluster, &ns, name, "sleep 1000", &container, "")?;
        cluster.ready(&ns, name)?;
    }
    let patch = |name: &str, resources: Value| {
        let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": resources }] } }).to_string();
        cluster.kubectl(&["-n", &ns, "patch", "pod", name, "--subresource", "resize", "-p", &patch])?.ok().map(drop)
    };
    let becomes = |name: &str, memory: &str, cpu: &str, restarts: u64| {
        eventually(&format!("{name} has {cpu} and {memory}"), 60, || {
            let status = cluster.status(&ns, name)?;
            let main = &status["containerStatuses"][0];
            for has in [main, &status] {
                ensure!(
                    has["resources"] == resources(cpu, memory) && has["allocatedResources"] == json!({ "cpu": cpu, "memory": memory }),
                    "{status}"
                );
            }
            ensure!(main["restartCount"] == restarts && main["ready"] == true, "{status}");
            let resizing = status["conditions"]
                .as_array()
                .is_some_and(|list| list.iter().any(|one| one["type"].as_str().unwrap_or("").starts_with("PodResize")));
            ensure!(!resizing, "{status}");
            Ok(())
        })
    };
    let limit = |name: &str| cluster.kubectl_in(&ns, &["exec", name, "--", "sh", "-c", LIMIT])?.ok();
    patch("both", resources("200m", "64Mi"))?;
    becomes("both", "64Mi", "200m", 0)?;
    ensure!(limit("both")?.trim() == (64 << 20).to_string(), "{}", limit("both")?);
    has(&events(cluster, &ns, "both")?, &["ResizeStarted", "ResizeCompleted"])?;
    patch("restarts", resources("200m", "32Mi"))?;
    becomes("restarts", "32Mi", "200m", 0)?;
    patch("restarts", resources("200m", "64Mi"))?;
    becomes("restarts", "64Mi", "200m", 1)?;
    has(&events(cluster, &ns, "restarts")?, &["Container main resize requires restart"])?;
    // What there is no room for waits until there is.
    let node = cluster.get(&["nodes"])?["items"][0]["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_owned();
    let millis: u64 = node.strip_suffix('m').map_or_else(|| node.parse().map(|cores: u64| cores * 1000), str::parse)?;
    let (most, more) = (format!("{}m", millis * 6 / 10), format!("{}m", millis * 7 / 10));
    pod(cluster, &ns, "filler", "sleep 1000", &format!("resources: {{requests: {{cpu: {most}}}}}"), "")?;
    cluster.ready(&ns, "filler")?;
    patch("both", resources(&more, "64Mi"))?;
    eventually("it is deferred", 60, || {
        let status = cluster.status(&ns, "both")?;
        let pending =
            status["conditions"].as_array().and_then(|list| list.iter().find(|one| one["type"] == "PodResizePending").cloned()).unwrap_or_default();
        ensure!(pending["reason"] == "Deferred" && pending["message"].as_str().is_some_and(|text| text.contains("cpu")), "{status}");
        ensure!(status["containerStatuses"][0]["resources"] == resources("200m", "64Mi"), "{status}");
        Ok(())
    })?;
    has(&events(cluster, &ns, "both")?, &["ResizeDeferred"])?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "filler", "--timeout=30s"])?.ok()?;
    becomes("both", "64Mi", &more, 0)?;
    // What there will never be room for is refused at once.
    let why = patch("both", resources(&format!("{}m", millis + 1), "64Mi")).err().context("it was taken")?.to_string();
    has(&why, &["node didn't have enough allocatable resources: cpu"])
}

/// A container that was made without resources has none in its status, told as such, and may be given some.
pub fn what_asks_for_nothing_may_ask_later(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("nothing")?;
    let image = super::image(cluster)?;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "two", "namespace": ns }, "spec": { "terminationGracePeriodSeconds": 1,
        "containers": [
            { "name": "some", "image": image, "command": ["sleep", "1000"], "resources": { "requests": { "cpu": "10m" } } },
            { "name": "none", "image": image, "command": ["sleep", "1000"] }] } });
    cluster.apply(&pod.to_string())?;
    cluster.ready(&ns, "two")?;
    let none = |wanted: Value, allocated: Value| {
        eventually("what it has", 60, || {
            let status = cluster.status(&ns, "two")?;
            let none = status["containerStatuses"].as_array().and_then(|list| list.iter().find(|one| one["name"] == "none")).context("no status")?;
            ensure!(none["resources"] == wanted && none["allocatedResources"] == allocated, "{status}");
            ensure!(none["restartCount"] == 0 && none["ready"] == true, "{status}");
            // One of two has no limits, so that the pod has none.
            ensure!(status["resources"]["requests"]["cpu"].is_string() && status["resources"].get("limits").is_none(), "{status}");
            Ok(())
        })
    };
    none(json!({}), Value::Null)?;
    let patch = |resources: Value| {
        let patch = json!({ "spec": { "containers": [{ "name": "none", "resources": resources }] } }).to_string();
        cluster.kubectl_in(&ns, &["patch", "pod", "two", "--subresource", "resize", "-p", &patch])
    };
    patch(json!({ "requests": { "cpu": "20m", "memory": "8Mi" }, "limits": { "memory": "64Mi" } }))?.ok()?;
    none(json!({ "requests": { "cpu": "20m", "memory": "8Mi" }, "limits": { "memory": "64Mi" } }), json!({ "cpu": "20m", "memory": "8Mi" }))?;
    let limit = cluster.kubectl_in(&ns, &["exec", "two", "-c", "none", "--", "sh", "-c", LIMIT])?.ok()?;
    ensure!(limit.trim() == (64 << 20).to_string(), "{limit}");
    // A pod that asks for nothing at all would be of another class.
    super::pod(cluster, &ns, "least", "sleep 1000", "", "")?;
    cluster.ready(&ns, "least")?;
    let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": { "requests": { "cpu": "20m" } } }] } }).to_string();
    let why = cluster.kubectl_in(&ns, &["patch", "pod", "least", "--subresource", "resize", "-p", &patch])?.err()?;
    has(&why, &["Pod QOS Class may not change as a result of resizing"])
}

/// What a pod says of itself as a whole (KEP-5419).
pub fn whole_pods_change_in_place(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("whole")?;
    let whole = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } });
    let image = super::image(cluster)?;
    let container = json!({ "name": "main", "image": image, "command": ["sleep", "1000"] });
    let spec = json!({ "terminationGracePeriodSeconds": 1, "resources": whole("100m", "32Mi"), "containers": [container] });
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one", "namespace": ns }, "spec": spec }).to_string())?;
    cluster.ready(&ns, "one")?;
    let uid = cluster.get(&["-n", &ns, "pod", "one"])?["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let limit = || of_group(&uid, "memory.max").or_else(|| of_group(&uid, "memory.limit_in_bytes"));
    ensure!(limit() == Some((32 << 20).to_string()), "{:?}", limit());
    // What has no limits of its own has the pod's, whether it grows or shrinks.
    for (cpu, memory, bytes) in [("200m", "64Mi", 64 << 20), ("100m", "48Mi", 48 << 20)] {
        let patch = json!({ "spec": { "resources": whole(cpu, memory) } }).to_string();
        cluster.kubectl_in(&ns, &["patch", "pod", "one", "--subresource", "resize", "-p", &patch])?.ok()?;
        eventually("it has what it wants", 60, || {
            let status = cluster.status(&ns, "one")?;
            ensure!(status["resources"] == whole(cpu, memory) && status["allocatedResources"] == whole(cpu, memory)["limits"], "{status}");
            ensure!(limit() == Some(bytes.to_string()), "{:?}", limit());
            ensure!(status["containerStatuses"][0]["restartCount"] == 0, "{status}");
            has(&events(cluster, &ns, "one")?, &["ResizeStarted", "ResizeCompleted"])
        })?;
        let own = cluster.kubectl_in(&ns, &["exec", "one", "--", "sh", "-c", LIMIT])?.ok()?;
        ensure!(own.trim() == bytes.to_string(), "{own}");
    }
    Ok(())
}

/// A file of the control group of a pod whose class is Guaranteed.
fn of_group(uid: &str, file: &str) -> Option<String> {
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|tree| tree.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    let text = trees.map(|tree| tree.join(format!("coracle/pod{uid}/{file}"))).find_map(|path| fs::read_to_string(path).ok());
    text.map(|text| text.trim().to_owned())
}

/// What the kernel has, in the container's own view of its group.
const LIMIT: &str = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";

/// RuntimeClass (KEP-688): admission tells it the pod, the scheduler counts it, and the pod as a whole may use it.
pub fn a_runtime_class_has_its_overhead(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("overhead")?;
    let classes = [("light", "50m", "16Mi"), ("heavy", "1k", "16Mi")];
    for (name, cpu, memory) in classes {
        let class = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": name }, "handler": "oci",
            "overhead": { "podFixed": { "cpu": cpu, "memory": memory } } });
        cluster.apply(&class.to_string())?;
    }
    let limits = "resources: {limits: {cpu: 100m, memory: 32Mi}}";
    for (name, ..) in classes {
        pod(cluster, &ns, name, "sleep 1000", limits, &format!("  runtimeClassName: {name}\n"))?;
    }
    cluster.ready(&ns, "light")?;
    let light = cluster.get(&["-n", &ns, "pod", "light"])?;
    ensure!(light["spec"]["overhead"] == json!({ "cpu": "50m", "memory": "16Mi" }), "{light}");
    let uid = light["metadata"]["uid"].as_str().context("no uid")?;
    let group = |file: &str| of_group(uid, file);
    let memory = group("memory.max").or_else(|| group("memory.limit_in_bytes"));
    ensure!(memory == Some((48 << 20).to_string()), "{memory:?}");
    let cpu = group("cpu.max").or_else(|| Some(format!("{} {}", group("cpu.cfs_quota_us")?, group("cpu.cfs_period_us")?)));
    ensure!(cpu.as_deref() == Some("15000 100000"), "{cpu:?}");
    let own = cluster.kubectl_in(&ns, &["exec", "light", "--", "sh", "-c", LIMIT])?.ok()?;
    ensure!(own.trim() == (32 << 20).to_string(), "the container's own is what it asked for: {own}");
    // It would fit, but for its class.
    eventually("why it is not scheduled", 60, || has(&events(cluster, &ns, "heavy")?, &["FailedScheduling", "Insufficient cpu"]))?;
    pod(cluster, &ns, "odd", "true", limits, "  runtimeClassName: light\n  overhead: {cpu: 1m}\n")
        .err()
        .context("it was taken")
        .and_then(|why| has(&format!("{why:?}"), &["Pod's Overhead doesn't match RuntimeClass's defined Overhead"]))
}
