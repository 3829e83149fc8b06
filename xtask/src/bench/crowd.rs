//! The API under many: requests of 32 clients, a hundred watchers, a thousand idle ones, 500 replicas, 50,000 pods.
//!
//! kube-apiserver 1.36 with etcd, measured in the same terms on a 2-core machine (client on the same cores, HTTP/2, TLS), stands beside each figure, and what ours shall be.

use super::{
    api::{CLIENTS, PATH, object, rate},
    cluster::{Client, Cluster, call, send},
    load::{Samples, ms, versus},
    memory,
};
use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const REQUESTS: usize = 6_400;
const WATCHERS: usize = 100;
const EVENTS: usize = 300;
const IDLE: usize = 1_000;
/// (nodes, replicas, what upstream takes or what it shall take)
const CROWDS: [(usize, usize, &str); 2] = [(10, 500, "kube-apiserver 1.36: 1.8 s; shall be at most 1 s"), (100, 1_000, "shall be at most 2 s")];
const PODS: usize = 50_000;
/// How long gets are timed while lists run.
const BESIDE_LISTS: Duration = Duration::from_secs(5);

/// Gets, updates, merge patches and applies of 32 clients, each client on objects of its own.
pub async fn requests(cluster: &Cluster) -> Result<()> {
    let name = |worker: usize| format!("mine-{worker}");
    rate(cluster, CLIENTS, CLIENTS, move |worker, _| ("POST", PATH.into(), object(&name(worker)))).await?;
    let at = move |worker: usize| format!("{PATH}/{}", name(worker));
    let body = move |worker: usize, index: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(worker)}, "data": {"key": "v".repeat(200), "turn": index.to_string()}}).to_string()
    };
    let gets = rate(cluster, CLIENTS, REQUESTS, move |worker, _| ("GET", at(worker), Vec::new())).await?;
    let updates = rate(cluster, CLIENTS, REQUESTS, move |worker, index| ("PUT", at(worker), body(worker, index).into_bytes())).await?;
    let patch = |index: usize| json!({"data": {"turn": format!("p{index}")}}).to_string().into_bytes();
    let patches = rate(cluster, CLIENTS, REQUESTS, move |worker, index| ("PATCH merge", at(worker), patch(index))).await?;
    let applied = move |worker| format!("{}?fieldManager=bench&force=true", at(worker));
    let applies =
        rate(cluster, CLIENTS, REQUESTS, move |worker, index| ("PATCH apply", applied(worker), body(worker, index + REQUESTS).into_bytes())).await?;
    for (what, ours, theirs) in
        [("gets", gets, 2_728.0), ("updates", updates, 1_328.0), ("merge patches", patches, 1_152.0), ("applies", applies, 1_056.0)]
    {
        versus(&format!("{what}, {CLIENTS} clients"), (ours, "/s"), (theirs, "/s"), ours / theirs, 4);
    }
    Ok(())
}

