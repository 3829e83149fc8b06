//! `coracle up` as an ordinary user: wasm pods and Services on loopback addresses.

use anyhow::{Context, ensure};
use coracle_tests::{Background, Case, Cluster, Mode, Output, Result, binary, eventually, guest, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("it_says_what_it_cannot_do", it_says_what_it_cannot_do),
    ("a_deployment_behind_a_service", a_deployment_behind_a_service),
    ("kill_and_restart_adopts_running_pods", kill_and_restart_adopts_running_pods),
    ("cluster_dns_is_at_a_port_of_its_own", cluster_dns_is_at_a_port_of_its_own),
    ("a_port_below_1024_is_refused_with_a_remedy", a_port_below_1024_is_refused_with_a_remedy),
    ("the_readme_holds", the_readme_holds),
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

fn kill_and_restart_adopts_running_pods(_: &Cluster) -> Result {
    let cluster = Cluster::start(Mode::Unprivileged)?;
    cluster.kubectl(&["run", "steady", "--image=web:v1", "--port=8080"])?.ok()?;
    cluster.kubectl(&["run", "ticker", "--image=probe:v1", "--", "count", "0", "100"])?.ok()?;
    cluster.kubectl(&["expose", "pod", "steady", "--port=8000", "--target-port=8080"])?.ok()?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "pod/ticker", "--timeout=60s"])?.ok()?;
    let service = cluster.kubectl(&["get", "svc", "steady", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    let url = format!("http://{service}:8000/served");
    eventually("the service's address answers", 30, || cluster.host.get(&url))?;
    let containers = || -> Result<String> {
        cluster.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state} {.status.containerStatuses[0].restartCount}{'\\n'}{end}"])?.ok()
    };
    let before = containers()?;
    ensure!(before.matches(" 0\n").count() == 2, "{before}");
    for _ in 0..2 {
        cluster.kill()?;
        ensure!(cluster.host.get(&url)? == "1\n", "the function answers while nobody watches");
        cluster.up()?;
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "pod/ticker", "--timeout=60s"])?.ok()?;
        ensure!(containers()? == before, "adopted, not restarted: {before}\n{}", containers()?);
    }
    let lines = cluster.kubectl(&["logs", "ticker"])?.ok()?.lines().count();
    eventually("it goes on logging", 30, || {
        let now = cluster.kubectl(&["logs", "ticker"])?.ok()?.lines().count();
        ensure!(now > lines, "{now}");
        Ok(())
    })?;
    cluster.stop()
}

/// Port 53 is root's.
fn cluster_dns_is_at_a_port_of_its_own(cluster: &Cluster) -> Result {
    let mut command = cluster.as_user("cat");
    command.arg("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let port = if Output::of(&mut command, "")?.ok()?.trim().parse::<u16>()? > 53 { 1053 } else { 53 };
    let address =
        |name: &str| cluster.kubectl(&["get", "svc", "-A", "-o", &format!("jsonpath={{.items[?(@.metadata.name=='{name}')].spec.clusterIP}}")])?.ok();
    let (dns, api) = (address("kube-dns")?, address("kubernetes")?);
    eventually("it knows the API's name", 30, || {
        let said = cluster.host.run("busybox", &["nslookup", "kubernetes.default.svc.cluster.local", &format!("{dns}:{port}")])?.ok()?;
        ensure!(said.contains(&format!("Address: {api}\n")), "{said}");
        Ok(())
    })?;
    // Components ask there without knowing.
    cluster.kubectl(&["run", "named", "--image=web:v1", "--port=8080"])?.ok()?;
    cluster.kubectl(&["expose", "pod", "named", "--port=8000", "--target-port=8080"])?.ok()?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/named", "--timeout=60s"])?.ok()?;
    let ip = cluster.kubectl(&["get", "pod", "named", "-o", "jsonpath={.status.podIP}"])?.ok()?;
    eventually("a component asks by name", 30, || {
        let text = cluster.host.get(&format!("http://{ip}:8080/fetch?named.default.svc.cluster.local:8000"))?;
        ensure!(text.contains("fetched 200"), "{text}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod/named", "svc/named", "--timeout=30s"])?.ok().map(drop)
}

fn a_port_below_1024_is_refused_with_a_remedy(cluster: &Cluster) -> Result {
    let mut command = cluster.as_user("cat");
    command.arg("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if Output::of(&mut command, "")?.ok()?.trim() != "1024" {
        return Ok(());
    }
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: low}\nspec:\n  containers:\n  - {name: main, image: 'web:v1', ports: [{containerPort: 80}]}\n",
    )?;
    eventually("the pod says why", 30, || {
        let text = cluster.kubectl(&["describe", "pod", "low"])?.ok()?;
        ensure!(text.contains("Warning") && text.contains(":80 may not be listened on") && text.contains("containerPort of 1024 or more"), "{text}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "low", "--timeout=30s"])?.ok()?;
    let mut command = cluster.up_command()?;
    command.arg("--data-dir").arg(cluster.dir().join("low")).args(["--api-addr", "127.0.0.1:443"]);
    let said = Output::of(&mut command, "")?.err()?;
    ensure!(said.contains("443") && said.contains("1024") && said.contains("--api-addr"), "{said}");
    Ok(())
}

/// The lines of README's "Your first pod", by somebody who has a binary and nothing else.
fn the_readme_holds(_: &Cluster) -> Result {
    let readme = include_str!("../../README.md");
    let newcomer = Cluster::stopped(Mode::Unprivileged, &[])?;
    // Where the build has left the guest and the binary.
    newcomer.place(guest("hello")?, "target/guests/hello.wasm")?;
    newcomer.place(binary()?, "target/release/coracle")?;
    let home = newcomer.dir();
    let shell = |script: &str| {
        let mut command = newcomer.as_user("sh");
        command.current_dir(&home).env("HOME", &home).env_remove("XDG_DATA_HOME").env_remove("KUBECONFIG");
        command.args(["-e", "-c", script]);
        command
    };
    let lines: Vec<&str> =
        readme.lines().skip_while(|line| !line.starts_with("target/release/coracle up")).take_while(|line| *line != "```").collect();
    let (up, rest) = lines.split_first().context("the README starts no cluster")?;
    let up = up.split('&').next().unwrap_or_default();
    let process = Background::start(&mut shell(&format!("exec {up}")))?;
    eventually("it is ready", 60, || {
        ensure!(process.lines().iter().any(|line| line.starts_with("ready")), "{:?}", process.lines());
        Ok(())
    })?;
    // As the text says an ordinary user has it.
    let script = rest
        .join("\n")
        .replace("/var/lib/coracle/kubeconfig", "~/.local/share/coracle/kubeconfig")
        .replace("--port=80 ", "--port=8000 ")
        .replace("clusterIP}')/", "clusterIP}'):8000/");
    let (before, curl) = script.rsplit_once('\n').context("the README asks for nothing")?;
    let last = format!("{before}\nfor i in $(seq 100); do {curl} -sf && exit 0; sleep 0.2; done; exit 1");
    let said = Output::of(&mut shell(&last), "")?.ok()?;
    ensure!(said.contains("deployment.apps/hello created") && said.contains("service/hello exposed"), "{said}");
    ensure!(said.ends_with("Hello from a coracle\n"), "{said}");
    process.signal("TERM")?;
    let mut process = process;
    ensure!(process.wait(60)? == 0, "{:?}", process.lines());
    Ok(())
}
