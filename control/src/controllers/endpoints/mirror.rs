//! EndpointSlices for Endpoints that users write for Services without a selector (Kubernetes' endpointslicemirroring-controller).
//!
//! One slice for each address family of a subset. A slice whose ports are no longer wanted is used again for new ones of its family before it is deleted, so
//! that an update of the Endpoints is an update of the slice.

use super::{Address, Endpoints, Subset, pack};
use crate::controllers::{
    Context,
    action::{Action, perform},
    endpoint_slice::{
        ENDPOINTS, SERVICES, SLICES,
        endpoints::{Port, Service},
        slices::{MANAGED_BY, Meta, SERVICE_NAME, replaced},
    },
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{Owner, Text, parse, selector::Labelled};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// The value of the label that says who writes a slice.
pub const OURS: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were once used as a lock are not anybody's addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that speak of the Endpoints object itself.
const NOT_MIRRORED: [&str; 2] = ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of one subset that are mirrored.
const MOST: usize = 1000;

/// See the module.
pub struct Mirroring {
    context: Context,
}

impl Mirroring {
    /// Acting as `endpointslicemirroring-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("endpointslicemirroring-controller") }
    }
}

/// A stored slice, as far as it is compared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Slice {
    metadata: Meta,
    address_type: String,
    endpoints: Vec<Value>,
    ports: Vec<Port>,
}

fn mirrored(slice: &Object) -> bool {
    slice.meta.labels.as_slice().label(MANAGED_BY) == Some(OURS)
}

