//! The audit log's file: lines through a bounded queue to one thread, which rotates the file by its size.

use coracle_api::time;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes that may wait to be written.
const QUEUE: usize = 8 << 20;
/// The annotation of the line that says how many were lost.
const LOST: &str = "audit.coracle.dev/lost-events";

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; `-` is standard output, which is not rotated.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0 for never.
    pub max_bytes: u64,
    /// Old files that are kept; 0 for all.
    pub max_backups: usize,
}

/// One event as it is written, with its newline.
pub struct Line(Vec<u8>);

impl Line {
    pub(super) fn of(event: &Value) -> Self {
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        Self(line)
    }
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    lost: u64,
    /// Lines that the thread has taken and not written yet.
    writing: bool,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
    written: Condvar,
}

/// Where lines are handed in. The thread ends when the last of these is gone.
#[derive(Clone)]
pub struct Sink {
    shared: Arc<Shared>,
    _end: Arc<End>,
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.came.notify_one();
    }
}

impl Sink {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(options: Options) -> io::Result<Self> {
        let mut file = Rotated::open(options)?;
        let shared = Arc::new(Shared { queue: Mutex::default(), came: Condvar::new(), written: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("audit log".into()).spawn(move || drain(&theirs, &mut file))?;
        Ok(Self { _end: Arc::new(End(Arc::clone(&shared))), shared })
    }

    /// Hands a line in; never waits. What finds the queue full is counted.
    pub(super) fn write(&self, line: Line) {
        let mut queue = self.shared.queue.lock();
        if queue.bytes + line.0.len() > QUEUE {
            queue.lost += 1;
            if queue.lost == 1 {
                tracing::warn!("the audit log cannot keep up: events are lost; their number will stand in the log");
            }
            return;
        }
        queue.bytes += line.0.len();
        queue.lines.push_back(line);
        drop(queue);
        self.shared.came.notify_one();
    }

    /// Waits until all that was handed in is written.
    pub(super) fn flush(&self) {
        let mut queue = self.shared.queue.lock();
        while queue.writing || !queue.lines.is_empty() {
            self.shared.written.wait(&mut queue);
        }
    }
}

fn drain(shared: &Shared, file: &mut Rotated) {
    let mut complained = false;
    loop {
        let (lines, lost) = {
            let mut queue = shared.queue.lock();
            queue.writing = false;
            shared.written.notify_all();
            while queue.lines.is_empty() && queue.lost == 0 && !queue.closed {
                shared.came.wait(&mut queue);
            }
            if queue.lines.is_empty() && queue.lost == 0 {
                return;
            }
            queue.bytes = 0;
            queue.writing = true;
            (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.lost))
        };
        let note = (lost > 0).then(|| Line::of(&loss(lost)));
        let outcome = lines.iter().chain(&note).try_for_each(|line| file.write(&line.0)).and_then(|()| file.flush());
        match outcome {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                tracing::error!(%error, "the audit log cannot be written: events are lost");
            }
            Err(_) => {}
        }
    }
}

/// Says how many events are missing here.
fn loss(lost: u64) -> Value {
    let now = time::micros(jiff::Timestamp::now());
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": uuid::Uuid::new_v4().to_string(), "stage": "ResponseComplete",
        "requestURI": "", "verb": "", "user": { "username": "system:apiserver" }, "requestReceivedTimestamp": now, "stageTimestamp": now,
        "annotations": { LOST: lost.to_string() },
    })
}

/// A file that is begun anew when it is full.
struct Rotated {
    options: Options,
    to: io::BufWriter<Box<dyn Write + Send>>,
    bytes: u64,
}

fn append(path: &Path) -> io::Result<(Box<dyn Write + Send>, u64)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdout()), 0));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((Box::new(file), bytes))
}

impl Rotated {
    fn open(options: Options) -> io::Result<Self> {
        let (to, bytes) = append(&options.path)?;
        Ok(Self { options, to: io::BufWriter::new(to), bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let most = self.options.max_bytes;
        if most > 0 && self.bytes > 0 && self.bytes + line.len() as u64 > most && self.options.path != Path::new("-") {
            self.rotate()?;
        }
        self.bytes += line.len() as u64;
        self.to.write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// `audit.log` becomes `audit-2026-01-02T03-04-05.678.log`, as upstream names it.
    fn rotate(&mut self) -> io::Result<()> {
        self.to.flush()?;
        let path = &self.options.path;
        let (prefix, suffix) = names(path);
        let mut at = jiff::Timestamp::now();
        let old = loop {
            let old = path.with_file_name(format!("{prefix}{}{suffix}", at.strftime("%Y-%m-%dT%H-%M-%S%.3f")));
            if !old.exists() {
                break old;
            }
            at += jiff::SignedDuration::from_millis(1);
        };
        fs::rename(path, old)?;
        let (to, bytes) = append(path)?;
        (self.to, self.bytes) = (io::BufWriter::new(to), bytes);
        self.forget_oldest()
    }

    fn forget_oldest(&self) -> io::Result<()> {
        if self.options.max_backups == 0 {
            return Ok(());
        }
        let path = &self.options.path;
        let (prefix, suffix) = names(path);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
            if stamp.is_some_and(|stamp| stamp.len() == 23 && stamp.starts_with(|c: char| c.is_ascii_digit())) {
                old.push(entry.path());
            }
        }
        old.sort();
        let surplus = old.len().saturating_sub(self.options.max_backups);
        old.iter().take(surplus).try_for_each(fs::remove_file)
    }
}

/// What stands before and after the time in the names of old files.
fn names(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    (format!("{stem}-"), path.extension().map(|ext| format!(".{}", ext.to_string_lossy())).unwrap_or_default())
}
