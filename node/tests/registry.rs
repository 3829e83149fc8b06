//! Images against a real registry: Debian's docker-registry, on loopback, with its own directory.

#[path = "registry/containers.rs"]
mod containers;
#[path = "registry/hostile.rs"]
mod hostile;

use coracle_link::pki::Authority;
use coracle_node::images::{self, Images, Options, credentials::Keyring};
use flate2::{Compression, write::GzEncoder};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::OciImageManifest,
    secrets::RegistryAuth,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const WASM: &[u8] = b"\0asm\x0d\0\x01\0 a component";

struct Registry {
    process: Child,
    dir: TempDir,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Default)]
struct With {
    tls: Option<(PathBuf, PathBuf)>,
    password: bool,
}

impl Registry {
    async fn start(with: With) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The port is free when asked for; the registry says at once when somebody else was faster.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.path().join("data").display()
        );
        if let Some((certificate, key)) = &with.tls {
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        }
        if with.password {
            // user "user", password "secret", bcrypt.
            let file = dir.path().join("htpasswd");
            fs::write(&file, "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").unwrap();
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry: install Debian's package docker-registry");
        let mut registry = Self { process, dir, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(&registry.address).await.is_err() {
            assert!(registry.process.try_wait().unwrap().is_none(), "the registry ended");
            assert!(Instant::now() < deadline, "the registry does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        registry
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> Options {
        Options { data_dir: self.dir.path().into(), silence: Some(Duration::from_secs(5)), ..Options::default() }
    }

    fn images(&self) -> Images {
        Images::open(self.options()).unwrap()
    }

    fn import(&self, name: &str) -> String {
        let file = self.dir.path().join("guest.wasm");
        fs::write(&file, WASM).unwrap();
        images::import(self.dir.path(), &file, Some(name)).unwrap().remove(0).manifest
    }

    fn trust(&self, registry: &str, ca: &str) {
        let dir = self.dir.path().join("certs.d").join(registry);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("ca.crt"), ca).unwrap();
    }
}

fn keyring(registry: &str, user: &str, password: &str) -> Keyring {
    let json = serde_json::json!({ "auths": { registry: { "username": user, "password": password } } }).to_string();
    let mut keyring = Keyring::default();
    keyring.add(&BTreeMap::from([(".dockerconfigjson".to_string(), json.into_bytes())]));
    keyring
}

fn content(image: &coracle_runtime::LocalImage) -> Vec<u8> {
    match &image.content {
        coracle_runtime::ImageContent::Wasm { path, .. } => fs::read(path).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn push_layers(registry: &Registry, name: &str, layers: Vec<ImageLayer>, config: Config) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let reference: Reference = registry.name(name).parse().unwrap();
    let manifest = OciImageManifest::build(&layers, &config, None);
    client.push(&reference, &layers, config, &RegistryAuth::Anonymous, Some(manifest)).await.unwrap();
}

fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_wasm_artifact_goes_out_and_comes_back_by_tag_and_by_digest() {
    let registry = Registry::start(With::default()).await;
    let name = registry.name("team/hello:v1");
    let from = Node::new();
    from.import(&name);
    images::push(from.options(), &name, &Keyring::default()).await.unwrap();

    let to = Node::new();
    let images = to.images();
    assert!(images.lookup(&name).unwrap().is_none());
    let pulled = images.pull(&name, Keyring::default()).await.unwrap();
    assert_eq!(content(&pulled.image), WASM);
    assert_eq!(pulled.size, WASM.len() as u64);
    assert_eq!(images.lookup(&name).unwrap().unwrap().digest, pulled.image.digest);
    let by_digest = registry.name(&format!("team/hello@{}", pulled.image.digest));
    let again = images.pull(&by_digest, Keyring::default()).await.unwrap();
    assert_eq!(again.image.digest, pulled.image.digest);

    // Many at once share one pull.
    let other = Node::new();
    let other = (other.images(), other);
    let pulls = futures::future::join_all((0..20).map(|_| other.0.pull(&name, Keyring::default()))).await;
    let took: Vec<Duration> = pulls.into_iter().map(|p| p.unwrap().took).collect();
    assert!(took.windows(2).all(|w| w[0] == w[1]), "{took:?}");
}

#[tokio::test]
async fn an_oci_image_with_one_wasm_file_and_one_without() {
    let registry = Registry::start(With::default()).await;
    let config = || {
        let json = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Entrypoint": ["/app.wasm"], "Cmd": ["--x"], "Env": ["A=b", "C="] }, "rootfs": { "type": "layers", "diff_ids": [] } });
        Config::oci_v1(json.to_string().into_bytes(), None)
    };
    let layers = vec![
        ImageLayer::oci_v1_gzip(tar_gz(&[("etc/os-release", b"x"), ("app.wasm", b"\0asm old")]), None),
        ImageLayer::oci_v1_gzip(tar_gz(&[("app.wasm", WASM)]), None),
    ];
    push_layers(&registry, "app:v1", layers, config()).await;
    let node = Node::new();
    let images = node.images();
    let pulled = images.pull(&registry.name("app:v1"), Keyring::default()).await.unwrap();
    assert_eq!(content(&pulled.image), WASM);
    assert_eq!((&*pulled.image.config.entrypoint, &*pulled.image.config.cmd), (&["/app.wasm".to_string()][..], &["--x".to_string()][..]));
    assert_eq!(pulled.image.config.env, [("A".to_string(), "b".to_string()), ("C".to_string(), String::new())]);

    let layers = vec![ImageLayer::oci_v1_gzip(tar_gz(&[("bin/sh", b"\x7fELF")]), None)];
    push_layers(&registry, "native:v1", layers, config()).await;
    let error = images.pull(&registry.name("native:v1"), Keyring::default()).await.unwrap_err();
    assert!(error.reason == "UnsupportedImage" && error.message.contains("WebAssembly only"), "{error}");
}

#[tokio::test]
async fn an_image_cannot_take_anothers_content_away() {
    let registry = Registry::start(With::default()).await;
    let node = Node::new();
    node.import("mine:1");
    // It calls the bytes of "mine" its layer: they are here already, are no tar, and stay.
    let layers = vec![ImageLayer::new(WASM.to_vec(), "application/vnd.oci.image.layer.v1.tar".into(), None)];
    push_layers(&registry, "thief:1", layers, Config::oci_v1(b"{}".to_vec(), None)).await;
    let images = node.images();
    assert!(images.pull(&registry.name("thief:1"), Keyring::default()).await.is_err());
    assert_eq!(content(&images.lookup("mine:1").unwrap().expect("still here")), WASM);
}

#[tokio::test]
async fn a_private_ca_is_trusted_for_its_registry_only() {
    let pki = tempfile::tempdir().unwrap();
    let authority = Authority::open(pki.path()).unwrap();
    let pair = authority.server(&["127.0.0.1".to_string()], Duration::from_secs(3600)).unwrap();
    let (certificate, key) = (pki.path().join("r.crt"), pki.path().join("r.key"));
    fs::write(&certificate, &pair.cert_pem).unwrap();
    fs::write(&key, &pair.key_pem).unwrap();
    let registry = Registry::start(With { tls: Some((certificate, key)), ..With::default() }).await;
    let name = registry.name("hello:v1");

    let node = Node::new();
    node.trust(&registry.address, authority.ca_pem());
    node.import(&name);
    images::push(node.options(), &name, &Keyring::default()).await.unwrap();
    let to = Node::new();
    to.trust(&registry.address, authority.ca_pem());
    assert_eq!(content(&to.images().pull(&name, Keyring::default()).await.unwrap().image), WASM);

    let stranger = Authority::open(&pki.path().join("other")).unwrap();
    let wrong = Node::new();
    wrong.trust(&registry.address, stranger.ca_pem());
    let error = wrong.images().pull(&name, Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("certificate"), "{error}");

    // On loopback the CA is what says that it speaks https.
    let untold = Node::new();
    let error = untold.images().pull(&name, Keyring::default()).await.unwrap_err();
    let at = untold.dir.path().join("certs.d").join(&registry.address).join("ca.crt");
    assert!(error.message.contains("speaks https") && error.message.contains(&at.display().to_string()), "{error}");
    let clear = Registry::start(With::default()).await;
    to.trust(&clear.address, authority.ca_pem());
    let error = to.images().pull(&clear.name("hello:v1"), Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("does not speak https"), "{error}");
}

#[tokio::test]
async fn credentials_are_needed_and_used() {
    let registry = Registry::start(With { password: true, ..With::default() }).await;
    let name = registry.name("secret/hello:v1");
    let good = keyring(&registry.address, "user", "secret");
    let node = Node::new();
    node.import(&name);
    images::push(node.options(), &name, &good).await.unwrap();

    let to = Node::new();
    assert_eq!(content(&to.images().pull(&name, good).await.unwrap().image), WASM);
    let fresh = Node::new();
    for wrong in [Keyring::default(), keyring(&registry.address, "user", "wrong")] {
        let error = fresh.images().pull(&name, wrong).await.unwrap_err();
        assert_eq!(error.reason, "ErrImagePull");
        assert!(error.message.to_lowercase().contains("auth"), "{error}");
    }
}

#[tokio::test]
async fn what_is_missing_tampered_with_or_silent_is_named() {
    let registry = Registry::start(With::default()).await;
    let node = Node::new();
    let error = node.images().pull(&registry.name("none:v1"), Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("none:v1") && error.message.to_lowercase().contains("unknown"), "{error}");

    let name = registry.name("hello:v1");
    node.import(&name);
    images::push(node.options(), &name, &Keyring::default()).await.unwrap();
    let blob = find_blob(registry.dir.path());
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::File::create(&blob).unwrap().write_all(&bytes).unwrap();
    let to = Node::new();
    let error = to.images().pull(&name, Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("digest"), "{error}");
    assert!(to.images().lookup(&name).unwrap().is_none());

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let patience = Options { silence: Some(Duration::from_millis(300)), ..to.options() };
    let began = Instant::now();
    let error = Images::open(patience).unwrap().pull(&format!("{address}/hello:v1"), Keyring::default()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(error.reason == "ErrImagePull" && (error.message.contains("did not answer") || error.message.contains("timed out")), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = to.images().pull(&format!("{closed}/hello:v1"), Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("refused"), "{error}");
}

/// The file in the registry that holds the component.
fn find_blob(dir: &Path) -> PathBuf {
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if fs::read(entry.path()).unwrap() == WASM {
                return entry.path();
            }
        }
    }
    panic!("the registry does not hold the component")
}
