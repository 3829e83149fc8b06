//! Unpacked layers: `images/layers/<hex of the chain id>`, each a directory that overlayfs stacks, shared by all images and containers that have it.
//!
//! A layer appears by a rename when it is whole. An image gets its name only after its layers were flushed to the disk, and what no name leads to goes when the agent
//! starts; so what a crash left half on the disk is never used. Layers of a running pod stay when their image's name goes: the pod's own directory says which they
//! are ([`Store::hold`]), also to `coracle image rm`, which knows nothing of pods.

use super::{
    Error,
    layer::{self, Budget, tree},
    manifest::Config,
    store::{Store, failed},
};
use coracle_runtime::{ImageContent, LocalImage, remove::remove_tree};
use oci_client::manifest::OciDescriptor;
use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// The layers of an image as a stack.
#[derive(Clone, Debug)]
pub struct Stack {
    /// As errors name the image.
    pub reference: String,
    /// Of the plain tars, the lowest first.
    pub diff_ids: Vec<String>,
    /// What each is on those below it.
    pub chain: Vec<String>,
}

impl Stack {
    /// Of that config, for these blobs.
    pub fn new(reference: &str, config: &Config, layers: &[OciDescriptor], store: &Store) -> Result<Self, Error> {
        let diff_ids = &config.diff_ids;
        let wrong = |why: String| Err(Error::new("ErrImagePull", format!("image {reference} {why}")));
        if diff_ids.len() != layers.len() {
            return wrong(format!("has {} layers, and its config has digests for {}", layers.len(), diff_ids.len()));
        }
        if let Some(odd) = diff_ids.iter().find(|digest| store.layer(digest).is_none()) {
            return wrong(format!("has a layer {odd:?}, which is no sha256 digest"));
        }
        let diff_ids: Vec<String> = diff_ids.iter().map(|digest| digest.to_ascii_lowercase()).collect();
        Ok(Self { reference: reference.into(), chain: layer::chain(&diff_ids), diff_ids })
    }
}

/// A directory that is being filled; gone when dropped before it is renamed.
struct Unpacking(PathBuf);

impl Drop for Unpacking {
    fn drop(&mut self) {
        // Already renamed when it was kept.
        let _ = remove_tree(&self.0);
    }
}

impl Store {
    /// Where a layer is, or would be; `None` for what is no sha256 digest.
    pub fn layer(&self, chain: &str) -> Option<PathBuf> {
        Some(self.layers().join(self.blob(chain)?.file_name()?))
    }

    /// Unpacks the layer `index` of `stack` from its blob, unless it is there. Those below it are.
    pub fn unpack(&self, stack: &Stack, index: usize, blob: &Path, budget: &mut Budget, cancelled: &AtomicBool) -> Result<(), Error> {
        let place = |chain: &String| self.layer(chain).ok_or_else(|| Error::new("ErrImagePull", format!("{chain} is no sha256 digest")));
        let target = place(&stack.chain[index])?;
        if target.is_dir() {
            return Ok(());
        }
        let lowers = stack.chain[..index].iter().rev().map(place).collect::<Result<Vec<_>, _>>()?;
        let unpacking = Unpacking(self.layers().join(format!(".tmp-{}-{:016x}", std::process::id(), rand::random::<u64>())));
        fs::create_dir(&unpacking.0).map_err(|why| failed("make", &unpacking.0, &why))?;
        layer::unpack(blob, &stack.diff_ids[index], &unpacking.0, &lowers, budget, cancelled).map_err(|why| {
            let message = format!("unpack layer {} of image {}: {why}", stack.diff_ids[index], stack.reference);
            Error::new("ErrImagePull", message)
        })?;
        match fs::rename(&unpacking.0, &target) {
            // Somebody else unpacked it meanwhile.
            Err(why) if matches!(why.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => Ok(()),
            Err(why) if target.is_dir() => {
                tracing::debug!(%why, "a layer is there already");
                Ok(())
            }
            done => done.map_err(|why| failed("make", &target, &why)),
        }
    }

    /// The layers of a whole stack that count (what lies below one that is opaque as a whole does not), safe on the disk.
    pub fn settle(&self, stack: &Stack) -> Result<Vec<String>, Error> {
        let dir = self.layers();
        tree::sync(&dir).map_err(|why| failed("flush", &dir, &why))?;
        let lowest = stack.chain.iter().rposition(|chain| self.layer(chain).is_some_and(|path| tree::opaque(&path))).unwrap_or(0);
        Ok(stack.chain[lowest..].to_vec())
    }

    /// Keeps the image's layers for as long as the directory `pod` is there, whatever becomes of the image's name. False when they are gone already.
    pub fn hold(&self, pod: &Path, image: &LocalImage) -> Result<bool, Error> {
        let ImageContent::Oci { layers } = &image.content else { return Ok(true) };
        let dir = pod.join("images");
        let path = dir.join(image.digest.trim_start_matches("sha256:"));
        let _lock = self.lock()?;
        if !layers.iter().all(|layer| layer.is_dir()) {
            return Ok(false);
        }
        if path.exists() {
            return Ok(true);
        }
        let names: Vec<&str> = layers.iter().filter_map(|layer| layer.file_name()?.to_str()).collect();
        let tmp = dir.join(".tmp");
        let write = || {
            fs::create_dir_all(&dir)?;
            fs::write(&tmp, names.join("\n"))?;
            fs::rename(&tmp, &path)
        };
        write().map_err(|why| failed("write", &path, &why))?;
        Ok(true)
    }

    /// What pods on this machine hold: manifests and names of layers.
    ///
    /// # Errors
    /// It cannot be read; nothing may be removed then.
    pub fn held(&self) -> Result<Held, Error> {
        let mut held = Held::default();
        for pod in entries(&self.pods())? {
            for mark in entries(&pod.join("images"))? {
                let Some(name) = mark.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else { continue };
                match fs::read_to_string(&mark) {
                    Ok(text) => held.layers.extend(text.lines().map(str::to_owned)),
                    // The pod is being removed.
                    Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                    Err(why) => return Err(failed("read", &mark, &why)),
                }
                held.manifests.insert(format!("sha256:{name}"));
            }
        }
        Ok(held)
    }

    /// Takes all layers but those from their places; what is returned is to be removed at leisure. Under the exclusive lock.
    pub(super) fn doom_layers(&self, keep: &HashSet<PathBuf>) -> Result<Vec<PathBuf>, Error> {
        let mut doomed = Vec::new();
        for path in entries(&self.layers())? {
            if keep.contains(&path) {
                continue;
            }
            let gone = self.layers().join(format!(".gone-{:016x}", rand::random::<u64>()));
            fs::rename(&path, &gone).map_err(|why| failed("remove", &path, &why))?;
            doomed.push(gone);
        }
        Ok(doomed)
    }

    /// Removes what [`Self::doom_layers`] returned.
    pub(super) fn remove_layers(doomed: Vec<PathBuf>) -> Result<(), Error> {
        for path in doomed {
            // Another sweep may be at it as well.
            match remove_tree(&path) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path, &why)),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn make_layers(&self) -> Result<(), Error> {
        let dir = self.layers();
        let make = || {
            fs::create_dir_all(&dir)?;
            // Containers of another uid reach their root through it; the door of all is the folder above.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
        };
        make().map_err(|why| failed("make", &dir, &why))
    }
}

/// See [`Store::held`].
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// `sha256:…` of manifests.
    pub manifests: HashSet<String>,
    /// Names of directories.
    pub layers: HashSet<String>,
}

/// What lies in a directory; nothing where there is none.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match list() {
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        found => found.map_err(|why| failed("read", dir, &why)),
    }
}
