//! `wasi:sockets` in a pod: what an address means there.
//!
//! Wasm pods have an address but no network namespace, so the pod's view is made here. (A container in a pod of processes is in that pod's namespace, where addresses mean what they say.) Binding the unspecified address binds the pod's IP; every
//! outgoing socket is bound to the pod's IP before it connects (network policy and the other end see the pod, not the node); binding
//! loopback is refused, since it would be the node's, and connecting to loopback reaches the pod itself.
//!
//! wasmtime-wasi's address check can allow or deny but not change an address. So the functions that take one are replaced in the
//! linker by ours, which rewrite it and call the original; the check stays on beneath as the second gate: what was not rewritten is denied.
//! (Replacing four functions was preferred to implementing the interfaces: sockets, streams and polling stay wasmtime's.)

use super::guest::Guest;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p2::{
        SocketError, TcpSocket, UdpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpSocketAddress, Network},
            tcp::HostTcpSocket,
            udp::{HostUdpSocket, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream},
        },
    },
    sockets::{SocketAddrUse, WasiSocketsCtx},
};

/// The version wasmtime-wasi defines its interfaces under; imports of any 0.2 match it.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP: &str = "wasi:sockets/udp@0.2.12";

/// The rules for one pod.
#[derive(Clone, Copy, Debug)]
pub struct PodNet {
    ip: IpAddr,
    /// The process is in the pod's own network.
    namespace: bool,
}

impl PodNet {
    /// For a pod with this address on the machine's network.
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, namespace: false }
    }

    /// For a pod with a network of its own, in which this process is.
    pub fn of_namespace(ip: IpAddr) -> Self {
        Self { ip, namespace: true }
    }

    /// What an outgoing socket is bound to before it connects; none: the kernel's choice.
    pub fn source(self) -> Option<IpAddr> {
        (!self.namespace).then_some(self.ip)
    }

    /// What `localhost` is.
    pub fn localhost(self) -> IpAddr {
        if self.namespace { Ipv4Addr::LOCALHOST.into() } else { self.ip }
    }

    /// Whether `ip` means "myself". Without root pods live on 127/8 themselves, where only 127.0.0.1 does.
    fn is_self(self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) if self.ip.is_loopback() => v4 == Ipv4Addr::LOCALHOST && ip != self.ip,
            _ => ip.is_loopback(),
        }
    }

    /// What a bind to `wanted` binds; none: refused.
    pub fn bind(self, wanted: SocketAddr) -> Option<SocketAddr> {
        if self.namespace {
            return Some(wanted);
        }
        let ip = wanted.ip();
        if ip == self.ip || (ip.is_unspecified() && ip.is_ipv4() == self.ip.is_ipv4()) {
            return Some(SocketAddr::new(self.ip, wanted.port()));
        }
        None
    }

    /// Where a connection or datagram to `wanted` goes.
    pub fn reach(self, wanted: SocketAddr) -> SocketAddr {
        if !self.namespace && self.is_self(wanted.ip()) { SocketAddr::new(self.ip, wanted.port()) } else { wanted }
    }

    /// The second gate.
    fn allows(self, address: SocketAddr, what: SocketAddrUse) -> bool {
        if self.namespace {
            return true;
        }
        match what {
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => address.ip() == self.ip,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => !self.is_self(address.ip()),
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
        }
    }

    /// wasmtime-wasi's context with the gate in it; cheap to clone for each instance.
    pub fn context(self) -> WasiSocketsCtx {
        let mut builder = WasiCtxBuilder::new();
        builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        builder.socket_addr_check(move |address, what| {
            let allowed = self.allows(address, what);
            Box::pin(async move { allowed })
        });
        builder.build().sockets().clone()
    }
}

