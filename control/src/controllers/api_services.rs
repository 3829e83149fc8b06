//! Keeps APIServices: one for each group version that definitions make, and whether those of other servers answer (kube-aggregator's autoregister, crdregistration and
//! availability controllers).

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    aggregation::{self, API_SERVICES, ApiService, MANAGED, Place},
    custom::DEFINITIONS,
    view::{parse, selector::Labelled, stamp},
};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const SLICES: &str = "endpointslices.discovery.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How often a server is asked whether it is still there, as upstream.
const PERIOD: Duration = Duration::from_secs(30);
/// Upstream's priorities of groups that definitions make.
const OF_DEFINITIONS: (i64, i64) = (1000, 100);

/// See the module.
pub struct ApiServices {
    context: Context,
}

/// The key under which all APIServices of definitions are looked at together.
fn registration() -> Key {
    Key::new(DEFINITIONS, "", "")
}

fn remote(object: &Object) -> Option<Place> {
    // Most are local, and tell so without being read.
    let names_one = object.json.windows(b"\"service\":{".len()).any(|window| window == b"\"service\":{");
    names_one.then(|| ApiService::of(object)).flatten()?.spec.service
}

/// The group versions that definitions make.
fn wanted(snapshot: &Snapshot) -> BTreeSet<(String, String)> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Definition {
        spec: Spec,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Spec {
        group: String,
        versions: Vec<Version>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Version {
        name: String,
        served: bool,
    }
    let definitions = snapshot.range(DEFINITIONS, None, None).filter_map(|object| serde_json::from_slice::<Definition>(&object.json).ok());
    definitions
        .flat_map(|Definition { spec }| {
            let group = spec.group;
            spec.versions.into_iter().filter(|version| version.served).map(move |version| (group.clone(), version.name))
        })
        .collect()
}

/// The writes after which each group version has its APIService. One that somebody made by hand is left alone.
fn register(snapshot: &Snapshot) -> Vec<Action> {
    let wanted = wanted(snapshot);
    let mut actions = Vec::new();
    for (group, version) in &wanted {
        let key = Key::new(API_SERVICES, "", format!("{version}.{group}"));
        if snapshot.get(&key).is_none() {
            let object = aggregation::local_service(group, version, OF_DEFINITIONS, "true");
            actions.push(Action::Create { resource: API_SERVICES, object });
        }
    }
    let ours = snapshot.range(API_SERVICES, None, None).filter(|object| object.meta.labels.as_slice().label(MANAGED) == Some("true"));
    for object in ours {
        let Some(service) = ApiService::of(object) else { continue };
        if !wanted.contains(&(service.spec.group, service.spec.version)) {
            actions.push(Action::Delete { key: object.key.clone(), uid: object.meta.uid.to_string(), propagation: None, grace: None });
        }
    }
    actions
}

/// Why a server cannot be asked at all: reason and message of the condition.
fn unreachable(snapshot: &Snapshot, place: &Place) -> Option<(&'static str, String)> {
    let (name, namespace, port) = (&place.name, &place.namespace, i64::from(place.port.unwrap_or(443)));
    let Some(service) = snapshot.get(&Key::new("services", namespace.as_str(), name.as_str())) else {
        return Some(("ServiceNotFound", format!("service/{name} in \"{namespace}\" is not present")));
    };
    let service: Value = parse(&service).ok()?;
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.into_iter().find(|its| its["port"] == port) else {
        return Some(("ServicePortError", format!("service/{name} in \"{namespace}\" is not listening on port {port}")));
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let slices = snapshot.range(SLICES, Some(namespace), None).filter(|slice| slice.meta.labels.as_slice().label(SERVICE_NAME) == Some(name));
    let slices: Vec<Value> = slices.filter_map(|slice| parse(slice).ok()).collect();
    if slices.is_empty() {
        return Some(("EndpointsNotFound", format!("cannot find endpointslices for service/{name} in \"{namespace}\"")));
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let serves = |slice: &Value| {
        list(&slice["endpoints"]).iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
            && list(&slice["ports"]).iter().any(|port| port["name"].as_str().unwrap_or_default() == port_name && port["port"].is_number())
    };
    if slices.iter().any(serves) {
        return None;
    }
    Some(("MissingEndpoints", format!("endpointslices for service/{name} in \"{namespace}\" have no addresses with port name \"{port_name}\"")))
}

impl ApiServices {
    /// Acting as the API server itself, whose business this is upstream.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }

    async fn look(&self, snapshot: &Snapshot, object: &Arc<Object>) -> Result<Next, Status> {
        let client = &self.context.client;
        let core = client.core();
        let name = &object.key.name;
        let now = stamp(self.context.now());
        let Some(service) = ApiService::of(object) else { return Ok(Next::Idle) };
        let (condition, next) = match &service.spec.service {
            None => (aggregation::local(&now), Next::Idle),
            Some(place) => {
                let checked = match unreachable(snapshot, place) {
                    Some(why) => Err(why),
                    None => core.discover(&service).await.map_err(|why| ("FailedDiscoveryCheck", why)),
                };
                let condition = |status: &str, reason: &str, message: &str| json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
                let condition = match checked {
                    Ok(list) => {
                        core.aggregation.told(&core.store, name, list);
                        condition("True", "Passed", "all checks passed")
                    }
                    Err((reason, message)) => {
                        core.aggregation.silent(name);
                        condition("False", reason, &message)
                    }
                };
                (condition, Next::After(PERIOD))
            }
        };
        if let Some(status) = aggregation::with_condition(object, &condition)? {
            perform(client, Some(object), vec![Action::Status(status)]).await?;
        }
        if service.spec.service.is_some() && condition["status"] == "True" {
            core.refresh_openapi(name, &service).await;
        }
        Ok(next)
    }
}

#[async_trait]
impl Controller for ApiServices {
    fn name(&self) -> &'static str {
        "apiservice-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        let behind = |namespace: &str, name: &str, keys: &mut Vec<Key>| {
            for object in event.snapshot.range(API_SERVICES, None, None) {
                if remote(object).is_some_and(|place| place.namespace == namespace && place.name == name) {
                    keys.push(object.key.clone());
                }
            }
        };
        match event.resource {
            API_SERVICES => {
                keys.extend(event.key().cloned());
                if event.new.is_none() {
                    keys.push(registration());
                }
            }
            DEFINITIONS => keys.push(registration()),
            "services" => {
                if let Some(key) = event.key() {
                    behind(&key.namespace, &key.name, keys);
                }
            }
            SLICES => {
                for slice in event.versions() {
                    if let Some(name) = slice.meta.labels.as_slice().label(SERVICE_NAME) {
                        behind(&slice.key.namespace, name, keys);
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        keys.push(registration());
        every(snapshot, API_SERVICES, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        if *key == registration() {
            for action in register(&snapshot) {
                match perform(client, None, vec![action]).await {
                    Err(status) if status.code == 409 => {}
                    result => result?,
                }
            }
            return Ok(Next::Idle);
        }
        match snapshot.get(key) {
            Some(object) => self.look(&snapshot, &object).await,
            None => {
                client.core().aggregation.forget(&key.name);
                Ok(Next::Idle)
            }
        }
    }
}
