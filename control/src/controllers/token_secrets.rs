//! Fills Secrets of type `kubernetes.io/service-account-token` with a token of the service account that they name, the cluster's CA and
//! their namespace; a Secret whose account is gone goes too (Kubernetes' legacy tokens controller).

use super::{
    Context,
    action::{Action, perform_one},
    identity,
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use coracle_api::Status;
use coracle_apiserver::{
    auth::tokens::Reference,
    view::{Headed, parse},
};
use coracle_store::{Key, Snapshot};
use serde_json::{Value, json};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// See the module.
pub struct TokenSecrets {
    context: Context,
    certificate: String,
}

impl TokenSecrets {
    /// Hands this PEM bundle out, acting as the controller manager.
    pub fn new(context: &Context, certificate: String) -> Self {
        let client = context.client.as_user(identity::controller_manager());
        Self { context: Context { client, clock: context.clock.clone() }, certificate }
    }
}

/// What a Secret needs.
#[derive(Debug, PartialEq)]
enum Need {
    Nothing,
    /// Its account is gone, or another by now.
    Go,
    /// It is to be written like this.
    Fill(Value),
}

/// `account` is the uid of the service account that the Secret names, if it is there; `token` makes a token.
fn decide(secret: &Value, account: Option<&str>, certificate: &str, token: impl FnOnce() -> Result<String, Status>) -> Result<Need, Status> {
    let metadata = &secret["metadata"];
    let said = metadata["annotations"][ACCOUNT_UID].as_str().unwrap_or_default();
    let Some(uid) = account.filter(|uid| said.is_empty() || said == *uid) else { return Ok(Need::Go) };
    let mut filled = secret.clone();
    let same = |name: &str, text: &str| secret["data"][name].as_str() == Some(&BASE64_STANDARD.encode(text));
    let mut put = |name: &str, text: &str| filled["data"][name] = BASE64_STANDARD.encode(text).into();
    for (name, text) in [("ca.crt", certificate), ("namespace", metadata["namespace"].as_str().unwrap_or_default())] {
        if !same(name, text) {
            put(name, text);
        }
    }
    if secret["data"]["token"].as_str().is_none_or(str::is_empty) {
        put("token", &token()?);
    }
    filled["metadata"]["annotations"][ACCOUNT_UID] = json!(uid);
    Ok(if filled == *secret { Need::Nothing } else { Need::Fill(filled) })
}

fn is_ours(object: &coracle_store::Object) -> bool {
    object.meta.field("type") == Some(TYPE)
}

#[async_trait]
impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            "secrets" => keys.extend(event.new.filter(|new| is_ours(new)).map(|new| new.key.clone())),
            // It came or went: its Secrets are looked for in its namespace.
            "serviceaccounts" if event.prev.is_none() || event.new.is_none() => {
                keys.extend(event.key().cloned());
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(snapshot.range("secrets", None, None).filter(|secret| is_ours(secret)).map(|secret| secret.key.clone()));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        if &*key.resource == "serviceaccounts" {
            for secret in snapshot.range("secrets", Some(&*key.namespace), None).filter(|secret| is_ours(secret)) {
                let named = parse::<Headed<'_>>(secret)?.metadata.annotations.get(ACCOUNT).is_some_and(|name| **name == *key.name);
                if named {
                    self.secret(&snapshot, &secret.key).await?;
                }
            }
            return Ok(Next::Idle);
        }
        self.secret(&snapshot, key).await?;
        Ok(Next::Idle)
    }
}

impl TokenSecrets {
    async fn secret(&self, snapshot: &Snapshot, key: &Key) -> Result<(), Status> {
        let client = &self.context.client;
        let Some(object) = snapshot.get(key).filter(|object| is_ours(object)) else { return Ok(()) };
        let secret = coracle_apiserver::pipeline::object::parse(&object)?;
        if secret["metadata"]["deletionTimestamp"].is_string() {
            return Ok(());
        }
        let name = secret["metadata"]["annotations"][ACCOUNT].as_str().unwrap_or_default();
        let account = snapshot.get(&Key::new("serviceaccounts", key.namespace.clone(), name));
        let uid = account.as_ref().map(|account| &*account.meta.uid);
        let token = || {
            let account = Reference { name: name.to_owned(), uid: uid.unwrap_or_default().to_owned() };
            client.core().auth.secret_token(&key.namespace, account, &key.name)
        };
        let outcome = match decide(&secret, uid, &self.certificate, token)? {
            Need::Nothing => Ok(()),
            Need::Go => {
                let delete = Action::Delete { key: key.clone(), uid: object.meta.uid.to_string(), propagation: None, grace: None };
                perform_one(client, None, delete).await.map(drop)
            }
            Need::Fill(secret) => client.update("secrets", secret).await.map(drop),
        };
        match outcome {
            Err(status) if status.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(secret: &Value, account: Option<&str>) -> Need {
        decide(secret, account, "PEM", || Ok("token".into())).expect("decided")
    }

    #[test]
    fn secrets_are_filled_once_and_go_with_their_account() {
        let secret = json!({ "metadata": { "name": "s", "namespace": "n", "annotations": { ACCOUNT: "a" } }, "type": TYPE });
        assert_eq!(of(&secret, None), Need::Go);
        let Need::Fill(filled) = of(&secret, Some("u")) else { panic!("it is empty") };
        assert_eq!(filled["data"], json!({ "ca.crt": "UEVN", "namespace": "bg==", "token": "dG9rZW4=" }));
        assert_eq!(filled["metadata"]["annotations"][ACCOUNT_UID], "u");
        assert_eq!(of(&filled, Some("u")), Need::Nothing);
        assert_eq!(of(&filled, Some("another")), Need::Go);
        let mut old = filled.clone();
        old["data"]["ca.crt"] = json!("b2xk");
        assert_eq!(of(&old, Some("u")), Need::Fill(filled), "the token stays");
    }
}
