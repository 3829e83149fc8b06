//! The API beside etcd: what a create costs durable, a list of 5,000, and how late a watcher hears.

use super::{
    cluster::{Client, Cluster, call, send},
    crowd,
    etcd::{self, Etcd},
    load::{Samples, ms, row, versus},
    memory,
};
use crate::packages;
use anyhow::{Context, Result};
use futures::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use std::time::{Duration, Instant};

const ONE: usize = 200;
const MANY: usize = 1_600;
/// Ours and theirs take turns so often; the medians count.
const ROUNDS: usize = 5;
/// Clients at once.
pub const CLIENTS: usize = 32;
const LIST: usize = 5_000;
/// Where the config maps of these parts are.
pub const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Where they are made for the sake of making them.
const ASIDE: &str = "/api/v1/namespaces/kube-node-lease/configmaps";

/// Runs all parts; every pair ours and theirs a moment apart.
pub async fn run() -> Result<()> {
    packages::ensure(packages::KUBECTL)?;
    packages::ensure(&[packages::Need { program: "etcd", package: "etcd-server" }])?;
    let cluster = Cluster::start()?;
    let (etcd, plain) = (Etcd::start(true).await?, Etcd::start(false).await?);
    println!("\n{:<44} {:>12} {:<8} {:>12} {:<8} ours is", "", "coracle", "", "etcd 3.4", "");

    for (clients, count, name, upstream) in [(1, ONE, "create, 1 client", 454.0), (CLIENTS, MANY, "create, 32 clients", 1_545.0)] {
        let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let tag = format!("{name} {round}");
            ours.push(creates(&cluster, ASIDE, clients, count, &tag).await?);
            theirs.push(puts(&etcd, clients, count, &tag).await?);
            bare.push(puts(&plain, clients, count, &tag).await?);
        }
        let (ours, theirs, bare) = (median(ours), median(theirs), median(bare));
        row(name, (ours, "/s"), (theirs, "/s"), ours / theirs);
        row("  beside etcd without TLS", (ours, "/s"), (bare, "/s"), ours / bare);
        versus("", (ours, "/s"), (upstream, "/s"), ours / upstream, 3);
    }

    drop(plain);
    let mut client = cluster.connect().await?;
    fill(&cluster, &etcd).await?;
    let mut store = etcd.connect().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let begun = Instant::now();
        call(&mut client, "GET", PATH, Vec::new()).await?;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        etcd::range(&mut store, b"/list/").await?;
        theirs.push(begun.elapsed());
    }
    let (ours, theirs) = (Samples::new(ours).percentile(50), Samples::new(theirs).percentile(50));
    let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
    row(&format!("list of {LIST}"), (ours, "ms"), (theirs, "ms"), theirs / ours);
    versus("", (ours, "ms"), (65.0, "ms"), 65.0 / ours, 6);

    crowd::requests(&cluster).await?;
    let delays = watch_delay(&cluster).await?;
    println!("watch: create sent → event read                p50 {}  p99 {}", ms(delays.percentile(50)), ms(delays.percentile(99)));
    drop(etcd);
    crowd::watchers(&cluster).await?;
    crowd::binding(&cluster).await?;
    let after = memory::pss(&[cluster.main()])? as f64 * 1.024 / 1e3;
    println!(
        "{:<44} {after:>12.1} MB       (kube-apiserver 1.36 after 20,000 requests: 617 MB; shall be at most 120)",
        "the process after all of this"
    );
    drop(cluster);
    crowd::pods().await
}

/// A config map of some 300 bytes.
pub fn object(name: &str) -> Vec<u8> {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"{}"}}}}"#, "v".repeat(200)).into_bytes()
}

/// Requests a second over `clients` connections; `make` gives method, path and body of the `index`-th request of a worker.
pub async fn rate<F>(cluster: &Cluster, clients: usize, count: usize, make: F) -> Result<f64>
where
    F: Fn(usize, usize) -> (&'static str, String, Vec<u8>) + Clone + 'static,
{
    let mut workers = Vec::new();
    for worker in 0..clients {
        workers.push((worker, cluster.connect().await?));
    }
    let begun = Instant::now();
    let mut running = FuturesUnordered::new();
    for (worker, mut client) in workers {
        let make = make.clone();
        running.push(async move {
            for index in 0..count / clients {
                let (method, path, body) = make(worker, index);
                call(&mut client, method, &path, body).await?;
            }
            Ok::<Client, anyhow::Error>(client)
        });
    }
    while let Some(done) = running.next().await {
        done?;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Creates a second over `clients` connections.
async fn creates(cluster: &Cluster, path: &'static str, clients: usize, count: usize, tag: &str) -> Result<f64> {
    let tag: String = tag.chars().filter(char::is_ascii_alphanumeric).collect();
    rate(cluster, clients, count, move |worker, index| ("POST", path.into(), object(&format!("{tag}-{worker}-{index}")))).await
}

async fn puts(etcd: &Etcd, clients: usize, count: usize, tag: &str) -> Result<f64> {
    let mut workers = Vec::new();
    for worker in 0..clients {
        workers.push((worker, etcd.connect().await?));
    }
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (worker, mut client) in workers {
        let tag = tag.to_string();
        running.spawn(async move {
            for index in 0..count / clients {
                let name = format!("{tag}-{worker}-{index}");
                etcd::put(&mut client, format!("/{name}").as_bytes(), &object(&name)).await?;
            }
            Ok::<_, anyhow::Error>(client)
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Brings both to a list of exactly [`LIST`] objects of the same size.
async fn fill(cluster: &Cluster, etcd: &Etcd) -> Result<()> {
    let have = {
        let mut client = cluster.connect().await?;
        let list: serde_json::Value = serde_json::from_slice(&call(&mut client, "GET", PATH, Vec::new()).await?)?;
        list["items"].as_array().context("no items")?.len()
    };
    creates(cluster, PATH, CLIENTS, (LIST - have) / CLIENTS * CLIENTS, "fill").await?;
    let mut client = cluster.connect().await?;
    let list = call(&mut client, "GET", PATH, Vec::new()).await?;
    let size = list.len() / LIST;
    let mut store = etcd.connect().await?;
    for index in 0..LIST {
        etcd::put(&mut store, format!("/list/{index:08}").as_bytes(), "v".repeat(size).as_bytes()).await?;
    }
    Ok(())
}

async fn watch_delay(cluster: &Cluster) -> Result<Samples> {
    let mut watcher = cluster.connect().await?;
    let mut events = send(&mut watcher, "GET", "/api/v1/namespaces/kube-public/configmaps?watch=1", Vec::new()).await?.into_body();
    let mut client = cluster.connect().await?;
    let mut delays = Vec::new();
    for index in 0..200 {
        let name = format!("watched-{index}");
        let begun = Instant::now();
        let create = call(&mut client, "POST", "/api/v1/namespaces/kube-public/configmaps", object(&name));
        let hear = async {
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains(&format!("\"{name}\"")) {
                let frame = events.frame().await.context("the watch ended")??;
                seen.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
            }
            Ok::<Duration, anyhow::Error>(begun.elapsed())
        };
        let (created, heard) = tokio::join!(create, hear);
        created?;
        delays.push(heard?);
    }
    Ok(Samples::new(delays))
}
