//! The certificate authority.

use super::{Error, KeyPair, files};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as Key, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The CA's life. Leaves live a year and are renewed at every start.
const CA_VALID: Duration = Duration::from_secs(3650 * 86_400);
/// Certificates begin this long ago, for peers whose clock is behind.
const SKEW: Duration = Duration::from_secs(3600);

/// The cluster's certificate authority. Cheap clone.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    ca_pem: String,
    issuer: Issuer<'static, Key>,
}

impl Authority {
    /// Life of a leaf certificate when there is no reason for another.
    pub const LEAF_VALID: Duration = YEAR;

    /// Opens `dir/ca.crt` and `dir/ca.key`, making them (0600, fsynced) at first start. The key is written first: a start that
    /// was cut between the two finds a key without a certificate and makes the certificate for it.
    ///
    /// # Errors
    /// Unreadable files, a certificate without its key, a key that is not the certificate's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let key = match files::read(&key_path)? {
            Some(pem) => Key::from_pem(&pem)
                .map_err(|e| Error(format!("{} is no private key ({e}); restore it from a backup of the data directory", key_path.display())))?,
            None if cert_path.exists() => {
                return Err(Error(format!(
                    "{} is there but {} is missing; restore the key from a backup, or remove the certificate to make a new CA (every client then needs a new kubeconfig)",
                    cert_path.display(),
                    key_path.display()
                )));
            }
            None => {
                let key = generate()?;
                files::write_private(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let ca_pem = match files::read(&cert_path)? {
            Some(pem) => {
                check_pair(&pem, &key).map_err(|e| Error(format!("{} and {}: {e}", cert_path.display(), key_path.display())))?;
                pem
            }
            None => {
                let pem = ca_params(&key)?.self_signed(&key).map_err(|e| Error(format!("cannot sign the CA certificate: {e}")))?.pem();
                files::write_private(&cert_path, pem.as_bytes())?;
                pem
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|e| Error(format!("{}: {e}", cert_path.display())))?;
        Ok(Self { inner: Arc::new(Inner { ca_pem, issuer }) })
    }

    /// The CA's certificate, for kubeconfigs, `kube-root-ca.crt` and join tokens.
    pub fn ca_pem(&self) -> &str {
        &self.inner.ca_pem
    }

    /// Server certificate for these DNS names and IP addresses; `coracle`, the name that the link dials, is always among them.
    ///
    /// # Errors
    /// A name that is neither a DNS name nor an address.
    pub fn server(&self, names: &[String], valid: Duration) -> Result<KeyPair, Error> {
        let mut params = leaf("coracle", &[], ExtendedKeyUsagePurpose::ServerAuth, valid);
        let extra = (!names.iter().any(|n| n == "coracle")).then_some("coracle");
        for name in names.iter().map(String::as_str).chain(extra) {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.try_into().map_err(|e| Error(format!("{name:?} cannot stand in a certificate as a DNS name: {e}")))?),
            });
        }
        self.sign(params)
    }

    /// Client certificate: CN = user, O = groups.
    ///
    /// # Errors
    /// More than two groups (rcgen keeps one value per attribute type; we know two types that read as O). Signing failed.
    pub fn client(&self, user: &str, groups: &[String], valid: Duration) -> Result<KeyPair, Error> {
        if groups.len() > 2 {
            return Err(Error(format!("a client certificate can carry two groups, not {}; bind roles to the user {user:?} instead", groups.len())));
        }
        self.sign(leaf(user, groups, ExtendedKeyUsagePurpose::ClientAuth, valid))
    }

    /// The CA's private key.
    pub(super) fn key(&self) -> &Key {
        self.inner.issuer.key()
    }

    fn sign(&self, params: CertificateParams) -> Result<KeyPair, Error> {
        let key = generate()?;
        let cert = params.signed_by(&key, &self.inner.issuer).map_err(|e| Error(format!("cannot sign a certificate: {e}")))?;
        Ok(KeyPair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn generate() -> Result<Key, Error> {
    Key::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error(format!("cannot make a key: {e}")))
}

/// The subject key identifier of the CA's certificate.
pub(super) fn key_identifier(key: &Key) -> Vec<u8> {
    CertificateParams::default().key_identifier(key)
}

fn ca_params(key: &Key) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    // The key's fingerprint in the name keeps two clusters' CAs apart in a client's trust store.
    let print: String = key_identifier(key).iter().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("coracle-ca-{print}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, CA_VALID);
    Ok(params)
}

fn leaf(common_name: &str, organizations: &[String], usage: ExtendedKeyUsagePurpose, valid: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let by_number = DnType::CustomDnType(vec![2, 5, 4, 10]);
    for (organization, kind) in organizations.iter().zip([DnType::OrganizationName, by_number]) {
        params.distinguished_name.push(kind, organization.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, valid);
    params
}

fn validity(params: &mut CertificateParams, valid: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now + valid;
}

fn check_pair(cert_pem: &str, key: &Key) -> Result<(), Error> {
    use rcgen::PublicKeyData;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let ders = super::certificates(cert_pem)?;
    let der = ders.first().ok_or_else(|| Error("no certificate".into()))?;
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| Error(format!("not an X.509 certificate: {e}")))?;
    match cert.public_key().raw == key.subject_public_key_info() {
        true => Ok(()),
        false => Err(Error("the key is not the certificate's; restore the pair from a backup of the data directory".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Subject, certificates, subject};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_and_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_start_cut_after_the_key_keeps_the_key() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        let key = std::fs::read(dir.path().join("ca.key")).unwrap();
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        Authority::open(dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), key);
    }

    #[test]
    fn a_lost_or_foreign_key_is_named() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::open(a.path()).unwrap();
        Authority::open(b.path()).unwrap();
        std::fs::copy(b.path().join("ca.key"), a.path().join("ca.key")).unwrap();
        assert!(Authority::open(a.path()).err().unwrap().0.contains("not the certificate's"));
        std::fs::remove_file(a.path().join("ca.key")).unwrap();
        assert!(Authority::open(a.path()).err().unwrap().0.contains("is missing"));
    }

    #[test]
    fn subjects_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path()).unwrap();
        let pair = ca.client("system:node:n1", &["system:nodes".into(), "b".into()], YEAR).unwrap();
        let der = certificates(&pair.cert_pem).unwrap();
        let want = Subject { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into(), "b".into()] };
        assert_eq!(subject(&der[0]).unwrap(), want);
        assert!(subject(b"junk").is_err());
        assert!(ca.client("u", &["a".into(), "b".into(), "c".into()], YEAR).is_err());
    }

    #[test]
    fn server_names_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path()).unwrap();
        assert!(ca.server(&["kubernetes.default".into(), "127.0.0.1".into(), "::1".into()], YEAR).is_ok());
        assert!(ca.server(&["b\u{e4}d".into()], YEAR).is_err());
    }
}
