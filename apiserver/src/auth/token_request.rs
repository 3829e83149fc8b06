//! `serviceaccounts/token`: making tokens (`authentication.k8s.io/v1 TokenRequest`).

use super::{
    Auth, User,
    tokens::{Bound, Claims, LEGACY_ISSUER, Legacy, Reference},
};
use coracle_api::status::{Cause, Status};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "authentication.k8s.io";
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    audiences: Option<Vec<String>>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<ObjectRef>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

impl Auth {
    /// POST `/api/v1/namespaces/NS/serviceaccounts/NAME/token`; the answer's body. A node gets tokens only for pods that run on it.
    ///
    /// # Errors
    /// 404 for the account or the bound object, 422 for times, 400, 403 and 409 as upstream gives them.
    pub fn token_request(&self, user: &User, namespace: &str, name: &str, body: &Value) -> Result<Value, Status> {
        let snapshot = self.snapshot();
        let account = find(&snapshot, "serviceaccounts", namespace, name)?;
        let spec: Spec = match body.get("spec") {
            None | Some(Value::Null) => Spec::default(),
            Some(spec) => {
                Spec::deserialize(spec).map_err(|e| Status::bad_request(format!("TokenRequest in version \"v1\" cannot be handled: spec: {e}")))?
            }
        };
        let meta = |field: &str| body.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).filter(|v| !v.is_empty());
        for (field, want, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
            if let Some(got) = meta(field).filter(|got| *got != want) {
                let message = format!("Invalid value: {got:?}: must match the service account {what} if specified");
                return Err(invalid(name, &format!("metadata.{field}"), message));
            }
        }
        if let Some(uid) = meta("uid").filter(|uid| *uid != &*account.meta.uid) {
            let why = format!("the UID in the token request ({uid}) does not match the UID of the service account ({})", account.meta.uid);
            return Err(Status::conflict(GROUP, "TokenRequest", name, &why));
        }
        let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let limit = match seconds {
            s if s < MIN_SECONDS => Some("may not specify a duration less than 10 minutes"),
            s if s > MAX_SECONDS => Some("may not specify a duration larger than 2^32 seconds"),
            _ => None,
        };
        if let Some(limit) = limit {
            return Err(invalid("", "spec.expirationSeconds", format!("Invalid value: {seconds}: {limit}")));
        }
        let tokens = &self.inner.tokens;
        let audiences = spec.audiences.filter(|a| !a.is_empty()).unwrap_or_else(|| tokens.audiences().to_vec());
        let bound = bind(&snapshot, user, namespace, name, spec.bound_object_ref.as_ref())?;

        let now = jiff::Timestamp::now();
        let reference = Reference { name: name.into(), uid: account.meta.uid.to_string() };
        let claims = Claims::new(tokens.issuer(), audiences.clone(), namespace, reference, bound, now.as_second(), seconds);
        let token = tokens.sign(&claims).map_err(Status::internal)?;
        crate::audit::annotate("authentication.kubernetes.io/issued-credential-id", || format!("JTI={}", claims.jti));
        let mut spec_out = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": null});
        if let Some(reference) = body.pointer("/spec/boundObjectRef") {
            spec_out["boundObjectRef"] = reference.clone();
        }
        let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default();
        Ok(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "uid": account.meta.uid, "creationTimestamp": time(now.as_second())},
            "spec": spec_out,
            "status": {"token": token, "expirationTimestamp": time(claims.exp)},
        }))
    }
}

impl Auth {
    /// The token of a `kubernetes.io/service-account-token` Secret: it ends when the Secret or the account does.
    ///
    /// # Errors
    /// Signing failed.
    pub fn secret_token(&self, namespace: &str, account: Reference, secret: &str) -> Result<String, Status> {
        let claims = Legacy {
            iss: LEGACY_ISSUER.into(),
            namespace: namespace.into(),
            secret: secret.into(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
            account: account.name,
            uid: account.uid,
        };
        self.inner.tokens.sign(&claims).map_err(Status::internal)
    }
}

fn invalid(name: &str, field: &str, message: String) -> Status {
    Status::invalid(GROUP, "TokenRequest", name, vec![Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }])
}

fn find(snapshot: &Snapshot, resource: &str, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
    snapshot.get(&Key::new(resource, namespace, name)).ok_or_else(|| Status::not_found("", resource, name))
}

#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    service_account_name: String,
    node_name: String,
}

fn bind(snapshot: &Snapshot, user: &User, namespace: &str, account: &str, reference: Option<&ObjectRef>) -> Result<Bound, Status> {
    let node = user.node_name();
    let Some(reference) = reference else {
        return match node {
            None => Ok(Bound::Nothing),
            Some(_) => Err(Status::forbidden("", "serviceaccounts", account, "node requested token not bound to a pod")),
        };
    };
    let named = |object: &Object| -> Result<Reference, Status> {
        if !reference.uid.is_empty() && *object.meta.uid != *reference.uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                reference.uid
            );
            return Err(Status::conflict("", &reference.kind, &reference.name, &why));
        }
        Ok(Reference { name: reference.name.clone(), uid: object.meta.uid.to_string() })
    };
    match (reference.api_version.as_str(), reference.kind.as_str()) {
        ("v1" | "", "Pod") => {
            let object = find(snapshot, "pods", namespace, &reference.name)?;
            let pod: Pod = serde_json::from_slice(&object.json).map_err(Status::internal)?;
            if pod.spec.service_account_name != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if node.is_some_and(|node| node != pod.spec.node_name) {
                let why = "node requested token bound to a pod scheduled on a different node";
                return Err(Status::forbidden("", "serviceaccounts", account, why));
            }
            let on = (!pod.spec.node_name.is_empty()).then(|| {
                let uid = snapshot.get(&Key::new("nodes", "", pod.spec.node_name.as_str())).map(|n| n.meta.uid.to_string()).unwrap_or_default();
                Reference { name: pod.spec.node_name, uid }
            });
            Ok(Bound::Pod(named(&object)?, on))
        }
        _ if node.is_some() => Err(Status::forbidden("", "serviceaccounts", account, "node requested token not bound to a pod")),
        ("v1" | "", "Secret") => Ok(Bound::Secret(named(&*find(snapshot, "secrets", namespace, &reference.name)?)?)),
        ("v1" | "", "Node") => Ok(Bound::Node(named(&*find(snapshot, "nodes", "", &reference.name)?)?)),
        (version, kind) => Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}"))),
    }
}
