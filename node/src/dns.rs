//! Cluster DNS, in every node: names of the cluster from the node's own mirror, everything else from the machine's name servers.
//!
//! It listens on the address of the Service `kube-dns`, which on every node is that node's own: a question never leaves the machine, and one that is about the
//! cluster is answered while the link is down. [`zone`] is the pure part; `server` reads and writes messages, `forward` asks others,
//! [`resolv`] says what a pod's resolver is told.

mod forward;
mod gate;
pub mod resolv;
mod server;
pub mod zone;

use crate::mirror::{Change, Objects};
use parking_lot::RwLock;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use zone::Zone;

/// Where an ordinary user's server listens, who may not have port 53.
const PORT: u16 = 1053;

/// The server before it runs.
pub struct Service {
    zone: Names,
    /// Where it listens or will listen.
    address: SocketAddr,
    sockets: Option<server::Sockets>,
    resolv_conf: PathBuf,
}

/// The zone, to be told of changes. Cheap to clone.
#[derive(Clone)]
pub struct Names(Arc<RwLock<Zone>>);

impl Names {
    /// Takes in changes of the mirror.
    pub fn apply(&self, changes: &[Change]) {
        self.0.write().apply(changes);
    }
}

impl Service {
    /// Listens, if that is possible already: an address of root's network appears a moment later. `ranges` are those of Services and pods; `kept` is the file
    /// that says which port it was the last time, where it is not the usual one: pods that run were told.
    ///
    /// # Errors
    /// A domain that is no name.
    pub fn new(
        ip: Ipv4Addr,
        domain: &str,
        ranges: &[String],
        resolv_conf: PathBuf,
        kept: &Path,
        objects: &dyn Objects,
    ) -> Result<(Self, Names), String> {
        let ranges = ranges.iter().filter_map(|range| {
            let (network, bits) = range.split_once('/')?;
            Some((network.parse().ok()?, bits.parse().ok()?))
        });
        let mut zone = Zone::new(domain, ip, ranges.collect())?;
        zone.fill(objects);
        let names = Names(Arc::new(RwLock::new(zone)));
        let (address, sockets) = first(ip, kept);
        Ok((Self { zone: names.clone(), address, sockets, resolv_conf }, names))
    }

    /// Where it listens or will listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let upstreams = forward::Upstreams::new(self.resolv_conf, self.address.ip());
        let server = Arc::new(server::Server { zone: self.zone.0, upstreams });
        tokio::select! {
            () = cancel.cancelled() => {}
            () = server::run(server, self.address, self.sockets) => {}
        }
    }
}

/// Port 53, or one that everybody may have: the one of the last time, if it is free.
fn first(ip: Ipv4Addr, kept: &Path) -> (SocketAddr, Option<server::Sockets>) {
    let usual = SocketAddr::from((ip, 53));
    match server::Sockets::bind(usual) {
        Ok(sockets) => (usual, Some(sockets)),
        Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
            let last = fs::read_to_string(kept).ok().and_then(|text| text.trim().parse().ok());
            let sockets = last.into_iter().chain([PORT, 0]).find_map(|port| server::Sockets::bind((ip, port).into()).ok());
            let port = sockets.as_ref().map(|sockets| sockets.address().port());
            if let Some(port) = port.filter(|port| last != Some(*port))
                && let Err(why) = fs::write(kept, port.to_string())
            {
                tracing::warn!(%why, path = %kept.display(), "cluster DNS may have another port after a restart");
            }
            (sockets.as_ref().map_or(usual, server::Sockets::address), sockets)
        }
        Err(_) => (usual, None),
    }
}
