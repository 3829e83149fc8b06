//! A container's log in the CRI format: `<time> stdout|stderr F|P <line>`.
//!
//! Several instances, in several processes, write the same file at once: it is open for appending, and a line is one `write`. Each instance has
//! line buffers of its own, so lines never mix; a line longer than the buffer is written in parts (`P`, the last one `F`).
//!
//! A host cannot rename files (it sees no file system): when the file is full it says so, the agent rotates and sends a fresh descriptor. While
//! no agent is there to do it, the file may grow to four times its size; then lines are dropped and counted. A rotation may fail, or the answer be lost: so
//! it is asked for again whenever a quarter of the size has come since.

use bytes::Bytes;
pub use coracle_runtime::log::Stream;
use coracle_runtime::log::{Lines, record};
use parking_lot::Mutex;
use std::{
    fs::File,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use wasmtime_wasi::{
    async_trait,
    p2::{OutputStream, Pollable, StreamResult},
};

const SLACK: u64 = 4;

/// A file, and whether a line in it was cut short for want of room.
struct Target {
    file: File,
    torn: bool,
}

impl Target {
    /// Writes a line with its end. False: there is no room for all of it.
    fn put(&mut self, line: &[u8]) -> bool {
        if self.torn && self.file.write_all(b"\n").is_err() {
            return false;
        }
        let written = self.file.write(line).unwrap_or(0);
        self.torn = written > 0 && written < line.len();
        written == line.len()
    }
}

/// Where the output of a container goes, shared by all its instances in this process.
pub enum Log {
    /// Into its log.
    File(FileLog),
    /// To standard output and error: whoever started this process writes the log.
    Standard([Mutex<File>; 2]),
}

impl Log {
    /// `full` is called when the file has reached `max` bytes, and again whenever a quarter of that has come and it is full still.
    pub fn new(file: File, max: u64, full: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self::File(FileLog::new(file, max, full)))
    }

    /// Output and error are streams.
    pub fn standard(out: File, err: File) -> Arc<Self> {
        Arc::new(Self::Standard([Mutex::new(out), Mutex::new(err)]))
    }

    /// Writes go to this file from now on, if they went to one.
    pub fn replace(&self, file: File) {
        if let Self::File(log) = self {
            log.replace(file);
        }
    }

    fn line(&self, stream: Stream, whole: bool, text: &[u8]) {
        match self {
            Self::File(log) => log.line(stream, whole, text),
            Self::Standard([out, err]) => {
                let end: &[u8] = if whole { b"\n" } else { b"" };
                let to = if stream == Stream::Out { out } else { err };
                // Nobody reads any more: the output is lost, as with any program's whose end is ignored.
                _ = to.lock().write_all(&[text, end].concat());
            }
        }
    }
}

/// The file.
pub struct FileLog {
    file: Mutex<Target>,
    /// What the file holds, as far as this host knows.
    size: AtomicU64,
    max: u64,
    dropped: AtomicU64,
    /// What came since the last time it was said that the file is full.
    since: AtomicU64,
    full: Box<dyn Fn() + Send + Sync>,
}

impl FileLog {
    fn new(file: File, max: u64, full: impl Fn() + Send + Sync + 'static) -> Self {
        let size = AtomicU64::new(file.metadata().map(|meta| meta.len()).unwrap_or(0));
        let max = if max == 0 { u64::MAX / SLACK } else { max };
        Self { file: Mutex::new(Target { file, torn: false }), size, max, dropped: AtomicU64::new(0), since: AtomicU64::new(0), full: Box::new(full) }
    }

    fn replace(&self, file: File) {
        self.size.store(file.metadata().map(|meta| meta.len()).unwrap_or(0), Relaxed);
        *self.file.lock() = Target { file, torn: false };
        self.confess("the log was full and no agent there to rotate it");
    }

    /// Says how many lines are missing here, if there are any.
    fn confess(&self, why: &str) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 && !self.file.lock().put(&record(Stream::Err, true, format!("coracle: {dropped} lines were dropped: {why}").as_bytes())) {
            self.dropped.fetch_add(dropped, Relaxed);
        }
    }

    fn line(&self, stream: Stream, whole: bool, text: &[u8]) {
        let before = self.size.load(Relaxed);
        if before > self.max.saturating_mul(SLACK) {
            self.dropped.fetch_add(1, Relaxed);
            self.ask(text.len() as u64);
            return;
        }
        let line = record(stream, whole, text);
        self.confess("the disk was full");
        // A full disk must not end the guest; the line is lost as it would be with a broken terminal.
        if !self.file.lock().put(&line) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let after = before + line.len() as u64;
        self.size.store(after, Relaxed);
        if after >= self.max {
            self.ask(if before < self.max { self.max } else { line.len() as u64 });
        }
    }

    /// Says that the file is full, if enough has come since it was said last.
    fn ask(&self, more: u64) {
        if self.since.fetch_add(more, Relaxed).saturating_add(more) >= self.max / 4 {
            self.since.store(0, Relaxed);
            (self.full)();
        }
    }
}

/// One instance's stdout or stderr. Clones share the line buffer. What is left in it is written when the last clone goes.
#[derive(Clone)]
pub struct Writer(Arc<Buffered>);

