//! The kernel's rules for Services, kept through `nft`.
//!
//! What holds is data ([`Rules`](super::rules::Rules)); what changes is computed purely and handed to `nft` as one transaction. Rejected: rewriting the whole ruleset at
//! every change (0.1 s for a thousand Services where one costs some milliseconds), IPVS (not in every kernel), and a proxy in this
//! process (Service traffic must not pass through the agent).

use super::{
    pool::Range,
    rules::{MARK, Rules},
};
use std::{collections::BTreeSet, net::Ipv4Addr, process::Stdio};
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

/// What the rules are about.
#[derive(Clone, Debug)]
pub struct Places {
    /// The nft table.
    pub table: String,
    /// Every Service's address.
    pub services: Range,
    /// Every pod's address on this node.
    pub pods: Range,
    /// Those that are addresses of the machine itself (AnyIP).
    pub local: Range,
    /// Services' addresses and ports at which the node itself listens; nothing else of the machine answers there.
    pub own: Vec<(Ipv4Addr, &'static str, u16)>,
    /// The sandboxes' bridge.
    pub bridge: &'static str,
}

/// The rules of one cluster on this host.
pub struct Proxy {
    places: Places,
    /// What the kernel has; of a table that an earlier agent made it is not known.
    applied: Option<Rules>,
}

impl Proxy {
    /// Makes the nft table, with nothing in it but the refusal of unknown Service addresses, and of connections to the addresses of
    /// local pods (AnyIP) that would end in a program of the machine. One that a killed agent left stays until the first [`apply`](Self::apply) takes its place:
    /// Services go on meanwhile.
    pub async fn start(places: Places) -> Result<Self, Error> {
        let mut proxy = Self { places, applied: None };
        match proxy.there().await {
            Ok(()) => {}
            Err(Error::Refused(_)) => proxy.begin(Rules::default()).await?,
            Err(missing) => return Err(missing),
        }
        Ok(proxy)
    }

    /// Makes the table anew with these rules, all at once.
    async fn begin(&mut self, rules: Rules) -> Result<(), Error> {
        self.applied = None;
        run(&format!("{}{}", base(&self.places), rules.changes(&self.places.table, &Rules::default()))).await?;
        // Apart, since not every kernel has nft_socket.
        if let Err(error) = run(&keep_apart(&self.places)).await {
            tracing::warn!(%error, "programs of this machine that listen on all addresses answer on pods' addresses too: the kernel lacks nft_socket");
        }
        self.applied = Some(rules);
        Ok(())
    }

    /// Whether there is a table: an error of `nft` if not.
    async fn there(&self) -> Result<(), Error> {
        run(&format!("list chain ip {} dispatch\n", self.places.table)).await
    }

    /// Deletes the table.
    pub async fn end(&mut self) -> Result<(), Error> {
        self.applied = None;
        run(&format!("add table ip {0}\ndelete table ip {0}\n", self.places.table)).await
    }

    /// Makes the table anew if somebody else deleted it; the rules of Services are for the next [`apply`](Self::apply).
    pub async fn look(&mut self) -> Result<(), Error> {
        match self.there().await {
            Err(Error::Refused(_)) => {
                tracing::warn!("another program deleted the service rules; they are made anew");
                self.begin(Rules::default()).await
            }
            other => other,
        }
    }

    /// Makes the kernel's rules those of `wanted`; nothing is run when nothing changed. If the kernel has other rules than it was given (a firewall was
    /// loaded anew, say), all are made anew. On an error the rules are as before.
    pub async fn apply(&mut self, wanted: Rules) -> Result<(), Error> {
        let Some(applied) = &self.applied else { return self.begin(wanted).await };
        let script = wanted.changes(&self.places.table, applied);
        if script.is_empty() {
            return Ok(());
        }
        if let Err(error) = run(&script).await {
            tracing::warn!(%error, "the service rules are made anew");
            return self.begin(wanted).await;
        }
        self.applied = Some(wanted);
        Ok(())
    }
}

async fn run(script: &str) -> Result<(), Error> {
    if script.is_empty() {
        return Ok(());
    }
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
///
/// Ports of the node are those of its own addresses, loopback included, but for what pods and Services have of them. What comes from loopback is sent on with the node's address, what
/// comes from outside as well unless the Service wants to know its clients; a pod that reaches itself by a Service sees the node. Pods send everything by the
/// node, also to their neighbours on the bridge: a redirect would take replies past the translation. And nobody on the bridge speaks to the node's loopback,
/// or at the addresses of the node's own Services to what else of the machine listens on all addresses.
fn base(places: &Places) -> String {
    let Places { table, services, pods, local, own, bridge } = places;
    let ports = own.iter().map(|(ip, protocol, port)| format!("{ip} . {protocol} . {port}")).collect::<Vec<_>>().join(", ");
    let own = own.iter().map(|(ip, ..)| ip).collect::<BTreeSet<_>>().into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "add table ip {table}
delete table ip {table}
table ip {table} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map ports {{ type inet_proto . inet_service : verdict; }}
  set refused {{ type ipv4_addr . inet_proto . inet_service; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local ip daddr != {local} ip daddr != {services} meta l4proto . th dport vmap @ports
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump dispatch; }}
  chain output {{ type nat hook output priority -100; policy accept; jump dispatch; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"lo\" accept
    meta mark & {MARK} == {MARK} masquerade
    ip saddr 127.0.0.0/8 ct status dnat masquerade
    ip saddr . ip daddr @hairpin ct status dnat masquerade
    ip saddr {pods} ip daddr != {pods} masquerade
  }}
  chain guard {{ type filter hook prerouting priority raw; policy accept; iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop; }}
  chain quiet {{ type filter hook output priority filter; policy accept; oifname \"{bridge}\" icmp type redirect drop; }}
  chain refusal {{ meta l4proto tcp reject with tcp reset; reject; }}
  chain refuse {{ type filter hook output priority filter; policy accept; ip daddr {{ {own} }} accept; ip daddr {services} jump refusal; ip daddr . meta l4proto . th dport @refused jump refusal; }}
  chain own {{
    type filter hook input priority filter; policy accept;
    ip daddr != {{ {own} }} accept
    ct state established,related accept
    ip daddr . meta l4proto . th dport {{ {ports} }} accept
    jump refusal
  }}
  chain refuse-forwarded {{ type filter hook forward priority filter; policy accept; ip daddr {services} jump refusal; ip daddr . meta l4proto . th dport @refused jump refusal; }}
}}
"
    )
}

/// AnyIP makes every pod address the machine's own, so what listens on all addresses (sshd, say) would answer on them. Pods' sockets are bound to the
/// pod's address, which tells the two apart without a list of listeners. The range's first address is the node's.
fn keep_apart(Places { table, local, .. }: &Places) -> String {
    let strange = format!("ip daddr {local} ip daddr != {} socket wildcard 1", local.network);
    format!(
        "table ip {table} {{
  chain keep-apart {{ type filter hook input priority filter; policy accept; {strange} meta l4proto tcp reject with tcp reset; {strange} reject; }}
}}
"
    )
}
