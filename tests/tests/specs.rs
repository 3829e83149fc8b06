//! What upstream's specs of environments, users, volumes and init containers (`test/e2e/common/{node,storage}`, `test/e2e/{node,storage}`) see in a container: the same pods, with
//! busybox for upstream's images, and what each container says at its end.
//!
//! A row is a container. All of a case's pods are made at once, and a container's words are its termination message, so that one look at the list tells everything.

#[path = "specs/containers.rs"]
mod containers;
#[path = "specs/restarts.rs"]
mod restarts;
#[path = "specs/volumes.rs"]
mod volumes;

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, is_root, main as suite};
use serde_json::{Value, json};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("environments", containers::environments),
    ("users_and_rights", containers::users_and_rights),
    ("init_containers", containers::init_containers),
    ("configuration_as_files", volumes::configuration_as_files),
    ("facts_as_files", volumes::facts_as_files),
    ("empty_directories", volumes::empty_directories),
    ("paths_in_volumes", volumes::paths_in_volumes),
    ("files_follow_their_objects", volumes::files_follow_their_objects),
    ("many_volumes_at_once", volumes::many_volumes_at_once),
    ("what_is_missing_is_waited_for", volumes::what_is_missing_is_waited_for),
    ("all_containers_begin_again", restarts::all_containers_begin_again),
    ("jobs_whose_containers_begin_again", restarts::jobs_whose_containers_begin_again),
];

fn main() -> ExitCode {
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    suite(Mode::Whole, CASES)
}

const IMAGE: &str = "busybox:v1";

/// A container that says what its script prints.
fn container(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({ "name": name, "image": IMAGE, "command": ["sh", "-c", format!("exec > /dev/termination-log 2>&1\n{script}")] });
    merge(&mut container, more);
    container
}

/// Fields of the second replace those of the first.
fn merge(into: &mut Value, more: Value) {
    for (field, value) in more.as_object().into_iter().flatten() {
        into[field] = value.clone();
    }
}

/// A pod that ends, with these containers and more of a spec.
fn pod(ns: &str, name: &str, containers: &[Value], more: Value) -> Value {
    let mut spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers });
    merge(&mut spec, more);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns, "labels": { "spec": name }, "annotations": { "builder": "bar" } }, "spec": spec })
}

/// A namespace in which the image can be had.
fn begin(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.import_busybox()?;
    cluster.namespace(name)
}

fn apply(cluster: &Cluster, objects: &[Value]) -> Result {
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).map(drop)
}

/// Waits until every pod of a namespace has ended; what their containers said, by `POD/CONTAINER`.
fn said(cluster: &Cluster, ns: &str) -> Result<Vec<(String, String)>> {
    let list = eventually("all have ended", 120, || {
        let list = cluster.get(&["-n", ns, "pods"])?;
        let open =
            list["items"].as_array().context("no list")?.iter().find(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
        ensure!(open.is_none(), "{}", open.map(|pod| pod["status"].to_string()).unwrap_or_default());
        Ok(list)
    })?;
    let mut said = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        for one in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = format!("{}/{}", text(&pod["metadata"]["name"]), text(&one["name"]));
            said.push((key, text(&one["state"]["terminated"]["message"])));
        }
    }
    Ok(said)
}

/// Makes the pods, each container with what it has to say, and compares: all that differ are told at once.
fn all_say(cluster: &Cluster, ns: &str, pods: &[(Value, Vec<&str>)]) -> Result {
    apply(cluster, &pods.iter().map(|(pod, _)| pod.clone()).collect::<Vec<_>>())?;
    let said = said(cluster, ns)?;
    let mut wrong = Vec::new();
    for (pod, wanted) in pods {
        let containers = pod["spec"]["containers"].as_array().context("containers")?;
        ensure!(containers.len() == wanted.len(), "{} rows for {} containers", wanted.len(), containers.len());
        for (container, wanted) in containers.iter().zip(wanted) {
            let key = format!("{}/{}", pod["metadata"]["name"].as_str().unwrap_or_default(), container["name"].as_str().unwrap_or_default());
            let found = said.iter().find(|(name, _)| *name == key).map(|(_, text)| text.trim_end());
            if found != Some(wanted) {
                wrong.push(format!("{key} says {found:?}, not {wanted:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn env(pairs: &[(&str, &str)]) -> Value {
    json!({ "env": pairs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>() })
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn resource(name: &str, resource: &str) -> Value {
    json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource } } })
}
