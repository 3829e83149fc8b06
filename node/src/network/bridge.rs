//! Sandboxes' network: a bridge with the gateway's address, and a pair of devices from it into each sandbox's namespace.
//!
//! Devices go with the namespace they lead into, so a killed agent or pod leaves none. The bridge is made with the first sandbox: a node of wasm pods needs none.

use super::{Error, pool::Range};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
        route::RouteScope,
    },
};
use std::{
    collections::HashSet,
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};
use tokio::task::JoinHandle;

/// The bridge's name.
pub const NAME: &str = "coracle0";
/// Loopback's number, in every namespace.
const LOOPBACK: u32 = 1;

/// Below /proc/sys/net. A pod must not become the machine's router; what reaches pods from the machine's loopback finds its way back (the rules let nothing else
/// from the bridge to loopback).
const SETTINGS: [(&str, &str); 2] = [("ipv6/conf/coracle0/accept_ra", "0"), ("ipv4/conf/coracle0/route_localnet", "1")];

/// The bridge of the node's sandboxes.
pub struct Bridge {
    /// Its half of the node's range.
    range: Range,
    /// Made already.
    made: tokio::sync::Mutex<bool>,
}

/// A netlink connection, ended when it is dropped.
struct Netlink {
    handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Netlink {
    fn here() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| refused("speak with the kernel", &error))?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// In another namespace. A socket belongs to the namespace of the thread that made it, which is one that is thrown away.
    fn inside(namespace: File) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
            let _context = runtime.enter();
            let enter = rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network));
            enter.map_err(std::io::Error::from).and_then(|()| rtnetlink::new_connection())
        });
        let made = thread.map_err(|error| refused("start a thread", &error))?.join();
        let made = made.unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
        let (connection, handle, _) = made.map_err(|error| refused("enter the sandbox's network", &error))?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc_enodev() => Ok(None),
            Err(error) => Err(refused(&format!("look for the device {name}"), &error)),
        }
    }
}

/// The bridge's own hardware address: without one it takes a port's, and pods lose the node when that port goes.
fn hardware(gateway: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], &gateway.octets()[..]].concat()
}

/// No such device.
fn libc_enodev() -> i32 {
    nix::errno::Errno::ENODEV as i32
}

fn refused(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Kernel(format!("cannot {what}: {error}"))
}

/// The device at the bridge's end: 15 bytes are all that a name may have.
pub fn device(uid: &str) -> String {
    let hex: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("cor{hex}")
}

/// Devices of ours that are nobody's any more, among all of the machine.
fn strays(devices: impl IntoIterator<Item = String>, pods: &HashSet<String>) -> Vec<String> {
    let known: HashSet<String> = pods.iter().map(|uid| device(uid)).collect();
    let of_a_pod = |name: &str| name.strip_prefix("cor").is_some_and(|uid| uid.len() == 12 && uid.bytes().all(|byte| byte.is_ascii_hexdigit()));
    devices.into_iter().filter(|name| of_a_pod(name) && !known.contains(name)).collect()
}

impl Bridge {
    /// Nothing is made yet.
    pub fn new(range: Range) -> Self {
        Self { range, made: tokio::sync::Mutex::new(false) }
    }

