//! Claims of devices: made for pods from templates, and given back when nobody uses them any more (Kubernetes' resource-claim-controller, KEP-4381).

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::{
    scheduler::devices::{CLAIMS, FINALIZER, MOST_CONSUMERS},
    view::{Nothing, View},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    pipeline::PatchKind,
    view::{Meta, Text, parse},
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

const TEMPLATES: &str = "resourceclaimtemplates.resource.k8s.io";
/// Which claim of its pod a claim was made for.
const OF_POD: &str = "resource.kubernetes.io/pod-claim-name";
/// Most characters of a name before what makes it unique.
const BASE: usize = 57;

type Pod<'a> = View<'a, PodSpec<'a>, PodStatus<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec<'a> {
    #[serde(borrow)]
    node_name: Text<'a>,
    resource_claims: Vec<PodClaim<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    resource_claim_statuses: Vec<PodClaim<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodClaim<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    resource_claim_name: Option<Text<'a>>,
    resource_claim_template_name: Option<Text<'a>>,
}
type Claim<'a> = View<'a, Nothing, ClaimStatus<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimStatus<'a> {
    allocation: Option<Value>,
    #[serde(borrow)]
    reserved_for: Vec<Consumer<'a>>,
}
#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Consumer<'a> {
    #[serde(borrow)]
    api_group: Text<'a>,
    resource: Text<'a>,
    name: Text<'a>,
    uid: Text<'a>,
}

impl Consumer<'_> {
    fn to_json(&self) -> Value {
        let mut consumer = json!({"resource": self.resource, "name": self.name, "uid": self.uid});
        if !self.api_group.is_empty() {
            consumer["apiGroup"] = json!(self.api_group);
        }
        consumer
    }
}

impl Pod<'_> {
    /// Whether it is certain that none of its containers runs or will run.
    fn is_done(&self) -> bool {
        matches!(&*self.status.phase, "Succeeded" | "Failed") || (self.metadata.deleting() && self.spec.node_name.is_empty())
    }

    /// The claim's name as the status tells it.
    fn told(&self, claim: &PodClaim<'_>) -> Option<&PodClaim<'_>> {
        self.status.resource_claim_statuses.iter().find(|told| told.name == claim.name)
    }

    /// Names of the claims that are there.
    fn claims(&self) -> impl Iterator<Item = String> + '_ {
        self.spec.resource_claims.iter().filter_map(|claim| {
            let name = claim.resource_claim_name.as_ref().or_else(|| self.told(claim)?.resource_claim_name.as_ref());
            name.map(|name| name.to_string())
        })
    }
}

/// Whether a pod may have claims: few have, and those that have none tell so without being read.
fn names_claims(pod: &Object) -> bool {
    const FIELD: &[u8] = b"\"resourceClaims\"";
    pod.json.windows(FIELD.len()).any(|window| window == FIELD)
}

/// `POD-CLAIM-`, both shortened alike where they are too long together; ASCII both.
fn base(pod: &str, claim: &str) -> String {
    let whole = pod.len() + claim.len() + 2;
    if whole <= BASE {
        return format!("{pod}-{claim}-");
    }
    let part = |text: &str| text.chars().take(text.len() * BASE / whole).collect::<String>();
    format!("{}-{}", part(pod), part(claim))
}

/// A claim for a pod, as its template says.
fn from_template(pod: &Pod<'_>, claim: &str, template: &Value) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid, "controller": true});
    let mut metadata =
        json!({"generateName": base(&pod.metadata.name, claim), "namespace": pod.metadata.namespace, "annotations": {}, "ownerReferences": [owner]});
    // Of the template's own these and nothing else: a name would do for one pod only.
    for part in ["labels", "annotations"] {
        if let Some(its) = template["spec"]["metadata"][part].as_object() {
            metadata[part] = json!(its);
        }
    }
    metadata["annotations"][OF_POD] = claim.into();
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": template["spec"]["spec"]})
}

/// See the module.
pub struct ResourceClaims {
    context: Context,
}

