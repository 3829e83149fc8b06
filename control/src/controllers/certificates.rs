//! Certificate requests (Kubernetes' csrsigning, csrapproving and csrcleaner controllers): approved ones are signed by the cluster's CA, those of
//! nodes for their own client certificate are approved, and what is done or forgotten is cleaned away.

mod signer;

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::View;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::Status;
use coracle_apiserver::{
    auth::{Attributes, User},
    resources::certificates::{REQUESTS, request_of},
    view::{Condition, Text, condition, parse, time},
};
use coracle_link::pki::{Authority, CertificateRequest};
use coracle_store::{Key, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// See the module.
pub struct Certificates {
    context: Context,
    authority: Authority,
}

impl Certificates {
    /// Signs with this CA, acting as `certificate-controller`.
    pub fn new(context: &Context, authority: Authority) -> Self {
        Self { context: context.acting_as("certificate-controller"), authority }
    }
}

type Request<'a> = View<'a, Spec<'a>, RequestStatus<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    signer_name: Text<'a>,
    usages: Vec<Text<'a>>,
    expiration_seconds: Option<i64>,
    username: Text<'a>,
    uid: Text<'a>,
    groups: Vec<Text<'a>>,
    extra: BTreeMap<String, Vec<String>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct RequestStatus<'a> {
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
    certificate: Text<'a>,
}

impl Request<'_> {
    fn is(&self, kind: &str) -> bool {
        condition(&self.status.conditions, kind).is_some_and(Condition::is_true)
    }

    fn issued(&self) -> bool {
        !self.status.certificate.is_empty()
    }

    /// When it is to be deleted: an hour after its end, a day after it was forgotten.
    fn due(&self) -> Option<Timestamp> {
        let since = |kind: &str| condition(&self.status.conditions, kind).and_then(|c| time(&c.last_update_time));
        let after = |from: Option<Timestamp>, life: SignedDuration| from.and_then(|from| from.checked_add(life).ok());
        let created = self.status.conditions.is_empty().then(|| self.metadata.created());
        let approved = after(since("Approved"), if self.issued() { HOUR } else { DAY });
        [approved, after(since("Denied"), HOUR), after(since("Failed"), HOUR), after(created, DAY)].into_iter().flatten().min()
    }

    /// Whether this is a node's request for its own client certificate; and whether the node itself asks.
    fn node_client(&self, request: &CertificateRequest) -> Option<bool> {
        let usages: Vec<&str> = self.spec.usages.iter().map(|usage| &**usage).collect();
        let theirs = *self.spec.signer_name == *signer::KUBELET_CLIENT && signer::kubelet_client(request, &usages).is_ok();
        theirs.then(|| *self.spec.username == *request.common_name)
    }

    fn user(&self) -> User {
        User {
            name: self.spec.username.to_string(),
            uid: self.spec.uid.to_string(),
            groups: self.spec.groups.iter().map(|group| group.to_string()).collect(),
            extra: self.spec.extra.iter().map(|(key, values)| (key.clone(), values.clone())).collect(),
        }
    }
}

/// The conditions there are, and one more.
fn with_condition(request: &Request<'_>, kind: &str, reason: &str, message: &str) -> Value {
    let mut all: Vec<Value> = request.status.conditions.iter().map(Condition::to_json).collect();
    all.push(json!({"type": kind, "status": "True", "reason": reason, "message": message}));
    all.into()
}

fn patch(key: &Key, request: &Request<'_>, subresource: &'static str, status: Value) -> Action {
    let patch = json!({"metadata": {"resourceVersion": request.metadata.resource_version}, "status": status});
    Action::Patch { key: key.clone(), subresource, patch }
}

impl Certificates {
    /// Approves what is a node's own and what who asks may have.
    fn approval(&self, key: &Key, request: &Request<'_>, parsed: &CertificateRequest) -> Option<Action> {
        let own = request.node_client(parsed)?;
        let user = request.user();
        let may = |subresource: &str| {
            let ask = Attributes {
                verb: "create",
                group: "certificates.k8s.io",
                version: "*",
                resource: "certificatesigningrequests",
                subresource,
                ..Attributes::default()
            };
            self.context.client.core().auth.authorize(&user, &ask).allowed()
        };
        let message = match own {
            true if may("selfnodeclient") => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            _ if may("nodeclient") => "Auto approving kubelet client certificate after SubjectAccessReview.",
            _ => return None,
        };
        Some(patch(key, request, "approval", json!({"conditions": with_condition(request, "Approved", "AutoApproved", message)})))
    }

    fn decide(&self, key: &Key, request: &Request<'_>, whole: &Value) -> Option<Action> {
        if request.issued() || request.is("Denied") || request.is("Failed") {
            return None;
        }
        let parsed = request_of(whole).ok()?;
        if !request.is("Approved") {
            return self.approval(key, request, &parsed);
        }
        let usages: Vec<&str> = request.spec.usages.iter().map(|usage| &**usage).collect();
        let checked = signer::check(&request.spec.signer_name, &parsed, &usages)?;
        let signed = checked.and_then(|()| {
            let valid = signer::duration(request.spec.expiration_seconds);
            self.authority.answer(&parsed, &usages, valid, signer::BACKDATE).map_err(|error| error.to_string())
        });
        Some(patch(
            key,
            request,
            "status",
            match signed {
                Ok(pem) => json!({"certificate": STANDARD.encode(pem)}),
                Err(why) => json!({"conditions": with_condition(request, "Failed", "SignerValidationFailure", &why)}),
            },
        ))
    }
}

#[async_trait]
impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "certificate-controller"
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        if event.resource == REQUESTS {
            keys.extend(event.new.map(|new| new.key.clone()));
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, REQUESTS, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let Some(object) = client.store().snapshot().get(key) else { return Ok(Next::Idle) };
        let request: Request<'_> = parse(&object)?;
        let now = self.context.now();
        let due = request.due();
        if due.is_some_and(|due| due <= now) {
            let delete = Action::Delete { key: key.clone(), uid: request.metadata.uid.to_string(), propagation: None, grace: None };
            return perform(client, None, vec![delete]).await.map(|()| Next::Idle);
        }
        let whole: Value = parse(&object)?;
        let action = self.decide(key, &request, &whole);
        perform(client, None, action.into_iter().collect()).await?;
        let left = due.map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
        Ok(left.map_or(Next::Idle, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    #[test]
    fn what_is_done_or_forgotten_goes() {
        let due = |json: &str| parse_bytes::<Request<'_>>(json.as_bytes()).expect("request").due().map(|due| due.to_string());
        let created = r#""metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(due(&format!("{{{created}}}")).as_deref(), Some("2026-01-02T00:00:00Z"));
        let with = |kind: &str, more: &str| {
            due(&format!(
                r#"{{{created},"status":{{"conditions":[{{"type":"{kind}","status":"True","lastUpdateTime":"2026-01-01T01:00:00Z"}}]{more}}}}}"#
            ))
        };
        assert_eq!(with("Denied", "").as_deref(), Some("2026-01-01T02:00:00Z"));
        assert_eq!(with("Approved", "").as_deref(), Some("2026-01-02T01:00:00Z"));
        assert_eq!(with("Approved", r#","certificate":"x""#).as_deref(), Some("2026-01-01T02:00:00Z"));
    }
}
