//! Root's network: wasm pods by AnyIP (`local RANGE dev lo`: thousands of addresses, no device), containers on a bridge, Services by nftables.
//!
//! The upper half of the node's pod range is for wasm pods; the lower half is left to sandboxes on a bridge, since the local table
//! beats a bridge's route. The first address of the half is the node's own, from which it calls Services.

use super::{
    Error, HostPort, Listeners, Network,
    bridge::{self, Bridge},
    checks::Checks,
    conntrack,
    flushed::News,
    nftables::{Places, Proxy},
    pool::{Pool, Range},
    rules::Rules,
    services,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteScope, RouteType},
};
use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// The kernel's routing table of addresses that are this machine's own.
const LOCAL_TABLE: u32 = 255;

/// See the module.
pub struct Kernel {
    pool: Mutex<Pool>,
    /// The lower half.
    sandboxes: Mutex<Pool>,
    lower: Range,
    bridge: Bridge,
    routes: Routes,
    proxy: tokio::sync::Mutex<Proxy>,
    /// The nft table.
    name: String,
    news: Option<News>,
    /// A table of that name was deleted.
    doubt: AtomicBool,
    /// What the rules were last made of.
    table: Mutex<services::Table>,
    /// Every pod of the node.
    whole: Range,
    /// By the pods' uids.
    hosts: Mutex<BTreeMap<String, Vec<HostPort>>>,
    checks: Checks,
}

impl Kernel {
    /// Sets routes and the nft table `table` up; both are made anew if an earlier agent left them.
    pub async fn start(pods: &str, services: &str, table: &str) -> Result<Self, Error> {
        let whole = Range::parse(pods)?;
        if whole.bits > 28 {
            return Err(Error::Range(pods.into(), "it is too small to be split between wasm pods and sandboxes; give at least a /28".into()));
        }
        let half = whole.upper_half();
        let services = Range::parse(services)?;
        let mut addresses: Vec<Ipv4Addr> = own(services).into_iter().map(|(ip, ..)| ip).collect();
        addresses.dedup();
        let routes = Routes { pods: half, services, own: addresses };
        routes.set().await?;
        let places = Places { table: table.into(), services, pods: whole, local: half, own: own(services), bridge: bridge::NAME };
        let proxy = Proxy::start(places).await.map_err(kernel)?;
        let news =
            News::new().inspect_err(|error| tracing::warn!(%error, "rules that others delete come back with the next change of a Service")).ok();
        let lower = whole.lower_half();
        let bridge = Bridge::new(lower);
        let mut sandboxes = Pool::new(lower);
        // No pod has that uid.
        sandboxes.assign("", Some(bridge.gateway().into()))?;
        let (pool, sandboxes) = (Mutex::new(Pool::new(half)), Mutex::new(sandboxes));
        Ok(Self {
            pool,
            sandboxes,
            lower,
            bridge,
            routes,
            proxy: tokio::sync::Mutex::new(proxy),
            name: table.into(),
            news,
            doubt: AtomicBool::default(),
            table: Mutex::default(),
            whole,
            hosts: Mutex::default(),
            checks: Checks::default(),
        })
    }

    /// Takes down what was set up, for a machine that no pod runs on any more.
    pub async fn end(&self) -> Result<(), Error> {
        let rules = self.proxy.lock().await.end().await.map_err(kernel);
        let bridge = self.bridge.end().await;
        self.routes.remove().await.and(bridge).and(rules)
    }
}

fn kernel(error: impl std::fmt::Display) -> Error {
    Error::Kernel(error.to_string())
}

/// Where every node listens itself: at the API's Service and at cluster DNS's.
fn own(services: Range) -> Vec<(Ipv4Addr, &'static str, u16)> {
    [(1, "tcp", 443), (10, "udp", 53), (10, "tcp", 53)]
        .into_iter()
        .filter_map(|(offset, protocol, port)| Some((services.nth(offset)?, protocol, port)))
        .collect()
}

/// Both ranges are this machine's own.
struct Routes {
    pods: Range,
    services: Range,
    own: Vec<Ipv4Addr>,
}

