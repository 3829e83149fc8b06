//! The cluster's own names as data: what Services and EndpointSlices make of them, and the records that answer a question.
//!
//! Follows Kubernetes' DNS-Based Service Discovery (kubernetes/dns, docs/specification.md, 1.1.0), and CoreDNS' kubernetes plugin where that says
//! nothing: TTLs of 5 s, SOA, SRV for a Service's bare name, `a-b-c-d.NAMESPACE.pod` for whatever address is named (its `pods insecure`, which kubeadm sets).

mod object;

use self::object::{Kind, Service, Slice};
use crate::mirror::{Change, Objects};
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

/// Seconds for which an answer may be kept; so long a name that is not there, too.
pub const TTL: u32 = 5;
/// Of the specification, as `dns-version` tells it.
const VERSION: &str = "1.1.0";

/// What the zone has to say to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not a name of the cluster: somebody else knows.
    Elsewhere,
    /// The name is there; no records: but nothing of that type.
    Found(Found),
    /// No such name.
    NoName,
}

/// Records of a name that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The answer.
    pub records: Vec<Record>,
    /// Addresses of what the records name.
    pub additional: Vec<Record>,
    /// The name is another one's alias (already in `records`), whose records of the type asked for belong to the answer.
    pub alias: Option<Name>,
}

/// A Service's place: namespace and name.
type Place = (String, String);

/// All names of one cluster, as one node knows them.
pub struct Zone {
    domain: Name,
    /// This server's own address.
    server: Ipv4Addr,
    /// Ranges whose addresses nobody else can name.
    ranges: Vec<(Ipv4Addr, u8)>,
    services: BTreeMap<Place, Service>,
    /// By namespace and own name.
    slices: HashMap<Place, Slice>,
    /// Names of each Service's slices.
    of_service: BTreeMap<Place, BTreeSet<String>>,
    /// Addresses with the labels below the zone that they are known by, and who says so.
    reverse: BTreeSet<(IpAddr, String, Place)>,
    serial: u32,
}

impl Zone {
    /// A zone without Services. `domain` such as `cluster.local`; `ranges` of addresses and lengths of prefixes.
    ///
    /// # Errors
    /// A domain that is no name.
    pub fn new(domain: &str, server: Ipv4Addr, ranges: Vec<(Ipv4Addr, u8)>) -> Result<Self, String> {
        let mut domain = Name::from_ascii(domain).map_err(|why| format!("the cluster domain {domain:?} is no name: {why}"))?.to_lowercase();
        domain.set_fqdn(true);
        Ok(Self {
            domain,
            server,
            ranges,
            services: BTreeMap::new(),
            slices: HashMap::new(),
            of_service: BTreeMap::new(),
            reverse: BTreeSet::new(),
            serial: 1,
        })
    }

    /// Takes in everything that is there.
    pub fn fill(&mut self, objects: &dyn Objects) {
        for resource in [object::SERVICES, object::SLICES] {
            for (key, json) in objects.list(resource, None) {
                self.apply(&[(key, Some(json))]);
            }
        }
    }

    /// Takes in changes of any kind of object. What cannot be read counts as not there.
    pub fn apply(&mut self, changes: &[Change]) {
        for (key, json) in changes {
            let place = (key.namespace.clone(), key.name.clone());
            match key.resource.as_str() {
                object::SERVICES => self.service(place, json.as_deref().and_then(Service::read)),
                object::SLICES => self.slice(place, json.as_deref().and_then(Slice::read)),
                _ => continue,
            }
            self.serial = self.serial.wrapping_add(1);
        }
    }

    fn service(&mut self, place: Place, new: Option<Service>) {
        let label = |place: &Place| format!("{}.{}.svc", place.1, place.0);
        if let Some(Service { kind: Kind::Address(ips), .. }) = self.services.remove(&place) {
            for ip in ips {
                self.reverse.remove(&(ip, label(&place), place.clone()));
            }
        }
        if let Some(new) = new {
            if let Kind::Address(ips) = &new.kind {
                self.reverse.extend(ips.iter().map(|ip| (*ip, label(&place), place.clone())));
            }
            self.services.insert(place, new);
        }
    }

