//! Who a certificate says its holder is.

use super::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Subject of a peer's (already verified) certificate. In Kubernetes the common name is the user and the organizations are groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// CN
    pub common_name: String,
    /// O, in the certificate's order
    pub organizations: Vec<String>,
}

/// Reads the subject of a DER certificate; verifies nothing.
///
/// # Errors
/// Not a certificate.
pub fn subject(der: &[u8]) -> Result<Subject, Error> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| Error(format!("not an X.509 certificate: {e}")))?;
    let name = cert.subject();
    let common_name = name.iter_common_name().next().and_then(|a| a.as_str().ok()).unwrap_or_default().to_string();
    let organizations = name.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_string).collect();
    Ok(Subject { common_name, organizations })
}
