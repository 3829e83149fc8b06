//! By what a server's certificate is trusted: a chain to the bundle, or a place of its own in it, as Go's `x509.Certificate.Verify` has it.
//!
//! Plain `openssl req -x509` makes a certificate that is its own authority (`CA:TRUE`), and webpki takes no such certificate from a server; whoever put that very
//! certificate into the bundle trusts it. Its name, dates and use are looked at here, signatures are webpki's in any case.

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use std::sync::{Arc, OnceLock};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The verifier of a bundle (base64 of PEM), or without one of the system's certificates.
///
/// # Errors
/// Why there is nothing to trust.
pub fn verifier(bundle: &str, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let (roots, bundled) = match bundle.trim().is_empty() {
        true => (system_roots().clone(), Vec::new()),
        false => {
            let bundled = super::certificates(bundle)?;
            let mut roots = RootCertStore::empty();
            for certificate in &bundled {
                roots.add(certificate.clone()).map_err(|error| format!("unable to load root certificates: {error}"))?;
            }
            (Arc::new(roots), bundled)
        }
    };
    let chains =
        WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| format!("unable to load root certificates: {error}"))?;
    Ok(Arc::new(Bundle { bundled, chains }))
}

fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    })
}

#[derive(Debug)]
struct Bundle {
    /// Trusted by themselves.
    bundled: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

/// Whether a certificate that is trusted by itself is this server's, is for servers, and is valid now.
fn own(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    // webpki reads it, and refuses critical extensions that it does not know.
    let parsed = ParsedCertificate::try_from(certificate)?;
    let wrong = |error: CertificateError| Err(Error::InvalidCertificate(error));
    let Ok((_, fields)) = X509Certificate::from_der(certificate) else { return wrong(CertificateError::BadEncoding) };
    let (validity, now) = (fields.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    if now < validity.not_before.timestamp() {
        return wrong(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return wrong(CertificateError::Expired);
    }
    let Ok(uses) = fields.extended_key_usage() else { return wrong(CertificateError::BadEncoding) };
    match uses.is_none_or(|uses| uses.value.server_auth || uses.value.any) {
        true => verify_server_name(&parsed, name),
        false => wrong(CertificateError::InvalidPurpose),
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.bundled.contains(certificate) {
            return own(certificate, name, now).map(|()| ServerCertVerified::assertion());
        }
        self.chains.verify_server_cert(certificate, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
    use std::time::Duration;

    /// Within the certificates' year: 2026-07-01.
    const NOW: u64 = 1_782_864_000;
    const YEAR: u64 = 366 * 24 * 60 * 60;

    fn params(authority: bool, uses: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["web.ns.svc".to_owned()]).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.extended_key_usages = uses.to_vec();
        params
    }

    fn authority(uses: &[ExtendedKeyUsagePurpose]) -> Certificate {
        params(true, uses).self_signed(&KeyPair::generate().expect("a key")).expect("signed")
    }

    /// What becomes of a server with this certificate, trusted by that one.
    fn verdict(bundled: &Certificate, shown: &Certificate, name: &str, now: u64) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(&STANDARD.encode(bundled.pem()), provider).expect("a bundle");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        verifier.verify_server_cert(shown.der(), &[], &name, &[], UnixTime::since_unix_epoch(Duration::from_secs(now))).map(drop)
    }

    #[test]
    fn who_is_in_the_bundle_is_trusted_even_as_an_authority() {
        let own = authority(&[]);
        assert_eq!(verdict(&own, &own, "web.ns.svc", NOW), Ok(()));
        let for_servers = authority(&[ExtendedKeyUsagePurpose::ServerAuth]);
        assert_eq!(verdict(&for_servers, &for_servers, "web.ns.svc", NOW), Ok(()));
        // Its issuer is not in the bundle, itself it is.
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params(true, &[]), key).expect("signed");
        let issued = params(false, &[]).signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("signed");
        assert_eq!(verdict(&issued, &issued, "web.ns.svc", NOW), Ok(()));
        assert_eq!(verdict(issuer.as_ref(), &issued, "web.ns.svc", NOW), Ok(()), "a chain");
    }

    #[test]
    fn name_dates_and_use_are_looked_at_all_the_same() {
        let own = authority(&[]);
        let refused = |now| match verdict(&own, &own, "web.ns.svc", now) {
            Err(Error::InvalidCertificate(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(NOW - YEAR), CertificateError::NotValidYet);
        assert_eq!(refused(NOW + YEAR), CertificateError::Expired);
        let other_name = verdict(&own, &own, "other.ns.svc", NOW);
        assert!(matches!(other_name, Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))), "{other_name:?}");
        let for_clients = authority(&[ExtendedKeyUsagePurpose::ClientAuth]);
        let refused = verdict(&for_clients, &for_clients, "web.ns.svc", NOW);
        assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::InvalidPurpose)));
        // The same name, another certificate.
        assert!(verdict(&own, &authority(&[]), "web.ns.svc", NOW).is_err());
    }
}
