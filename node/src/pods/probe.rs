//! One probe, worded as kubelet (in Go) words it.

use super::{
    env, exec, grpc,
    http::{Request, connect, port},
    spec::{Container, HttpGet, Probe, TcpSocket},
};
use coracle_runtime::{ContainerId, Runtime};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How often a probe that could not be made is tried before it is given up.
const TRIES: usize = 3;

/// A probe that was not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It failed, which counts.
    Failed(String),
    /// It could not be made, which says nothing of the container.
    Unknown(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<&str> for Trouble {
    fn from(why: &str) -> Self {
        Self::Failed(why.to_owned())
    }
}

/// Where a command of a probe runs.
pub struct Inside<'a> {
    /// What runs the container.
    pub runtime: &'a dyn Runtime,
    /// Which.
    pub id: ContainerId,
}

/// Probes once; `Err` says why it failed, `Ok` what is to be warned of although it did not.
pub async fn probe(container: &Container, probe: &Probe, ip: IpAddr, inside: Option<Inside<'_>>) -> Result<Option<String>, Trouble> {
    let limit = Duration::from_millis(u64::try_from(probe.timeout()).unwrap_or(1000));
    if let Some(action) = &probe.exec {
        let Some(inside) = inside else { return Err(Trouble::Unknown("the pod has no runtime".into())) };
        // Only what is written out in the container's spec, as kubelet has it.
        let lookup =
            |name: &str| container.env.iter().find(|variable| variable.name == name && variable.value_from.is_none()).map(|v| v.value.as_str());
        let command: Vec<String> = action.command.iter().map(|word| env::expand(word, lookup)).collect();
        return run(&inside, &command, limit).await.map(|()| None);
    }
    if let Some(action) = &probe.grpc {
        return Ok(grpc::check(ip, action.port, &action.service, limit).await.map(|()| None)?);
    }
    if let Some(get) = &probe.http_get {
        return Ok(http(container, get, ip, limit).await?);
    }
    if let Some(socket) = &probe.tcp_socket {
        return Ok(tcp(container, socket, ip, limit).await.map(|()| None)?);
    }
    Err(Trouble::Unknown("missing probe handler".into()))
}

async fn run(inside: &Inside<'_>, command: &[String], limit: Duration) -> Result<(), Trouble> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match exec::run(inside.runtime, inside.id.clone(), command, Some(limit)).await {
            Ok((0, _)) => return Ok(()),
            Ok((_, output)) => return Err(Trouble::Failed(output)),
            Err(exec::Trouble::TimedOut(why)) => return Err(Trouble::Failed(why)),
            Err(exec::Trouble::Lost(why)) => last = why,
        }
    }
    Err(Trouble::Unknown(last))
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
