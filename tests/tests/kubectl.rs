//! Every kubectl command that people type, against one cluster, with the kubectl on PATH.

#[path = "kubectl/logs.rs"]
mod logs;
#[path = "kubectl/rollouts.rs"]
mod rollouts;
#[path = "kubectl/upstream.rs"]
mod upstream;

use anyhow::{Context, ensure};
use coracle_tests::{Background, Case, Cluster, Mode, Result, eventually, has, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("api_resources_version_and_cluster_info", api_resources_version_and_cluster_info),
    ("config_maps_and_output_forms", config_maps_and_output_forms),
    ("three_kinds_of_patch", three_kinds_of_patch),
    ("edit_replace_and_conflicts", edit_replace_and_conflicts),
    ("watch_prints_changes", watch_prints_changes),
    ("deployment_life", rollouts::deployment_life),
    ("run_expose_and_logs", logs::run_expose_and_logs),
    ("explain_reads_schemas", explain_reads_schemas),
    ("nodes_and_leases", nodes_and_leases),
    ("identity_and_rights", identity_and_rights),
    ("strangers_are_refused", strangers_are_refused),
    ("namespaces_come_furnished_and_go", namespaces_come_furnished_and_go),
    ("jobs_complete", jobs_complete),
    ("owners_take_their_dependents", owners_take_their_dependents),
    ("dry_run_and_validation", dry_run_and_validation),
    ("proxy_subresource", proxy_subresource),
    ("chunked_lists", chunked_lists),
    ("top_autoscale_and_older_endpoints", top_autoscale_and_older_endpoints),
    ("differences_and_dry_runs", upstream::differences_and_dry_runs),
    ("controllers_are_exposed_and_marked", upstream::controllers_are_exposed_and_marked),
    ("a_proxy_serves_the_api", upstream::a_proxy_serves_the_api),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

fn deployment(namespace: &str, name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: web, image: '{image}', ports: [{{containerPort: 8080}}]}}
"
    )
}

fn api_resources_version_and_cluster_info(cluster: &Cluster) -> Result {
    let resources = cluster.kubectl(&["api-resources"])?.ok()?;
    let rows = [
        "bindings",
        "configmaps",
        "cm",
        "events",
        "namespaces",
        "nodes",
        "pods",
        "secrets",
        "serviceaccounts",
        "services",
        "deployments",
        "deploy",
        "replicasets",
        "jobs",
    ];
    has(&resources, &rows)?;
    has(
        &resources,
        &["leases", "endpointslices", "runtimeclasses", "priorityclasses", "clusterrolebindings", "clusterroles", "rolebindings", "roles"],
    )?;
    has(&cluster.kubectl(&["api-versions"])?.ok()?, &["apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1", "v1"])?;
    has(&cluster.kubectl(&["version"])?.ok()?, &["Client Version: ", "Kustomize Version: ", "Server Version: v1.36"])?;
    has(&cluster.kubectl(&["cluster-info"])?.ok()?, &["Kubernetes control plane", "is running at", "https://127.0.0.1:6443"])
}

