//! The client libraries that people write their tools and operators with, against one cluster: kube-rs, and Kubernetes' own for Python and JavaScript.
//!
//! The programs lie in `tests/clients`, one a language; a case is a word on their command line.

use coracle_tests::{Case, Cluster, Mode, Output, Result, client, is_root, main as suite};
use std::{ffi::OsString, process::ExitCode};

const CASES: &[Case] = &[
    ("rust_watchers_and_stores", |cluster| rust(cluster, "watchers_and_stores")),
    ("rust_controller_with_a_finalizer", |cluster| rust(cluster, "controller_with_a_finalizer")),
    ("rust_workloads_and_their_subresources", |cluster| rust(cluster, "workloads_and_their_subresources")),
    ("rust_eviction_keeps_a_budget", |cluster| rust(cluster, "eviction_keeps_a_budget")),
    ("rust_tokens_and_namespaces", |cluster| rust(cluster, "tokens_and_namespaces")),
    ("rust_custom_resources", |cluster| rust(cluster, "custom_resources")),
    ("rust_applied_fields_have_managers", |cluster| rust(cluster, "applied_fields_have_managers")),
    ("rust_leases_elect_one", |cluster| rust(cluster, "leases_elect_one")),
    ("rust_exec_attach_and_port_forward", rust_exec_attach_and_port_forward),
    ("python_typed_objects", |cluster| python(cluster, "typed_objects")),
    ("python_watches", |cluster| python(cluster, "watches")),
    ("python_dynamic_client_and_custom_resources", |cluster| python(cluster, "dynamic_client_and_custom_resources")),
    ("python_files_of_manifests", |cluster| python(cluster, "files_of_manifests")),
    ("python_leader_election", |cluster| python(cluster, "leader_election")),
    ("javascript_informers", |cluster| javascript(cluster, "informers")),
    ("javascript_watches", |cluster| javascript(cluster, "watches")),
    ("javascript_patches", |cluster| javascript(cluster, "patches")),
    ("javascript_objects_of_any_kind", |cluster| javascript(cluster, "objectsOfAnyKind")),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

fn rust(cluster: &Cluster, case: &str) -> Result {
    run(cluster, &[client("rust")?.join("debug/kube-rs").into(), case.into()])
}

/// As root: containers have programs that can be run in them.
fn rust_exec_attach_and_port_forward(cluster: &Cluster) -> Result {
    if !is_root() {
        println!("not run: containers need root, and this user is not.");
        return Ok(());
    }
    cluster.import_busybox()?;
    rust(cluster, "exec_attach_and_port_forward")
}

fn python(cluster: &Cluster, case: &str) -> Result {
    let dir = client("python")?;
    run(cluster, &[dir.join("bin/python").into(), dir.join("main.py").into(), case.into()])
}

fn javascript(cluster: &Cluster, case: &str) -> Result {
    run(cluster, &["node".into(), client("javascript")?.join("main.mjs").into(), case.into()])
}

/// Runs a program of one case on the cluster's host; its words when it fails are the case's.
fn run(cluster: &Cluster, words: &[OsString]) -> Result {
    let mut command = cluster.host.command("timeout");
    command.arg("240").args(words).env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.dir());
    Output::of(&mut command, "")?.ok().map(drop)
}
