//! A container's last words: what it left in its termination message file, or the end of its log (Kubernetes' `terminationMessagePath` and `terminationMessagePolicy`).

use coracle_runtime::Termination;
use rustix::fs::{Mode, OFlags, open};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// The end of the file that counts, as kubelet reads it.
const MESSAGE: u64 = 4096;
/// The end of the log that counts: lines and bytes.
const LINES: usize = 80;
const BYTES: usize = 2048;
/// What is read of the log for that.
const LOG: u64 = 64 << 10;

/// What to tell of its end.
pub fn of(termination: &Termination, log: &Path, code: i32) -> String {
    let message = match termination.message.as_deref().map(|path| end(path, MESSAGE)) {
        None => String::new(),
        Some(Ok(text)) => String::from_utf8_lossy(&text).into_owned(),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Some(Err(error)) => return format!("Error on reading termination log: {error}"),
    };
    if message.is_empty() && termination.fallback_to_logs && code != 0 {
        return end(log, LOG).map(|text| tail(&text)).unwrap_or_else(|error| format!("Error on reading termination message from logs: {error}"));
    }
    message
}

/// The end of a file, which the container may have written: nothing but an ordinary file is read.
fn end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    file.seek(SeekFrom::Start(meta.len().saturating_sub(most)))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// The texts of the log's last lines.
fn tail(log: &[u8]) -> String {
    // Time, stream, whole or part, text.
    let text = |line: &[u8]| {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let whole = parts.nth(2)? == b"F";
        let mut text = parts.next()?.to_vec();
        if whole {
            text.push(b'\n');
        }
        Some(text)
    };
    let lines: Vec<Vec<u8>> = log.split(|byte| *byte == b'\n').filter_map(text).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().concat();
    String::from_utf8_lossy(last.get(last.len().saturating_sub(BYTES)..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt::Write, fs, os::unix::fs::symlink};

    #[test]
    fn the_file_goes_before_the_log_and_both_have_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        let mut lines = String::new();
        for number in 0..200 {
            writeln!(lines, "2026-01-01T00:00:00.0Z stdout F line {number}").unwrap();
        }
        lines.push_str("2026-01-01T00:00:00.0Z stderr P part\n");
        fs::write(&log, lines).unwrap();
        let words = |fallback_to_logs, code| of(&Termination { message: Some(file.clone()), fallback_to_logs }, &log, code);
        assert_eq!((words(false, 1), words(true, 0)), (String::new(), String::new()));
        let tail = words(true, 1);
        assert!(tail.starts_with("line 121\n") && tail.ends_with("line 199\npart"), "{tail}");
        fs::write(&file, format!("{}end", "x".repeat(5000))).unwrap();
        assert!(words(true, 1).len() == 4096 && words(true, 1).ends_with("xend"));
        fs::remove_file(&file).unwrap();
        symlink(&log, &file).unwrap();
        assert!(words(true, 1).starts_with("Error on reading termination log"), "a link leads elsewhere");
        fs::write(&log, format!("2026-01-01T00:00:00.0Z stdout F {}\n", "y".repeat(5000))).unwrap();
        assert_eq!(of(&Termination { message: None, fallback_to_logs: true }, &log, 1).len(), BYTES);
    }
}
