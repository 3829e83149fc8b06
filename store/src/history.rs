//! The recent past: every change of the last minutes and megabytes, and from it any revision in that span.
//!
//! A changed path of the maps costs kilobytes per write, a change costs little more than the replaced document. So roots are kept at checkpoints, one every
//! [`CHECKPOINT`] entries, and a revision between two of them is the later one with the changes after it taken back, which is exact. Rejected: a root kept for
//! every entry (the same answers for many times the memory).

use crate::root::Root;
use crate::{Change, Error};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Entries between two kept roots.
const CHECKPOINT: usize = 64;
/// What an entry is charged beside its documents.
const ENTRY_WEIGHT: usize = 256;
/// What a kept root is charged: the paths that changed since the one before.
const ROOT_WEIGHT: usize = 64 << 10;

struct Entry {
    revision: u64,
    changes: Box<[Arc<Change>]>,
    /// The state at this revision.
    root: Option<Arc<Root>>,
    at: Instant,
    weight: usize,
}

/// Changes in revision order, bounded in bytes and age; every revision after the floor has exactly one entry.
pub(crate) struct History {
    entries: VecDeque<Entry>,
    current: Arc<Root>,
    /// All changes after this revision are held.
    floor: u64,
    /// Where a resource's own floor is above the one it began with.
    floors: HashMap<Arc<str>, u64>,
    /// The floor of resources that are not in `floors`.
    base: u64,
    weight: usize,
    since_root: usize,
    max_age: Duration,
    max_weight: usize,
}

impl History {
    pub fn new(current: Arc<Root>, max_age: Duration, max_weight: usize) -> Self {
        let floor = current.revision;
        Self { entries: VecDeque::new(), current, floor, floors: HashMap::new(), base: floor, weight: 0, since_root: 0, max_age, max_weight }
    }

    pub fn current(&self) -> &Arc<Root> {
        &self.current
    }

    /// The oldest revision whose state, and the changes after which, are all held.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The oldest revision after which all changes of a resource are held: below the common floor for resources that have been quiet.
    pub fn floor_of(&self, resource: Option<&str>) -> u64 {
        match resource {
            None => self.floor,
            Some(resource) => self.floors.get(resource).copied().unwrap_or(self.base),
        }
    }

    /// The changes of one entry; `push` them in revision order, then `advance` to the root after the last.
    pub fn push(&mut self, revision: u64, changes: Box<[Arc<Change>]>, at: Instant) {
        let weight = ENTRY_WEIGHT + changes.iter().map(|c| 128 + c.prev.as_ref().map_or(0, |o| o.weight())).sum::<usize>();
        self.weight += weight;
        self.since_root += 1;
        self.entries.push_back(Entry { revision, changes, root: None, at, weight });
    }

    /// Makes `root` the current state, remembers it when a checkpoint is due, and forgets what is too old or too much.
    pub fn advance(&mut self, root: Arc<Root>, now: Instant) {
        if self.since_root >= CHECKPOINT
            && let Some(last) = self.entries.back_mut()
            && last.revision == root.revision
        {
            last.root = Some(root.clone());
            last.weight += ROOT_WEIGHT;
            self.weight += ROOT_WEIGHT;
            self.since_root = 0;
        }
        self.current = root;
        while self.entries.len() > 1
            && self.entries.front().is_some_and(|e| self.weight > self.max_weight || now.saturating_duration_since(e.at) > self.max_age)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.weight -= entry.weight;
        self.floor = entry.revision;
        for key in entry.changes.iter().filter_map(|c| c.key()) {
            match self.floors.get_mut(&*key.resource) {
                Some(floor) => *floor = entry.revision,
                None => {
                    self.floors.insert(key.resource.clone(), entry.revision);
                }
            }
        }
    }

    fn gone(&self, wanted: u64, oldest: u64) -> Error {
        Error::Gone { wanted, oldest }
    }

    /// The exact state at a revision.
    pub fn at(&self, revision: u64) -> Result<Arc<Root>, Error> {
        if revision == self.current.revision {
            return Ok(self.current.clone());
        }
        if revision < self.floor || revision > self.current.revision {
            return Err(self.gone(revision, self.floor));
        }
        let first = self.entries.partition_point(|e| e.revision < revision);
        let kept = (first..self.entries.len()).find(|&i| self.entries[i].root.is_some());
        let (base, end) = match kept {
            Some(i) => (self.entries[i].root.as_ref().unwrap_or(&self.current), i + 1),
            None => (&self.current, self.entries.len()),
        };
        if base.revision == revision {
            return Ok(base.clone());
        }
        let mut root = (**base).clone();
        for entry in self.entries.range(first..end).rev().take_while(|e| e.revision > revision) {
            entry.changes.iter().rev().for_each(|change| root.undo(change));
        }
        root.revision = revision;
        Ok(Arc::new(root))
    }

