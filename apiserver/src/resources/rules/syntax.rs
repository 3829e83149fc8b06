//! Syntax of single values beyond names and labels (those are in `coracle_api::names`): what is wrong with a text, in upstream's words.

use super::{At, Causes};
use std::net::{IpAddr, Ipv4Addr};

fn matches(value: &str, ok: impl Fn(u8) -> bool) -> bool {
    !value.is_empty() && value.bytes().all(ok)
}

/// Name of a container or service port (`IANA_SVC_NAME`).
pub fn port_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 15 {
        wrong.push("must be no more than 15 characters".into());
    }
    if !matches(value, |c| c == b'-' || c.is_ascii_lowercase() || c.is_ascii_digit()) {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// Name of an environment variable: printable ASCII without `=` (KEP-4369).
pub fn env_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if value.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// Key in a ConfigMap or Secret: also a file name in a volume.
pub fn config_key(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push("must be no more than 253 characters".into());
    }
    if !matches(value, |c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
        wrong.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    match value {
        "." => wrong.push("must not be '.'".into()),
        ".." => wrong.push("must not be '..'".into()),
        _ if value.starts_with("..") => wrong.push("must not start with '..'".into()),
        _ => {}
    }
    wrong
}

/// Name of an HTTP header in a probe.
pub fn header_name(value: &str) -> Vec<String> {
    if matches(value, |c| c == b'-' || c.is_ascii_alphanumeric()) {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            .into(),
    ]
}

/// `10%`
pub fn percent(value: &str) -> Vec<String> {
    if value.strip_suffix('%').is_some_and(|digits| matches(digits, |c| c.is_ascii_digit())) {
        return Vec::new();
    }
    vec![
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            .into(),
    ]
}

/// An IP address of either family, in any spelling that means one thing only (KEP-4858).
pub fn ip(value: &str) -> Vec<String> {
    match value.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => vec!["must not be an IPv4-mapped IPv6 address".into()],
        Ok(_) => Vec::new(),
        Err(_) if without_zeros(value).parse::<Ipv4Addr>().is_ok() => vec!["must not have leading 0s".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// An IP address in its canonical spelling.
pub fn canonical_ip(value: &str) -> Vec<String> {
    let wrong = ip(value);
    match value.parse::<IpAddr>() {
        Ok(ip) if wrong.is_empty() && ip.to_string() != value => vec![format!("must be in canonical form (\"{ip}\")")],
        _ => wrong,
    }
}

/// Octets without the zeros in front of them, which some read as octal.
fn without_zeros(value: &str) -> String {
    let octets = value.split('.').map(|octet| match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0",
        rest => rest,
    });
    octets.collect::<Vec<_>>().join(".")
}

/// A range of addresses as its address and prefix length, bits beyond the prefix or not.
pub fn range(value: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|n| *n <= max && matches(bits, |c| c.is_ascii_digit()))?;
    Some((address, bits))
}

/// Whether an address lies in a range.
pub fn lies_in(ip: IpAddr, range: (IpAddr, u8)) -> bool {
    ip.is_ipv4() == range.0.is_ipv4() && masked((ip, range.1)).0 == masked(range).0
}

/// A range with nothing beyond its prefix.
fn masked((address, bits): (IpAddr, u8)) -> (IpAddr, u8) {
    let address = match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into()),
    };
    (address, bits)
}

/// `10.0.0.0/8`
pub fn cidr(value: &str) -> Vec<String> {
    let (address, bits) = value.split_once('/').unwrap_or_default();
    let plain = || {
        let bits = bits.trim_start_matches('0');
        let address = if address.contains(':') { address.to_string() } else { without_zeros(address) };
        range(&format!("{address}/{}", if bits.is_empty() { "0" } else { bits }))
    };
    let padded = bits.len() > 1 && bits.starts_with('0');
    match range(value).filter(|_| !padded) {
        Some((IpAddr::V6(v6), _)) if v6.to_ipv4_mapped().is_some() => vec!["must not have an IPv4-mapped IPv6 address".into()],
        Some(range) if masked(range) != range => vec!["must not have bits set beyond the prefix length".into()],
        Some(_) => Vec::new(),
        None if !bits.is_empty() && matches(bits, |c| c.is_ascii_digit()) && plain().is_some() => {
            vec!["must not have leading 0s in IP or prefix length".into()]
        }
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()],
    }
}

