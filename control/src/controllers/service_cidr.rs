//! Ranges and addresses of Services (Kubernetes' service-cidr-controller, and the repair loop of its API server).
//!
//! A ServiceCIDR is ready as soon as it is seen, and when it is deleted it stays until every address in it lies in another range too. An IPAddress that
//! somebody deleted while a Service has it is made again; one that is managed here and whose Service does not have it goes.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::View;
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    resources::{
        networking::address::{DEFAULT, IP_ADDRESSES, MANAGED_BY, SERVICE_CIDRS, for_service},
        rules::syntax,
    },
    view::{Condition, Headed, Map, Text, condition, parse, stamp},
};
use coracle_store::{Key, Object, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// An address without its Service is younger than the Service may be.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// See the module.
pub struct ServiceCidrs {
    context: Context,
    repair: Context,
    default: String,
}

impl ServiceCidrs {
    /// Acting as `service-cidrs-controller`; `default` is the range that the cluster was made with.
    pub fn new(context: &Context, default: String) -> Self {
        Self { context: context.acting_as("service-cidrs-controller"), repair: context.clone(), default }
    }
}

type ServiceCidr<'a> = View<'a, CidrSpec<'a>, CidrStatus<'a>>;
#[derive(Deserialize, Default)]
#[serde(default)]
struct CidrSpec<'a> {
    #[serde(borrow)]
    cidrs: Vec<Text<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct CidrStatus<'a> {
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
}
type Address<'a> = View<'a, AddressSpec<'a>>;
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AddressSpec<'a> {
    #[serde(borrow)]
    parent_ref: Option<Parent<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Parent<'a> {
    #[serde(borrow)]
    group: Text<'a>,
    resource: Text<'a>,
    namespace: Text<'a>,
    name: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Service<'a> {
    #[serde(borrow)]
    spec: ServiceSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec<'a> {
    #[serde(borrow, rename = "clusterIPs")]
    cluster_ips: Vec<Text<'a>>,
}

type Range = (IpAddr, u8);

fn ranges(cidr: &ServiceCidr<'_>) -> Vec<Range> {
    cidr.spec.cidrs.iter().filter_map(|text| syntax::range(text)).collect()
}

/// Whether managed addresses would be left without any range if this one went. `others` are the ranges of all others.
fn still_needed(own: &[Range], others: &[Range], mut addresses: impl Iterator<Item = IpAddr>) -> bool {
    let covered = |range: &Range| others.iter().any(|other| syntax::lies_in(range.0, *other) && other.1 <= range.1);
    if own.iter().all(covered) {
        return false;
    }
    let within = |ip: IpAddr, ranges: &[Range]| ranges.iter().any(|range| syntax::lies_in(ip, *range));
    addresses.any(|ip| within(ip, own) && !within(ip, others))
}

/// What a look at one range decides.
fn decide(key: &Key, cidr: &ServiceCidr<'_>, needed: impl FnOnce() -> bool, now: Timestamp) -> Vec<Action> {
    let held = cidr.metadata.has_finalizer(FINALIZER);
    let others = cidr.metadata.finalizers.iter().filter(|f| ***f != *FINALIZER).map(|f| f.to_string());
    let finalizers = |list: Vec<String>| {
        let patch = json!({"metadata": {"resourceVersion": cidr.metadata.resource_version, "finalizers": list}});
        Action::Patch { key: key.clone(), subresource: "", patch }
    };
    if cidr.metadata.deleting() {
        if !needed() {
            return if held { vec![finalizers(others.collect())] } else { Vec::new() };
        }
        const WHY: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        return ready(key, cidr, "False", "Terminating", WHY, now).into_iter().collect();
    }
    let mut actions = Vec::new();
    actions.extend(ready(key, cidr, "True", "", "Kubernetes Service CIDR is ready", now));
    if !held {
        // The status is written first: this write's precondition would fail it.
        actions.push(Action::Patch {
            key: key.clone(),
            subresource: "",
            patch: json!({"metadata": {"finalizers": others.chain([FINALIZER.to_string()]).collect::<Vec<_>>()}}),
        });
    }
    actions
}

