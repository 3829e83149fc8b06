//! Services in the kernel: a verdict map keyed by address, protocol and port, and a chain of DNAT for every frontend.
//!
//! What changes is computed purely ([`changes`]) and handed to `nft` as one transaction. Rejected: rewriting the whole ruleset at
//! every change (0.1 s for a thousand Services where one costs some milliseconds), IPVS (not in every kernel), and a proxy in this
//! process (Service traffic must not pass through the agent).

use super::services::{Backend, Frontend, Table};
use std::{fmt::Write, net::Ipv4Addr, process::Stdio};
use tokio::{io::AsyncWriteExt, process::Command};

/// Why the kernel's rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` is not there, or cannot be started.
    #[error("cannot run nft: {0}; {remedy}", remedy = remedy(.0))]
    Missing(std::io::Error),
    /// `nft` refused the transaction.
    #[error("nft refused the service rules: {0}")]
    Refused(String),
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "install the package nftables",
        _ => "see whether this machine has descriptors, processes and memory left",
    }
}

/// The rules of one cluster on this host.
pub struct Proxy {
    table: String,
    applied: Table,
}

impl Proxy {
    /// Makes the nft table `name` anew, with nothing in it but the refusal of unknown Service addresses, and of connections to the addresses of
    /// `local` pods (AnyIP) that would end in a program of the machine.
    pub async fn start(name: &str, services: (Ipv4Addr, u8), pods: (Ipv4Addr, u8), local: (Ipv4Addr, u8), own: &[Ipv4Addr]) -> Result<Self, Error> {
        run(&base(name, services, pods, own)).await?;
        // Apart, since not every kernel has nft_socket.
        if let Err(error) = run(&keep_apart(name, local)).await {
            tracing::warn!(%error, "programs of this machine that listen on all addresses answer on pods' addresses too: the kernel lacks nft_socket");
        }
        Ok(Self { table: name.to_string(), applied: Table::new() })
    }

    /// Deletes the table.
    pub async fn end(&mut self) -> Result<(), Error> {
        self.applied = Table::new();
        run(&format!("add table ip {0}\ndelete table ip {0}\n", self.table)).await
    }

    /// Makes the kernel's rules those of `wanted`; nothing is run when nothing changed. On an error the rules are as before.
    pub async fn apply(&mut self, wanted: Table) -> Result<(), Error> {
        let script = changes(&self.table, &self.applied, &wanted);
        if !script.is_empty() {
            run(&script).await?;
            self.applied = wanted;
        }
        Ok(())
    }
}

async fn run(script: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await.map_err(|error| Error::Refused(error.to_string()))?;
    }
    let output = child.wait_with_output().await.map_err(Error::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(text.lines().take(4).collect::<Vec<_>>().join("; ")))
}

/// The empty table. `add` before `delete` makes the deletion work whether or not a killed agent left one.
fn base(name: &str, services: (Ipv4Addr, u8), pods: (Ipv4Addr, u8), own: &[Ipv4Addr]) -> String {
    let (service, service_bits) = services;
    let (pod, pod_bits) = pods;
    // Sandboxes' half (see `kernel`): beyond the pods' range nobody knows their addresses.
    let sandbox_bits = pod_bits + 1;
    let own = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "add table ip {name}
delete table ip {name}
table ip {name} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; ip daddr . meta l4proto . th dport vmap @services; }}
  chain output {{ type nat hook output priority -100; policy accept; ip daddr . meta l4proto . th dport vmap @services; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; ip saddr {pod}/{pod_bits} ip daddr {pod}/{pod_bits} oifname != \"lo\" ct status dnat masquerade; ip saddr {pod}/{sandbox_bits} ip daddr != {pod}/{pod_bits} oifname != \"lo\" masquerade; }}
  chain refuse {{ type filter hook output priority filter; policy accept; ip daddr {{ {own} }} accept; ip daddr {service}/{service_bits} meta l4proto tcp reject with tcp reset; ip daddr {service}/{service_bits} reject; }}
  chain refuse-forwarded {{ type filter hook forward priority filter; policy accept; ip daddr {service}/{service_bits} meta l4proto tcp reject with tcp reset; ip daddr {service}/{service_bits} reject; }}
}}
"
    )
}

