//! The store: opening, proposing, reading, watching, closing.

use crate::ballast::Ballast;
use crate::disk::{self, Fatal, FreeSpace, Reserve};
use crate::hub::Hub;
use crate::raft::{Flush, LogStore, LogWriter, Machine, NoNetwork, Node, Proposal, Raft, RaftThread};
use crate::state_file::StateFile;
use crate::txn::MAX_BYTES;
use crate::{Committed, Error, Op, Scope, Snapshot, Txn, Watch};
use openraft::errors::{ClientWriteError, Fatal as RaftFatal, LinearizableReadError, RaftError};
use openraft::{ReadPolicy, SnapshotPolicy};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// This member's id; more members come with joining.
const NODE: u64 = 1;
/// Transactions in flight, in KiB: what memory and the disk's reserve allow for.
const IN_FLIGHT_KIB: usize = 16 << 10;
/// How long a patient transaction waits for others to share an fsync with.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long closing waits for writes in flight.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long opening may wait to lead its cluster of one.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for `log.bin` and `state.redb`; made when missing.
    pub dir: PathBuf,
    /// redb's cache of the state file, bytes.
    pub cache: usize,
    /// How long the history (old revisions and the watch ring) is kept in memory.
    pub history_age: Duration,
    /// How large the history may become, bytes.
    pub history_bytes: usize,
}

impl Options {
    /// Small defaults: 1 MiB of cache, five minutes and 8 MiB of history.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options { dir: dir.into(), cache: 1 << 20, history_age: Duration::from_secs(300), history_bytes: 8 << 20 }
    }
}

/// What simulation and tests put in the place of disk and death.
#[derive(Clone, Default)]
pub struct Seams {
    /// In place of `log.bin`: grows, as a file does, when it is written beyond its end.
    pub log: Option<Arc<dyn StorageBackend>>,
    /// In place of `state.redb`.
    pub state: Option<Arc<dyn StorageBackend>>,
    /// In place of ending the process.
    pub fatal: Fatal,
    /// In place of asking the filesystem for its free bytes.
    pub free: Option<FreeSpace>,
}

/// Counters, for metrics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The revision applied last.
    pub revision: u64,
    /// The oldest revision that `snapshot_at` can give.
    pub oldest: u64,
    /// Commits of the log: each is one fsync.
    pub log_commits: u64,
    /// Entries those commits wrote.
    pub log_entries: u64,
    /// Commits of the state file.
    pub state_commits: u64,
    /// Open watches.
    pub watchers: usize,
}

/// Cheap clone. The store's tasks end when `shutdown` is called.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    thread: Arc<RaftThread>,
    hub: Arc<Hub>,
    log: LogStore,
    state: Arc<StateFile>,
    flush: Arc<Flush>,
    reserve: Reserve,
    fatal: Fatal,
    in_flight: Semaphore,
    /// Wakes the patient ones when somebody writes.
    company: Notify,
    opened: Instant,
    sole: Arc<AtomicBool>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

fn failed(tried: impl Display) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Failed(format!("{tried}: {error}"))
}

impl Store {
    /// Opens the directory, or begins a new cluster of one in it; returns when everything ever acknowledged is applied.
    pub async fn open(options: Options) -> Result<Store, Error> {
        Store::open_with(options, Seams::default()).await
    }

