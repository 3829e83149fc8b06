//! The four signers of `kubernetes.io`: what each takes, and for how long it signs.

use coracle_link::pki::CertificateRequest;
use std::{collections::BTreeSet, time::Duration};

/// Client certificates of nodes.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// How long before now a certificate begins, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// The longest life, and that of requests that name none.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// The shortest life.
const SHORTEST: Duration = Duration::from_secs(600);
/// Shorter lives are given whole; longer ones end as much earlier as they begin.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// From now to the end of a certificate.
pub fn duration(seconds: Option<i64>) -> Duration {
    let asked = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LONGEST, Duration::from_secs).clamp(SHORTEST, LONGEST);
    if asked < SHORT { asked } else { asked - BACKDATE }
}

/// Whether a signer of ours takes this request: None for other signers', an error for one that it must not sign.
pub fn check(signer: &str, request: &CertificateRequest, usages: &[&str]) -> Option<Result<(), String>> {
    Some(match signer {
        "kubernetes.io/kube-apiserver-client" => client(usages),
        KUBELET_CLIENT => kubelet_client(request, usages),
        "kubernetes.io/kubelet-serving" => kubelet_serving(request, usages),
        "kubernetes.io/legacy-unknown" => Ok(()),
        _ => return None,
    })
}

fn client(usages: &[&str]) -> Result<(), String> {
    if let Some(usage) = usages.iter().find(|usage| !matches!(**usage, "digital signature" | "key encipherment" | "client auth")) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    match usages.contains(&"client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

fn exactly(usages: &[&str], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().copied().collect();
    let plain = BTreeSet::from(["digital signature", purpose]);
    let mut whole = plain.clone();
    whole.insert("key encipherment");
    match given == plain || given == whole {
        true => Ok(()),
        false => Err(format!("usages did not match [{}]", whole.into_iter().collect::<Vec<_>>().join(" "))),
    }
}

fn of_nodes(request: &CertificateRequest) -> Result<(), String> {
    match request.organizations == ["system:nodes"] {
        true => Ok(()),
        false => Err("subject organization is not system:nodes".into()),
    }
}

fn named(request: &CertificateRequest) -> Result<(), String> {
    match request.common_name.starts_with("system:node:") {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".into()),
    }
}

/// A node's client certificate: its name and nothing else.
pub fn kubelet_client(request: &CertificateRequest, usages: &[&str]) -> Result<(), String> {
    of_nodes(request)?;
    for (there, what) in [
        (!request.dns_names.is_empty(), "DNS"),
        (!request.emails.is_empty(), "Email"),
        (!request.addresses.is_empty(), "IP"),
        (!request.uris.is_empty(), "URI"),
    ] {
        if there {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    named(request)?;
    exactly(usages, "client auth")
}

fn kubelet_serving(request: &CertificateRequest, usages: &[&str]) -> Result<(), String> {
    of_nodes(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if !request.emails.is_empty() {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if !request.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed".into());
    }
    exactly(usages, "server auth")?;
    named(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

    fn request(user: &str, group: &str, dns: Option<&str>) -> CertificateRequest {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.subject_alt_names.extend(dns.map(|name| SanType::DnsName(name.try_into().expect("name"))));
        CertificateRequest::from_pem(params.serialize_request(&key).expect("request").pem().expect("PEM").as_bytes()).expect("read")
    }

    #[test]
    fn each_signer_takes_its_own() {
        let (node, jane) = (request("system:node:n1", "system:nodes", None), request("jane", "dev", None));
        let serving = request("system:node:n1", "system:nodes", Some("n1"));
        let all = ["digital signature", "key encipherment"];
        let client: Vec<&str> = all.iter().copied().chain(["client auth"]).collect();
        let server: Vec<&str> = all.iter().copied().chain(["server auth"]).collect();
        for (signer, request, usages, want) in [
            ("kubernetes.io/kube-apiserver-client", &jane, &client, Some(Ok(()))),
            ("kubernetes.io/kube-apiserver-client", &jane, &server, Some(Err("invalid usage for client certificate: server auth"))),
            (KUBELET_CLIENT, &node, &client, Some(Ok(()))),
            (KUBELET_CLIENT, &jane, &client, Some(Err("subject organization is not system:nodes"))),
            (KUBELET_CLIENT, &serving, &client, Some(Err("DNS subjectAltNames are not allowed"))),
            (KUBELET_CLIENT, &node, &server, Some(Err("usages did not match [client auth digital signature key encipherment]"))),
            ("kubernetes.io/kubelet-serving", &serving, &server, Some(Ok(()))),
            ("kubernetes.io/kubelet-serving", &node, &server, Some(Err("DNS or IP subjectAltName is required"))),
            ("kubernetes.io/legacy-unknown", &jane, &server, Some(Ok(()))),
            ("example.com/mine", &jane, &client, None),
        ] {
            assert_eq!(check(signer, request, usages), want.map(|want| want.map_err(str::to_string)), "{signer}");
        }
    }

    #[test]
    fn lives_are_bounded() {
        assert_eq!(duration(Some(1)), SHORTEST);
        assert_eq!(duration(Some(3600)), Duration::from_secs(3600));
        assert_eq!(duration(Some(86_400)), Duration::from_secs(86_400 - 300));
        assert_eq!(duration(None), LONGEST - BACKDATE);
        assert_eq!(duration(Some(i64::MAX)), LONGEST - BACKDATE);
    }
}
