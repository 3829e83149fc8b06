//! Flows of datagrams that the kernel remembers: with UDP nothing says that one is over, so a client that goes on asking would be sent to a pod that is gone for ever
//! (kube-proxy's conntrack clean-up). Flows that began while a Service had no endpoint are forgotten as well, once it has one.
//!
//! Speaks the kernel's ctnetlink (linux/netfilter/nfnetlink_conntrack.h) itself: the crates for it dump, and do not delete.

use super::{
    netfilter::{FAMILY, NESTED, attribute, message, split, value},
    services::{Backend, Frontend, Protocol, Table},
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt};
use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// Message types of the subsystem.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
/// Flags: a request, answered, with everything there is.
const REQUEST: u16 = 1;
const ANSWERED: u16 = 4;
const DUMP: u16 = 0x300;
/// Types of answers that are no flows.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attributes: a flow's two directions, and what is in each.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const UDP: u8 = 17;

/// A frontend whose backends are others than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    front: Frontend,
    now: BTreeSet<Backend>,
}

/// Frontends of datagrams that lost a backend, or got their first.
pub fn changed(before: &Table, now: &Table) -> Vec<Changed> {
    let mut found = Vec::new();
    for (front, old) in before.ports.iter().filter(|(front, _)| front.protocol == Protocol::Udp) {
        let new: BTreeSet<Backend> = now.ports.get(front).into_iter().flat_map(|port| port.all.iter().copied()).collect();
        if old.all.iter().any(|backend| !new.contains(backend)) || (old.all.is_empty() && !new.is_empty()) {
            let fronts = std::iter::once(front).chain(&old.outside);
            found.extend(fronts.map(|front| Changed { front: *front, now: new.clone() }));
        }
    }
    found
}

/// What the kernel remembers of one flow.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    /// Where the client sent to.
    to: (Ipv4Addr, u16),
    /// Who answers.
    by: (Ipv4Addr, u16),
    /// The attribute that names it.
    tuple: Vec<u8>,
}

impl Changed {
    fn concerns(&self, flow: &Flow) -> bool {
        let asked = flow.to.1 == self.front.port && self.front.ip.is_none_or(|ip| ip == flow.to.0);
        asked && !self.now.contains(&Backend { ip: flow.by.0, port: flow.by.1 })
    }
}

/// Forgets flows to what is no backend any more. Blocks for as long as the kernel takes to list its flows; returns how many there were.
///
/// # Errors
/// The kernel's.
pub fn forget(changed: &[Changed]) -> io::Result<usize> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
    send(&socket, &message(GET, REQUEST | DUMP, &[]), SendFlags::empty())?;
    let mut stale = Vec::new();
    answers(&socket, |kind, body| {
        let ours = flow(body).filter(|flow| kind == GET - 1 && changed.iter().any(|changed| changed.concerns(flow)));
        stale.extend(ours.map(|flow| flow.tuple));
    })?;
    for tuple in &stale {
        let mut body = Vec::with_capacity(tuple.len() + 4);
        attribute(&mut body, ORIGINAL | NESTED, tuple);
        send(&socket, &message(DELETE, REQUEST | ANSWERED, &body), SendFlags::empty())?;
        match answers(&socket, |_, _| {}) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32) => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// Reads answers up to the last one.
fn answers(socket: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, _) = recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, next)) = split(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
                    Some(0) => return Ok(()),
                    code => return Err(io::Error::from_raw_os_error(code.map_or(0, i32::wrapping_neg))),
                },
                kind => each(kind, body),
            }
            rest = next;
        }
    }
}

