//! What a pod's resolver is told (resolv.conf(5)): kubelet's rules for `dnsPolicy` and `dnsConfig`.

use crate::pods::spec::DnsConfig;
use coracle_runtime::Dns;
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// A resolver looks at no more (Kubernetes' own bounds).
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARS: usize = 2048;
/// A name that is longer is none.
const NAME: usize = 253;
/// Bytes of a resolv.conf that are read.
const MOST: usize = 64 << 10;

/// A machine's resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In order.
    pub servers: Vec<IpAddr>,
    /// Suffixes; the last line counts.
    pub searches: Vec<String>,
    /// Such as `ndots:2`; the last of a name counts.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// What is there; nothing if it cannot be read.
    pub fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read(path).map(|bytes| String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(&bytes)).into_owned()).unwrap_or_default())
    }

    /// Lines that are none are left out.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => {
                    conf.searches = words.filter(|word| *word != ".").map(|word| word.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|option| set(&mut conf.options, option)),
                _ => {}
            }
        }
        conf
    }
}

fn name(option: &str) -> &str {
    option.split(':').next().unwrap_or(option)
}

fn set(options: &mut Vec<String>, option: &str) {
    match options.iter_mut().find(|there| name(there) == name(option)) {
        Some(there) => *there = option.to_owned(),
        None => options.push(option.to_owned()),
    }
}

/// The pod's part.
pub struct Asked<'a> {
    /// `dnsPolicy`; empty means ClusterFirst.
    pub policy: &'a str,
    /// Its network is the machine's.
    pub host_network: bool,
    /// Its namespace.
    pub namespace: &'a str,
    /// `dnsConfig`
    pub config: &'a DnsConfig,
}

