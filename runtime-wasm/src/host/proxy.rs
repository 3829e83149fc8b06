//! A Service's listener in front of a process that listens for itself: bytes are carried between the two.
//!
//! Only without kernel proxy (ordinary user). For pods that serve HTTP the listener is served directly instead.

use super::sockets::PodNet;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once through one listener.
const CONNECTIONS: usize = 256;

/// Carries connections from `fd` to the pod's `port` until `stop`.
pub fn listen(fd: OwnedFd, net: PodNet, port: u16, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let Ok((mut client, _)) = listener.accept().await else {
                // Out of descriptors: what is open has to end first.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                let _permit = permit;
                if let Ok(mut server) = TcpStream::connect(SocketAddr::new(net.localhost(), port)).await {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            }));
        }
    }));
    Ok(())
}
