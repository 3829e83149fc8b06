//! Pod addresses and the way from Services to pods, behind one seam.
//!
//! [`loopback`] is what an ordinary user gets: addresses out of 127/8, nothing to configure in the kernel, Service addresses listened
//! on by the hosts of the pods themselves. As root, AnyIP routes and nftables maps stand behind the same trait.

pub mod api;
mod bridge;
mod checks;
mod conntrack;
mod flushed;
pub mod kernel;
pub mod loopback;
mod netfilter;
mod nftables;
mod pool;
mod rules;
mod services;
pub mod sync;

pub use services::{Backend, Frontend, HostPort, Protocol};

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Why the network could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The range is no range, or not one of ours.
    #[error("pod range {0:?} cannot be used: {1}")]
    Range(String, String),
    /// Every address is taken.
    #[error("no free address in {0}: {1} pods have one; delete some, or give this node a larger pod range")]
    Exhausted(String, usize),
    /// This network has no namespaces.
    #[error("containers have a network of their own, which only root can make; run the node as root")]
    Rootless,
    /// The kernel refused.
    #[error("{0}")]
    Kernel(String),
}

/// Listeners that a pod's host has to hold: connections to the address are served by what listens on the pod's port.
pub type Listeners = Vec<(SocketAddr, u16)>;

/// What the agent needs of a network. Calls are idempotent.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// An address for the pod, ready to be bound: the one it has, `keep` if that is free (adoption), or a new one.
    async fn assign(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error>;
    /// An address for a pod with a network namespace of its own, likewise.
    async fn assign_sandbox(&self, _uid: &str, _keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        Err(Error::Rootless)
    }
    /// Brings the address that [`assign_sandbox`](Self::assign_sandbox) gave into the pod's namespace.
    async fn attach(&self, _uid: &str, _ip: IpAddr, _namespace: &Path) -> Result<(), Error> {
        Err(Error::Rootless)
    }
    /// An earlier agent may have left something of pods that are not among these.
    async fn sweep(&self, _pods: &HashSet<String>) {}
    /// The pod is gone.
    async fn release(&self, uid: &str);
    /// Ports of the node that lead to the pod from the next [`sync_services`](Self::sync_services) on, until it is released; they replace those it had.
    async fn host_ports(&self, uid: &str, ports: Vec<HostPort>);
    /// The Services and EndpointSlices (canonical JSON) that now hold, as the node of this name sees them. Returns, by pod uid, the Service addresses that pods on this
    /// node have to listen on themselves: all pods that had some and all that get some; empty where the kernel does the work.
    async fn sync_services(&self, services: Vec<Bytes>, slices: Vec<Bytes>, node: &str) -> Result<Vec<(String, Listeners)>, Error>;
    /// Waits until somebody may have taken away what [`sync_services`](Self::sync_services) made; the next call looks, and makes it anew.
    async fn disturbed(&self) {
        std::future::pending().await
    }
}
