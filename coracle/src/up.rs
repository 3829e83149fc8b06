//! `coracle up`: control plane and node in one process, talking over the real link on loopback.

use crate::{
    kubeconfig,
    machine::{self, DataDir, NetworkLock},
    node,
    ready::Stages,
    settings,
};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use coracle_api::names;
use coracle_control::{
    Control, Options as ControlOptions,
    control::{NODE_PREFIX, dns_address, first_address},
    controllers::node_ipam::Range,
};
use coracle_link::{
    pki::{Authority, Identity},
    quic,
};
use coracle_node::{
    Agent, Options as AgentOptions,
    dns::resolv::ResolvConf,
    network::{Network, kernel::Kernel},
};
use coracle_runtime::Runtime;
use coracle_runtime_oci::OciRuntime;
use coracle_runtime_wasm::WasmRuntime;
use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long pods may take to stop before they are killed and named.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// How long the node may take to report Ready at first.
const READY_BOUND: Duration = Duration::from_secs(30);
/// How long the agent may take to end after its pods have.
const LATE: Duration = Duration::from_secs(5);

/// Where machines have it; one without any knows the cluster's names alone.
const RESOLV_CONF: &str = "/etc/resolv.conf";

const EXAMPLES: &str = "\
Examples:
  coracle up                                                                     until Ctrl-C
  coracle up --data-dir /tmp/other --api-addr 127.0.0.1:7443 --node-name other   another cluster, as an ordinary user
  coracle up --eviction-hard 'memory.available<200Mi,nodefs.available<5%'        a node that keeps more for the machine
  coracle up --audit-log-path /var/log/coracle-audit.log                         who asked for what";

/// Flags of `coracle up`.
#[derive(Args)]
#[command(args_override_self = true, after_help = EXAMPLES)]
pub struct Options {
    /// Everything the cluster keeps: state, keys, images, pods' volumes and logs.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value_os_t = machine::default_data_dir())]
    data_dir: PathBuf,
    /// Where the API is served (HTTPS).
    #[arg(long, default_value = "127.0.0.1:6443")]
    api_addr: SocketAddr,
    /// Where the link between control plane and nodes is served (QUIC over UDP); port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    link_addr: SocketAddr,
    /// Name of this machine's node.
    #[arg(long, default_value_t = hostname(), value_parser = node_name)]
    node_name: String,
    /// Where to write the administrator's kubeconfig; by default `kubeconfig` in the data directory.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Range of the pods' addresses; by default 10.244.0.0/16, or 127.244.0.0/16 for an ordinary user.
    #[arg(long)]
    pod_cidr: Option<Range>,
    /// Range of the Services' addresses; by default 10.96.0.0/16, or 127.96.0.0/16 for an ordinary user.
    #[arg(long)]
    service_cidr: Option<Range>,
    /// The machine's name servers, which cluster DNS asks for every name that is none of the cluster's.
    #[arg(long, default_value = RESOLV_CONF)]
    resolv_conf: PathBuf,
    /// The control plane alone, without a node: for measurements.
    #[arg(long, hide = true)]
    disable_agent: bool,
    #[command(flatten)]
    node: node::Flags,
    #[command(flatten)]
    flags: settings::Flags,
}

/// A name that an object may have.
fn node_name(text: &str) -> Result<String, String> {
    let wrong = names::dns_subdomain(text);
    if wrong.is_empty() { Ok(text.into()) } else { Err(wrong.join("; ")) }
}

fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default().to_lowercase();
    if name.is_empty() { "node".into() } else { name }
}