    fn slice(&mut self, place: Place, new: Option<Slice>) {
        let names = |place: &Place, slice: &Slice| {
            let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
            let named = ready.filter_map(|endpoint| Some((endpoint.address, endpoint.hostname.clone()?)));
            named.map(|(ip, host)| (ip, format!("{host}.{}.{}.svc", slice.service, place.0), place.clone())).collect::<Vec<_>>()
        };
        if let Some(old) = self.slices.remove(&place) {
            for entry in names(&place, &old) {
                self.reverse.remove(&entry);
            }
            let service = (place.0.clone(), old.service);
            if let Some(of) = self.of_service.get_mut(&service) {
                of.remove(&place.1);
                if of.is_empty() {
                    self.of_service.remove(&service);
                }
            }
        }
        if let Some(new) = new {
            self.reverse.extend(names(&place, &new));
            self.of_service.entry((place.0.clone(), new.service.clone())).or_default().insert(place.1.clone());
            self.slices.insert(place, new);
        }
    }

    /// Answers a question of class IN. Records bear the name as it was asked, since letters of either case are an asker's mark of its question.
    pub fn answer(&self, name: &Name, of: RecordType) -> Answer {
        let asked = Asked { name, of };
        let lower = name.to_lowercase();
        if self.domain.zone_of(&lower) {
            let labels: Option<Vec<&str>> = lower.iter().take(usize::from(lower.num_labels() - self.domain.num_labels())).map(text).collect();
            let Some(mut labels) = labels else { return Answer::NoName };
            labels.reverse();
            return self.own(&asked, &labels);
        }
        let Ok(address) = lower.parse_arpa_name() else { return Answer::Elsewhere };
        // A name above those of single addresses.
        if address.prefix_len() != address.max_prefix_len() {
            return Answer::Elsewhere;
        }
        self.by_address(&asked, address.addr())
    }

    /// Names below the zone's, labels from the right.
    fn own(&self, asked: &Asked<'_>, labels: &[&str]) -> Answer {
        match labels {
            [] => asked.found(match asked.of {
                RecordType::SOA => vec![asked.record(self.soa())],
                RecordType::NS => vec![asked.record(RData::NS(NS(self.below("ns.dns"))))],
                _ => Vec::new(),
            }),
            ["dns-version"] => asked.one(RecordType::TXT, || RData::TXT(TXT::new(vec![VERSION.into()]))),
            ["dns", "ns"] => asked.addresses([self.server.into()]),
            // Nothing of their own, but names below them.
            ["dns" | "svc" | "pod"] => Answer::Found(Found::default()),
            // Which namespaces there are, a node is not told.
            ["pod", _] => Answer::Found(Found::default()),
            ["pod", _, address] => match dashed(address) {
                Some(address) => asked.addresses([address]),
                None => Answer::NoName,
            },
            ["svc", namespace] => {
                let first = (namespace.to_string(), String::new());
                let there = self.services.range(first..).next().is_some_and(|((there, _), _)| there == namespace);
                if there { Answer::Found(Found::default()) } else { Answer::NoName }
            }
            ["svc", namespace, service, rest @ ..] => {
                let place = (namespace.to_string(), service.to_string());
                self.services.get(&place).map_or(Answer::NoName, |service| self.of_service(asked, &place, service, rest))
            }
            _ => Answer::NoName,
        }
    }

