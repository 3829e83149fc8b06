//! What a claim was given, and who may say so.

use super::{
    MAX_CONFIG, MAX_REQUESTS, admin_namespace, binding_conditions, bounded,
    claim::{self, Requests},
    itself, label, pool_name, raw, set, uid,
};
use crate::{
    auth::{Attributes, Decision, User},
    resources::{
        Cx,
        cells::{list, text_or},
        pod::scheduling::node_selector,
        rules::{At, Causes, conditions},
        volume::source::driver_name,
    },
};
use coracle_api::status::{Cause, Status};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_IPS: usize = 16;
/// The node that a pod's token was made for.
const NODE_OF_TOKEN: &str = "authentication.kubernetes.io/node-name";

/// Driver, pool, name, and which share of it.
type Device<'v> = [&'v str; 4];

fn device(value: &Value) -> Device<'_> {
    ["driver", "pool", "device", "shareID"].map(|field| value[field].as_str().unwrap_or_default())
}

fn shown(value: &Value) -> String {
    let parts = device(value);
    parts[..if parts[3].is_empty() { 3 } else { 4 }].join("/")
}

fn results(claim: &Value) -> &[Value] {
    list(&claim["status"]["allocation"]["devices"]["results"])
}

/// What is told about devices that the claim has no longer goes with them.
pub(super) fn drop_deallocated(old: &Value, new: &mut Value) {
    let kept: BTreeSet<Device<'_>> = results(new).iter().map(device).collect();
    let gone: BTreeSet<Device<'_>> = results(old).iter().map(device).filter(|device| !kept.contains(device)).collect();
    let left: Vec<Value> = list(&new["status"]["devices"]).iter().filter(|told| !gone.contains(&device(told))).cloned().collect();
    if let Some(status) = new["status"].as_object_mut() {
        match left.is_empty() {
            true => status.remove("devices"),
            false => status.insert("devices".into(), left.into()),
        };
    }
}

/// Administrators' access is given only in namespaces made for it.
pub(super) fn admin_access(cx: &Cx<'_>, old: &Value, new: &Value, causes: &mut Causes) {
    let granted = |claim: &Value| results(claim).iter().position(|result| result["adminAccess"] == true);
    if let (None, Some(place)) = (granted(old), granted(new)) {
        admin_namespace(cx, &format!("status.allocation.devices.results[{place}].adminAccess"), causes);
    }
}

/// Who allocates needs `resourceclaims/binding`; a driver that tells of its devices needs `resourceclaims/driver` by its name, for its own node or all.
pub(super) fn authorized(cx: &Cx<'_>, old: &Value, new: &Value, causes: &mut Causes) {
    let verb = cx.request.verb.as_str();
    let ask = |verb: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb,
            group: "resource.k8s.io",
            version: "v1",
            resource: "resourceclaims",
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        match cx.core.auth.authorize(cx.user(), &attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => Err(Status::forbidden("resource.k8s.io", "resourceclaims", name, &reason).message),
        }
    };
    let mut refuse = |field: &str, message: String| {
        causes.push(Cause { reason: "FieldValueForbidden".into(), message: format!("Forbidden: {message}"), field: field.into() });
    };
    let (is, was) = (&new["status"], &old["status"]);
    if (is["allocation"] != was["allocation"] || is["reservedFor"] != was["reservedFor"])
        && let Err(why) = ask(verb, "binding", "", "")
    {
        let needs =
            format!("changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb={verb:?} permission: {why}");
        refuse("status.allocation", needs);
    }
    if is["allocation"].is_null() {
        return;
    }
    let (own, any) = (format!("associated-node:{verb}"), format!("arbitrary-node:{verb}"));
    let verbs = if on_node(cx.user(), &is["allocation"]) { vec![own.as_str(), &any] } else { vec![any.as_str()] };
    for driver in changed_drivers(was, is) {
        let mut refusals = verbs.iter().map(|verb| ask(verb, "driver", &cx.request.namespace, driver).err());
        if let Some(Some(why)) = refusals.clone().all(|refusal| refusal.is_some()).then(|| refusals.next().flatten()) {
            refuse(
                "status.devices",
                format!("changing status.devices requires resource=\"resourceclaims/driver\", verb=\"{verbs:?}\" permission: {why}"),
            );
        }
    }
}

/// Drivers of whose devices something else is told than before.
fn changed_drivers<'v>(was: &'v Value, is: &'v Value) -> BTreeSet<&'v str> {
    let by_device =
        |status: &'v Value| -> BTreeMap<Device<'v>, &'v Value> { list(&status["devices"]).iter().map(|told| (device(told), told)).collect() };
    let (was, is) = (by_device(was), by_device(is));
    was.keys().chain(is.keys()).filter(|device| was.get(*device) != is.get(*device)).map(|device| device[0]).collect()
}

