//! The cluster's certificate authority (ECDSA P-256) and what it signs. One CA signs the API server, the link and clients.
//!
//! Kubernetes keeps several CAs (API, etcd, front proxy); a cluster of one binary gains nothing from that and loses the "one
//! pinned CA" of the join token. (One more signs the one certificate by which aggregated API servers know this one, and nothing else.) Keys are 0600; what is written is fsynced before it is used, since a CA that is lost in a power
//! cut after its certificates were handed out locks everybody out.

mod anyone;
mod authority;
mod files;
mod identity;
mod request;
mod subject;

pub use anyone::Anyone;
pub use authority::Authority;
pub use files::{load_or_issue, write_private};
pub use identity::Identity;
pub use request::{CertificateRequest, usages};
pub use subject::{Subject, subject};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A certificate (or chain, leaf first) and its private key.
#[derive(Clone)]
pub struct KeyPair {
    /// PEM, one or more `CERTIFICATE` sections.
    pub cert_pem: String,
    /// PEM, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// What failed, on which file or certificate, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl KeyPair {
    /// In rustls' terms.
    ///
    /// # Errors
    /// No certificate or key in the PEM.
    pub fn to_der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| Error(format!("no private key in the PEM text: {e}")))?;
        Ok((certificates(&self.cert_pem)?, key))
    }
}

/// One section of PEM text.
fn to_pem(label: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(label, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// None there, or text that is no PEM.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error("no certificate in the PEM text".into())),
        Err(e) => Err(Error(format!("not a PEM certificate: {e}"))),
    }
}