/// What bindgen does with a trappable error: the guest gets the code, the rest traps.
fn settle<T>(result: Result<T, SocketError>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

type Streams = (Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>);

/// Puts the pod's rules over what wasmtime-wasi has put into `linker`.
pub fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut tcp = linker.instance(TCP)?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>, (this, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                let Some(address) = guest.net.bind(address.into()) else { return settle(Err(ErrorCode::AccessDenied.into())) };
                settle(HostTcpSocket::start_bind(&mut guest.sockets(), this, network, address.into()).await)
            })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |mut store: StoreContextMut<'_, Guest>, (this, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                let net = guest.net;
                let address: SocketAddr = address.into();
                let borrowed = |resource: u32| Resource::<TcpSocket>::new_borrow(resource);
                let mut sockets = guest.sockets();
                // Only an unbound socket has no local address. Families differ only if the connect is doomed anyway.
                if let Some(source) = net.source().filter(|source| address.is_ipv4() == source.is_ipv4())
                    && HostTcpSocket::local_address(&mut sockets, borrowed(this.rep())).is_err()
                {
                    let own = SocketAddr::new(source, 0).into();
                    let bound = HostTcpSocket::start_bind(&mut sockets, borrowed(this.rep()), Resource::new_borrow(network.rep()), own).await;
                    let bound = bound.and_then(|()| HostTcpSocket::finish_bind(&mut sockets, borrowed(this.rep())));
                    if bound.is_err() {
                        return settle(bound);
                    }
                }
                settle(sockets.start_connect(this, network, net.reach(address).into()))
            })
        },
    )?;
    let mut udp = linker.instance(UDP)?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>, (this, network, address): (Resource<UdpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                let Some(address) = guest.net.bind(address.into()) else { return settle(Err(ErrorCode::AccessDenied.into())) };
                settle(HostUdpSocket::start_bind(&mut guest.sockets(), this, network, address.into()).await)
            })
        },
    )?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store: StoreContextMut<'_, Guest>, (this, remote): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move {
                let guest = store.data_mut();
                let net = guest.net;
                let remote = remote.map(|address| net.reach(address.into()).into());
                let streams: Result<Streams, SocketError> = guest.sockets().stream(this, remote).await;
                settle(streams)
            })
        },
    )?;
    udp.func_wrap(
        "[method]outgoing-datagram-stream.send",
        |mut store: StoreContextMut<'_, Guest>, (this, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            use wasmtime_wasi::p2::bindings::sockets::udp::HostOutgoingDatagramStream;
            let guest = store.data_mut();
            let net = guest.net;
            for datagram in &mut datagrams {
                datagram.remote_address = datagram.remote_address.map(|address| net.reach(address.into()).into());
            }
            settle(HostOutgoingDatagramStream::send(&mut guest.sockets(), this, datagrams))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_mean_the_pod() {
        let pod = PodNet::new([10, 1, 2, 3].into());
        assert_eq!(pod.bind(at("0.0.0.0:80")), Some(at("10.1.2.3:80")));
        assert_eq!(pod.bind(at("10.1.2.3:80")), Some(at("10.1.2.3:80")));
        for refused in ["127.0.0.1:80", "10.1.2.4:80", "[::]:80", "[::1]:80"] {
            assert_eq!(pod.bind(at(refused)), None, "{refused}");
        }
        assert_eq!(pod.reach(at("127.0.0.1:80")), at("10.1.2.3:80"));
        assert_eq!(pod.reach(at("127.9.9.9:80")), at("10.1.2.3:80"));
        assert_eq!(pod.reach(at("[::1]:80")), at("10.1.2.3:80"));
        assert_eq!(pod.reach(at("1.1.1.1:53")), at("1.1.1.1:53"));
        assert!(!pod.allows(at("0.0.0.0:0"), SocketAddrUse::TcpBind), "no connection leaves from another address");
    }

    #[test]
    fn in_a_network_of_its_own_addresses_mean_what_they_say() {
        let pod = PodNet::of_namespace([10, 1, 2, 3].into());
        for address in ["0.0.0.0:80", "127.0.0.1:80", "[::1]:80", "10.1.2.3:80", "10.1.2.4:80"].map(at) {
            assert_eq!((pod.bind(address), pod.reach(address)), (Some(address), address));
            assert!(pod.allows(address, SocketAddrUse::TcpConnect) && pod.allows(address, SocketAddrUse::TcpBind));
        }
        assert_eq!((pod.source(), pod.localhost()), (None, at("127.0.0.1:1").ip()));
    }

    #[test]
    fn without_root_the_pod_itself_is_on_loopback() {
        let pod = PodNet::new([127, 8, 0, 2].into());
        assert_eq!(pod.bind(at("0.0.0.0:80")), Some(at("127.8.0.2:80")));
        assert_eq!(pod.bind(at("127.0.0.1:80")), None);
        assert_eq!(pod.reach(at("127.0.0.1:80")), at("127.8.0.2:80"));
        assert_eq!(pod.reach(at("127.8.0.3:80")), at("127.8.0.3:80"), "another pod");
        assert!(pod.allows(at("127.8.0.3:80"), SocketAddrUse::TcpConnect));
        assert!(!pod.allows(at("127.0.0.1:80"), SocketAddrUse::TcpConnect));
    }
}
