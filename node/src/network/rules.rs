//! The kernel's part of Services as data, and what leads from one state of it to another: pure.
//!
//! Maps lead from an address and port (or a port of the node) to a chain, chains to a backend. Named after a Service's port in the cluster, `c-` chains lead to all its backends, `l-` to
//! those of this node, `x-` is for what comes from outside, `b-` leads to one backend of a Service that remembers its clients (in a set `a-`), `h-` to a pod's host port.
//! The reading is that of kube-proxy's nftables mode.

use super::services::{Backend, Frontend, HostPort, Port, Table};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// A packet with this mark leaves with the node's address.
pub const MARK: &str = "0x4000";
/// Clients that one backend is remembered for at once.
const CLIENTS: u32 = 65_536;

/// Sets, chains and elements of maps beyond those that are always there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names with their declaration.
    sets: BTreeMap<String, String>,
    chains: BTreeMap<String, Vec<String>>,
    /// Map or set and key; the chain that a map's key leads to.
    elements: BTreeMap<(&'static str, String), Option<String>>,
}

impl Rules {
    /// What Services and host ports come to. A Service's port goes before a host port of that number.
    pub fn new<'a>(table: &Table, hosts: impl IntoIterator<Item = &'a HostPort>, pods: &str) -> Self {
        let mut rules = Self::default();
        for host in hosts {
            let chain = format!("h-{}", name(&host.front));
            rules.chains.insert(chain.clone(), vec![dnat(&host.front, &[host.to])]);
            rules.lead(&host.front, chain);
            rules.hairpin(&host.to);
        }
        for (front, port) in &table.ports {
            rules.port(front, port, pods);
        }
        rules
    }

    fn port(&mut self, front: &Frontend, port: &Port, pods: &str) {
        let id = name(front);
        // Loopback is the machine's own, whichever machine reads it: the node listens itself and passes on.
        let usable = |backends: &[Backend]| backends.iter().copied().filter(|backend| !backend.ip.is_loopback()).collect::<Vec<_>>();
        let (all, local) = (usable(&port.all), usable(&port.local));
        let uses_local = port.inside_local || (port.outside_local && !port.outside.is_empty());
        self.chains.insert(format!("c-{id}"), self::choice(front, &all, port.affinity));
        if uses_local {
            // Others have backends: whoever asks this node is not answered, so that balancers look elsewhere.
            let chosen = if local.is_empty() && !all.is_empty() { vec!["drop".into()] } else { choice(front, &local, port.affinity) };
            self.chains.insert(format!("l-{id}"), chosen);
        }
        if let Some(seconds) = port.affinity {
            for backend in all.iter().chain(&local).collect::<BTreeSet<_>>() {
                let set = remembered(front, backend, seconds);
                self.chains.insert(one(front, backend), vec![format!("update @{set} {{ ip saddr }} {}", dnat(front, &[*backend]))]);
                self.sets.insert(set, format!("{{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; size {CLIENTS}; }}"));
            }
        }
        all.iter().for_each(|backend| self.hairpin(backend));
        self.lead(front, format!("{}-{id}", if port.inside_local { "l" } else { "c" }));
        if port.outside.is_empty() {
            return;
        }
        let outside = match port.outside_local {
            false => vec![format!("meta mark set meta mark | {MARK} goto c-{id}")],
            // The node and its pods are not outside, whichever address they use.
            true => vec![
                format!("ip saddr {pods} goto c-{id}"),
                format!("fib saddr type local meta mark set meta mark | {MARK} goto c-{id}"),
                format!("goto l-{id}"),
            ],
        };
        self.chains.insert(format!("x-{id}"), outside);
        for other in &port.outside {
            self.lead(other, format!("x-{id}"));
            if let (true, Some(_)) = (all.is_empty(), other.ip) {
                self.elements.insert(("refused", key(other)), None);
            }
        }
    }

    fn lead(&mut self, front: &Frontend, chain: String) {
        let map = if front.ip.is_some() { "services" } else { "ports" };
        self.elements.insert((map, key(front)), Some(chain));
    }

    fn hairpin(&mut self, Backend { ip, .. }: &Backend) {
        self.elements.insert(("hairpin", format!("{ip} . {ip}")), None);
    }

    /// The nft transaction that leads here from another state; empty when they are equal. What is led to is made first and removed last.
    pub fn changes(&self, table: &str, from: &Self) -> String {
        let mut script = String::new();
        // Writing to memory does not fail.
        let mut say = |line: std::fmt::Arguments<'_>| _ = writeln!(script, "{line}");
        for ((map, key), chain) in from.elements.iter().filter(|(place, chain)| self.elements.get(*place) != Some(*chain)) {
            match chain {
                Some(chain) => say(format_args!("delete element ip {table} {map} {{ {key} : goto {chain} }}")),
                None => say(format_args!("delete element ip {table} {map} {{ {key} }}")),
            }
        }
        for (set, declaration) in self.sets.iter().filter(|(set, _)| !from.sets.contains_key(*set)) {
            say(format_args!("add set ip {table} {set} {declaration}"));
        }
        for chain in self.chains.keys().filter(|chain| !from.chains.contains_key(*chain)) {
            say(format_args!("add chain ip {table} {chain}"));
        }
        for chain in from.chains.iter().filter(|(chain, rules)| self.chains.get(*chain) != Some(*rules)).map(|(chain, _)| chain) {
            say(format_args!("flush chain ip {table} {chain}"));
        }
        for (chain, rules) in self.chains.iter().filter(|(chain, rules)| from.chains.get(*chain) != Some(*rules)) {
            for rule in rules {
                say(format_args!("add rule ip {table} {chain} {rule}"));
            }
        }
        for ((map, key), chain) in self.elements.iter().filter(|(place, chain)| from.elements.get(*place) != Some(*chain)) {
            match chain {
                Some(chain) => say(format_args!("add element ip {table} {map} {{ {key} : goto {chain} }}")),
                None => say(format_args!("add element ip {table} {map} {{ {key} }}")),
            }
        }
        for chain in from.chains.keys().filter(|chain| !self.chains.contains_key(*chain)) {
            say(format_args!("delete chain ip {table} {chain}"));
        }
        for set in from.sets.keys().filter(|set| !self.sets.contains_key(*set)) {
            say(format_args!("delete set ip {table} {set}"));
        }
        script
    }
}

