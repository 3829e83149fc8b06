//! Traffic to containers and components: Services from within and without, ports of the node, and the API from a container (upstream's e2e network/{service, hostport}.go).

use anyhow::{Context, ensure};
use coracle_tests::{Alone, Cluster, Host, Mode, Output, Result, alone, eventually, has};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, ExitCode},
    sync::OnceLock,
};

const CASES: &[Alone] = &[("traffic", traffic)];

type Step = fn(&World) -> Result;

/// In one cluster, one after the other: some change what the whole node does.
const STEPS: &[(&str, Step)] = &[
    ("containers_reach_services_and_themselves", containers_reach_services_and_themselves),
    ("node_ports_and_external_addresses", node_ports_and_external_addresses),
    ("clients_stay_with_their_pod", clients_stay_with_their_pod),
    ("ports_of_the_node_lead_to_pods", ports_of_the_node_lead_to_pods),
    ("rules_that_were_flushed_come_back", rules_that_were_flushed_come_back),
];

fn main() -> ExitCode {
    alone(CASES)
}

/// A cluster, and another machine beside it.
struct World {
    cluster: Cluster,
    outside: Host,
}

/// The cluster's machine as the other one sees it, and the other way round.
const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";
/// An address that is nobody's but a Service's.
const EXTERNAL: &str = "198.51.100.7";

fn traffic() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    if cluster.host.name().is_none() {
        println!("left out: only root has networks");
        return Ok(());
    }
    cluster.import_busybox()?;
    let world = World { outside: Host::new()?, cluster };
    world.connect()?;
    for (name, step) in STEPS {
        println!("{name}");
        step(&world).with_context(|| format!("{name}\n── what the cluster printed\n{}", world.cluster.log()))?;
    }
    world.cluster.stop()
}

