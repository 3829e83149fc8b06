//! What is stored and not acted on yet: whoever makes such an object is told so once, by an event on it.

use super::{
    Context,
    endpoint_slice::endpoints::Service,
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::parse;
use coracle_store::{Key, Object, Snapshot};

/// See the module.
pub struct Unserved {
    context: Context,
}

impl Unserved {
    /// Acting as the control plane itself.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }
}

/// What is not done about an object of that resource, with the remedy.
fn missing(resource: &str, object: &Object) -> Option<&'static str> {
    Some(match resource {
        "networkpolicies.networking.k8s.io" => "NetworkPolicies are stored but not enforced yet: traffic is allowed as if there were none",
        "ingresses.networking.k8s.io" => "Ingresses are stored but not served yet: run an ingress controller, or use a Service of type NodePort",
        "persistentvolumeclaims" => "PersistentVolumeClaims are stored but not bound yet: use an emptyDir or hostPath volume",
        "services" if parse::<Service<'_>>(object).is_ok_and(|service| service.spec.kind == "LoadBalancer") => {
            "There is no load balancer in this cluster: the Service gets no external address; its cluster address and node ports work"
        }
        _ => return None,
    })
}

#[async_trait]
impl Controller for Unserved {
    fn name(&self) -> &'static str {
        "unserved-kinds"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        let Some(new) = event.new else { return };
        // Once: when it is made, or becomes such.
        if missing(event.resource, new).is_some() && event.prev.is_none_or(|prev| missing(event.resource, prev).is_none()) {
            keys.push(new.key.clone());
        }
    }

    fn all(&self, _: &Snapshot, _: &mut Vec<Key>) {}

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        if let Some(object) = client.get(&key.resource, &key.namespace, &key.name)
            && let Some(message) = missing(&key.resource, &object)
        {
            client.event(&object, "Warning", "NotServed", message);
        }
        Ok(Next::Idle)
    }
}