#[async_trait]
impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            ENDPOINTS => keys.extend(event.key().cloned()),
            SERVICES => {
                // A Service may come after its Endpoints, and may lose its selector or get one.
                let key = event.key().map(|key| Key::new(ENDPOINTS, key.namespace.clone(), key.name.clone()));
                keys.extend(key.filter(|key| event.snapshot.get(key).is_some()));
            }
            SLICES => {
                for slice in event.versions().filter(|slice| mirrored(slice)) {
                    if let Some(name) = slice.meta.labels.as_slice().label(SERVICE_NAME) {
                        keys.push(Key::new(ENDPOINTS, slice.key.namespace.clone(), name));
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, ENDPOINTS, keys);
        for slice in snapshot.range(SLICES, None, None).filter(|slice| mirrored(slice)) {
            let name = slice.meta.labels.as_slice().label(SERVICE_NAME);
            keys.extend(name.map(|name| Key::new(ENDPOINTS, slice.key.namespace.clone(), name)));
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let ours = |slice: &&Arc<Object>| mirrored(slice) && slice.meta.labels.as_slice().label(SERVICE_NAME) == Some(&*key.name);
        let existing: Vec<Arc<Object>> = snapshot.range(SLICES, Some(&key.namespace), None).filter(ours).cloned().collect();
        let existing = existing.iter().map(|slice| parse(slice)).collect::<Result<Vec<Slice>, _>>()?;
        let object = snapshot.get(key);
        let endpoints: Option<Endpoints> = object.as_deref().map(parse).transpose()?;
        let service = snapshot.get(&Key::new(SERVICES, key.namespace.clone(), key.name.clone()));
        let selecting = match &service {
            Some(service) => !parse::<Service<'_>>(service)?.spec.selector.is_empty(),
            None => true,
        };
        let wanted = endpoints.filter(|endpoints| !selecting && !skipped(endpoints));
        perform(client, object.as_deref(), plan(&key.namespace, wanted, existing)).await?;
        Ok(Next::Idle)
    }
}

fn skipped(Endpoints { metadata, .. }: &Endpoints) -> bool {
    metadata.labels.get(SKIP).is_some_and(|skip| skip == "true") || metadata.annotations.contains_key(LEADER) || metadata.deletion_timestamp.is_some()
}

/// An address as an endpoint of a slice, and its family; None if it is no address.
fn endpoint(address: Address, ready: bool) -> Option<(&'static str, Value)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
    let hostname = (!address.hostname.is_empty()).then(|| address.hostname.into());
    for (field, value) in [("hostname", hostname), ("nodeName", address.node_name.map(Value::from)), ("targetRef", address.target_ref)] {
        if let Some(value) = value {
            endpoint[field] = value;
        }
    }
    Some((if ip.is_ipv4() { "IPv4" } else { "IPv6" }, endpoint))
}

/// Endpoints by the family and ports of their slice.
type Groups = BTreeMap<(&'static str, Vec<Port>), Vec<Value>>;

/// What the slices shall hold, by family and ports, and words about what is left out.
fn wanted(subsets: Vec<Subset>) -> (Groups, Vec<Action>) {
    let (mut groups, mut events) = (BTreeMap::new(), Vec::new());
    let (mut invalid, mut skipped) = (0, 0);
    for subset in pack(subsets) {
        let ready = subset.addresses.into_iter().map(|address| (address, true));
        let mut taken = 0;
        for (address, ready) in ready.chain(subset.not_ready_addresses.into_iter().map(|address| (address, false))) {
            if taken == MOST {
                skipped += 1;
                continue;
            }
            let Some((family, endpoint)) = endpoint(address, ready) else {
                invalid += 1;
                continue;
            };
            taken += 1;
            groups.entry((family, subset.ports.clone())).or_insert_with(Vec::new).push(endpoint);
        }
    }
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        events.push(Action::Event { kind: "Warning", reason: "InvalidIPAddress", message });
    }
    if skipped > 0 {
        let skipped = skipped + invalid;
        let message = format!("A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped");
        events.push(Action::Event { kind: "Warning", reason: "TooManyAddressesToMirror", message });
    }
    (groups, events)
}

/// The writes that make the mirrored slices say what the Endpoints say; None wants no slice at all.
fn plan(namespace: &str, endpoints: Option<Endpoints>, existing: Vec<Slice>) -> Vec<Action> {
    let mut left: Vec<Slice> = existing.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut actions = Vec::new();
    if let Some(Endpoints { metadata, subsets }) = endpoints {
        let mut labels = metadata.labels.clone();
        labels.insert(SERVICE_NAME.to_owned(), metadata.name.clone());
        labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
        let mut annotations = metadata.annotations.clone();
        annotations.retain(|key, _| !NOT_MIRRORED.contains(&&**key));
        let owner = Owner {
            api_version: Text::from("v1"),
            kind: Text::from("Endpoints"),
            name: Text::from(&*metadata.name),
            uid: Text::from(&*metadata.uid),
            controller: true,
            block_owner_deletion: true,
        };
        let owners = json!([owner.to_json()]);
        let (groups, events) = wanted(subsets);
        let mut homeless = Vec::new();
        for ((family, ports), endpoints) in groups {
            match left.iter().position(|slice| slice.address_type == family && slice.ports == ports) {
                Some(at) => {
                    let slice = left.remove(at);
                    if slice.endpoints != endpoints || slice.metadata.labels != labels || slice.metadata.annotations != annotations {
                        actions.push((Some(slice), family, ports, endpoints));
                    }
                }
                None => homeless.push((family, ports, endpoints)),
            }
        }
        for (family, ports, endpoints) in homeless {
            let free = left.iter().position(|slice| slice.address_type == family).map(|at| left.remove(at));
            actions.push((free, family, ports, endpoints));
        }
        let mut writes = events;
        for (slice, family, ports, endpoints) in actions {
            writes.push(match slice {
                Some(slice) => {
                    let Meta { name, uid, resource_version, labels: has, annotations: noted, .. } = &slice.metadata;
                    let metadata = json!({
                        "uid": uid, "resourceVersion": resource_version, "labels": replaced(has, &labels), "annotations": replaced(noted, &annotations),
                        "ownerReferences": owners,
                    });
                    let patch = json!({"metadata": metadata, "ports": ports, "endpoints": endpoints});
                    Action::Patch { key: Key::new(SLICES, namespace, &**name), subresource: "", patch }
                }
                None => {
                    let metadata = json!({
                        "generateName": format!("{}-", metadata.name), "namespace": namespace, "labels": labels, "annotations": annotations,
                        "ownerReferences": owners,
                    });
                    let object = json!({
                        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                        "addressType": family, "ports": ports, "endpoints": endpoints,
                    });
                    Action::Create { resource: SLICES, object }
                }
            });
        }
        writes.extend(left.into_iter().map(|slice| gone(namespace, slice)));
        return writes;
    }
    left.into_iter().map(|slice| gone(namespace, slice)).collect()
}

fn gone(namespace: &str, Slice { metadata, .. }: Slice) -> Action {
    Action::Delete { key: Key::new(SLICES, namespace, &*metadata.name), uid: metadata.uid, propagation: None, grace: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(json: Value) -> Endpoints {
        serde_json::from_value(json).expect("endpoints")
    }
    fn slice(object: Value, name: &str) -> Slice {
        let mut slice: Slice = serde_json::from_value(object).expect("a slice");
        slice.metadata.name = name.into();
        slice
    }
    fn made(actions: &[Action]) -> Value {
        match actions {
            [Action::Create { object, .. }] => object.clone(),
            other => panic!("not one creation: {other:?}"),
        }
    }

    #[test]
    fn a_slice_follows_its_endpoints() {
        let mine = |ip: &str, port: i64| {
            endpoints(json!({
                "metadata": {"name": "db", "uid": "e", "labels": {"app": "db"},
                    "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": port, "protocol": "TCP"}]}],
            }))
        };
        let object = made(&plan("n", Some(mine("192.0.2.1", 80)), Vec::new()));
        assert_eq!(object["endpoints"], json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}]));
        assert_eq!(object["metadata"]["labels"], json!({"app": "db", SERVICE_NAME: "db", MANAGED_BY: OURS}));
        assert_eq!(object["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!((&object["addressType"], &object["metadata"]["ownerReferences"][0]["uid"]), (&json!("IPv4"), &json!("e")));

        let stored = slice(object, "db-1");
        assert_eq!(plan("n", Some(mine("192.0.2.1", 80)), vec![stored.clone()]), []);
        let other = plan("n", Some(mine("192.0.2.2", 80)), vec![stored.clone()]);
        assert!(matches!(&*other, [Action::Patch { patch, .. }] if patch["endpoints"][0]["addresses"][0] == "192.0.2.2"), "{other:?}");
        let ports = plan("n", Some(mine("192.0.2.1", 81)), vec![stored.clone()]);
        assert!(matches!(&*ports, [Action::Patch { key, patch, .. }] if patch["ports"][0]["port"] == 81 && &*key.name == "db-1"), "{ports:?}");
        assert!(matches!(&*plan("n", None, vec![stored]), [Action::Delete { .. }]));
    }

    #[test]
    fn families_have_slices_of_their_own() {
        let both = endpoints(json!({
            "metadata": {"name": "db"},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "192.0.2.2", "nodeName": "n1"}]}],
        }));
        let families: Vec<(Value, usize)> = plan("n", Some(both), Vec::new())
            .into_iter()
            .map(|action| match action {
                Action::Create { object, .. } => (object["addressType"].clone(), object["endpoints"].as_array().map_or(0, Vec::len)),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(families, [(json!("IPv4"), 2), (json!("IPv6"), 1)]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let many: Vec<Value> = (0..1002).map(|i| json!({"ip": format!("10.0.{}.{}", i / 250, i % 250)})).collect();
        let (groups, events) = wanted(endpoints(json!({"subsets": [{"addresses": many}]})).subsets);
        assert_eq!(groups.values().map(Vec::len).collect::<Vec<_>>(), [1000]);
        assert!(
            matches!(&*events, [Action::Event { reason: "TooManyAddressesToMirror", message, .. }] if message.ends_with("2 addresses were skipped"))
        );
        for (metadata, skip) in
            [(json!({"labels": {SKIP: "true"}}), true), (json!({"labels": {SKIP: "false"}}), false), (json!({"annotations": {LEADER: "{}"}}), true)]
        {
            assert_eq!(skipped(&endpoints(json!({"metadata": metadata}))), skip);
        }
    }
}