fn key(front: &Frontend) -> String {
    match front.ip {
        Some(ip) => format!("{ip} . {} . {}", front.protocol.as_str(), front.port),
        None => format!("{} . {}", front.protocol.as_str(), front.port),
    }
}

fn name(front: &Frontend) -> String {
    let ip = front.ip.map_or_else(|| "any".into(), |ip| ip.to_string());
    format!("{ip}-{}-{}", front.protocol.as_str(), front.port)
}

fn one(front: &Frontend, backend: &Backend) -> String {
    format!("b-{}-{}-{}", name(front), backend.ip, backend.port)
}

fn remembered(front: &Frontend, backend: &Backend, seconds: u32) -> String {
    format!("a-{}-{}-{}-{seconds}", name(front), backend.ip, backend.port)
}

/// Rules that choose among backends. Without any the packet keeps its address and is refused by the filter.
fn choice(front: &Frontend, backends: &[Backend], affinity: Option<u32>) -> Vec<String> {
    let Some(seconds) = affinity.filter(|_| !backends.is_empty()) else {
        return if backends.is_empty() { Vec::new() } else { vec![dnat(front, backends)] };
    };
    let known = backends.iter().map(|backend| format!("ip saddr @{} goto {}", remembered(front, backend, seconds), one(front, backend)));
    let any: Vec<String> = backends.iter().enumerate().map(|(place, backend)| format!("{place} : goto {}", one(front, backend))).collect();
    known.chain([format!("numgen random mod {} vmap {{ {} }}", backends.len(), any.join(", "))]).collect()
}

fn dnat(front: &Frontend, backends: &[Backend]) -> String {
    let protocol = front.protocol.as_str();
    if let [only] = backends {
        return format!("meta l4proto {protocol} dnat ip to {}:{}", only.ip, only.port);
    }
    let entries: Vec<String> = backends.iter().enumerate().map(|(place, backend)| format!("{place} : {} . {}", backend.ip, backend.port)).collect();
    format!("meta l4proto {protocol} dnat ip to numgen random mod {} map {{ {} }}", backends.len(), entries.join(", "))
}

#[cfg(test)]
mod tests;