/// A flow of datagrams; none: of something else.
fn flow(body: &[u8]) -> Option<Flow> {
    let attributes = body.get(FAMILY.len()..)?;
    let tuple = value(attributes, ORIGINAL)?;
    (*value(value(tuple, PORTS)?, 1)?.first()? == UDP).then_some(())?;
    // Source and destination have the numbers 1 and 2 of addresses, 2 and 3 of ports.
    let end = |tuple: &[u8], address: u16, port: u16| -> Option<(Ipv4Addr, u16)> {
        let ip = *value(value(tuple, ADDRESSES)?, address)?.first_chunk::<4>()?;
        Some((ip.into(), u16::from_be_bytes(*value(value(tuple, PORTS)?, port)?.first_chunk()?)))
    };
    Some(Flow { to: end(tuple, 2, 3)?, by: end(value(attributes, REPLY)?, 1, 2)?, tuple: tuple.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::{super::services::Port, *};

    fn tuple(source: ([u8; 4], u16), destination: ([u8; 4], u16), protocol: u8) -> Vec<u8> {
        let (mut addresses, mut ports, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        attribute(&mut addresses, 1, &source.0);
        attribute(&mut addresses, 2, &destination.0);
        attribute(&mut ports, 1, &[protocol]);
        attribute(&mut ports, 2, &source.1.to_be_bytes());
        attribute(&mut ports, 3, &destination.1.to_be_bytes());
        attribute(&mut whole, ADDRESSES | NESTED, &addresses);
        attribute(&mut whole, PORTS | NESTED, &ports);
        whole
    }

    fn body(protocol: u8) -> Vec<u8> {
        let mut body = FAMILY.to_vec();
        attribute(&mut body, ORIGINAL | NESTED, &tuple(([10, 0, 0, 1], 5000), ([10, 96, 0, 9], 53), protocol));
        attribute(&mut body, REPLY | NESTED, &tuple(([10, 0, 0, 7], 5353), ([10, 0, 0, 1], 5000), protocol));
        body
    }

    #[test]
    fn flows_are_read_and_junk_is_none() {
        let read = flow(&body(UDP)).unwrap();
        assert_eq!((read.to, read.by), (([10, 96, 0, 9].into(), 53), ([10, 0, 0, 7].into(), 5353)));
        assert_eq!(read.tuple, tuple(([10, 0, 0, 1], 5000), ([10, 96, 0, 9], 53), UDP));
        assert_eq!(flow(&body(6)), None);
        let whole = body(UDP);
        for length in 0..whole.len() {
            assert!(flow(&whole[..length]).is_none_or(|flow| flow == read), "no panic at {length}");
        }
    }

    #[test]
    fn what_lost_a_backend_or_got_its_first_is_looked_at() {
        let front = |protocol| Frontend { ip: Some([10, 96, 0, 9].into()), protocol, port: 53 };
        let back = |last| Backend { ip: [10, 0, 0, last].into(), port: 5353 };
        let node = Frontend { ip: None, protocol: Protocol::Udp, port: 30053 };
        let table = |protocol, all: &[Backend]| {
            let port = Port { all: all.to_vec(), outside: vec![node], ..Port::default() };
            Table { ports: [(front(protocol), port)].into(), ..Table::default() }
        };
        let (udp, tcp) = (Protocol::Udp, Protocol::Tcp);
        let both = |now: &[Backend]| [front(udp), node].map(|front| Changed { front, now: now.iter().copied().collect() }).to_vec();
        assert_eq!(changed(&table(udp, &[back(7), back(8)]), &table(udp, &[back(8)])), both(&[back(8)]));
        assert_eq!(changed(&table(udp, &[back(7)]), &Table::default()), both(&[]));
        assert_eq!(changed(&table(udp, &[]), &table(udp, &[back(7)])), both(&[back(7)]));
        assert_eq!(changed(&table(udp, &[back(7)]), &table(udp, &[back(7), back(8)])), []);
        assert_eq!(changed(&table(tcp, &[back(7)]), &table(tcp, &[])), []);
        let read = flow(&body(UDP)).unwrap();
        assert!(both(&[back(8)])[0].concerns(&read) && !both(&[back(7)])[0].concerns(&read) && !both(&[back(8)])[1].concerns(&read));
    }
}
