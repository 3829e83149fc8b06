//! Pulling from (and pushing to) OCI registries.
//!
//! https everywhere but on loopback, where http is what people run (unless a CA is given for that registry). Roots are the system's, and
//! `certs.d/<registry>/ca.crt` or the agent's own list besides. Every wait has a bound that names the registry.

use super::{
    Error, Options, Pulled,
    credentials::Keyring,
    manifest::{self, Config, Content},
    parse,
    store::{LARGEST, Named, Store, WASM_CONFIG, WASM_LAYER},
    unpack,
};
use futures::StreamExt;
use oci_client::{
    Client, Reference,
    client::{self, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, ImageLayer},
    manifest::{OciDescriptor, OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use std::{
    collections::HashSet,
    io::Write,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A registry that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(30);
/// A whole pull.
const WHOLE: Duration = Duration::from_secs(1800);
/// The largest manifest or config, bytes.
const DOCUMENT: i64 = 4 << 20;

const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

fn failed(message: impl Into<String>) -> Error {
    Error::new("ErrImagePull", message)
}

/// Gets an image into the store and names it.
pub async fn pull(options: &Options, store: &Store, reference: &str, keyring: &Keyring) -> Result<Pulled, Error> {
    let began = Instant::now();
    let name = parse(reference)?;
    let registry = name.resolve_registry().to_string();
    let silence = options.silence.unwrap_or(SILENCE);
    let client = client(options, &registry, silence)?;
    let mut auths: Vec<RegistryAuth> =
        keyring.find(name.registry(), name.repository()).into_iter().map(|(u, p)| RegistryAuth::Basic(u.into(), p.into())).collect();
    if auths.is_empty() {
        auths.push(RegistryAuth::Anonymous);
    }
    let mut last = failed("no credentials");
    for auth in auths {
        let session = Session { client: client.clone(), store, name: &name, reference, registry: &registry, auth, silence };
        match tokio::time::timeout(WHOLE, session.pull()).await {
            Ok(Ok(named)) => {
                let image = store.local(reference, &named).ok_or_else(|| failed(format!("image {reference} vanished from the store")))?;
                return Ok(Pulled { image, size: named.size, took: began.elapsed() });
            }
            Ok(Err(why)) => last = why,
            Err(_) => return Err(failed(format!("pull {reference}: not done within {} s", WHOLE.as_secs()))),
        }
        // Another credential may be the right one; what is not about access stays wrong.
        if !last.message.contains("uthor") {
            break;
        }
    }
    Err(last)
}

fn loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn client(options: &Options, registry: &str, silence: Duration) -> Result<Client, Error> {
    // reqwest takes the process's provider; installing it twice is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = Vec::new();
    let own = options.data_dir.join("certs.d").join(registry).join("ca.crt");
    for path in options.registry_cas.iter().chain(std::iter::once(&own)) {
        match std::fs::read(path) {
            Ok(data) => roots.push(Certificate { encoding: CertificateEncoding::Pem, data }),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && path == &own => {}
            Err(why) => return Err(failed(format!("read the registry CA {}: {why}", path.display()))),
        }
    }
    // The client library cannot be built without any root on the machine, even for http.
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err(failed("this machine has no CA certificates; install the package ca-certificates"));
    }
    let plain = loopback(registry) && !own.exists();
    let config = ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: roots,
        read_timeout: Some(silence),
        connect_timeout: Some(silence.min(Duration::from_secs(10))),
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|e| failed(format!("set up a client for registry {registry}: {e}; look at its ca.crt")))
}

struct Session<'a> {
    client: Client,
    store: &'a Store,
    name: &'a Reference,
    reference: &'a str,
    registry: &'a str,
    auth: RegistryAuth,
    silence: Duration,
}

