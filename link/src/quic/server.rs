//! The listening side.

use super::{ALPN, HANDSHAKE, connection::Quic, roots, tls, transport};
use crate::{Connection, Error, pki};
use quinn::{Endpoint, Incoming, ServerConfig, VarInt, crypto::rustls::QuicServerConfig};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

/// Handshakes under way; more are refused, as a stranger can begin them at will.
const HANDSHAKES: usize = 128;
/// Above this many, a peer must first prove that its address is its own.
const UNPROVEN: usize = 32;
/// Connections made and not yet accepted.
const BACKLOG: usize = 16;

/// Listens on one UDP port. Must be made inside a tokio runtime.
pub struct Server {
    endpoint: Endpoint,
    ready: Mutex<mpsc::Receiver<Arc<dyn Connection>>>,
    acceptor: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Server {
    /// Only peers with a certificate of this CA get past the handshake.
    ///
    /// # Errors
    /// The port is in use, or the CA cannot be used.
    pub fn bind(addr: SocketAddr, ca_pem: &str, identity: Arc<pki::Identity>) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca_pem)?, provider.clone()).build().map_err(tls)?;
        let mut crypto = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identity);
        crypto.alpn_protocols = vec![ALPN.to_vec()];
        // Nodes stay connected for days; a session cache would be memory for nothing.
        crypto.session_storage = Arc::new(NoServerSessionStorage {});
        crypto.send_tls13_tickets = 0;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto).map_err(tls)?));
        config.transport_config(transport(false));
        let endpoint = Endpoint::server(config, addr).map_err(|e| {
            Error::Closed(format!("cannot listen on UDP {addr}: {e}; another cluster may be using the port (choose another with --link-addr)"))
        })?;
        let (to, ready) = mpsc::channel(BACKLOG);
        let acceptor = tokio::spawn(accept_all(endpoint.clone(), to));
        Ok(Self { endpoint, ready: Mutex::new(ready), acceptor: Mutex::new(Some(acceptor)) })
    }

    /// Where it listens (the port that was chosen for port 0).
    ///
    /// # Panics
    /// Never: a bound socket has an address.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Next authenticated connection; bad handshakes are logged and skipped. `None` after `close`. Cancel safe.
    pub async fn accept(&self) -> Option<Arc<dyn Connection>> {
        self.ready.lock().await.recv().await
    }

    /// Ends every connection and waits (a few round trips) until the peers were told.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the server is shutting down");
        self.endpoint.wait_idle().await;
        if let Some(task) = self.acceptor.lock().await.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(0), b"the server is gone");
    }
}

/// Runs until the endpoint is closed. Handshakes run beside each other, so that a slow peer delays nobody.
async fn accept_all(endpoint: Endpoint, to: mpsc::Sender<Arc<dyn Connection>>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                None => break,
                Some(incoming) if handshakes.len() >= HANDSHAKES => incoming.refuse(),
                Some(incoming) if handshakes.len() >= UNPROVEN && incoming.may_retry() => {
                    let _ = incoming.retry();
                }
                Some(incoming) => {
                    let to = to.clone();
                    handshakes.spawn(async move {
                        let from = incoming.remote_address();
                        match handshake(incoming).await {
                            Ok(connection) => {
                                let _ = to.send(Arc::new(connection)).await;
                            }
                            Err(error) => tracing::warn!(%from, %error, "link: handshake failed"),
                        }
                    });
                }
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn handshake(incoming: Incoming) -> Result<Quic, Error> {
    let connecting = incoming.accept().map_err(tls)?;
    match tokio::time::timeout(HANDSHAKE, connecting).await {
        Ok(connection) => Quic::new(connection.map_err(tls)?),
        Err(_) => Err(Error::Closed(format!("no handshake within {} s", HANDSHAKE.as_secs()))),
    }
}
