//! Workloads of every kind as kubectl shows and steers them, against one cluster.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("daemon_sets_roll_out", daemon_sets_roll_out),
    ("replication_controllers_scale", replication_controllers_scale),
    ("indexed_jobs_count_their_indexes", indexed_jobs_count_their_indexes),
    ("certificate_requests_are_judged", certificate_requests_are_judged),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// A namespace of one case and its kubectl.
struct Place<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Place<'a> {
    fn new(cluster: &'a Cluster, name: &str) -> Result<Self> {
        Ok(Self { cluster, namespace: cluster.namespace(name)? })
    }

    /// What kubectl prints when it succeeds; `words` are split at spaces.
    fn ok(&self, words: &str) -> Result<String> {
        self.output(words)?.ok()
    }

    /// What kubectl prints when it fails.
    fn err(&self, words: &str) -> Result<String> {
        self.output(words)?.err()
    }

    fn output(&self, words: &str) -> Result<coracle_tests::Output> {
        let all: Vec<&str> = ["-n", &self.namespace].into_iter().chain(words.split(' ')).collect();
        self.cluster.kubectl(&all)
    }

    fn apply(&self, manifests: &str) -> Result<String> {
        self.cluster.kubectl_with(&["-n", &self.namespace, "apply", "-f", "-"], manifests)?.ok()
    }

    /// Fails unless kubectl prints all of `parts`; runs of spaces count as one.
    fn shows(&self, words: &str, parts: &[&str]) -> Result {
        let text = self.ok(words)?;
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            ensure!(squeezed.contains(part), "{part:?} is missing in what `kubectl {words}` prints:\n{text}");
        }
        Ok(())
    }

    /// Waits until kubectl prints all of `parts`.
    fn comes_to_show(&self, words: &str, parts: &[&str]) -> Result {
        eventually(words, 60, || self.shows(words, parts))
    }
}

fn template(name: &str, image: &str) -> String {
    format!(
        "  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: web, image: '{image}', ports: [{{containerPort: 8080}}]}}
"
    )
}

fn daemon_set(name: &str) -> String {
    format!("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: {name}}}\nspec:\n{}", template(name, "hello:v1"))
}

fn daemon_sets_roll_out(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "daemons")?;
    place.apply(&daemon_set("agent"))?;
    place.shows("rollout status ds/agent --timeout=60s", &["daemon set \"agent\" successfully rolled out"])?;
    place.shows("get ds", &["NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE", "agent 1 1 1 1 1 <none>"])?;
    place.shows(
        "describe ds agent",
        &[
            "Desired Number of Nodes Scheduled: 1",
            "Number of Nodes Misscheduled: 0",
            "Pods Status: 1 Running",
            "SuccessfulCreate",
            "Created pod: agent-",
        ],
    )?;
    place.ok("set image ds/agent web=web:v1")?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    ensure!(place.ok("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].image}")? == "web:v1");
    place.shows("rollout history ds/agent", &["REVISION CHANGE-CAUSE 1 <none> 2 <none>"])?;
    place.shows("rollout undo ds/agent", &["daemonset.apps/agent rolled back"])?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    ensure!(place.ok("get ds agent -o jsonpath={.spec.template.spec.containers[0].image}")? == "hello:v1");
    place.shows("rollout restart ds/agent", &["daemonset.apps/agent restarted"])?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    let elsewhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    cluster.kubectl(&["-n", &place.namespace, "patch", "ds", "agent", "-p", elsewhere])?.ok()?;
    place.comes_to_show("get ds", &["agent 0 0 0 0 0 no=where"])
}

