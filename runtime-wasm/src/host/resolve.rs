//! Names in a pod: `wasi:sockets/ip-name-lookup`, and the resolver that outgoing HTTP shares with it.
//!
//! wasmtime-wasi resolves with the node's resolver, which knows nothing of the cluster. So the interface is ours: it asks the pod's DNS servers
//! with the pod's search list.

use super::guest::Guest;
use coracle_runtime::Dns;
use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    task::Poll,
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

/// How one pod resolves names.
pub struct Resolver {
    dns: Dns,
    #[expect(dead_code, reason = "queries leave from the pod's address")]
    from: IpAddr,
}

impl Resolver {
    /// `from` is the pod's address, which queries leave from.
    pub fn new(dns: Dns, from: IpAddr) -> Arc<Self> {
        Arc::new(Self { dns, from })
    }

    /// Addresses of `name`, which may be an address itself.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![ip]);
        }
        if name.is_empty() || name.len() > 253 || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a host name"));
        }
        _ = &self.dns;
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip().to_canonical()).collect())
    }
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
