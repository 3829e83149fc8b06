//! IPAddress, which is a reservation that can be seen, and ServiceCIDR, a range that Services get their addresses from (KEP-1880).

use super::path_name;
use crate::{
    pipeline::metadata,
    resources::{
        Cx, Hooks, age,
        cells::{self, AGE, Heading, NAME, list, text_or},
        rules::{At, Causes, syntax},
        simple::Simple,
    },
};
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Resource id of IPAddress.
pub const IP_ADDRESSES: &str = "ipaddresses.networking.k8s.io";
/// Resource id of ServiceCIDR.
pub const SERVICE_CIDRS: &str = "servicecidrs.networking.k8s.io";
/// The ServiceCIDR with the ranges that the cluster was made with.
pub const DEFAULT: &str = "kubernetes";
/// Who made an address: the allocator of Services' addresses, by upstream's name.
pub const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// `ipaddresses.networking.k8s.io`
pub const IP_ADDRESS: Simple =
    Simple::new(&[NAME, ("ParentRef", "What it belongs to.")], |address| vec![cells::name(address), parent(address).into()], ip_address);

fn parent(address: &Value) -> String {
    let parent = &address["spec"]["parentRef"];
    if !parent.is_object() {
        return "<none>".into();
    }
    let (resource, group) = (text_or(&parent["resource"], ""), text_or(&parent["group"], ""));
    let mut shown = if group.is_empty() { resource } else { format!("{resource}.{group}") }.to_lowercase();
    for field in ["namespace", "name"] {
        if let Some(part) = parent[field].as_str().filter(|part| field == "name" || !part.is_empty()) {
            shown.push('/');
            shown.push_str(part);
        }
    }
    shown
}

pub(in crate::resources) fn ip_address(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let parent = spec.field("parentRef");
    if !parent.is_set() {
        parent.missing(causes, "");
    } else {
        parent.field("group").optional_syntax(causes, names::dns_subdomain);
        path_name(&parent.field("resource"), causes);
        path_name(&parent.field("name"), causes);
        parent.field("namespace").optional_syntax(causes, names::path_segment);
    }
    if let Some(old) = old {
        parent.immutable(causes, &old["spec"]["parentRef"]);
    }
}