    fn of_service(&self, asked: &Asked<'_>, place: &Place, service: &Service, labels: &[&str]) -> Answer {
        match (&service.kind, labels) {
            (Kind::Elsewhere(target), []) => {
                let Ok(target) = Name::from_ascii(target).map(fqdn) else { return Answer::Found(Found::default()) };
                let alias = (asked.of != RecordType::CNAME).then(|| target.clone());
                Answer::Found(Found { records: vec![asked.record(RData::CNAME(CNAME(target)))], alias, ..Found::default() })
            }
            (Kind::Elsewhere(_) | Kind::Nothing, _) => Answer::NoName,
            (Kind::Address(_), []) if asked.of == RecordType::SRV => self.ports(asked, place, service, None),
            (Kind::Address(ips), []) => asked.addresses(ips.iter().copied()),
            // By the specification a Service that is its endpoints is not there when it has none.
            (Kind::Headless, _) if self.endpoints(place).next().is_none() => Answer::NoName,
            (Kind::Headless, []) if asked.of == RecordType::SRV => self.ports(asked, place, service, None),
            (Kind::Headless, []) => asked.addresses(self.endpoints(place).map(|(_, endpoint)| endpoint.address)),
            (_, [protocol]) if protocol.starts_with('_') => {
                let there = self.all_ports(place, service).any(|(_, of, _)| protocol.strip_prefix('_') == Some(of));
                if there { Answer::Found(Found::default()) } else { Answer::NoName }
            }
            (_, [host]) => {
                let mut ips = self.endpoints(place).filter(|(_, endpoint)| endpoint.label() == *host).map(|(_, e)| e.address).peekable();
                if ips.peek().is_some() { asked.addresses(ips) } else { Answer::NoName }
            }
            (_, [protocol, port]) => match (protocol.strip_prefix('_'), port.strip_prefix('_')) {
                (Some(protocol), Some(port)) => self.ports(asked, place, service, Some((port, protocol))),
                _ => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    /// Endpoints that answer, with their slice.
    fn endpoints(&self, place: &Place) -> impl Iterator<Item = (&Slice, &object::Endpoint)> {
        let names = self.of_service.get(place).into_iter().flatten();
        let slices = names.filter_map(|name| self.slices.get(&(place.0.clone(), name.clone())));
        slices.flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint))).filter(|(_, endpoint)| endpoint.ready)
    }

