//! The link over QUIC: quinn, rustls with ring, TLS 1.3 with certificates on both sides, ALPN `coracle/1`.
//!
//! One UDP port, dialled by the node: survives NAT and a changed address, and a stalled log does not hold up the feed as it would
//! on one TCP connection (HTTP/2 was the alternative). Windows are small, since memory per node is what limits a control plane;
//! only the dialling side sends keep-alives, as it is the one behind NAT and one is enough for both time-outs.

mod client;
mod connection;
mod server;

pub use client::connector;
pub use server::Server;

use crate::{Error, pki};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use std::{sync::Arc, time::Duration};

const ALPN: &[u8] = b"coracle/1";
/// The DNS name in a link server's certificate.
pub const SERVER_NAME: &str = "coracle";
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const IDLE_MS: u32 = 20_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams that either side may have open.
const STREAMS: u32 = 512;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

fn transport(keep_alive: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(keep_alive.then_some(KEEP_ALIVE));
    Arc::new(config)
}

fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for cert in pki::certificates(ca_pem).map_err(tls)? {
        roots.add(cert).map_err(tls)?;
    }
    Ok(Arc::new(roots))
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

#[cfg(test)]
mod tests;
