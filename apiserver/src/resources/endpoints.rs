//! Endpoints: the older form of what is behind a service, one object a service.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list},
    endpointslice::loopback_pods,
    rules::{At, Causes, syntax},
    service::special_address,
};
use coracle_api::{names, registry::Column, status::Cause};
use serde_json::Value;

/// Hooks of `endpoints`.
pub struct Endpoints;

const HEADINGS: &[Heading] = &[NAME, ("Endpoints", "Addresses that are ready, with their ports."), AGE];

impl Hooks for Endpoints {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        // What is there already is kept, whatever today's rules say of it.
        if old.is_none_or(|old| old["subsets"] != new["subsets"]) {
            check(new, loopback_pods(cx), causes);
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        vec![cells::name(object), addresses(object).into(), age::of(object)]
    }
}

/// The first three `address:port`, and how many more there are.
fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let ips = || list(&subset["addresses"]).iter().filter_map(|address| address["ip"].as_str());
        match list(&subset["ports"]) {
            [] => all.extend(ips().map(str::to_owned)),
            ports => {
                for port in ports.iter().map(|port| cells::count(&port["port"])) {
                    all.extend(ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }));
                }
            }
        }
    }
    match all.len() {
        0 if list(&endpoints["subsets"]).is_empty() => "<none>".into(),
        0 => String::new(),
        _ => cells::first_three(&all),
    }
}

fn check(new: &Value, loopback_pods: bool, causes: &mut Causes) {
    let root = At::root(new);
    for subset in root.field("subsets").items() {
        let (ready, other, ports) = (subset.field("addresses"), subset.field("notReadyAddresses"), subset.field("ports"));
        if ready.is_empty() && other.is_empty() {
            subset.missing(causes, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(other.items()) {
            let ip = address.field("ip");
            ip.syntax(causes, syntax::ip);
            address.field("hostname").optional_syntax(causes, names::dns_label);
            if address.field("nodeName").is_set() {
                address.field("nodeName").syntax(causes, names::dns_subdomain);
            }
            let loopback = ip.text().parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            if !(loopback && loopback_pods) {
                special_address(&ip, causes);
            }
        }
        for port in ports.items() {
            let name = port.field("name");
            if ports.len() > 1 && name.is_empty() {
                name.missing(causes, "");
            }
            name.optional_syntax(causes, names::dns_label);
            port.field("port").port(causes);
            port.field("protocol").required_one_of(causes, &["SCTP", "TCP", "UDP"]);
            if port.field("appProtocol").is_set() {
                port.field("appProtocol").syntax(causes, names::qualified_name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn rows_show_ready_addresses_with_their_ports() {
        let subset = |ips: &[&str], ports: Value| json!({"addresses": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(), "ports": ports});
        assert_eq!(addresses(&json!({})), "<none>");
        assert_eq!(addresses(&json!({"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]})), "");
        assert_eq!(addresses(&json!({"subsets": [subset(&["10.0.0.1", "fd00::1"], json!([{"port": 80}]))]})), "10.0.0.1:80,[fd00::1]:80");
        let two = json!({"subsets": [subset(&["10.0.0.1", "10.0.0.2"], json!([{"port": 80}, {"port": 81}])), subset(&["10.0.0.3"], json!(null))]});
        assert_eq!(addresses(&two), "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 2 more...");
    }

    #[test]
    fn rules() {
        let mut causes = Vec::new();
        let bad = json!({"subsets": [
            {"ports": [{"port": 80, "protocol": "TCP"}, {"name": "b", "port": 0, "protocol": "HTTP", "appProtocol": "a b"}]},
            {"addresses": [{"ip": "127.0.0.1", "hostname": "A"}], "notReadyAddresses": [{"ip": "x", "nodeName": ""}]},
        ]});
        check(&bad, false, &mut causes);
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        let found = lines(&causes);
        assert_eq!(
            found[..4],
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[0].ports[1].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
        assert!(found[4].starts_with("subsets[0].ports[1].appProtocol: Invalid value: \"a b\": "), "{}", found[4]);
        assert_eq!(found[5], format!("subsets[1].addresses[0].hostname: Invalid value: \"A\": {label}"));
        assert_eq!(found[6], "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)");
        assert!(found[7].starts_with("subsets[1].notReadyAddresses[0].ip: Invalid value: \"x\""), "{}", found[7]);
        assert!(found[8].starts_with("subsets[1].notReadyAddresses[0].nodeName"), "{}", found[8]);
    }
}