fn config_maps_and_output_forms(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("forms")?;
    has(&cluster.kubectl(&["-n", &ns, "create", "configmap", "one", "--from-literal=a=1", "--from-literal=b=2"])?.ok()?, &["configmap/one created"])?;
    has(
        &cluster
            .apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: two, namespace: {ns}, labels: {{tier: gold}}}}\ndata: {{k: v}}\n"))?,
        &["configmap/two created"],
    )?;
    has(
        &cluster
            .apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: two, namespace: {ns}, labels: {{tier: gold}}}}\ndata: {{k: w}}\n"))?,
        &["configmap/two configured"],
    )?;
    has(
        &cluster
            .apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: two, namespace: {ns}, labels: {{tier: gold}}}}\ndata: {{k: w}}\n"))?,
        &["configmap/two unchanged"],
    )?;
    let table = cluster.kubectl(&["-n", &ns, "get", "cm"])?.ok()?;
    has(&table, &["NAME", "DATA", "AGE", "one", "two", "kube-root-ca.crt"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", "cm", "one", "-o", "yaml"])?.ok()?, &["kind: ConfigMap", "a: \"1\"", "uid:", "resourceVersion:"])?;
    let json: serde_json::Value = serde_json::from_str(&cluster.kubectl(&["-n", &ns, "get", "cm", "one", "-o", "json"])?.ok()?)?;
    ensure!(json["data"]["b"] == "2", "{json}");
    ensure!(cluster.kubectl(&["-n", &ns, "get", "cm", "two", "-o", "name"])?.ok()?.trim() == "configmap/two");
    ensure!(cluster.kubectl(&["-n", &ns, "get", "cm", "two", "-o", "jsonpath={.data.k}"])?.ok()? == "w");
    let gold = cluster.kubectl(&["-n", &ns, "get", "cm", "-l", "tier in (gold,silver)", "-o", "name"])?.ok()?;
    ensure!(gold.trim() == "configmap/two", "{gold}");
    let field = cluster.kubectl(&["-n", &ns, "get", "cm", "--field-selector", "metadata.name=one", "-o", "name"])?.ok()?;
    ensure!(field.trim() == "configmap/one", "{field}");
    let sorted = |by: &str| cluster.kubectl(&["-n", &ns, "get", "cm", "--field-selector", "metadata.name!=one", "--sort-by", by, "-o", "name"])?.ok();
    ensure!(sorted(".metadata.name")? == "configmap/kube-root-ca.crt\nconfigmap/two\n", "{}", sorted(".metadata.name")?);
    ensure!(sorted(".data.k")?.ends_with("configmap/two\n"), "{}", sorted(".data.k")?);
    has(&cluster.kubectl(&["get", "cm", "-A"])?.ok()?, &["NAMESPACE", "kube-system", &ns])?;
    has(&cluster.kubectl(&["-n", &ns, "describe", "cm", "one"])?.ok()?, &["Name:         one", "Data", "a:", "1"])?;
    has(&cluster.kubectl(&["-n", &ns, "label", "cm", "one", "tier=silver"])?.ok()?, &["labeled"])?;
    has(&cluster.kubectl(&["-n", &ns, "annotate", "cm", "one", "note=hi"])?.ok()?, &["annotated"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", "cm", "one", "--show-labels"])?.ok()?, &["tier=silver"])?;
    has(&cluster.kubectl(&["-n", &ns, "delete", "cm", "one"])?.ok()?, &["configmap \"one\" deleted"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", "cm", "one"])?.err()?, &["Error from server (NotFound): configmaps \"one\" not found"])?;
    has(&cluster.kubectl(&["-n", &ns, "delete", "cm", "--all"])?.ok()?, &["configmap \"two\" deleted"])
}

fn three_kinds_of_patch(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("patches")?;
    cluster.apply(&deployment(&ns, "target", "web:v1", 0))?;
    let container = |path: &str| cluster.kubectl(&["-n", &ns, "get", "deploy", "target", "-o", &format!("jsonpath={{{path}}}")])?.ok();
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#;
    cluster.kubectl(&["-n", &ns, "patch", "deploy", "target", "-p", strategic])?.ok()?;
    ensure!(container(".spec.template.spec.containers[0].image")? == "web:v1", "a strategic merge keeps what it does not name");
    ensure!(container(".spec.template.spec.containers[0].env[0].value")? == "1");
    cluster
        .kubectl(&[
            "-n",
            &ns,
            "patch",
            "deploy",
            "target",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/template/spec/containers/0/env/0/value","value":"2"}]"#,
        ])?
        .ok()?;
    ensure!(container(".spec.template.spec.containers[0].env[0].value")? == "2");
    cluster
        .kubectl(&["-n", &ns, "patch", "deploy", "target", "--type=merge", "-p", r#"{"metadata":{"labels":{"extra":"yes","app":null}}}"#])?
        .ok()?;
    ensure!(container(".metadata.labels.extra")? == "yes");
    ensure!(container(".metadata.labels.app")?.is_empty(), "null removes in a merge patch");
    let failed = cluster
        .kubectl(&["-n", &ns, "patch", "deploy", "target", "--type=json", "-p", r#"[{"op":"test","path":"/spec/replicas","value":7}]"#])?
        .err()?;
    has(&failed, &["invalid", "/spec/replicas"])?;
    has(&cluster.kubectl(&["-n", &ns, "set", "image", "deploy/target", "web=hello:v1"])?.ok()?, &["image updated"])?;
    ensure!(container(".spec.template.spec.containers[0].image")? == "hello:v1");
    let immutable = cluster
        .kubectl(&["-n", &ns, "patch", "deploy", "target", "--type=merge", "-p", r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#])?
        .err()?;
    has(&immutable, &["spec.selector", "field is immutable"])
}

fn edit_replace_and_conflicts(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("edits")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "text", "--from-literal=word=before"])?.ok()?;
    let mut edit = cluster.kubectl_command(&["-n", &ns, "edit", "cm", "text"]);
    edit.env("KUBE_EDITOR", "sed -i s/before/after/");
    has(&coracle_tests::Output::of(&mut edit, "")?.ok()?, &["configmap/text edited"])?;
    let mut object = cluster.get(&["-n", &ns, "cm", "text"])?;
    ensure!(object["data"]["word"] == "after", "{object}");
    let old = object.clone();
    object["data"]["word"] = "replaced".into();
    has(&cluster.kubectl_with(&["replace", "-f", "-"], &object.to_string())?.ok()?, &["configmap/text replaced"])?;
    has(
        &cluster.kubectl_with(&["replace", "-f", "-"], &old.to_string())?.err()?,
        &["the object has been modified; please apply your changes to the latest version and try again"],
    )
}

fn watch_prints_changes(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("watches")?;
    let watch = Background::start(&mut cluster.kubectl_command(&["-n", &ns, "get", "cm", "-w", "--output-watch-events"]))?;
    let seen = |part: &str| {
        eventually(part, 20, || {
            let lines = watch.lines();
            ensure!(lines.iter().any(|line| part.split(' ').all(|word| line.contains(word))), "{lines:?}");
            Ok(())
        })
    };
    seen("EVENT NAME DATA AGE")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "watched", "--from-literal=a=b"])?.ok()?;
    seen("ADDED watched")?;
    cluster.kubectl(&["-n", &ns, "label", "cm", "watched", "x=y"])?.ok()?;
    seen("MODIFIED watched")?;
    cluster.kubectl(&["-n", &ns, "delete", "cm", "watched"])?.ok()?;
    seen("DELETED watched")
}

fn explain_reads_schemas(cluster: &Cluster) -> Result {
    has(
        &cluster.kubectl(&["explain", "pod.spec.containers"])?.ok()?,
        &["KIND:       Pod", "VERSION:    v1", "FIELD: containers", "imagePullPolicy", "DESCRIPTION:"],
    )?;
    has(&cluster.kubectl(&["explain", "deployment", "--recursive"])?.ok()?, &["GROUP:      apps", "maxSurge", "matchLabels"])?;
    for kind in [
        "namespace",
        "node",
        "configmap",
        "secret",
        "service",
        "endpointslice",
        "serviceaccount",
        "event",
        "lease",
        "replicaset",
        "job",
        "runtimeclass",
        "priorityclass",
        "role",
        "rolebinding",
        "clusterrole",
        "clusterrolebinding",
    ] {
        has(&cluster.kubectl(&["explain", kind])?.ok()?, &["KIND:", "VERSION:", "FIELDS:", "metadata"]).with_context(|| kind.to_string())?;
    }
    Ok(())
}

fn nodes_and_leases(cluster: &Cluster) -> Result {
    has(
        &cluster.kubectl(&["get", "nodes", "-o", "wide"])?.ok()?,
        &["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "CONTAINER-RUNTIME", "test-node", "Ready"],
    )?;
    has(
        &cluster.kubectl(&["describe", "node", "test-node"])?.ok()?,
        &["Conditions:", "MemoryPressure", "Ready", "Allocatable:", "Lease:", "Allocated resources:"],
    )?;
    has(&cluster.kubectl(&["get", "lease", "-n", "kube-node-lease"])?.ok()?, &["test-node"])
}

fn identity_and_rights(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("rights")?;
    has(&cluster.kubectl(&["auth", "whoami"])?.ok()?, &["Username", "Groups", "system:masters", "system:authenticated"])?;
    ensure!(cluster.kubectl(&["auth", "can-i", "delete", "nodes"])?.ok()?.trim() == "yes");
    cluster.kubectl(&["-n", &ns, "create", "serviceaccount", "reader"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "create", "role", "read", "--verb=get,list,watch", "--resource=pods,configmaps"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "create", "rolebinding", "read", "--role=read", &format!("--serviceaccount={ns}:reader")])?.ok()?;
    let token = cluster.kubectl(&["-n", &ns, "create", "token", "reader"])?.ok()?;
    let token = token.trim();
    ensure!(token.split('.').count() == 3, "{token}");
    let server = "--server=https://127.0.0.1:6443";
    let ca = cluster.dir().join("ca.crt");
    std::fs::write(&ca, cluster.kubectl(&["-n", &ns, "get", "cm", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}"])?.ok()?)?;
    let ca = format!("--certificate-authority={}", ca.display());
    let reader = |arguments: &[&str]| {
        let mut command = cluster.host.command("kubectl");
        command.args(["--kubeconfig=/dev/null", server, &ca, &format!("--token={token}")]).args(arguments).env("HOME", cluster.dir());
        coracle_tests::Output::of(&mut command, "")
    };
    eventually("the rights are there", 10, || reader(&["-n", &ns, "get", "cm"])?.ok())?;
    has(&reader(&["auth", "whoami"])?.ok()?, &[&format!("system:serviceaccount:{ns}:reader"), "system:serviceaccounts"])?;
    let refused = reader(&["-n", &ns, "get", "secrets"])?.err()?;
    has(&refused, &["Error from server (Forbidden)", "cannot list resource \"secrets\" in API group \"\" in the namespace"])?;
    has(&reader(&["-n", &ns, "create", "cm", "x"])?.err()?, &["cannot create resource \"configmaps\""])?;
    ensure!(reader(&["auth", "can-i", "list", "pods", "-n", &ns])?.stdout.trim() == "yes");
    ensure!(reader(&["auth", "can-i", "delete", "pods", "-n", &ns])?.stdout.trim() == "no");
    has(&reader(&["auth", "can-i", "--list", "-n", &ns])?.ok()?, &["configmaps", "selfsubjectaccessreviews"])?;
    cluster.kubectl(&["-n", &ns, "delete", "sa", "reader"])?.ok()?;
    eventually("a deleted account's token is dead", 10, || {
        has(&reader(&["-n", &ns, "get", "cm"])?.err()?, &["Unauthorized"])
            .or_else(|_| has(&reader(&["-n", &ns, "get", "cm"])?.err()?, &["logged in"]))
    })
}

fn strangers_are_refused(cluster: &Cluster) -> Result {
    let url = |path: &str| format!("https://127.0.0.1:6443{path}");
    for open in ["/livez", "/readyz", "/version"] {
        let answer = cluster.host.run("curl", &["-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &url(open)])?.ok()?;
        ensure!(answer == "200", "{open}: {answer}");
    }
    for closed in ["/api", "/api/v1/namespaces", "/apis", "/openapi/v3", "/metrics"] {
        let answer = cluster.host.run("curl", &["-sk", "-m", "5", "-w", "\n%{http_code}", &url(closed)])?.ok()?;
        ensure!(answer.ends_with("403") || answer.ends_with("401"), "{closed}: {answer}");
        has(&answer, &["\"kind\": \"Status\""])?;
    }
    let bad =
        cluster.host.run("curl", &["-sk", "-m", "5", "-H", "Authorization: Bearer nonsense", "-w", "\n%{http_code}", &url("/api/v1/pods")])?.ok()?;
    ensure!(bad.ends_with("401"), "{bad}");
    Ok(())
}

fn namespaces_come_furnished_and_go(cluster: &Cluster) -> Result {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        cluster.get(&["ns", name])?;
        cluster.get(&["-n", name, "sa", "default"])?;
        cluster.get(&["-n", name, "cm", "kube-root-ca.crt"])?;
    }
    has(&cluster.kubectl(&["get", "svc", "kubernetes"])?.ok()?, &["ClusterIP", "443/TCP"])?;
    let ns = cluster.namespace("short-lived")?;
    cluster.get(&["-n", &ns, "sa", "default"])?;
    cluster.get(&["-n", &ns, "cm", "kube-root-ca.crt"])?;
    cluster.apply(&deployment(&ns, "inside", "hello:v1", 2))?;
    has(&cluster.kubectl(&["delete", "ns", &ns, "--timeout=60s"])?.ok()?, &["namespace \"short-lived\" deleted"])?;
    has(&cluster.kubectl(&["get", "ns", &ns])?.err()?, &["NotFound"])?;
    has(&cluster.kubectl(&["create", "cm", "x", "-n", &ns])?.err()?, &["namespaces \"short-lived\" not found"])?;
    has(&cluster.kubectl(&["delete", "ns", "kube-system"])?.err()?, &["forbidden"])
}

fn jobs_complete(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("jobs")?;
    let job = |name: &str, rest: &str, arguments: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  {rest}\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      - {{name: work, image: 'probe:v1', args: {arguments}}}\n"
        )
    };
    cluster.apply(&job("good", "completions: 3\n  parallelism: 2", "[hello]"))?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Complete", "job/good", "--timeout=60s"])?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "get", "job", "good"])?.ok()?, &["STATUS", "COMPLETIONS", "DURATION", "Complete", "3/3"])?;
    has(&cluster.kubectl(&["-n", &ns, "logs", "job/good"])?.ok()?, &["hello from probe"])?;
    cluster.apply(&job("bad", "backoffLimit: 0", "[exit, '4']"))?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Failed", "job/bad", "--timeout=60s"])?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "describe", "job", "bad"])?.ok()?, &["BackoffLimitExceeded"])
}

fn owners_take_their_dependents(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("owners")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "owner"])?.ok()?;
    let uid = cluster.get(&["-n", &ns, "cm", "owner"])?["metadata"]["uid"].as_str().unwrap_or_default().to_string();
    let owned = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {ns}\n  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]\n"
        )
    };
    cluster.apply(&owned("owned"))?;
    cluster.kubectl(&["-n", &ns, "delete", "cm", "owner"])?.ok()?;
    eventually("the dependent is gone", 20, || cluster.kubectl(&["-n", &ns, "get", "cm", "owned"])?.err())?;
    cluster.apply(&deployment(&ns, "kept", "hello:v1", 1))?;
    eventually("a replica set", 20, || has(&cluster.kubectl(&["-n", &ns, "get", "rs", "-o", "name"])?.ok()?, &["replicaset"]))?;
    cluster.kubectl(&["-n", &ns, "delete", "deploy", "kept", "--cascade=orphan"])?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "get", "rs", "-o", "name"])?.ok()?, &["replicaset"])?;
    let set = cluster.kubectl(&["-n", &ns, "get", "rs", "-o", "name"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "delete", set.trim(), "--cascade=foreground", "--timeout=60s"])?.ok()?;
    let pods = cluster.kubectl(&["-n", &ns, "get", "pods", "-o", "name"])?.ok()?;
    ensure!(pods.trim().is_empty(), "foreground deletion waits for the dependents: {pods}");
    Ok(())
}

