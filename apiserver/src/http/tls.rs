//! TLS of the API server: client certificates are asked for, and who shows a stranger's is told so in HTTP.
//!
//! A stranger's certificate does not end the handshake: the client would see a bare TLS alert. The handshake proves that the peer
//! holds the key; the chain is judged afterwards, and requests of a stranger get the 401 that Kubernetes gives.

use crate::auth::User;
use coracle_link::pki::{self, Identity};
use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a certificate's user is believed before the certificate is looked at again: it may have ended.
const BELIEVED: Duration = Duration::from_secs(30);

/// A verified certificate of a connection, and whose it is once that was asked.
#[derive(Debug)]
pub struct Certificate {
    der: Vec<u8>,
    user: Mutex<Option<(Instant, Arc<User>)>>,
}

impl Certificate {
    /// The certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is, if that was asked a moment ago: parsing X.509 for each request of a connection would be most of a small request's cost.
    pub fn user(&self) -> Option<Arc<User>> {
        self.user.lock().as_ref().filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, user)| user.clone())
    }

    /// Keeps the answer.
    pub fn remember(&self, user: &Arc<User>) {
        *self.user.lock() = Some((Instant::now(), user.clone()));
    }
}

/// Who is at the other end of a connection, as far as certificates tell.
#[derive(Debug)]
pub enum Peer {
    /// No certificate.
    Nobody,
    /// A certificate that is not of this cluster, or not valid now.
    Stranger,
    /// A certificate signed by this cluster's authority.
    Known(Certificate),
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct Tls {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// With this identity; clients' certificates are judged by the authority in `ca_pem`.
    pub fn new(identity: Arc<Identity>, ca_pem: &str) -> Result<Self, pki::Error> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| pki::Error(format!("{what}: {error}; delete it to have it made anew"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in pki::certificates(ca_pem)? {
            roots.add(certificate).map_err(|error| wrong("the cluster's CA certificate", &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| wrong("the cluster's CA certificate", &error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS", &error))?
            .with_client_cert_verifier(Arc::new(Lenient { inner: verifier.clone() }))
            .with_cert_resolver(identity);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// Judges the chain that a finished handshake showed.
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((first, rest)) = chain.and_then(<[_]>::split_first) else { return Peer::Nobody };
        match self.verifier.verify_client_cert(first, rest, UnixTime::now()) {
            Ok(_) => Peer::Known(Certificate { der: first.to_vec(), user: Mutex::new(None) }),
            Err(error) => {
                tracing::debug!(%error, "client certificate refused");
                Peer::Stranger
            }
        }
    }
}

/// Proves possession of the key and leaves the chain for later.
#[derive(Debug)]
struct Lenient {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _end: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
