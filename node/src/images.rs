//! Images: pulled from any OCI registry, or imported from a file, kept by digest under `<data-dir>/images`.
//!
//! An image is one .wasm (a wasm artifact's layer, or the one .wasm file of an OCI image, which [`component`] finds) or the stacked [`layer`]s of a container.
//! [`store`] keeps them, [`pull`] gets them through `registry` as a [`manifest`] tells, [`mod@import`] from files; what is unpacked lies in `snapshots`.

pub mod collect;
pub mod component;
pub mod credentials;
pub mod import;
pub mod layer;
pub mod manifest;
pub mod progress;
pub mod pull;
mod push;
mod reference;
mod registry;
mod snapshots;
pub mod store;
mod turns;

use coracle_runtime::LocalImage;
use credentials::Keyring;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use oci_client::Reference;
use parking_lot::Mutex;
use progress::Progress;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::Store;
use tokio::sync::Semaphore;
use turns::Turns;

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
    /// Images of containers are wanted too; without it they are refused before they are pulled.
    pub containers: bool,
    /// A pull that takes so long is said to go on, and again after twice as long each time. Zero: nothing is said.
    pub say: Duration,
}

type Flight = Shared<BoxFuture<'static, Result<Pulled, Error>>>;
/// By full reference and credentials.
type Flights = HashMap<(String, u64), (Flight, Arc<Progress>)>;

/// The images of this node. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    context: Arc<pull::Context>,
    flights: Arc<Mutex<Flights>>,
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
        let context = pull::Context { options, store, turns: Turns::default(), unpackers: Arc::new(Semaphore::new(pull::UNPACKERS)) };
        Ok(Self { context: Arc::new(context), flights: Arc::default(), gate: Arc::new(Semaphore::new(PARALLEL)) })
    }

    /// The image, if it is on this machine.
    pub fn lookup(&self, reference: &str) -> Result<Option<LocalImage>, Error> {
        self.context.store.lookup(reference)
    }

    /// Gets the image from its registry; callers that want the same at once share one pull.
    pub async fn pull(&self, reference: &str, keyring: Keyring) -> Result<Pulled, Error> {
        self.pull_saying(reference, keyring, |_| {}).await
    }

    /// The same; `say` is told now and then how far it is.
    pub async fn pull_saying(&self, reference: &str, keyring: Keyring, say: impl Fn(&str)) -> Result<Pulled, Error> {
        let key = (parse(reference)?.whole(), keyring.fingerprint());
        let (mut flight, progress) = {
            let mut flights = self.flights.lock();
            // A flight whose last waiter went away is not taken up again.
            flights.retain(|_, (flight, _)| flight.peek().is_none() && flight.strong_count().is_some_and(|n| n > 1));
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (context, gate, reference) = (self.context.clone(), self.gate.clone(), reference.to_string());
                    let progress = Arc::new(Progress::default());
                    let counted = progress.clone();
                    let work = async move {
                        let _permit = gate.acquire().await.map_err(|e| Error::new("ErrImagePull", e.to_string()))?;
                        pull::pull(&context, &reference, &keyring, &counted).await
                    };
                    let flight = (work.boxed().shared(), progress);
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        let mut wait = self.context.options.say;
        if wait.is_zero() {
            return flight.await;
        }
        loop {
            match tokio::time::timeout(wait, &mut flight).await {
                Ok(done) => return done,
                Err(_) => {
                    wait *= 2;
                    progress.text().iter().for_each(|text| say(text));
                }
            }
        }
    }

    /// Keeps the image's layers for as long as the pod's directory is there. False when they are gone already.
    pub fn hold(&self, pod: &Path, image: &LocalImage) -> Result<bool, Error> {
        self.context.store.hold(pod, image)
    }

    /// Changes when images come and go.
    pub fn stamp(&self) -> Option<std::time::SystemTime> {
        self.context.store.stamp()
    }

    /// `status.images` of the Node: the largest fifty, with at most five names each, as kubelet reports them.
    pub fn status(&self) -> Vec<serde_json::Value> {
        let mut images: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
        for named in self.context.store.list().unwrap_or_default() {
            let Ok(reference) = parse(&named.reference) else { continue };
            let repository = format!("{}/{}", reference.registry(), reference.repository());
            let (size, names) = images.entry(named.manifest.clone()).or_default();
            *size = named.size;
            // Digests first, then tags.
            names.insert(0, format!("{repository}@{}", named.manifest));
            names.extend(reference.tag().map(|tag| format!("{repository}:{tag}")));
        }
        let mut images: Vec<_> = images.into_values().collect();
        images.sort_by(|a, b| b.cmp(a));
        let one = |(size, mut names): (u64, Vec<String>)| {
            names.dedup();
            names.truncate(5);
            serde_json::json!({ "names": names, "sizeBytes": size })
        };
        images.into_iter().take(50).map(one).collect()
    }

    /// Bytes of all images together; layers that several have count for each.
    pub fn bytes(&self) -> u64 {
        let sizes: BTreeMap<String, u64> =
            self.context.store.list().unwrap_or_default().into_iter().map(|named| (named.manifest, named.size)).collect();
        sizes.values().sum()
    }

    /// Manifest digests and wasm digests that are still named.
    ///
    /// # Errors
    /// They cannot be listed; nothing may be removed then.
    pub fn digests(&self) -> Result<Vec<String>, Error> {
        self.context.store.digests()
    }
}

/// Reads a reference as Docker does: `hello` is `docker.io/library/hello:latest`.
pub fn parse(reference: &str) -> Result<Reference, Error> {
    let invalid = |why: &str| Error::new("InvalidImageName", format!("couldn't parse image name \"{reference}\": {why}"));
    let parsed = reference::read(reference).ok_or_else(|| invalid("invalid reference format"))?;
    // The grammar's own rule, which is lost where a registry is put in front.
    match parsed.repository().bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Err(invalid("invalid reference format: repository name must be lowercase")),
        false => Ok(parsed),
    }
}

/// The tag moves by convention: `latest`, or none at all (the default pull policy is then Always).
pub fn floating(reference: &str) -> bool {
    parse(reference).is_ok_and(|r| r.digest().is_none() && matches!(r.tag(), None | Some("latest")))
}

/// `coracle image import FILE [--name NAME:TAG]`: works beside a running agent, which sees the images at once.
pub fn import(data_dir: &Path, file: &Path, name: Option<&str>) -> Result<Vec<store::Named>, Error> {
    import::import(&Store::open(data_dir)?, file, name)
}

/// `coracle image list`.
pub fn list(data_dir: &Path) -> Result<Vec<store::Named>, Error> {
    Store::open(data_dir)?.list()
}

/// `coracle image rm NAME`: the name, and content that nothing names any more.
pub fn remove(data_dir: &Path, name: &str) -> Result<(), Error> {
    Store::open(data_dir)?.remove(name)
}

/// `coracle image push NAME`: to the registry in its name. Returns the manifest's URL.
pub async fn push(options: Options, name: &str, keyring: &Keyring) -> Result<String, Error> {
    let store = Store::open(&options.data_dir)?;
    push::push(&options, &store, name, keyring).await
}

#[cfg(test)]
mod tests;