impl World {
    /// A cable between the two.
    fn connect(&self) -> Result {
        let outside = self.outside.name().context("a namespace")?;
        self.cluster
            .host
            .run("ip", &["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &format!("/run/netns/{outside}")])?
            .ok()?;
        for (host, own) in [(&self.cluster.host, NODE), (&self.outside, OUTSIDE)] {
            host.run("ip", &["address", "add", &format!("{own}/24"), "dev", "cable"])?.ok()?;
            host.run("ip", &["link", "set", "cable", "up"])?.ok()?;
        }
        self.outside.run("ip", &["route", "add", EXTERNAL, "via", NODE])?.ok()?;
        Ok(())
    }

    fn apply(&self, object: &Value) -> Result {
        self.cluster.apply(&object.to_string()).map(drop)
    }

    fn field(&self, ns: &str, kind: &str, name: &str, path: &str) -> Result<String> {
        let text = self.cluster.kubectl(&["-n", ns, "get", kind, name, "-o", &format!("jsonpath={{{path}}}")])?.ok()?;
        ensure!(!text.is_empty(), "{kind} {name} has no {path}");
        Ok(text)
    }
}

/// Serves who asks at /cgi-bin/who, and its own name at /cgi-bin/name.
const SERVER: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR' > /www/cgi-bin/who; printf '#!/bin/sh\\necho; hostname' > /www/cgi-bin/name; \
                      chmod +x /www/cgi-bin/*; exec httpd -f -p 8080 -h /www";

fn service(ns: &str, name: &str, app: &str, spec: Value) -> Value {
    let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": ns }, "spec": spec });
    service["spec"]["selector"] = json!({ "app": app });
    service["spec"]["ports"] = json!([{ "port": 80, "targetPort": 8080 }]);
    service
}

fn servers(ns: &str, app: &str, replicas: u32, container: Value) -> Value {
    let labels = json!({ "app": app });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": app, "namespace": ns }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } } } })
}

fn in_container() -> Value {
    json!({ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", SERVER], "ports": [{ "containerPort": 8080 }],
        "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 } })
}

fn as_component() -> Value {
    json!({ "name": "main", "image": "web:v1", "ports": [{ "containerPort": 8080 }] })
}

fn ready(world: &World, ns: &str, app: &str) -> Result {
    world.cluster.kubectl(&["-n", ns, "rollout", "status", &format!("deploy/{app}"), "--timeout=60s"])?.ok().map(drop)
}

/// One server in a container, one as a component, each behind a Service of its name; made once.
fn both(world: &World) -> Result<&'static str> {
    static MADE: OnceLock<()> = OnceLock::new();
    let ns = "both";
    if MADE.get().is_none() {
        world.cluster.namespace(ns)?;
        for (app, container) in [("boxed", in_container()), ("wasm", as_component())] {
            world.apply(&servers(ns, app, 1, container))?;
            world.apply(&service(ns, app, app, json!({})))?;
        }
        ready(world, ns, "boxed")?;
        ready(world, ns, "wasm")?;
        let _ = MADE.set(());
    }
    Ok(ns)
}

fn containers_reach_services_and_themselves(world: &World) -> Result {
    let ns = both(world)?;
    let cluster = &world.cluster;
    let (boxed, wasm) = (world.field(ns, "svc", "boxed", ".spec.clusterIP")?, world.field(ns, "svc", "wasm", ".spec.clusterIP")?);
    eventually("the node reaches both", 30, || {
        cluster.host.get(&format!("http://{boxed}/cgi-bin/name"))?;
        cluster.host.get(&format!("http://{wasm}/served"))
    })?;
    // A container that is behind a Service of its own.
    let marker = format!("9{}", std::process::id());
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "self", "namespace": ns, "labels": { "app": "self" } }, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never",
            "ports": [{ "containerPort": 8080 }], "command": ["sh", "-c", format!("sleep {marker} & {SERVER}")] }] } });
    world.apply(&service(ns, "self", "self", json!({})))?;
    world.apply(&pod)?;
    let inside = eventually("it runs", 40, || process(&["sleep", &marker]))?.to_string();
    let get = |url: String| {
        let mut curl = Command::new("nsenter");
        curl.arg(format!("--net=/proc/{inside}/ns/net")).args(["curl", "-sS", "-m", "5", &url]);
        Output::of(&mut curl, "")?.ok()
    };
    let (own, by_itself) = (world.field(ns, "pod", "self", ".status.podIP")?, world.field(ns, "svc", "self", ".spec.clusterIP")?);
    eventually("it reaches itself", 30, || get(format!("http://{by_itself}/cgi-bin/who")))?;
    let seen = get(format!("http://{boxed}/cgi-bin/who"))?;
    ensure!(seen.contains(&own), "the server sees its client as {seen}, not as {own}");
    get(format!("http://{wasm}/served"))?;
    let refused = get(format!("http://{boxed}:81/")).err().context("nobody listens at that port of the Service")?.to_string();
    ensure!(!refused.contains("timed out"), "{refused}");
    // A component reaches the container by the Service.
    let pod = world.field(ns, "pod", "-lapp=wasm", ".items[0].status.podIP")?;
    eventually("a component fetches from the container", 20, || {
        has(&cluster.host.get(&format!("http://{pod}:8080/fetch?{boxed}:80"))?, &["fetched"])
    })?;
    the_api_answers(world, &inside)?;
    // A program of the machine that listens on all addresses is not to be had at those of the node's own Services.
    let _listening = cluster.host.listen("0.0.0.0:7099")?;
    for own in ["10.96.0.1", "10.96.0.10"] {
        let refused = get(format!("http://{own}:7099/")).err().with_context(|| format!("{own} leads to a program of the machine"))?.to_string();
        ensure!(refused.contains("refused") || refused.contains("Failed to connect") || refused.contains("Couldn't connect"), "{own}: {refused}");
        ensure!(cluster.host.get(&format!("http://{own}:7099/")).is_err_and(|why| !why.to_string().contains("timed out")), "{own}, from the node");
    }
    cluster.kubectl(&["-n", ns, "delete", "pod", "self", "--grace-period=1"])?.ok().map(drop)
}

/// The process with that command line.
fn process(words: &[&str]) -> Result<u32> {
    let wanted = format!("{}\0", words.join("\0"));
    let numbers = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = numbers.filter(|number| fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| line == wanted.as_bytes()));
    found.next().context("no such process")
}

/// From the network of that process: by each of its names, with a pod's token.
fn the_api_answers(world: &World, process: &str) -> Result {
    let ca = world.field("default", "cm", "kube-root-ca.crt", ".data.ca\\.crt")?;
    let file = world.cluster.dir().join("root-ca.crt");
    fs::write(&file, ca)?;
    let token = world.cluster.kubectl(&["create", "token", "default"])?.ok()?;
    for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "10.96.0.1"] {
        let mut curl = Command::new("nsenter");
        curl.arg(format!("--net=/proc/{process}/ns/net")).args(["curl", "-sS", "-m", "5", "--cacert"]).arg(&file);
        curl.args([
            "-H",
            &format!("Authorization: Bearer {}", token.trim()),
            "--resolve",
            &format!("{name}:443:10.96.0.1"),
            &format!("https://{name}/api"),
        ]);
        has(&Output::of(&mut curl, "")?.ok()?, &["APIVersions"])?;
    }
    Ok(())
}

fn node_ports_and_external_addresses(world: &World) -> Result {
    let ns = both(world)?;
    let cluster = &world.cluster;
    for (app, path) in [("boxed", "cgi-bin/name"), ("wasm", "served")] {
        world.apply(&service(ns, app, app, json!({ "type": "NodePort", "externalIPs": [EXTERNAL] })))?;
        let port = world.field(ns, "svc", app, ".spec.ports[0].nodePort")?;
        eventually(&format!("{app}: its node port answers on the node and beyond"), 30, || {
            cluster.host.get(&format!("http://127.0.0.1:{port}/{path}"))?;
            cluster.host.get(&format!("http://{NODE}:{port}/{path}"))?;
            world.outside.get(&format!("http://{NODE}:{port}/{path}"))
        })?;
        eventually(&format!("{app}: so does its external address"), 30, || world.outside.get(&format!("http://{EXTERNAL}/{path}")))?;
        // The next one has the address.
        world.apply(&service(ns, app, app, json!({ "type": "NodePort", "externalIPs": [] })))?;
    }
    let port = world.field(ns, "svc", "boxed", ".spec.ports[0].nodePort")?;
    let who = || world.outside.get(&format!("http://{NODE}:{port}/cgi-bin/who"));
    let seen = who()?;
    ensure!(!seen.contains(OUTSIDE), "traffic that any node may take has the node's address, not {seen}");
    world.apply(&service(ns, "boxed", "boxed", json!({ "type": "NodePort", "externalTrafficPolicy": "Local" })))?;
    eventually("a Service that wants to know its clients does", 30, || {
        let seen = who()?;
        ensure!(seen.contains(OUTSIDE), "{seen}");
        Ok(())
    })?;
    // A balancer asks which nodes have endpoints.
    world.apply(&service(ns, "balanced", "boxed", json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" })))?;
    let check = world.field(ns, "svc", "balanced", ".spec.healthCheckNodePort")?;
    let health =
        || Output::of(world.outside.command("curl").args(["-sS", "-m", "5", "-w", " %{http_code}", &format!("http://{NODE}:{check}/")]), "")?.ok();
    eventually("this node has one", 30, || has(&health()?, &["\"name\":\"balanced\"", "\"localEndpoints\":1", " 200"]))?;
    // Without an endpoint there is nobody.
    cluster.kubectl(&["-n", ns, "scale", "deploy", "boxed", "--replicas=0"])?.ok()?;
    eventually("nobody answers any more", 30, || {
        ensure!(who().is_err());
        Ok(())
    })?;
    eventually("nor is the node healthy to a balancer", 30, || has(&health()?, &["\"localEndpoints\":0", " 503"]))?;
    cluster.kubectl(&["-n", ns, "scale", "deploy", "boxed", "--replicas=1"])?.ok()?;
    ready(world, ns, "boxed")?;
    eventually("and then again", 30, || who().map(drop))
}

fn clients_stay_with_their_pod(world: &World) -> Result {
    let ns = world.cluster.namespace("stay")?;
    world.apply(&servers(&ns, "many", 3, in_container()))?;
    world.apply(&service(&ns, "many", "many", json!({})))?;
    ready(world, &ns, "many")?;
    let ip = world.field(&ns, "svc", "many", ".spec.clusterIP")?;
    let mut seen = BTreeSet::new();
    eventually("all three answer", 30, || {
        seen.insert(world.cluster.host.get(&format!("http://{ip}/cgi-bin/name"))?);
        ensure!(seen.len() == 3, "{seen:?}");
        Ok(())
    })?;
    world.apply(&service(
        &ns,
        "many",
        "many",
        json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 600 } } }),
    ))?;
    eventually("sixteen answers in a row are one pod's", 30, || {
        let names = (0..16).map(|_| world.cluster.host.get(&format!("http://{ip}/cgi-bin/name"))).collect::<Result<BTreeSet<String>>>()?;
        ensure!(names.len() == 1, "{names:?}");
        Ok(())
    })?;
    world.cluster.kubectl(&["delete", "ns", &ns, "--wait=false"])?.ok().map(drop)
}

fn ports_of_the_node_lead_to_pods(world: &World) -> Result {
    let ns = world.cluster.namespace("host-ports")?;
    let pod = |name: &str, mut container: Value, port: Value| {
        container["ports"] = json!([port]);
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns },
            "spec": { "nodeName": "test-node", "terminationGracePeriodSeconds": 1, "containers": [container] } })
    };
    world.apply(&pod("boxed", in_container(), json!({ "containerPort": 8080, "hostPort": 7001 })))?;
    world.apply(&pod("wasm", as_component(), json!({ "containerPort": 8080, "hostPort": 7002 })))?;
    world.apply(&pod("near", in_container(), json!({ "containerPort": 8080, "hostPort": 7003, "hostIP": "127.0.0.1" })))?;
    eventually("they answer", 40, || {
        for (port, path) in [(7001, "cgi-bin/name"), (7002, "served")] {
            world.cluster.host.get(&format!("http://127.0.0.1:{port}/{path}"))?;
            world.outside.get(&format!("http://{NODE}:{port}/{path}"))?;
        }
        world.cluster.host.get("http://127.0.0.1:7003/cgi-bin/name")
    })?;
    ensure!(world.outside.get(&format!("http://{NODE}:7003/cgi-bin/name")).is_err(), "it was asked for on loopback alone");
    let seen = world.outside.get(&format!("http://{NODE}:7001/cgi-bin/who"))?;
    ensure!(seen.contains(OUTSIDE), "{seen}");
    // The number is taken.
    world.apply(&pod("late", as_component(), json!({ "containerPort": 8080, "hostPort": 7001 })))?;
    eventually("a second pod is refused", 20, || {
        let status = world.cluster.get(&["-n", &ns, "pod", "late"])?["status"].clone();
        ensure!(status["phase"] == "Failed" && status["reason"] == "NodePorts", "{status}");
        Ok(())
    })?;
    world.cluster.kubectl(&["-n", &ns, "delete", "pod", "boxed", "wasm", "near", "late", "--timeout=30s"])?.ok()?;
    eventually("with the pod its port goes", 20, || {
        ensure!(world.outside.get(&format!("http://{NODE}:7001/cgi-bin/name")).is_err());
        Ok(())
    })
}

fn rules_that_were_flushed_come_back(world: &World) -> Result {
    let ns = both(world)?;
    let ip = world.field(ns, "svc", "boxed", ".spec.clusterIP")?;
    let works = || world.cluster.host.get(&format!("http://{ip}/cgi-bin/name")).map(drop);
    // A firewall that is loaded anew, twice; a Service that changes meanwhile is no other case.
    for _ in 0..2 {
        eventually("the Service answers", 30, works)?;
        world.cluster.host.run("nft", &["flush", "ruleset"])?.ok()?;
    }
    eventually("the rules come back by themselves", 30, works)?;
    world.cluster.host.run("nft", &["flush", "ruleset"])?.ok()?;
    world.apply(&service(ns, "another", "boxed", json!({})))?;
    let other = world.field(ns, "svc", "another", ".spec.clusterIP")?;
    eventually("with what changed meanwhile", 30, || world.cluster.host.get(&format!("http://{other}/cgi-bin/name")).map(drop))
}
