//! Images from a real registry, and what goes wrong with them.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Output, Registry, Result, archive, binary, eventually, guest, main as suite};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
};

const CASES: &[Case] = &[
    ("pull_a_wasm_artifact", pull_a_wasm_artifact),
    ("pull_policies", pull_policies),
    ("images_that_cannot_be_had", images_that_cannot_be_had),
    ("files_that_are_no_component", files_that_are_no_component),
    ("import_list_and_remove", import_list_and_remove),
    ("a_guarded_registry_with_an_image_around_a_component", a_guarded_registry_with_an_image_around_a_component),
];

/// Shared by the cases, and ended after them: what a static holds is never dropped.
static REGISTRY: Mutex<Option<Arc<Registry>>> = Mutex::new(None);

fn main() -> ExitCode {
    let code = suite(Mode::Whole, CASES);
    drop(REGISTRY.lock().map(|mut registry| registry.take()));
    code
}

fn registry(cluster: &Cluster) -> Result<Arc<Registry>> {
    let mut held = REGISTRY.lock().map_err(|_| anyhow::anyhow!("another case failed while it started the registry"))?;
    if held.is_none() {
        *held = Some(Arc::new(Registry::start(&cluster.host, 5000)?));
    }
    held.clone().context("no registry")
}

fn run(cluster: &Cluster, ns: &str, name: &str, image: &str, policy: &str) -> Result {
    cluster
        .apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{image}', imagePullPolicy: {policy}, ports: [{{containerPort: 8080}}]}}\n"
        ))
        .map(drop)
}

fn waiting(cluster: &Cluster, ns: &str, name: &str, reasons: &[&str], words: &[&str]) -> Result {
    eventually(&format!("{name} waits with {reasons:?}"), 40, || {
        let pod = cluster.get(&["-n", ns, "pod", name])?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        ensure!(reasons.iter().any(|reason| waiting["reason"] == *reason), "{}", pod["status"]);
        let described = cluster.kubectl(&["-n", ns, "describe", "pod", name])?.ok()?;
        for word in words {
            ensure!(described.contains(word), "{word:?} is missing in\n{described}");
        }
        Ok(())
    })
}

fn pull_a_wasm_artifact(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("pulls")?;
    let registry = registry(cluster)?;
    let image = cluster.offer(&registry, "hello", "team/hello:v1")?;
    run(cluster, &ns, "pulled", &image, "Always")?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/pulled", "--timeout=40s"])?.ok()?;
    let pod = cluster.get(&["-n", &ns, "pod", "pulled"])?;
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    ensure!(cluster.host.get(&format!("http://{ip}:8080/"))? == "Hello from a coracle\n");
    ensure!(pod["status"]["containerStatuses"][0]["imageID"].as_str().is_some_and(|id| id.contains("team/hello@sha256:")), "{}", pod["status"]);
    let events = cluster.kubectl(&["-n", &ns, "get", "events"])?.ok()?;
    ensure!(events.contains(&format!("Pulling image \"{image}\"")) && events.contains(&format!("Successfully pulled image \"{image}\"")), "{events}");
    Ok(())
}

fn pull_policies(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("policies")?;
    run(cluster, &ns, "never", "not-here:v1", "Never")?;
    waiting(cluster, &ns, "never", &["ErrImageNeverPull"], &["is not present with pull policy of Never"])?;
    run(cluster, &ns, "present", "hello:v1", "IfNotPresent")?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/present", "--timeout=30s"])?.ok()?;
    let events = cluster.kubectl(&["-n", &ns, "get", "events"])?.ok()?;
    ensure!(events.contains("Container image \"hello:v1\" already present on machine"), "{events}");
    Ok(())
}

fn images_that_cannot_be_had(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("unavailable")?;
    let registry = registry(cluster)?;
    run(cluster, &ns, "missing", &format!("{}/nobody/nothing:v1", registry.address), "IfNotPresent")?;
    let words = ["Failed to pull image", "nobody/nothing:v1", "404 Not Found", "check the image's name and tag"];
    waiting(cluster, &ns, "missing", &["ErrImagePull", "ImagePullBackOff"], &words)?;
    waiting(cluster, &ns, "missing", &["ImagePullBackOff"], &["Back-off pulling image"])?;
    run(cluster, &ns, "refused", "127.0.0.1:9/x/y:v1", "IfNotPresent")?;
    waiting(cluster, &ns, "refused", &["ErrImagePull", "ImagePullBackOff"], &["127.0.0.1:9 cannot be reached", "coracle image import"])?;
    cluster.import("web", "127.0.0.1:9/here:v1")?;
    run(cluster, &ns, "always", "127.0.0.1:9/here:v1", "Always")?;
    waiting(cluster, &ns, "always", &["ErrImagePull", "ImagePullBackOff"], &["is on this machine", "imagePullPolicy IfNotPresent"])?;
    run(cluster, &ns, "misnamed", "UPPER/Case:v1", "IfNotPresent")?;
    waiting(cluster, &ns, "misnamed", &["InvalidImageName"], &["UPPER/Case:v1"])?;
    let pod = cluster.get(&["-n", &ns, "pod", "misnamed"])?;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("Failed to apply default image tag \"UPPER/Case:v1\": couldn't parse image name"), "{message}");
    Ok(())
}

