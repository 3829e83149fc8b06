//! The node of `coracle up`: its runtimes, its network and its agent, which begin and end as one.

use crate::{
    machine,
    up::{Options, Ranges, complain, say},
};
use anyhow::{Result, anyhow};
use coracle_control::{
    Control,
    control::{NODE_PREFIX, dns_address, first_address},
};
use coracle_link::{
    pki::{Authority, Identity},
    quic,
};
use coracle_node::{
    Agent, Options as AgentOptions,
    agent::Handle,
    network::{Network, kernel::Kernel},
};
use coracle_runtime::Runtime;
use coracle_runtime_oci::OciRuntime;
use coracle_runtime_wasm::WasmRuntime;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long pods may take to stop before they are killed and named.
pub const STOP_BOUND: Duration = Duration::from_secs(20);
/// How long the node may take to report Ready at first.
const READY_BOUND: Duration = Duration::from_secs(30);
/// How long the agent may take to end after its pods have.
const LATE: Duration = Duration::from_secs(5);

/// A node that runs.
pub struct Node {
    agent: Handle,
    service: JoinHandle<()>,
    cancel: CancellationToken,
    wasm: Arc<WasmRuntime>,
    kernel: Option<Arc<Kernel>>,
}

/// The first node's part of the cluster's range, as the control plane hands parts out.
fn node_range(cluster: &str) -> String {
    match cluster.split_once('/') {
        Some((base, bits)) if bits.parse::<u8>().is_ok_and(|bits| bits < NODE_PREFIX) => format!("{base}/{NODE_PREFIX}"),
        _ => cluster.to_string(),
    }
}

impl Node {
    /// Starts it, joined to this control plane.
    pub async fn start(options: &Options, data_dir: &Path, ranges: &Ranges, control: &Control, authority: &Authority) -> Result<Self> {
        let root = machine::is_root();
        let wasm = Arc::new(WasmRuntime::new(coracle_runtime_wasm::Options::new(data_dir.to_owned())).await?);
        let mut runtimes: Vec<Arc<dyn Runtime>> = vec![wasm.clone()];
        if root {
            let containers = coracle_runtime_oci::Options { programs: Some(wasm.clone()), ..coracle_runtime_oci::Options::new(data_dir.to_owned())? };
            match OciRuntime::new(containers).await {
                Ok(oci) => runtimes.push(Arc::new(oci)),
                Err(why) => say(format_args!("wasm pods only: {why}")),
            }
        }
        let pods = node_range(&ranges.pods);
        let kernel = if root { Some(Arc::new(Kernel::start(&pods, &ranges.services, "coracle").await?)) } else { None };
        let agent = AgentOptions {
            cluster_dns: dns_address(&ranges.services).map(|ip| SocketAddr::from((ip, 53))),
            cluster_ranges: vec![ranges.services.clone(), ranges.pods.clone()],
            api_listen: first_address(&ranges.services).filter(|_| root).map(|ip| SocketAddr::from((ip, 443))),
            resolv_conf: options.resolv_conf.clone(),
            pod_cidr: pods,
            rootless: !root,
            network: kernel.clone().map(|kernel| kernel as Arc<dyn Network>),
            // Without the kernel's help nothing listens on the `kubernetes` Service's own port.
            api_server: (!root).then(|| control.service_addr().unwrap_or(control.api_addr())),
            eviction: options.node.eviction()?,
            system_reserved: options.node.system_reserved.clone(),
            kube_reserved: options.node.kube_reserved.clone(),
            memory_qos: options.node.memory_qos,
            pod_max_pids: options.node.pod_max_pids(),
            image_gc: options.node.image_gc()?,
            manifests: options.node.pod_manifest_path.clone(),
            ..AgentOptions::new(data_dir.to_owned(), options.node_name.clone())
        };
        let (signer, user) = (authority.clone(), format!("system:node:{}", options.node_name));
        let identity = Identity::new(Authority::LEAF_VALID, move || signer.client(&user, &["system:nodes".to_string()], Authority::LEAF_VALID))?;
        let connector = quic::connector(control.link_addr(), authority.ca_pem(), identity.clone())?;
        control.tasks().spawn("node's certificate", async move { identity.keep().await });
        let (service, agent) = Agent::new(agent, connector, runtimes)?;
        let cancel = CancellationToken::new();
        Ok(Self { agent, service: tokio::spawn(service.run(cancel.clone())), cancel, wasm, kernel })
    }

    /// Speaks to its agent.
    pub fn handle(&self) -> Handle {
        self.agent.clone()
    }

    /// Ends only if the agent ends by itself, which it never should.
    pub async fn ended(&mut self) -> anyhow::Error {
        anyhow!("the node agent ended by itself: {:?}", (&mut self.service).await)
    }

    /// Stops its pods, and then all that ran them. What is late is named.
    pub async fn stop(mut self) {
        for late in self.agent.stop_pods(STOP_BOUND).await {
            complain(format_args!("late: pod {late} did not stop in time and was killed"));
        }
        if tokio::time::timeout(LATE, self.wasm.shutdown()).await.is_err() {
            complain(format_args!("late: the wasm hosts"));
        }
        self.cancel.cancel();
        if !self.service.is_finished() && tokio::time::timeout(LATE, &mut self.service).await.is_err() {
            complain(format_args!("late: the node agent"));
        }
        // Nothing of the cluster stays in the kernel.
        if let Some(kernel) = &self.kernel
            && let Err(why) = kernel.end().await
        {
            complain(format_args!("left behind: {why}"));
        }
    }
}

/// Waits until the control plane has heard that the node is ready.
pub async fn ready(agent: Handle, control: &Control, name: &str) -> Result<()> {
    // What the API has stored of the node may be what it was before a restart.
    let here = async {
        agent.connected().await;
        agent.adopted().await;
    };
    let known = tokio::time::timeout(READY_BOUND, here).await;
    known.map_err(|_| anyhow!("the node {name} did not reach its control plane within {} s", READY_BOUND.as_secs()))?;
    control.node_ready(name, READY_BOUND).await.map_err(|why| anyhow!("the node {name} did not become ready: {why}"))
}