/// A range in its canonical spelling.
pub fn canonical_cidr(value: &str) -> Vec<String> {
    let wrong = cidr(value);
    match range(value) {
        Some((address, bits)) if wrong.is_empty() && format!("{address}/{bits}") != value => {
            vec![format!("must be in canonical form (\"{address}/{bits}\")")]
        }
        _ => wrong,
    }
}

/// What is said of an address that is right but written unusually.
pub fn ip_warning(at: &At<'_, '_>) -> Option<String> {
    let ip = at.text().parse::<IpAddr>().ok().filter(|ip| ip.is_ipv6() && ip.to_string() != at.text())?;
    Some(format!("{}: IPv6 address {:?} should be in RFC 5952 canonical format (\"{ip}\")", at.path(), at.text()))
}

/// As [`ip_warning`], of a range.
pub fn cidr_warning(at: &At<'_, '_>) -> Option<String> {
    let (address, bits) = range(at.text()).filter(|(address, _)| address.is_ipv6())?;
    let canonical = format!("{address}/{bits}");
    (canonical != at.text()).then(|| format!("{}: IPv6 CIDR value {:?} should be in RFC 5952 canonical format ({canonical:?})", at.path(), at.text()))
}

/// `*.example.com`
pub fn wildcard_domain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push("must be no more than 253 characters".into());
    }
    if !value.strip_prefix("*.").is_some_and(|rest| coracle_api::names::dns_subdomain(rest).is_empty()) {
        wrong.push("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into());
    }
    wrong
}

/// `acme.io/foo`: a domain, and a path as HTTP has them.
pub fn domain_path(at: &At<'_, '_>, causes: &mut Causes) {
    let Some((domain, path)) = at.text().split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty()) else {
        at.invalid(causes, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    for why in coracle_api::names::dns_subdomain(domain) {
        at.invalid_value(causes, domain, &why);
    }
    if !path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        at.invalid_value(causes, path, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')");
    }
}

/// A DNS name whose labels may hold underscores (search paths).
pub fn dns_subdomain_underscore(value: &str) -> Vec<String> {
    coracle_api::names::dns_subdomain(&value.replace('_', "a"))
        .into_iter()
        .map(|why| {
            if why.starts_with("a lowercase") {
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')".into()
            } else {
                why
            }
        })
        .collect()
}

/// A path below a volume: relative, without `..`.
pub fn descending_path(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.starts_with('/') {
        wrong.push("must be a relative path".into());
    }
    wrong.extend(no_backsteps(value));
    wrong
}

/// A path without `..` as a component.
pub fn no_backsteps(value: &str) -> Vec<String> {
    if value.split('/').any(|part| part == "..") { vec!["must not contain '..'".into()] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_pass_and_bad_ones_say_why() {
        type Rule = fn(&str) -> Vec<String>;
        for (rule, good, bad) in [
            (port_name as Rule, &["http", "a-1"][..], &["", "HTTP", "80", "a--b", "-a", "a-", "abcdefghijklmnop"][..]),
            (env_name, &["A", "my.env-name", "1x", "a b"], &["", "A=B", "é"]),
            (config_key, &["a.conf", "A_B", "..."], &["", ".", "..", "..a", "a/b"]),
            (header_name, &["X-Y"], &["", "X_Y"]),
            (percent, &["10%"], &["10", "%", "a%", "-1%"]),
            (ip, &["10.0.0.1", "::1", "2001:DB8::1"], &["10.0.0", "a", "010.0.0.1", "::ffff:1.2.3.4"]),
            (canonical_ip, &["10.0.0.1", "::1"], &["2001:DB8::1", "a"]),
            (
                cidr,
                &["10.0.0.0/8", "::/0", "0.0.0.0/0", "2001:DB8::/32", "10.0.0.1/32"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/08", "010.0.0.0/8", "10.0.0.1/8", "::ffff:1.2.3.0/120"],
            ),
            (canonical_cidr, &["10.0.0.0/8", "2001:db8::/32"], &["2001:DB8::/32", "10.0.0.1/8"]),
            (wildcard_domain, &["*.a.com"], &["a.com", "*", "*.*.com", "*a.com"]),
            (descending_path, &["a/b"], &["/a", "a/../b"]),
            (dns_subdomain_underscore, &["_tcp.example.com"], &["A", "a..b"]),
        ] {
            for value in good.iter().filter(|v| **v != "...") {
                assert_eq!(rule(value), Vec::<String>::new(), "{value}");
            }
            for value in bad {
                assert!(!rule(value).is_empty(), "{value}");
            }
        }
        assert_eq!(config_key("..."), ["must not start with '..'"]);
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(canonical_ip("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
    }
}
