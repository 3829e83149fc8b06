//! Pulling from OCI registries.
//!
//! https everywhere but on loopback, where http is what people run (unless a CA is given for that registry). Roots are the system's, and
//! `certs.d/<registry>/ca.crt` or the agent's own list besides. Every wait and every body has a bound (see `registry`); a blob that breaks off goes on where it
//! was. Bytes are hashed and written aside of the async threads, layers unpacked there too, a few at a time.

use super::{
    Error, Options, Pulled, component,
    credentials::Keyring,
    layer::Budget,
    manifest::{self, Config, Content, Nature},
    parse,
    progress::Progress,
    registry::Registry,
    snapshots::Stack,
    store::{Incoming, LARGEST, Named, Store, Stored, digest_of, remedy},
    turns::Turns,
};
use bytes::Bytes;
use coracle_runtime::LocalImage;
use futures::{StreamExt, TryStreamExt, stream};
use oci_client::{
    Reference,
    manifest::{OciDescriptor, OciImageManifest, OciManifest},
};
use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};

/// How long what a broken pull has left waits to be swept away, and between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(20);
/// A registry that says nothing for so long has failed.
pub const SILENCE: Duration = Duration::from_secs(30);
/// A whole pull, and besides it as long as its bytes take at the lowest rate that is waited for, bytes a second.
const WHOLE: (Duration, u64) = (Duration::from_secs(1800), 64 << 10);
/// The largest manifest or config, bytes.
pub const DOCUMENT: usize = 4 << 20;
/// Indexes within indexes.
const DEPTH: usize = 4;
/// All layers of a container image as they come, bytes.
pub const COMPRESSED: u64 = 32 << 30;
/// Layers of one image that come at once: kubelet's runtimes have three.
const PARALLEL: usize = 3;
/// Layers that are unpacked at once, of all images.
pub const UNPACKERS: usize = 2;
/// A blob is asked for again so often, in all and without a byte in between, with a pause that doubles from this one.
const RESUMES: (u32, u32, Duration) = (100, 6, Duration::from_millis(100));
/// Parts that wait to be written.
const WAITING: usize = 16;

/// What all pulls share.
pub struct Context {
    /// Where from.
    pub options: Options,
    /// Where to.
    pub store: Store,
    /// For each layer.
    pub turns: Turns,
    /// For all of them.
    pub unpackers: Arc<Semaphore>,
}

fn failed(message: impl Into<String>) -> Error {
    Error::new("ErrImagePull", message)
}

/// Runs it where it may take long.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|why| failed(why.to_string()))?
}

/// Gets an image into the store and names it. However it ends, nothing stays that no name needs.
pub async fn pull(context: &Context, reference: &str, keyring: &Keyring, progress: &Arc<Progress>) -> Result<Pulled, Error> {
    let mut swept = Swept(Some(context.store.clone()));
    let done = attempts(context, reference, keyring, progress).await;
    if let Some(store) = swept.0.take() {
        // Done when the answer is there; after a success the next one may do it.
        let patience = if done.is_ok() { Duration::ZERO } else { PATIENCE };
        let _ = tokio::task::spawn_blocking(move || sweep(&store, patience)).await;
    }
    done
}

async fn attempts(context: &Context, reference: &str, keyring: &Keyring, progress: &Arc<Progress>) -> Result<Pulled, Error> {
    let began = Instant::now();
    let name = parse(reference)?;
    let (options, store) = (&context.options, &context.store);
    let silence = options.silence.unwrap_or(SILENCE);
    let mut logins: Vec<Option<(String, String)>> =
        keyring.find(name.registry(), name.repository()).into_iter().map(|(user, password)| Some((user.into(), password.into()))).collect();
    if logins.is_empty() {
        logins.push(None);
    }
    let mut last = failed("no credentials");
    for login in logins {
        let registry = Registry::new(options, &name, login, silence)?;
        // Before anything is stored: what is not named yet is not swept away.
        let lock = aside({
            let store = store.clone();
            move || store.lock()
        });
        let lock = Arc::new(lock.await?);
        let cancelled = Cancelled::default();
        let session = Session { context, registry, name: &name, reference, progress, lock, cancelled: &cancelled };
        match session.pull().await {
            Ok((named, image)) => return Ok(Pulled { image, size: named.size, took: began.elapsed() }),
            Err(why) => last = why,
        }
        // Another credential may be the right one; what is not about access stays wrong.
        if !session.registry.denied() {
            break;
        }
    }
    Err(last)
}

