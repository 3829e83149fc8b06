//! Space set aside for starting on a full disk.
//!
//! While the process runs, writes are refused before the disk is full ([`crate::disk::RESERVE`]). But others fill disks too (logs, another program), and a start
//! writes by itself: its vote, for which the log may have to grow. So a file of some megabytes lies in the data directory, and a start that finds the disk full
//! throws it overboard: the process comes up, answers reads, and refuses writes with the reason. It comes back when there is room again.

use crate::disk::{FreeSpace, RESERVE};
use rustix::fs::FallocateFlags;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

const NAME: &str = "ballast";
/// Its size, and the free bytes below which a start needs it.
pub(crate) const BALLAST: u64 = 8 << 20;

/// See the module.
pub(crate) struct Ballast {
    path: PathBuf,
    aboard: AtomicBool,
}

impl Ballast {
    /// Looks for it in `dir`, and drops it when the disk lacks the room that a start needs. Before anything is opened.
    pub fn at_start(dir: &Path, free: &FreeSpace) -> Ballast {
        let path = dir.join(NAME);
        let mut aboard = fs::metadata(&path).is_ok_and(|meta| meta.len() == BALLAST);
        if aboard && free(dir).is_ok_and(|free| free < BALLAST) {
            match fs::remove_file(&path) {
                Ok(()) => {
                    tracing::warn!("the disk of {} is full; its ballast of {} MiB is given up for this start", dir.display(), BALLAST >> 20);
                    aboard = false;
                }
                Err(error) => tracing::warn!(%error, "the disk of {} is full, and {} cannot be removed", dir.display(), path.display()),
            }
        }
        Ballast { path, aboard: AtomicBool::new(aboard) }
    }

    /// Without one: what is opened is no directory of ours.
    pub fn none() -> Ballast {
        Ballast { path: PathBuf::new(), aboard: AtomicBool::new(true) }
    }

    /// Whether [`restore`](Self::restore) has something to do when so many bytes are free.
    pub fn wanted(&self, free: u64) -> bool {
        free >= RESERVE + 2 * BALLAST && !self.aboard.load(Relaxed)
    }

    /// Takes it aboard again. Blocks for some file operations; to be called by one at a time or many.
    pub fn restore(&self) {
        if self.aboard.swap(true, Relaxed) {
            return;
        }
        // Not tried again before the next start when it fails: the store does not need it to run.
        if let Err(error) = self.make() {
            tracing::warn!(%error, "{} could not be made; a start on a full disk may fail", self.path.display());
            let _ = fs::remove_file(&self.path);
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BALLAST) {
            Ok(()) => Ok(()),
            // Where space cannot be set aside it has to be filled.
            Err(rustix::io::Errno::OPNOTSUPP) => io::copy(&mut io::Read::take(io::repeat(b'b'), BALLAST), &mut &file).map(drop),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };

    #[test]
    fn it_is_there_until_a_start_needs_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let asked = left.clone();
        let free: FreeSpace = Arc::new(move |_| Ok(asked.load(SeqCst)));
        let (file, size) = (dir.path().join(NAME), |file: &Path| fs::metadata(file).map_or(0, |meta| meta.len()));
        let ballast = Ballast::at_start(dir.path(), &free);
        assert!(ballast.wanted(u64::MAX) && !ballast.wanted(RESERVE), "not into the reserve");
        ballast.restore();
        assert_eq!(size(&file), BALLAST);
        assert!(!Ballast::at_start(dir.path(), &free).wanted(u64::MAX));
        left.store(BALLAST - 1, SeqCst);
        let ballast = Ballast::at_start(dir.path(), &free);
        assert_eq!(size(&file), 0);
        // Half a file is none.
        fs::write(&file, b"half").unwrap();
        assert!(Ballast::at_start(dir.path(), &free).wanted(u64::MAX));
        ballast.restore();
        assert_eq!(size(&file), BALLAST);
    }
}
