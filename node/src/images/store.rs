//! The content store: `images/blobs/sha256/<hex>` and `images/names/<hash of the reference>.json`.
//!
//! Files come by rename after an fsync, so that a reader (the agent, or `coracle image` beside it) sees whole files or none, and no
//! socket is needed between them. A lock file keeps the sweep from removing what is being named.

use super::{Error, manifest::Config, parse};
use coracle_runtime::{ImageConfig, ImageContent, LocalImage};
use oci_client::manifest::OciImageManifest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The largest .wasm, bytes.
pub const LARGEST: u64 = 512 << 20;
/// Media type of a wasm layer (CNCF wasm artifact).
pub const WASM_LAYER: &str = "application/wasm";
/// Media type of its config.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// A record of the `names` folder, version 1.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Named {
    /// Of this format.
    pub version: u32,
    /// Full reference.
    pub reference: String,
    /// Manifest digest.
    pub manifest: String,
    /// Digest of the .wasm; empty for a container image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wasm: String,
    /// Chain ids of a container image's layers, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// It came from a file: its blobs are nowhere else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// Bytes of the .wasm, or of the layers as they are in a registry.
    pub size: u64,
    /// From the image's config.
    #[serde(flatten)]
    pub config: ImageConfig,
    /// RFC 3339.
    pub created: String,
}

/// What of an image is stored where; see [`Named`].
pub(super) struct Stored {
    pub wasm: String,
    pub layers: Vec<String>,
    pub size: u64,
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A blob that is being written; gone when dropped before [`Incoming::keep`].
pub struct Incoming {
    file: fs::File,
    path: PathBuf,
    blobs: PathBuf,
    hash: Sha256,
    size: u64,
    limit: u64,
}

pub(super) fn failed(what: &str, path: &Path, why: &io::Error) -> Error {
    Error::new("ErrImagePull", format!("{what} {}: {why}{}", path.display(), remedy(why)))
}

/// What to do about it, for the end of a message.
pub(super) fn remedy(why: &io::Error) -> &'static str {
    if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) { "; free some space" } else { "" }
}

impl Store {
    /// Opens or makes `data_dir/images`.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let store = Self { root: data_dir.join("images") };
        for dir in [store.blobs(), store.names()] {
            fs::create_dir_all(&dir).map_err(|e| failed("make", &dir, &e))?;
        }
        store.make_layers()?;
        // Private images are nobody else's; compiler and hosts get their content as descriptors.
        fs::set_permissions(&store.root, fs::Permissions::from_mode(0o700)).map_err(|e| failed("protect", &store.root, &e))?;
        Ok(store)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Where a blob is; `None` for what is no sha256 digest.
    pub fn blob(&self, digest: &str) -> Option<PathBuf> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some(self.blobs().join(hex.to_ascii_lowercase()))
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The agent's directories of pods.
    pub(super) fn pods(&self) -> PathBuf {
        self.root.with_file_name("pods")
    }

    fn name(&self, whole: &str) -> PathBuf {
        self.names().join(format!("{}.json", hex(&Sha256::digest(whole.as_bytes()))))
    }

