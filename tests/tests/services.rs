//! A Service's address reaches its ready pods, from the node and from pods.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Result, eventually, main as suite};
use std::{collections::BTreeSet, process::ExitCode};

const CASES: &[Case] = &[
    ("cluster_ip_balances_over_ready_pods", cluster_ip_balances_over_ready_pods),
    ("pods_reach_services", pods_reach_services),
    ("named_ports_and_changes", named_ports_and_changes),
    ("pods_reach_the_api_by_its_service", pods_reach_the_api_by_its_service),
    ("ports_below_1024_are_ports_like_others", ports_below_1024_are_ports_like_others),
    ("programs_of_the_machine_do_not_answer_for_pods", programs_of_the_machine_do_not_answer_for_pods),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

fn backend(ns: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: back, namespace: {ns}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: back}}}}\n  template:\n    metadata: {{labels: {{app: back}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: web, image: 'web:v1', ports: [{{name: http, containerPort: 8080}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: back, namespace: {ns}}}\nspec:\n  selector: {{app: back}}\n  ports: [{{name: web, port: 80, targetPort: http}}]\n"
    )
}

fn address(cluster: &Cluster, ns: &str) -> Result<String> {
    cluster.kubectl(&["-n", ns, "rollout", "status", "deploy/back", "--timeout=60s"])?.ok()?;
    cluster.kubectl(&["-n", ns, "get", "svc", "back", "-o", "jsonpath={.spec.clusterIP}"])?.ok()
}

fn cluster_ip_balances_over_ready_pods(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("balance")?;
    cluster.apply(&backend(&ns, 3))?;
    let ip = address(cluster, &ns)?;
    let mut seen = BTreeSet::new();
    eventually("all three pods answer behind the one address", 30, || {
        seen.insert(cluster.host.get(&format!("http://{ip}/"))?);
        ensure!(seen.len() == 3, "{seen:?}");
        Ok(())
    })?;
    cluster.kubectl(&["-n", &ns, "scale", "deploy", "back", "--replicas=1"])?.ok()?;
    eventually("one endpoint left", 30, || {
        let slices = cluster.get(&["-n", &ns, "endpointslices", "-l", "kubernetes.io/service-name=back"])?;
        let endpoints = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        ensure!(endpoints == 1, "{slices}");
        Ok(())
    })?;
    eventually("twenty answers in a row", 20, || (0..20).try_for_each(|_| cluster.host.get(&format!("http://{ip}/")).map(drop)))
}

fn pods_reach_services(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("inside")?;
    cluster.apply(&backend(&ns, 2))?;
    let ip = address(cluster, &ns)?;
    let pod = cluster.get(&["-n", &ns, "pods", "-l", "app=back"])?["items"][0]["status"]["podIP"].as_str().unwrap_or_default().to_string();
    eventually("a pod fetches through the service", 30, || {
        let text = cluster.host.get(&format!("http://{pod}:8080/fetch?{ip}:80"))?;
        ensure!(text.contains("fetched 200"), "{text}");
        Ok(())
    })
}

fn named_ports_and_changes(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("changes")?;
    cluster.apply(&backend(&ns, 1))?;
    let ip = address(cluster, &ns)?;
    eventually("it answers", 30, || cluster.host.get(&format!("http://{ip}/")))?;
    cluster
        .kubectl(&[
            "-n",
            &ns,
            "patch",
            "svc",
            "back",
            "-p",
            r#"{"spec":{"ports":[{"name":"web","port":80,"$patch":"delete"},{"name":"web","port":8081,"targetPort":"http"}]}}"#,
        ])?
        .ok()?;
    eventually("the new port answers", 30, || cluster.host.get(&format!("http://{ip}:8081/")))?;
    cluster.kubectl(&["-n", &ns, "delete", "svc", "back"])?.ok()?;
    eventually("nothing answers any more", 30, || match cluster.host.get(&format!("http://{ip}:8081/")) {
        Ok(text) => anyhow::bail!("still answers {text}"),
        Err(_) => Ok(()),
    })
}

fn pods_reach_the_api_by_its_service(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("api")?;
    let ip = cluster.kubectl(&["get", "svc", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    cluster
        .kubectl(&["-n", &ns, "run", "caller", "--image=probe:v1", "--restart=Never", "--", "environment", "--", "connect", &format!("{ip}:443")])?
        .ok()?;
    eventually("the pod is connected", 30, || {
        let text = cluster.kubectl(&["-n", &ns, "logs", "caller"])?.ok()?;
        ensure!(text.contains("connected from") && text.contains(&format!("KUBERNETES_SERVICE_HOST={ip}")), "{text}");
        Ok(())
    })?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "caller", "--grace-period=1"])?.ok().map(drop)
}

fn ports_below_1024_are_ports_like_others(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("low")?;
    cluster.apply(&backend(&ns, 1).replace("containerPort: 8080", "containerPort: 80").replace("port: 80,", "port: 443,"))?;
    let ip = address(cluster, &ns)?;
    let pod = cluster.get(&["-n", &ns, "pods", "-l", "app=back"])?["items"][0]["status"]["podIP"].as_str().unwrap_or_default().to_string();
    ensure!(cluster.host.get(&format!("http://{pod}:80/served"))? == "1\n");
    eventually("the service's port leads there", 30, || cluster.host.get(&format!("http://{ip}:443/served")))?;
    Ok(())
}

fn programs_of_the_machine_do_not_answer_for_pods(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("apart")?;
    cluster.apply(&backend(&ns, 1))?;
    let service = address(cluster, &ns)?;
    let pod = cluster.get(&["-n", &ns, "pods", "-l", "app=back"])?["items"][0]["status"]["podIP"].as_str().unwrap_or_default().to_string();
    // As sshd does: on every address there is, of either family.
    for listened in ["0.0.0.0:2222", "[::]:2223"] {
        let listener = cluster.host.listen(listened)?;
        let port = listener.local_addr()?.port();
        let connects = |address: &str| cluster.host.run("bash", &["-c", &format!("exec 3<>/dev/tcp/{address}/{port}")]);
        connects("127.0.0.1")?.ok()?;
        let refused = connects(&pod)?.err()?;
        ensure!(refused.contains("refused"), "{refused}");
    }
    eventually("the pod answers as before", 20, || cluster.host.get(&format!("http://{pod}:8080/")))?;
    cluster.host.get(&format!("http://{service}/")).map(drop)
}