fn replication_controllers_scale(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "controllers")?;
    let body = template("old", "hello:v1").replace("{matchLabels: {app: old}}", "{app: old}");
    place.apply(&format!("apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\nspec:\n  replicas: 1\n{body}"))?;
    place.comes_to_show("get rc", &["NAME DESIRED CURRENT READY AGE old 1 1 1"])?;
    place.shows("scale rc old --replicas=2 --current-replicas=1", &["replicationcontroller/old scaled"])?;
    place.comes_to_show("get rc -o wide", &["old 2 2 2", "web hello:v1 app=old"])?;
    place.shows("expose rc old --port=80 --target-port=8080", &["service/old exposed"])?;
    place.comes_to_show("get endpointslices", &["ADDRESSTYPE PORTS ENDPOINTS", "IPv4 8080"])?;
    place.shows(
        "describe rc old",
        &["Replicas: 2 current / 2 desired", "Pods Status: 2 Running / 0 Waiting / 0 Succeeded / 0 Failed", "SuccessfulCreate"],
    )?;
    ensure!(place.err("scale rc old --replicas=5 --current-replicas=1")?.contains("Expected replicas to be 1, was 2"));
    place.ok("delete rc old")?;
    eventually("no pod is left", 60, || {
        let left = place.ok("get pods -o name")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

fn indexed_jobs_count_their_indexes(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "indexed")?;
    place.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: parts}
spec:
  completionMode: Indexed
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: part, image: 'probe:v1', args: [env, JOB_COMPLETION_INDEX]}]
",
    )?;
    place.ok("wait --for=condition=complete job/parts --timeout=60s")?;
    place.shows("get job parts -o wide", &["parts Complete 3/3", "part probe:v1", "batch.kubernetes.io/controller-uid="])?;
    place.shows(
        "describe job parts",
        &[
            "Parallelism: 2",
            "Completion Mode: Indexed",
            "Completed Indexes: 0-2",
            "0 Active (0 Ready) / 3 Succeeded / 0 Failed",
            "SuccessfulCreate",
            "Job completed",
        ],
    )?;
    for index in 0..3 {
        let logs = place.ok(&format!("logs -l batch.kubernetes.io/job-completion-index={index}"))?;
        ensure!(logs == format!("JOB_COMPLETION_INDEX={index}\n"), "{logs}");
    }
    place.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: bad, image: 'probe:v1', args: [exit, '3']}]}
",
    )?;
    place.ok("wait --for=condition=failed job/bad --timeout=60s")?;
    place.shows("get job bad", &["bad Failed 0/1"])?;
    place.shows("describe job bad", &["BackoffLimitExceeded", "Job has reached the specified backoff limit"])
}

/// A request of `O = sailors, CN = jane`, whose key is gone.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIZE1JR0RBZ0VBTUNFeEVEQU9CZ05WQkFvTUIzTmhhV3h2Y25NeERUQUxCZ05WQkFNTUJHcGhibVV3V1RBVApCZ2NxaGtqT1BRSUJCZ2dxaGtqT1BRTUJCd05DQUFSZW11b1dyZ0YwNEhMRHNkSm11NWl3aUY4aHF4bmg4VXhiCmppUGJBeXRGb0FveUkzSUtYMUdwRytCNDFNQjJWQ0d2by9maGFIUkNKM01rNUpMYURYOXVvQUF3Q2dZSUtvWkkKemowRUF3SURTUUF3UmdJaEFPaWY5UThjSmVsQmwrOVhnbEpIbEQyS25SRVExV3FML3BHNUVidWRyb0tQQWlFQQo2U2NYZEpEa1J4b1VtVDdSOWZ0eWFPenNCaUtJb0tNN1ZJYmdFWWNRL1dzPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

fn certificate_requests_are_judged(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "certificates")?;
    for name in ["jane", "stranger"] {
        place.apply(&format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 3600\n  usages: [client auth]\n  request: {REQUEST}\n"
        ))?;
    }
    place.shows(
        "get csr jane",
        &["NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION", "kubernetes.io/kube-apiserver-client", "60m Pending"],
    )?;
    place.shows("certificate approve jane", &["certificatesigningrequest.certificates.k8s.io/jane approved"])?;
    place.shows("certificate deny stranger", &["certificatesigningrequest.certificates.k8s.io/stranger denied"])?;
    place.comes_to_show("get csr", &["60m Approved,Issued", "60m Denied"])?;
    place.shows(
        "describe csr jane",
        &["Signer: kubernetes.io/kube-apiserver-client", "Status: Approved,Issued", "Subject: Common Name: jane", "Organization: sailors"],
    )?;
    let issued = cluster.get(&["csr", "jane"])?;
    ensure!(issued["status"]["certificate"].as_str().context("a certificate")?.starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"));
    ensure!(cluster.get(&["csr", "stranger"])?["status"]["certificate"].is_null());
    place.ok("delete csr jane stranger").map(drop)
}
