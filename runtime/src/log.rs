//! A container's log in the CRI format, `<time> stdout|stderr F|P <line>`, and its rotation: the same for every runtime.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The longest line that is written in one piece, as in containerd.
pub const LINE: usize = 16 << 10;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line of the log as it is written, in one piece. `whole` is false for what does not end with the line's end: all but the last part of a long line, and what a program says last.
pub fn record(stream: Stream, whole: bool, text: &[u8]) -> Vec<u8> {
    let name = if stream == Stream::Out { "stdout" } else { "stderr" };
    let mut line = Vec::with_capacity(text.len() + 48);
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
    // Writing to memory does not fail.
    _ = write!(line, "{time} {name} {} ", if whole { 'F' } else { 'P' });
    line.extend_from_slice(text);
    line.push(b'\n');
    line
}

/// Cuts what a program writes into lines, and lines longer than [`LINE`] into parts.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes what was written; calls `line(whole, text)` for each line or part that is complete.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(bool, &[u8])) {
        let partial = &mut self.partial;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            while partial.len() + text.len() > LINE {
                let (head, tail) = text.split_at(LINE - partial.len());
                partial.extend_from_slice(head);
                line(false, partial);
                partial.clear();
                text = tail;
            }
            partial.extend_from_slice(text);
            if ended {
                line(true, partial);
                partial.clear();
            }
        }
    }

    /// The program is over: what is left is a line without its end, which is logged as a part (`P`) as containerd does, so that readers are shown what was written.
    pub fn finish(&mut self, line: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
        }
        self.partial = Vec::new();
    }
}

/// Opens a log for appending, and makes its folder.
///
/// # Errors
/// Those of the file system.
pub fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().create(true).append(true).open(path)
}

/// Moves `0.log` to `0.log.1` and so on, keeping `files` in all, and opens a fresh one. A file that is smaller than `bytes` stays: another writer
/// has asked for the same rotation before.
///
/// # Errors
/// Those of the file system.
pub fn rotate(path: &Path, bytes: u64, files: u32) -> io::Result<File> {
    let numbered = |number: u32| {
        let mut name = path.to_path_buf().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if fs::metadata(path).is_ok_and(|meta| meta.len() >= bytes) {
        for number in (1..files.max(2) - 1).rev() {
            if let Err(error) = fs::rename(numbered(number), numbered(number + 1))
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        fs::rename(path, numbered(1))?;
    }
    open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_moves_on_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/0.log");
        for text in ["one", "two", "three", "four"] {
            open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            rotate(&path, 1, 3).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join("deep").join(name)).ok();
        assert_eq!(
            [read("0.log"), read("0.log.1"), read("0.log.2"), read("0.log.3")],
            [Some(String::new()), Some("four".into()), Some("three".into()), None]
        );
        rotate(&path, 1, 3).unwrap();
        assert_eq!(read("0.log.1"), Some("four".into()), "an empty log is not rotated");
    }
}
