//! A `default` service account in every namespace that is not being deleted (Kubernetes' serviceaccount-controller).

use super::{
    Context,
    action::{Action, provide},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Headed, parse};
use coracle_store::{Key, Snapshot};
use serde_json::json;

/// See the module.
pub struct ServiceAccounts {
    context: Context,
}

impl ServiceAccounts {
    /// Acting as `service-account-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("service-account-controller") }
    }
}

#[async_trait]
impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.prev, event.new) {
            ("namespaces", None, Some(new)) => keys.push(new.key.clone()),
            ("serviceaccounts", Some(prev), None) if &*prev.key.name == "default" => {
                keys.push(Key::new("namespaces", "", prev.key.namespace.clone()));
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "namespaces", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(namespace) = snapshot.get(key) else { return Ok(Next::Idle) };
        let view: Headed<'_> = parse(&namespace)?;
        let account = Key::new("serviceaccounts", key.name.clone(), "default");
        if view.metadata.deleting() || snapshot.get(&account).is_some() {
            return Ok(Next::Idle);
        }
        let object = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": *key.name } });
        provide(&self.context.client, Some(Action::Create { resource: "serviceaccounts", object })).await
    }
}
