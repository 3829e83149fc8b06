//! What a token says.

use super::Error;
use serde::{Deserialize, Serialize};

/// A reference to an object: name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    /// The service account's namespace.
    pub namespace: String,
    /// Bound to a node, or the node of the pod it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// Bound to a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// Bound to a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// Whose token it is.
    pub serviceaccount: Reference,
    /// After this time (Unix seconds) its use is noted in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// A token's claims (RFC 7519 and Kubernetes' own). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Its end.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own id.
    #[serde(default)]
    pub jti: String,
    /// See [`Private`].
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
    /// Its beginning.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub sub: String,
    /// A token of a Secret, which says less and does not end by itself.
    #[serde(skip)]
    pub of_secret: bool,
}

/// What the token of a `kubernetes.io/service-account-token` Secret says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    /// [`LEGACY_ISSUER`]
    pub iss: String,
    /// The service account's namespace.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// And its uid.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub sub: String,
}

/// Who makes the tokens of Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

impl Legacy {
    /// The same as other tokens' claims; good for these audiences.
    pub fn claims(self, audiences: &[String]) -> Claims {
        let account = Reference { name: self.account, uid: self.uid };
        let bound = Bound::Secret(Reference { name: self.secret, uid: String::new() });
        let claims = Claims::new(&self.iss, audiences.to_vec(), &self.namespace, account, bound, 0, i64::MAX);
        Claims { jti: String::new(), sub: self.sub, of_secret: true, ..claims }
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(d)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// What a token may be bound to besides its service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Ends with the service account only.
    Nothing,
    /// And with this pod; its node is noted.
    Pod(Reference, Option<Reference>),
    /// And with this secret.
    Secret(Reference),
    /// And with this node.
    Node(Reference),
}

impl Claims {
    /// The claims of a token made `now` for so many seconds.
    pub fn new(issuer: &str, audiences: Vec<String>, namespace: &str, account: Reference, bound: Bound, now: i64, seconds: i64) -> Self {
        let sub = format!("system:serviceaccount:{namespace}:{}", account.name);
        let mut private = Private { namespace: namespace.into(), node: None, pod: None, secret: None, serviceaccount: account, warnafter: None };
        match bound {
            Bound::Nothing => {}
            Bound::Pod(pod, node) => (private.pod, private.node) = (Some(pod), node),
            Bound::Secret(secret) => private.secret = Some(secret),
            Bound::Node(node) => private.node = Some(node),
        }
        let jti = uuid::Uuid::new_v4().to_string();
        Self { aud: audiences, exp: now.saturating_add(seconds), iat: now, iss: issuer.into(), jti, private, nbf: now, sub, of_secret: false }
    }

    /// Those of the wanted audiences that the token has.
    ///
    /// # Errors
    /// None of them.
    pub fn audiences_among(&self, want: &[String]) -> Result<Vec<String>, Error> {
        let common: Vec<String> = want.iter().filter(|w| self.aud.contains(w)).cloned().collect();
        match common.is_empty() {
            true => Err(Error::Audience { have: self.aud.clone(), want: want.to_vec() }),
            false => Ok(common),
        }
    }
}
