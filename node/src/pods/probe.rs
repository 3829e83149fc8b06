//! One probe over the network, worded as kubelet (in Go) words it.

use super::spec::{Container, HttpGet, Probe, TcpSocket};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;

/// As much of a failed probe's body as an event shows.
const BODY: usize = 10 << 10;

/// Probes once; `Err` says why it failed.
pub async fn probe(container: &Container, probe: &Probe, ip: IpAddr) -> Result<(), String> {
    let limit = Duration::from_millis(u64::try_from(probe.timeout()).unwrap_or(1000));
    if let Some(get) = &probe.http_get {
        return http(container, get, ip, limit).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp(container, socket, ip, limit).await;
    }
    Err("the probe names neither httpGet nor tcpSocket".into())
}

fn port(container: &Container, port: &Value) -> Result<u16, String> {
    let number = match port {
        Value::Number(number) => number.as_u64(),
        Value::String(name) => {
            let named = container.ports.iter().find(|p| p.name.as_deref() == Some(name)).map(|p| u64::from(p.container_port));
            named.or_else(|| name.parse().ok())
        }
        _ => None,
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("couldn't find port: {port}"))
}

async fn connect(host: &str, ip: IpAddr, port: u16) -> Result<TcpStream, String> {
    let address = if host.is_empty() {
        SocketAddr::new(ip, port)
    } else {
        let mut found = tokio::net::lookup_host((host, port)).await.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?;
        found.next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?
    };
    TcpStream::connect(address).await.map_err(|e| format!("dial tcp {address}: connect: {}", words(&e)))
}

fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        _ => error.to_string(),
    }
}

async fn tcp(container: &Container, socket: &TcpSocket, ip: IpAddr, limit: Duration) -> Result<(), String> {
    let port = port(container, &socket.port)?;
    match tokio::time::timeout(limit, connect(&socket.host, ip, port)).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(format!("dial tcp {}: i/o timeout", SocketAddr::new(ip, port))),
    }
}

async fn http(container: &Container, get: &HttpGet, ip: IpAddr, limit: Duration) -> Result<(), String> {
    let port = port(container, &get.port)?;
    if get.scheme == "HTTPS" {
        return Err("HTTPS probes are not supported for wasm pods: components serve plain HTTP; use scheme HTTP".into());
    }
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let host = if get.host.is_empty() { SocketAddr::new(ip, port).to_string() } else { format!("{}:{port}", get.host) };
    let url = format!("http://{host}{path}");
    let exchange = async {
        let stream = connect(&get.host, ip, port).await.map_err(|e| format!("Get \"{url}\": {e}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("Get \"{url}\": {e}"))?;
        let mut request = hyper::Request::get(&path).header("User-Agent", "kube-probe/1.36").header("Accept", "*/*").header("Connection", "close");
        if !get.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case("host")) {
            request = request.header("Host", &host);
        }
        for header in &get.http_headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| format!("Get \"{url}\": {e}"))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| format!("Get \"{url}\": {e}"))?;
            let code = response.status().as_u16();
            // Read, so that the server sees an ordinary client, and bounded.
            let _ = Limited::new(response.into_body(), BODY).collect().await;
            Ok::<u16, String>(code)
        };
        tokio::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        let mut driven = false;
        loop {
            tokio::select! {
                code = &mut answer => break code,
                _ = connection.as_mut(), if !driven => driven = true,
            }
        }
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok(code)) if (200..400).contains(&code) => Ok(()),
        Ok(Ok(code)) => Err(format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn run(value: Value) -> Result<(), String> {
        probe(&Container::default(), &serde_json::from_value(value).unwrap(), [127, 0, 0, 1].into()).await
    }

    #[tokio::test]
    async fn http_codes_and_words() {
        let port = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(run(json!({ "httpGet": { "path": "/x", "port": port } })).await, Ok(()));
        assert_eq!(run(json!({ "tcpSocket": { "port": port } })).await, Ok(()));
        let port = server("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno").await;
        assert_eq!(run(json!({ "httpGet": { "port": port } })).await.unwrap_err(), "HTTP probe failed with statuscode: 500");
    }

    #[tokio::test]
    async fn refused_silent_and_unknown_ports() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = run(json!({ "httpGet": { "path": "/", "port": closed } })).await.unwrap_err();
        assert_eq!(error, format!("Get \"http://127.0.0.1:{closed}/\": dial tcp 127.0.0.1:{closed}: connect: connection refused"));
        let silent = server("").await;
        let error = run(json!({ "httpGet": { "port": silent }, "timeoutSeconds": 1 })).await.unwrap_err();
        assert!(error.contains("context deadline exceeded"), "{error}");
        assert!(run(json!({ "tcpSocket": { "port": "web" } })).await.unwrap_err().contains("couldn't find port"));
    }
}
