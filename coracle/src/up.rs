//! `coracle up`: control plane and node in one process, talking over the real link on loopback.

use crate::{
    agent::{self, Node, STOP_BOUND},
    kubeconfig,
    machine::{self, DataDir, NetworkLock},
    node,
    ready::Stages,
    settings,
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use coracle_api::names;
use coracle_control::{Control, Options as ControlOptions, controllers::node_ipam::Range};
use coracle_link::pki::Authority;
use coracle_node::dns::resolv::ResolvConf;
use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// Where machines have it; one without any knows the cluster's names alone.
const RESOLV_CONF: &str = "/etc/resolv.conf";

const EXAMPLES: &str = "\
Examples:
  coracle up                                                                     until Ctrl-C
  coracle up --data-dir /tmp/other --api-addr 127.0.0.1:7443 --node-name other   another cluster, as an ordinary user
  coracle up --eviction-hard 'memory.available<200Mi,nodefs.available<5%'        a node that keeps more for the machine
  coracle up --audit-log-path /var/log/coracle-audit.log                         who asked for what

Environment:
  RUST_LOG   what is told on standard error besides warnings, such as info, or warn,coracle_node=debug for one part";

/// Flags of `coracle up`.
#[derive(Args)]
#[command(args_override_self = true, after_help = EXAMPLES)]
pub struct Options {
    /// Everything the cluster keeps: state, keys, images, pods' volumes and logs.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value_os_t = machine::default_data_dir())]
    data_dir: PathBuf,
    /// Where the API is served (HTTPS); 0.0.0.0:6443 is at all of the machine's addresses, for clients elsewhere.
    #[arg(long, default_value = "127.0.0.1:6443")]
    api_addr: SocketAddr,
    /// Where the link between control plane and nodes is served (QUIC over UDP); port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    link_addr: SocketAddr,
    /// Name of this machine's node.
    #[arg(long, default_value_t = machine::hostname(), value_parser = node_name)]
    pub node_name: String,
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
    pub resolv_conf: PathBuf,
    /// The control plane alone, without a node: for measurements.
    #[arg(long, hide = true)]
    disable_agent: bool,
    #[command(flatten)]
    pub node: node::Flags,
    #[command(flatten)]
    flags: settings::Flags,
}

/// A name that an object may have.
pub fn node_name(text: &str) -> Result<String, String> {
    let wrong = names::dns_subdomain(text);
    if wrong.is_empty() { Ok(text.into()) } else { Err(wrong.join("; ")) }
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
pub fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error, likewise.
pub fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
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

/// The cluster's addresses.
pub struct Ranges {
    /// Of pods.
    pub pods: String,
    /// Of Services.
    pub services: String,
}

impl Ranges {
    fn of(options: &Options) -> Result<Self> {
        let (pods, services) = if machine::is_root() { ("10.244.0.0/16", "10.96.0.0/16") } else { ("127.244.0.0/16", "127.96.0.0/16") };
        let pods: Range = options.pod_cidr.map_or_else(|| pods.parse(), Ok)?;
        let services: Range = options.service_cidr.map_or_else(|| services.parse(), Ok)?;
        ensure!(!pods.overlaps(services), "--pod-cidr {pods} and --service-cidr {services} overlap; give ranges that have no address in common");
        Ok(Self { pods: pods.to_string(), services: services.to_string() })
    }
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
    let ranges = Ranges::of(&options)?;
    if options.resolv_conf != Path::new(RESOLV_CONF) {
        resolv_conf(&options.resolv_conf)?;
    }
    let authority = Authority::open(&data.path.join("pki")).context("cannot use the cluster's certificate authority")?;
    let control = Control::start(ControlOptions {
        data_dir: data.path.clone(),
        api_addr: options.api_addr,
        link_addr: options.link_addr,
        pod_cidr: ranges.pods.clone(),
        service_cidr: ranges.services.clone(),
        authority: authority.clone(),
        settings: options.flags.settings(options.api_addr.ip())?,
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

    let mut node = Node::start(&options, &data.path, &ranges, &control, &authority).await?;
    let ready = agent::ready(node.handle(), &control, &options.node_name);
    let up = async {
        ready.await?;
        stages.done("node");
        say(format_args!("{stages}"));
        say(format_args!("  export KUBECONFIG={}", kubeconfig.display()));
        std::future::pending::<Result<()>>().await
    };
    let ended = tokio::select! {
        failed = up => failed,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        why = node.ended() => Err(why),
    };
    say(format_args!("stopping: pods first, {} s at most; a second Ctrl-C ends it at once", STOP_BOUND.as_secs()));
    let stop = async {
        node.stop().await;
        control.stop().await.into_iter().for_each(|late| complain(format_args!("late: {late}")));
    };
    tokio::select! {
        () = stop => {}
        _ = interrupt.recv() => complain(format_args!("ended at once")),
    }
    ended
}
