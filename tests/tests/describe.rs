//! `kubectl describe`, letter by letter: of every kind at rest, and of what controllers and the node have worked on, with its events.
//!
//! The layout is kubectl's own; that every value it looks for is there, in upstream's words, is the server's part. Times, addresses, names and numbers of
//! chance, and what is the machine's, are left out of the comparison, and so is the width of columns.

#[path = "tables/golden.rs"]
mod golden;
#[path = "tables/objects.rs"]
mod objects;

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Result, eventually, main as suite};
use golden::Golden;
use regex::Regex;
use std::{cmp::Reverse, process::ExitCode, sync::LazyLock};

const CASES: &[Case] = &[("everything_is_described_as_upstream_describes_it", everything_is_described_as_upstream_describes_it)];
const LIVING: &str = include_str!("describe/living.yaml");

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

fn everything_is_described_as_upstream_describes_it(cluster: &Cluster) -> Result {
    // Most versions of kubectl add a line somewhere.
    let version = cluster.kubectl(&["version", "--client"])?.ok()?;
    if !version.contains("Client Version: v1.32.") {
        println!("NOT COMPARED: descriptions are held against those of kubectl 1.32, and this is another one: {version}");
        return Ok(());
    }
    // First, while there is no node but the one that works.
    what_lives(cluster)?;
    what_rests(cluster)
}

/// What differs from run to run, and what stands for it.
static CHANCE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<date>"),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)", "<time>"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uid>"),
        (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
        (r"\b10\.244\.\d+\.\d+\b", "<pod IP>"),
        (r"^(\d+m)?\d+(s|ms)( \(x\d+ over (\d+m)?\d+s\))?$", "<age>"),
        (r"\bkube-api-access-[a-z0-9]{5}\b", "kube-api-access-<chance>"),
        (r"\(\d+%\)", "(<share>)"),
        (r"://[0-9a-f]{12,64}\b", "://<id>"),
    ];
    rules.into_iter().map(|(pattern, stands)| (Regex::new(pattern).expect("a pattern"), stands)).collect()
});

/// What kubectl printed without what differs from run to run. `names` are those that chance has chosen, each with what stands for it.
fn settled(text: &str, names: &[(String, String)]) -> String {
    let mut text = text.to_string();
    for (name, stands) in names {
        text = text.replace(name, stands);
    }
    let mut out = String::new();
    let stands_for = |cell: &str| CHANCE.iter().fold(cell.to_string(), |cell, (pattern, stands)| pattern.replace_all(&cell, *stands).into_owned());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let (space, rest) = line.split_at(indent);
        // The space between columns is as wide as the widest cell.
        let cells = rest.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(stands_for);
        if rest.starts_with("Resource Version:") {
            continue;
        }
        out.extend([space, &cells.collect::<Vec<_>>().join("  "), "\n"]);
    }
    out
}

/// The machine's figures and programs are named alone.
fn without_machine(text: &str) -> String {
    let mut section = "";
    let mut out = String::new();
    for line in text.lines() {
        let label = line.split_once(':').map_or(line, |(label, _)| label);
        if !line.starts_with(' ') {
            section = label;
        }
        let machine = match section {
            "Capacity" | "Allocatable" => label != "  pods",
            "System Info" => !label.ends_with("Version") || label.contains("Kernel"),
            _ => false,
        };
        // Page sizes are the processor's.
        if !label.trim().starts_with("hugepages-") {
            let end = if machine && line.starts_with(' ') { ":  <machine>\n" } else { "\n" };
            out.extend([if end == "\n" { line } else { label }, end]);
        }
    }
    out
}

/// Kubectl 1.32 asks for these in their beta versions, which Kubernetes 1.36 does not serve.
const IN_BETA: [&str; 3] = ["ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io", "volumeattributesclasses.storage.k8s.io"];

