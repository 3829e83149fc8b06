//! Hears when tables of nftables are deleted, which others may do at any time: a firewall that is loaded anew begins with `flush ruleset`.
//!
//! The kernel tells of every change to its rules (nfnetlink's group for nftables, linux/netfilter/nf_tables.h), so that nothing has to be looked at again and again.

use super::netfilter::{FAMILY, split, value};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use std::{io, os::fd::OwnedFd};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << (7 - 1);
/// Type of the message that a table is deleted: `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_DELTABLE`.
const DELETED: u16 = 10 << 8 | 2;
/// The attribute with the table's name.
const NAME: u16 = 1;

/// The kernel's news of its rules.
pub struct News {
    socket: AsyncFd<OwnedFd>,
}

impl News {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUP))?;
        #[allow(deprecated, reason = "for types that may swap their descriptor; an OwnedFd keeps its own")]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket })
    }

    /// Waits until a table of this name is deleted, by whomever, or so much happened at once that the kernel did not tell all of it.
    ///
    /// # Errors
    /// The kernel's: nothing more will be heard.
    pub async fn deleted(&self, table: &str) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(recv(socket.get_ref(), &mut buffer[..], RecvFlags::empty())?.0)) {
                Ok(Ok(length)) if tells_of(buffer.get(..length).unwrap_or_default(), table) => return Ok(()),
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => return Ok(()),
                Ok(Err(error)) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}

/// Whether these messages say that a table of this name is deleted.
fn tells_of(mut messages: &[u8], table: &str) -> bool {
    while let Some((kind, body, next)) = split(messages) {
        let name = body.get(FAMILY.len()..).and_then(|attributes| value(attributes, NAME));
        if kind == DELETED && name.is_some_and(|name| name.strip_suffix(b"\0").unwrap_or(name) == table.as_bytes()) {
            return true;
        }
        messages = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{
        super::netfilter::{attribute, message},
        *,
    };

    #[test]
    fn deletions_of_a_table_are_heard_among_other_news() {
        let news = |kind: u16, name: &[u8]| {
            let mut body = Vec::new();
            attribute(&mut body, 2, &[0; 4]);
            attribute(&mut body, NAME, name);
            message(kind, 0, &body)
        };
        let (made, other, ours) = (news(DELETED - 2, b"t\0"), news(DELETED, b"tt\0"), news(DELETED, b"t\0"));
        assert!(!tells_of(&[made.clone(), other.clone()].concat(), "t"));
        let all = [made, other, ours].concat();
        assert!(tells_of(&all, "t"));
        for length in 0..all.len() {
            assert!(!tells_of(&all[..length], "t"), "cut short at {length}");
        }
    }
}