/// Runs the cluster until it is told to stop.
pub fn run(options: Options) -> Result<()> {
    tracing_subscriber::fmt()
        // openraft warns of what every election has.
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,openraft=error".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    machine::raise_file_limit()?;
    let data = DataDir::lock(&options.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the runtime")?;
    let done = runtime.block_on(serve(options, &data));
    runtime.shutdown_timeout(Duration::from_secs(2));
    done
}

/// A line on standard output. A reader that is gone is no reason to leave pods behind.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error, likewise.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The first node's part of the cluster's range, as the control plane hands parts out.
fn node_range(cluster: &str) -> String {
    match cluster.split_once('/') {
        Some((base, bits)) if bits.parse::<u8>().is_ok_and(|bits| bits < NODE_PREFIX) => format!("{base}/{NODE_PREFIX}"),
        _ => cluster.to_string(),
    }
}

/// Refuses a file that cannot be read, and one that has something to say but names no server. An empty one means that there are none.
fn resolv_conf(path: &Path) -> Result<()> {
    let text = std::fs::read(path).with_context(|| format!("cannot read --resolv-conf {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().map(str::trim_start).any(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    ensure!(
        !said || !ResolvConf::parse(&text).servers.is_empty(),
        "--resolv-conf {} names no name server: it has no line such as `nameserver 192.0.2.53`; give another file, or an empty one for no servers",
        path.display()
    );
    Ok(())
}

async fn serve(options: Options, data: &DataDir) -> Result<()> {
    let mut stages = Stages::begin();
    // From the beginning: whoever changes their mind before it is ready finds everything stopped in good order, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let root = machine::is_root();
    if !root {
        say(format_args!(
            "running as an ordinary user: wasm pods only, pods and Services on loopback addresses (127.x); as root, pods get addresses of their own"
        ));
    }
    let pods: Range = options.pod_cidr.map_or_else(|| if root { "10.244.0.0/16" } else { "127.244.0.0/16" }.parse(), Ok)?;
    let services: Range = options.service_cidr.map_or_else(|| if root { "10.96.0.0/16" } else { "127.96.0.0/16" }.parse(), Ok)?;
    ensure!(!pods.overlaps(services), "--pod-cidr {pods} and --service-cidr {services} overlap; give ranges that have no address in common");
    let (pods, services) = (pods.to_string(), services.to_string());
    if options.resolv_conf != Path::new(RESOLV_CONF) {
        resolv_conf(&options.resolv_conf)?;
    }
    let authority = Authority::open(&data.path.join("pki")).context("cannot use the cluster's certificate authority")?;
    let control = Control::start(ControlOptions {
        data_dir: data.path.clone(),
        api_addr: options.api_addr,
        link_addr: options.link_addr,
        pod_cidr: pods.clone(),
        service_cidr: services.clone(),
        authority: authority.clone(),
        settings: options.flags.settings()?,
    })
    .await?;
    let _network = root.then(NetworkLock::take).transpose()?;
    let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| data.path.join("kubeconfig"));
    kubeconfig::write(&kubeconfig, options.kubeconfig.is_none(), &authority, control.api_addr())?;
    stages.done("control plane");
    if options.disable_agent {
        say(format_args!("{stages}"));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        control.stop().await.into_iter().for_each(|late| complain(format_args!("late: {late}")));
        return Ok(());
    }

    let wasm = Arc::new(WasmRuntime::new(coracle_runtime_wasm::Options::new(data.path.clone())).await?);
    let mut runtimes: Vec<Arc<dyn Runtime>> = vec![wasm.clone()];
    if root {
        let containers = coracle_runtime_oci::Options { programs: Some(wasm.clone()), ..coracle_runtime_oci::Options::new(data.path.clone())? };
        match OciRuntime::new(containers).await {
            Ok(oci) => runtimes.push(Arc::new(oci)),
            Err(why) => say(format_args!("wasm pods only: {why}")),
        }
    }
    let (cluster_pods, pods) = (pods.clone(), node_range(&pods));
    let kernel = if root { Some(Arc::new(Kernel::start(&pods, &services, "coracle").await?)) } else { None };
    let network = kernel.clone().map(|kernel| kernel as Arc<dyn Network>);
    // Without the kernel's help nothing listens on the `kubernetes` Service's own port.
    let api_server = (!root).then(|| control.service_addr().unwrap_or(control.api_addr()));
    let agent = AgentOptions {
        cluster_dns: dns_address(&services).map(|ip| SocketAddr::from((ip, 53))),
        cluster_ranges: vec![services.clone(), cluster_pods],
        api_listen: first_address(&services).filter(|_| root).map(|ip| SocketAddr::from((ip, 443))),
        resolv_conf: options.resolv_conf,
        pod_cidr: pods,
        rootless: !root,
        network,
        api_server,
        eviction: options.node.eviction()?,
        system_reserved: options.node.system_reserved.clone(),
        kube_reserved: options.node.kube_reserved.clone(),
        memory_qos: options.node.memory_qos,
        pod_max_pids: options.node.pod_max_pids(),
        image_gc: options.node.image_gc()?,
        manifests: options.node.pod_manifest_path.clone(),
        ..AgentOptions::new(data.path.clone(), options.node_name.clone())
    };
    let (signer, user) = (authority.clone(), format!("system:node:{}", options.node_name));
    let identity = Identity::new(Authority::LEAF_VALID, move || signer.client(&user, &["system:nodes".to_string()], Authority::LEAF_VALID))?;
    let connector = quic::connector(control.link_addr(), authority.ca_pem(), identity.clone())?;
    control.tasks().spawn("node's certificate", async move { identity.keep().await });
    let (service, agent) = Agent::new(agent, connector, runtimes)?;
    let cancel = CancellationToken::new();
    let mut node = tokio::spawn(service.run(cancel.clone()));
    let up = async {
        // What the API has stored of the node may be what it was before a restart.
        let here = async {
            agent.connected().await;
            agent.adopted().await;
        };
        let known = tokio::time::timeout(READY_BOUND, here).await;
        known.map_err(|_| anyhow!("the node {} did not reach its control plane within {} s", options.node_name, READY_BOUND.as_secs()))?;
        control
            .node_ready(&options.node_name, READY_BOUND)
            .await
            .map_err(|why| anyhow!("the node {} did not become ready: {why}", options.node_name))?;
        stages.done("node");
        say(format_args!("{stages}"));
        say(format_args!("  export KUBECONFIG={}", kubeconfig.display()));
        std::future::pending::<Result<()>>().await
    };
    let ended = tokio::select! {
        failed = up => failed,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        ended = &mut node => Err(anyhow!("the node agent ended by itself: {ended:?}")),
    };
    say(format_args!("stopping: pods first, {} s at most; a second Ctrl-C ends it at once", STOP_BOUND.as_secs()));
    let stop = async {
        for late in agent.stop_pods(STOP_BOUND).await {
            complain(format_args!("late: pod {late} did not stop in time and was killed"));
        }
        if tokio::time::timeout(LATE, wasm.shutdown()).await.is_err() {
            complain(format_args!("late: the wasm hosts"));
        }
        cancel.cancel();
        if !node.is_finished() && tokio::time::timeout(LATE, &mut node).await.is_err() {
            complain(format_args!("late: the node agent"));
        }
        // Nothing of the cluster stays in the kernel.
        if let Some(kernel) = &kernel
            && let Err(why) = kernel.end().await
        {
            complain(format_args!("left behind: {why}"));
        }
        for late in control.stop().await {
            complain(format_args!("late: {late}"));
        }
    };
    tokio::select! {
        () = stop => {}
        _ = interrupt.recv() => complain(format_args!("ended at once")),
    }
    ended
}
