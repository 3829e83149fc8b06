//! The pods behind each Service, as EndpointSlices and as Endpoints (Kubernetes' endpointslice-controller and endpoint-controller).
//!
//! [`endpoints`] says what a pod contributes, [`slices`] how that is spread over slices with few changes, [`super::endpoints`] how it is packed
//! into the one older object; this file reads and writes. Both come of one look at the pods: a controller of its own for the older form would read them all
//! a second time. Services without a selector are somebody else's (the API server keeps the slice of `kubernetes` itself).

pub mod endpoints;
pub mod slices;

use self::endpoints::{Backend, Ports, Service, resolve};
use super::{
    Context,
    action::{Action, perform},
    endpoints as packed,
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Map, parse, selector::Labelled};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(super) const SERVICES: &str = "services";
pub(super) const SLICES: &str = "endpointslices.discovery.k8s.io";
pub(super) const ENDPOINTS: &str = "endpoints";

/// See the module.
pub struct EndpointSlices {
    context: Context,
    /// Writes the older form.
    endpoints: Context,
}

impl EndpointSlices {
    /// Acting as `endpointslice-controller`, and as `endpoint-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("endpointslice-controller"), endpoints: context.acting_as("endpoint-controller") }
    }
}

/// The selector alone: read for every Service of a namespace when a pod changes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Selecting<'a> {
    #[serde(borrow)]
    spec: SelectingSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectingSpec<'a> {
    #[serde(borrow)]
    selector: Map<'a>,
}

/// The Service of some Endpoints: its namesake.
fn service_of(endpoints: &Key) -> Key {
    Key::new(SERVICES, endpoints.namespace.clone(), endpoints.name.clone())
}

fn selects(selector: &Map<'_>, pod: &Object) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| pod.meta.labels.as_slice().label(key) == Some(&**value))
}

#[async_trait]
impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            SERVICES => keys.extend(event.key().cloned()),
            // Endpoints that nobody made a Service for are left alone.
            ENDPOINTS => keys.extend(event.key().map(service_of).filter(|service| event.snapshot.get(service).is_some())),
            SLICES => {
                for slice in event.versions() {
                    if let Some(service) = slice.meta.labels.as_slice().label(slices::SERVICE_NAME) {
                        keys.push(Key::new(SERVICES, slice.key.namespace.clone(), service));
                    }
                }
            }
            "pods" => {
                if let (Some(prev), Some(new)) = (event.prev, event.new)
                    && prev.meta.labels == new.meta.labels
                    && endpoints::same(prev, new)
                {
                    return;
                }
                let Some(key) = event.key() else { return };
                for service in event.snapshot.range(SERVICES, Some(&key.namespace), None) {
                    let Ok(view) = parse::<Selecting<'_>>(service) else { continue };
                    if event.versions().any(|pod| selects(&view.spec.selector, pod)) {
                        keys.push(service.key.clone());
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, SERVICES, keys);
        // A Service may have gone while nobody looked.
        let ours = |object: &&Arc<Object>| object.meta.labels.as_slice().label(packed::MANAGED_BY) == Some(packed::OURS);
        keys.extend(snapshot.range(ENDPOINTS, None, None).filter(ours).map(|object| service_of(&object.key)));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let older = snapshot.get(&Key::new(ENDPOINTS, key.namespace.clone(), key.name.clone()));
        // The slices of a deleted Service are its dependents: the garbage collector's. Endpoints have no owner but go all the same, whoever wrote them.
        let Some(object) = snapshot.get(key) else {
            let gone = older.map(|older| Action::Delete { key: older.key.clone(), uid: older.meta.uid.to_string(), propagation: None, grace: None });
            perform(&self.endpoints.client, None, gone.into_iter().collect()).await?;
            return Ok(Next::Idle);
        };
        let service: Service<'_> = parse(&object)?;
        if service.spec.selector.is_empty() || service.spec.kind == "ExternalName" {
            return Ok(Next::Idle);
        }
        let pods: Vec<&Arc<Object>> = snapshot.range("pods", Some(&key.namespace), None).filter(|pod| selects(&service.spec.selector, pod)).collect();
        let mut groups: BTreeMap<(&'static str, Ports), Vec<Backend>> = BTreeMap::new();
        let mut zones = BTreeMap::new();
        for pod in &pods {
            let pod: endpoints::Pod<'_> = parse(pod)?;
            let node = &*pod.spec.node_name;
            if !node.is_empty() && !zones.contains_key(node) {
                let zone = snapshot
                    .get(&Key::new("nodes", "", node))
                    .and_then(|node| node.meta.labels.as_slice().label("topology.kubernetes.io/zone").map(str::to_owned));
                zones.insert(node.to_owned(), zone);
            }
            for family in service.families() {
                if let Some((ports, backend)) = resolve(&service, &pod, family, zones.get(node).and_then(Option::as_deref)) {
                    groups.entry((family, ports)).or_default().push(backend);
                }
            }
        }
        let existing: Vec<_> = snapshot
            .range(SLICES, Some(&key.namespace), None)
            .filter(|slice| {
                let labels = slice.meta.labels.as_slice();
                labels.label(slices::SERVICE_NAME) == Some(&*key.name) && labels.label(slices::MANAGED_BY) == Some(slices::OURS)
            })
            .cloned()
            .collect();
        let existing = existing.iter().map(|slice| parse(slice)).collect::<Result<Vec<slices::Slice>, _>>()?;
        let older = older.as_deref().map(parse).transpose()?;
        let packed = packed::plan(&service, &groups, older.as_ref());
        perform(client, Some(&object), slices::plan(&service, groups, existing)).await?;
        perform(&self.endpoints.client, Some(&object), packed).await?;
        // A change of one pod of many costs a look at all of them: gather changes for a moment.
        let rest = Duration::from_micros(50).saturating_mul(u32::try_from(pods.len()).unwrap_or(u32::MAX));
        Ok(Next::NotBefore(rest.min(Duration::from_secs(1))))
    }
}