/// AnyIP makes every pod address the machine's own, so what listens on all addresses (sshd, say) would answer on them. Pods' sockets are bound to the
/// pod's address, which tells the two apart without a list of listeners. The range's first address is the node's.
fn keep_apart(name: &str, (pod, bits): (Ipv4Addr, u8)) -> String {
    let strange = format!("ip daddr {pod}/{bits} ip daddr != {pod} socket wildcard 1");
    format!(
        "table ip {name} {{
  chain keep-apart {{ type filter hook input priority filter; policy accept; {strange} meta l4proto tcp reject with tcp reset; {strange} reject; }}
}}
"
    )
}

/// The nft transaction that leads from one table to the other; empty when they are equal.
fn changes(table: &str, from: &Table, to: &Table) -> String {
    let mut script = String::new();
    for (frontend, backends) in from {
        match to.get(frontend) {
            Some(wanted) if wanted == backends => {}
            Some(_) => _ = writeln!(script, "flush chain ip {table} {}", chain(frontend)),
            None => {
                let _ = writeln!(script, "delete element ip {table} services {{ {} : {} }}", key(frontend), verdict(frontend));
                let _ = writeln!(script, "delete chain ip {table} {}", chain(frontend));
            }
        }
    }
    for (frontend, backends) in to {
        let known = from.get(frontend);
        if known == Some(backends) {
            continue;
        }
        let name = chain(frontend);
        if known.is_none() {
            let _ = writeln!(script, "add chain ip {table} {name}");
        }
        if let Some(rule) = rule(frontend, backends) {
            let _ = writeln!(script, "add rule ip {table} {name} {rule}");
        }
        if known.is_none() {
            let _ = writeln!(script, "add element ip {table} services {{ {} : {} }}", key(frontend), verdict(frontend));
        }
    }
    script
}

fn key(frontend: &Frontend) -> String {
    format!("{} . {} . {}", frontend.ip, frontend.protocol.as_str(), frontend.port)
}

fn verdict(frontend: &Frontend) -> String {
    format!("goto {}", chain(frontend))
}

fn chain(frontend: &Frontend) -> String {
    format!("s-{}-{}-{}", u32::from(frontend.ip), frontend.protocol.as_str(), frontend.port)
}

/// Without a backend the chain is empty: the packet keeps its address and is refused by the filter.
fn rule(frontend: &Frontend, backends: &[Backend]) -> Option<String> {
    let protocol = frontend.protocol.as_str();
    match backends {
        [] => None,
        [one] => Some(format!("meta l4proto {protocol} dnat ip to {}:{}", one.ip, one.port)),
        many => {
            let entries: Vec<String> =
                many.iter().enumerate().map(|(index, backend)| format!("{index} : {} . {}", backend.ip, backend.port)).collect();
            Some(format!("meta l4proto {protocol} dnat ip to numgen random mod {} map {{ {} }}", many.len(), entries.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::services::Protocol, *};

    fn front(port: u16) -> Frontend {
        Frontend { ip: Ipv4Addr::new(10, 96, 0, 5), protocol: Protocol::Tcp, port }
    }

    fn back(last: u8) -> Backend {
        Backend { ip: Ipv4Addr::new(10, 244, 8, last), port: 8080 }
    }

    #[test]
    fn equal_tables_need_nothing() {
        let table = Table::from([(front(80), vec![back(1)])]);
        assert_eq!(changes("t", &table, &table), "");
    }

    #[test]
    fn a_new_service_is_reachable_only_when_its_chain_is_whole() {
        let script = changes("t", &Table::new(), &Table::from([(front(80), vec![back(1), back(2)])]));
        assert_eq!(
            script,
            "add chain ip t s-174063621-tcp-80
add rule ip t s-174063621-tcp-80 meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.8.1 . 8080, 1 : 10.244.8.2 . 8080 }
add element ip t services { 10.96.0.5 . tcp . 80 : goto s-174063621-tcp-80 }
"
        );
    }

    #[test]
    fn changed_and_gone_services_touch_only_themselves() {
        let from = Table::from([(front(80), vec![back(1)]), (front(81), vec![back(1)]), (front(82), vec![back(1)])]);
        let to = Table::from([(front(80), vec![back(1)]), (front(81), vec![])]);
        assert_eq!(
            changes("t", &from, &to),
            "flush chain ip t s-174063621-tcp-81
delete element ip t services { 10.96.0.5 . tcp . 82 : goto s-174063621-tcp-82 }
delete chain ip t s-174063621-tcp-82
"
        );
    }
}