fn files_that_are_no_component(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("broken")?;
    let whole = std::fs::read(guest("hello")?)?;
    let bad: [(&str, Vec<u8>); 3] =
        [("text", b"#!/bin/sh\necho no\n".to_vec()), ("truncated", whole.get(..whole.len() / 2).unwrap_or_default().to_vec()), ("empty", Vec::new())];
    for (name, bytes) in bad {
        let file = cluster.dir().join(format!("{name}.wasm"));
        std::fs::write(&file, bytes)?;
        let said = cluster.coracle(&["image", "import", &file.to_string_lossy(), "--name", &format!("{name}:v1")])?.err()?;
        let why = if name == "truncated" { "truncated WebAssembly" } else { "is no WebAssembly file" };
        ensure!(said.contains(&*file.to_string_lossy()) && said.contains(why), "{said}");
    }
    ensure!(!cluster.coracle(&["image", "list"])?.ok()?.contains("truncated"), "a name for what cannot run");
    // It begins as a component does, and is no file of its own: only who compiles it sees that it ends too early.
    let archive = around_a_component(cluster, &cluster.dir().join("truncated.wasm"), "truncated:v1")?;
    cluster.coracle(&["image", "import", &archive.to_string_lossy()])?.ok()?;
    run(cluster, &ns, "truncated", "truncated:v1", "IfNotPresent")?;
    waiting(cluster, &ns, "truncated", &["InvalidImage"], &["Warning", "Failed", "truncated", "push the image again"])
}

/// An image as container tools make it, whose one layer holds a component and whose command names it.
fn around_a_component(cluster: &Cluster, wasm: &Path, name: &str) -> Result<PathBuf> {
    let root = cluster.dir().join(format!("around-{}", name.replace(['/', ':'], "-")));
    fs::create_dir_all(&root)?;
    fs::copy(wasm, root.join("app.wasm"))?;
    archive::of(&cluster.dir(), &root, name, json!({ "architecture": "wasm", "os": "wasip2", "config": { "Entrypoint": ["/app.wasm"] } }))
}

fn a_guarded_registry_with_an_image_around_a_component(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("guarded")?;
    let registry = Registry::guarded(&cluster.host, 5443)?;
    let image = registry.push(&cluster.host, &around_a_component(cluster, &guest("hello")?, "team/app:v1")?, "team/app:v1")?;
    // Whose certificate nobody here has signed is not spoken to.
    let certs = cluster.data_dir().join("certs.d").join(&registry.address);
    fs::create_dir_all(&certs)?;
    let other = cluster.kubectl(&["get", "cm", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}"])?.ok()?;
    fs::write(certs.join("ca.crt"), other)?;
    run(cluster, &ns, "unknown", &image, "IfNotPresent")?;
    waiting(cluster, &ns, "unknown", &["ErrImagePull", "ImagePullBackOff"], &["certificate", "certs.d"])?;
    // The node is told of the registry's CA.
    fs::copy(registry.ca(), certs.join("ca.crt"))?;
    run(cluster, &ns, "stranger", &image, "IfNotPresent")?;
    waiting(cluster, &ns, "stranger", &["ErrImagePull", "ImagePullBackOff"], &["401", "imagePullSecrets"])?;
    let secret = |name: &str, password: &str| {
        let server = format!("--docker-server={}", registry.address);
        let password = format!("--docker-password={password}");
        cluster.kubectl(&["-n", &ns, "create", "secret", "docker-registry", name, &server, "--docker-username=alice", &password])?.ok()
    };
    secret("wrong", "guess")?;
    secret("right", "secret")?;
    let with = |name: &str, secrets: &str| {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  imagePullSecrets: [{secrets}]\n  containers:\n  - {{name: main, image: '{image}', imagePullPolicy: Always, ports: [{{containerPort: 8080}}]}}\n"
        ))
    };
    with("refused", "{name: wrong}")?;
    waiting(cluster, &ns, "refused", &["ErrImagePull", "ImagePullBackOff"], &["401", "do not open it"])?;
    with("let-in", "{name: wrong}, {name: right}")?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/let-in", "--timeout=40s"])?.ok()?;
    let ip = cluster.kubectl(&["-n", &ns, "get", "pod", "let-in", "-o", "jsonpath={.status.podIP}"])?.ok()?;
    ensure!(cluster.host.get(&format!("http://{ip}:8080/"))? == "Hello from a coracle\n");
    Ok(())
}

fn import_list_and_remove(cluster: &Cluster) -> Result {
    cluster.import("probe", "other/probe:v9")?;
    let list = cluster.coracle(&["image", "list"])?.ok()?;
    let line = list.lines().find(|line| line.contains("other/probe:v9")).unwrap_or_default();
    ensure!(line.ends_with(" KiB"), "{list}");
    let floating = cluster.coracle(&["image", "import", &cluster.dir().join("probe.wasm").to_string_lossy(), "--name", "other/floats"])?;
    ensure!(floating.code == 0 && floating.stderr.contains("docker.io/other/floats:latest nevertheless"), "{}", floating.stderr);
    cluster.coracle(&["image", "rm", "other/floats"])?.ok()?;
    cluster.coracle(&["image", "rm", "other/probe:v9"])?.ok()?;
    let list = cluster.coracle(&["image", "list"])?.ok()?;
    ensure!(!list.contains("other/probe"), "{list}");
    let missing = cluster.coracle(&["image", "import", "/nowhere.wasm", "--name", "x:v1"])?.err()?;
    ensure!(missing.contains("/nowhere.wasm"), "{missing}");
    // What is mistyped is not made.
    let mistyped = cluster.dir().join("mistyped");
    for action in [&["image", "ls"][..], &["image", "rm", "x:v1"], &["image", "push", "127.0.0.1:9/x:v1"]] {
        let said = Output::of(cluster.host.command(binary()?).args(action).arg("--data-dir").arg(&mistyped), "")?.err()?;
        ensure!(said.contains("there are no images in") && said.contains("--data-dir") && !mistyped.exists(), "{said}");
    }
    Ok(())
}