fn dry_run_and_validation(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("dry")?;
    // kubectl checks lists itself, by the definitions of the older OpenAPI.
    let list = |field: &str| {
        let item = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"listed","namespace":"{ns}"}},"{field}":{{"a":"b"}}}}"#);
        format!(r#"{{"apiVersion":"v1","kind":"List","items":[{item}]}}"#)
    };
    has(&cluster.apply(&list("data"))?, &["configmap/listed created"])?;
    let refused = cluster.kubectl_with(&["apply", "-f", "-"], &list("dota"))?.err()?;
    has(&refused, &["dota"])?;
    has(&cluster.kubectl(&["-n", &ns, "create", "cm", "ghost", "--dry-run=server"])?.ok()?, &["configmap/ghost created (server dry run)"])?;
    cluster.kubectl(&["-n", &ns, "get", "cm", "ghost"])?.err()?;
    let typo = deployment(&ns, "typo", "hello:v1", 1).replace("replicas:", "replicsa:");
    has(&cluster.kubectl_with(&["apply", "-f", "-"], &typo)?.err()?, &["strict decoding error: unknown field \"spec.replicsa\""])?;
    let wrong = deployment(&ns, "wrong", "hello:v1", 1).replace("replicas: 1", "replicas: many");
    has(&cluster.kubectl_with(&["apply", "-f", "-"], &wrong)?.err()?, &["replicas"])?;
    let name = cluster.kubectl(&["-n", &ns, "create", "cm", "Bad_Name"])?.err()?;
    has(&name, &["ConfigMap \"Bad_Name\" is invalid", "metadata.name", "lowercase RFC 1123 subdomain"])?;
    let mismatch = deployment(&ns, "mismatch", "hello:v1", 1).replace("metadata: {labels: {app: mismatch}}", "metadata: {labels: {app: other}}");
    has(&cluster.kubectl_with(&["apply", "-f", "-"], &mismatch)?.err()?, &["`selector` does not match template `labels`"])
}

