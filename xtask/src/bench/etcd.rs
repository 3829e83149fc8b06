//! Debian's etcd as the yardstick: put and range over gRPC, on one HTTP/2 connection a client, as kube-apiserver talks to it. Over TLS, as in any cluster that
//! kubeadm or k3s made, and without.

use super::cluster::{self, free_address};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};

/// A running etcd; ended and removed when dropped.
pub struct Etcd {
    child: Child,
    dir: PathBuf,
    address: String,
    tls: Option<TlsConnector>,
}

impl Etcd {
    /// Starts one on loopback.
    pub async fn start(tls: bool) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("coracle-bench-etcd-{}-{tls}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let address = free_address()?;
        let peer = format!("http://{}", free_address()?);
        let client = format!("{}://{address}", if tls { "https" } else { "http" });
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("data")).args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        let tls = if tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
            let (certificate, key) = (dir.join("certificate"), dir.join("key"));
            std::fs::write(&certificate, made.cert.pem())?;
            std::fs::write(&key, made.signing_key.serialize_pem())?;
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            let mut roots = rustls::RootCertStore::empty();
            roots.add(made.cert.der().clone())?;
            Some(cluster::connector(roots, None, b"h2")?)
        } else {
            None
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start etcd; install etcd-server")?;
        let etcd = Self { child, dir, address, tls };
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut client) = etcd.connect().await
                && put(&mut client, b"ready", b"yes").await.is_ok()
            {
                return Ok(etcd);
            }
            ensure!(Instant::now() < end, "etcd did not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(8 << 20).initial_connection_window_size(8 << 20);
        if let Some(tls) = &self.tls {
            let stream = tls.connect(rustls::pki_types::ServerName::try_from("127.0.0.1")?, stream).await?;
            let (client, connection) = builder.handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `KV/Put`.
pub async fn put(client: &mut SendRequest<Full<Bytes>>, key: &[u8], value: &[u8]) -> Result<()> {
    let mut message = field(1, key);
    message.extend(field(2, value));
    call(client, "Put", &message).await.map(drop)
}

/// `KV/Range` over everything with this prefix; the answer's length.
pub async fn range(client: &mut SendRequest<Full<Bytes>>, prefix: &[u8]) -> Result<usize> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let mut message = field(1, prefix);
    message.extend(field(2, &end));
    Ok(call(client, "Range", &message).await?.len())
}

/// A length-delimited protobuf field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

async fn call(client: &mut SendRequest<Full<Bytes>>, method: &str, message: &[u8]) -> Result<Bytes> {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    client.ready().await?;
    let request = Request::post(format!("http://etcd/etcdserverpb.KV/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(framed))?;
    let answer = client.send_request(request).await?;
    let body = answer.into_body().collect().await?;
    let status =
        body.trailers().and_then(|trailers| trailers.get("grpc-status")).and_then(|status| status.to_str().ok()).unwrap_or("none").to_string();
    ensure!(status == "0", "etcd answered with grpc-status {status}");
    Ok(body.to_bytes())
}
