//! The Raft log in `log.bin`: one task does all writing, and everything that waits when it turns to the disk shares one write and one fsync.
//!
//! What has been appended but not applied is also kept in memory, so that applying never waits for a read. A write that fails ends the process: after a failed
//! fsync the page cache cannot be trusted (the next fsync may succeed without the data), and nothing of the failed batch has been acknowledged.

use super::{Entry, LogId, TypeConfig, Vote};
use crate::disk::Fatal;
use crate::record::{self, BatchWriter, Place, SLOT};
use journal::{Found, Journal, Places};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

mod journal;

/// Bytes after which a batch takes no further job.
const MAX_BATCH: usize = 4 * SLOT;

enum Job {
    Append { entries: Vec<Entry>, done: IOFlushed<TypeConfig> },
    Vote { vote: Vote, done: oneshot::Sender<()> },
    Truncate { from: u64 },
    Purge { upto: LogId },
    Stop,
}

/// What is true of the log once everything queued has been written.
#[derive(Default)]
struct View {
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<Vote>,
    /// The newest entries, contiguous, ending at `last`.
    tail: VecDeque<Entry>,
    /// Where the entries stand that have been written.
    places: Places,
    /// Cuts that are queued: until they are done, `places` may speak of entries that others have taken the place of.
    cuts: usize,
    /// Entries below this index have been applied.
    applied: u64,
}

impl View {
    fn new(found: Found) -> View {
        View { purged: found.state.purged, last: found.last, vote: found.state.vote, places: found.places, ..View::default() }
    }

    /// Drops from memory what the disk has and no one waits for.
    fn trim(&mut self) {
        if self.cuts > 0 {
            return;
        }
        let needed = self.places.end().min(self.applied);
        while self.tail.front().is_some_and(|entry| entry.log_id.index < needed) {
            self.tail.pop_front();
        }
        if self.tail.is_empty() {
            self.tail.shrink_to(64);
        }
    }

    fn next_index(&self) -> u64 {
        self.last.as_ref().map_or(0, |id| id.index + 1)
    }
}

/// Counters of the log writer.
#[derive(Default)]
pub(crate) struct LogStats {
    /// Batches (each one fsync).
    pub commits: AtomicU64,
    /// Entries written.
    pub entries: AtomicU64,
}

struct Shared {
    view: Mutex<View>,
    file: Mutex<Option<Arc<dyn StorageBackend>>>,
    /// Held while entries are read from the file, so that their slots are not written anew meanwhile.
    reading: RwLock<()>,
    stats: LogStats,
    fatal: Fatal,
}

/// The log: storage and reader in one; clones are handles.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Job>,
}

/// What writes. Its [`run`](Self::run) blocks for every write and sync.
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    journal: Journal,
    /// Bounded by the store: in numbers, and in what is in them.
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl LogStore {
    /// Reads what is there. Nothing is written until the writer runs.
    pub fn open(file: Arc<dyn StorageBackend>, fatal: Fatal) -> io::Result<(LogStore, LogWriter)> {
        let (journal, found) = Journal::open(file.clone())?;
        let shared =
            Shared { view: Mutex::new(View::new(found)), file: Mutex::new(Some(file)), reading: RwLock::new(()), stats: LogStats::default(), fatal };
        let shared = Arc::new(shared);
        let (queue, jobs) = mpsc::unbounded_channel();
        Ok((LogStore { shared: shared.clone(), queue }, LogWriter { shared, journal, jobs }))
    }

    pub fn stats(&self) -> &LogStats {
        &self.shared.stats
    }

    /// The greatest log id that has been purged.
    pub fn purged(&self) -> Option<LogId> {
        self.shared.view.lock().purged
    }

    /// The greatest log id it holds or has purged.
    pub fn last(&self) -> Option<LogId> {
        self.shared.view.lock().last
    }

    /// Everything below this index has been applied and need not stay in memory.
    pub fn applied_below(&self, index: u64) {
        let mut view = self.shared.view.lock();
        view.applied = view.applied.max(index);
        view.trim();
    }

    /// Returns when all that is queued is written and the writer is gone; closes the file.
    pub async fn close(&self) {
        let _ = self.queue.send(Job::Stop);
        self.queue.closed().await;
        self.shared.file.lock().take();
    }

    fn enqueue(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| closed())
    }

    fn read(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => u64::MAX,
        };
        let reading = self.shared.reading.read();
        let (written, tail) = {
            let view = self.shared.view.lock();
            let low = start.max(view.purged.as_ref().map_or(0, |id| id.index + 1));
            let high = end.min(view.next_index());
            let tail_start = view.tail.front().map_or(view.next_index(), |entry| entry.log_id.index);
            let skip = usize::try_from(low.saturating_sub(tail_start)).unwrap_or(usize::MAX);
            let take = usize::try_from(high.saturating_sub(low.max(tail_start))).unwrap_or(usize::MAX);
            let written: Vec<_> = view.places.range(low..high.min(tail_start)).collect();
            (written, view.tail.iter().skip(skip).take(take).cloned().collect::<Vec<_>>())
        };
        if written.is_empty() {
            return Ok(tail);
        }
        let file = self.shared.file.lock().clone().ok_or_else(closed)?;
        let mut entries = Vec::with_capacity(written.len() + tail.len());
        let mut bytes = Vec::new();
        for (index, place) in written {
            bytes.resize(place.len as usize, 0);
            file.read(place.at, &mut bytes)?;
            entries.push(decode(index, &bytes)?);
        }
        drop(reading);
        entries.extend(tail);
        Ok(entries)
    }
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}

