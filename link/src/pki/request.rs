//! Certificate signing requests of others (PKCS#10, RFC 2986), and the certificates that answer them.
//!
//! rcgen makes certificates from parameters of its own, whose names keep one value a type of attribute; but two organizations in a request are two groups
//! of the user who signs in. So the certificate is written here, with yasna, with the request's subject and key byte for byte, and only signed by rcgen.

use super::{Authority, Error};
use rcgen::SigningKey;
use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};
use yasna::{
    DERWriter, Tag,
    models::ObjectIdentifier,
    tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME},
};

/// A request whose signature holds: who sent it has the key.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    subject: Vec<u8>,
    key: Vec<u8>,
    /// CN: the user.
    pub common_name: String,
    /// O, in order: the groups.
    pub organizations: Vec<String>,
    /// DNS names of the subject's alternative names.
    pub dns_names: Vec<String>,
    /// Addresses of the subject's alternative names.
    pub addresses: Vec<IpAddr>,
    /// Mail addresses of the subject's alternative names.
    pub emails: Vec<String>,
    /// URIs of the subject's alternative names.
    pub uris: Vec<String>,
}

impl CertificateRequest {
    /// From PEM text, of which the first section counts.
    ///
    /// # Errors
    /// No request, or one that its own key did not sign.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        const KIND: &str = "PEM block type must be CERTIFICATE REQUEST";
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| Error(KIND.into()))?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(Error(KIND.into()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(&pem.contents).map_err(|error| Error(format!("the certificate request cannot be read: {error}")))?;
        if !rest.is_empty() {
            return Err(Error("the certificate request is followed by other data".into()));
        }
        request.verify_signature().map_err(|error| Error(format!("the signature of the certificate request does not hold: {error}")))?;
        let info = &request.certification_request_info;
        let texts = |values: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            values.iter().filter_map(|value| value.as_str().ok()).map(str::to_string).collect::<Vec<_>>()
        };
        let mut found = Self {
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            common_name: texts(info.subject.iter_common_name().collect()).pop().unwrap_or_default(),
            organizations: texts(info.subject.iter_organization().collect()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| found.alternative(name));
            }
        }
        Ok(found)
    }

    fn alternative(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_string()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_string()),
            GeneralName::URI(name) => self.uris.push((*name).to_string()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                self.addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
}

/// Words of `certificates.k8s.io` and their bit in the key usage (RFC 5280, 4.2.1.3).
const KEY_USAGES: &[(&str, u16)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Words of `certificates.k8s.io` and their purpose (RFC 5280, 4.2.1.12).
const PURPOSES: &[(&str, &[u64])] = &[
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// Every usage that a request may name, in `certificates.k8s.io`'s words.
pub fn usages() -> impl Iterator<Item = &'static str> {
    KEY_USAGES.iter().map(|(word, _)| *word).chain(PURPOSES.iter().map(|(word, _)| *word))
}

/// The signature algorithm by the kind of the CA's key.
fn algorithm(key: &rcgen::KeyPair) -> Result<&'static [u64], Error> {
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2][..]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3]),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112]),
    ];
    let found = known.into_iter().find(|(algorithm, _)| key.algorithm() == *algorithm);
    found.map(|(_, oid)| oid).ok_or_else(|| Error("the CA's key is of a kind that requests cannot be signed with".into()))
}

impl Authority {
    /// Signs a certificate for a request as upstream's signers do: subject, key and alternative names are the request's, usages the given ones. It begins
    /// `backdate` ago and ends when it or the CA has lived long enough.
    ///
    /// # Errors
    /// An unknown usage, a CA that has expired, a failed signature.
    pub fn answer(&self, request: &CertificateRequest, usages: &[&str], valid: Duration, backdate: Duration) -> Result<String, Error> {
        let known: Vec<&str> = self::usages().collect();
        if let Some(unknown) = usages.iter().find(|usage| !known.contains(usage)) {
            return Err(Error(format!("unrecognized usage values: [{unknown:?}]")));
        }
        let ders = super::certificates(self.ca_pem())?;
        let der = ders.first().ok_or_else(|| Error("no CA certificate".into()))?;
        let (_, ca) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|e| Error(format!("the CA's certificate: {e}")))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let last = ca.validity().not_after.timestamp();
        if seconds(now) >= last {
            return Err(Error("the signer has expired".into()));
        }
        let life = Life { from: seconds(now.saturating_sub(backdate)), to: seconds(now + valid).min(last) };
        let key = self.key();
        let oid = ObjectIdentifier::from_slice(algorithm(key)?);
        let mut serial: [u8; 16] = rand::random();
        // Positive, and never zero.
        serial[0] = serial[0] & 0x7f | 0x40;
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                identifier(writer.next(), &oid);
                writer.next().write_der(ca.subject().as_raw());
                life.write(writer.next());
                writer.next().write_der(&request.subject);
                writer.next().write_der(&request.key);
                writer.next().write_tagged(Tag::context(3), |writer| extensions(writer, request, usages, key));
            });
        });
        let signature = key.sign(&body).map_err(|e| Error(format!("cannot sign a certificate: {e}")))?;
        let whole = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                identifier(writer.next(), &oid);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(super::to_pem("CERTIFICATE", &whole))
    }
}

fn identifier(writer: DERWriter<'_>, oid: &ObjectIdentifier) {
    writer.write_sequence(|writer| writer.next().write_oid(oid));
}

/// First and last second, since 1970.
struct Life {
    from: i64,
    to: i64,
}

impl Life {
    fn write(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|writer| {
            time(writer.next(), self.from);
            time(writer.next(), self.to);
        });
    }
}

