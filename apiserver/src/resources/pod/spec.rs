//! A pod's specification as a whole; its parts are in the files beside.

use super::{containers, requests, scheduling, security, volumes};
use crate::resources::rules::{At, Causes, labels::label_map, syntax};
use coracle_api::names;
use std::collections::BTreeSet;

/// Where a specification stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// In a pod.
    Pod,
    /// In a workload's template.
    Template,
}

/// Longest name of a host, bytes, as Linux has it.
const HOST_NAME: usize = 64;

/// Every rule of a pod's specification.
pub fn validate(spec: &At<'_, '_>, of: Of, causes: &mut Causes) {
    let volumes = volumes::validate(&spec.field("volumes"), causes);
    containers::validate(spec, &volumes, causes);
    requests::of_pod(&spec.field("resources"), causes);
    device_claims(spec, causes);
    host_network(spec, of, causes);
    spec.field("restartPolicy").one_of(causes, &["Always", "OnFailure", "Never"]);
    spec.field("dnsPolicy").one_of(causes, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    label_map(&spec.field("nodeSelector"), causes);
    security::of_pod(spec, causes);
    scheduling::affinity(&spec.field("affinity"), causes);
    dns(spec, causes);
    for gate in spec.field("readinessGates").items() {
        gate.field("conditionType").syntax(causes, names::qualified_name);
    }
    scheduling::gates(&spec.field("schedulingGates"), causes);
    scheduling::spread(&spec.field("topologySpreadConstraints"), causes);
    for (name, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ] {
        spec.field(name).optional_syntax(causes, rule);
    }
    host_name(spec, causes);
    spec.field("activeDeadlineSeconds").range(causes, 1, i64::from(i32::MAX));
    scheduling::tolerations(&spec.field("tolerations"), causes);
    for alias in spec.field("hostAliases").items() {
        alias.field("ip").syntax(causes, syntax::ip);
        for hostname in alias.field("hostnames").items() {
            hostname.syntax(causes, names::dns_subdomain);
        }
    }
    spec.field("preemptionPolicy").one_of(causes, &["PreemptLowerPriority", "Never"]);
    requests::overhead(&spec.field("overhead"), causes);
    let os = spec.field("os");
    if os.is_set() {
        os.field("name").required_one_of(causes, &["linux", "windows"]);
    }
}

/// Claims of devices, and those of them that containers name.
fn device_claims(spec: &At<'_, '_>, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for claim in spec.field("resourceClaims").items() {
        let name = claim.field("name");
        if name.required(causes, "") {
            if !names.insert(name.text()) {
                name.duplicate(causes);
            } else {
                name.syntax(causes, names::dns_label);
            }
        }
        let (itself, template) = (claim.field("resourceClaimName"), claim.field("resourceClaimTemplateName"));
        match (itself.is_set(), template.is_set()) {
            (true, true) => claim.invalid(causes, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, false) => claim.invalid(causes, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {
                itself.optional_syntax(causes, names::dns_subdomain);
                template.optional_syntax(causes, names::dns_subdomain);
            }
        }
    }
    for kind in ["initContainers", "containers"] {
        for container in spec.field(kind).items() {
            for claim in container.field("resources").field("claims").items() {
                let name = claim.field("name");
                if name.required(causes, "") && !names.contains(name.text()) {
                    name.not_found(causes);
                }
            }
        }
    }
}

/// A name that takes the place of all others goes with none of their switches.
fn host_name(spec: &At<'_, '_>, causes: &mut Causes) {
    let name = spec.field("hostnameOverride");
    if !name.is_set() {
        return;
    }
    for other in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|other| spec.field(other).is_true()) {
        name.forbidden(causes, &format!("may not be specified when {other} is true"));
    }
    if name.text().len() > HOST_NAME {
        name.too_long(causes, HOST_NAME);
    }
    name.syntax(causes, names::dns_subdomain);
}

fn host_network(spec: &At<'_, '_>, of: Of, causes: &mut Causes) {
    if !spec.field("hostNetwork").is_true() {
        return;
    }
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let (host, own) = (port.field("hostPort"), port.field("containerPort"));
            let given = host.int().unwrap_or_default();
            if (of == Of::Pod || given != 0) && given != own.int().unwrap_or_default() {
                host.invalid_value(causes, given, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns(spec: &At<'_, '_>, causes: &mut Causes) {
    let config = spec.field("dnsConfig");
    let (servers, searches) = (config.field("nameservers"), config.field("searches"));
    if spec.field("dnsPolicy").text() == "None" {
        if !config.is_set() {
            config.missing(causes, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            servers.missing(causes, "must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    if servers.len() > 3 {
        servers.invalid(causes, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        server.syntax(causes, syntax::ip);
    }
    if searches.len() > 32 {
        searches.invalid(causes, "must not have more than 32 search paths");
    }
    let length: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if length > 2048 + 1 {
        searches.invalid(causes, "must not have more than 2048 characters (including spaces) in the search list");
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        search.syntax(causes, |text| syntax::dns_subdomain_underscore(text.strip_suffix('.').unwrap_or(text)));
    }
    let options = config.field("options");
    for option in options.items() {
        if option.field("name").is_empty() {
            option.missing(causes, "must not be empty");
        }
    }
}

/// Texts that occur twice, each reported once where it occurs again.
pub fn unique<'v>(seen: &mut BTreeSet<&'v str>, at: &At<'_, 'v>, causes: &mut Causes) {
    if !at.text().is_empty() && !seen.insert(at.text()) {
        at.duplicate(causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::{Value, json};

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut pod = json!({"spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "x"}]}});
        change(&mut pod["spec"]);
        let mut causes = Vec::new();
        let root = At::root(&pod);
        validate(&root.field("spec"), Of::Pod, &mut causes);
        lines(&causes)
    }

    #[test]
    fn a_plain_pod_is_fine() {
        assert_eq!(wrong(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn rules() {
        type Case = (fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (
                |s| s["restartPolicy"] = "Sometimes".into(),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (|s| s["dnsPolicy"] = "None".into(), "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
            (|s| s["activeDeadlineSeconds"] = 0.into(), "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
            (
                |s| s["hostAliases"] = json!([{"ip": "x"}]),
                "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (|s| s["dnsConfig"] = json!({"options": [{}]}), "spec.dnsConfig.options[0]: Required value: must not be empty"),
            (|s| s["containers"] = json!([]), "spec.containers: Required value"),
            (
                |s| (s["hostnameOverride"], s["hostNetwork"]) = ("a.b".into(), true.into()),
                "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
            ),
            (
                |s| (s["hostnameOverride"], s["setHostnameAsFQDN"]) = ("a".into(), true.into()),
                "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
            ),
            (|s| s["hostnameOverride"] = "a".repeat(65).into(), "spec.hostnameOverride: Too long: may not be more than 64 bytes"),
        ];
        assert!(wrong(|s| s["hostnameOverride"] = "Not-RFC1123".into())[0].contains("RFC 1123 subdomain"));
        assert_eq!(wrong(|s| s["hostnameOverride"] = "a.b".into()), Vec::<String>::new());
        for (change, want) in cases {
            assert_eq!(wrong(change), [*want]);
        }
        assert_eq!(
            wrong(|s| {
                s["hostNetwork"] = true.into();
                s["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 81}]);
            }),
            ["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"]
        );
    }
}