    /// `open` on given seams.
    pub async fn open_with(options: Options, seams: Seams) -> Result<Store, Error> {
        let dir = options.dir.clone();
        let free = seams.free.clone().unwrap_or_else(disk::free_space);
        let (ballast, Opened { log, writer, state, applied, root }) = {
            let (options, seams, free) = (options.clone(), seams.clone(), free.clone());
            let open = move || {
                let ballast = if seams.log.is_none() { Ballast::at_start(&options.dir, &free) } else { Ballast::none() };
                open_files(&options, &seams).map(|opened| (ballast, opened))
            };
            tokio::task::spawn_blocking(open).await.map_err(|e| Error::Failed(format!("opening {}: {e}", dir.display())))??
        };
        let hub = Hub::new(Arc::new(root.clone()), options.history_age, options.history_bytes);
        let flush = Flush::new(state.clone(), applied.clone(), seams.fatal.clone());
        let machine = Machine::new(NODE, root, applied, options.clone(), hub.clone(), flush.clone(), log.clone());
        let sole = machine.sole();
        let thread = Arc::new(RaftThread::start().map_err(failed("starting the thread of Raft"))?);
        let starting = {
            let log = log.clone();
            async move {
                tokio::spawn(writer.run());
                start_raft(log, machine).await
            }
        };
        let raft = match thread.run(starting).await.unwrap_or(Err(Error::Closed)) {
            Ok(raft) => raft,
            Err(error) => {
                close(log, state, thread).await;
                return Err(error);
            }
        };
        let inner = Inner {
            raft,
            thread,
            hub,
            log,
            state,
            flush,
            reserve: Reserve { dir: options.dir, free, ballast: Arc::new(ballast) },
            fatal: seams.fatal,
            in_flight: Semaphore::new(IN_FLIGHT_KIB),
            company: Notify::new(),
            opened: Instant::now(),
            sole,
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let store = Store { inner: Arc::new(inner) };
        store.inner.tasks.spawn(follow(store.inner.raft.clone(), store.inner.flush.clone(), store.inner.closed.clone()));
        Ok(store)
    }

    /// Propose; returns once the entry is on disk on a majority and applied. A transaction that would change nothing is answered without a write. When the
    /// future is dropped, the transaction may or may not take place.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, Error> {
        txn.check()?;
        if self.inner.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        if self.leads_alone()
            && let Some(answer) = foregone(&self.snapshot(), &txn)
        {
            return answer;
        }
        self.inner.reserve.admit(txn.only_deletes())?;
        let kib = txn.weight().div_ceil(1 << 10).clamp(1, MAX_BYTES >> 10) as u32;
        self.inner.company.notify_waiters();
        let _room = self.inner.in_flight.acquire_many(kib).await.map_err(|_| Error::Closed)?;
        match self.inner.raft.client_write(Proposal(Arc::new(txn))).await {
            Ok(response) => response.data.unwrap_or_else(|| Err(Error::Failed("the log entry came back without an answer".into()))),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Error::NotLeader),
            Err(RaftError::Fatal(RaftFatal::Stopped)) => Err(Error::Closed),
            Err(_) if self.inner.closed.is_cancelled() => Err(Error::Closed),
            Err(RaftError::Fatal(error)) => {
                // Raft does not come back from this, so neither may we: every later write would fail.
                let reason = format!("Raft stopped: {error}");
                self.inner.fatal.die(&reason);
                Err(Error::Failed(reason))
            }
            Err(error) => Err(Error::Failed(format!("proposing a transaction: {error}"))),
        }
    }

    /// `commit` for what has time, such as the renewal of a lease: held until somebody else writes or the store's next second begins, so that the
    /// renewals of a thousand nodes share a few fsyncs instead of taking one each.
    pub async fn commit_patiently(&self, txn: Txn) -> Result<Committed, Error> {
        let into = self.inner.opened.elapsed().subsec_nanos();
        tokio::select! {
            () = self.inner.company.notified() => {}
            () = self.inner.closed.cancelled() => {}
            () = tokio::time::sleep(PATIENCE - Duration::from_nanos(into.into())) => {}
        }
        self.commit(txn).await
    }

    /// The only voter, and leading: everything acknowledged was acknowledged here, after it was applied.
    fn leads_alone(&self) -> bool {
        self.inner.sole.load(Ordering::Acquire) && self.inner.raft.is_leader()
    }

    /// Linearizable: returns once everything acknowledged before the call is applied here.
    pub async fn barrier(&self) -> Result<(), Error> {
        if self.inner.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        if self.leads_alone() {
            return Ok(());
        }
        self.read_index().await
    }

    /// By the leader's lease, and when that is stale by asking a majority.
    async fn read_index(&self) -> Result<(), Error> {
        let mut read = self.inner.raft.ensure_linearizable(ReadPolicy::LeaseRead).await;
        if let Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) = read {
            read = self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        }
        match read {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(RaftFatal::Stopped)) => Err(Error::Closed),
            Err(RaftError::Fatal(error)) => Err(Error::Failed(format!("confirming leadership for a read: {error}"))),
            Err(RaftError::APIError(_)) => Err(Error::NotLeader),
        }
    }

    /// Latest applied state (after `barrier` for a linearizable read).
    pub fn snapshot(&self) -> Snapshot {
        self.inner.hub.snapshot()
    }

    /// An exact older revision; `Gone` when it is not held.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Error> {
        self.inner.hub.snapshot_at(revision)
    }

    /// Waits until `revision` is applied (resourceVersion "not older than"); `Gone` with that revision when it is not in time.
    pub async fn applied(&self, revision: u64, within: Duration) -> Result<Snapshot, Error> {
        let mut revisions = self.inner.hub.revisions();
        let reached = tokio::time::timeout(within, revisions.wait_for(|applied| *applied >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(self.snapshot()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Gone { wanted: revision, oldest: self.inner.hub.oldest() }),
        }
    }

    /// Changes after revision `after`. `Gone` when some of them are not held any more.
    pub fn watch(&self, scope: Scope, after: u64) -> Result<Watch, Error> {
        self.inner.hub.watch(scope, after)
    }

    /// The current state of the scope and every change after it, without a gap between.
    pub fn list_watch(&self, scope: Scope) -> (Snapshot, Watch) {
        self.inner.hub.list_watch(scope)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let log = self.inner.log.stats();
        Stats {
            revision: self.inner.hub.published(),
            oldest: self.inner.hub.oldest(),
            log_commits: log.commits.load(Ordering::Relaxed),
            log_entries: log.entries.load(Ordering::Relaxed),
            state_commits: self.inner.flush.commits.load(Ordering::Relaxed),
            watchers: self.inner.hub.watchers(),
        }
    }

    /// Takes no more proposals, waits (a bounded time) for those in flight, ends watches after what they have received, stops the tasks, and closes the files;
    /// afterwards the directory can be opened again. Nothing is lost without it.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.closed.cancel();
        // Held until closed, so that no one who waits for room gets it in between.
        let all = tokio::time::timeout(DRAIN_WITHIN, inner.in_flight.acquire_many(IN_FLIGHT_KIB as u32)).await;
        if all.is_err() {
            tracing::warn!("writes in flight did not finish in {DRAIN_WITHIN:?}; they may or may not have taken place");
        }
        inner.in_flight.close();
        drop(all);
        inner.hub.close();
        inner.tasks.close();
        inner.tasks.wait().await;
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!("stopping Raft: {error}");
        }
        close(inner.log.clone(), inner.state.clone(), inner.thread.clone()).await;
    }
}

