//! Users out of client certificates (CN is the user, O the groups, the fingerprint names the credential), as in Kubernetes.

use super::{AUTHENTICATED, CREDENTIAL_ID, User};
use coracle_api::status::Status;
use coracle_link::pki;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The user of a certificate whose chain the TLS layer has verified. Its end is looked at again, because a connection may be older
/// than what is left of the certificate. `now` is in Unix seconds.
///
/// # Errors
/// 401 for an expired certificate, one without a common name, and bytes that are none.
pub fn user(der: &[u8], now: i64) -> Result<User, Status> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| Status::unauthorized())?;
    if now > cert.validity().not_after.timestamp() {
        return Err(Status::unauthorized());
    }
    let subject = pki::subject(der).map_err(|_| Status::unauthorized())?;
    if subject.common_name.is_empty() {
        return Err(Status::unauthorized());
    }
    let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(User { extra: vec![(CREDENTIAL_ID.into(), vec![format!("X509SHA256={fingerprint}")])], ..of(subject) })
}

/// The user of a subject that is verified (a link's peer).
pub fn of(subject: pki::Subject) -> User {
    let mut groups = subject.organizations;
    groups.retain(|g| g != super::UNAUTHENTICATED && g != AUTHENTICATED);
    groups.push(AUTHENTICATED.into());
    User { name: subject.common_name, groups, ..User::default() }
}
