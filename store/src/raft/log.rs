//! The Raft log in `log.redb`: one thread owns all writing, and everything that waits when it turns to the disk shares one fsync.
//!
//! What has been appended but not applied is also kept in memory, so that applying never waits for a read. A write that fails ends the process: after a failed
//! fsync the page cache cannot be trusted (the next fsync may succeed without the data), and nothing of the failed batch has been acknowledged.

use super::{Entry, LogId, TypeConfig, Vote};
use crate::disk::Fatal;
use crate::record;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::collections::VecDeque;
use std::fmt::{Debug, Display};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const PURGED: &str = "purged";

/// Most entries that go to the disk in one commit.
const MAX_BATCH: usize = 4096;

enum Job {
    Append { entries: Vec<Entry>, done: IOFlushed<TypeConfig> },
    Vote { vote: Vote, done: tokio::sync::oneshot::Sender<()> },
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
    /// Entries below this index are on disk.
    written: u64,
    /// Entries below this index have been applied.
    applied: u64,
}

impl View {
    /// What the file says.
    fn read(db: &Database) -> io::Result<View> {
        let mut view = View::default();
        let txn = db.begin_read().map_err(other)?;
        let tables = txn.open_table(META).and_then(|meta| Ok((meta, txn.open_table(ENTRIES)?)));
        let (meta, entries) = match tables {
            Ok(tables) => tables,
            // Nothing has ever been written.
            Err(TableError::TableDoesNotExist(_)) => return Ok(view),
            Err(error) => return Err(other(error)),
        };
        view.vote = meta.get(VOTE).map_err(other)?.map(|v| record::decode_vote(v.value())).transpose().map_err(other)?;
        view.purged = meta.get(PURGED).map_err(other)?.map(|v| record::decode_log_id(v.value())).transpose().map_err(other)?;
        let last = entries.last().map_err(other)?.map(|(index, v)| decode(index.value(), v.value())).transpose()?;
        view.last = last.map(|entry| entry.log_id).max(view.purged);
        view.written = view.next_index();
        Ok(view)
    }

    /// Drops from memory what the disk has and no one waits for.
    fn trim(&mut self) {
        let needed = self.written.min(self.applied);
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
    /// Commits (each one fsync).
    pub commits: AtomicU64,
    /// Entries written.
    pub entries: AtomicU64,
}

struct Shared {
    view: Mutex<View>,
    db: Mutex<Option<Arc<Database>>>,
    stats: LogStats,
    fatal: Fatal,
}

/// The log: storage and reader in one; clones are handles.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl LogStore {
    /// Reads what is there and starts the writer thread.
    pub fn open(db: Database, fatal: Fatal) -> io::Result<LogStore> {
        let view = View::read(&db)?;
        let shared = Arc::new(Shared { view: Mutex::new(view), db: Mutex::new(Some(Arc::new(db))), stats: LogStats::default(), fatal });
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new().name("coracle-log".into()).spawn({
            let shared = shared.clone();
            move || shared.write_loop(&jobs)
        })?;
        Ok(LogStore { shared, queue, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    pub fn stats(&self) -> &LogStats {
        &self.shared.stats
    }

    /// The greatest log id that has been purged.
    pub fn purged(&self) -> Option<LogId> {
        self.shared.view.lock().purged
    }

    /// Everything below this index has been applied and need not stay in memory.
    pub fn applied_below(&self, index: u64) {
        let mut view = self.shared.view.lock();
        view.applied = view.applied.max(index);
        view.trim();
    }

    /// Finishes what is queued, stops the thread and closes the file.
    pub fn close(&self) {
        let _ = self.queue.send(Job::Stop);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        self.shared.db.lock().take();
    }

    fn enqueue(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| io::Error::other("the log is closed"))
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
        let (from_disk, tail) = {
            let view = self.shared.view.lock();
            let low = start.max(view.purged.as_ref().map_or(0, |id| id.index + 1));
            let high = end.min(view.next_index());
            let tail_start = view.tail.front().map_or(view.next_index(), |entry| entry.log_id.index);
            let skip = usize::try_from(low.saturating_sub(tail_start)).unwrap_or(usize::MAX);
            let take = usize::try_from(high.saturating_sub(low.max(tail_start))).unwrap_or(usize::MAX);
            (low..high.min(tail_start), view.tail.iter().skip(skip).take(take).cloned().collect::<Vec<_>>())
        };
        if from_disk.is_empty() {
            return Ok(tail);
        }
        let db = self.shared.database()?;
        let txn = db.begin_read().map_err(other)?;
        let table = txn.open_table(ENTRIES).map_err(other)?;
        let mut entries = Vec::new();
        for item in table.range(from_disk).map_err(other)? {
            let (index, bytes) = item.map_err(other)?;
            entries.push(decode(index.value(), bytes.value())?);
        }
        entries.extend(tail);
        Ok(entries)
    }
}

fn decode(index: u64, bytes: &[u8]) -> io::Result<Entry> {
    let entry = record::decode_entry(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index}: {e}")))?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index} says that it is entry {}", entry.log_id.index)))
    }
}

