//! Rules of services.

use super::{is_external, is_headless, kind, needs_health_check};
use crate::resources::{
    networking::ingress::reached_at,
    rules::{
        At, Causes,
        labels::label_map,
        syntax::{cidr, ip},
    },
};
use coracle_api::names;
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(in crate::resources) fn service(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    if let Some(old) = old {
        update(old, new, &spec, causes);
    }
    let headless = is_headless(new);
    let ports = spec.field("ports");
    if ports.is_empty() && !headless && kind(new) != "ExternalName" {
        ports.missing(causes, "");
    }
    match kind(new) {
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let ips = spec.field("clusterIPs");
            ips.index(0).invalid_value(causes, "None", &format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => external_name(&spec, causes),
        _ => {}
    }
    each_port(&ports, causes);
    label_map(&spec.field("selector"), causes);
    session_affinity(&spec, causes);
    if kind(new) != "ExternalName" {
        addresses(new, &spec, causes);
    }
    for at in spec.field("externalIPs").items() {
        at.syntax(causes, ip);
        special_address(&at, causes);
    }
    spec.field("type").one_of(causes, TYPES);
    port_numbers(new, &ports, causes);
    balancer(new, &spec, causes);
    traffic(new, &spec, causes);
}

fn external_name(spec: &At<'_, '_>, causes: &mut Causes) {
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let at = spec.field(name);
        if at.is_set() && !(at.value.is_array() && at.is_empty()) {
            at.forbidden(causes, "may not be set for ExternalName services");
        }
    }
    let at = spec.field("externalName");
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    if name.is_empty() {
        at.missing(causes, "");
        return;
    }
    for why in names::dns_subdomain(name) {
        at.invalid_value(causes, name, &why);
    }
}

fn each_port(ports: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if name.is_empty() {
            if ports.len() > 1 {
                name.missing(causes, "");
            }
        } else {
            name.syntax(causes, names::dns_label);
            if !seen.insert(name.text()) {
                name.duplicate(causes);
            }
        }
        port.field("port").port(causes);
        port.field("protocol").one_of(causes, &["SCTP", "TCP", "UDP"]);
        let target = port.field("targetPort");
        if target.is_set() {
            target.port_or_name(causes);
        }
        port.field("appProtocol").optional_syntax(causes, names::qualified_name);
    }
}

fn port_numbers(new: &Value, ports: &At<'_, '_>, causes: &mut Causes) {
    let (mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new());
    for port in ports.items() {
        let node_port = port.field("nodePort");
        let number = node_port.int().unwrap_or_default();
        if number != 0 && kind(new) == "ClusterIP" {
            node_port.forbidden(causes, "may not be used when `type` is 'ClusterIP'");
        }
        let protocol = port.field("protocol").value.as_str().unwrap_or("TCP");
        if number != 0 && !node_ports.insert((protocol, number)) {
            node_port.duplicate(causes);
        }
        let number = port.field("port").int().unwrap_or_default();
        if !numbers.insert((protocol, number)) {
            port.duplicate_value(causes, json!({"protocol": protocol, "port": number, "targetPort": 0}));
        }
    }
}

fn session_affinity(spec: &At<'_, '_>, causes: &mut Causes) {
    let (affinity, config) = (spec.field("sessionAffinity"), spec.field("sessionAffinityConfig"));
    affinity.one_of(causes, &["ClientIP", "None"]);
    if affinity.text() != "ClientIP" {
        if config.is_set() {
            config.forbidden(causes, "must not be set when session affinity is None");
        }
        return;
    }
    let client = config.field("clientIP");
    let timeout = client.field("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=86400).contains(&seconds)) {
        timeout.invalid(causes, "must be greater than 0 and less than 86400");
    }
}