impl Session<'_> {
    /// Bounds one answer of the registry.
    async fn within<T>(&self, what: &str, answer: impl Future<Output = Result<T, oci_client::errors::OciDistributionError>>) -> Result<T, Error> {
        // A little more than the client's own bound on silence, so that a trickle of headers ends too.
        let bound = self.silence + Duration::from_secs(1);
        match tokio::time::timeout(bound, answer).await {
            Ok(result) => result.map_err(|why| failed(format!("{what} {}: {}", self.reference, chain(&why)))),
            Err(_) => {
                Err(failed(format!("{what} {}: registry {} did not answer within {} s", self.reference, self.registry, self.silence.as_secs())))
            }
        }
    }

    async fn pull(&self) -> Result<Named, Error> {
        let (manifest, digest) = self.manifest(self.name).await?;
        let (manifest, digest) = match manifest {
            OciManifest::Image(manifest) => (manifest, digest),
            OciManifest::ImageIndex(index) => {
                let entry = manifest::choose(&index).ok_or_else(|| failed(format!("image {} is an index that names no manifest", self.reference)))?;
                match self.manifest(&self.name.clone_with_digest(entry.digest.clone())).await? {
                    (OciManifest::Image(manifest), digest) => (manifest, digest),
                    _ => return Err(failed(format!("image {} is an index of indexes, which is not supported", self.reference))),
                }
            }
        };
        let _lock = self.store.lock()?;
        let config = self.config(&manifest).await?;
        let (wasm, size) = self.content(&manifest).await?;
        let named = Named {
            version: 1,
            reference: self.name.whole(),
            manifest: digest,
            wasm,
            size,
            entrypoint: config.entrypoint,
            env: config.env,
            created: crate::pods::time::Time::now().rfc3339(),
        };
        self.store.record(&named)?;
        Ok(named)
    }

    async fn manifest(&self, name: &Reference) -> Result<(OciManifest, String), Error> {
        let (bytes, _) = self.within("pull the manifest of", self.client.pull_manifest_raw(name, &self.auth, &ACCEPT)).await?;
        if bytes.len() as i64 > DOCUMENT {
            return Err(failed(format!("the manifest of {} is larger than the {DOCUMENT} bytes that are allowed", self.reference)));
        }
        let digest = self.store.put(&bytes)?;
        // What was asked for by digest must have it, whatever the registry says.
        if let Some(wanted) = name.digest().filter(|wanted| *wanted != digest) {
            return Err(failed(format!("registry {} answered for {wanted} with a manifest that has digest {digest}", self.registry)));
        }
        let manifest = serde_json::from_slice(&bytes).map_err(|e| failed(format!("read the manifest of {}: {e}", self.reference)))?;
        Ok((manifest, digest))
    }

    async fn config(&self, manifest: &OciImageManifest) -> Result<Config, Error> {
        if !manifest::has_config(manifest) {
            return Ok(Config::default());
        }
        let (digest, _) = self.blob(&manifest.config, u64::try_from(DOCUMENT).unwrap_or(0), false).await?;
        let path = self.store.blob(&digest).ok_or_else(|| failed("the config has no sha256 digest"))?;
        let bytes = std::fs::read(&path).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
        Config::read(&bytes).map_err(|e| failed(format!("read the config of {}: {e}", self.reference)))
    }

    /// The .wasm: a layer that is one, or the one file within tar layers.
    async fn content(&self, manifest: &OciImageManifest) -> Result<(String, u64), Error> {
        let layers = match manifest::content(manifest, self.reference)? {
            Content::Wasm(layer) => return self.blob(layer, LARGEST, true).await,
            Content::Layers(layers) => layers,
        };
        let mut files = Vec::new();
        for layer in layers {
            let (digest, _) = self.blob(layer, LARGEST, false).await?;
            let path = self.store.blob(&digest).ok_or_else(|| failed("a layer has no sha256 digest"))?;
            files.push((path, layer.media_type.clone()));
        }
        let (store, reference) = (self.store.clone(), self.reference.to_string());
        let found = tokio::task::spawn_blocking(move || {
            let layers: Vec<unpack::Layer> = files.iter().map(|(path, kind)| unpack::Layer { path, media_type: kind }).collect();
            let found = unpack::find(&store, &reference, &layers);
            // Only the .wasm is kept; what another image is made of is not this one's to remove, whatever its manifest calls a layer.
            let Ok(digests) = store.digests() else { return found };
            let named: HashSet<PathBuf> = digests.iter().filter_map(|digest| store.blob(digest)).collect();
            for (path, _) in files.iter().filter(|(path, _)| !named.contains(path)) {
                let _ = std::fs::remove_file(path);
            }
            found
        });
        found.await.map_err(|e| failed(format!("look into the layers of {}: {e}", self.reference)))?
    }

    /// A blob into the store, its digest checked.
    async fn blob(&self, descriptor: &OciDescriptor, limit: u64, wasm: bool) -> Result<(String, u64), Error> {
        let digest = descriptor.digest.as_str();
        let path = self.store.blob(digest).ok_or_else(|| failed(format!("{digest} in image {} is no sha256 digest", self.reference)))?;
        if u64::try_from(descriptor.size).map_or(true, |size| size > limit) {
            return Err(failed(format!("{digest} in image {} has {} bytes; {limit} are allowed", self.reference, descriptor.size)));
        }
        if let Ok(meta) = std::fs::metadata(&path)
            && meta.len() == descriptor.size as u64
        {
            return Ok((digest.to_string(), meta.len()));
        }
        let mut incoming = self.store.incoming(limit)?;
        let mut stream = self.within("pull", self.client.pull_blob_stream(self.name, descriptor)).await?;
        loop {
            let chunk = tokio::time::timeout(self.silence + Duration::from_secs(1), stream.stream.next()).await;
            match chunk {
                Ok(Some(Ok(bytes))) => {
                    incoming.write_all(&bytes).map_err(|e| failed(format!("keep {digest} of {}: {e}", self.reference)))?;
                }
                Ok(Some(Err(why))) => return Err(failed(format!("pull {digest} of {}: {}", self.reference, chain(&why)))),
                Ok(None) => break,
                Err(_) => {
                    return Err(failed(format!(
                        "pull {digest} of {}: registry {} sent nothing for {} s",
                        self.reference,
                        self.registry,
                        self.silence.as_secs()
                    )));
                }
            }
        }
        if wasm {
            let (got, size) = incoming.keep_wasm(&format!("the layer of image {}", self.reference))?;
            if got != digest {
                return Err(failed(format!("content has digest {got} where {digest} was promised; it is not used")));
            }
            return Ok((got, size));
        }
        incoming.keep(Some(digest))
    }
}

