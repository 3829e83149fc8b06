//! Who somebody claims to be: certificates and tokens.

use crate::text;
use coracle_apiserver::auth::{
    AUTHENTICATED, certificate,
    tokens::{Claims, Tokens},
};
use coracle_link::pki;
use coracle_node::{pods::time::Time, volumes::tokens::renewal};
use std::sync::LazyLock;

/// DER, or PEM with any number of certificates.
pub fn certificates(data: &[u8]) {
    holder(data);
    if let Some(Ok(all)) = text(data).map(pki::certificates) {
        assert!(!all.is_empty());
        all.iter().for_each(|der| holder(der));
    }
}

fn holder(der: &[u8]) {
    let Ok(user) = certificate::user(der, 0) else { return };
    let subject = pki::subject(der).expect("it has a subject");
    assert!(!user.name.is_empty() && user.name == subject.common_name);
    assert_eq!(user.groups.iter().filter(|group| *group == AUTHENTICATED).count(), 1);
    assert!(!user.groups.iter().any(|group| group == "system:unauthenticated"));
    assert!(certificate::user(der, i64::MAX).is_err(), "every certificate ends");
}

const ISSUER: &str = "https://issuer";

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    Tokens::open(dir.path(), ISSUER.into(), Vec::new()).expect("a key")
});

/// A token nobody signed, or the claims of one.
pub fn tokens(data: &[u8]) {
    let Some(text) = text(data) else { return };
    assert!(TOKENS.verify(text, 1).is_err(), "nobody signed it");
    if let Some(due) = renewal(text, Time(0)) {
        assert!((0..=24 * 3600 * 1000).contains(&due.delay), "{}", due.delay);
    }
    let Ok(claims) = serde_json::from_slice::<Claims>(data) else { return };
    let Ok(token) = TOKENS.sign(&claims) else { return };
    let ours =
        claims.iss == ISSUER && claims.sub == format!("system:serviceaccount:{}:{}", claims.private.namespace, claims.private.serviceaccount.name);
    match TOKENS.verify(&token, claims.nbf) {
        Ok(verified) => assert!(ours && *verified == claims && claims.nbf < claims.exp),
        Err(_) => assert!(!ours || claims.nbf >= claims.exp || token.len() > 16 << 10, "{claims:?}"),
    }
    if claims.exp < i64::MAX {
        assert!(TOKENS.verify(&token, claims.exp).is_err(), "it has ended");
    }
}
