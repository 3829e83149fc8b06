//! Images: pulled from any OCI registry, or imported from a file, kept by digest under `<data-dir>/images`.
//!
//! What runs here are WebAssembly components, so an image is one .wasm: a wasm artifact's layer, or the one .wasm file of an OCI
//! image. [`store`] keeps them, [`pull`] gets them through `registry` as a [`manifest`] tells, [`unpack`] finds the file in layers.

pub mod component;
pub mod credentials;
pub mod layer;
pub mod manifest;
pub mod pull;
mod registry;
pub mod store;

use coracle_runtime::LocalImage;
use credentials::Keyring;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use oci_client::Reference;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::Store;
use tokio::sync::Semaphore;

/// Pulls under way at once.
const PARALLEL: usize = 4;

/// Why an image is not to be had. `reason` is kubelet's waiting reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// `InvalidImageName`, `ErrImagePull`, `ImageInspectError`, `UnsupportedImage`.
    pub reason: &'static str,
    /// What was tried, on what, and the remedy.
    pub message: String,
}

impl Error {
    /// An error with that reason.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A pulled image.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What runtimes take.
    pub image: LocalImage,
    /// Bytes of the image's content.
    pub size: u64,
    /// Time of the pull itself, without waiting for its turn.
    pub took: Duration,
}

/// Where images come from besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `<data-dir>`: images are kept in `images/`, private CAs looked for in `certs.d/<registry>/ca.crt`.
    pub data_dir: PathBuf,
    /// CAs (PEM files) for every registry.
    pub registry_cas: Vec<PathBuf>,
    /// How long a registry may stay silent.
    pub silence: Option<Duration>,
}

type Flight = Shared<BoxFuture<'static, Result<Pulled, Error>>>;

/// The images of this node. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    options: Arc<Options>,
    store: Store,
    flights: Arc<Mutex<HashMap<(String, u64), Flight>>>,
    gate: Arc<Semaphore>,
}

impl Images {
    /// Opens the store.
    pub fn open(options: Options) -> Result<Self, Error> {
        let store = Store::open(&options.data_dir)?;
        // What a killed agent left. The store can be used all the same.
        if let Err(why) = store.sweep() {
            tracing::warn!(%why, "the image store could not be swept");
        }
        Ok(Self { options: Arc::new(options), store, flights: Arc::default(), gate: Arc::new(Semaphore::new(PARALLEL)) })
    }

    /// The image, if it is on this machine.
    pub fn lookup(&self, reference: &str) -> Result<Option<LocalImage>, Error> {
        self.store.lookup(reference)
    }

    /// Gets the image from its registry; callers that want the same at once share one pull.
    pub async fn pull(&self, reference: &str, keyring: Keyring) -> Result<Pulled, Error> {
        let key = (parse(reference)?.whole(), keyring.fingerprint());
        let flight = {
            let mut flights = self.flights.lock();
            // A flight whose last waiter went away is not taken up again.
            flights.retain(|_, flight| flight.peek().is_none() && flight.strong_count().is_some_and(|n| n > 1));
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (options, store, gate, reference) = (self.options.clone(), self.store.clone(), self.gate.clone(), reference.to_string());
                    let work = async move {
                        let _permit = gate.acquire().await.map_err(|e| Error::new("ErrImagePull", e.to_string()))?;
                        pull::pull(&options, &store, &reference, &keyring).await
                    };
                    let flight = work.boxed().shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Manifest digests and wasm digests that are still named.
    ///
    /// # Errors
    /// They cannot be listed; nothing may be removed then.
    pub fn digests(&self) -> Result<Vec<String>, Error> {
        self.store.digests()
    }
}

/// Reads a reference as Docker does: `hello` is `docker.io/library/hello:latest`.
pub fn parse(reference: &str) -> Result<Reference, Error> {
    let invalid = |why: &str| Error::new("InvalidImageName", format!("couldn't parse image name \"{reference}\": {why}"));
    let parsed: Reference = reference.parse().map_err(|_| invalid("invalid reference format"))?;
    // The grammar's own rule, which the crate forgets where it puts a registry in front.
    match parsed.repository().bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Err(invalid("invalid reference format: repository name must be lowercase")),
        false => Ok(parsed),
    }
}

/// The tag moves by convention: `latest`, or none at all (the default pull policy is then Always).
pub fn floating(reference: &str) -> bool {
    parse(reference).is_ok_and(|r| r.digest().is_none() && matches!(r.tag(), None | Some("latest")))
}

/// `coracle image import FILE --name NAME:TAG`: works beside a running agent, which sees the image at once.
pub fn import(data_dir: &Path, file: &Path, name: &str) -> Result<store::Named, Error> {
    Store::open(data_dir)?.import(file, name)
}

/// `coracle image list`.
pub fn list(data_dir: &Path) -> Result<Vec<store::Named>, Error> {
    Store::open(data_dir)?.list()
}

/// `coracle image rm NAME`: the name, and content that nothing names any more.
pub fn remove(data_dir: &Path, name: &str) -> Result<(), Error> {
    Store::open(data_dir)?.remove(name)
}

/// `coracle image push NAME`: as a wasm artifact, to the registry in its name. Returns the manifest's URL.
pub async fn push(options: Options, name: &str, keyring: &Keyring) -> Result<String, Error> {
    let store = Store::open(&options.data_dir)?;
    pull::push(&options, &store, name, keyring).await
}

#[cfg(test)]
mod tests;
