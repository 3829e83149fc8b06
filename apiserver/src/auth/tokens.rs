//! Service-account tokens: JWTs signed with ES256 by the key in `<data-dir>/pki/sa.key`, bound to live objects (KEP-1205).
//!
//! Upstream's default is RS256 with a key the operator brings; ours is made at first start, and P-256 signs a hundred times faster.
//! Signatures are verified once a token (a bounded cache by digest); what the token is bound to is looked at every time, so that a
//! deleted service account or pod ends its tokens at once.

mod bound;
mod claims;

pub use claims::{Bound, Claims, LEGACY_ISSUER, Legacy, Private, Reference};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coracle_link::pki;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, path::Path, sync::Arc};

/// Verified tokens that are remembered.
const CACHE: usize = 1024;
/// Longer ones are refused unread.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token, or the key, is not good. Clients are told 401 and no more; TokenReview shows the sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key's file.
    #[error("the key for service-account tokens: {0}")]
    Key(String),
    /// Not one of ours, or changed.
    #[error("the token is not a service-account token of this cluster: {0}")]
    Invalid(String),
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYet,
    /// For somebody else.
    #[error("token audiences {have:?} is invalid for the target audiences {want:?}")]
    Audience {
        /// In the token.
        have: Vec<String>,
        /// Asked for.
        want: Vec<String>,
    },
    /// What it is bound to is gone.
    #[error("{0}")]
    Unbound(String),
}

/// Signs and verifies.
pub struct Tokens {
    issuer: String,
    audiences: Vec<String>,
    signing: EncodingKey,
    verifying: DecodingKey,
    key_id: String,
    /// x and y of the public point, base64url.
    point: (String, String),
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl Tokens {
    /// Opens `pki_dir/sa.key`, making it (0600, fsynced) at first start.
    ///
    /// # Errors
    /// A file that cannot be read or written, or holds no P-256 key.
    pub fn open(pki_dir: &Path, issuer: String, audiences: Vec<String>) -> Result<Self, Error> {
        let path = pki_dir.join("sa.key");
        let broken = |e: &dyn std::fmt::Display| Error::Key(format!("{}: {e}; restore it from a backup of the data directory", path.display()));
        let key = match std::fs::read_to_string(&path) {
            Ok(pem) => rcgen::KeyPair::from_pem(&pem).map_err(|e| broken(&e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| broken(&e))?;
                pki::write_private(&path, key.serialize_pem().as_bytes()).map_err(|e| Error::Key(e.to_string()))?;
                key
            }
            Err(e) => return Err(broken(&e)),
        };
        let signing = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).map_err(|e| broken(&e))?;
        let verifying = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).map_err(|e| broken(&e))?;
        let Some([4, xy @ ..]) = key.public_key_raw().first_chunk::<65>() else { return Err(broken(&"not a P-256 key")) };
        let (x, y) = xy.split_at(32);
        let key_id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)));
        let point = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
        let mut all = vec![issuer.clone()];
        all.extend(audiences.into_iter().filter(|a| *a != issuer));
        Ok(Self { issuer, audiences: all, signing, verifying, key_id, point, verified: Mutex::default() })
    }

    /// What the API server itself answers to; the issuer first.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `iss`
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JWK (RFC 7517).
    pub fn jwk(&self) -> serde_json::Value {
        serde_json::json!({"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": self.point.0, "y": self.point.1})
    }

    /// A signed token: of [`Claims`], or of [`Legacy`] ones.
    ///
    /// # Errors
    /// Signing failed.
    pub fn sign(&self, claims: &impl serde::Serialize) -> Result<String, Error> {
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).map_err(|e| Error::Key(e.to_string()))
    }

    /// The claims of a token that we signed and whose time is now (Unix seconds). Audience and bound objects are the caller's next steps.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Expired`], [`Error::NotYet`].
    pub fn verify(&self, token: &str, now: i64) -> Result<Arc<Claims>, Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::Invalid("too long".into()));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let cached = self.verified.lock().get(&digest).cloned();
        let claims = match cached {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.check_signature(token)?);
                let mut verified = self.verified.lock();
                if verified.len() >= CACHE {
                    verified.retain(|_, c| c.exp > now);
                }
                if verified.len() >= CACHE {
                    verified.clear();
                }
                verified.insert(digest, claims.clone());
                claims
            }
        };
        match () {
            () if now >= claims.exp => Err(Error::Expired),
            () if now < claims.nbf => Err(Error::NotYet),
            () => Ok(claims),
        }
    }

    fn check_signature(&self, token: &str) -> Result<Claims, Error> {
        let mut rules = Validation::new(Algorithm::ES256);
        // times and audiences are checked by us, against a clock that is given
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["iss", "exp", "sub"]);
        let claims = match jsonwebtoken::decode::<Claims>(token, &self.verifying, &rules) {
            Ok(token) => token.claims,
            Err(error) => {
                rules.set_issuer(&[LEGACY_ISSUER]);
                rules.set_required_spec_claims(&["iss", "sub"]);
                let legacy = jsonwebtoken::decode::<Legacy>(token, &self.verifying, &rules);
                legacy.map_err(|_| Error::Invalid(error.to_string()))?.claims.claims(&self.audiences)
            }
        };
        let of = &claims.private;
        if claims.sub != format!("system:serviceaccount:{}:{}", of.namespace, of.serviceaccount.name) {
            return Err(Error::Invalid("the subject is not the service account".into()));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