impl Routes {
    fn messages(&self) -> Vec<(&'static str, RouteMessage)> {
        let builder = |range: Range| RouteMessageBuilder::<Ipv4Addr>::new().output_interface(1).destination_prefix(range.network, range.bits);
        let local = |range| builder(range).kind(RouteType::Local).table_id(LOCAL_TABLE).scope(RouteScope::Host).build();
        let vips = builder(self.services).pref_source(self.pods.network).scope(RouteScope::Link);
        let own = self.own.iter().map(|ip| ("the node's own Services", local(Range { network: *ip, bits: 32 })));
        [("the pods' addresses", local(self.pods)), ("the Services' addresses", vips.build())].into_iter().chain(own).collect()
    }

    async fn set(&self) -> Result<(), Error> {
        self.each("add", async |handle, route| handle.route().add(route).replace().execute().await).await
    }

    async fn remove(&self) -> Result<(), Error> {
        let gone = -rustix::io::Errno::SRCH.raw_os_error();
        let remove = async |handle: &Handle, route| match handle.route().del(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == gone => Ok(()),
            done => done,
        };
        self.each("remove", remove).await
    }

    async fn each(&self, verb: &str, act: impl AsyncFn(&Handle, RouteMessage) -> Result<(), rtnetlink::Error>) -> Result<(), Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(kernel)?;
        let driver = tokio::spawn(connection);
        let mut done = Ok(());
        for (what, route) in self.messages() {
            done = done.and(act(&handle, route).await.map_err(|error| Error::Kernel(format!("cannot {verb} the route of {what}: {error}"))));
        }
        driver.abort();
        done
    }
}

#[async_trait]
impl Network for Kernel {
    async fn assign(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        // The address of an adopted sandbox says what it is.
        match keep {
            Some(IpAddr::V4(address)) if self.lower.contains(address) => self.assign_sandbox(uid, keep).await,
            _ => self.pool.lock().assign(uid, keep),
        }
    }

    async fn assign_sandbox(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        self.sandboxes.lock().assign(uid, keep)
    }

    async fn attach(&self, uid: &str, ip: IpAddr, namespace: &Path) -> Result<(), Error> {
        let IpAddr::V4(address) = ip else { return Err(kernel("sandboxes have IPv4 addresses")) };
        self.bridge.attach(uid, address, namespace).await
    }

    async fn release(&self, uid: &str) {
        self.pool.lock().release(uid);
        self.hosts.lock().remove(uid);
        if let Err(why) = self.bridge.detach(uid).await {
            tracing::warn!(%why, uid, "a sandbox's device stays");
        }
        self.sandboxes.lock().release(uid);
    }

    async fn sweep(&self, pods: &HashSet<String>) {
        if let Err(why) = self.bridge.sweep(pods).await {
            tracing::warn!(%why, "devices of pods that are gone stay");
        }
    }

    async fn host_ports(&self, uid: &str, ports: Vec<HostPort>) {
        let mut hosts = self.hosts.lock();
        match ports.is_empty() {
            true => _ = hosts.remove(uid),
            false => _ = hosts.insert(uid.into(), ports),
        }
    }

    async fn sync_services(&self, services: Vec<Bytes>, slices: Vec<Bytes>, node: &str) -> Result<Vec<(String, Listeners)>, Error> {
        let table = services::table(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), node);
        let hosts: Vec<HostPort> = self.hosts.lock().values().flatten().copied().collect();
        self.checks.set(&table.checks);
        let rules = Rules::new(&table, &hosts, &self.whole.to_string());
        {
            let mut proxy = self.proxy.lock().await;
            if self.doubt.swap(false, Ordering::Relaxed)
                && let Err(error) = proxy.look().await
            {
                self.doubt.store(true, Ordering::Relaxed);
                return Err(kernel(error));
            }
            proxy.apply(rules).await.map_err(kernel)?;
        }
        let before = std::mem::replace(&mut *self.table.lock(), table.clone());
        let changed = conntrack::changed(&before, &table);
        if !changed.is_empty() {
            match tokio::task::spawn_blocking(move || conntrack::forget(&changed)).await {
                Ok(Ok(count)) => tracing::debug!(count, "flows of datagrams to what is gone are forgotten"),
                Ok(Err(why)) => tracing::warn!(%why, "flows of datagrams go on to endpoints that are gone"),
                Err(why) => tracing::error!(%why, "forget flows of datagrams"),
            }
        }
        Ok(Vec::new())
    }

    async fn disturbed(&self) {
        let heard = match &self.news {
            Some(news) => news.deleted(&self.name).await,
            None => std::future::pending().await,
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "nothing more is heard of rules that others delete");
            return std::future::pending().await;
        }
        self.doubt.store(true, Ordering::Relaxed);
    }
}