fn ready(key: &Key, cidr: &ServiceCidr<'_>, status: &str, reason: &str, message: &str, now: Timestamp) -> Option<Action> {
    let is = condition(&cidr.status.conditions, "Ready");
    if is.is_some_and(|is| is.status == status && is.reason == reason && is.message == message) {
        return None;
    }
    let since = is.filter(|is| is.status == status).map_or_else(|| stamp(now), |is| is.last_transition_time.to_string());
    let mut conditions: Vec<Value> = cidr.status.conditions.iter().filter(|c| c.kind != "Ready").map(Condition::to_json).collect();
    conditions.push(json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": since}));
    Some(Action::Patch { key: key.clone(), subresource: "status", patch: json!({"status": {"conditions": conditions}}) })
}

fn managed(labels: &Map<'_>) -> bool {
    labels.get(MANAGED_BY.0).is_some_and(|by| **by == *MANAGED_BY.1)
}

/// The Service that an address belongs to.
fn service_of(address: &Address<'_>) -> Option<Key> {
    let parent = address.spec.parent_ref.as_ref().filter(|parent| parent.group.is_empty() && *parent.resource == *"services")?;
    Some(Key::new("services", &*parent.namespace, &*parent.name))
}

fn has(snapshot: &Snapshot, service: &Key, ip: &str) -> bool {
    let view = snapshot.get(service);
    view.is_some_and(|service| parse::<Service<'_>>(&service).is_ok_and(|service| service.spec.cluster_ips.iter().any(|its| **its == *ip)))
}

impl ServiceCidrs {
    async fn cidr(&self, key: &Key, snapshot: &Snapshot) -> Result<(), Status> {
        let client = &self.context.client;
        let Some(object) = snapshot.get(key) else {
            if &*key.name != DEFAULT {
                return Ok(());
            }
            // Services need some range; the one the cluster was made with comes back.
            let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT}, "spec": {"cidrs": [self.default]}});
            return match self.repair.client.create(SERVICE_CIDRS, "", object).await {
                Err(status) if status.reason != "AlreadyExists" => Err(status),
                _ => Ok(()),
            };
        };
        let cidr: ServiceCidr<'_> = parse(&object)?;
        let mut others = Vec::new();
        for other in snapshot.range(SERVICE_CIDRS, None, None).filter(|other| other.key != *key) {
            others.extend(ranges(&parse(other)?));
        }
        let addresses = || {
            let ours = |object: &&std::sync::Arc<Object>| object.meta.labels.iter().any(|(k, v)| **k == *MANAGED_BY.0 && **v == *MANAGED_BY.1);
            snapshot.range(IP_ADDRESSES, None, None).filter(ours).filter_map(|object| object.key.name.parse().ok())
        };
        let actions = decide(key, &cidr, || still_needed(&ranges(&cidr), &others, addresses()), self.context.now());
        perform(client, Some(&object), actions).await
    }

    async fn address(&self, key: &Key, snapshot: &Snapshot) -> Result<Next, Status> {
        let client = &self.repair.client;
        if let Some(object) = snapshot.get(key) {
            let address: Address<'_> = parse(&object)?;
            let orphan = managed(&address.metadata.labels) && service_of(&address).is_some_and(|service| !has(snapshot, &service, &key.name));
            if !orphan {
                return Ok(Next::Idle);
            }
            let left = GRACE - self.repair.now().duration_since(address.metadata.created());
            if left.is_positive() {
                return Ok(Next::After(Duration::try_from(left).unwrap_or_default()));
            }
            let delete = Action::Delete { key: key.clone(), uid: address.metadata.uid.to_string(), propagation: None, grace: None };
            return perform(client, None, vec![delete]).await.map(|()| Next::Idle);
        }
        let Ok(ip) = key.name.parse::<IpAddr>() else { return Ok(Next::Idle) };
        let holder = snapshot.range("services", None, None).find(|service| has(snapshot, &service.key, &key.name));
        if let Some(holder) = holder {
            tracing::warn!(address = %key.name, service = %holder.key, "a Service's address was deleted; making it again");
            match client.create(IP_ADDRESSES, "", for_service(&ip, &holder.key.namespace, &holder.key.name)).await {
                Err(status) if status.reason != "AlreadyExists" => return Err(status),
                _ => {}
            }
        }
        Ok(Next::Idle)
    }
}