/// A hundred watchers of one namespace while it changes; then what an idle one weighs.
pub async fn watchers(cluster: &Cluster) -> Result<()> {
    let path = "/api/v1/namespaces/kube-system/configmaps";
    let begun = Instant::now();
    let mut watchers = FuturesUnordered::new();
    for _ in 0..WATCHERS {
        let mut client = cluster.connect().await?;
        let mut events = send(&mut client, "GET", &format!("{path}?watch=1&resourceVersion=0"), Vec::new()).await?.into_body();
        watchers.push(async move {
            let (mut pending, mut delays) = (Vec::new(), Vec::with_capacity(EVENTS));
            while delays.len() < EVENTS {
                let frame = events.frame().await.context("the watch ended")??;
                pending.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
                let now = begun.elapsed();
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    // Each object says when it was sent.
                    if let Some(sent) = line.split("\"sent\":\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()) {
                        delays.push(now.saturating_sub(Duration::from_micros(sent)));
                    }
                }
            }
            drop(client);
            Ok::<_, anyhow::Error>(delays)
        });
    }
    let mut writer = cluster.connect().await?;
    let start = Instant::now();
    let write = async {
        for index in 0..EVENTS {
            let sent = begun.elapsed().as_micros().to_string();
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("event-{index}")}, "data": {"key": "v".repeat(200), "sent": sent}});
            call(&mut writer, "POST", path, body.to_string().into_bytes()).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let read = async {
        let mut all = Vec::new();
        while let Some(delays) = watchers.next().await {
            all.extend(delays?);
        }
        Ok::<_, anyhow::Error>(all)
    };
    let (_, delays) = tokio::try_join!(write, read)?;
    let rate = delays.len() as f64 / start.elapsed().as_secs_f64();
    let delays = Samples::new(delays);
    versus(&format!("events to {WATCHERS} watchers"), (rate, "/s"), (12_400.0, "/s"), rate / 12_400.0, 4);
    let [half, most] = [50, 99].map(|part| ms(delays.percentile(part)));
    println!("{:<44} p50 {half} p99 {most} (kube-apiserver 1.36: p50 4.8 ms; shall be less)", "how late they are");

    // Idle is who has seen all there is: one that begins with a list and does not read it would hold a window full of it.
    let page: Value = serde_json::from_slice(&call(&mut writer, "GET", &format!("{path}?limit=1"), Vec::new()).await?)?;
    let now = page["metadata"]["resourceVersion"].as_str().context("a list without a revision")?;
    let before = memory::pss(&[cluster.main()])?;
    let (mut clients, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..IDLE / 200 {
        let mut client = cluster.connect().await?;
        for _ in 0..200 {
            idle.push(send(&mut client, "GET", &format!("{path}?watch=1&resourceVersion={now}"), Vec::new()).await?.into_body());
        }
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = memory::pss(&[cluster.main()])?.saturating_sub(before);
    drop((idle, clients));
    println!("{:<44} {:>12.1} KB each (of {IDLE}; shall be at most 20)", "an idle watcher", grown as f64 * 1.024 / IDLE as f64);
    Ok(())
}

/// Deployments over nodes that have no agent: until all pods are bound.
pub async fn binding(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.connect().await?;
    call(&mut client, "PATCH merge", "/api/v1/nodes/bench", json!({"spec": {"unschedulable": true}}).to_string().into_bytes()).await?;
    let mut made = 0;
    for (nodes, replicas, note) in CROWDS {
        empty_nodes(&mut client, made..nodes).await?;
        made = nodes;
        bind(cluster, &mut client, nodes, replicas, note).await?;
    }
    Ok(())
}

async fn empty_nodes(client: &mut Client, which: std::ops::Range<usize>) -> Result<()> {
    let all = which.end;
    for index in which {
        let name = format!("empty-{index}");
        let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        call(client, "POST", "/api/v1/nodes", node.to_string().into_bytes()).await?;
        let now = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?.stdout;
        let now = String::from_utf8_lossy(&now).trim().to_string();
        let ready =
            json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now});
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        call(client, "PATCH merge", &format!("/api/v1/nodes/{name}/status"), status.to_string().into_bytes()).await?;
    }
    // The node lifecycle controller takes the taint of new nodes away.
    loop {
        let nodes: Value = serde_json::from_slice(&call(client, "GET", "/api/v1/nodes", Vec::new()).await?)?;
        let free = |node: &&Value| node["spec"]["taints"].is_null();
        if nodes["items"].as_array().context("no items")?.iter().filter(free).count() >= all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn bind(cluster: &Cluster, client: &mut Client, nodes: usize, replicas: usize, note: &str) -> Result<()> {
    let name = format!("crowd-{replicas}");
    let mut watcher = cluster.connect().await?;
    let mut events = send(&mut watcher, "GET", "/api/v1/namespaces/default/pods?watch=1", Vec::new()).await?.into_body();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "hello:v1"}]}}}});
    let begun = Instant::now();
    call(client, "POST", "/apis/apps/v1/namespaces/default/deployments", deployment.to_string().into_bytes()).await?;
    let (mut pending, mut bound) = (Vec::new(), std::collections::HashSet::new());
    while bound.len() < replicas {
        let frame =
            tokio::time::timeout(Duration::from_secs(60), events.frame()).await.context("not bound in a minute")?.context("the watch ended")??;
        pending.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let (pod, node) = (&event["object"]["metadata"]["name"], &event["object"]["spec"]["nodeName"]);
            if let Some(pod) = pod.as_str().filter(|pod| node.is_string() && pod.starts_with(&name)) {
                bound.insert(pod.to_string());
            }
        }
    }
    println!("{:<44} {:>12.3} s        ({note})", format!("a Deployment of {replicas} bound over {nodes} nodes"), begun.elapsed().as_secs_f64());
    Ok(())
}

/// 50,000 pods that nobody schedules, in a cluster of their own: memory by their JSON, and gets while lists run.
pub async fn pods() -> Result<()> {
    let cluster = Cluster::start()?;
    let path = "/api/v1/namespaces/default/pods";
    let before = memory::pss(&[cluster.main()])?;
    let body = |name: String| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "crowd"}}, "spec": {"schedulerName": "nobody",
            "containers": [{"name": "c", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]}})
        .to_string()
    };
    rate(&cluster, CLIENTS, PODS / CLIENTS * CLIENTS, move |worker, index| ("POST", path.into(), body(format!("p-{worker}-{index}")).into_bytes()))
        .await?;
    let mut client = cluster.connect().await?;
    let text = call(&mut client, "GET", path, Vec::new()).await?.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = memory::pss(&[cluster.main()])?.saturating_sub(before);
    println!(
        "{:<44} {:>12.1} MB       (their JSON {:.1} MB, ×{:.2}; shall be at most ×6)",
        format!("memory of {PODS} pods"),
        grown as f64 * 1.024 / 1e3,
        text as f64 / 1e6,
        grown as f64 * 1024.0 / text as f64
    );
    let cluster = Arc::new(cluster);
    let (lister, stop) = lists(&cluster, path);
    let (mut times, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < BESIDE_LISTS {
        let (sent, index) = (Instant::now(), times.len() % 1_000);
        call(&mut client, "GET", &format!("{path}/p-{}-{index}", index % CLIENTS), Vec::new()).await?;
        times.push(sent.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let lists = lister.join().map_err(|_| anyhow!("the lister panicked"))??;
    let times = Samples::new(times);
    let [half, most] = [50, 99].map(|part| ms(times.percentile(part)));
    println!("{:<44} p50 {half} p99 {most} ({lists} lists meanwhile; p99 shall be at most 5 ms)", "a get while lists of all of them run");
    Ok(())
}

/// Lists all objects again and again, on a thread of its own: what this client does with a list must not count as the time of a get. Says how many they were.
fn lists(cluster: &Arc<Cluster>, path: &'static str) -> (JoinHandle<Result<usize>>, Arc<AtomicBool>) {
    let (cluster, stop) = (Arc::clone(cluster), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let list = move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (mut client, mut count) = (cluster.connect().await?, 0);
            while !stopped.load(Ordering::Relaxed) {
                let mut body = send(&mut client, "GET", path, Vec::new()).await?.into_body();
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                count += 1;
            }
            Ok(count)
        })
    };
    (std::thread::spawn(list), stop)
}
