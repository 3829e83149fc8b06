//! Containers: one start beside Debian's crun and runc, pods from create to Ready, what an idle pod weighs, and a program in one, all the way round.
//!
//! Kubernetes 1.36 with containerd 2, measured in the same terms on a 2-core machine, stands beside each figure: create → Ready 487 ms (p99 525 ms), 20 at once 3.3 s;
//! kubelet 112 MB, containerd 84 MB, kube-proxy 60 MB, CoreDNS 62 MB, and 19 MB of a shim for each pod.

use super::{
    cluster::{Client, Cluster, call},
    events::{Events, PODS},
    load::{Samples, ms},
    memory,
};
use crate::{guests, packages, step};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, future::try_join_all};
use serde_json::{Value, json};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

const ONE_BY_ONE: usize = 100;
/// (pods, times, what upstream takes or what it shall take)
const CROWDS: [(usize, usize, &str); 2] = [(20, 5, "shall be at most 600 ms; Kubernetes: 3.3 s"), (100, 2, "shall be at most 4 s")];
const IDLE_PODS: usize = 20;
const EXECS: usize = 100;
/// Until memory is looked at, so that what the start needed is given back.
const SETTLED: Duration = Duration::from_secs(20);

/// Runs all parts.
pub async fn run() -> Result<()> {
    ensure!(packages::is_root(), "containers need root");
    for needs in [packages::KUBECTL, packages::SYSTEM] {
        packages::ensure(needs)?;
    }
    packages::ensure(&[
        packages::Need { program: "crun", package: "crun" },
        packages::Need { program: "runc", package: "runc" },
        packages::Need { program: "busybox", package: "busybox-static" },
    ])?;
    beside_others()?;
    let cluster = Cluster::start()?;
    let archive = coracle_tests::busybox::archive(cluster.dir(), "busybox:v1", &json!({ "Cmd": ["sleep", "86400"] }))?;
    cluster.import(&archive, None)?;
    let mut client = cluster.connect().await?;
    let mut events = Events::open(&cluster).await?;
    // The first makes the bridge and the shims' parent.
    create(&mut client, "first").await?;
    events.until_ready("first").await?;
    let mut gone = remove(&mut client, &mut events, 0, 1).await?;

    // Before the crowds: their events, an hour's worth, would be weighed with the pods.
    tokio::time::sleep(SETTLED).await;
    let (without, kernel_without) = (memory::pss(&cluster.processes())?, memory::kernel()?);
    crowd(&client, &mut events, IDLE_PODS).await?;
    tokio::time::sleep(SETTLED).await;
    let processes = cluster.processes();
    ensure!(processes.len() > IDLE_PODS, "there are fewer shims than pods: {processes:?}");
    let (with, kernel) = (memory::pss(&processes)?, memory::kernel()?.saturating_sub(kernel_without));
    let mb = |kib: u64| kib as f64 * 1.024 / 1e3;
    println!("everything, control plane and all, {IDLE_PODS} pods       {:.1} MB ({:.1} MB without pods)", mb(with), mb(without));
    let each = with.saturating_sub(without) as f64 / IDLE_PODS as f64;
    println!(
        "an idle pod, outside its own processes          {:.2} MB, and {:.2} MB of the kernel's   (shall be at most 2 MB)",
        each * 1.024 / 1e3,
        mb(kernel) / IDLE_PODS as f64
    );
    println!("  of which the shim                             {:.2} MB of its own", mb(memory::private(&shims(&processes))?) / IDLE_PODS as f64);

    let mut times = Vec::new();
    for _ in 0..EXECS {
        let begun = Instant::now();
        exec(&cluster, "crowd-0").await?;
        times.push(begun.elapsed());
    }
    let times = Samples::new(times);
    println!(
        "exec of /bin/true, connection and all           p50 {}  p99 {}   (shall be at most 30 ms)",
        ms(times.percentile(50)),
        ms(times.percentile(99))
    );
    gone = remove(&mut client, &mut events, gone, IDLE_PODS).await?;

    let mut times = Vec::new();
    for index in 0..ONE_BY_ONE {
        let (name, begun) = (format!("one-{index}"), Instant::now());
        create(&mut client, &name).await?;
        events.until_ready(&name).await?;
        times.push(begun.elapsed());
        gone = remove(&mut client, &mut events, gone, 1).await?;
    }
    let times = Samples::new(times);
    let (p50, p99) = (ms(times.percentile(50)), ms(times.percentile(99)));
    println!("create → Ready, cached image, one by one        p50 {p50}  p99 {p99}   (shall be at most 60 and 200 ms; Kubernetes: 487 and 525)");

    for (count, rounds, aim) in CROWDS {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            crowd(&client, &mut events, count).await?;
            times.push(begun.elapsed());
            gone = remove(&mut client, &mut events, gone, count).await?;
        }
        println!("{:<47} {}   ({aim})", format!("{count} at once, all Ready"), ms(Samples::new(times).percentile(50)));
    }
    drop((client, events, cluster));

    // What a control plane with as many pods has, which nobody runs.
    let alone = Cluster::control_plane()?;
    let mut client = alone.connect().await?;
    let begun = Instant::now();
    for index in 0..IDLE_PODS {
        // The namespace's service account comes a moment after the API.
        while let Err(why) = create(&mut client, &format!("crowd-{index}")).await {
            ensure!(begun.elapsed() < SETTLED, why);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(SETTLED).await;
    let control = memory::pss(&alone.processes())?;
    println!(
        "agent, shims and all beyond the control plane   {:.1} MB ({:.1} MB is the control plane)   (shall be at most 60 MB; Kubernetes: 318 MB, and 380 MB of shims)",
        mb(with.saturating_sub(control)),
        mb(control)
    );
    Ok(())
}

/// Create, start and exit in a sandbox that is there: the runtime's own test program does it without a cluster, in turn with the others.
fn beside_others() -> Result<()> {
    const TEST: [&str; 6] = ["test", "--release", "-p", "coracle-runtime-oci", "--test", "containers"];
    // Debian 12's crun gives up where control groups of version 1 have a tree of version 2 beside them, so nobody has that one.
    let mut bench = Command::new("unshare");
    bench.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"", "sh"]).current_dir(guests::root());
    match std::env::var_os("CORACLE_CONTAINERS_BENCH") {
        Some(program) => _ = bench.arg(program),
        None => {
            packages::ensure(packages::BUILD)?;
            step::run("build the container runtime's bench", Command::new("cargo").current_dir(guests::root()).args(TEST).arg("--no-run"))?;
            bench.arg("cargo").args(TEST).args(["-q", "--"]);
        }
    }
    ensure!(bench.arg("bench").status()?.success(), "the container runtime's bench failed");
    Ok(())
}