/// Whether a service account's token was made for a pod of the node where the claim's devices are.
fn on_node(user: &User, allocation: &Value) -> bool {
    let [term] = list(&allocation["nodeSelector"]["nodeSelectorTerms"]) else { return false };
    let [field] = list(&term["matchFields"]) else { return false };
    let exact = list(&term["matchExpressions"]).is_empty() && field["key"] == "metadata.name" && field["operator"] == "In";
    let ([node], Some(of_token)) = (list(&field["values"]), user.extra.iter().find(|(key, _)| *key == NODE_OF_TOKEN)) else { return false };
    exact && user.name.starts_with("system:serviceaccount:") && matches!(&of_token.1[..], [name] if node == name)
}

pub(super) fn validate(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    let (reserved, allocation) = (status.field("reservedFor"), status.field("allocation"));
    set(
        &reserved,
        MAX_RESERVED,
        causes,
        |consumer| text_or(&consumer["uid"], ""),
        |consumer, causes| {
            for field in ["resource", "name", "uid"] {
                consumer.field(field).required(causes, "");
            }
        },
    );
    let allocated: BTreeSet<Device<'_>> = results(new).iter().map(device).collect();
    set(&status.field("devices"), usize::MAX, causes, shown, |told, causes| device_status(told, &allocated, causes));
    if !reserved.is_empty() {
        let before = list(&old["status"]["reservedFor"]);
        if !allocation.is_set() {
            reserved.forbidden(causes, "may not be specified when `allocated` is not set");
        } else if new["metadata"]["deletionTimestamp"].is_string() && list(reserved.value).iter().any(|consumer| !before.contains(consumer)) {
            reserved.forbidden(causes, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
        }
    }
    let before = &old["status"]["allocation"];
    match (before.is_null(), allocation.is_set()) {
        (false, true) => allocation.immutable(causes, before),
        (true, true) => allocated_now(&allocation, &claim::requests(&new["spec"]), causes),
        _ => {}
    }
}

fn allocated_now(allocation: &At<'_, '_>, requests: &Requests<'_>, causes: &mut Causes) {
    let devices = allocation.field("devices");
    bounded(&devices.field("results"), MAX_RESULTS, causes, |result, causes| {
        claim::reference(&result.field("request"), requests, causes);
        identity(result, causes);
        binding_conditions(result, causes);
    });
    bounded(&devices.field("config"), 2 * MAX_CONFIG, causes, |config, causes| {
        config.field("source").required_one_of(causes, &["FromClaim", "FromClass"]);
        set(&config.field("requests"), MAX_REQUESTS, causes, itself, |name, causes| claim::reference(name, requests, causes));
        claim::configuration(config, causes);
    });
    let selector = allocation.field("nodeSelector");
    if selector.is_set() {
        node_selector(&selector, causes);
    }
}

fn identity(at: &At<'_, '_>, causes: &mut Causes) {
    driver_name(&at.field("driver"), causes);
    pool_name(&at.field("pool"), causes);
    label(&at.field("device"), causes);
    let share = at.field("shareID");
    if share.is_set() {
        uid(&share, causes);
    }
}

fn device_status(told: &At<'_, '_>, allocated: &BTreeSet<Device<'_>>, causes: &mut Causes) {
    identity(told, causes);
    if !allocated.contains(&device(told.value)) {
        told.invalid_value(causes, shown(told.value), "must be an allocated device in the claim");
    }
    let all = told.field("conditions");
    if all.len() > MAX_CONDITIONS {
        all.too_many(causes, MAX_CONDITIONS);
    }
    conditions::validate(&all, causes);
    let data = told.field("data");
    if data.is_set() {
        raw(&data, causes);
    }
    let network = told.field("networkData");
    for (field, max) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        let field = network.field(field);
        if field.len() > max {
            field.too_long(causes, max);
        }
    }
    set(&network.field("ips"), MAX_IPS, causes, itself, |ip, causes| ip.syntax(causes, interface_address));
}

/// `10.9.8.7/24`
fn interface_address(value: &str) -> Vec<String> {
    let parts = value.split_once('/').and_then(|(ip, bits)| Some((ip.parse::<std::net::IpAddr>().ok()?, bits.parse::<u8>().ok()?)));
    match parts.filter(|(ip, bits)| *bits <= if ip.is_ipv4() { 32 } else { 128 }) {
        None => vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".into()],
        Some((ip, bits)) if format!("{ip}/{bits}") == value => Vec::new(),
        Some((ip, bits)) => vec![format!("must be in canonical form (\"{ip}/{bits}\")")],
    }
}