fn proxy_subresource(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("proxied")?;
    cluster.kubectl(&["-n", &ns, "run", "front", "--image=web:v1", "--port=8080"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "expose", "pod", "front", "--port=80", "--target-port=8080"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/front", "--timeout=30s"])?.ok()?;
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{ns}/{path}")])?.ok();
    ensure!(raw("pods/front/proxy/served")? == "1\n");
    ensure!(raw("pods/front:8080/proxy/served")? == "1\n");
    eventually("the service has an endpoint", 20, || raw("services/front:80/proxy/echo?x=y").and_then(|text| has(&text, &["GET /echo?x=y"])))
}

fn chunked_lists(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("chunks")?;
    let many: String =
        (0..25).map(|index| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{index:02}, namespace: {ns}}}\n")).collect();
    cluster.kubectl_with(&["create", "-f", "-"], &many)?.ok()?;
    let listed = cluster.kubectl(&["-n", &ns, "get", "cm", "--chunk-size=7", "-o", "name"])?.ok()?;
    ensure!(listed.lines().count() == 26, "{listed}");
    let page = cluster.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{ns}/configmaps?limit=10")])?.ok()?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    ensure!(page["items"].as_array().is_some_and(|items| items.len() == 10) && page["metadata"]["remainingItemCount"] == 16, "{}", page["metadata"]);
    Ok(())
}

fn top_autoscale_and_older_endpoints(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("top")?;
    let kubectl = |arguments: &[&str]| cluster.kubectl_in(&ns, arguments);
    cluster.apply(&deployment(&ns, "web", "hello:v1", 1))?;
    kubectl(&["set", "resources", "deployment/web", "--requests=cpu=100m,memory=8Mi"])?.ok()?;
    kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"])?.ok()?;
    kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?.ok()?;
    eventually("endpoints", 20, || has(&kubectl(&["get", "endpoints", "web"])?.ok()?, &["ENDPOINTS", ":8080"]))?;
    has(&kubectl(&["describe", "endpoints", "web"])?.ok()?, &["Subsets:", "Addresses:", "8080  TCP"])?;
    has(&kubectl(&["top", "nodes"])?.ok()?, &["CPU(cores)", "MEMORY(bytes)", "Mi"])?;
    eventually("a pod's use", 40, || has(&kubectl(&["top", "pods", "--containers"])?.ok()?, &["POD", "web-", "web"]))?;
    kubectl(&["autoscale", "deployment", "web", "--min=2", "--max=3", "--cpu-percent=50"])?.ok()?;
    eventually("two replicas", 30, || {
        ensure!(cluster.get(&["-n", &ns, "deployment", "web"])?["spec"]["replicas"] == 2);
        Ok(())
    })?;
    eventually("a measure", 40, || {
        let table = kubectl(&["get", "hpa", "web"])?.ok()?;
        has(&table, &["Deployment/web", "cpu: ", "%/50%"])
    })?;
    has(
        &kubectl(&["describe", "hpa", "web"])?.ok()?,
        &["SuccessfulRescale", "Current number of replicas below Spec.MinReplicas", "ValidMetricFound"],
    )?;
    has(&cluster.kubectl(&["get", "apiservices"])?.ok()?, &["v1.apps", "v2.autoscaling", "Local", "True"])?;
    has(&kubectl(&["get", "events.events.k8s.io"])?.ok()?, &["ScalingReplicaSet", "deployment/web"])
}
