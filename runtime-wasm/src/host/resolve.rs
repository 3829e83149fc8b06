//! Names in a pod: `wasi:sockets/ip-name-lookup`, and the resolver that outgoing HTTP shares with it.
//!
//! wasmtime-wasi resolves with the node's resolver, which knows nothing of the cluster. So the interface is ours: it asks the pod's DNS servers
//! with the pod's search list.

use super::{guest::Guest, sockets::PodNet};
use coracle_runtime::Dns;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::RData};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
    time::timeout,
};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynPollable, Pollable,
        bindings::sockets::network::{ErrorCode, IpAddress, Network},
    },
    runtime::AbortOnDropJoinHandle,
};

/// The interface's name; imports of any 0.2 match it.
const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// One server has this long to answer; as in resolv.conf(5).
const PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;

/// How one pod resolves names.
pub struct Resolver {
    dns: Dns,
    net: PodNet,
}

impl Resolver {
    /// Queries leave from the pod's address.
    pub fn new(dns: Dns, net: PodNet) -> Arc<Self> {
        Arc::new(Self { dns, net })
    }

    /// Addresses of `name`, which may be an address itself. Those of version 4 first, since pods have such.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![ip]);
        }
        if name.is_empty() || name.len() > 253 || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a host name"));
        }
        if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            return Ok(vec![self.net.localhost()]);
        }
        if self.dns.servers.is_empty() {
            return Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip().to_canonical()).collect());
        }
        let mut failed = None;
        for candidate in candidates(name, &self.dns) {
            match self.lookup(&candidate).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => return Ok(found),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address of {name}"))))
    }

    /// Both families at once. No addresses: the name is not there.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let (v4, v6) = tokio::join!(self.ask_all(name, TYPE::A), self.ask_all(name, TYPE::AAAA));
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(v4.unwrap_or_default().into_iter().chain(v6.unwrap_or_default()).collect()),
        }
    }

    async fn ask_all(&self, name: &str, of: TYPE) -> io::Result<Vec<IpAddr>> {
        let mut failed = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..ATTEMPTS {
            for server in &self.dns.servers {
                match timeout(PATIENCE, self.ask(*server, name, of)).await {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(error)) => failed = error,
                    Err(_) => {}
                }
            }
        }
        Err(failed)
    }

    async fn ask(&self, server: SocketAddr, name: &str, of: TYPE) -> io::Result<Vec<IpAddr>> {
        let invalid = |error: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
        // Together with a random port and a connected socket: who guesses an answer has to guess this too.
        let id = RandomState::new().build_hasher().finish() as u16;
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(
            Name::new(name.trim_end_matches('.')).map_err(invalid)?,
            QTYPE::TYPE(of),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let bytes = query.build_bytes_vec().map_err(invalid)?;
        let socket = UdpSocket::bind(SocketAddr::new(self.net.source().unwrap_or_else(|| unspecified(server)), 0)).await?;
        socket.connect(server).await?;
        socket.send(&bytes).await?;
        let mut buffer = [0; 1500];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let reply = buffer.get(..length).unwrap_or_default();
            match Packet::parse(reply).map(|reply| (reply.id() == id).then(|| reply.has_flags(PacketFlag::TRUNCATION))) {
                Ok(Some(true)) => return self.ask_in_full(server, &bytes).await,
                Ok(Some(false)) => return answers(reply),
                // Not an answer to us: somebody guesses.
                _ => {}
            }
        }
    }

    /// Over TCP, when the answer does not fit a datagram.
    async fn ask_in_full(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<IpAddr>> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.net.source() {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let mut stream = socket.connect(server).await?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        answers(&reply)
    }
}

fn unspecified(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The addresses in a name server's answer; none for a name that is not there.
pub fn answers(reply: &[u8]) -> io::Result<Vec<IpAddr>> {
    let reply = Packet::parse(reply).map_err(io::Error::other)?;
    match reply.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Vec::new()),
        code => return Err(io::Error::other(format!("the name server answered {code:?}"))),
    }
    let address = |data: &RData<'_>| match data {
        RData::A(ip) => Some(IpAddr::V4(ip.address.into())),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.address.into())),
        _ => None,
    };
    Ok(reply.answers.iter().filter_map(|record| address(&record.rdata)).collect())
}