impl ResourceClaims {
    /// Acting as `resource-claim-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("resource-claim-controller") }
    }

    async fn pod(&self, object: &Object, snapshot: &Snapshot) -> Result<(), Status> {
        let pod: Pod<'_> = parse(object)?;
        // One that has ended has given its claims back, and is not to be given new ones.
        if pod.is_done() || pod.metadata.deleting() || pod.spec.resource_claims.is_empty() {
            return Ok(());
        }
        let client = &self.context.client;
        let namespace = &object.key.namespace;
        let own = |claim: &Meta<'_>| claim.controlled_by(&pod.metadata.uid);
        let mut told: Vec<Value> = Vec::new();
        let mut new = false;
        for claim in &pod.spec.resource_claims {
            let Some(template) = &claim.resource_claim_template_name else { continue };
            let known = pod.told(claim).map(|told| told.resource_claim_name.as_ref());
            if let Some(name) = known {
                let there = name.is_none_or(|name| {
                    let stored = snapshot.get(&Key::new(CLAIMS, namespace.clone(), &**name));
                    stored.is_some_and(|stored| parse::<Claim<'_>>(&stored).is_ok_and(|claim| own(&claim.metadata)))
                });
                if there {
                    told.push(match name {
                        Some(name) => json!({"name": claim.name, "resourceClaimName": name}),
                        None => json!({"name": claim.name}),
                    });
                    continue;
                }
            }
            // One that was made, and not told of yet.
            let made = snapshot.range(CLAIMS, Some(namespace), None).find(|stored| {
                parse::<Claim<'_>>(stored)
                    .is_ok_and(|its| own(&its.metadata) && its.metadata.annotations.get(OF_POD).is_some_and(|name| **name == *claim.name))
            });
            let name = match made {
                Some(made) => made.key.name.to_string(),
                None => {
                    let failed = |why: String| {
                        client.event(object, "Warning", "FailedResourceClaimCreation", &format!("PodResourceClaim {}: {why}", claim.name));
                        Status::internal(why)
                    };
                    let stored = snapshot.get(&Key::new(TEMPLATES, namespace.clone(), &**template)).ok_or_else(|| {
                        failed(format!("resource claim template \"{template}\": resourceclaimtemplate.resource.k8s.io \"{template}\" not found"))
                    })?;
                    let template: Value = parse(&stored)?;
                    let made = client.create(CLAIMS, namespace, from_template(&pod, &claim.name, &template)).await;
                    made.map_err(|status| failed(format!("create ResourceClaim : {}", status.message)))?.key.name.to_string()
                }
            };
            new = true;
            told.push(json!({"name": claim.name, "resourceClaimName": name}));
        }
        if new {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": told}});
            client.patch("pods", namespace, &object.key.name, "status", PatchKind::Merge, patch).await?;
        }
        if !pod.spec.node_name.is_empty() {
            self.reserve(&pod, snapshot).await?;
        }
        Ok(())
    }

    /// A pod that was bound by somebody else than the scheduler uses its claims as well.
    async fn reserve(&self, pod: &Pod<'_>, snapshot: &Snapshot) -> Result<(), Status> {
        let me = json!({"resource": "pods", "name": pod.metadata.name, "uid": pod.metadata.uid});
        for name in pod.claims() {
            let key = Key::new(CLAIMS, &*pod.metadata.namespace, name.as_str());
            let Some(stored) = snapshot.get(&key) else { continue };
            let claim: Claim<'_> = parse(&stored)?;
            let reserved = &claim.status.reserved_for;
            if pod.is_done()
                || claim.status.allocation.is_none()
                || reserved.len() >= MOST_CONSUMERS
                || reserved.iter().any(|its| its.uid == pod.metadata.uid)
            {
                continue;
            }
            let consumers: Vec<Value> = reserved.iter().map(Consumer::to_json).chain([me.clone()]).collect();
            let metadata = json!({"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version});
            let patch = json!({"metadata": metadata, "status": {"reservedFor": consumers}});
            perform(&self.context.client, None, vec![Action::Patch { key, subresource: "status", patch }]).await?;
        }
        Ok(())
    }
}

/// What is to be done about a claim: who is done with it is no consumer any more, and with the last of them its devices go back.
fn settle(key: &Key, claim: &Claim<'_>, snapshot: &Snapshot) -> Vec<Action> {
    let metadata = &claim.metadata;
    let pod = |name: &str| snapshot.get(&Key::new("pods", key.namespace.clone(), name));
    let uses = |consumer: &&Consumer<'_>| {
        if !consumer.api_group.is_empty() || consumer.resource != "pods" {
            return true;
        }
        pod(&consumer.name).is_some_and(|object| *object.meta.uid == *consumer.uid && !parse::<Pod<'_>>(&object).is_ok_and(|pod| pod.is_done()))
    };
    let left: Vec<Value> = claim.status.reserved_for.iter().filter(uses).map(Consumer::to_json).collect();
    let protected = metadata.finalizers.iter().any(|its| *its == FINALIZER);
    let patch = |subresource: &'static str, mut patch: Value| {
        patch["metadata"]["uid"] = json!(metadata.uid);
        // Who gives devices meanwhile must not lose them, nor their protection.
        patch["metadata"]["resourceVersion"] = json!(metadata.resource_version);
        Action::Patch { key: key.clone(), subresource, patch }
    };
    let unprotected = || {
        let others: Vec<&str> = metadata.finalizers.iter().map(|its| &**its).filter(|its| *its != FINALIZER).collect();
        patch("", json!({"metadata": {"finalizers": if others.is_empty() { Value::Null } else { json!(others) }}}))
    };
    let mut actions = Vec::new();
    if left.len() < claim.status.reserved_for.len() {
        let status = if left.is_empty() { json!({"reservedFor": null, "allocation": null}) } else { json!({"reservedFor": left}) };
        actions.push(patch("status", json!({ "status": status })));
        if left.is_empty() && protected {
            actions.push(unprotected());
        }
    } else if protected && metadata.deleting() && left.is_empty() {
        if claim.status.allocation.is_some() {
            actions.push(patch("status", json!({"status": {"allocation": null}})));
        }
        actions.push(unprotected());
    }
    let owner = metadata.controller().filter(|owner| owner.kind == "Pod" && owner.api_version == "v1");
    if let Some(owner) = owner.filter(|_| left.is_empty() && !metadata.deleting())
        && let Some(object) = pod(&owner.name)
        && (*object.meta.uid != *owner.uid || parse::<Pod<'_>>(&object).is_ok_and(|pod| pod.is_done()))
    {
        actions.push(Action::Delete { key: key.clone(), uid: metadata.uid.to_string(), propagation: None, grace: None });
    }
    actions
}

#[async_trait]
impl Controller for ResourceClaims {
    fn name(&self) -> &'static str {
        "resource-claim-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            CLAIMS => keys.extend(event.key().cloned()),
            "pods" => {
                let Some(object) = event.new.or(event.prev) else { return };
                if !names_claims(object) {
                    return;
                }
                keys.push(object.key.clone());
                let Ok(pod) = parse::<Pod<'_>>(object) else { return };
                keys.extend(pod.claims().map(|name| Key::new(CLAIMS, object.key.namespace.clone(), name)));
            }
            TEMPLATES => {
                let Some(template) = event.new else { return };
                for object in event.snapshot.range("pods", Some(&template.key.namespace), None) {
                    let Ok(pod) = parse::<Pod<'_>>(object) else { continue };
                    let names = |claim: &PodClaim<'_>| claim.resource_claim_template_name.as_ref().is_some_and(|name| **name == *template.key.name);
                    if pod.spec.resource_claims.iter().any(names) {
                        keys.push(object.key.clone());
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, CLAIMS, keys);
        keys.extend(snapshot.range("pods", None, None).filter(|object| names_claims(object)).map(|object| object.key.clone()));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(object) = snapshot.get(key) else { return Ok(Next::Idle) };
        if &*key.resource == "pods" {
            self.pod(&object, &snapshot).await?;
            return Ok(Next::Idle);
        }
        let claim: Claim<'_> = parse(&object)?;
        perform(&self.context.client, Some(&object), settle(key, &claim, &snapshot)).await?;
        Ok(Next::Idle)
    }
}

#[cfg(test)]
mod tests;