fn addresses(new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let (single, ips) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    if single.is_empty() {
        if !ips.is_empty() {
            ips.invalid(causes, "must be empty when `clusterIP` is not specified");
        }
    } else if ips.is_empty() {
        ips.missing(causes, "");
    } else if ips.index(0).text() != single.text() {
        ips.invalid(causes, "first value must match `clusterIP`");
    }
    let families = spec.field("ipFamilies");
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(causes, &["IPv4", "IPv6"]);
        if !seen.insert(family.text()) {
            family.duplicate(causes);
        }
        if family.text() == "IPv6" && !is_headless(new) {
            family.invalid(causes, "not configured on this cluster");
        }
    }
    let policy = spec.field("ipFamilyPolicy");
    policy.one_of(causes, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let selectorless = spec.field("selector").is_empty();
    if policy.text() == "RequireDualStack" && !(is_headless(new) && selectorless) {
        policy.invalid(causes, "this cluster is not configured for dual-stack services");
    }
    for (place, at) in ips.items().enumerate() {
        if place == 0 && at.text() == "None" {
            if ips.len() > 1 {
                ips.invalid(causes, "'None' must be the first and only value");
            }
            continue;
        }
        at.syntax(causes, ip);
    }
    if ips.len() > 2 {
        ips.invalid(causes, "may only hold up to 2 values");
    } else if ips.len() == 2 && ips.index(0).text() != "None" {
        policy.invalid(causes, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified");
    }
}

/// Addresses that cannot be anybody's on the network.
pub(in crate::resources) fn special_address(at: &At<'_, '_>, causes: &mut Causes) {
    let Ok(address) = at.text().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        at.invalid(causes, &format!("may not be unspecified ({})", at.text()));
    }
    if address.is_loopback() {
        at.invalid(causes, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if link_local {
        at.invalid(causes, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        at.invalid(causes, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn balancer(new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let balanced = kind(new) == "LoadBalancer";
    let ranges = spec.field("LoadBalancerSourceRanges").with(&new["spec"]["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && !balanced {
        ranges.forbidden(causes, "may only be used when `type` is 'LoadBalancer'");
    }
    for at in ranges.items() {
        at.syntax(causes, |text| cidr(text.trim()));
    }
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let at = spec.field(name);
        if at.is_set() && !balanced {
            at.forbidden(causes, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    spec.field("loadBalancerClass").optional_syntax(causes, names::qualified_name);
}

fn traffic(new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let policy = spec.field("externalTrafficPolicy");
    if policy.is_set() && !is_external(new) {
        policy.invalid(causes, "may only be set for externally-accessible services");
    } else {
        policy.one_of(causes, &["Cluster", "Local"]);
    }
    let check = spec.field("healthCheckNodePort");
    if check.int().unwrap_or_default() != 0 && !needs_health_check(new) {
        check.invalid(causes, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    spec.field("internalTrafficPolicy").one_of(causes, &["Cluster", "Local"]);
    spec.field("trafficDistribution").one_of(causes, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

pub(super) fn status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    let balancer = status.field("loadBalancer");
    let ingress = balancer.field("ingress");
    if kind(new) != "LoadBalancer" && !ingress.is_empty() {
        ingress.forbidden(causes, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    let before = old.map_or(&Value::Null, |old| &old["status"]["loadBalancer"]["ingress"]);
    for at in ingress.items() {
        let mode = at.field("ipMode");
        match (at.field("ip").is_empty(), mode.is_set()) {
            (false, false) => mode.missing(causes, "must be specified when `ip` is set"),
            (true, true) => mode.forbidden(causes, "may not be specified when `ip` is not set"),
            _ => mode.one_of(causes, &["Proxy", "VIP"]),
        }
        reached_at(&at, before, causes);
    }
}

fn update(old: &Value, new: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    if kind(old) == "ExternalName" || kind(new) == "ExternalName" || is_headless(old) && is_headless(new) {
        return;
    }
    let (before, now) = (&old["spec"]["clusterIPs"], spec.field("clusterIPs"));
    match (before[0].as_str(), now.index(0).value.as_str()) {
        (Some(_), None) => now.index(0).invalid_value(causes, now.value.clone(), "primary clusterIP can not be unset"),
        (Some(before), Some(after)) if before != after => now.index(0).invalid_value(causes, now.value.clone(), "may not change once set"),
        _ => {}
    }
    let families = spec.field("ipFamilies");
    match (old["spec"]["ipFamilies"][0].as_str(), families.index(0).value.as_str()) {
        (Some(before), Some(after)) if before != after => families.index(0).invalid_value(causes, families.value.clone(), "may not change once set"),
        _ => {}
    }
    if kind(old) == "LoadBalancer" && kind(new) == "LoadBalancer" && old["spec"]["loadBalancerClass"] != new["spec"]["loadBalancerClass"] {
        spec.field("loadBalancerClass").invalid(causes, "may not change once set");
    }
    let check = spec.field("healthCheckNodePort");
    if needs_health_check(old) && needs_health_check(new) && check.value != &old["spec"]["healthCheckNodePort"] {
        check.forbidden(causes, "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn wrong(old: Option<Value>, spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        service(old.map(|spec| json!({"spec": spec})).as_ref(), &json!({"spec": spec}), &mut causes);
        lines(&causes)
    }

    fn good() -> Value {
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "None"})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut spec = good();
        change(&mut spec);
        spec
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(None, good()), Vec::<String>::new());
        for (spec, want) in [
            (with(|s| s["ports"] = json!([])), "spec.ports: Required value"),
            (with(|s| s["ports"][0]["port"] = 0.into()), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
            (
                with(|s| s["ports"][0]["protocol"] = "X".into()),
                "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (with(|s| s["ports"][0]["nodePort"] = 30000.into()), "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
            (
                with(|s| s["type"] = "X".into()),
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (
                with(|s| s["externalIPs"] = json!(["127.0.0.1"])),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                with(|s| s["externalTrafficPolicy"] = "Local".into()),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                with(|s| s["ipFamilyPolicy"] = "RequireDualStack".into()),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (with(|s| s["clusterIP"] = "10.96.0.6".into()), "spec.clusterIPs: Invalid value: [\"10.96.0.5\"]: first value must match `clusterIP`"),
            (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        ] {
            assert_eq!(wrong(None, spec.clone()), [want], "{spec}");
        }
        assert_eq!(
            wrong(None, with(|s| s["ports"] = json!([{"port": 80, "protocol": "TCP"}, {"name": "b", "port": 80, "protocol": "TCP"}]))),
            ["spec.ports[0].name: Required value", "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\",\"targetPort\":0}"]
        );
        assert_eq!(wrong(None, json!({"type": "ExternalName", "externalName": "example.com."})), Vec::<String>::new());
    }

    #[test]
    fn only_balancers_are_reached_from_outside() {
        let wrong = |kind: &str, ingress: Value| {
            let mut causes = Vec::new();
            status(None, &json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": ingress}}}), &mut causes);
            lines(&causes)
        };
        assert_eq!(wrong("LoadBalancer", json!([{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a.com"}])), Vec::<String>::new());
        assert_eq!(
            wrong("ClusterIP", json!([{"ip": "1.2.3.4"}])),
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
        );
        assert_eq!(
            wrong("LoadBalancer", json!([{"ip": "1.2.3.4"}, {"ipMode": "x"}, {"ip": "1.2.3.4", "ipMode": "x"}])),
            [
                "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
                "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"x\": supported values: \"Proxy\", \"VIP\"",
            ]
        );
    }

    #[test]
    fn the_address_never_changes() {
        assert_eq!(
            wrong(
                Some(good()),
                with(|s| {
                    s["clusterIP"] = "10.96.0.6".into();
                    s["clusterIPs"] = json!(["10.96.0.6"]);
                })
            ),
            ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]
        );
        assert_eq!(wrong(Some(good()), good()), Vec::<String>::new());
    }
}
