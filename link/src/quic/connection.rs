//! One QUIC connection as a [`Connection`].

use crate::{Connection, Error, Stream, frame::Framed, pki};
use async_trait::async_trait;
use quinn::VarInt;
use rustls_pki_types::CertificateDer;

pub(super) struct Quic {
    connection: quinn::Connection,
    peer: pki::Subject,
}

impl Quic {
    /// Takes a connection whose handshake is done; the peer's certificate has been verified by rustls.
    pub(super) fn new(connection: quinn::Connection) -> Result<Self, Error> {
        let chain = connection.peer_identity().and_then(|id| id.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or_else(|| Error::Tls("the peer showed no certificate".into()))?;
        let peer = pki::subject(leaf).map_err(super::tls)?;
        Ok(Self { connection, peer })
    }
}

fn closed(error: quinn::ConnectionError) -> Error {
    Error::Closed(reason(error))
}

fn reason(error: quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => String::from_utf8_lossy(&close.reason).into_owned(),
        quinn::ConnectionError::LocallyClosed => "closed by this side".into(),
        other => other.to_string(),
    }
}

#[async_trait]
impl Connection for Quic {
    fn peer(&self) -> &pki::Subject {
        &self.peer
    }
    async fn open(&self) -> Result<Box<dyn Stream>, Error> {
        let (send, recv) = self.connection.open_bi().await.map_err(closed)?;
        Ok(Box::new(Framed::new(recv, send)))
    }
    async fn accept(&self) -> Result<Box<dyn Stream>, Error> {
        let (send, recv) = self.connection.accept_bi().await.map_err(closed)?;
        Ok(Box::new(Framed::new(recv, send)))
    }
    async fn closed(&self) -> String {
        reason(self.connection.closed().await)
    }
    fn close(&self, why: &str) {
        self.connection.close(VarInt::from_u32(0), why.as_bytes());
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        // Streams hold the connection too; without this one forgotten log stream would keep a replaced connection alive.
        self.connection.close(VarInt::from_u32(0), b"the peer let the connection go");
    }
}