    /// Every port that a question may name: name, protocol and number, with the endpoint for one of a headless Service.
    fn all_ports<'a>(&'a self, place: &'a Place, service: &'a Service) -> impl Iterator<Item = (&'a str, &'a str, Target<'a>)> {
        let headless = matches!(service.kind, Kind::Headless);
        let own =
            service.ports.iter().filter(move |_| !headless).map(|port| (&*port.name, &*port.protocol, Target { port: port.port, endpoint: None }));
        let theirs = self.endpoints(place).filter(move |_| headless).flat_map(|(slice, endpoint)| {
            let target = |port: &object::Port| Target { port: port.port, endpoint: Some(endpoint) };
            slice.ports.iter().map(move |port| (&*port.name, &*port.protocol, target(port)))
        });
        own.chain(theirs)
    }

    /// SRV records of one port, or of all.
    fn ports(&self, asked: &Asked<'_>, place: &Place, service: &Service, which: Option<(&str, &str)>) -> Answer {
        let wanted = |(name, protocol, _): &(&str, &str, Target<'_>)| which.is_none_or(|which| which == (*name, *protocol));
        let targets: Vec<Target<'_>> = self.all_ports(place, service).filter(wanted).map(|(_, _, target)| target).collect();
        if targets.is_empty() && which.is_some() {
            return Answer::NoName;
        }
        if asked.of != RecordType::SRV {
            return Answer::Found(Found::default());
        }
        let own = format!("{}.{}.svc", place.1, place.0);
        let weight = u16::try_from(100_usize.checked_div(targets.len()).unwrap_or(0)).unwrap_or(0);
        let mut found = Found::default();
        let mut told = BTreeSet::new();
        for Target { port, endpoint } in targets {
            let name = endpoint.map_or_else(|| self.below(&own), |endpoint| self.below(&format!("{}.{own}", endpoint.label())));
            found.records.push(asked.record(RData::SRV(SRV::new(0, weight, port, name.clone()))));
            let ips = match (endpoint, &service.kind) {
                (Some(endpoint), _) => std::slice::from_ref(&endpoint.address),
                (None, Kind::Address(ips)) => ips,
                _ => &[],
            };
            for ip in ips.iter().filter(|ip| told.insert((name.clone(), **ip))) {
                found.additional.push(Record::from_rdata(name.clone(), TTL, address(*ip)));
            }
        }
        Answer::Found(found)
    }

    fn by_address(&self, asked: &Asked<'_>, ip: IpAddr) -> Answer {
        let first = (ip, String::new(), Place::default());
        let entries: Vec<&String> = self.reverse.range(first..).take_while(|(of, ..)| *of == ip).map(|(_, name, _)| name).collect();
        // A Service's own address has one name, whatever endpoints say.
        let names: BTreeSet<&String> = match entries.iter().find(|name| name.matches('.').count() == 2) {
            Some(service) => BTreeSet::from([*service]),
            None => entries.into_iter().collect(),
        };
        let ours = matches!(ip, IpAddr::V4(ip) if self.ranges.iter().any(|range| within(*range, ip)));
        match (names.is_empty(), ours) {
            (true, false) => Answer::Elsewhere,
            (true, true) => Answer::NoName,
            (false, _) if asked.of == RecordType::PTR => {
                asked.found(names.into_iter().map(|name| asked.record(RData::PTR(PTR(self.below(name))))).collect())
            }
            (false, _) => Answer::Found(Found::default()),
        }
    }

    /// What tells how long a name may be taken for missing.
    pub fn authority(&self) -> Record {
        Record::from_rdata(self.domain.clone(), TTL, self.soa())
    }

    fn soa(&self) -> RData {
        RData::SOA(SOA::new(self.below("ns.dns"), self.below("hostmaster"), self.serial, 7200, 1800, 86400, TTL))
    }

    /// A name below the zone's. Labels of objects' names are always good ones; a name that grew too long becomes the zone's own.
    fn below(&self, labels: &str) -> Name {
        let name = Name::from_ascii(labels).ok().map(|mut name| {
            name.set_fqdn(false);
            name.append_domain(&self.domain)
        });
        name.and_then(Result::ok).unwrap_or_else(|| self.domain.clone())
    }
}

/// Where a port leads.
#[derive(Clone, Copy)]
struct Target<'a> {
    port: u16,
    endpoint: Option<&'a object::Endpoint>,
}

/// A question.
struct Asked<'a> {
    name: &'a Name,
    of: RecordType,
}

impl Asked<'_> {
    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), TTL, data)
    }

    fn found(&self, records: Vec<Record>) -> Answer {
        Answer::Found(Found { records, ..Found::default() })
    }

    fn one(&self, of: RecordType, data: impl FnOnce() -> RData) -> Answer {
        self.found(if of == self.of { vec![self.record(data())] } else { Vec::new() })
    }

    /// Those of the family that is asked for, each once.
    fn addresses(&self, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
        let mut told = BTreeSet::new();
        let of = |ip: &IpAddr| if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let ips = ips.into_iter().filter(|ip| of(ip) == self.of && told.insert(*ip));
        self.found(ips.map(|ip| self.record(address(ip))).collect())
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn fqdn(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn text(label: &[u8]) -> Option<&str> {
    std::str::from_utf8(label).ok()
}

/// `10-1-2-3`, or `fd00--1`.
fn dashed(text: &str) -> Option<IpAddr> {
    let v4 = text.matches('-').count() == 3 && !text.contains("--");
    text.replace('-', if v4 { "." } else { ":" }).parse().ok()
}

fn within((network, bits): (Ipv4Addr, u8), ip: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
    u32::from(network) & mask == u32::from(ip) & mask
}

#[cfg(test)]
mod tests;
