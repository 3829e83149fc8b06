//! Layers: a blob (gzip, zstd or plain tar) becomes a directory for overlayfs to stack.
//!
//! [`tar`] reads, [`plan`] decides, `tree` does. The bytes that go through are counted against bombs and hashed against the config's `diff_id`. Compression is told by
//! the first bytes, as containerd does: `docker save` and registries disagree with media types too often.

pub mod plan;
pub mod tar;
pub mod tree;
mod zstd;

use super::store::{hex, remedy};
use flate2::read::MultiGzDecoder;
use plan::Count;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use tree::Tree;

/// All layers of an image unpacked, bytes.
pub const TOTAL: u64 = 64 << 30;
/// Entries of all layers of an image.
pub const ENTRIES: u64 = 2_000_000;
/// So many times its size a layer may become, and so many bytes besides: images are at ten, gzip's bombs at a thousand.
const RATIO: (u64, u64) = (200, 64 << 20);
/// Read at once.
const BUFFER: usize = 128 << 10;

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry is at fault.
    #[error("entry {path:?}: {why}")]
    Refused {
        /// Its name.
        path: String,
        /// The rule.
        why: plan::Refused,
    },
    /// The whole is.
    #[error("{0}")]
    Invalid(String),
    /// The machine is: another time it may do.
    #[error("{why}{remedy}", why = .0, remedy = remedy(.0))]
    Io(io::Error),
}

/// What is left of what an image may become.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: u64,
    count: Count,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: TOTAL, count: Count::new(ENTRIES) }
    }
}

impl Budget {
    /// Other than the usual one.
    pub fn new(bytes: u64, entries: u64) -> Self {
        Self { bytes, count: Count::new(entries) }
    }
}

/// Chain ids (OCI image specification): what each layer is on those below it, the lowest first.
pub fn chain(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        chain.push(match chain.last() {
            Some(below) => format!("sha256:{}", hex(&Sha256::digest(format!("{below} {diff}")))),
            None => diff.clone(),
        });
    }
    chain
}

/// The plain tar within a blob.
pub fn decoded(blob: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    let mut blob = blob;
    let first = blob.fill_buf()?;
    Ok(match first {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(blob)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(zstd::Zstd::new(blob)),
        _ => Box::new(blob),
    })
}

/// Counts and hashes what is read through it.
struct Meter<'a> {
    inner: Box<dyn Read>,
    hash: Sha256,
    left: u64,
    allowed: u64,
    cancelled: &'a AtomicBool,
}

impl Read for Meter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let n = self.inner.read(buffer)?;
        let over = || io::Error::new(io::ErrorKind::InvalidData, format!("it unpacks to more than the {} bytes that are allowed", self.allowed));
        self.left = self.left.checked_sub(n as u64).ok_or_else(over)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Unpacks `blob` into the empty directory `into`, which lies over `lowers` (the topmost first). Nothing is flushed to the disk. What is there after an error is
/// the caller's to remove.
pub fn unpack(blob: &Path, diff_id: &str, into: &Path, lowers: &[PathBuf], budget: &mut Budget, cancelled: &AtomicBool) -> Result<(), Error> {
    let file = File::open(blob).map_err(Error::Io)?;
    let size = file.metadata().map_err(Error::Io)?.len();
    let allowed = budget.bytes.min(size.saturating_mul(RATIO.0).saturating_add(RATIO.1));
    let inner = decoded(BufReader::with_capacity(BUFFER, file)).map_err(stream)?;
    let mut meter = Meter { inner, hash: Sha256::new(), left: allowed, allowed, cancelled };
    let lowers: Vec<OwnedFd> = lowers.iter().map(|path| tree::directory(path)).collect::<Result<_, _>>().map_err(Error::Io)?;
    let mut tree = Tree::new(tree::directory(into).map_err(Error::Io)?, &lowers).map_err(|why| failed("", why))?;
    {
        let mut entries = tar::Entries::new(&mut meter);
        while let Some(entry) = entries.next().map_err(stream)? {
            let name = || String::from_utf8_lossy(&entry.path).chars().take(300).collect::<String>();
            let op = plan::plan(&entry, &mut budget.count).map_err(|why| Error::Refused { path: name(), why })?;
            tree.apply(&op, &mut entries).map_err(|why| failed(&name(), why))?;
        }
    }
    tree.finish().map_err(|why| failed("", why))?;
    // What comes after the end mark belongs to the digest.
    io::copy(&mut meter, &mut io::sink()).map_err(stream)?;
    budget.bytes -= allowed - meter.left;
    let found = format!("sha256:{}", hex(&meter.hash.finalize()));
    match found == diff_id {
        true => Ok(()),
        false => Err(Error::Invalid(format!("it unpacks to content with digest {found} where the image's config promises {diff_id}"))),
    }
}

fn failed(path: &str, why: tree::Error) -> Error {
    match why {
        tree::Error::Refused(why) => Error::Refused { path: path.into(), why },
        tree::Error::Io(why) => stream(why),
    }
}

/// Errors of the operating system are the machine's; all others are the stream's.
fn stream(why: io::Error) -> Error {
    match why.raw_os_error() {
        Some(_) => Error::Io(why),
        None if why.kind() == io::ErrorKind::UnexpectedEof => Error::Invalid("it ends in the middle".into()),
        None => Error::Invalid(why.to_string()),
    }
}

#[cfg(test)]
mod tests;