    /// The bridge's own address, by which pods reach everything else.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network) + 1)
    }

    /// Makes the bridge, or finds that of an earlier agent.
    async fn make(&self, netlink: &Netlink) -> Result<u32, Error> {
        let mut made = self.made.lock().await;
        let index = match netlink.find(NAME).await? {
            Some(link) => link.header.index,
            None => {
                let link = LinkBridge::new(NAME).address(hardware(self.gateway())).up().build();
                netlink.handle.link().add(link).execute().await.map_err(|error| refused(&format!("make the bridge {NAME}"), &error))?;
                *made = false;
                netlink.find(NAME).await?.map(|link| link.header.index).ok_or_else(|| refused("find the bridge", &"it is gone again"))?
            }
        };
        if !*made {
            let address = netlink.handle.address().add(index, self.gateway().into(), self.range.bits).replace().execute().await;
            address.map_err(|error| refused("give the bridge its address", &error))?;
            let up = LinkUnspec::new_with_index(index).up().build();
            netlink.handle.link().set(up).execute().await.map_err(|error| refused("bring the bridge up", &error))?;
            for (name, value) in SETTINGS {
                if let Err(why) = std::fs::write(format!("/proc/sys/net/{name}"), value) {
                    tracing::warn!(%why, name, value, "a setting of the bridge stays as it is");
                }
            }
            // Pods reach other machines through this one.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|error| refused("switch forwarding on (net.ipv4.ip_forward)", &error))?;
            *made = true;
        }
        Ok(index)
    }

    /// Gives the sandbox whose network namespace that is its devices, address and routes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn attach(&self, uid: &str, address: Ipv4Addr, namespace: &Path) -> Result<(), Error> {
        let file = File::open(namespace).map_err(|error| refused(&format!("open the network namespace {}", namespace.display()), &error))?;
        let here = Netlink::here()?;
        let bridge = self.make(&here).await?;
        let name = device(uid);
        // An attempt that was cut off.
        self.detach_by(&here, &name).await?;
        let inside = Netlink::inside(file.try_clone().map_err(|error| refused("hold the network namespace", &error))?)?;
        // Each end is made where it belongs: to move one would have the machine wait until nobody can still see it in its old place.
        let end = LinkUnspec::new_with_name("eth0").setns_by_fd(file.as_raw_fd()).build();
        let pair =
            LinkMessageBuilder::<LinkVeth>::new(&name, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(end))).controller(bridge).up().build();
        here.handle.link().add(pair).execute().await.map_err(|error| refused("make the sandbox's devices", &error))?;
        // A pod reaches itself by a Service also where bridges pass what they carry through the machine's rules (br_netfilter).
        if let Some(port) = here.find(&name).await? {
            let back = LinkBridgePort::new(port.header.index).hairpin(true).build();
            here.handle
                .link()
                .set_port(back)
                .execute()
                .await
                .map_err(|error| refused("let the sandbox's device have its own packets back", &error))?;
        }

        let eth0 = inside.find("eth0").await?.map(|link| link.header.index).ok_or_else(|| refused("find eth0", &"it is gone again"))?;
        inside.handle.address().add(eth0, address.into(), 32).execute().await.map_err(|error| refused("give the sandbox its address", &error))?;
        for index in [LOOPBACK, eth0] {
            let up = LinkUnspec::new_with_index(index).up().build();
            inside.handle.link().set(up).execute().await.map_err(|error| refused("bring a device of the sandbox up", &error))?;
        }
        // Everything goes by the node, neighbours' packets too: what a Service translated has to come back the way it went.
        let routes = [
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(self.gateway(), 32).scope(RouteScope::Link).output_interface(eth0),
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(self.gateway()).output_interface(eth0),
        ];
        for route in routes {
            inside.handle.route().add(route.build()).execute().await.map_err(|error| refused("give the sandbox its routes", &error))?;
        }
        Ok(())
    }

    /// Removes a sandbox's devices. They go with its namespace as well, a moment later.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        if !*self.made.lock().await {
            return Ok(());
        }
        self.detach_by(&Netlink::here()?, &device(uid)).await
    }

    /// Removes devices that lead to none of these pods.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn sweep(&self, pods: &HashSet<String>) -> Result<(), Error> {
        let here = Netlink::here()?;
        let links: Vec<LinkMessage> =
            here.handle.link().get().execute().try_collect().await.map_err(|error| refused("list the machine's devices", &error))?;
        let name = |link: LinkMessage| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        };
        for stray in strays(links.into_iter().filter_map(name), pods) {
            tracing::info!(device = stray, "remove a device that no pod owns");
            self.detach_by(&here, &stray).await?;
        }
        Ok(())
    }

    async fn detach_by(&self, netlink: &Netlink, name: &str) -> Result<(), Error> {
        let Some(link) = netlink.find(name).await? else { return Ok(()) };
        match netlink.handle.link().del(link.header.index).execute().await {
            // Gone by itself meanwhile.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc_enodev() => Ok(()),
            other => other.map_err(|error| refused("remove a sandbox's device", &error)),
        }
    }

    /// Removes the bridge, if there is one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn end(&self) -> Result<(), Error> {
        *self.made.lock().await = false;
        self.detach_by(&Netlink::here()?, NAME).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_no_pod_are_strays_and_others_are_not_ours() {
        let pods = HashSet::from(["6f1c2d3e-4a5b-6c7d-8e9f-000000000000".to_owned()]);
        let ours = device("6f1c2d3e-4a5b-6c7d-8e9f-000000000000");
        assert_eq!(ours, "cor6f1c2d3e4a5b");
        let devices = ["lo", "eth0", NAME, &ours, "cor000000000001", "corp0", "corp-uplink-001"].map(str::to_owned);
        assert_eq!(strays(devices, &pods), ["cor000000000001"]);
    }
}
