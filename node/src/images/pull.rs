//! Pulling from (and pushing to) OCI registries.
//!
//! https everywhere but on loopback, where http is what people run (unless a CA is given for that registry). Roots are the system's, and
//! `certs.d/<registry>/ca.crt` or the agent's own list besides. Every wait and every body has a bound (see `registry`).

use super::{
    Error, Options, Pulled, component,
    credentials::Keyring,
    manifest::{self, Config, Content},
    parse,
    registry::{Registry, chain, trust},
    store::{LARGEST, Named, Store, WASM_CONFIG, WASM_LAYER, digest_of},
};
use oci_client::{
    Client, Reference,
    client::{self, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, ImageLayer},
    manifest::{OciDescriptor, OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// A registry that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(30);
/// A whole pull.
const WHOLE: Duration = Duration::from_secs(1800);
/// The largest manifest or config, bytes.
const DOCUMENT: usize = 4 << 20;

const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

fn failed(message: impl Into<String>) -> Error {
    Error::new("ErrImagePull", message)
}

/// Gets an image into the store and names it. However it ends, nothing stays that no name needs.
pub async fn pull(options: &Options, store: &Store, reference: &str, keyring: &Keyring) -> Result<Pulled, Error> {
    let began = Instant::now();
    let name = parse(reference)?;
    let silence = options.silence.unwrap_or(SILENCE);
    let _swept = Swept(store);
    let mut logins: Vec<Option<(String, String)>> =
        keyring.find(name.registry(), name.repository()).into_iter().map(|(user, password)| Some((user.into(), password.into()))).collect();
    if logins.is_empty() {
        logins.push(None);
    }
    let mut last = failed("no credentials");
    for login in logins {
        let session = Session { registry: Registry::new(options, &name, login, silence)?, store, name: &name, reference };
        match tokio::time::timeout(WHOLE, session.pull()).await {
            Ok(Ok(named)) => {
                let image = store.local(reference, &named).ok_or_else(|| failed(format!("image {reference} vanished from the store")))?;
                return Ok(Pulled { image, size: named.size, took: began.elapsed() });
            }
            Ok(Err(why)) => last = why,
            Err(_) => return Err(failed(format!("pull {reference}: not done within {} s", WHOLE.as_secs()))),
        }
        // Another credential may be the right one; what is not about access stays wrong.
        if !session.registry.denied() {
            break;
        }
    }
    Err(last)
}

/// Sweeps the store when it is dropped, as it also is when nobody waits for the pull any more.
struct Swept<'a>(&'a Store);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        if let Err(why) = self.0.sweep() {
            tracing::warn!(%why, "the image store could not be swept");
        }
    }
}

struct Session<'a> {
    registry: Registry<'a>,
    store: &'a Store,
    name: &'a Reference,
    reference: &'a str,
}

impl Session<'_> {
    async fn pull(&self) -> Result<Named, Error> {
        // Before anything is stored: what is not named yet is not swept away.
        let _lock = self.store.lock()?;
        let (manifest, digest) = self.manifest(self.name.digest().or(self.name.tag()).unwrap_or("latest")).await?;
        let (manifest, digest) = match manifest {
            OciManifest::Image(manifest) => (manifest, digest),
            OciManifest::ImageIndex(index) => {
                let entry = manifest::choose(&index).ok_or_else(|| failed(format!("image {} is an index that names no manifest", self.reference)))?;
                if self.store.blob(&entry.digest).is_none() {
                    return Err(failed(format!("the index of image {} names {:?}, which is no sha256 digest", self.reference, entry.digest)));
                }
                match self.manifest(&entry.digest).await? {
                    (OciManifest::Image(manifest), digest) => (manifest, digest),
                    _ => return Err(failed(format!("image {} is an index of indexes, which is not supported", self.reference))),
                }
            }
        };
        let config = self.config(&manifest).await?;
        let (wasm, size) = self.content(&manifest).await?;
        let named = Named {
            version: 1,
            reference: self.name.whole(),
            manifest: digest,
            wasm,
            size,
            config: config.run,
            created: crate::pods::time::Time::now().rfc3339(),
        };
        self.store.record(&named)?;
        Ok(named)
    }

    /// By tag or digest.
    async fn manifest(&self, which: &str) -> Result<(OciManifest, String), Error> {
        let what = format!("pull the manifest of {}", self.reference);
        if which.contains(':') && self.store.blob(which).is_none() {
            return Err(failed(format!("{what}: {which} is no sha256 digest")));
        }
        let response = self.registry.get(&what, &format!("manifests/{which}"), &ACCEPT).await?;
        let bytes = self.registry.whole(&what, response, DOCUMENT).await?;
        // What was asked for by digest must have it, whatever the registry says.
        let digest = digest_of(&bytes);
        if which.contains(':') && which != digest {
            return Err(failed(format!("{what}: the registry answered for {which} with a manifest that has digest {digest}")));
        }
        let manifest = serde_json::from_slice(&bytes).map_err(|e| failed(format!("read the manifest of {}: {e}", self.reference)))?;
        self.store.put(&bytes)?;
        Ok((manifest, digest))
    }

    async fn config(&self, manifest: &OciImageManifest) -> Result<Config, Error> {
        if !manifest::has_config(manifest) {
            return Ok(Config::default());
        }
        let (digest, _) = self.blob(&manifest.config, DOCUMENT as u64, false).await?;
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
            let layers: Vec<component::Layer> = files.iter().map(|(path, kind)| component::Layer { path, media_type: kind }).collect();
            // Only the .wasm gets a name; the layers are swept away with whatever else has none.
            component::find(&store, &reference, &layers)
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
        let what = format!("pull {digest} of {}", self.reference);
        let mut response = self.registry.get(&what, &format!("blobs/{digest}"), &[]).await?;
        let mut incoming = self.store.incoming(descriptor.size as u64)?;
        while let Some(bytes) = self.registry.chunk(&what, &mut response).await? {
            incoming.write_all(&bytes).map_err(|e| failed(format!("keep {digest} of {}: {e}", self.reference)))?;
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

/// Pushes a stored image as a wasm artifact. Returns the manifest's URL.
pub async fn push(options: &Options, store: &Store, name: &str, keyring: &Keyring) -> Result<String, Error> {
    let reference = parse(name)?;
    let missing = || failed(format!("push {name}: no image of that name here; `coracle image list` shows them"));
    let named = store.find(name)?.ok_or_else(missing)?;
    let path = store.blob(&named.wasm).ok_or_else(missing)?;
    let data = std::fs::read(&path).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
    let registry = reference.resolve_registry().to_string();
    let (roots, plain) = trust(options, &registry)?;
    let config = ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: roots.into_iter().map(|data| Certificate { encoding: CertificateEncoding::Pem, data }).collect(),
        read_timeout: Some(options.silence.unwrap_or(SILENCE)),
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    let unusable = |e| failed(format!("set up a client for registry {registry}: {e}; look at its ca.crt"));
    let client = Client::try_from(config).map_err(unusable)?;
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
