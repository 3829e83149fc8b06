//! Requests to the hello function, a fresh instance each: how many a second and what each costs, beside a server of hyper alone
//! and, where `wasmtime` is on PATH, beside `wasmtime serve` with its pooling allocator.

use super::{
    cluster::{Client, Cluster, call},
    memory,
};
use crate::{guests, packages, step};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

const SECONDS: &str = "6s";
const CONNECTIONS: &str = "64";

struct Figures {
    name: String,
    rate: f64,
    cpu: Duration,
}

/// Runs all servers in turn, twice, and prints the second round.
pub async fn run() -> Result<()> {
    packages::ensure(packages::KUBECTL)?;
    packages::ensure(&[packages::Need { program: "wrk", package: "wrk" }])?;
    let cluster = Cluster::start()?;
    let mut client = cluster.connect().await?;
    let (pod, service) = deploy(&mut client).await?;
    let bare = Server::start(Command::new(std::env::current_exe()?).args(["bench", "bare-server", "127.0.0.1:18081"]), "127.0.0.1:18081").await?;
    let wasmtime = match packages::present("wasmtime") {
        false => None,
        true => {
            let component = guests::build(false)?.join("hello.wasm");
            let mut command = Command::new("wasmtime");
            command.args(["serve", "-O", "pooling-allocator=y", "-S", "cli", "--addr", "127.0.0.1:18082"]).arg(component);
            Some(Server::start(&mut command, "127.0.0.1:18082").await?)
        }
    };
    let mut last = Vec::new();
    for _ in 0..2 {
        last.clear();
        last.push(measure("bare hyper", "127.0.0.1:18081", &[bare.0.id()])?);
        if let Some(server) = &wasmtime {
            last.push(measure("wasmtime serve, pooling", "127.0.0.1:18082", &[server.0.id()])?);
        }
        last.push(measure("hello, the pod's address", &format!("{pod}:8080"), &cluster.processes())?);
        last.push(measure("hello, the Service's address", &format!("{service}:80"), &cluster.processes())?);
    }
    let reference = last.first().map_or(1.0, |figures| figures.rate);
    println!("\n{:<32} {:>12} {:>16} {:>16}", "", "requests/s", "CPU a request", "of bare hyper");
    for figures in &last {
        println!("{:<32} {:>12.0} {:>13.1} µs {:>15.2}×", figures.name, figures.rate, figures.cpu.as_secs_f64() * 1e6, figures.rate / reference);
    }
    let rate = |part: &str| last.iter().find(|figures| figures.name.starts_with(part)).map(|figures| figures.rate);
    if let (Some(hello), Some(serve)) = (rate("hello, the pod"), rate("wasmtime")) {
        println!("hello on the pod's address beside wasmtime serve: {:.2}×", hello / serve);
    }
    // The release profile strips it.
    println!("the binary: {:.1} MB", std::fs::metadata(super::cluster::release()?)?.len() as f64 / 1e6);
    if wasmtime.is_none() {
        println!("(wasmtime is not on PATH: its row is left out; `cargo install wasmtime-cli` brings it)");
    }
    Ok(())
}

/// The yardstick.
pub async fn bare_server(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = service_fn(|_request: hyper::Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello from a coracle\n"))))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

struct Server(Child);

impl Server {
    async fn start(command: &mut Command, address: &str) -> Result<Self> {
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let end = Instant::now() + Duration::from_secs(10);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            anyhow::ensure!(Instant::now() < end, "the server on {address} did not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(name: &str, address: &str, pids: &[u32]) -> Result<Figures> {
    let before = memory::cpu(pids)?;
    let output = Command::new("wrk").args(["-t", "1", "-c", CONNECTIONS, "-d", SECONDS, &format!("http://{address}/")]).output()?;
    let used = memory::cpu(pids)?.saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("Non-2xx") {
        bail!("{name}: {text}");
    }
    let number = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word)?.trim().parse::<f64>().ok());
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok()).with_context(|| text.clone())?;
    Ok(Figures { name: name.to_string(), rate: number("Requests/sec:").with_context(|| text.clone())?, cpu: used.div_f64(requests.max(1.0)) })
}

/// One pod behind a Service: the pod's address and the Service's.
async fn deploy(client: &mut Client) -> Result<(String, String)> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello", "labels": {"app": "hello"}},
        "spec": {"containers": [{"name": "hello", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"}, "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    call(client, "POST", "/api/v1/namespaces/default/pods", pod.to_string().into_bytes()).await?;
    let made: Value = serde_json::from_slice(&call(client, "POST", "/api/v1/namespaces/default/services", service.to_string().into_bytes()).await?)?;
    let vip = made["spec"]["clusterIP"].as_str().context("no cluster IP")?.to_string();
    step::eventually(Duration::from_secs(30), || {
        let answer = Command::new("curl").args(["-sf", "-m", "2", &format!("http://{vip}/")]).output()?;
        anyhow::ensure!(answer.status.success(), "the Service does not answer");
        Ok(())
    })?;
    let made: Value = serde_json::from_slice(&call(client, "GET", "/api/v1/namespaces/default/pods/hello", Vec::new()).await?)?;
    Ok((made["status"]["podIP"].as_str().context("no address")?.to_string(), vip))
}
