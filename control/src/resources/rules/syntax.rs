//! Syntax of single values beyond names and labels (those are in `coracle_api::names`): what is wrong with a text, in upstream's words.

use std::net::IpAddr;

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

/// An IP address of either family.
pub fn ip(value: &str) -> Vec<String> {
    if value.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()]
}

/// `10.0.0.0/8`
pub fn cidr(value: &str) -> Vec<String> {
    let good = value.split_once('/').is_some_and(|(address, bits)| {
        let max = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        matches(bits, |c| c.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
    });
    if good { Vec::new() } else { vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()] }
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
            (ip, &["10.0.0.1", "::1"], &["10.0.0", "a"]),
            (cidr, &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"]),
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
    }
}