async fn create(client: &mut Client, name: &str) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "busybox:v1", "imagePullPolicy": "Never"}]}});
    call(client, "POST", PODS, pod.to_string().into_bytes()).await.map(drop)
}

/// Creates so many at once and waits until all are Ready.
async fn crowd(client: &Client, events: &mut Events, count: usize) -> Result<()> {
    try_join_all((0..count).map(|index| {
        let mut client = client.clone();
        async move { create(&mut client, &format!("crowd-{index}")).await }
    }))
    .await?;
    events.ready_addresses(count).await.map(drop)
}

/// Removes all pods; how many are gone then since the beginning.
async fn remove(client: &mut Client, events: &mut Events, gone: usize, count: usize) -> Result<usize> {
    call(client, "DELETE", &format!("{PODS}?gracePeriodSeconds=0"), Vec::new()).await?;
    events.until_gone(gone + count).await?;
    Ok(gone + count)
}

fn shims(processes: &[u32]) -> Vec<u32> {
    let is = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "coracle-shim");
    processes.iter().copied().filter(is).collect()
}

/// What `kubectl exec POD -- /bin/true` does, without kubectl's own start: a new connection, its upgrade, and the program's end heard.
async fn exec(cluster: &Cluster, pod: &str) -> Result<()> {
    let stream = cluster.connect_tls(b"http/1.1").await?;
    let path = format!("wss://{}{PODS}/{pod}/exec?command=/bin/true&stdout=true&stderr=true", cluster.api);
    let mut request = path.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("v5.channel.k8s.io"));
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let mut status = None;
    while let Some(message) = socket.next().await {
        match message? {
            // Channel 3 says how it ended.
            Message::Binary(data) if data.first() == Some(&3) => status = Some(serde_json::from_slice::<Value>(data.get(1..).unwrap_or_default())?),
            Message::Close(_) => break,
            _ => {}
        }
    }
    let status = status.context("the session ended without saying how")?;
    ensure!(status["status"] == "Success", "{status}");
    // The server may be gone by now.
    let _ = socket.close(None).await;
    Ok(())
}