/// The names to ask for, in order: with the search list first if the name has few dots (resolv.conf(5), `ndots`).
fn candidates(name: &str, dns: &Dns) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![format!("{absolute}.")];
    }
    let ndots = dns.options.iter().rev().find_map(|option| option.strip_prefix("ndots:")?.parse::<usize>().ok()).unwrap_or(1);
    let mut names: Vec<String> = dns.searches.iter().map(|suffix| format!("{name}.{}.", suffix.trim_matches('.'))).collect();
    let few = name.matches('.').count() < ndots;
    names.insert(if few { names.len() } else { 0 }, format!("{name}."));
    names
}

/// A lookup under way, as the guest holds it.
struct Lookup(Stage);

enum Stage {
    Asking(AbortOnDropJoinHandle<io::Result<Vec<IpAddr>>>),
    Answered(Result<std::vec::IntoIter<IpAddr>, ErrorCode>),
}

fn code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::InvalidInput => ErrorCode::InvalidArgument,
        io::ErrorKind::TimedOut => ErrorCode::TemporaryResolverFailure,
        _ => ErrorCode::NameUnresolvable,
    }
}

impl Lookup {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<&mut Result<std::vec::IntoIter<IpAddr>, ErrorCode>> {
        if let Stage::Asking(task) = &mut self.0 {
            match std::pin::Pin::new(task).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answer) => self.0 = Stage::Answered(answer.map(Vec::into_iter).map_err(|error| code(&error))),
            }
        }
        match &mut self.0 {
            Stage::Answered(answer) => Poll::Ready(answer),
            Stage::Asking(_) => Poll::Pending,
        }
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx).map(|_| ())).await;
    }
}

fn address(ip: IpAddr) -> IpAddress {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            IpAddress::Ipv4((a, b, c, d))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = Ipv6Addr::segments(&v6);
            IpAddress::Ipv6((a, b, c, d, e, f, g, h))
        }
    }
}

/// Defines the interface.
pub fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(LOOKUP)?;
    lookup.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, rep| {
        store.data_mut().table().delete(Resource::<Lookup>::new_own(rep))?;
        Ok(())
    })?;
    lookup.func_wrap("resolve-addresses", |mut store: StoreContextMut<'_, Guest>, (network, name): (Resource<Network>, String)| {
        let guest = store.data_mut();
        guest.table().get(&network)?;
        let resolver = guest.pod().resolver.clone();
        let task = wasmtime_wasi::runtime::spawn(async move { resolver.resolve(&name).await });
        let lookup = guest.table().push(Lookup(Stage::Asking(task)))?;
        Ok((Ok::<_, ErrorCode>(lookup),))
    })?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, Guest>, (this,): (Resource<Lookup>,)| {
            let lookup = store.data_mut().table().get_mut(&this)?;
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            Ok((match lookup.poll(&mut context) {
                Poll::Pending => Err(ErrorCode::WouldBlock),
                Poll::Ready(Ok(addresses)) => Ok(addresses.next().map(address)),
                Poll::Ready(Err(code)) => Err(*code),
            },))
        },
    )?;
    lookup.func_wrap("[method]resolve-address-stream.subscribe", |mut store: StoreContextMut<'_, Guest>, (this,): (Resource<Lookup>,)| {
        let pollable: Resource<DynPollable> = wasmtime_wasi::p2::subscribe(store.data_mut().table(), this)?;
        Ok((pollable,))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_are_tried_as_a_resolver_does() {
        let dns = Dns {
            servers: Vec::new(),
            searches: vec!["default.svc.cluster.local".to_owned(), "cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        assert_eq!(candidates("web", &dns), ["web.default.svc.cluster.local.", "web.cluster.local.", "web."]);
        assert_eq!(candidates("web.", &dns), ["web."]);
        assert_eq!(candidates("a.b.c.d.e.f", &dns)[0], "a.b.c.d.e.f.");
        assert_eq!(candidates("a.b", &Dns { options: Vec::new(), ..dns })[0], "a.b.");
    }
}
