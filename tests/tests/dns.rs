//! Names as pods see them (upstream's e2e network/dns.go): asked from containers with busybox, and from components.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, has, main as suite};
use serde_json::json;
use std::{fs, process::ExitCode, time::Duration};

const CASES: &[Case] = &[
    ("services_have_names_in_containers", services_have_names_in_containers),
    ("services_have_names_in_components", services_have_names_in_components),
    ("pods_have_names", pods_have_names),
    ("pods_choose_their_resolver", pods_choose_their_resolver),
    ("names_of_the_world_are_asked_of_the_machines_servers", names_of_the_world_are_asked_of_the_machines_servers),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// Two components behind a Service with an address, one without, and an alias.
fn shop(cluster: &Cluster, ns: &str) -> Result<(String, Vec<String>)> {
    let labels = json!({ "app": "back" });
    let service = |name: &str, spec: serde_json::Value| json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": ns }, "spec": spec });
    let ports = json!([{ "name": "web", "port": 80, "targetPort": "http" }]);
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "back", "namespace": ns }, "spec": {
        "replicas": 2, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": { "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "web", "image": "web:v1", "ports": [{ "name": "http", "containerPort": 8080 }] }] } } } });
    for object in [
        deployment,
        service("back", json!({ "selector": labels, "ports": ports })),
        service("flock", json!({ "selector": labels, "ports": ports, "clusterIP": "None" })),
        service("alias", json!({ "type": "ExternalName", "externalName": format!("back.{ns}.svc.cluster.local") })),
    ] {
        cluster.apply(&object.to_string())?;
    }
    cluster.kubectl(&["-n", ns, "rollout", "status", "deploy/back", "--timeout=60s"])?.ok()?;
    let ip = cluster.kubectl(&["-n", ns, "get", "svc", "back", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    let pods = eventually("both pods are endpoints", 30, || {
        let slices = cluster.get(&["-n", ns, "endpointslices", "-l", "kubernetes.io/service-name=flock"])?;
        let endpoints =
            slices["items"][0]["endpoints"].as_array().context("endpoints")?.iter().filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let ips: Vec<String> = endpoints.filter_map(|endpoint| Some(endpoint["addresses"][0].as_str()?.to_owned())).collect();
        ensure!(ips.len() == 2, "{slices}");
        Ok(ips)
    })?;
    Ok((ip, pods))
}

fn services_have_names_in_containers(cluster: &Cluster) -> Result {
    cluster.import_busybox()?;
    let ns = cluster.namespace("names")?;
    let (ip, pods) = shop(cluster, &ns)?;
    // A name without a dot goes by the search list.
    let script = format!(
        "cat /etc/resolv.conf; nslookup kubernetes.default.svc.cluster.local; nslookup -type=srv _web._tcp.back.{ns}.svc.cluster.local; \
         nslookup -type=srv _web._tcp.flock.{ns}.svc.cluster.local; nslookup -type=a flock.{ns}.svc.cluster.local; nslookup {ip}; \
         nslookup gone.{ns}.svc.cluster.local; nslookup -type=a back; nslookup -type=a alias.{ns}.svc.cluster.local"
    );
    let text = cluster.shell(&ns, "asks", &script, json!({}))?;
    let dns = cluster.kubectl(&["-n", "kube-system", "get", "svc", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    let api = cluster.kubectl(&["get", "svc", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    has(&text, &[&format!("search {ns}.svc.cluster.local svc.cluster.local cluster.local"), &format!("nameserver {dns}"), "options ndots:5", &api])?;
    has(&text, &[&format!("0 100 80 back.{ns}.svc.cluster.local"), &format!("name = back.{ns}.svc.cluster.local"), "NXDOMAIN"])?;
    has(&text, &[&format!("canonical name = back.{ns}.svc.cluster.local"), &format!("Name:\tback.{ns}.svc.cluster.local\nAddress: {ip}")])?;
    for pod in &pods {
        has(&text, &[pod, &format!("0 50 8080 {}.flock.{ns}.svc.cluster.local", pod.replace('.', "-"))])?;
    }
    Ok(())
}

fn services_have_names_in_components(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("wasm-names")?;
    let (_, pods) = shop(cluster, &ns)?;
    let pod = pods.first().context("a pod")?;
    for name in ["back", "alias", &format!("back.{ns}.svc.cluster.local")] {
        let text = cluster.host.get(&format!("http://{pod}:8080/fetch?{name}:80"))?;
        ensure!(text.contains("fetched 200"), "{name}: {text}");
    }
    // A whole request: what is less is waited for.
    cluster.kubectl(&["-n", &ns, "run", "caller", "--image=probe:v1", "--restart=Never", "--", "connect", "back:80", "GET / HTTP/1.0\n"])?.ok()?;
    eventually("a socket is connected by name", 30, || {
        let text = cluster.kubectl(&["-n", &ns, "logs", "caller"])?.ok()?;
        has(&text, &["connected from", "received HTTP/1.0 200"])
    })
}

fn pods_have_names(cluster: &Cluster) -> Result {
    cluster.import_busybox()?;
    let ns = cluster.namespace("pod-names")?;
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "sub", "namespace": ns },
        "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": { "job": "named" } } });
    cluster.apply(&service.to_string())?;
    let spec = json!({ "hostname": "me", "subdomain": "sub", "setHostnameAsFQDN": true, "hostAliases": [{ "ip": "192.0.2.9", "hostnames": ["friend", "friend.example"] }] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "named", "namespace": ns, "labels": { "job": "named" } }, "spec": {
        "restartPolicy": "Never", "hostname": "me", "subdomain": "sub", "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sleep", "1000"],
            "readinessProbe": { "tcpSocket": { "port": 1 } } }] } });
    cluster.apply(&pod.to_string())?;
    let ip = eventually("it has an address", 30, || {
        let ip = cluster.kubectl(&["-n", &ns, "get", "pod", "named", "-o", "jsonpath={.status.podIP}"])?.ok()?;
        ensure!(!ip.is_empty());
        Ok(ip)
    })?;
    let dashed = ip.replace('.', "-");
    let script = format!(
        "hostname; cat /etc/hosts; until nslookup me.sub.{ns}.svc.cluster.local; do sleep 0.2; done; nslookup {dashed}.{ns}.pod.cluster.local; nslookup {ip}"
    );
    let text = cluster.shell(&ns, "asks", &script, spec)?;
    has(&text, &[&format!("me.sub.{ns}.svc.cluster.local"), &format!("\tme.sub.{ns}.svc.cluster.local\tme\n"), "192.0.2.9\tfriend\tfriend.example"])?;
    let shown = text.matches(&format!("Address: {ip}")).count();
    ensure!(shown >= 2, "the address {ip} was told {shown} times\n{text}");
    has(&text, &[&format!("name = me.sub.{ns}.svc.cluster.local")])?;
    ensure!(text.starts_with(&format!("me.sub.{ns}.svc.cluster.local\n")), "{text}");
    cluster.kubectl(&["-n", &ns, "delete", "pod", "named", "--grace-period=0", "--force"])?.ok().map(drop)
}

