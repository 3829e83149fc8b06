//! Root's network: wasm pods by AnyIP (`local RANGE dev lo`: thousands of addresses, no device), Services by nftables.
//!
//! The upper half of the node's pod range is for wasm pods; the lower half is left to sandboxes on a bridge, since the local table
//! beats a bridge's route. The first address of the half is the node's own, from which it calls Services.

use super::{
    Error, Listeners, Network,
    nftables::Proxy,
    pool::{Pool, Range},
    services,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteScope, RouteType},
};
use std::net::{IpAddr, Ipv4Addr};

/// The kernel's routing table of addresses that are this machine's own.
const LOCAL_TABLE: u32 = 255;

/// See the module.
pub struct Kernel {
    pool: Mutex<Pool>,
    proxy: tokio::sync::Mutex<Proxy>,
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
        route(half, services).await?;
        let ends = |range: Range| (range.network, range.bits);
        let proxy = Proxy::start(table, ends(services), ends(whole), ends(half)).await.map_err(kernel)?;
        Ok(Self { pool: Mutex::new(Pool::new(half)), proxy: tokio::sync::Mutex::new(proxy) })
    }
}

fn kernel(error: impl std::fmt::Display) -> Error {
    Error::Kernel(error.to_string())
}

async fn route(pods: Range, services: Range) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(kernel)?;
    let driver = tokio::spawn(connection);
    let set = set_routes(&handle, pods, services).await;
    driver.abort();
    set
}

async fn set_routes(handle: &Handle, pods: Range, services: Range) -> Result<(), Error> {
    let builder = || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(1);
    let local = builder().destination_prefix(pods.network, pods.bits).kind(RouteType::Local).table_id(LOCAL_TABLE).scope(RouteScope::Host).build();
    let refused = |what: &str| {
        let what = what.to_string();
        move |error: rtnetlink::Error| Error::Kernel(format!("cannot add the route of {what}: {error}"))
    };
    handle.route().add(local).replace().execute().await.map_err(refused("the pods' addresses"))?;
    let source = pods.network;
    let vips = builder().destination_prefix(services.network, services.bits).pref_source(source).scope(RouteScope::Link).build();
    handle.route().add(vips).replace().execute().await.map_err(refused("the Services' addresses"))
}

#[async_trait]
impl Network for Kernel {
    async fn assign(&self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        self.pool.lock().assign(uid, keep)
    }

    async fn release(&self, uid: &str) {
        self.pool.lock().release(uid);
    }

    async fn sync_services(&self, services: Vec<Bytes>, slices: Vec<Bytes>) -> Result<Vec<(String, Listeners)>, Error> {
        let table = services::table(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref));
        self.proxy.lock().await.apply(table).await.map_err(kernel)?;
        Ok(Vec::new())
    }
}
