//! A cluster of the release build, and an HTTP/2 client of its API.

use crate::{guests, packages, step};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// A connection to the API, as the administrator.
pub type Client = SendRequest<Full<Bytes>>;

/// `coracle up` of the release build in a folder of its own; stopped and removed when dropped.
pub struct Cluster {
    child: Child,
    dir: PathBuf,
    /// Where the API is.
    pub api: String,
    /// Start of the process until the ready line.
    pub ready_after: Duration,
    /// The ready line.
    pub ready_line: String,
    /// Who connects, and whom it trusts; known when the cluster is ready.
    identity: Option<Identity>,
}

/// The administrator, by the kubeconfig.
struct Identity {
    roots: rustls::RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Cluster {
    /// Builds (if need be) and starts one, with `hello:v1` imported.
    pub fn start() -> Result<Self> {
        let components = guests::build(false)?;
        let cluster = Self::with(&[])?;
        cluster.import(&components.join("hello.wasm"), Some("hello:v1"))?;
        Ok(cluster)
    }

    /// Starts a control plane without a node.
    pub fn control_plane() -> Result<Self> {
        Self::with(&["--disable-agent"])
    }

    fn with(flags: &[&str]) -> Result<Self> {
        let binary = release()?;
        let dir = std::env::temp_dir().join(format!("coracle-bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let api = free_address()?;
        let begun = Instant::now();
        let mut command = Command::new(&binary);
        command.arg("up").arg("--data-dir").arg(dir.join("data")).arg("--kubeconfig").arg(dir.join("kubeconfig")).args([
            "--api-addr",
            &api,
            "--node-name",
            "bench",
        ]);
        let mut child = command.args(flags).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut cluster = Self { child, dir, api, ready_after: Duration::ZERO, ready_line: String::new(), identity: None };
        loop {
            let line = lines.next().context("the cluster ended before it was ready")??;
            if line.starts_with("ready") {
                cluster.ready_after = begun.elapsed();
                cluster.ready_line = line;
                break;
            }
        }
        // Nobody reads on; a full pipe must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        cluster.identity = Some(cluster.administrator()?);
        Ok(cluster)
    }

    /// The cluster's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the images of a file known, as the names in it or under `name`.
    pub fn import(&self, file: &Path, name: Option<&str>) -> Result<()> {
        let mut import = Command::new(release()?);
        import.args(["image", "import"]).arg(file).arg("--data-dir").arg(self.dir.join("data")).stdout(Stdio::null());
        import.args(name.into_iter().flat_map(|name| ["--name", name]));
        ensure!(import.status()?.success(), "the image could not be imported");
        Ok(())
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Client> {
        let stream = self.connect_tls(b"h2").await?;
        let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A TLS connection for a protocol, as the administrator.
    pub async fn connect_tls(&self, protocol: &[u8]) -> Result<TlsStream<TcpStream>> {
        let Identity { roots, chain, key } = self.identity.as_ref().context("the cluster is not ready")?;
        let tls = connector(roots.clone(), Some((chain.clone(), key.clone_key())), protocol)?;
        let stream = TcpStream::connect(&self.api).await?;
        stream.set_nodelay(true)?;
        Ok(tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?)
    }

    /// By kubectl, which reads any kubeconfig.
    fn administrator(&self) -> Result<Identity> {
        let mut view = Command::new("kubectl");
        view.arg("--kubeconfig").arg(self.dir.join("kubeconfig")).args(["config", "view", "--raw", "-o", "json"]);
        let config: serde_json::Value = serde_json::from_slice(&view.output()?.stdout)?;
        let decode = |value: &Value| -> Result<Vec<u8>> {
            use base64::Engine;
            Ok(base64::engine::general_purpose::STANDARD.decode(value.as_str().context("not in the kubeconfig")?)?)
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&decode(&config["clusters"][0]["cluster"]["certificate-authority-data"])?)?)?;
        let user = &config["users"][0]["user"];
        let chain = CertificateDer::pem_slice_iter(&decode(&user["client-certificate-data"])?).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&decode(&user["client-key-data"])?)?;
        Ok(Identity { roots, chain, key })
    }

    /// The process that serves the API.
    pub fn main(&self) -> u32 {
        self.child.id()
    }

    /// All processes of the cluster: itself, everything that carries its data directory, and the shims' parent with the shims, which are named so. What runs in
    /// containers is not among them.
    pub fn processes(&self) -> Vec<u32> {
        let mark = self.dir.to_string_lossy().into_owned();
        let carries = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| String::from_utf8_lossy(&words).contains(&mark));
        let (nurseries, shims) = (children(self.main(), "coracle-shims"), |nursery: &u32| children(*nursery, "coracle-shim"));
        let shims: Vec<u32> = nurseries.iter().flat_map(shims).collect();
        all().filter(carries).chain(nurseries).chain(shims).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A client's side of TLS for a protocol: whom it trusts and, perhaps, who it is.
pub fn connector(
    roots: rustls::RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    protocol: &[u8],
) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut tls = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes of that name whose parent is `parent`.
fn children(parent: u32, name: &str) -> Vec<u32> {
    let is = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()));
        field("Name:").as_deref() == Some(name) && field("PPid:") == Some(parent.to_string())
    };
    all().filter(is).collect()
}

/// The binary that `CORACLE_BIN` names, else the release binary, built now.
pub fn release() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return Ok(path.into());
    }
    packages::ensure(packages::BUILD)?;
    let mut build = Command::new("cargo");
    build.current_dir(guests::root()).args(["build", "--release", "-p", "coracle"]);
    step::run("build the release binary", &mut build)?;
    Ok(guests::target_dir().join("release/coracle"))
}

/// A free address of loopback.
pub fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Sends a request with a JSON body (a patch by `PATCH merge` or `PATCH apply`); the answer's head has arrived when this returns.
pub async fn send(client: &mut Client, method: &str, path: &str, body: Vec<u8>) -> Result<Response<Incoming>> {
    client.ready().await?;
    let (method, media) = match method.split_once(' ') {
        Some((method, "apply")) => (method, "application/apply-patch+yaml"),
        Some((method, _)) => (method, "application/merge-patch+json"),
        None => (method, "application/json"),
    };
    let request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}")).header("content-type", media).body(Full::from(body))?;
    Ok(client.send_request(request).await?)
}

/// Sends a request and reads the whole answer; an error unless it succeeded.
pub async fn call(client: &mut Client, method: &str, path: &str, body: Vec<u8>) -> Result<Bytes> {
    let answer = send(client, method, path, body).await?;
    let code = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        bail!("{method} {path}: {code} {}", String::from_utf8_lossy(&bytes));
    }
    Ok(bytes)
}
