//! What a pod is called: its host name and its domain, by kubelet's rules.

use super::spec::Pod;

/// Characters of a host name (the kernel takes 64, the last of them no character).
const SHORT: usize = 63;
/// And of one with its domain.
const LONG: usize = 64;

/// A pod's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hostname {
    /// What the kernel is told: the short name, or with the domain if the pod asked for that.
    pub name: String,
    /// `SUBDOMAIN.NAMESPACE.svc.cluster.local`; empty without a subdomain.
    pub domain: String,
}

/// The names of a pod in a cluster of this domain.
///
/// # Errors
/// A name with domain that the kernel does not take.
pub fn of(pod: &Pod, cluster: &str) -> Result<Hostname, String> {
    let (meta, spec) = (&pod.metadata, &pod.spec);
    if let Some(name) = &spec.hostname_override {
        return Ok(Hostname { name: short(name).into(), domain: String::new() });
    }
    let name = short(if spec.hostname.is_empty() { &meta.name } else { &spec.hostname });
    if spec.subdomain.is_empty() {
        return Ok(Hostname { name: name.into(), domain: String::new() });
    }
    let domain = format!("{}.{}.svc.{cluster}", spec.subdomain, meta.namespace);
    if !spec.set_hostname_as_fqdn {
        return Ok(Hostname { name: name.into(), domain });
    }
    let name = format!("{name}.{domain}");
    match name.len() {
        too_long if too_long > LONG => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({LONG} characters is the max, {too_long} characters requested)"
        )),
        _ => Ok(Hostname { name, domain }),
    }
}

fn short(name: &str) -> &str {
    match name.get(..SHORT) {
        Some(cut) if name.len() > SHORT => cut.trim_end_matches(['-', '.']),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(name: &str, spec: serde_json::Value) -> Result<(String, String), String> {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": spec })).unwrap();
        of(&pod, "cluster.local").map(|Hostname { name, domain }| (name, domain))
    }

    #[test]
    fn names_are_kubelets() {
        let own = |name: &str, domain: &str| Ok((name.to_owned(), domain.to_owned()));
        assert_eq!(named("web-0", json!({})), own("web-0", ""));
        assert_eq!(named("web-0", json!({ "hostname": "h", "setHostnameAsFQDN": true })), own("h", ""));
        assert_eq!(named("web-0", json!({ "hostname": "h", "subdomain": "s" })), own("h", "s.ns.svc.cluster.local"));
        let whole = json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true });
        assert_eq!(named("web-0", whole), own("h.s.ns.svc.cluster.local", "s.ns.svc.cluster.local"));
        assert_eq!(named("web-0", json!({ "hostnameOverride": "over.example", "hostname": "h", "subdomain": "s" })), own("over.example", ""));
    }

    #[test]
    fn long_names_are_cut_and_longer_ones_with_a_domain_refused() {
        let name = format!("{}-.{}", "a".repeat(61), "b".repeat(20));
        assert_eq!(named(&name, json!({})), Ok(("a".repeat(61), String::new())));
        let refused = named("p", json!({ "hostname": "h".repeat(42), "subdomain": "s", "setHostnameAsFQDN": true })).unwrap_err();
        assert!(refused.ends_with("is too long (64 characters is the max, 65 characters requested)"), "{refused}");
    }
}