/// Every kind at rest, but for nodes: one that nobody speaks for is soon said to be lost.
fn what_rests(cluster: &Cluster) -> Result {
    let mut golden = Golden::open("describe/resting.txt")?;
    for resource in objects::make(cluster)?.iter().filter(|resource| !IN_BETA.contains(&resource.as_str()) && *resource != "nodes") {
        let shown = || Ok(settled(&cluster.kubectl(&["-n", "tables", "describe", resource, "-l", objects::OURS])?.ok()?, &[]));
        golden.eventually(&format!("kubectl describe {resource}"), shown)?;
    }
    golden.close()
}

fn with_sorted_events(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| *line == "Events:").map_or(lines.len(), |at| (at + 3).min(lines.len()));
    lines.split_at_mut(first).1.sort_unstable();
    lines.join("\n")
}

/// Names that chance has chosen in a namespace, longest first.
fn chosen(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for (kind, stands) in [("pods", "pod"), ("replicasets", "set"), ("endpointslices", "slice")] {
        for object in cluster.get(&["-n", "living", kind])?["items"].as_array().into_iter().flatten() {
            let text = |pointer: &str| object.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_string();
            let (name, owner) = (text("/metadata/name"), text("/metadata/ownerReferences/0/name"));
            let hash = text("/metadata/labels/pod-template-hash");
            if !hash.is_empty() && stands == "set" {
                names.push((hash, "<hash>".into()));
            }
            let base = owner.split('-').next().unwrap_or_default();
            if !owner.is_empty() && name != "state-0" {
                names.push((name, format!("{base}-<{stands}>")));
            }
        }
    }
    names.sort_by_key(|(name, _)| Reverse(name.len()));
    Ok(names)
}

/// What is worked on: by the scheduler, the node and every controller of pods.
fn what_lives(cluster: &Cluster) -> Result {
    let mut golden = Golden::open("describe/living.txt")?;
    cluster.namespace("living")?;
    cluster.kubectl_with(&["create", "-f", "-"], LIVING)?.ok()?;
    let kubectl = |words: &str| cluster.kubectl(&[&["-n", "living"], &words.split(' ').collect::<Vec<_>>()[..]].concat())?.ok();
    for rollout in ["deployment/shop", "statefulset/state", "daemonset/everywhere"] {
        kubectl(&format!("rollout status {rollout} --timeout=120s"))?;
    }
    kubectl("wait --for=condition=Complete job/count --timeout=120s")?;
    kubectl("wait --for=condition=Ready pod/whole --timeout=120s")?;
    kubectl("wait --for=jsonpath={.status.phase}=Failed pod/failed --timeout=120s")?;
    for pod in ["without-image", "without-node"] {
        eventually("a pod says why it waits", 60, || {
            ensure!(kubectl(&format!("describe pod {pod}"))?.contains("Warning"));
            Ok(())
        })?;
    }
    let names = chosen(cluster)?;
    let described = [
        "pod whole",
        "pod failed",
        "pod without-image",
        "pod without-node",
        "pods -l app=shop",
        "deployment shop",
        "replicasets -l app=shop",
        "statefulset state",
        "daemonset everywhere",
        "job count",
        "service shop",
        "endpointslices -l kubernetes.io/service-name=shop",
        "configmap settings",
        "secret keys",
        "serviceaccount keeper",
        "limitrange bounds",
        "resourcequota share",
        "namespace living",
        "node test-node",
    ];
    for what in described {
        let shown = || {
            let text = without_machine(&settled(&kubectl(&format!("describe {what}"))?, &names));
            // What several tell of has no order: the images of a pod are seen to side by side, and a node has two who watch it.
            Ok(if matches!(what, "pod whole" | "node test-node") { with_sorted_events(&text) } else { text })
        };
        // Events come a moment after what they tell.
        golden.eventually(&format!("kubectl describe {what}"), shown)?;
    }
    golden.close()?;
    cluster.kubectl(&["delete", "namespace", "living", "--timeout=120s"])?.ok().map(drop)
}
