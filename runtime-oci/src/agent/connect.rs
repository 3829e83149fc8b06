//! Connections into a pod's own network.

use coracle_runtime::Duplex;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
};
use tokio::{net::TcpSocket, sync::oneshot};

/// A connection to that port of localhost, IPv4 first, where the process `pid` is: what Kubernetes' port-forward promises.
///
/// # Errors
/// The process is gone, or nobody listens.
pub async fn localhost(pid: i32, port: u16) -> io::Result<Box<dyn Duplex>> {
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for (socket, ip) in sockets(pid).await? {
        let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
        match socket.connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                _ = stream.set_nodelay(true);
                return Ok(Box::new(stream));
            }
            // What IPv4 says is what people know.
            Err(error) if ip.is_ipv4() => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// A socket belongs to the network it was made in, whoever uses it: a thread that does nothing else makes them there.
async fn sockets(pid: i32) -> io::Result<Vec<(OwnedFd, IpAddr)>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("pod-network".into()).spawn(move || _ = sender.send(make(pid)))?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the thread that enters the pod's network ended")))
}

fn make(pid: i32) -> io::Result<Vec<(OwnedFd, IpAddr)>> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = |family| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    let mut made = vec![(socket(AddressFamily::INET)?, IpAddr::V4(Ipv4Addr::LOCALHOST))];
    // A machine may have no IPv6.
    made.extend(socket(AddressFamily::INET6).ok().map(|socket| (socket, IpAddr::V6(Ipv6Addr::LOCALHOST))));
    Ok(made)
}