/// An error with its causes: reqwest's own words are only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Pushes a stored image as a wasm artifact. Returns the manifest's URL.
pub async fn push(options: &Options, store: &Store, name: &str, keyring: &Keyring) -> Result<String, Error> {
    let reference = parse(name)?;
    let missing = || failed(format!("push {name}: no image of that name here; `coracle image list` shows them"));
    let named = store.find(name)?.ok_or_else(missing)?;
    let path = store.blob(&named.wasm).ok_or_else(missing)?;
    let data = std::fs::read(&path).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
    let registry = reference.resolve_registry().to_string();
    let client = client(options, &registry, options.silence.unwrap_or(SILENCE))?;
    let auth = match keyring.find(reference.registry(), reference.repository()).first() {
        Some((user, password)) => RegistryAuth::Basic((*user).into(), (*password).into()),
        None => RegistryAuth::Anonymous,
    };
    let layers = [ImageLayer::new(data, WASM_LAYER.into(), None)];
    let config = client::Config::new(&br#"{"architecture":"wasm","os":"wasip2"}"#[..], WASM_CONFIG.into(), None);
    let manifest = OciImageManifest::build(&layers, &config, None);
    let pushed = client.push(&reference, &layers, config, &auth, Some(manifest)).await;
    pushed.map(|answer| answer.manifest_url).map_err(|e| failed(format!("push {name} to {registry}: {}", chain(&e))))
}
