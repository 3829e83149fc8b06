//! `coracle up` as an ordinary user: wasm pods and Services on loopback addresses.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Output, Result, eventually, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("it_says_what_it_cannot_do", it_says_what_it_cannot_do),
    ("a_deployment_behind_a_service", a_deployment_behind_a_service),
    ("a_port_below_1024_is_refused_with_a_remedy", a_port_below_1024_is_refused_with_a_remedy),
];

fn main() -> ExitCode {
    suite(Mode::Unprivileged, CASES)
}

fn it_says_what_it_cannot_do(cluster: &Cluster) -> Result {
    let log = cluster.log();
    ensure!(log.contains("ordinary user") && log.contains("wasm"), "{log}");
    Ok(())
}

fn a_deployment_behind_a_service(cluster: &Cluster) -> Result {
    cluster.kubectl(&["create", "deployment", "shop", "--image=web:v1", "--replicas=2", "--port=8080"])?.ok()?;
    cluster.kubectl(&["expose", "deployment", "shop", "--port=8000", "--target-port=8080"])?.ok()?;
    cluster.kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    let pods = cluster.get(&["pods", "-l", "app=shop"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        ensure!(ip.starts_with("127."), "{ip}");
        ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    }
    let service = cluster.kubectl(&["get", "svc", "shop", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    ensure!(service.starts_with("127."), "{service}");
    eventually("the service's address answers", 30, || cluster.host.get(&format!("http://{service}:8000/served")))?;
    // A port that is root's is refused where its owner looks, and takes no other with it.
    cluster.kubectl(&["expose", "deployment", "shop", "--name=low", "--port=80", "--target-port=8080"])?.ok()?;
    eventually("an event says why", 30, || {
        let events = cluster.kubectl(&["get", "events", "--field-selector=reason=ServiceListenError", "-o", "jsonpath={.items[*].message}"])?.ok()?;
        ensure!(events.contains(":80 may not be listened on") && events.contains("declare a Service port of 1024 or more"), "{events}");
        Ok(())
    })?;
    ensure!(cluster.host.get(&format!("http://{service}:8000/served"))? == "1\n");
    cluster.kubectl(&["delete", "svc", "low"])?.ok()?;
    cluster.kubectl(&["delete", "deploy", "shop", "--timeout=30s"])?.ok().map(drop)
}

fn a_port_below_1024_is_refused_with_a_remedy(cluster: &Cluster) -> Result {
    let mut command = cluster.as_user("cat");
    command.arg("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if Output::of(&mut command, "")?.ok()?.trim() != "1024" {
        return Ok(());
    }
    let mut command = cluster.up_command()?;
    command.arg("--data-dir").arg(cluster.dir().join("low")).args(["--api-addr", "127.0.0.1:443"]);
    let said = Output::of(&mut command, "")?.err()?;
    ensure!(said.contains("443") && said.contains("1024") && said.contains("--api-addr"), "{said}");
    Ok(())
}
