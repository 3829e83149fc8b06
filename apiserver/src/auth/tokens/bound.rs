//! A token is good as long as what it is bound to lives.

use super::{Claims, Error, Reference};
use crate::auth::{CREDENTIAL_ID, User};
use base64::{Engine, prelude::BASE64_STANDARD};
use coracle_store::{Key, Snapshot};

/// What of an object's metadata decides.
#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}
#[derive(serde::Deserialize)]
struct HeadMeta<'a> {
    #[serde(rename = "deletionTimestamp", borrow, default)]
    deletion: Option<std::borrow::Cow<'a, str>>,
}

/// Seconds that an object may be past its deletion timestamp before its tokens end (upstream's leeway).
const LEEWAY: i64 = 60;

impl Claims {
    /// The user that the token speaks for, if all it is bound to is there with the same uid and not past its deletion.
    ///
    /// # Errors
    /// What is gone.
    pub fn live_user(&self, snapshot: &Snapshot, token: &str) -> Result<User, Error> {
        let of = &self.private;
        let now = jiff::Timestamp::now().as_second();
        alive(snapshot, "serviceaccounts", &of.namespace, &of.serviceaccount, now)?;
        let mut user = User::service_account(&of.namespace, &of.serviceaccount.name);
        user.uid = of.serviceaccount.uid.clone();
        if !self.jti.is_empty() {
            user.extra.push((CREDENTIAL_ID.into(), vec![format!("JTI={}", self.jti)]));
        }
        if let Some(secret) = of.secret.as_ref().filter(|_| self.of_secret) {
            holds(snapshot, &of.namespace, &secret.name, token, now)?;
        } else if let Some(secret) = &of.secret {
            alive(snapshot, "secrets", &of.namespace, secret, now)?;
        }
        match (&of.pod, &of.node) {
            (Some(pod), _) => {
                alive(snapshot, "pods", &of.namespace, pod, now)?;
                tell(&mut user, "pod", pod);
            }
            (None, Some(node)) => alive(snapshot, "nodes", "", node, now)?,
            (None, None) => {}
        }
        if let Some(node) = &of.node {
            tell(&mut user, "node", node);
        }
        Ok(user)
    }
}

/// A Secret's token is good while the Secret holds it.
fn holds(snapshot: &Snapshot, namespace: &str, name: &str, token: &str, now: i64) -> Result<(), Error> {
    let Some(object) = snapshot.get(&Key::new("secrets", namespace, name)) else {
        return Err(Error::Unbound("service account token has been invalidated".into()));
    };
    alive(snapshot, "secrets", namespace, &Reference { name: name.into(), uid: object.meta.uid.to_string() }, now)?;
    let secret: serde_json::Value = serde_json::from_slice(&object.json).unwrap_or_default();
    let held = secret["data"]["token"].as_str().and_then(|held| BASE64_STANDARD.decode(held).ok());
    match held.is_some_and(|held| held == token.as_bytes()) {
        true => Ok(()),
        false => Err(Error::Unbound("token does not match server's copy".into())),
    }
}

fn tell(user: &mut User, kind: &str, reference: &Reference) {
    user.extra.push((format!("authentication.kubernetes.io/{kind}-name"), vec![reference.name.clone()]));
    if !reference.uid.is_empty() {
        user.extra.push((format!("authentication.kubernetes.io/{kind}-uid"), vec![reference.uid.clone()]));
    }
}

fn alive(snapshot: &Snapshot, resource: &str, namespace: &str, reference: &Reference, now: i64) -> Result<(), Error> {
    let gone = |why: &str| Err(Error::Unbound(format!("{resource} {namespace}/{} that the token is bound to {why}", reference.name)));
    let Some(object) = snapshot.get(&Key::new(resource, namespace, reference.name.as_str())) else { return gone("does not exist") };
    if *object.meta.uid != *reference.uid {
        return gone("was deleted and made anew");
    }
    let Ok(head) = serde_json::from_slice::<Head<'_>>(&object.json) else { return gone("cannot be read") };
    match head.metadata.deletion.map(|t| t.parse::<jiff::Timestamp>()) {
        None => Ok(()),
        Some(Ok(at)) if at.as_second() + LEEWAY >= now => Ok(()),
        Some(_) => gone("has been deleted"),
    }
}
