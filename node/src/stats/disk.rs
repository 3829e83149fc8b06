//! What pods hold on disk: their logs, what containers wrote to their own file systems, and their volumes.
//!
//! Measured by a walk, so it is measured when somebody asks, and then kept for ten seconds, or for twenty times what the walk took.

use crate::volumes::walk::{self, Used};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a measurement is kept at least.
const KEPT: Duration = Duration::from_secs(10);
/// A walk rests for so many times what it took.
const REST: u32 = 20;

/// A file system: what there is and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that may still be written.
    pub available: u64,
    /// Inodes; zero where there is no fixed number.
    pub inodes: u64,
    /// Free ones.
    pub inodes_free: u64,
}

impl FileSystem {
    /// The one that `path` is on.
    pub fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Self { capacity: bytes(stat.f_blocks), available: bytes(stat.f_bavail), inodes: stat.f_files, inodes_free: stat.f_ffree })
    }
}

/// A pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// By container name.
    pub logs: BTreeMap<String, Used>,
    /// By container name.
    pub written: BTreeMap<String, Used>,
    /// By volume name; with the file system of those that have one of their own (in memory).
    pub volumes: BTreeMap<String, (Used, Option<FileSystem>)>,
}

impl OnDisk {
    /// All of it that is on the node's disk.
    pub fn total(&self) -> Used {
        let volumes = self.volumes.values().filter(|(_, own)| own.is_none()).map(|(used, _)| used);
        self.logs.values().chain(self.written.values()).chain(volumes).fold(Used::default(), |sum, used| sum.plus(*used))
    }

    /// A container's own: logs and what it wrote.
    pub fn of_container(&self, name: &str) -> Used {
        let of = |map: &BTreeMap<String, Used>| map.get(name).copied().unwrap_or_default();
        of(&self.logs).plus(of(&self.written))
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// The pod's directory.
    pub pod: PathBuf,
    /// What containers wrote, by name.
    pub written: Vec<(String, PathBuf)>,
}

/// Walks. Blocks. What cannot be read counts as nothing.
pub fn measure(places: &Places) -> OnDisk {
    let mut found = OnDisk::default();
    let used = |path: &Path| walk::usage(path, &mut |_| {}).ok();
    for (name, path) in below(&places.pod.join("logs")) {
        found.logs.extend(used(&path).map(|used| (name, used)));
    }
    for (name, path) in &places.written {
        found.written.extend(used(path).map(|used| (name.clone(), used)));
    }
    let disk = fs::metadata(&places.pod).map(|meta| meta.dev()).ok();
    for (name, path) in below(&places.pod.join("volumes")) {
        let own = fs::symlink_metadata(&path).is_ok_and(|meta| Some(meta.dev()) != disk);
        found.volumes.extend(used(&path).map(|used| (name, (used, if own { FileSystem::of(&path) } else { None }))));
    }
    found
}

fn below(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

type Kept = (Arc<OnDisk>, Instant);

/// Measurements, kept for a while.
#[derive(Debug, Default)]
pub struct Cache {
    pods: Mutex<HashMap<Arc<str>, Kept>>,
}

impl Cache {
    /// What a pod holds: as it was measured not long ago, or as it is now.
    pub async fn of(&self, uid: &Arc<str>, places: Places) -> Arc<OnDisk> {
        if let Some((found, until)) = self.pods.lock().get(uid)
            && *until > Instant::now()
        {
            return found.clone();
        }
        let began = Instant::now();
        let found = Arc::new(tokio::task::spawn_blocking(move || measure(&places)).await.unwrap_or_default());
        let now = Instant::now();
        let until = now + KEPT.max((now - began) * REST);
        let mut pods = self.pods.lock();
        // Of pods that are no more nothing is asked again.
        pods.retain(|_, (_, until)| *until > now);
        pods.insert(uid.clone(), (found.clone(), until));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_is_measured_and_not_at_once_again() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        for path in ["logs/main", "volumes/cache", "runtime/upper"] {
            fs::create_dir_all(pod.join(path)).unwrap();
            fs::write(pod.join(path).join("file"), vec![1; 64 << 10]).unwrap();
        }
        let places = Places { pod: pod.clone(), written: vec![("main".into(), pod.join("runtime/upper")), ("gone".into(), pod.join("gone"))] };
        let found = measure(&places);
        assert!(found.logs["main"].bytes >= 64 << 10 && found.written.len() == 1 && found.volumes["cache"].1.is_none(), "{found:?}");
        assert_eq!(found.total().inodes, 6);
        assert_eq!(found.of_container("main").inodes, 4);
        let (cache, uid) = (Cache::default(), Arc::from("u"));
        let first = cache.of(&uid, places.clone()).await;
        assert_eq!(*first, found);
        fs::remove_dir_all(&pod).unwrap();
        assert_eq!(*cache.of(&uid, places).await, found);
    }
}