fn pods_choose_their_resolver(cluster: &Cluster) -> Result {
    cluster.import_busybox()?;
    let ns = cluster.namespace("resolvers")?;
    let none = json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.53"], "searches": ["my.example"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } });
    let text = cluster.shell(&ns, "none", "cat /etc/resolv.conf", none)?;
    ensure!(text == "search my.example\nnameserver 192.0.2.53\noptions ndots:2 edns0\n", "{text}");
    let merged = json!({ "dnsConfig": { "searches": ["my.example"], "options": [{ "name": "ndots", "value": "3" }] } });
    let text = cluster.shell(&ns, "merged", "cat /etc/resolv.conf", merged)?;
    has(&text, &["cluster.local", "my.example", "options ndots:3", "nameserver 10.96.0.10"])?;
    let text = cluster.shell(&ns, "default", "cat /etc/resolv.conf", json!({ "dnsPolicy": "Default" }))?;
    ensure!(!text.contains("cluster.local"), "{text}");
    let text = cluster.shell(
        &ns,
        "host",
        "cat /etc/resolv.conf; nslookup kubernetes.default.svc.cluster.local",
        json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }),
    )?;
    has(&text, &["nameserver 10.96.0.10", "10.96.0.1"])
}

/// A cluster of its own, whose machine has one name server: it knows that every name has the address 192.0.2.1.
fn names_of_the_world_are_asked_of_the_machines_servers(_: &Cluster) -> Result {
    let conf = tempfile::NamedTempFile::new()?;
    fs::write(conf.path(), "nameserver 127.0.0.53\n")?;
    let cluster = Cluster::stopped(Mode::Whole, &["--resolv-conf", &conf.path().to_string_lossy()])?;
    cluster.up()?;
    cluster.import_busybox()?;
    let upstream = cluster.host.datagrams("127.0.0.53:53")?;
    upstream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let asked = std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((length, from)) = upstream.recv_from(&mut buffer) else { continue };
                let _ = upstream.send_to(&answer(&buffer[..length]), from);
            }
        });
        let told = world(&cluster);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        told
    });
    asked?;
    // Nobody is there to be asked any more: the world's names fail, the cluster's do not.
    drop(upstream);
    let text = cluster.shell("default", "alone", "nslookup kubernetes.default.svc.cluster.local; nslookup www.example.org", json!({}))?;
    has(&text, &["10.96.0.1"])?;
    ensure!(!text.contains("192.0.2.1"), "{text}");
    cluster.stop()
}

fn world(cluster: &Cluster) -> Result {
    let alias = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "far", "namespace": "default" }, "spec": { "type": "ExternalName", "externalName": "far.example.org" } });
    cluster.apply(&alias.to_string())?;
    let script = "nslookup -type=a www.example.org; echo; nslookup -type=a far.default.svc.cluster.local";
    let text = cluster.shell("default", "asks", script, json!({ "dnsPolicy": "ClusterFirst" }))?;
    ensure!(text.matches("Address: 192.0.2.1").count() == 2, "{text}");
    has(&text, &["canonical name = far.example.org"])?;
    // The machine's server is on its loopback: the pod is sent by way of the cluster's.
    let text = cluster.shell("default", "plain", "cat /etc/resolv.conf; nslookup -type=a www.example.org", json!({ "dnsPolicy": "Default" }))?;
    has(&text, &["nameserver 10.96.0.10", "Address: 192.0.2.1"])
}

/// The question with one address for an answer; none for other types than A.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    let end = query.get(12..).and_then(|rest| rest.iter().position(|byte| *byte == 0)).map_or(query.len(), |at| 12 + at + 5);
    reply.truncate(end);
    let wanted = reply.get(end.saturating_sub(4)..) == Some(&[0, 1, 0, 1]);
    // A response that recursed, one question, no additional records.
    for (place, byte) in [(2, 0x81), (3, 0x80), (7, u8::from(wanted)), (10, 0), (11, 0)] {
        if let Some(at) = reply.get_mut(place) {
            *at = byte;
        }
    }
    if wanted {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 1]);
    }
    reply
}
