//! Not a test: figures for one node, when asked for (`cargo test … --test hosts -- throughput`).

use crate::world::*;
use coracle_runtime::Runtime;
use http_body_util::{BodyExt, Empty};
use std::{
    net::IpAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 64;
const LENGTH: Duration = Duration::from_secs(4);

/// Requests a second and CPU a request of the hello function, and memory of the processes, idle and with many pods.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
    runtime.block_on(async {
        let world = World::new().await;
        let image = world.built("hello");
        let (sandbox, _) = world.run(&image, |_| {}).await;
        report(&world, "one pod, before any request");
        load(&world, sandbox.ip, Duration::from_secs(1)).await;
        load(&world, sandbox.ip, LENGTH).await;
        report(&world, "one pod, after a burst");
        let began = Instant::now();
        let mut pods = Vec::new();
        for _ in 0..1000 {
            pods.push(world.run(&image, |_| {}).await);
        }
        println!("1000 pods started in {:?}", began.elapsed());
        for (pod, _) in &pods {
            assert_eq!(get(pod.ip, 8080, "/").await.map(|(status, _)| status), Ok(200));
        }
        report(&world, "1001 pods, each asked once");
        let began = Instant::now();
        for (pod, _) in &pods {
            world.runtime.remove_sandbox(&pod.pod.uid).await.expect("removed");
        }
        println!("and removed in {:?}", began.elapsed());
    });
    ExitCode::SUCCESS
}

async fn load(world: &World, ip: IpAddr, length: Duration) {
    let (_, hosts) = world.processes();
    let before: Vec<u64> = hosts.iter().map(|pid| cpu(*pid)).collect();
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(client(ip, done.clone(), count.clone()))).collect();
    tokio::time::sleep(length).await;
    done.store(true, Relaxed);
    for task in tasks {
        task.await.expect("a client");
    }
    let after: Vec<u64> = hosts.iter().map(|pid| cpu(*pid)).collect();
    let spent: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
    let requests = count.load(Relaxed);
    println!(
        "{requests} requests in {length:?}: {} a second, {:.1} µs of CPU a request; by host (ms): {spent:?}",
        requests / length.as_secs().max(1),
        spent.iter().sum::<u64>() as f64 * 1000.0 / requests.max(1) as f64
    );
}

async fn client(ip: IpAddr, done: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let stream = tokio::net::TcpStream::connect((ip, 8080)).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    while !done.load(Relaxed) {
        let request = http::Request::get("/").header("host", "pod").body(Empty::<bytes::Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("a body");
        count.fetch_add(1, Relaxed);
    }
}

/// CPU time of a process so far, in milliseconds.
fn cpu(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
}

fn pss(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn report(world: &World, when: &str) {
    let (supervisor, hosts) = world.processes();
    let of_hosts: Vec<u64> = hosts.iter().map(|pid| pss(*pid)).collect();
    println!("{when}: PSS in KiB: supervisor {}, hosts {of_hosts:?}", pss(supervisor));
}
