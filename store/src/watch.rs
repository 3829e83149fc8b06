//! Watching: who wants to know what, and an inbox for each.
//!
//! A watcher sits in one bucket of the index, under the narrowest thing its scope names, so a change touches only the watchers it may concern. Inboxes hold
//! weak references: history alone owns changes, and a watcher so slow that history forgot what it had not read finds that out at its next read (Gone). So
//! a slow watcher costs pointers, never documents. Rejected: a cursor into a common ring (every wake-up would scan what other watchers wanted), and channels that
//! own what they carry (a stuck client pins memory).

use crate::hub::Hub;
use crate::{Change, Error, Object};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Most undelivered changes of one watcher.
const MAX_PENDING: usize = 1 << 16;
/// Most changes returned at once.
const MAX_BATCH: usize = 1024;

/// What a watcher is woken for. Indexed, so that a watcher of one namespace, name or node costs nothing for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// None watches every resource (garbage collector).
    pub resource: Option<Arc<str>>,
    /// None: every namespace.
    pub namespace: Option<Arc<str>>,
    /// None: every name.
    pub name: Option<Arc<str>>,
    /// An indexed field that must be equal in the previous or the new object, such as ("spec.nodeName", "n1").
    pub field: Option<(Arc<str>, Arc<str>)>,
}

impl Scope {
    /// All objects of one resource.
    pub fn resource(resource: impl Into<Arc<str>>) -> Scope {
        Scope { resource: Some(resource.into()), ..Scope::default() }
    }

    /// Whether a change concerns it.
    pub fn matches(&self, change: &Change) -> bool {
        let Some(key) = change.key() else { return false };
        let part = |want: &Option<Arc<str>>, have: &Arc<str>| want.as_ref().is_none_or(|w| w == have);
        let has = |o: &Option<Arc<Object>>, path: &str, value: &str| o.as_ref().is_some_and(|o| o.meta.field(path) == Some(value));
        part(&self.resource, &key.resource)
            && part(&self.namespace, &key.namespace)
            && part(&self.name, &key.name)
            && self.field.as_ref().is_none_or(|(path, value)| has(&change.prev, path, value) || has(&change.new, path, value))
    }

    /// The bucket a scope sits in: a hash of the narrowest thing it names. (Two things in one bucket only cost a comparison.)
    fn bucket(&self) -> u64 {
        match (&self.resource, &self.field, &self.namespace, &self.name) {
            (Some(resource), Some((path, value)), _, _) => bucket(&[resource, "field", path, value]),
            (Some(resource), None, Some(namespace), Some(name)) => bucket(&[resource, "one", namespace, name]),
            (Some(resource), None, Some(namespace), None) => bucket(&[resource, "namespace", namespace]),
            (Some(resource), None, None, Some(name)) => bucket(&[resource, "name", name]),
            (Some(resource), None, None, None) => bucket(&[resource]),
            (None, ..) => bucket(&[]),
        }
    }
}