/// Writes what is queued for the log, and closes the files.
async fn close(log: LogStore, state: Arc<StateFile>, thread: Arc<RaftThread>) {
    log.close().await;
    let closed = tokio::task::spawn_blocking(move || {
        thread.end();
        state.close();
    });
    if let Err(error) = closed.await {
        tracing::warn!("closing the store's files: {error}");
    }
}

/// The answer to a transaction that cannot or need not be written, given the newest state.
fn foregone(now: &Snapshot, txn: &Txn) -> Option<Result<Committed, Error>> {
    if let Some(refused) = now.root.refuses(txn) {
        return Some(Err(Error::Precondition { op: refused.op, current: refused.current }));
    }
    let mut objects = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let current = now.root.get(op.key());
        match op {
            Op::Check { .. } => objects.push(None),
            Op::Delete { .. } if current.is_none() => objects.push(None),
            Op::Put { draft, .. } if current.is_some_and(|o| o.same_as(draft)) => objects.push(current.cloned()),
            Op::Put { .. } | Op::Delete { .. } => return None,
        }
    }
    Some(Ok(Committed { revision: now.revision(), objects }))
}

struct Opened {
    log: LogStore,
    writer: LogWriter,
    state: Arc<StateFile>,
    /// What the state file holds.
    applied: crate::record::Applied,
    root: crate::root::Root,
}

