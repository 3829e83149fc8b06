//! What the node was told, kept on its own disk: the slice of the cluster that it is entitled to.
//!
//! One redb file of (key → JSON), small cache, mode 0600 because secrets are in it. Memory holds each object once, as the bytes the
//! feed brought. Changes take effect in memory at once and are written behind by one thread, a batch and its (epoch, revision) in
//! one transaction; what a crash loses, the feed sends again, since it resumes from what is on disk. Rejected: an append-only log of
//! our own (redb's crash matrix is somebody else's work), and writing before acting (a pod's start would wait for an fsync that
//! protects nothing).

mod disk;

use bytes::Bytes;
use coracle_link::protocol::Feed;
use disk::Disk;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An object's place: resource id, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Such as `pods` or `endpointslices.discovery.k8s.io`.
    pub resource: String,
    /// Empty for cluster-scoped.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// One change of the mirror; `None` is a removal.
pub type Change = (Key, Option<Bytes>);

/// Where a subscription resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The store's epoch.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
}

/// Why the mirror cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened.
    #[error("open the node's mirror {path}: {why}; another agent may be using this data directory")]
    Open {
        /// The file.
        path: PathBuf,
        /// redb's or the file system's words.
        why: String,
    },
}

/// Something that has objects: the mirror, or a map in a test.
pub trait Objects: Send + Sync {
    /// The object's JSON.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Bytes>;
    /// All objects of a resource, in one namespace or (when `None`) everywhere.
    fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Bytes)>;
}

type Map = BTreeMap<Key, Bytes>;

/// The mirror. Cheap to clone.
#[derive(Clone)]
pub struct Mirror {
    objects: Arc<RwLock<Map>>,
    disk: Arc<Disk>,
}

impl Mirror {
    /// Opens or makes `dir/mirror.redb`; what cannot be read back is dropped and the subscription begins anew.
    pub fn open(dir: &Path) -> Result<(Self, Position), Error> {
        let path = dir.join("mirror.redb");
        let (disk, objects, position) = Disk::open(&path).map_err(|why| Error::Open { path: path.clone(), why })?;
        Ok((Self { objects: Arc::new(RwLock::new(objects)), disk: Arc::new(disk) }, position))
    }

    /// Applies changes in memory and hands them to the writer; waits when the writer is far behind. `position` is made durable with
    /// them. A copy that equals what is there is no change; the real ones are returned.
    pub async fn apply(&self, changes: Vec<Change>, position: Option<Position>) -> Vec<Change> {
        let mut real = Vec::with_capacity(changes.len());
        {
            let mut objects = self.objects.write();
            for (key, value) in changes {
                let same = objects.get(&key) == value.as_ref();
                if same {
                    continue;
                }
                match &value {
                    Some(json) => objects.insert(key.clone(), json.clone()),
                    None => objects.remove(&key),
                };
                real.push((key, value));
            }
        }
        if !real.is_empty() || position.is_some() {
            self.disk.write(real.clone(), position).await;
        }
        real
    }

    /// All keys.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.objects.read().keys().cloned().collect()
    }

    /// Waits until everything applied so far is on disk.
    pub async fn flush(&self) {
        self.disk.flush().await;
    }
}

impl Objects for Mirror {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        self.objects.read().get(&Key::new(resource, namespace, name)).cloned()
    }

    fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Bytes)> {
        let start = Key::new(resource, namespace.unwrap_or(""), "");
        let objects = self.objects.read();
        objects
            .range(start..)
            .take_while(|(key, _)| key.resource == resource && namespace.is_none_or(|n| key.namespace == n))
            .map(|(key, json)| (key.clone(), json.clone()))
            .collect()
    }
}

/// How many changes wait for their `Synced` before they are applied without it. The control plane is then asked for everything if the link breaks first.
const BATCH: usize = 4096;
/// And how many bytes of them.
const BATCH_BYTES: usize = 8 << 20;

/// Turns feed messages into batches: what belongs together becomes visible together.
#[derive(Default)]
pub struct Intake {
    pending: Vec<Change>,
    bytes: usize,
    /// Since a reset: everything that was named.
    named: Option<BTreeSet<Key>>,
}

impl Intake {
    /// Takes a message; a batch is due when it returns one. `known` answers what the mirror holds, asked at the end of a reset.
    pub fn take(&mut self, feed: Feed, known: impl FnOnce() -> BTreeSet<Key>) -> Option<(Vec<Change>, Option<Position>)> {
        match feed {
            Feed::Reset { .. } => {
                self.pending.clear();
                self.bytes = 0;
                self.named = Some(BTreeSet::new());
            }
            Feed::Upsert { resource, namespace, name, json } => {
                let key = Key { resource, namespace, name };
                if let Some(named) = &mut self.named {
                    named.insert(key.clone());
                }
                self.bytes += json.len();
                self.pending.push((key, Some(json)));
            }
            Feed::Remove { resource, namespace, name } => {
                let key = Key { resource, namespace, name };
                if let Some(named) = &mut self.named {
                    named.remove(&key);
                }
                self.pending.push((key, None));
            }
            Feed::Synced { epoch, revision } => {
                if let Some(named) = self.named.take() {
                    let gone = known().into_iter().filter(|key| !named.contains(key));
                    self.pending.extend(gone.map(|key| (key, None)));
                }
                self.bytes = 0;
                return Some((std::mem::take(&mut self.pending), Some(Position { epoch, revision })));
            }
        }
        if self.pending.len() < BATCH && self.bytes < BATCH_BYTES {
            return None;
        }
        self.bytes = 0;
        // Until its end there is no position to go on from: what a break leaves of it, such as an object that is gone again by the next
        // session, only a reset finds.
        Some((std::mem::take(&mut self.pending), Some(Position::default())))
    }
}

#[cfg(test)]
mod tests;
