//! The state machine: applies committed entries in memory, shows them to readers, and leaves the disk to a flush that follows behind.

use super::{Entry, LogId, LogStore, Outcome, StoredMembership, TypeConfig};
use crate::disk::Fatal;
use crate::hub::{Hub, Published};
use crate::record::Applied;
use crate::root::{Refused, Root};
use crate::state_file::{Image, StateFile, Writes};
use crate::{Error, Key, Object, Options, Txn};
use futures::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::time::Instant;

/// Entries applied before readers see them and proposers hear of them.
const RUN: usize = 128;

/// The state file is this far behind at most, then half of it is written. What is behind is also what a restart replays, and so the span in which a watch can
/// be resumed over a restart.
const BEHIND_ENTRIES: usize = 4096;
const BEHIND_BYTES: usize = 4 << 20;

/// What one entry did, for the state file.
struct Step {
    log_id: LogId,
    revision: u64,
    membership: Option<StoredMembership>,
    /// What each changed key holds now. (Not the changes themselves: history alone keeps those alive.)
    writes: Box<[(Key, Option<Arc<Object>>)]>,
    weight: usize,
}

#[derive(Default)]
struct Behind {
    steps: VecDeque<Step>,
    weight: usize,
}

/// What has been applied but is not in the state file, and the writing of it.
pub(crate) struct Flush {
    behind: Mutex<Behind>,
    /// What the file holds; also keeps two flushes apart.
    flushed: Mutex<Applied>,
    file: Arc<StateFile>,
    fatal: Fatal,
    /// Permits a flush when enough is behind.
    pub due: tokio::sync::Notify,
    /// Commits of the state file.
    pub commits: AtomicU64,
}

impl Flush {
    pub fn new(file: Arc<StateFile>, flushed: Applied, fatal: Fatal) -> Arc<Flush> {
        Arc::new(Flush {
            behind: Mutex::default(),
            flushed: Mutex::new(flushed),
            file,
            fatal,
            due: tokio::sync::Notify::new(),
            commits: AtomicU64::new(0),
        })
    }

    fn add(&self, steps: Vec<Step>) {
        let mut behind = self.behind.lock();
        behind.weight += steps.iter().map(|s| s.weight).sum::<usize>();
        behind.steps.extend(steps);
        if behind.steps.len() > BEHIND_ENTRIES || behind.weight > BEHIND_BYTES {
            self.due.notify_one();
        }
    }

    /// Writes the older half of what is behind, or all of it. Blocks. False when nothing was due.
    pub fn flush(&self, all: bool) -> io::Result<bool> {
        let mut flushed = self.flushed.lock();
        let mut writes = Writes::new();
        let mut next = flushed.clone();
        {
            let mut behind = self.behind.lock();
            let due = |b: &Behind| b.steps.len() > BEHIND_ENTRIES / 2 || b.weight > BEHIND_BYTES / 2;
            while all || due(&behind) {
                let Some(step) = behind.steps.pop_front() else { break };
                behind.weight -= step.weight;
                next.log_id = Some(step.log_id);
                next.revision = step.revision;
                next.membership = step.membership.unwrap_or(next.membership);
                writes.extend(step.writes);
            }
        }
        if next.log_id == flushed.log_id {
            return Ok(false);
        }
        if let Err(error) = self.file.write(&writes, &next) {
            self.fatal.die(&format!("writing the state failed: {error}"));
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        *flushed = next;
        Ok(true)
    }

    fn replaced(&self, applied: Applied) {
        *self.flushed.lock() = applied;
        *self.behind.lock() = Behind::default();
    }
}

/// What openraft drives.
pub(crate) struct Machine {
    root: Root,
    applied: Option<LogId>,
    membership: StoredMembership,
    node: u64,
    /// Whether this member is the only voter.
    sole: Arc<AtomicBool>,
    options: Options,
    hub: Arc<Hub>,
    flush: Arc<Flush>,
    log: LogStore,
}

impl Machine {
    /// `root` and `applied` are what the state file holds.
    pub fn new(node: u64, root: Root, applied: Applied, options: Options, hub: Arc<Hub>, flush: Arc<Flush>, log: LogStore) -> Machine {
        let sole = Arc::new(AtomicBool::new(false));
        let machine = Machine { root, applied: applied.log_id, membership: applied.membership, node, sole, options, hub, flush, log };
        machine.note_voters();
        machine
    }

