//! EndpointSlice: addresses and ports behind a service.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, first_three, list, text_or},
    rules::{At, Causes, syntax},
    service::special_address,
};
use coracle_api::{names, registry::Column, status::Cause};
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr};

/// Hooks of `endpointslices.discovery.k8s.io`.
pub struct EndpointSlice;

const HEADINGS: &[Heading] =
    &[NAME, ("AddressType", "What its addresses are."), ("Ports", "Ports of every endpoint."), ("Endpoints", "Addresses of the endpoints."), AGE];

impl Hooks for EndpointSlice {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        check(old, new, loopback_pods(cx), causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

/// Whether pods may be on loopback addresses: an ordinary user's cluster has them on 127/8.
pub(super) fn loopback_pods(cx: &Cx<'_>) -> bool {
    let base = cx.core.config.pod_cidr.split('/').next().and_then(|base| base.parse::<IpAddr>().ok());
    base.is_some_and(|base| base.is_loopback())
}

fn row(slice: &Value) -> Vec<Value> {
    let port = |port: &Value| port["port"].as_i64().map_or_else(|| text_or(&port["name"], "*"), |number| number.to_string());
    let ports: Vec<String> = list(&slice["ports"]).iter().map(port).collect();
    let addresses: Vec<String> =
        list(&slice["endpoints"]).iter().flat_map(|endpoint| list(&endpoint["addresses"])).filter_map(Value::as_str).map(str::to_string).collect();
    vec![cells::name(slice), text_or(&slice["addressType"], "").into(), first_three(&ports).into(), first_three(&addresses).into(), age::of(slice)]
}

#[cfg(test)]
pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    check(old, new, false, causes);
}

fn check(old: Option<&Value>, new: &Value, loopback_pods: bool, causes: &mut Causes) {
    let root = At::root(new);
    let kind = root.field("addressType");
    if let Some(old) = old {
        kind.immutable(causes, &old["addressType"]);
    }
    kind.required_one_of(causes, &["IPv4", "IPv6", "FQDN"]);
    let endpoints = root.field("endpoints");
    if endpoints.len() > 1000 {
        endpoints.too_many(causes, 1000);
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.is_empty() {
            addresses.missing(causes, "must contain at least 1 address");
        } else if addresses.len() > 100 {
            addresses.too_many(causes, 100);
        }
        for at in addresses.items() {
            address(kind.text(), &at, loopback_pods, causes);
        }
        endpoint.field("hostname").optional_syntax(causes, names::dns_label);
        endpoint.field("nodeName").optional_syntax(causes, names::dns_subdomain);
    }
    let ports = root.field("ports");
    if ports.len() > 20_000 {
        ports.too_many(causes, 20_000);
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        name.optional_syntax(causes, names::dns_label);
        if !seen.insert(name.text()) {
            name.duplicate_value(causes, name.text());
        }
        port.field("protocol").one_of(causes, &["SCTP", "TCP", "UDP"]);
        port.field("appProtocol").optional_syntax(causes, names::qualified_name);
    }
}

fn address(kind: &str, at: &At<'_, '_>, loopback_pods: bool, causes: &mut Causes) {
    match (kind, at.text().parse::<IpAddr>()) {
        ("FQDN", _) => at.syntax(causes, names::dns_subdomain),
        ("IPv4", Ok(IpAddr::V4(ip))) if loopback_pods && ip.is_loopback() => {}
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => special_address(at, causes),
        ("IPv4", Ok(_)) => at.invalid(causes, "must be an IPv4 address"),
        ("IPv6", Ok(_)) => at.invalid(causes, "must be an IPv6 address"),
        _ => at.syntax(causes, syntax::ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn rows_name_the_first_three() {
        let slice = json!({"metadata": {"name": "web-abc"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]});
        assert_eq!(cells::golden(&row(&slice), "2026-01-02T03:04:05Z"), "web-abc | IPv4 | 80 | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | <unknown>");
        assert_eq!(cells::golden(&row(&json!({})), "2026-01-02T03:04:05Z"), "null |  | <unset> | <unset> | <unknown>");
    }

    #[test]
    fn rules() {
        let mut causes = Vec::new();
        let slice =
            json!({"addressType": "IPv4", "ports": [{"name": "a"}, {"name": "a"}], "endpoints": [{}, {"addresses": ["127.0.0.1", "::1", "x"]}]});
        validate(Some(&json!({"addressType": "IPv6"})), &slice, &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "addressType: Invalid value: \"IPv4\": field is immutable",
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                "endpoints[1].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "endpoints[1].addresses[1]: Invalid value: \"::1\": must be an IPv4 address",
                "endpoints[1].addresses[2]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "ports[1].name: Duplicate value: \"a\"",
            ]
        );
    }
}