fn open_files(options: &Options, seams: &Seams) -> Result<Opened, Error> {
    let dir = &options.dir;
    disk::make_dir(dir)?;
    let log = disk::open_log(dir, seams.log.clone())?;
    let state = disk::open_state(dir, options.cache, seams.state.clone())?;
    disk::sync_dir(dir).map_err(failed(format_args!("syncing the data directory {}", dir.display())))?;
    let (log, writer) = LogStore::open(log, seams.fatal.clone()).map_err(failed(format_args!("reading {}", dir.join(disk::LOG).display())))?;
    let state = Arc::new(StateFile::new(state));
    let read = || -> std::io::Result<_> {
        let image = state.image()?;
        Ok((image.load()?, image.applied))
    };
    let (root, applied) = read().map_err(failed(format_args!("reading {}", dir.join(disk::STATE).display())))?;
    // The log is cut only below what the state file holds, and the state file holds only what is durable in the log. Otherwise they do not belong together.
    let wrong = if log.purged() > applied.log_id {
        Some(format!("older than {} allows (state at {:?}, log cut at {:?})", disk::LOG, applied.log_id, log.purged()))
    } else if log.last() < applied.log_id {
        Some(format!("ahead of {} (state at {:?}, log ends at {:?})", disk::LOG, applied.log_id, log.last()))
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(Error::Failed(format!(
            "{} in {} is {wrong}: one of them was replaced or damaged; restore both from the same backup",
            disk::STATE,
            dir.display()
        )));
    }
    Ok(Opened { log, writer, state, applied, root })
}

async fn start_raft(log: LogStore, machine: Machine) -> Result<Raft, Error> {
    let config = openraft::Config {
        cluster_name: "coracle".into(),
        heartbeat_interval: 500,
        election_timeout_min: 1500,
        election_timeout_max: 3000,
        // Alone there is no one to send heartbeats to and no one to lose leadership to: nothing ticks while idle.
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        enable_leader_restore: Some(true),
        // The flush says when; what it wrote is the snapshot, and the log is cut just below it.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        ..Default::default()
    };
    let config = config.validate().map_err(|e| Error::Failed(format!("Raft's configuration: {e}")))?;
    let raft =
        Raft::new(NODE, Arc::new(config), NoNetwork, log, machine).await.map_err(|e| Error::Failed(format!("starting Raft from the log: {e}")))?;
    match lead(&raft).await {
        Ok(()) => Ok(raft),
        Err(error) => {
            let _ = raft.shutdown().await;
            Err(error)
        }
    }
}

/// Begins the cluster if there is none, and leads it with everything in its log applied.
async fn lead(raft: &Raft) -> Result<(), Error> {
    let tried = |what: &str, error: &dyn Display| Error::Failed(format!("{what}: {error}"));
    if raft.is_initialized().await.map_err(|e| tried("reading Raft's membership", &e))? {
        if !raft.is_leader() {
            raft.trigger().elect(false).await.map_err(|e| tried("electing the only member", &e))?;
        }
    } else {
        let members = BTreeMap::from([(NODE, Node::default())]);
        raft.initialize(members).await.map_err(|e| tried("beginning a cluster of one", &e))?;
    }
    raft.wait(Some(LEAD_WITHIN)).current_leader(NODE, "the only member leads").await.map_err(|e| tried("waiting to lead", &e))?;
    // Committing an entry of this leadership commits, and so applies, everything before it.
    raft.write_blank().await.map_err(|e| tried("applying the log", &e))?;
    Ok(())
}

/// Writes the state behind the log when enough has gathered, and lets Raft cut what was written.
async fn follow(raft: Raft, flush: Arc<Flush>, closed: CancellationToken) {
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = flush.due.notified() => {}
        }
        let flush = flush.clone();
        match tokio::task::spawn_blocking(move || flush.flush(false)).await {
            Ok(Ok(true)) => {
                if let Err(error) = raft.trigger().snapshot().await {
                    tracing::debug!("cutting the log: {error}");
                }
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => return tracing::error!("flushing the state: {error}"),
            Err(error) => return tracing::error!("flushing the state: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