fn bucket(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Every bucket whose watchers a change may concern, each once.
fn buckets(change: &Change) -> Vec<u64> {
    let Some(key) = change.key() else { return Vec::new() };
    let (resource, namespace, name) = (&*key.resource, &*key.namespace, &*key.name);
    let mut found = vec![
        bucket(&[]),
        bucket(&[resource]),
        bucket(&[resource, "namespace", namespace]),
        bucket(&[resource, "one", namespace, name]),
        bucket(&[resource, "name", name]),
    ];
    for object in [&change.prev, &change.new].into_iter().flatten() {
        found.extend(object.meta.fields.iter().map(|(path, value)| bucket(&[resource, "field", path, value])));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[derive(Default)]
struct Pending {
    changes: VecDeque<(u64, Weak<Change>)>,
    /// Set once; what was missed, or None when the store closed.
    ended: Option<Option<u64>>,
}

/// A watcher's side that the hub sees.
pub(crate) struct Inbox {
    scope: Scope,
    pending: Mutex<Pending>,
    notify: Notify,
}

impl Inbox {
    pub fn new(scope: Scope) -> Arc<Self> {
        Arc::new(Self { scope, pending: Mutex::default(), notify: Notify::new() })
    }

    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Takes a change that matches. True when its watcher is to be [woken](Self::wake): one that has not read what came before looks again by itself.
    pub fn push(&self, change: &Arc<Change>) -> bool {
        let mut pending = self.pending.lock();
        if pending.ended.is_some() {
            return false;
        }
        let first = pending.changes.is_empty();
        if pending.changes.len() >= MAX_PENDING {
            pending.changes = VecDeque::new();
            pending.ended = Some(Some(change.revision));
        } else {
            pending.changes.push_back((change.revision, Arc::downgrade(change)));
        }
        first
    }

    /// Tells its watcher to look.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// No more changes: the watcher missed `Some(revision)`, or (None) the store closed.
    fn end(&self, missed: Option<u64>) {
        let mut pending = self.pending.lock();
        if missed.is_some() {
            pending.changes = VecDeque::new();
        }
        pending.ended.get_or_insert(missed);
        drop(pending);
        self.wake();
    }
}

/// All inboxes by bucket.
#[derive(Default)]
pub(crate) struct Index {
    buckets: HashMap<u64, Vec<Arc<Inbox>>>,
}

impl Index {
    pub fn add(&mut self, inbox: Arc<Inbox>) {
        self.buckets.entry(inbox.scope.bucket()).or_default().push(inbox);
    }

    pub fn remove(&mut self, inbox: &Arc<Inbox>) {
        let bucket = inbox.scope.bucket();
        if let Some(list) = self.buckets.get_mut(&bucket) {
            list.retain(|it| !Arc::ptr_eq(it, inbox));
            if list.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// Hands a change to everyone it concerns. Whom to wake for it is added to `wake`.
    pub fn deliver(&self, change: &Arc<Change>, wake: &mut Vec<Arc<Inbox>>) {
        if self.buckets.is_empty() {
            return;
        }
        for bucket in buckets(change) {
            let matching = self.buckets.get(&bucket).into_iter().flatten().filter(|inbox| inbox.scope.matches(change));
            wake.extend(matching.filter(|inbox| inbox.push(change)).cloned());
        }
    }

    pub fn end_all(&self, missed: Option<u64>) {
        self.buckets.values().flatten().for_each(|inbox| inbox.end(missed));
    }

    pub fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }
}

/// A stream of changes; ends its subscription when dropped.
pub struct Watch {
    inbox: Arc<Inbox>,
    hub: Arc<Hub>,
    progress: u64,
}

impl Watch {
    pub(crate) fn new(inbox: Arc<Inbox>, hub: Arc<Hub>, after: u64) -> Watch {
        Watch { inbox, hub, progress: after }
    }

    /// What it watches.
    pub fn scope(&self) -> &Scope {
        &self.inbox.scope
    }

    /// Next batch of matching changes, in revision order, never empty. `Gone` when this watcher fell too far behind, `Closed` at shutdown. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Error> {
        loop {
            if let Some(batch) = self.take()? {
                return Ok(batch);
            }
            // A permit is kept when the push came between the look and the wait.
            self.inbox.notify.notified().await;
        }
    }

    /// What has arrived already, if anything; never waits.
    pub fn take(&mut self) -> Result<Option<Vec<Arc<Change>>>, Error> {
        let mut pending = self.inbox.pending.lock();
        let count = pending.changes.len().min(MAX_BATCH);
        if count == 0 {
            return match pending.ended {
                None => Ok(None),
                Some(None) => Err(Error::Closed),
                Some(Some(wanted)) => {
                    drop(pending);
                    Err(Error::Gone { wanted, oldest: self.hub.floor(self.inbox.scope.resource.as_deref()) })
                }
            };
        }
        let mut batch = Vec::with_capacity(count);
        let mut missed = None;
        for (revision, change) in pending.changes.drain(..count) {
            match change.upgrade() {
                Some(change) => batch.push(change),
                None => missed = missed.or(Some(revision)),
            }
        }
        if let Some(wanted) = missed {
            pending.changes = VecDeque::new();
            pending.ended = Some(Some(wanted));
            drop(pending);
            return Err(Error::Gone { wanted, oldest: self.hub.floor(self.inbox.scope.resource.as_deref()) });
        }
        if pending.changes.is_empty() {
            pending.changes.shrink_to(64);
        }
        self.progress = batch.last().map_or(self.progress, |change| change.revision);
        Ok(Some(batch))
    }

    /// Every change up to this revision has been returned by `next` (bookmarks).
    pub fn progress(&self) -> u64 {
        // In this order: what is published has been pushed before, so an inbox found empty now had nothing up to it.
        let published = self.hub.published();
        let pending = self.inbox.pending.lock();
        match pending.changes.front() {
            Some((revision, _)) => self.progress.max(revision.saturating_sub(1)),
            None if pending.ended.is_some() => self.progress,
            None => self.progress.max(published),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.unsubscribe(&self.inbox);
    }
}
