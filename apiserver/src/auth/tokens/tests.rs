use super::*;
use base64::Engine;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn tokens(dir: &Path) -> Tokens {
    Tokens::open(dir, ISSUER.into(), vec!["extra".into()]).unwrap()
}

fn claims(now: i64, seconds: i64) -> Claims {
    let account = Reference { name: "bot".into(), uid: "u1".into() };
    let pod = Reference { name: "p".into(), uid: "u2".into() };
    Claims::new(ISSUER, vec![ISSUER.into()], "d", account, Bound::Pod(pod, Some(Reference { name: "n".into(), uid: "u3".into() })), now, seconds)
}

#[test]
fn signed_verified_expired() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = tokens(dir.path());
    let claims = claims(1000, 600);
    let token = tokens.sign(&claims).unwrap();
    for _ in 0..2 {
        assert_eq!(*tokens.verify(&token, 1000).unwrap(), claims);
        assert!(matches!(tokens.verify(&token, 999), Err(Error::NotYet)));
        assert!(matches!(tokens.verify(&token, 1600), Err(Error::Expired)));
    }
    // the key outlives a restart
    assert_eq!(*self::tokens(dir.path()).verify(&token, 1000).unwrap(), claims);
}

#[test]
fn claims_are_shaped_as_kubernetes_shapes_them() {
    let value = serde_json::to_value(claims(1000, 600)).unwrap();
    assert_eq!(value["sub"], "system:serviceaccount:d:bot");
    assert_eq!(value["exp"], 1600);
    let want = serde_json::json!({"namespace": "d", "serviceaccount": {"name": "bot", "uid": "u1"}, "pod": {"name": "p", "uid": "u2"}, "node": {"name": "n", "uid": "u3"}});
    assert_eq!(value["kubernetes.io"], want);
}

#[test]
fn what_is_not_ours_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = tokens(dir.path());
    let stranger = self::tokens(other.path());
    let good = tokens.sign(&claims(1000, 600)).unwrap();
    let invalid = |token: &str| assert!(matches!(tokens.verify(token, 1000), Err(Error::Invalid(_))), "{token}");
    invalid(&stranger.sign(&claims(1000, 600)).unwrap());
    invalid("");
    invalid("a.b.c");
    invalid(&"x".repeat(20 << 10));
    let parts: Vec<&str> = good.split('.').collect();
    // another payload under the same signature
    let forged = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims(1000, 6_000_000)).unwrap());
    invalid(&format!("{}.{forged}.{}", parts[0], parts[2]));
    // "none" and a symmetric algorithm keyed with what is public
    let none = BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
    invalid(&format!("{none}.{}.", parts[1]));
    let hmac = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(1000, 600), &EncodingKey::from_secret(b"k")).unwrap();
    invalid(&hmac);
    // another issuer, and a subject that is not the account
    invalid(&tokens.sign(&Claims { iss: "https://else".into(), ..claims(1000, 600) }).unwrap());
    invalid(&tokens.sign(&Claims { sub: "system:serviceaccount:kube-system:admin".into(), ..claims(1000, 600) }).unwrap());
}

#[test]
fn audiences() {
    let claims = Claims { aud: vec!["a".into(), "b".into()], ..claims(0, 600) };
    assert_eq!(claims.audiences_among(&["x".into(), "b".into()]).unwrap(), ["b"]);
    assert!(matches!(claims.audiences_among(&["x".into()]), Err(Error::Audience { .. })));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tokens(dir.path()).audiences(), [ISSUER, "extra"]);
}

#[test]
fn a_broken_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sa.key"), "junk").unwrap();
    let error = Tokens::open(dir.path(), ISSUER.into(), vec![]).err().unwrap().to_string();
    assert!(error.contains("sa.key") && error.contains("backup"), "{error}");
}

#[test]
fn the_published_key_is_the_one_that_signs() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = tokens(dir.path());
    let jwk = tokens.jwk();
    let key = DecodingKey::from_ec_components(jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap()).unwrap();
    let token = tokens.sign(&claims(1000, 600)).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.validate_exp = false;
    rules.validate_aud = false;
    let read = jsonwebtoken::decode::<Claims>(&token, &key, &rules).unwrap();
    assert_eq!(read.header.kid.as_deref(), jwk["kid"].as_str());
}