    /// Holds the sweep off for as long as the file lives.
    pub fn lock(&self) -> Result<fs::File, Error> {
        let path = self.root.join("lock");
        let file = fs::File::create(&path).map_err(|e| failed("open", &path, &e))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).map_err(|e| failed("lock", &path, &e.into()))?;
        Ok(file)
    }

    /// The config of an image, from its blob.
    pub fn config(&self, digest: &str, reference: &str) -> Result<Config, Error> {
        let path = self.blob(digest).ok_or_else(|| Error::new("ErrImagePull", format!("the config of {reference} has no sha256 digest")))?;
        let bytes = fs::read(&path).map_err(|e| failed("read", &path, &e))?;
        Config::read(&bytes).map_err(|e| Error::new("ErrImagePull", format!("read the config of {reference}: {e}")))
    }

    /// Begins a blob of at most `limit` bytes.
    pub fn incoming(&self, limit: u64) -> Result<Incoming, Error> {
        let blobs = self.blobs();
        let path = blobs.join(format!(".tmp-{}-{:016x}", std::process::id(), rand::random::<u64>()));
        let file = fs::File::create(&path).map_err(|e| failed("write", &path, &e))?;
        Ok(Incoming { file, path, blobs, hash: Sha256::new(), size: 0, limit })
    }

    /// Keeps small content; its digest.
    pub fn put(&self, content: &[u8]) -> Result<String, Error> {
        let mut incoming = self.incoming(u64::MAX)?;
        incoming.write_all(content).map_err(|e| failed("write", &incoming.path, &e))?;
        Ok(incoming.keep(None)?.0)
    }

    /// Gives a wasm blob a name.
    pub fn record(&self, named: &Named) -> Result<(), Error> {
        let path = self.name(&named.reference);
        let tmp = self.names().join(format!(".tmp-{}-{:016x}", std::process::id(), rand::random::<u64>()));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&tmp)?;
            file.write_all(&serde_json::to_vec(named)?)?;
            file.sync_all()?;
            fs::rename(&tmp, &path)?;
            fs::File::open(self.names())?.sync_all()
        };
        write().map_err(|e| failed("write", &path, &e))
    }

    fn read(path: &Path) -> Option<Named> {
        let named: Named = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (named.version == 1).then_some(named)
    }

    /// By name; by digest also an image of that repository which came by another name, as the Node's status lists it.
    pub fn find(&self, reference: &str) -> Result<Option<Named>, Error> {
        let wanted = parse(reference)?;
        let whole = wanted.whole();
        let found = Self::read(&self.name(&whole)).filter(|n| n.reference == whole);
        let (None, Some(digest)) = (&found, wanted.digest()) else { return Ok(found) };
        let same = |named: &Named| {
            let repository = |name: &oci_client::Reference| (name.registry().to_owned(), name.repository().to_owned());
            named.manifest == digest && parse(&named.reference).is_ok_and(|name| repository(&name) == repository(&wanted))
        };
        Ok(self.list()?.into_iter().find(same))
    }

    /// The image, if it is here, whole.
    pub fn lookup(&self, reference: &str) -> Result<Option<LocalImage>, Error> {
        let Some(named) = self.find(reference)? else { return Ok(None) };
        Ok(self.local(reference, &named))
    }

    /// As runtimes take it; `None` when its file is gone.
    pub fn local(&self, reference: &str, named: &Named) -> Option<LocalImage> {
        let content = if named.wasm.is_empty() {
            let layers: Vec<PathBuf> = named.layers.iter().rev().map(|chain| self.layer(chain)).collect::<Option<_>>()?;
            layers.iter().all(|layer| layer.is_dir()).then_some(ImageContent::Oci { layers })?
        } else {
            let path = self.blob(&named.wasm)?;
            let whole = fs::metadata(&path).is_ok_and(|m| m.len() == named.size);
            whole.then(|| ImageContent::Wasm { path, digest: named.wasm.clone() })?
        };
        Some(LocalImage { reference: reference.into(), digest: named.manifest.clone(), content, config: named.config.clone() })
    }

    /// All names, sorted.
    pub fn list(&self) -> Result<Vec<Named>, Error> {
        let dir = self.names();
        let entries = fs::read_dir(&dir).map_err(|e| failed("read", &dir, &e))?;
        let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut names: Vec<Named> = paths.filter_map(|path| Self::read(&path)).collect();
        names.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(names)
    }

    /// Digests that are named: manifests' and contents'.
    ///
    /// # Errors
    /// The names cannot be listed. Nothing may be removed then: an empty answer would mean that everything is unnamed.
    pub fn digests(&self) -> Result<Vec<String>, Error> {
        Ok(self.list()?.into_iter().flat_map(|n| [n.manifest, n.wasm]).collect())
    }

    /// Takes a name away and sweeps.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let whole = parse(name)?.whole();
        let path = self.name(&whole);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new("ImageInspectError", format!("remove {whole}: no image of that name here; `coracle image list` shows them")));
            }
            Err(e) => return Err(failed("remove", &path, &e)),
            Ok(()) => {}
        }
        self.sweep().map(|_| ())
    }

    /// The image was wanted just now.
    pub fn touch(&self, named: &Named) {
        let path = self.name(&named.reference);
        let touched = fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        if let Err(why) = touched {
            tracing::debug!(%why, "note that an image is in use");
        }
    }

    /// When it was last wanted.
    pub fn used(&self, named: &Named) -> Option<std::time::SystemTime> {
        fs::metadata(self.name(&named.reference)).and_then(|meta| meta.modified()).ok()
    }

    /// Changes with the list of names.
    pub fn stamp(&self) -> Option<std::time::SystemTime> {
        fs::metadata(self.names()).and_then(|meta| meta.modified()).ok()
    }

    /// Removes blobs and layers that nothing names or holds, and names half written; does nothing, and says so, while something is being stored.
    pub fn sweep(&self) -> Result<bool, Error> {
        let path = self.root.join("lock");
        let file = fs::File::create(&path).map_err(|e| failed("open", &path, &e))?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        let mut keep: HashSet<PathBuf> = HashSet::new();
        let mut layers: HashSet<PathBuf> = self.held()?.layers.iter().map(|name| self.layers().join(name)).collect();
        for named in self.list()? {
            keep.extend(self.blob(&named.wasm));
            layers.extend(named.layers.iter().filter_map(|chain| self.layer(chain)));
            if let Some(path) = self.blob(&named.manifest) {
                let manifest: Option<OciImageManifest> = fs::read(&path).ok().and_then(|b| serde_json::from_slice(&b).ok());
                if let Some(manifest) = manifest {
                    keep.extend(self.blob(&manifest.config.digest));
                    keep.extend(manifest.layers.iter().filter(|_| named.imported).filter_map(|layer| self.blob(&layer.digest)));
                }
                keep.insert(path);
            }
        }
        let gone = |path: &Path| fs::remove_file(path).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
        for dir in [self.blobs(), self.names()] {
            for entry in fs::read_dir(&dir).map_err(|e| failed("read", &dir, &e))?.flatten() {
                let path = entry.path();
                if !keep.contains(&path) && path.extension().is_none_or(|extension| extension != "json") {
                    gone(&path).map_err(|e| failed("remove", &path, &e))?;
                }
            }
        }
        let doomed = self.doom_layers(&layers)?;
        // Trees may be large; nobody waits for them.
        drop(file);
        Self::remove_layers(doomed)?;
        Ok(true)
    }
}