#[async_trait]
impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            SERVICE_CIDRS => {
                every(event.snapshot, SERVICE_CIDRS, keys);
                keys.extend(event.prev.filter(|_| event.new.is_none()).map(|prev| prev.key.clone()));
            }
            IP_ADDRESSES => {
                let Some(object) = event.new.or(event.prev) else { return };
                let service = parse::<Address<'_>>(object).ok().and_then(|address| service_of(&address));
                let there = service.is_some_and(|service| event.snapshot.get(&service).is_some());
                // Deleted while its Service is there, or made while it is not.
                if there == event.new.is_none() {
                    keys.push(object.key.clone());
                }
                if event.new.is_none() {
                    let ending = |cidr: &&std::sync::Arc<Object>| parse::<Headed<'_>>(cidr).is_ok_and(|cidr| cidr.metadata.deleting());
                    keys.extend(event.snapshot.range(SERVICE_CIDRS, None, None).filter(ending).map(|cidr| cidr.key.clone()));
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, SERVICE_CIDRS, keys);
        every(snapshot, IP_ADDRESSES, keys);
        keys.push(Key::new(SERVICE_CIDRS, "", DEFAULT));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        match &*key.resource {
            SERVICE_CIDRS => self.cidr(key, &snapshot).await.map(|()| Next::Idle),
            _ => self.address(key, &snapshot).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    fn range(text: &str) -> Range {
        syntax::range(text).expect("range")
    }

    #[test]
    fn a_range_is_needed_while_addresses_lie_in_it_alone() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let own = [range("10.1.0.0/24")];
        assert!(still_needed(&own, &[], [ip("10.1.0.5")].into_iter()));
        assert!(!still_needed(&own, &[], [ip("10.2.0.5")].into_iter()));
        assert!(!still_needed(&own, &[range("10.1.0.0/16")], [ip("10.1.0.5")].into_iter()), "within a larger one");
        assert!(!still_needed(&own, &[range("10.1.0.0/28")], [ip("10.1.0.5")].into_iter()), "in both");
        assert!(still_needed(&own, &[range("10.1.0.0/28")], [ip("10.1.0.50")].into_iter()));
    }

    #[test]
    fn a_range_is_ready_and_held_until_it_is_free() {
        let key = Key::new(SERVICE_CIDRS, "", "more");
        let now = "2026-01-02T03:04:05Z".parse().expect("time");
        let actions = |json: &str, needed: bool| decide(&key, &parse_bytes(json.as_bytes()).expect("range"), || needed, now);
        let patches = |actions: Vec<Action>| -> Vec<Value> {
            actions
                .into_iter()
                .map(|action| match action {
                    Action::Patch { patch, .. } => patch,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        let new = patches(actions(r#"{"metadata":{}}"#, true));
        assert_eq!(new[0]["status"]["conditions"][0]["status"], "True");
        assert_eq!(new[1], json!({"metadata": {"finalizers": [FINALIZER]}}));
        let held = r#"{"metadata":{"deletionTimestamp":"t","resourceVersion":"7","finalizers":["networking.k8s.io/service-cidr-finalizer"]}}"#;
        assert_eq!(patches(actions(held, true))[0]["status"]["conditions"][0]["reason"], "Terminating");
        assert_eq!(patches(actions(held, false)), [json!({"metadata": {"resourceVersion": "7", "finalizers": []}})]);
    }
}