/// What the pod gets, and what an event (`DNSConfigForming`) says of what it does not. `cluster` is the server and domain of the cluster, if there is one.
pub fn of_pod(asked: &Asked<'_>, cluster: Option<(SocketAddr, &str)>, node: &ResolvConf) -> (Dns, Vec<String>) {
    let own = match asked.policy {
        "None" => Some(Dns::default()),
        "Default" => None,
        "ClusterFirst" | "" if asked.host_network => None,
        _ => cluster.map(|(server, domain)| {
            let mut searches = vec![format!("{}.svc.{domain}", asked.namespace), format!("svc.{domain}"), domain.to_owned()];
            searches.extend(node.searches.iter().cloned());
            Dns { servers: vec![server], searches, options: vec!["ndots:5".into()] }
        }),
    };
    let mut dns = own.unwrap_or_else(|| {
        // A server on the machine's loopback is none to a pod with a network of its own; ours asks it.
        let reach = |ip: &IpAddr| match cluster {
            Some((server, _)) if ip.is_loopback() && !asked.host_network => server,
            _ => SocketAddr::new(*ip, 53),
        };
        Dns { servers: node.servers.iter().map(reach).collect(), searches: node.searches.clone(), options: node.options.clone() }
    });
    dns.servers.extend(asked.config.nameservers.iter().filter_map(|server| Some(SocketAddr::new(server.parse().ok()?, 53))));
    dns.searches.extend(asked.config.searches.iter().cloned());
    for option in &asked.config.options {
        let text =
            option.value.as_ref().filter(|value| !value.is_empty()).map_or_else(|| option.name.clone(), |value| format!("{}:{value}", option.name));
        set(&mut dns.options, &text);
    }
    once(&mut dns.servers);
    once(&mut dns.searches);
    let mut told = Vec::new();
    if dns.servers.len() > SERVERS {
        dns.servers.truncate(SERVERS);
        let line: Vec<String> = dns.servers.iter().map(|server| server.ip().to_string()).collect();
        told.push(format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}", line.join(" ")));
    }
    let wanted = dns.searches.len();
    dns.searches.truncate(SEARCHES);
    dns.searches.retain(|search| search.len() <= NAME);
    while dns.searches.join(" ").len() > SEARCH_CHARS {
        dns.searches.pop();
    }
    if dns.searches.len() < wanted {
        let line = dns.searches.join(" ");
        told.push(format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"));
    }
    (dns, told)
}

/// Keeps the first of each.
fn once<T: PartialEq + Clone>(list: &mut Vec<T>) {
    let all = std::mem::take(list);
    for item in all {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::spec::DnsOption;

    const SERVER: &str = "10.96.0.10:53";

    fn given(policy: &str, host_network: bool, config: &DnsConfig, node: &str) -> (Dns, Vec<String>) {
        let asked = Asked { policy, host_network, namespace: "ns", config };
        of_pod(&asked, Some((SERVER.parse().unwrap(), "cluster.local")), &ResolvConf::parse(node))
    }

    fn text(dns: &Dns) -> String {
        let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
        format!("{} | {} | {}", servers.join(" "), dns.searches.join(" "), dns.options.join(" "))
    }

    const NODE: &str =
        "# of the machine\nnameserver 1.1.1.1\nnameserver x\nsearch a.b\nsearch corp.example. . lan\noptions timeout:1 ndots:2\noptions ndots:3\n";

    #[test]
    fn policies_are_kubelets() {
        let none = DnsConfig::default();
        for (policy, host, expected) in [
            ("ClusterFirst", false, "10.96.0.10:53 | ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan | ndots:5"),
            ("", false, "10.96.0.10:53 | ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan | ndots:5"),
            ("ClusterFirst", true, "1.1.1.1:53 | corp.example lan | timeout:1 ndots:3"),
            ("ClusterFirstWithHostNet", true, "10.96.0.10:53 | ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan | ndots:5"),
            ("Default", false, "1.1.1.1:53 | corp.example lan | timeout:1 ndots:3"),
            ("None", false, " |  | "),
        ] {
            let (dns, told) = given(policy, host, &none, NODE);
            assert_eq!((&*text(&dns), told.len()), (expected, 0), "{policy}");
        }
        let (dns, _) = given("Default", false, &none, "nameserver 127.0.0.53");
        assert_eq!(text(&dns), "10.96.0.10:53 |  | ", "the machine's loopback is not the pod's");
        let (dns, _) = given("Default", true, &none, "nameserver 127.0.0.53");
        assert_eq!(text(&dns), "127.0.0.53:53 |  | ");
    }

    #[test]
    fn a_pods_own_settings_are_added_once_each_and_win() {
        let option = |name: &str, value: Option<&str>| DnsOption { name: name.into(), value: value.map(Into::into) };
        let config = DnsConfig {
            nameservers: vec!["9.9.9.9".into(), "10.96.0.10".into()],
            searches: vec!["lan".into(), "my.dns".into()],
            options: vec![option("ndots", Some("2")), option("edns0", None)],
        };
        let (dns, _) = given("ClusterFirst", false, &config, NODE);
        assert_eq!(
            text(&dns),
            "10.96.0.10:53 9.9.9.9:53 | ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan my.dns | ndots:2 edns0"
        );
        let (dns, _) = given("None", false, &config, NODE);
        assert_eq!(text(&dns), "9.9.9.9:53 10.96.0.10:53 | lan my.dns | ndots:2 edns0");
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let config = DnsConfig {
            nameservers: (1..=3).map(|n| format!("9.9.9.{n}")).collect(),
            searches: (0..40).map(|n| format!("s{n}.example")).collect(),
            ..DnsConfig::default()
        };
        let (dns, told) = given("ClusterFirst", false, &config, "");
        assert_eq!((dns.servers.len(), dns.searches.len(), told.len()), (3, 32, 2));
        assert!(told[0].ends_with("the applied nameserver line is: 10.96.0.10 9.9.9.1 9.9.9.2"), "{told:?}");
        let long = DnsConfig { searches: vec!["x".repeat(254), "y.example".into()], ..DnsConfig::default() };
        let (dns, told) = given("None", false, &long, "");
        assert_eq!((dns.searches, told.len()), (vec!["y.example".to_owned()], 1));
        let wide = DnsConfig { searches: (0..10).map(|n| format!("{n}{}", "z".repeat(250))).collect(), ..DnsConfig::default() };
        let (dns, told) = given("None", false, &wide, "");
        assert_eq!((dns.searches.len(), told.len()), (8, 1));
    }
}
