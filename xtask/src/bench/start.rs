//! How fast and how small: empty folder → ready, create → Ready, a thousand pods, and idle minutes.

use super::{
    cluster::{Client, Cluster, call},
    events::{Events, PODS},
    load::{Samples, ms},
    memory,
};
use crate::packages;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ONE_BY_ONE: usize = 200;
const THOUSAND: usize = 1_000;

/// Runs all parts.
pub async fn run() -> Result<()> {
    packages::ensure(packages::KUBECTL)?;
    let cluster = Cluster::start()?;
    println!("\nempty directory → ready                        {}   {}", ms(cluster.ready_after), cluster.ready_line);
    idle_minute(&cluster, "idle for a minute").await?;
    let mut client = cluster.connect().await?;
    warm(&mut client, &cluster).await?;

    let mut times = Vec::new();
    let mut events = Events::open(&cluster).await?;
    for index in 0..ONE_BY_ONE {
        let name = format!("one-{index}");
        let begun = Instant::now();
        call(&mut client, "POST", PODS, pod(&name)).await?;
        events.until_ready(&name).await?;
        times.push(begun.elapsed());
    }
    let times = Samples::new(times);
    println!("create → Ready of a cached pod, one by one      p50 {}  p99 {}", ms(times.percentile(50)), ms(times.percentile(99)));
    call(&mut client, "DELETE", &format!("{PODS}?gracePeriodSeconds=0"), Vec::new()).await?;
    events.until_gone(ONE_BY_ONE + 1).await?;

    let idle = idle_minute(&cluster, "idle for a minute after these came and went").await?;

    let begun = Instant::now();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": {"replicas": THOUSAND,
        "selector": {"matchLabels": {"app": "many"}}, "template": {"metadata": {"labels": {"app": "many"}},
        "spec": {"containers": [{"name": "hello", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]}}}});
    call(&mut client, "POST", "/apis/apps/v1/namespaces/default/deployments", deployment.to_string().into_bytes()).await?;
    let addresses = events.ready_addresses(THOUSAND).await?;
    println!("{THOUSAND} wasm pods Ready                          {:.1} s", begun.elapsed().as_secs_f64());
    let mut answered = 0;
    for address in &addresses {
        answered += usize::from(answers(address).await);
    }
    let full = memory::pss(&cluster.processes())?;
    println!("answering                                       {answered} of {}", addresses.len());
    println!("memory a pod                                    {} KB", full.saturating_sub(idle) as usize * 1024 / 1000 / THOUSAND);
    Ok(())
}

/// Waits a minute, then prints and returns what all processes of the cluster hold, in KiB.
async fn idle_minute(cluster: &Cluster, name: &str) -> Result<u64> {
    tokio::time::sleep(Duration::from_secs(60)).await;
    let each = cluster.processes().iter().map(|pid| memory::pss(&[*pid])).collect::<Result<Vec<u64>>>()?;
    let all = each.iter().sum();
    println!("{name:<47} {:.1} MB (PSS of {} processes: {each:?} KiB)", all as f64 / 1e3 * 1.024, each.len());
    Ok(all)
}

fn pod(name: &str) -> Vec<u8> {
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "hello", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]}});
    body.to_string().into_bytes()
}

/// The first pod compiles the component.
async fn warm(client: &mut Client, cluster: &Cluster) -> Result<()> {
    let mut events = Events::open(cluster).await?;
    call(client, "POST", PODS, pod("first")).await?;
    events.until_ready("first").await
}

async fn answers(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((address, 8080)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        Ok::<bool, std::io::Error>(text.starts_with(b"HTTP/1.1 200"))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}