    /// The changes after a revision, oldest first; all of them are there for `resource` (None: for every resource), or it is an error.
    pub fn after(&self, revision: u64, resource: Option<&str>) -> Result<impl Iterator<Item = &Arc<Change>>, Error> {
        let oldest = self.floor_of(resource);
        if revision < oldest || revision > self.current.revision {
            return Err(self.gone(revision, oldest));
        }
        let first = self.entries.partition_point(|e| e.revision <= revision);
        Ok(self.entries.range(first..).flat_map(|e| e.changes.iter()))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Expect, Key, Op, Txn};
    use bytes::Bytes;

    fn put(resource: &str, name: &str, size: usize) -> Txn {
        let draft = Draft { json: Bytes::from(vec![b' '; size]), hole: 0, meta: Default::default() };
        Txn { ops: vec![Op::Put { key: Key::new(resource, "ns", name), expect: Expect::Any, draft }] }
    }

    fn step(history: &mut History, root: &mut Root, txn: &Txn, at: Instant) {
        let effect = root.apply(txn).unwrap_or_else(|r| panic!("{r:?}"));
        if !effect.changes.is_empty() {
            history.push(root.revision, effect.changes.into_iter().map(Arc::new).collect(), at);
            history.advance(Arc::new(root.clone()), at);
        }
    }

    #[test]
    fn bounded_in_bytes_with_a_floor_for_each_resource() {
        let mut root = Root::default();
        let mut history = History::new(Arc::new(root.clone()), Duration::from_secs(60), 100_000);
        let now = Instant::now();
        step(&mut history, &mut root, &put("quiet", "a", 10), now);
        for i in 0..300 {
            step(&mut history, &mut root, &put("busy", "b", 1000 + i), now);
        }
        assert!(history.len() < 100, "{}", history.len());
        assert!(history.floor() > 1);
        assert!(matches!(history.at(1), Err(Error::Gone { wanted: 1, oldest }) if oldest == history.floor()));
        assert!(history.after(1, Some("busy")).is_err());
        assert!(history.after(1, None).is_err());
        // The one change of `quiet` was forgotten at revision 1, everything since is known to be nothing.
        assert_eq!(history.floor_of(Some("quiet")), 1);
        assert!(history.after(1, Some("quiet")).is_ok());
        assert!(history.after(0, Some("quiet")).is_err());
        assert!(history.after(0, Some("never-written")).is_ok());
        assert!(history.after(root.revision + 1, None).is_err());
    }

    #[test]
    fn bounded_in_age_but_the_last_entry_stays() {
        let mut root = Root::default();
        let mut history = History::new(Arc::new(root.clone()), Duration::from_secs(60), 1 << 20);
        let start = Instant::now();
        for i in 0..10 {
            step(&mut history, &mut root, &put("r", "a", i), start + Duration::from_secs(i as u64));
        }
        assert_eq!(history.len(), 10);
        step(&mut history, &mut root, &put("r", "a", 99), start + Duration::from_secs(65));
        assert_eq!(history.len(), 6);
        step(&mut history, &mut root, &put("r", "a", 98), start + Duration::from_secs(1000));
        assert_eq!(history.len(), 1);
        assert_eq!(history.floor(), root.revision - 1);
    }

    #[test]
    fn any_held_revision_is_exact() {
        let mut root = Root::default();
        let mut history = History::new(Arc::new(root.clone()), Duration::from_secs(60), 64 << 20);
        let mut kept = vec![root.clone()];
        let now = Instant::now();
        for i in 0..400usize {
            step(&mut history, &mut root, &put("r", &format!("n{}", i % 7), i), now);
            kept.push(root.clone());
        }
        for want in kept {
            let got = history.at(want.revision).unwrap();
            let list = |r: &Root| r.objects().map(|o| (o.key.clone(), o.revision, o.json.clone())).collect::<Vec<_>>();
            assert_eq!(list(&got), list(&want), "revision {}", want.revision);
            assert_eq!(got.count("r", Some("ns")), want.count("r", Some("ns")));
        }
    }
}
