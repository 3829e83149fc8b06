//! Listeners, opened by the agent because hosts may not: one for each host and address, side by side on the same port (`SO_REUSEPORT`).
//!
//! One listener shared by all hosts would be fewer descriptors, but then whoever wakes first accepts everything that has come in, and one core
//! does the work of all; with one each, the kernel spreads connections evenly.

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
};
use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc};

const BACKLOG: i32 = 4096;

fn open(address: SocketAddr, shared: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// `count` listeners on `address`; says why not, with the remedy. `what` names what the port was declared as (`containerPort`).
pub fn listeners(address: SocketAddr, count: usize, what: &str) -> Result<Vec<Arc<OwnedFd>>, String> {
    (0..count).map(|_| open(address, true).map(Arc::new).map_err(|error| why(address, error, what))).collect()
}

/// A listener that nobody shares the port with.
pub fn alone(address: SocketAddr) -> Result<OwnedFd, String> {
    open(address, false).map_err(|error| why(address, error, "containerPort"))
}

fn why(address: SocketAddr, error: Errno, what: &str) -> String {
    match error {
        Errno::ADDRINUSE => format!("{address} is in use by another program; free it, or declare a different {what}"),
        Errno::ACCESS => format!(
            "{address} may not be listened on by an ordinary user (ports below 1024 are root's); declare a {what} of 1024 or more, or run as root"
        ),
        Errno::ADDRNOTAVAIL => format!("{address} is not an address of this machine; the pod range is not routed to it"),
        Errno::MFILE | Errno::NFILE => format!("no descriptors left to listen on {address}; raise the limit (ulimit -n), or run fewer pods here"),
        error => format!("listening on {address} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_address_cannot_be_listened_on_is_said() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let why = listeners(taken.local_addr().unwrap(), 2, "containerPort").unwrap_err();
        assert!(why.contains("in use"), "{why}");
        let why = listeners("192.0.2.1:80".parse().unwrap(), 1, "containerPort").unwrap_err();
        assert!(why.contains("not an address of this machine"), "{why}");
    }

    #[test]
    fn several_share_one_port() {
        let one = listeners("127.0.0.1:0".parse().unwrap(), 1, "containerPort").unwrap();
        let at = rustix::net::getsockname(&one[0]).unwrap();
        let at = SocketAddr::try_from(at).unwrap();
        assert_eq!(listeners(at, 3, "containerPort").unwrap().len(), 3);
    }
}
