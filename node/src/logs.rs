//! Container logs: found, read, followed.
//!
//! The runtime writes `<data-dir>/pods/<uid>/logs/<container>/<restart>.log` in CRI's format and rotates it to `.1`, `.2`, … (`.1` is the
//! newest). Following waits for inotify, never polls, and goes through rotations without losing a line; it ends with the container.

mod lines;
mod reader;

use crate::pods::views::{View, Views};
use bytes::Bytes;
use coracle_api::Status;
use coracle_link::{SendHalf, protocol::LogOptions};
use lines::Filter;
use reader::Reader;
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::io::unix::AsyncFd;

/// Bytes of one frame of output, about.
const CHUNK: usize = 32 << 10;

/// A log that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `…/logs/<container>`.
    pub dir: PathBuf,
    /// Container's name.
    pub container: String,
    /// Restart number.
    pub attempt: u32,
}

impl Source {
    /// The file that is being written.
    pub fn current(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.attempt))
    }

    /// All files, oldest first, the current one last.
    fn files(&self) -> Vec<PathBuf> {
        let prefix = format!("{}.log.", self.attempt);
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut rotated: Vec<(u32, PathBuf)> =
            entries.filter_map(|e| Some((e.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?, e.path()))).collect();
        rotated.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        rotated.into_iter().map(|(_, path)| path).chain(std::iter::once(self.current())).collect()
    }
}

/// Which log is meant; the errors are kubelet's.
pub fn find(data_dir: &Path, view: &View, container: &str, options: &LogOptions) -> Result<Source, Status> {
    let found = if container.is_empty() { view.containers.last() } else { view.containers.iter().find(|c| c.name == container) };
    let Some(found) = found else {
        return Err(Status::bad_request(format!("container {container} is not valid for pod {}", view.name)));
    };
    let dir = data_dir.join("pods").join(&*view.uid).join("logs").join(&found.name);
    let source = |attempt| Source { dir: dir.clone(), container: found.name.clone(), attempt };
    if options.previous {
        let before = found.previous.map(source).filter(|s| s.current().exists());
        return before
            .ok_or_else(|| Status::bad_request(format!("previous terminated container \"{}\" in pod \"{}\" not found", found.name, view.name)));
    }
    let now = source(found.attempt);
    if found.created || now.current().exists() {
        return Ok(now);
    }
    // Being started again: what the last one said is what there is.
    if let Some(before) = found.attempt.checked_sub(1).map(source).filter(|s| s.current().exists()) {
        return Ok(before);
    }
    let reason = match found.waiting.as_deref() {
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        reason => reason.unwrap_or("ContainerCreating"),
    };
    Err(Status::bad_request(format!("container \"{}\" in pod \"{}\" is waiting to start: {reason}", found.name, view.name)))
}

/// Sends a log as its reader asked for it, to its end.
pub async fn stream(source: Source, options: LogOptions, views: Views, uid: Arc<str>, send: &mut dyn SendHalf) -> Result<(), String> {
    let mut changes = views.changes();
    let watch = if options.follow { Some(watch(&source.dir).map_err(|e| format!("watch {}: {e}", source.dir.display()))?) } else { None };
    let mut filter = Filter::new(&options);
    let mut reader = match options.tail_lines {
        Some(lines) => Reader::tail(&source, lines),
        None => Reader::all(&source),
    };
    loop {
        // Whether this is the last look is asked before looking, so that nothing written in between is missed.
        let over = watch.is_none() || ended(&views, &uid, &source);
        loop {
            let mut out = Vec::with_capacity(CHUNK);
            let more = reader.read(&source, |line| filter.line(line, &mut out)).map_err(|e| format!("read {}: {e}", source.dir.display()))?;
            for chunk in out.chunks(CHUNK) {
                send.send(Bytes::copy_from_slice(chunk)).await.map_err(|e| e.to_string())?;
            }
            if filter.full() {
                return Ok(());
            }
            if !more {
                break;
            }
        }
        if over {
            return Ok(());
        }
        if let Some(watch) = &watch {
            tokio::select! {
                ready = watch.readable() => {
                    let mut ready = ready.map_err(|e| e.to_string())?;
                    drain(watch.get_ref());
                    ready.clear_ready();
                }
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }
}

/// Nothing more will be written to that log.
fn ended(views: &Views, uid: &str, source: &Source) -> bool {
    let Some(view) = views.get(uid) else { return true };
    match view.containers.iter().find(|c| c.name == source.container) {
        None => true,
        Some(container) => container.attempt != source.attempt || container.created && !container.alive || container.over && !container.alive,
    }
}

fn watch(dir: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // A container that is about to start may not have a directory yet.
    std::fs::create_dir_all(dir)?;
    add_watch(&fd, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    #[allow(deprecated, reason = "for types that may swap their descriptor; an OwnedFd keeps its own")]
    AsyncFd::new(fd)
}

fn drain(fd: &OwnedFd) {
    let mut buffer = [0_u8; 4096];
    while rustix::io::read(fd, &mut buffer).is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests;