    /// Whether this member is the only voter; kept up to date.
    pub fn sole(&self) -> Arc<AtomicBool> {
        self.sole.clone()
    }

    fn note_voters(&self) {
        let voters: Vec<u64> = self.membership.membership().voter_ids().collect();
        self.sole.store(voters == [self.node], Ordering::Release);
    }

    /// Applies one entry to the working root.
    fn apply_entry(&mut self, entry: &Entry, run: &mut Run) -> Outcome {
        let mut step = Step { log_id: entry.log_id, revision: self.root.revision, membership: None, writes: Box::default(), weight: 64 };
        let outcome = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.note_voters();
                step.membership = Some(self.membership.clone());
                None
            }
            EntryPayload::Normal(proposal) => Some(self.apply_txn(&proposal.0, &mut step, run)),
        };
        self.applied = Some(entry.log_id);
        run.steps.push(step);
        outcome
    }

    fn apply_txn(&mut self, txn: &Txn, step: &mut Step, run: &mut Run) -> Result<crate::Committed, Error> {
        let effect = self.root.apply(txn).map_err(|Refused { op, current }| Error::Precondition { op, current })?;
        if !effect.changes.is_empty() {
            step.revision = self.root.revision;
            step.weight += txn.weight();
            step.writes = effect.changes.iter().filter_map(|change| Some((change.key()?.clone(), change.new.clone()))).collect();
            let changes = effect.changes.into_iter().map(Arc::new).collect();
            run.published.push(Published { revision: self.root.revision, changes });
        }
        Ok(effect.committed)
    }

    /// Readers first, then those who proposed: who was answered finds its own write. Those who watch are woken last, as they are many, and keep nobody waiting.
    fn finish(&mut self, run: &mut Run) {
        let mut wake = Vec::new();
        if !run.published.is_empty() {
            wake = self.hub.publish(std::mem::take(&mut run.published), Arc::new(self.root.clone()), Instant::now());
        }
        for (responder, outcome) in run.answers.drain(..) {
            responder.send(outcome);
        }
        wake.iter().for_each(|inbox| inbox.wake());
        self.flush.add(std::mem::take(&mut run.steps));
    }
}

/// Entries applied together.
#[derive(Default)]
struct Run {
    published: Vec<Published>,
    steps: Vec<Step>,
    answers: Vec<(ApplyResponder<TypeConfig>, Outcome)>,
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut run = Run::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(&entry, &mut run);
            run.answers.extend(responder.map(|responder| (responder, outcome)));
            if run.steps.len() >= RUN {
                self.finish(&mut run);
            }
        }
        self.finish(&mut run);
        if let Some(applied) = &self.applied {
            self.log.applied_below(applied.index + 1);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Asked by force, it must have all that was applied; otherwise it is what the last flush wrote.
        Some(Builder { flush: self.flush.clone(), all: force })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { flush: self.flush.clone(), all: false }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: Image) -> io::Result<()> {
        let root = snapshot.load()?;
        let applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone(), revision: root.revision };
        if let Err(error) = self.flush.file.replace(&root, &applied) {
            self.flush.fatal.die(&format!("writing the state failed: {error}"));
            return Err(error);
        }
        self.applied = applied.log_id;
        self.membership = applied.membership.clone();
        self.flush.replaced(applied);
        self.note_voters();
        self.root = root;
        self.hub.reset(Arc::new(self.root.clone()), self.options.history_age, self.options.history_bytes);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Image>>> {
        let image = self.flush.file.image()?;
        Ok(image.applied.log_id.is_some().then(|| snapshot(image)))
    }
}

fn snapshot(image: Image) -> SnapshotOf<TypeConfig, Image> {
    let meta = SnapshotMeta { last_log_id: image.applied.log_id, last_membership: image.applied.membership.clone() };
    openraft::Snapshot { meta, snapshot: image }
}

/// Takes the state file as it is.
pub(crate) struct Builder {
    flush: Arc<Flush>,
    all: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Image>> {
        if self.all {
            self.flush.flush(true)?;
        }
        Ok(snapshot(self.flush.file.image()?))
    }
}