impl Shared {
    fn database(&self) -> io::Result<Arc<Database>> {
        self.db.lock().clone().ok_or_else(|| io::Error::other("the log is closed"))
    }

    fn write_loop(&self, jobs: &mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while let Ok(job) = jobs.recv() {
            let mut entries = 0;
            let mut stop = false;
            for job in std::iter::once(job).chain(jobs.try_iter()) {
                entries += if let Job::Append { entries, .. } = &job { entries.len() } else { 1 };
                stop |= matches!(job, Job::Stop);
                batch.push(job);
                if stop || entries >= MAX_BATCH {
                    break;
                }
            }
            if let Err(error) = self.write(&batch) {
                // Nothing of this batch is acknowledged, now or later.
                self.fatal.die(&format!("writing the log failed: {error}"));
                return;
            }
            self.finish(&mut batch);
            if stop {
                return;
            }
        }
    }

    /// One commit for a whole batch.
    fn write(&self, batch: &[Job]) -> io::Result<()> {
        if batch.iter().all(|job| matches!(job, Job::Stop)) {
            return Ok(());
        }
        let db = self.database()?;
        let txn = db.begin_write().map_err(other)?;
        {
            let mut meta = txn.open_table(META).map_err(other)?;
            let mut table = txn.open_table(ENTRIES).map_err(other)?;
            for job in batch {
                match job {
                    Job::Append { entries, .. } => {
                        for entry in entries {
                            table.insert(entry.log_id.index, &*record::encode_entry(entry)).map_err(other)?;
                        }
                        self.stats.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
                    }
                    Job::Vote { vote, .. } => {
                        meta.insert(VOTE, &*record::encode_vote(vote)).map_err(other)?;
                    }
                    Job::Truncate { from } => table.retain_in(*from.., |_, _| false).map_err(other)?,
                    Job::Purge { upto } => {
                        meta.insert(PURGED, &*record::encode_log_id(upto)).map_err(other)?;
                        table.retain_in(..=upto.index, |_, _| false).map_err(other)?;
                    }
                    Job::Stop => {}
                }
            }
        }
        txn.commit().map_err(other)?;
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn finish(&self, batch: &mut Vec<Job>) {
        let written = batch.iter().rev().find_map(|job| if let Job::Append { entries, .. } = job { entries.last() } else { None });
        if let Some(last) = written {
            let mut view = self.view.lock();
            view.written = last.log_id.index + 1;
            view.trim();
        }
        for job in batch.drain(..) {
            match job {
                Job::Append { done, .. } => done.io_completed(Ok(())),
                Job::Vote { done, .. } => drop(done.send(())),
                Job::Truncate { .. } | Job::Purge { .. } | Job::Stop => {}
            }
        }
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
        let (done, written) = tokio::sync::oneshot::channel();
        self.shared.view.lock().vote = Some(*vote);
        self.enqueue(Job::Vote { vote: *vote, done })?;
        written.await.map_err(|_| io::Error::other("the log is closed"))
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
            view.written = view.written.min(from);
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