/// Sweeps the store when it is dropped: nobody waits for the pull any more.
struct Swept(Option<Store>);

impl Drop for Swept {
    fn drop(&mut self) {
        let Some(store) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || sweep(&store, PATIENCE))),
            Err(_) => sweep(&store, Duration::ZERO),
        }
    }
}

/// `patience`: how long it waits for its turn. What a broken pull still does aside has the store's lock for a moment, and so has a process that is just being made.
fn sweep(store: &Store, patience: Duration) {
    let until = Instant::now() + patience;
    loop {
        match store.sweep() {
            Ok(false) if Instant::now() < until => std::thread::sleep(TURN),
            Ok(_) => return,
            Err(why) => return tracing::warn!(%why, "the image store could not be swept"),
        }
    }
}

/// Tells what goes on aside that it is over.
#[derive(Default)]
struct Cancelled(Arc<AtomicBool>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Session<'a> {
    context: &'a Context,
    registry: Registry<'a>,
    name: &'a Reference,
    reference: &'a str,
    progress: &'a Arc<Progress>,
    lock: Arc<File>,
    cancelled: &'a Cancelled,
}

impl Session<'_> {
    async fn pull(&self) -> Result<(Named, LocalImage), Error> {
        let late = |limit: Duration| failed(format!("pull {}: not done within {} s", self.reference, limit.as_secs()));
        let document = async {
            let (manifest, digest) = self.resolve().await?;
            let config = self.config(&manifest).await?;
            Ok((manifest, digest, config))
        };
        let (manifest, digest, config) = tokio::time::timeout(WHOLE.0, document).await.map_err(|_| late(WHOLE.0))??;
        let bytes = manifest::total(&manifest.layers, COMPRESSED, self.reference)?;
        let limit = WHOLE.0 + Duration::from_secs(bytes / WHOLE.1);
        let stored = tokio::time::timeout(limit, self.content(&manifest, &config)).await.map_err(|_| late(limit))??;
        let named = Named {
            version: 1,
            reference: self.name.whole(),
            manifest: digest,
            wasm: stored.wasm,
            layers: stored.layers,
            imported: false,
            size: stored.size,
            config: config.run,
            created: crate::pods::time::Time::now().rfc3339(),
        };
        self.context.store.record(&named)?;
        let image = self.context.store.local(self.reference, &named);
        Ok((named, image.ok_or_else(|| failed(format!("image {} vanished from the store", self.reference)))?))
    }

    /// The manifest for this machine, and its digest.
    async fn resolve(&self) -> Result<(OciImageManifest, String), Error> {
        let mut found = self.manifest(self.name.digest().or(self.name.tag()).unwrap_or("latest"), DOCUMENT).await?;
        for _ in 0..DEPTH {
            let index = match found {
                (OciManifest::Image(manifest), digest) => return Ok((manifest, digest)),
                (OciManifest::ImageIndex(index), _) => index,
            };
            let entry = manifest::choose(&index).ok_or_else(|| {
                let platform = format!("linux/{}", crate::machine::architecture());
                failed(format!("no match for platform {platform} in the index of image {}", self.reference))
            })?;
            if self.context.store.blob(&entry.digest).is_none() {
                return Err(failed(format!("the index of image {} names {:?}, which is no sha256 digest", self.reference, entry.digest)));
            }
            let size = usize::try_from(entry.size).unwrap_or(0).min(DOCUMENT);
            found = self.manifest(&entry.digest, size).await?;
        }
        Err(failed(format!("image {} is an index of indexes more than {DEPTH} deep", self.reference)))
    }

    /// By tag or digest, of at most `limit` bytes.
    async fn manifest(&self, which: &str, limit: usize) -> Result<(OciManifest, String), Error> {
        let what = format!("pull the manifest of {}", self.reference);
        if which.contains(':') && self.context.store.blob(which).is_none() {
            return Err(failed(format!("{what}: {which} is no sha256 digest")));
        }
        let response = self.registry.get(&what, &format!("manifests/{which}"), &manifest::accepted()).await?;
        let bytes = self.registry.whole(&what, response, limit).await?;
        // What was asked for by digest must have it, whatever the registry says.
        let digest = digest_of(&bytes);
        if which.contains(':') && which != digest {
            return Err(failed(format!("{what}: the registry answered for {which} with a manifest that has digest {digest}")));
        }
        let manifest = manifest::read(&bytes).map_err(|why| failed(format!("read the manifest of {}: {why}", self.reference)))?;
        self.context.store.put(&bytes)?;
        Ok((manifest, digest))
    }

    async fn config(&self, manifest: &OciImageManifest) -> Result<Config, Error> {
        if !manifest::has_config(manifest) {
            return Ok(Config::default());
        }
        let (digest, _) = self.blob(&manifest.config, DOCUMENT as u64, false).await?;
        self.context.store.config(&digest, self.reference)
    }

    /// The .wasm (a layer that is one, or the one file within tar layers), or the layers of a container.
    async fn content(&self, manifest: &OciImageManifest, config: &Config) -> Result<Stored, Error> {
        let component = |(wasm, size)| Stored { wasm, layers: Vec::new(), size };
        let layers = match manifest::content(manifest, self.reference)? {
            Content::Wasm(layer) => {
                self.progress.expect(1, u64::try_from(layer.size).unwrap_or(0));
                return self.blob(layer, LARGEST, true).await.map(component);
            }
            Content::Layers(layers) => layers,
        };
        match manifest::nature(config) {
            // Nobody here runs containers, and what it is need not be asked.
            _ if !self.context.options.containers => self.component(layers).await.map(component),
            Nature::Component => self.component(layers).await.map(component),
            Nature::Container => self.container(manifest, config).await,
            Nature::Unclear => match self.component(layers).await {
                Err(why) if why.reason == "UnsupportedImage" => self.container(manifest, config).await,
                found => found.map(component),
            },
        }
    }

    /// The one .wasm in tars.
    async fn component(&self, layers: &[OciDescriptor]) -> Result<(String, u64), Error> {
        self.progress.expect(layers.len(), manifest::total(layers, component::TOTAL, self.reference)?);
        let file = |layer: OciDescriptor| async move {
            let (digest, _) = self.blob(&layer, LARGEST, false).await?;
            let path = self.context.store.blob(&digest).ok_or_else(|| failed("a layer has no sha256 digest"))?;
            Ok::<_, Error>((path, layer.media_type))
        };
        let files: Vec<_> = stream::iter(layers.iter().cloned().map(file)).buffered(PARALLEL).try_collect().await?;
        let (store, reference, lock) = (self.context.store.clone(), self.reference.to_string(), self.lock.clone());
        aside(move || {
            let _lock = lock;
            let layers: Vec<component::Layer> = files.iter().map(|(path, kind)| component::Layer { path, media_type: kind }).collect();
            // Only the .wasm gets a name; the layers are swept away with whatever else has none.
            component::find(&store, &reference, &layers)
        })
        .await
    }

    /// Layers of a container: they come a few at a time and are unpacked in their order, each as soon as it is there.
    async fn container(&self, manifest: &OciImageManifest, config: &Config) -> Result<Stored, Error> {
        manifest::runs_here(config, self.reference)?;
        let Context { store, unpackers, .. } = self.context;
        let stack = Arc::new(Stack::new(self.reference, config, &manifest.layers, store)?);
        let size = manifest::total(&manifest.layers, COMPRESSED, self.reference)?;
        self.progress.expect(manifest.layers.len(), size);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let fetch = async {
            let sender = sender;
            let fetches: Vec<_> = (0..manifest.layers.len()).map(|index| self.layer(&stack, manifest, index)).collect();
            let mut fetches = stream::iter(fetches).buffered(PARALLEL);
            while let Some(layer) = fetches.try_next().await? {
                if sender.send(layer).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let unpack = async {
            let mut budget = Budget::default();
            while let Some((index, blob, turn)) = receiver.recv().await {
                if let Some(blob) = blob {
                    let permit = unpackers.clone().acquire_owned().await.map_err(|why| failed(why.to_string()))?;
                    let (store, stack, lock, cancelled) = (store.clone(), stack.clone(), self.lock.clone(), self.cancelled.0.clone());
                    budget = aside(move || {
                        let _held = (permit, lock);
                        store.unpack(&stack, index, &blob, &mut budget, &cancelled)?;
                        Ok(budget)
                    })
                    .await?;
                }
                self.progress.unpacked();
                drop(turn);
            }
            Ok(())
        };
        tokio::try_join!(fetch, unpack)?;
        let (store, lock) = (store.clone(), self.lock.clone());
        let layers = aside(move || {
            let _lock = lock;
            store.settle(&stack)
        });
        Ok(Stored { wasm: String::new(), layers: layers.await?, size })
    }

    /// The blob of a layer, unless it is unpacked already, and the turn to unpack it.
    async fn layer(&self, stack: &Stack, manifest: &OciImageManifest, index: usize) -> Result<(usize, Option<PathBuf>, OwnedMutexGuard<()>), Error> {
        let Context { store, turns, .. } = self.context;
        let descriptor = &manifest.layers[index];
        // Held until it is unpacked. All take their turns from the lowest layer up, so nobody waits in a circle.
        let turn = turns.take(&stack.chain[index]).await;
        if store.layer(&stack.chain[index]).is_some_and(|path| path.is_dir()) {
            self.progress.received(u64::try_from(descriptor.size).unwrap_or(0));
            return Ok((index, None, turn));
        }
        let (digest, _) = self.blob(descriptor, COMPRESSED, false).await?;
        Ok((index, store.blob(&digest), turn))
    }

    /// A blob into the store, its digest checked.
    async fn blob(&self, descriptor: &OciDescriptor, limit: u64, wasm: bool) -> Result<(String, u64), Error> {
        let digest = descriptor.digest.as_str();
        let path = self.context.store.blob(digest).ok_or_else(|| failed(format!("{digest} in image {} is no sha256 digest", self.reference)))?;
        let size = u64::try_from(descriptor.size).ok().filter(|size| *size <= limit);
        let size = size.ok_or_else(|| failed(format!("{digest} in image {} has {} bytes; {limit} are allowed", self.reference, descriptor.size)))?;
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() == size) {
            self.progress.received(size);
            return Ok((digest.to_string(), size));
        }
        let what = format!("pull {digest} of {}", self.reference);
        let mut incoming = self.context.store.incoming(size)?;
        let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
        let lock = self.lock.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            while let Some(bytes) = receiver.blocking_recv() {
                incoming.write_all(&bytes)?;
            }
            Ok::<Incoming, std::io::Error>(incoming)
        });
        let received = self.receive(&what, digest, size, sender).await;
        // What could not be written is why no more was taken.
        let written = written.await.map_err(|why| failed(format!("{what}: {why}")))?;
        let incoming = written.map_err(|why| failed(format!("keep {digest} of {}: {why}{}", self.reference, remedy(&why))))?;
        received?;
        let (reference, digest, lock) = (self.reference.to_owned(), digest.to_owned(), self.lock.clone());
        aside(move || {
            let _lock = lock;
            if !wasm {
                return incoming.keep(Some(&digest));
            }
            let (got, size) = incoming.keep_wasm(&format!("the layer of image {reference}"))?;
            match got == digest {
                true => Ok((got, size)),
                false => Err(failed(format!("content has digest {got} where {digest} was promised; it is not used"))),
            }
        })
        .await
    }

    /// A blob's bytes, from where it broke off when it does.
    async fn receive(&self, what: &str, digest: &str, size: u64, sender: mpsc::Sender<Bytes>) -> Result<(), Error> {
        let (mut at, mut idle) = (0, 0);
        let mut last = failed(what);
        for _ in 0..RESUMES.0 {
            match self.registry.blob(what, digest, size, at).await {
                Err(broken) if !broken.again => return Err(broken.error),
                Err(broken) => last = broken.error,
                Ok((mut response, mut skip)) => loop {
                    match self.registry.chunk(what, &mut response).await {
                        Ok(Some(mut bytes)) => {
                            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                            skip -= known as u64;
                            let bytes = bytes.split_off(known);
                            (at, idle) = (at + bytes.len() as u64, 0);
                            self.progress.received(bytes.len() as u64);
                            // Too much, or the disk is full: the writer knows.
                            if at > size || sender.is_closed() {
                                let _ = sender.send(bytes).await;
                                return Ok(());
                            }
                            let _ = sender.send(bytes).await;
                        }
                        Ok(None) if at >= size => return Ok(()),
                        Ok(None) => {
                            last = failed(format!("{what}: it ended after {at} of {size} bytes"));
                            break;
                        }
                        Err(why) => {
                            last = why;
                            break;
                        }
                    }
                },
            }
            if idle >= RESUMES.1 {
                break;
            }
            tracing::info!(why = %last, at, size, "a blob broke off; it is gone on with");
            tokio::time::sleep(RESUMES.2 * 2_u32.pow(idle)).await;
            idle += 1;
        }
        Err(last)
    }
}
