//! What can go wrong below log and state: files in use, a disk that fills, writes that fail.

use crate::{Error, ballast::Ballast};
use redb::{Database, DatabaseError, StorageBackend, backends::FileBackend};
use std::fs::TryLockError;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Free bytes below which writes are refused: what is in flight (16 MiB), one flush of the state, and the pages redb copies for it.
pub(crate) const RESERVE: u64 = 32 << 20;

/// What to do when a write to the log or the state failed. The default ends the process; tests put another in its place, which must not return to business.
#[derive(Clone)]
pub struct Fatal(Arc<dyn Fn(&str) + Send + Sync>);

impl Fatal {
    /// Calls `act` with the reason instead of ending the process. The store takes no further writes afterwards.
    pub fn new(act: impl Fn(&str) + Send + Sync + 'static) -> Fatal {
        Fatal(Arc::new(act))
    }

    pub(crate) fn die(&self, reason: &str) {
        (self.0)(reason);
    }
}

impl Default for Fatal {
    fn default() -> Fatal {
        Fatal::new(|reason| {
            tracing::error!("{reason}; ending the process, nothing acknowledged is lost: free space or repair the disk, then start again");
            eprintln!("coracle: {reason}; ending the process: free space or repair the disk, then start again");
            std::process::exit(74);
        })
    }
}

impl std::fmt::Debug for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fatal")
    }
}

/// How many bytes are free for us in the filesystem of a directory.
pub(crate) type FreeSpace = Arc<dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync>;

/// Asks the filesystem.
pub(crate) fn free_space() -> FreeSpace {
    // Opened once: every write asks, and the way to the directory costs more than the answer.
    let opened = OnceLock::new();
    Arc::new(move |dir| {
        let dir = match opened.get() {
            Some(dir) => dir,
            None => {
                let dir = std::fs::File::open(dir)?;
                opened.get_or_init(|| dir)
            }
        };
        let stat = rustix::fs::fstatvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    })
}

/// Refuses writes while there still is room to finish what has begun.
pub(crate) struct Reserve {
    pub dir: PathBuf,
    pub free: FreeSpace,
    pub ballast: Arc<Ballast>,
}

impl Reserve {
    /// Deletions may go on into half of the reserve, so that a full cluster can be emptied. Within a tokio runtime.
    pub fn admit(&self, only_deletes: bool) -> Result<(), Error> {
        let need = if only_deletes { RESERVE / 2 } else { RESERVE };
        match (self.free)(&self.dir) {
            Ok(free) if free < need => Err(Error::DiskFull(format!(
                "{} has {} KiB free, and {} KiB are kept in reserve; free space there, or delete objects",
                self.dir.display(),
                free >> 10,
                need >> 10
            ))),
            Ok(free) => {
                if self.ballast.wanted(free) {
                    let ballast = self.ballast.clone();
                    tokio::task::spawn_blocking(move || ballast.restore());
                }
                Ok(())
            }
            Err(error) => Err(Error::Failed(format!("asking for the free space of {}: {error}", self.dir.display()))),
        }
    }
}

/// A storage backend that others hold too.
#[derive(Debug)]
struct Shared(Arc<dyn StorageBackend>);

impl StorageBackend for Shared {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }
}

/// The log, and the state.
pub(crate) const LOG: &str = "log.bin";
pub(crate) const STATE: &str = "state.redb";

fn in_use(dir: &Path) -> Error {
    Error::Failed(format!(
        "the data directory {} is in use by another process; stop that one, or choose another directory with --data-dir",
        dir.display()
    ))
}

/// Opens the log's file for us alone, or a given backend.
pub(crate) fn open_log(dir: &Path, backend: Option<Arc<dyn StorageBackend>>) -> Result<Arc<dyn StorageBackend>, Error> {
    if let Some(backend) = backend {
        return Ok(backend);
    }
    let older = dir.join("log.redb");
    if older.exists() {
        return Err(Error::Failed(format!(
            "{} was written by an earlier version of Coracle, and this one does not read it; use that version, or another data directory",
            older.display()
        )));
    }
    let path = dir.join(LOG);
    let file = file(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(dir)),
        Err(TryLockError::Error(error)) => return Err(Error::Failed(format!("locking {}: {error}", path.display()))),
    }
    let backend = FileBackend::new(file).map_err(|error| Error::Failed(format!("opening {}: {error}", path.display())))?;
    Ok(Arc::new(backend))
}

/// Opens the state's file, or a given backend.
pub(crate) fn open_state(dir: &Path, cache: usize, backend: Option<Arc<dyn StorageBackend>>) -> Result<Database, Error> {
    let path = dir.join(STATE);
    let mut builder = Database::builder();
    builder.set_cache_size(cache);
    let opened = match backend {
        Some(backend) => builder.create_with_backend(Shared(backend)),
        None => builder.create_file(file(&path)?),
    };
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => in_use(dir),
        DatabaseError::Storage(redb::StorageError::Corrupted(what)) => {
            Error::Failed(format!("{} is damaged: {what}; restore the data directory from a backup", path.display()))
        }
        error => Error::Failed(format!("opening {}: {error}", path.display())),
    })
}

/// Opens or makes a file for us alone: secrets are in it.
fn file(path: &Path) -> Result<std::fs::File, Error> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
        .open(path)
        .map_err(|error| Error::Failed(format!("opening {}: {error}; the data directory must be writable by this user", path.display())))
}

/// Makes the data directory, for us alone, unless it is there; until something is in it, the way to it is made durable as well.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Failed(format!("making the data directory {}: {error}", dir.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    if dir.join(LOG).exists() {
        return Ok(());
    }
    // Whoever made those above it may not have.
    for above in dir.canonicalize().map_err(failed)?.ancestors().skip(1) {
        match sync_dir(above) {
            // Not ours to read, and so not of our making; or a file system that does not do this for directories.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput) => {}
            synced => synced.map_err(failed)?,
        }
    }
    Ok(())
}

/// Makes new directory entries durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}
