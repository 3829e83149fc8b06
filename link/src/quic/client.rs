//! The dialling side.

use super::{ALPN, HANDSHAKE, SERVER_NAME, connection::Quic, roots, tls, transport};
use crate::{Connection, Connector, Error, pki};
use async_trait::async_trait;
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

struct Dialer {
    server: SocketAddr,
    config: ClientConfig,
}

/// Dials `server`, whose certificate must be of this CA and bear the name `coracle`.
///
/// # Errors
/// A CA that cannot be used.
pub fn connector(server: SocketAddr, ca_pem: &str, identity: Arc<pki::Identity>) -> Result<Arc<dyn Connector>, Error> {
    let mut crypto = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_cert_resolver(identity);
    crypto.alpn_protocols = vec![ALPN.to_vec()];
    crypto.resumption = rustls::client::Resumption::disabled();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).map_err(tls)?));
    config.transport_config(transport(true));
    Ok(Arc::new(Dialer { server, config }))
}

#[async_trait]
impl Connector for Dialer {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        // A socket per attempt: after a change of network the old one may be bound to an address that is gone.
        let local: SocketAddr = match self.server.is_ipv4() {
            true => (Ipv4Addr::UNSPECIFIED, 0).into(),
            false => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(local).map_err(|e| Error::Closed(format!("cannot open a UDP socket: {e}")))?;
        let dial = endpoint
            .connect_with(self.config.clone(), self.server, SERVER_NAME)
            .map_err(|e| Error::Closed(format!("cannot dial {}: {e}", self.server)))?;
        let connection = match tokio::time::timeout(HANDSHAKE, dial).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(quinn::ConnectionError::TransportError(e))) => return Err(Error::Tls(format!("handshake with {}: {e}", self.server))),
            Ok(Err(e)) => return Err(Error::Closed(format!("handshake with {}: {e}", self.server))),
            Err(_) => return Err(Error::Closed(format!("{} did not answer within {} s (UDP)", self.server, HANDSHAKE.as_secs()))),
        };
        Ok(Arc::new(Quic::new(connection)?))
    }
}
