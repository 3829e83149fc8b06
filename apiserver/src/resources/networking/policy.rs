//! NetworkPolicy.

use crate::resources::{
    age,
    cells::{self, AGE, NAME, list},
    rules::{At, Causes, labels::selector, syntax},
    simple::Simple,
};
use serde_json::Value;
use std::net::IpAddr;

/// `networkpolicies.networking.k8s.io`
pub const NETWORK_POLICY: Simple = Simple::new(
    &[NAME, ("Pod-Selector", "The pods that it holds for."), AGE],
    |policy| vec![cells::name(policy), cells::selector(&policy["spec"]["podSelector"]).into(), age::of(policy)],
    network_policy,
)
.warning(warnings);

const DIRECTIONS: &[(&str, &str)] = &[("ingress", "from"), ("egress", "to")];

pub(in crate::resources) fn network_policy(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    selector(&spec.field("podSelector"), causes);
    let known = old.map(ranges).unwrap_or_default();
    for (direction, peers) in DIRECTIONS {
        for rule in spec.field(direction).items() {
            for port in rule.field("ports").items() {
                check_port(&port, causes);
            }
            for peer in rule.field(peers).items() {
                check_peer(&peer, &known, causes);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.len() > 2 {
        types.invalid(causes, "may not specify more than two policyTypes");
        return;
    }
    for kind in types.items() {
        kind.one_of(causes, &["Ingress", "Egress"]);
    }
}

fn blocks(policy: &Value) -> impl Iterator<Item = &Value> {
    let rules = DIRECTIONS.iter().flat_map(|(direction, peers)| list(&policy["spec"][*direction]).iter().map(move |rule| &rule[*peers]));
    rules.flat_map(list).map(|peer| &peer["ipBlock"]).filter(|block| block.is_object())
}

/// Every range of a stored policy: one that was let in before is let in again.
fn ranges(policy: &Value) -> Vec<&str> {
    blocks(policy).flat_map(|block| std::iter::once(&block["cidr"]).chain(list(&block["except"]))).filter_map(Value::as_str).collect()
}

fn check_port(at: &At<'_, '_>, causes: &mut Causes) {
    at.field("protocol").one_of(causes, &["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.field("port"), at.field("endPort"));
    match port.value {
        Value::Number(_) => {
            port.port(causes);
            if end.is_set() {
                if end.int() < port.int() {
                    // Upstream shows the first port here.
                    end.with(port.value).invalid(causes, "must be greater than or equal to `port`");
                }
                end.port(causes);
            }
        }
        Value::String(_) => {
            if end.is_set() {
                end.invalid(causes, "may not be specified when `port` is non-numeric");
            }
            port.syntax(causes, syntax::port_name);
        }
        _ if end.is_set() => end.invalid(causes, "may not be specified when `port` is not specified"),
        _ => {}
    }
}

fn check_peer(at: &At<'_, '_>, known: &[&str], causes: &mut Causes) {
    let (pods, namespaces, block) = (at.field("podSelector"), at.field("namespaceSelector"), at.field("ipBlock"));
    selector(&pods, causes);
    selector(&namespaces, causes);
    if block.is_set() {
        check_block(&block, known, causes);
    }
    match (pods.is_set() || namespaces.is_set(), block.is_set()) {
        (false, false) => at.missing(causes, "must specify a peer"),
        (true, true) => at.forbidden(causes, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

/// Whether the inner range lies within the outer one and is smaller.
fn within(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    syntax::lies_in(inner.0, outer) && outer.1 < inner.1
}

fn check_block(at: &At<'_, '_>, known: &[&str], causes: &mut Causes) {
    let cidr = at.field("cidr");
    if !cidr.required(causes, "") {
        return;
    }
    let check = |at: &At<'_, '_>, causes: &mut Causes| {
        if !known.contains(&at.text()) {
            at.syntax(causes, syntax::cidr);
        }
        syntax::range(at.text())
    };
    let Some(outer) = check(&cidr, causes) else { return };
    for except in at.field("except").items() {
        if let Some(inner) = check(&except, causes)
            && !within(outer, inner)
        {
            except.invalid(causes, "must be a strict subset of `cidr`");
        }
    }
}

fn warnings(policy: &Value) -> Vec<String> {
    let root = At::root(policy);
    let spec = root.field("spec");
    let mut said = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for rule in spec.field(direction).items() {
            for peer in rule.field(peers).items() {
                let block = peer.field("ipBlock");
                let except = block.field("except");
                said.extend(std::iter::once(block.field("cidr")).chain(except.items()).filter_map(|at| syntax::cidr_warning(&at)));
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(old: Option<Value>, spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        network_policy(old.map(|spec| json!({"spec": spec})).as_ref(), &json!({"spec": spec}), &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(
            wrong(
                None,
                json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "http"}]}]})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            wrong(
                None,
                json!({"egress": [{"to": [{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "X", "port": 80, "endPort": 79},
                {"endPort": 1}, {"port": "http", "endPort": 1}]}], "policyTypes": ["x"]})
            ),
            [
                "spec.egress[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.egress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is not specified",
                "spec.egress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
                "spec.egress[0].to[0]: Required value: must specify a peer",
                "spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.policyTypes[0]: Unsupported value: \"x\": supported values: \"Ingress\", \"Egress\"",
            ]
        );
    }

    #[test]
    fn exceptions_lie_within_their_range() {
        let block = |cidr: &str, except: &str| json!({"ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": [except]}}]}]});
        assert_eq!(
            wrong(None, block("10.0.0.0/8", "11.0.0.0/16")),
            ["spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"]
        );
        assert_eq!(wrong(None, block("10.0.0.0/8", "10.0.0.0/8")).len(), 1);
        assert_eq!(wrong(None, block("0.0.0.0/0", "10.0.0.0/8")), Vec::<String>::new());
        assert_eq!(wrong(None, block("2001:db8::/32", "2001:db8:1::/48")), Vec::<String>::new());
        assert_eq!(
            wrong(None, block("10.0.0.1/8", "10.1.0.0/16")),
            ["spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length"]
        );
        assert_eq!(wrong(Some(block("10.0.0.1/8", "10.1.0.0/16")), block("10.0.0.1/8", "10.1.0.0/16")), Vec::<String>::new());
        assert_eq!(
            warnings(&json!({"spec": block("2001:DB8::/32", "2001:db8:1::/48")})),
            ["spec.ingress[0].from[0].ipBlock.cidr: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")"]
        );
    }
}
