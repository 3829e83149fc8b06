//! `kubectl apply --server-side` as people use it: conflicts, taking over, moving from client-side apply, sharing a field with an autoscaler.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Output, Result, eventually, has, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("create_change_and_remove_fields", create_change_and_remove_fields),
    ("conflicts_are_told_and_forced", conflicts_are_told_and_forced),
    ("from_client_side_to_server_side", from_client_side_to_server_side),
    ("an_autoscaler_owns_the_count", an_autoscaler_owns_the_count),
    ("managers_are_shown_when_asked_for", managers_are_shown_when_asked_for),
    ("dry_run_diff_and_validation", dry_run_diff_and_validation),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

fn server_side(cluster: &Cluster, flags: &[&str], manifest: &str) -> Result<Output> {
    let mut words = vec!["apply", "--server-side", "-f", "-"];
    words.extend(flags);
    cluster.kubectl_with(&words, manifest)
}

fn map(ns: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: {ns}}}\ndata: {data}\n")
}

fn deployment(ns: &str, replicas: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: d, namespace: {ns}, labels: {{app: d}}}}
spec:
  {replicas}
  selector: {{matchLabels: {{app: d}}}}
  template:
    metadata: {{labels: {{app: d}}}}
    spec:
      containers:
      - {{name: web, image: 'absent:v1', ports: [{{containerPort: 8080}}]}}
"
    )
}

fn create_change_and_remove_fields(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("fields")?;
    let data = || cluster.kubectl(&["-n", &ns, "get", "cm", "m", "-o", "jsonpath={.data}"])?.ok();
    has(&server_side(cluster, &[], &map(&ns, "{a: '1', b: '2'}"))?.ok()?, &["configmap/m serverside-applied"])?;
    cluster.kubectl(&["-n", &ns, "patch", "cm", "m", "-p", "{\"data\":{\"c\":\"3\"}}"])?.ok()?;
    server_side(cluster, &[], &map(&ns, "{a: '1'}"))?.ok()?;
    ensure!(data()? == r#"{"a":"1","c":"3"}"#, "{}", data()?);
    let revision = || cluster.kubectl(&["-n", &ns, "get", "cm", "m", "-o", "jsonpath={.metadata.resourceVersion}"])?.ok();
    let before = revision()?;
    server_side(cluster, &[], &map(&ns, "{a: '1'}"))?.ok()?;
    ensure!(revision()? == before, "the same again is no write");
    Ok(())
}

fn conflicts_are_told_and_forced(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("conflicts")?;
    server_side(cluster, &[], &deployment(&ns, "replicas: 0"))?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "scale", "deployment", "d", "--replicas=1"])?.ok()?, &["deployment.apps/d scaled"])?;
    let told = server_side(cluster, &[], &deployment(&ns, "replicas: 0"))?.err()?;
    has(
        &told,
        &[
            "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas",
            "Please review the fields above--they currently have other managers.",
            "--force-conflicts",
        ],
    )?;
    let told = server_side(cluster, &["--field-manager=other"], &deployment(&ns, "replicas: 2"))?.err()?;
    has(&told, &["conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"])?;
    server_side(cluster, &["--force-conflicts"], &deployment(&ns, "replicas: 0"))?.ok()?;
    ensure!(cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "jsonpath={.spec.replicas}"])?.ok()? == "0");
    Ok(())
}

fn from_client_side_to_server_side(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("upgrade")?;
    has(&cluster.apply(&deployment(&ns, "replicas: 0"))?, &["deployment.apps/d created"])?;
    let managers =
        || cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"])?.ok();
    has(&managers()?, &["kubectl-client-side-apply"])?;
    // kubectl hands its own fields over; what it applied is not its conflict.
    let changed = deployment(&ns, "replicas: 0").replace("absent:v1", "absent:v2");
    server_side(cluster, &[], &changed)?.ok()?;
    let now = managers()?;
    ensure!(!now.contains("kubectl-client-side-apply") && now.contains("kubectl"), "{now}");
    ensure!(cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?.ok()? == "absent:v2");
    // What is left out now goes, as it did client-side.
    let without = changed.replace(", ports: [{containerPort: 8080}]", "");
    server_side(cluster, &[], &without)?.ok()?;
    ensure!(cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[0].ports}"])?.ok()?.is_empty());
    let remembered = cluster.kubectl(&["-n", &ns, "apply", "view-last-applied", "deploy/d"])?.ok()?;
    ensure!(remembered.contains("absent:v2") && !remembered.contains("containerPort"), "{remembered}");
    // And back.
    has(&cluster.apply(&without.replace("absent:v2", "absent:v3"))?, &["deployment.apps/d configured"])
}

fn an_autoscaler_owns_the_count(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("autoscaled")?;
    server_side(cluster, &[], &deployment(&ns, "replicas: 0"))?.ok()?;
    let scale = "{\"spec\":{\"replicas\":2}}";
    cluster.kubectl(&["-n", &ns, "patch", "deploy", "d", "--subresource=scale", "--type=merge", "--field-manager=hpa", "-p", scale])?.ok()?;
    // The manifest leaves the count out: it is not the manifest's any more, and stays.
    server_side(cluster, &[], &deployment(&ns, "paused: false"))?.ok()?;
    ensure!(cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "jsonpath={.spec.replicas}"])?.ok()? == "2");
    // One that brings it back has to ask.
    has(
        &server_side(cluster, &[], &deployment(&ns, "replicas: 1"))?.err()?,
        &["conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"],
    )
}

fn managers_are_shown_when_asked_for(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("shown")?;
    cluster.apply(&deployment(&ns, "replicas: 1"))?;
    eventually("the controller's report", 30, || {
        let shown = cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "yaml", "--show-managed-fields"])?.ok()?;
        has(&shown, &["manager: kubectl-client-side-apply", "manager: kube-controller-manager", "subresource: status", "k:{\"name\":\"web\"}"])
    })?;
    let hidden = cluster.kubectl(&["-n", &ns, "get", "deploy", "d", "-o", "yaml"])?.ok()?;
    ensure!(!hidden.contains("managedFields"), "{hidden}");
    eventually("the kubelet's report", 30, || {
        let shown = cluster.kubectl(&["-n", &ns, "get", "pods", "-l", "app=d", "-o", "yaml", "--show-managed-fields"])?.ok()?;
        has(&shown, &["manager: kubelet", "manager: kube-controller-manager"])
    })
}

fn dry_run_diff_and_validation(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("checked")?;
    has(&server_side(cluster, &["--dry-run=server"], &map(&ns, "{a: '1'}"))?.ok()?, &["configmap/m serverside-applied (server dry run)"])?;
    cluster.kubectl(&["-n", &ns, "get", "cm", "m"])?.err()?;
    server_side(cluster, &[], &map(&ns, "{a: '1'}"))?.ok()?;
    let diff = cluster.kubectl_with(&["diff", "--server-side", "-f", "-"], &map(&ns, "{a: '2'}"))?;
    has(&diff.stdout, &["-  a: \"1\"", "+  a: \"2\""])?;
    let refused = server_side(cluster, &["--validate=false"], &deployment(&ns, "replicaz: 1"))?.err()?;
    has(&refused, &[".spec.replicaz: field not declared in schema"])
}