fn decode(index: u64, bytes: &[u8]) -> io::Result<Entry> {
    let entry = record::decode_entry(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index}: {e}")))?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index} says that it is entry {}", entry.log_id.index)))
    }
}

impl LogWriter {
    /// Writes until the log is closed or a write fails.
    pub async fn run(mut self) {
        let (mut batch, mut taken) = (BatchWriter::new(), Vec::new());
        while let Some(job) = self.jobs.recv().await {
            // Who waits for the batch before is told first, and what those bring who were waiting for this thread goes into this batch.
            tokio::task::yield_now().await;
            let mut stop = false;
            let mut next = Some(job);
            while let Some(job) = next.take() {
                stop = matches!(job, Job::Stop);
                encode(&job, &mut batch, &mut self.journal);
                taken.push(job);
                if !stop && batch.size() < MAX_BATCH {
                    next = self.jobs.try_recv().ok();
                }
            }
            if taken.iter().any(|job| !matches!(job, Job::Stop))
                && let Err(error) = self.shared.write(&mut self.journal, &mut batch, &mut taken)
            {
                // Nothing of this batch is acknowledged, now or later.
                self.shared.fatal.die(&format!("writing the log failed: {error}"));
                return;
            }
            if stop {
                return;
            }
            batch.clear();
        }
    }
}

impl Shared {
    /// Makes a batch durable and tells those who wait.
    fn write(&self, journal: &mut Journal, batch: &mut BatchWriter, taken: &mut Vec<Job>) -> io::Result<()> {
        let at = journal.append(batch)?;
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.entries.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
        let mut purged = false;
        {
            let mut view = self.view.lock();
            let mut entries = batch.entries.iter();
            for job in taken.iter() {
                match job {
                    Job::Append { entries: appended, .. } => {
                        for (id, place) in entries.by_ref().take(appended.len()) {
                            view.places.put(id.index, Place { at: at + place.at, ..*place });
                        }
                    }
                    Job::Truncate { from } => {
                        view.places.cut(*from);
                        view.cuts -= 1;
                    }
                    Job::Purge { upto } => {
                        view.places.drop_below(upto.index + 1);
                        purged = true;
                    }
                    Job::Vote { .. } | Job::Stop => {}
                }
            }
            view.trim();
        }
        for job in taken.drain(..) {
            match job {
                Job::Append { done, .. } => done.io_completed(Ok(())),
                Job::Vote { done, .. } => drop(done.send(())),
                Job::Truncate { .. } | Job::Purge { .. } | Job::Stop => {}
            }
        }
        if purged {
            let _none = self.reading.write();
            journal.release()?;
        }
        Ok(())
    }
}

fn encode(job: &Job, batch: &mut BatchWriter, journal: &mut Journal) {
    match job {
        Job::Append { entries, .. } => entries.iter().for_each(|entry| batch.entry(entry)),
        Job::Vote { vote, .. } => journal.state.vote = Some(*vote),
        Job::Truncate { from } => batch.truncate(*from),
        Job::Purge { upto } => journal.state.purged = journal.state.purged.max(Some(*upto)),
        Job::Stop => {}
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(&mut self, range: RB) -> io::Result<Vec<Entry>> {
        self.read(range)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.view.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let view = self.shared.view.lock();
        Ok(LogState { last_purged_log_id: view.purged, last_log_id: view.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.shared.view.lock().vote = Some(*vote);
        self.enqueue(Job::Vote { vote: *vote, done })?;
        written.await.map_err(|_| closed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut view = self.shared.view.lock();
            if let Some(last) = entries.last() {
                view.last = Some(last.log_id);
            }
            view.tail.extend(entries.iter().cloned());
        }
        self.enqueue(Job::Append { entries, done: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let from = last_log_id.as_ref().map_or(0, |id| id.index + 1);
        {
            let mut view = self.shared.view.lock();
            while view.tail.back().is_some_and(|entry| entry.log_id.index >= from) {
                view.tail.pop_back();
            }
            // What it never had is not there to be cut.
            view.last = view.last.min(last_log_id).max(view.purged);
            view.cuts += 1;
        }
        self.enqueue(Job::Truncate { from })
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut view = self.shared.view.lock();
            view.purged = view.purged.max(Some(log_id));
            view.last = view.last.max(view.purged);
            while view.tail.front().is_some_and(|entry| entry.log_id.index <= log_id.index) {
                view.tail.pop_front();
            }
        }
        self.enqueue(Job::Purge { upto: log_id })
    }
}

#[cfg(test)]
mod tests;