impl Incoming {
    /// Renames the file to its digest, which must be `expected` if that is given. Returns digest and size.
    pub fn keep(mut self, expected: Option<&str>) -> Result<(String, u64), Error> {
        let digest = format!("sha256:{}", hex(&std::mem::take(&mut self.hash).finalize()));
        if let Some(expected) = expected.filter(|e| *e != digest) {
            return Err(Error::new("ErrImagePull", format!("content has digest {digest} where {expected} was promised; it is not used")));
        }
        let target = self.blobs.join(digest.trim_start_matches("sha256:"));
        let finish = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.path, &target)?;
            fs::File::open(&self.blobs)?.sync_all()
        };
        finish().map_err(|e| failed("write", &target, &e))?;
        Ok((digest, self.size))
    }

    /// The same for what must be a wasm file; `source` names it in errors.
    pub fn keep_wasm(self, source: &str) -> Result<(String, u64), Error> {
        let mut magic = [0; 4];
        let read = fs::File::open(&self.path).and_then(|mut f| f.read_exact(&mut magic));
        if read.is_err() || magic != *b"\0asm" {
            return Err(Error::new(
                "InvalidImage",
                format!("{source} is no WebAssembly file: it does not begin with \\0asm; build the program for wasm32-wasip2"),
            ));
        }
        self.keep(None)
    }

    /// Where it is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.size + bytes.len() as u64;
        if size > self.limit {
            return Err(io::Error::other(format!("larger than the {} bytes that are allowed", self.limit)));
        }
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size = size;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Already renamed when it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

/// `sha256:…` of content.
pub fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
