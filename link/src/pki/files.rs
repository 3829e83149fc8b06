//! Keys and certificates on disk.

use super::{Error, KeyPair, certificates};
use rustls_pki_types::UnixTime;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The file's text; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Writes a file that only its owner may read (0600), whole or not at all: beside it first, fsynced, renamed, directory fsynced.
/// Missing directories are made (0700).
///
/// # Errors
/// What could not be written, and why.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes).map_err(|e| Error(format!("cannot write {}: {e}", path.display())))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("no directory in the path"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let beside = path.with_extension("new");
    // One left by a cut start may have had other permissions.
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(dir)?.sync_all()
}

/// The pair in `dir/STEM.crt` and `dir/STEM.key`, made anew by `issue` when it is not there, not of this CA, or past two thirds of
/// its life. For identities that must survive a restart without the CA at hand (a node's).
///
/// # Errors
/// Those of `issue` and of the disk.
pub fn load_or_issue(dir: &Path, stem: &str, ca_pem: &str, issue: impl FnOnce() -> Result<KeyPair, Error>) -> Result<KeyPair, Error> {
    let (cert_path, key_path) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
    if let (Some(cert_pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?)
        && still_good(&cert_pem, ca_pem)
        && key_belongs(&cert_pem, &key_pem)
    {
        return Ok(KeyPair { cert_pem, key_pem });
    }
    let pair = issue()?;
    write_private(&key_path, pair.key_pem.as_bytes())?;
    write_private(&cert_path, pair.cert_pem.as_bytes())?;
    Ok(pair)
}

fn still_good(cert_pem: &str, ca_pem: &str) -> bool {
    let (Ok(certs), Ok(cas)) = (certificates(cert_pem), certificates(ca_pem)) else { return false };
    let (Some(cert), Some(ca)) = (certs.first(), cas.first()) else { return false };
    let (Ok((_, cert)), Ok((_, ca))) = (X509Certificate::from_der(cert), X509Certificate::from_der(ca)) else { return false };
    let now = UnixTime::now().as_secs() as i64;
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    cert.verify_signature(Some(ca.public_key())).is_ok() && now >= from && now < from + (to - from) / 3 * 2
}

// A crash between the two writes of an earlier renewal leaves a new key beside an old certificate.
fn key_belongs(cert_pem: &str, key_pem: &str) -> bool {
    use rcgen::PublicKeyData;
    let (Ok(certs), Ok(key)) = (certificates(cert_pem), rcgen::KeyPair::from_pem(key_pem)) else { return false };
    certs.first().and_then(|c| X509Certificate::from_der(c).ok()).is_some_and(|(_, c)| c.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;
    use std::time::Duration;

    #[test]
    fn kept_while_good_and_renewed_when_not() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ca, stranger) = (Authority::open(dir.path()).unwrap(), Authority::open(other.path()).unwrap());
        let get = |ca: &Authority, valid| load_or_issue(dir.path(), "node", ca.ca_pem(), || ca.client("n", &[], valid)).unwrap().cert_pem;
        let first = get(&ca, Authority::LEAF_VALID);
        assert_eq!(first, get(&ca, Authority::LEAF_VALID));
        // another CA
        let second = get(&stranger, Authority::LEAF_VALID);
        assert_ne!(first, second);
        // near its end: begins an hour ago, ends in a minute
        let third = get(&ca, Duration::from_secs(60));
        assert_ne!(third, get(&ca, Authority::LEAF_VALID));
        // key and certificate of two renewals
        let key = ca.client("n", &[], Authority::LEAF_VALID).unwrap().key_pem;
        let kept = get(&ca, Authority::LEAF_VALID);
        write_private(&dir.path().join("node.key"), key.as_bytes()).unwrap();
        assert_ne!(kept, get(&ca, Authority::LEAF_VALID));
    }
}
