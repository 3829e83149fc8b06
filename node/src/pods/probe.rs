//! One probe over the network, worded as kubelet (in Go) words it.

use super::{
    http::{Request, connect, port},
    spec::{Container, HttpGet, Probe, TcpSocket},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Probes once; `Err` says why it failed, `Ok` what is to be warned of although it did not.
pub async fn probe(container: &Container, probe: &Probe, ip: IpAddr) -> Result<Option<String>, String> {
    let limit = Duration::from_millis(u64::try_from(probe.timeout()).unwrap_or(1000));
    if let Some(get) = &probe.http_get {
        return http(container, get, ip, limit).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp(container, socket, ip, limit).await.map(|()| None);
    }
    Err("the probe names neither httpGet nor tcpSocket".into())
}

async fn tcp(container: &Container, socket: &TcpSocket, ip: IpAddr, limit: Duration) -> Result<(), String> {
    let port = port(container, &socket.port)?;
    match tokio::time::timeout(limit, connect(&socket.host, ip, port)).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(format!("dial tcp {}: i/o timeout", SocketAddr::new(ip, port))),
    }
}

async fn http(container: &Container, get: &HttpGet, ip: IpAddr, limit: Duration) -> Result<Option<String>, String> {
    let request = Request::new(container, get, ip, "kube-probe")?;
    match tokio::time::timeout(limit, request.send()).await {
        Ok(Ok(answer)) if answer.elsewhere => Ok(Some("Probe terminated redirects".into())),
        Ok(Ok(answer)) if (200..400).contains(&answer.code) => Ok(None),
        Ok(Ok(answer)) => Err(format!("HTTP probe failed with statuscode: {}", answer.code)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)", request.url())),
    }
}

#[cfg(test)]
mod tests;
