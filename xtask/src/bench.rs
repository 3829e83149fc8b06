//! `cargo xtask bench NAME`: figures of the release build, beside a known yardstick in the same run, printed as ratios.
//!
//! Absolute times move with the machine and its load; what can be compared is what ran a moment apart on the same cores.

mod api;
mod cluster;
mod crowd;
mod etcd;
mod events;
mod load;
mod memory;
mod oci;
mod start;
mod wasm;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Creates, lists, gets, updates, patches, applies, watches, 500 replicas bound, 50,000 pods; beside Debian's etcd-server.
    Api,
    /// Requests a second and CPU a request, through a pod's address and through a Service; beside a bare hyper server.
    Wasm,
    /// Time to ready, create → Ready of a cached pod, a thousand pods, idle memory.
    Start,
    /// Containers: a start beside Debian's crun and runc, create → Ready, 20 and 100 at once, memory, exec. As root.
    Oci,
    /// The yardstick of `wasm`: a server of hyper alone.
    #[command(hide = true)]
    BareServer {
        /// Where to listen.
        address: std::net::SocketAddr,
    },
}

/// Runs one benchmark.
pub fn run(bench: &Bench) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match bench {
        Bench::Api => runtime.block_on(api::run()),
        Bench::Wasm => runtime.block_on(wasm::run()),
        Bench::Start => runtime.block_on(start::run()),
        Bench::Oci => runtime.block_on(oci::run()),
        Bench::BareServer { address } => runtime.block_on(wasm::bare_server(*address)),
    }
}