struct Buffered {
    log: Arc<Log>,
    stream: Stream,
    alone: bool,
    lines: Mutex<Lines>,
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.lines.get_mut().finish(|rest| self.log.line(self.stream, !self.alone, rest));
    }
}

impl Writer {
    /// For one instance, `alone` if no other writes to that log: else its last line gets an end, so that another's does not go on in it.
    pub fn new(log: Arc<Log>, stream: Stream, alone: bool) -> Self {
        Self(Arc::new(Buffered { log, stream, alone, lines: Mutex::default() }))
    }

    /// Takes what the guest wrote.
    pub fn push(&self, bytes: &[u8]) {
        let Buffered { log, stream, lines, .. } = &*self.0;
        lines.lock().push(bytes, |whole, text| log.line(*stream, whole, text));
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl wasmtime_wasi::cli::IsTerminal for Writer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl wasmtime_wasi::cli::StdoutStream for Writer {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl tokio::io::AsyncWrite for Writer {
    fn poll_write(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>, bytes: &[u8]) -> std::task::Poll<std::io::Result<usize>> {
        self.push(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_runtime::log::LINE;
    use std::sync::atomic::AtomicUsize;

    /// Lines of the file without their times.
    fn lines(path: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    fn open(path: &std::path::Path) -> File {
        File::options().create(true).append(true).open(path).unwrap()
    }

    #[test]
    fn lines_are_split_bounded_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::new(open(&path), 0, || ());
        let (out, err) = (Writer::new(log.clone(), Stream::Out, false), Writer::new(log.clone(), Stream::Err, false));
        out.push(b"one\ntw");
        err.push(b"oops\n\n");
        out.push(b"o\n");
        out.push(&[b'x'; LINE + 1]);
        out.push(b"\nrest");
        drop(out);
        Writer::new(log.clone(), Stream::Out, true).push(b"as it is");
        let long = "x".repeat(LINE);
        assert_eq!(
            lines(&path),
            [
                "stdout F one",
                "stderr F oops",
                "stderr F ",
                "stdout F two",
                &format!("stdout P {long}"),
                "stdout F x",
                "stdout F rest",
                "stdout P as it is"
            ]
        );
        let text = std::fs::read_to_string(&path).unwrap();
        let time = text.split(' ').next().unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), ("2026-01-02T03:04:05.000000001Z".len(), true), "{time}");
    }

    #[test]
    fn streams_get_what_the_guest_wrote_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        let log = Log::standard(open(&out), open(&err));
        let (one, two, errors) = (
            Writer::new(log.clone(), Stream::Out, false),
            Writer::new(log.clone(), Stream::Out, false),
            Writer::new(log.clone(), Stream::Err, false),
        );
        one.push(b"from on");
        two.push(b"from two\n");
        one.push(b"e\n");
        errors.push(b"oops");
        drop(errors);
        Writer::new(log.clone(), Stream::Err, true).push(b"as it is");
        one.push(&[b'x'; LINE + 1]);
        one.push(b"\n");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), format!("from two\nfrom one\n{}\n", "x".repeat(LINE + 1)));
        assert_eq!(std::fs::read_to_string(&err).unwrap(), "oops\nas it is");
    }

    #[test]
    fn what_a_full_disk_took_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::new(File::options().write(true).open("/dev/full").unwrap(), 0, || ());
        let out = Writer::new(log.clone(), Stream::Out, false);
        out.push(b"one\ntwo\nthree\n");
        // Room again, after the half of a line.
        std::fs::write(&path, "2026-01-02T03:04:05Z stdout F hal").unwrap();
        let Log::File(file) = &*log else { unreachable!() };
        *file.file.lock() = Target { file: open(&path), torn: true };
        out.push(b"four\n");
        assert_eq!(lines(&path), ["stdout F hal", "stderr F coracle: 3 lines were dropped: the disk was full", "stdout F four"]);
    }

    #[test]
    fn a_full_log_is_said_again_and_bounded_while_nobody_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let said = Arc::new(AtomicUsize::new(0));
        let count = said.clone();
        let log = Log::new(open(&path), 1000, move || _ = count.fetch_add(1, Relaxed));
        let out = Writer::new(log.clone(), Stream::Out, false);
        let mut times = Vec::new();
        for _ in 0..1000 {
            out.push(b"a line of some length, again and again\n");
            times.push(said.load(Relaxed));
        }
        let first = times.iter().position(|times| *times == 1).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 1000 && first < 20, "said when it is full");
        assert_eq!(times[first..first + 3], [1, 1, 1], "and not with every line from then on");
        let grown = times.iter().rposition(|times| *times < 10).unwrap();
        assert!(times[grown..].last().unwrap() > &times[grown + 20], "but again, even while lines are dropped");
        // A quarter of the size each.
        assert!(*times.last().unwrap() <= 1000 * 100 / 250, "{times:?}");
        assert!(std::fs::metadata(&path).unwrap().len() < 1000 * (SLACK + 1));
        let next = dir.path().join("next");
        log.replace(open(&next));
        out.push(b"hello\n");
        let got = lines(&next);
        assert!(got[0].contains("lines were dropped"), "{got:?}");
        assert_eq!(got[1], "stdout F hello");
    }
}
