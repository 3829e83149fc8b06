//! Reads a log's files in order, goes on where it left off, and through rotations.

use super::Source;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// A stored line can be no longer (the runtime splits at 16 KiB); what is longer is cut there.
const LONGEST: usize = 1 << 20;

struct Open {
    file: File,
    inode: u64,
}

/// See the module.
pub struct Reader {
    current: Option<Open>,
    waiting: VecDeque<(PathBuf, u64)>,
    rest: Vec<u8>,
}

impl Reader {
    /// From the beginning of the oldest file.
    pub fn all(source: &Source) -> Self {
        let waiting = source.files().into_iter().map(|path| (path, 0)).collect();
        Self { current: None, waiting, rest: Vec::new() }
    }

    /// The last lines.
    pub fn tail(source: &Source, lines: i64) -> Self {
        let mut left = u64::try_from(lines).unwrap_or(0);
        let mut waiting = VecDeque::new();
        for (place, path) in source.files().into_iter().rev().enumerate() {
            let size = std::fs::metadata(&path).map_or(0, |m| m.len());
            if left == 0 {
                // Even without old lines, new ones are read from the current file's end.
                if place == 0 {
                    waiting.push_front((path, size));
                }
                break;
            }
            let (offset, found) = from_end(&path, size, left).unwrap_or((0, 0));
            left -= found.min(left);
            waiting.push_front((path, offset));
        }
        Self { current: None, waiting, rest: Vec::new() }
    }

    /// Reads a block and hands its lines out; false at the end of what there is now.
    pub fn read(&mut self, source: &Source, mut line: impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            if self.current.is_none() {
                let Some((path, offset)) = self.waiting.pop_front() else { return Ok(false) };
                match File::open(&path) {
                    Ok(mut file) => {
                        file.seek(SeekFrom::Start(offset))?;
                        let inode = file.metadata()?.ino();
                        self.current = Some(Open { file, inode });
                    }
                    // Rotated away meanwhile, or not begun yet.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        if self.waiting.is_empty() {
                            self.waiting.push_back((path, 0));
                            return Ok(false);
                        }
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
            let Some(open) = &mut self.current else { return Ok(false) };
            // Asked before reading: when it is no longer the current file, nothing is added to it after this read finds its end.
            let moved = self.waiting.is_empty() && std::fs::metadata(source.current()).map_or(true, |m| m.ino() != open.inode);
            let mut block = vec![0; BLOCK];
            let n = open.file.read(&mut block)?;
            if n > 0 {
                self.lines(block.get(..n).unwrap_or_default(), &mut line);
                return Ok(true);
            }
            if !moved && self.waiting.is_empty() {
                return Ok(false);
            }
            let inode = open.inode;
            self.current = None;
            if moved {
                self.waiting = after(source, inode);
            }
        }
    }

    fn lines(&mut self, block: &[u8], line: &mut impl FnMut(&[u8])) {
        let mut block = block;
        while let Some(at) = block.iter().position(|b| *b == b'\n') {
            let (head, tail) = block.split_at(at);
            block = tail.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                line(head);
            } else {
                self.rest.extend_from_slice(head);
                line(&std::mem::take(&mut self.rest));
            }
        }
        if self.rest.len() + block.len() <= LONGEST {
            self.rest.extend_from_slice(block);
        }
    }
}

/// The files that came after the one with that inode; all of them when it is gone.
fn after(source: &Source, inode: u64) -> VecDeque<(PathBuf, u64)> {
    let files = source.files();
    let place = files.iter().position(|path| std::fs::metadata(path).is_ok_and(|m| m.ino() == inode));
    files.into_iter().skip(place.map_or(0, |p| p + 1)).map(|path| (path, 0)).collect()
}

/// Where the last `lines` lines of a file begin, and how many it has of them.
fn from_end(path: &PathBuf, size: u64, lines: u64) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut end, mut found) = (size, 0);
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let offset = start + at as u64 + 1;
            // The newline at the very end closes the last line.
            if offset == size {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((offset, found));
            }
        }
        end = start;
    }
    Ok((0, if size > 0 { found + 1 } else { 0 }))
}