/// The object that reserves an address for a Service, in canonical form: no group is the core group.
pub fn for_service(ip: &IpAddr, namespace: &str, name: &str) -> Value {
    let (key, managed_by) = MANAGED_BY;
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip.to_string(), "labels": {key: managed_by, "ipaddress.kubernetes.io/ip-family": if ip.is_ipv4() { "IPv4" } else { "IPv6" }}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// Whether an IPAddress belongs to this Service.
pub fn belongs_to(address: &Value, namespace: &str, name: &str) -> bool {
    let parent = &address["spec"]["parentRef"];
    text_or(&parent["group"], "").is_empty() && parent["resource"] == "services" && parent["namespace"] == namespace && parent["name"] == name
}

/// Hooks of `servicecidrs.networking.k8s.io`.
pub struct ServiceCidr;

const HEADINGS: &[Heading] = &[NAME, ("CIDRs", "The ranges."), AGE];

impl Hooks for ServiceCidr {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            metadata::keep(old, new);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if cx.subresource().is_empty() {
            service_cidr(old, new, causes);
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let cidrs: Vec<&str> = list(&object["spec"]["cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![cells::name(object), cidrs.join(",").into(), age::of(object)]
    }
}

pub(in crate::resources) fn service_cidr(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let cidrs = spec.field("cidrs");
    let Some(old) = old else {
        ranges(&cidrs, causes);
        return;
    };
    // One range may get a twin of the other family; nothing else changes.
    let before = list(&old["spec"]["cidrs"]);
    let grown = before.len() == 1 && cidrs.len() == 2;
    if before.len() != cidrs.len() && !grown {
        cidrs.invalid(causes, "field is immutable");
        return;
    }
    for (at, before) in cidrs.items().zip(before) {
        at.immutable(causes, before);
    }
    if grown {
        ranges(&cidrs, causes);
    }
}

fn ranges(cidrs: &At<'_, '_>, causes: &mut Causes) {
    if cidrs.is_empty() {
        cidrs.missing(causes, "at least one CIDR required");
        return;
    }
    if cidrs.len() > 2 {
        cidrs.invalid(causes, "may only hold up to 2 values");
        return;
    }
    for at in cidrs.items() {
        at.syntax(causes, syntax::canonical_cidr);
    }
    let family = |at: At<'_, '_>| syntax::range(at.text()).map(|(address, _)| address.is_ipv4());
    if cidrs.len() == 2 && family(cidrs.index(0)).is_some_and(|first| family(cidrs.index(1)) == Some(first)) {
        cidrs.invalid(causes, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

/// Whether addresses may be given from this range: it is ready, and nobody deletes it.
pub fn is_open(cidr: &Value) -> bool {
    !cidr["metadata"]["deletionTimestamp"].is_string() && cells::is_true(&cidr["status"]["conditions"], "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn wrong(rule: fn(Option<&Value>, &Value, &mut Causes), old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn addresses_belong_to_somebody_for_good() {
        let address = for_service(&"10.96.0.7".parse().expect("address"), "n", "web");
        assert_eq!(wrong(ip_address, None, address.clone()), Vec::<String>::new());
        assert!(belongs_to(&address, "n", "web") && !belongs_to(&address, "n", "other"));
        assert_eq!(parent(&address), "services/n/web");
        assert_eq!(
            parent(&json!({"spec": {"parentRef": {"group": "gateway.networking.k8s.io", "resource": "Gateways", "name": "g"}}})),
            "gateways.gateway.networking.k8s.io/g"
        );
        assert_eq!(wrong(ip_address, None, json!({"spec": {}})), ["spec.parentRef: Required value"]);
        let mut moved = address.clone();
        moved["spec"]["parentRef"]["name"] = "other".into();
        assert_eq!(wrong(ip_address, Some(address), moved).len(), 1);
    }

    #[test]
    fn ranges_are_canonical_and_fixed() {
        let cidrs = |list: &[&str]| json!({"spec": {"cidrs": list}});
        assert_eq!(wrong(service_cidr, None, cidrs(&["10.0.0.0/24", "2001:db8::/64"])), Vec::<String>::new());
        assert_eq!(wrong(service_cidr, None, cidrs(&[])), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert_eq!(
            wrong(service_cidr, None, cidrs(&["10.0.0.0/24", "10.0.1.1/24"])),
            [
                "spec.cidrs[1]: Invalid value: \"10.0.1.1/24\": must not have bits set beyond the prefix length",
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.1/24\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ]
        );
        assert_eq!(wrong(service_cidr, Some(cidrs(&["10.0.0.0/24"])), cidrs(&["10.0.0.0/24", "2001:db8::/64"])), Vec::<String>::new());
        assert_eq!(
            wrong(service_cidr, Some(cidrs(&["10.0.0.0/24"])), cidrs(&["10.0.1.0/24"])),
            ["spec.cidrs[0]: Invalid value: \"10.0.1.0/24\": field is immutable"]
        );
        assert_eq!(
            wrong(service_cidr, Some(cidrs(&["10.0.0.0/24", "2001:db8::/64"])), cidrs(&["10.0.0.0/24"])),
            ["spec.cidrs: Invalid value: [\"10.0.0.0/24\"]: field is immutable"]
        );
    }

    #[test]
    fn only_open_ranges_give_addresses() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_open(&ready));
        let mut ending = ready.clone();
        ending["metadata"]["deletionTimestamp"] = "t".into();
        assert!(!is_open(&ending));
        assert!(!is_open(&json!({})));
    }
}
