//! Where the applied state meets its readers: the current root, the recent past, and the watchers, changed together so that no one sees a gap.

use crate::history::History;
use crate::root::Root;
use crate::watch::{Inbox, Index};
use crate::{Change, Error, Scope, Snapshot, Watch};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

struct Inner {
    history: History,
    index: Index,
    closed: bool,
}

/// Shared by the state machine, which publishes, and all readers.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// The root readers get; apart from `inner`, so that reads do not wait for a delivery.
    current: RwLock<Arc<Root>>,
    revision: tokio::sync::watch::Sender<u64>,
}

/// One applied entry that changed something.
pub(crate) struct Published {
    pub revision: u64,
    pub changes: Box<[Arc<Change>]>,
}

impl Hub {
    pub fn new(root: Arc<Root>, max_age: Duration, max_weight: usize) -> Arc<Hub> {
        let revision = tokio::sync::watch::Sender::new(root.revision);
        let history = History::new(root.clone(), max_age, max_weight);
        Arc::new(Hub { inner: Mutex::new(Inner { history, index: Index::default(), closed: false }), current: RwLock::new(root), revision })
    }

    /// Shows the readers what a run of entries did; `root` is the state after the last. Returns the watchers that are to be woken for it.
    #[must_use]
    pub fn publish(&self, entries: Vec<Published>, root: Arc<Root>, now: Instant) -> Vec<Arc<Inbox>> {
        let revision = root.revision;
        let mut wake = Vec::new();
        {
            let mut inner = self.inner.lock();
            // Before anybody is woken: who sees a change must find it in a snapshot too.
            *self.current.write() = root.clone();
            for entry in entries {
                entry.changes.iter().for_each(|change| inner.index.deliver(change, &mut wake));
                inner.history.push(entry.revision, entry.changes, now);
            }
            inner.history.advance(root, now);
        }
        self.revision.send_replace(revision);
        wake
    }

    /// Begins anew from another state (a snapshot was installed): the past is not known any more.
    pub fn reset(&self, root: Arc<Root>, max_age: Duration, max_weight: usize) {
        let revision = root.revision;
        {
            let mut inner = self.inner.lock();
            inner.index.end_all(Some(revision));
            *self.current.write() = root.clone();
            inner.history = History::new(root, max_age, max_weight);
        }
        self.revision.send_replace(revision);
    }

    pub fn snapshot(&self) -> Snapshot {
        self.current.read().clone().into()
    }

    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Error> {
        Ok(self.inner.lock().history.at(revision)?.into())
    }

    pub fn published(&self) -> u64 {
        *self.revision.borrow()
    }

    pub fn floor(&self, resource: Option<&str>) -> u64 {
        self.inner.lock().history.floor_of(resource)
    }

    pub fn oldest(&self) -> u64 {
        self.inner.lock().history.floor()
    }

    pub fn revisions(&self) -> tokio::sync::watch::Receiver<u64> {
        self.revision.subscribe()
    }

    pub fn watch(self: &Arc<Self>, scope: Scope, after: u64) -> Result<Watch, Error> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Error::Closed);
        }
        let inbox = Inbox::new(scope);
        for change in inner.history.after(after, inbox.scope().resource.as_deref())?.filter(|change| inbox.scope().matches(change)) {
            inbox.push(change);
        }
        inner.index.add(inbox.clone());
        Ok(Watch::new(inbox, self.clone(), after))
    }

    pub fn list_watch(self: &Arc<Self>, scope: Scope) -> (Snapshot, Watch) {
        let mut inner = self.inner.lock();
        let root = inner.history.current().clone();
        let inbox = Inbox::new(scope);
        inner.index.add(inbox.clone());
        if inner.closed {
            inner.index.end_all(None);
        }
        let revision = root.revision;
        (root.into(), Watch::new(inbox, self.clone(), revision))
    }

    pub fn unsubscribe(&self, inbox: &Arc<Inbox>) {
        self.inner.lock().index.remove(inbox);
    }

    pub fn watchers(&self) -> usize {
        self.inner.lock().index.len()
    }

    /// Watchers end after what they have received.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.index.end_all(None);
    }
}
