//! The cluster's CA certificate as ConfigMap `kube-root-ca.crt` in every namespace (Kubernetes' root-ca-cert-publisher): pods verify
//! the API server with it. Deleted or changed, it is put back.

use super::{
    Context,
    action::{Action, provide},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Headed, Map, Text, parse};
use coracle_store::{Key, Snapshot};
use serde::Deserialize;
use serde_json::json;

const NAME: &str = "kube-root-ca.crt";
const NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service \
                    IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// See the module.
pub struct RootCa {
    context: Context,
    certificate: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigMap<'a> {
    #[serde(borrow)]
    data: Map<'a>,
}

impl RootCa {
    /// Publishes this PEM bundle, acting as `root-ca-cert-publisher`.
    pub fn new(context: &Context, certificate: String) -> Self {
        Self { context: context.acting_as("root-ca-cert-publisher"), certificate }
    }
}

/// What a namespace's map needs: `current` is its data, None if there is no such map.
fn decide(namespace: &str, certificate: &str, current: Option<&Map<'_>>) -> Option<Action> {
    let wanted = || json!({ "ca.crt": certificate });
    match current {
        Some(data) if data.len() == 1 && data.get("ca.crt").map(|v: &Text<'_>| &**v) == Some(certificate) => None,
        Some(data) => {
            let mut patch = wanted();
            for key in data.keys().filter(|key| **key != "ca.crt") {
                patch[&**key] = serde_json::Value::Null;
            }
            Some(Action::Patch { key: Key::new("configmaps", namespace, NAME), subresource: "", patch: json!({ "data": patch }) })
        }
        None => {
            let metadata = json!({ "name": NAME, "namespace": namespace, "annotations": { "kubernetes.io/description": NOTE } });
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": wanted() });
            Some(Action::Create { resource: "configmaps", object })
        }
    }
}

#[async_trait]
impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.prev, event.new) {
            ("namespaces", None, Some(new)) => keys.push(new.key.clone()),
            ("configmaps", Some(prev), _) if &*prev.key.name == NAME => keys.push(Key::new("namespaces", "", prev.key.namespace.clone())),
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "namespaces", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(namespace) = snapshot.get(key) else { return Ok(Next::Idle) };
        if parse::<Headed<'_>>(&namespace)?.metadata.deleting() {
            return Ok(Next::Idle);
        }
        let map = snapshot.get(&Key::new("configmaps", key.name.clone(), NAME));
        let view = map.as_deref().map(parse::<ConfigMap<'_>>).transpose()?;
        let action = decide(&key.name, &self.certificate, view.as_ref().map(|view| &view.data));
        provide(&self.context.client, action).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&'static str, &'static str)]) -> Map<'static> {
        pairs.iter().map(|(k, v)| (Text::from(*k), Text::from(*v))).collect()
    }

    #[test]
    fn a_missing_or_changed_map_is_put_right() {
        assert!(matches!(decide("n", "PEM", None), Some(Action::Create { resource: "configmaps", .. })));
        assert_eq!(decide("n", "PEM", Some(&data(&[("ca.crt", "PEM")]))), None);
        let Some(Action::Patch { patch, .. }) = decide("n", "PEM", Some(&data(&[("ca.crt", "old"), ("x", "y")]))) else { panic!("a patch") };
        assert_eq!(patch, json!({ "data": { "ca.crt": "PEM", "x": null } }));
    }
}