/// UTCTime up to 2049, GeneralizedTime from then on (RFC 5280, 4.1.2.5).
fn time(writer: DERWriter<'_>, seconds: i64) {
    let at = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.unsigned_abs());
    let rest = format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    let (tag, text) = match at.year() {
        year @ ..2050 => (TAG_UTCTIME, format!("{:02}{rest}", year % 100)),
        year => (TAG_GENERALIZEDTIME, format!("{year:04}{rest}")),
    };
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

fn extension(writer: DERWriter<'_>, oid: &[u64], critical: bool, value: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(value);
    });
}

fn extensions(writer: DERWriter<'_>, request: &CertificateRequest, usages: &[&str], ca: &rcgen::KeyPair) {
    let bits = KEY_USAGES.iter().filter(|(word, _)| usages.contains(word)).fold(0u16, |bits, (_, bit)| bits | 0x8000 >> bit);
    let mut purposes: Vec<&[u64]> = PURPOSES.iter().filter(|(word, _)| usages.contains(word)).map(|(_, oid)| *oid).collect();
    purposes.dedup();
    writer.write_sequence(|writer| {
        if bits != 0 {
            let length = 16 - bits.trailing_zeros() as usize;
            let value = yasna::construct_der(|writer| writer.write_bitvec_bytes(&bits.to_be_bytes()[..length.div_ceil(8)], length));
            extension(writer.next(), &[2, 5, 29, 15], true, &value);
        }
        if !purposes.is_empty() {
            let value = yasna::construct_der(|writer| {
                writer.write_sequence(|writer| purposes.iter().for_each(|oid| writer.next().write_oid(&ObjectIdentifier::from_slice(oid))));
            });
            extension(writer.next(), &[2, 5, 29, 37], false, &value);
        }
        // No CA.
        extension(writer.next(), &[2, 5, 29, 19], true, &yasna::construct_der(|writer| writer.write_sequence(|_| {})));
        let identifier = super::authority::key_identifier(ca);
        let value = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(&identifier)));
        });
        extension(writer.next(), &[2, 5, 29, 35], false, &value);
        if let Some(value) = alternatives(request) {
            // An empty subject is an empty sequence: two bytes.
            extension(writer.next(), &[2, 5, 29, 17], request.subject.len() <= 2, &value);
        }
    });
}

fn alternatives(request: &CertificateRequest) -> Option<Vec<u8>> {
    let text = |tag: u64, names: &[String]| names.iter().map(|name| (tag, name.clone().into_bytes())).collect::<Vec<_>>();
    let mut names = text(2, &request.dns_names);
    names.extend(text(1, &request.emails));
    names.extend(request.addresses.iter().map(|ip| match ip {
        IpAddr::V4(v4) => (7, v4.octets().to_vec()),
        IpAddr::V6(v6) => (7, v6.octets().to_vec()),
    }));
    names.extend(text(6, &request.uris));
    (!names.is_empty()).then(|| {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                for (tag, name) in &names {
                    writer.next().write_tagged_implicit(Tag::context(*tag), |writer| writer.write_bytes(name));
                }
            });
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{certificates, subject};
    use rcgen::{CertificateParams, DnType, SanType};
    use x509_parser::certificate::X509Certificate;

    fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
        change(&mut params);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn requests_are_read_whole() {
        let pem = request(|params| {
            params.subject_alt_names = vec![SanType::DnsName("a.example.com".try_into().unwrap()), SanType::IpAddress("192.0.2.1".parse().unwrap())];
        });
        let read = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        assert_eq!((read.common_name.as_str(), read.organizations.join(",")), ("jane", "dev,ops".into()));
        assert_eq!((read.dns_names, read.addresses), (vec!["a.example.com".to_string()], vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(CertificateRequest::from_pem(b"x").unwrap_err().0, "PEM block type must be CERTIFICATE REQUEST");
        let mut broken = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let last = broken.len() - 1;
        broken[last] ^= 1;
        let broken = super::super::to_pem("CERTIFICATE REQUEST", &broken);
        assert!(CertificateRequest::from_pem(broken.as_bytes()).unwrap_err().0.contains("does not hold"));
    }

    #[test]
    fn certificates_answer_their_request() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path()).unwrap();
        let read = CertificateRequest::from_pem(
            request(|params| params.subject_alt_names = vec![SanType::DnsName("a.example.com".try_into().unwrap())]).as_bytes(),
        )
        .unwrap();
        let pem = ca.answer(&read, &["digital signature", "key encipherment", "client auth"], HOUR, Duration::from_secs(300)).unwrap();
        let der = certificates(&pem).unwrap().remove(0);
        let who = subject(&der).unwrap();
        assert_eq!((who.common_name.as_str(), who.organizations.join(",")), ("jane", "dev,ops".into()));
        let ca_der = certificates(ca.ca_pem()).unwrap().remove(0);
        let (_, parent) = X509Certificate::from_der(&ca_der).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        certificate.verify_signature(Some(parent.public_key())).unwrap();
        assert_eq!(certificate.issuer(), parent.subject());
        let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(life, 3900);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth);
        assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names, [GeneralName::DNSName("a.example.com")]);
        assert!(ca.answer(&read, &["x"], HOUR, HOUR).is_err());
        let long = ca.answer(&read, &["server auth"], HOUR * 24 * 365 * 100, HOUR).unwrap();
        let long = certificates(&long).unwrap().remove(0);
        let (_, long) = X509Certificate::from_der(&long).unwrap();
        assert_eq!(long.validity().not_after.timestamp(), parent.validity().not_after.timestamp(), "no longer than the CA");
    }
}
