//! The feed of one subscription: store watches in, [`Feed`] messages out.

use super::slice::Slice;
use coracle_link::{Error as LinkError, SendHalf, protocol::Feed};
use coracle_store::{Change, Error, Key, Scope, Snapshot, Store, Watch};
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
    stream::FuturesUnordered,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// A node whose slice is quiet is told the revision this often, so that what it would resume from is still held.
const MARK: Duration = Duration::from_secs(120);

/// What to look at again, and the newest revision at which it is known to have changed.
type Changed = BTreeMap<Key, u64>;
type Woken = Result<(Watch, Result<Vec<Arc<Change>>, Error>), Aborted>;

/// Watches of one feed. Any number, each waiting on its own; those of things that pods name come and go.
#[derive(Default)]
struct Watches {
    waiting: FuturesUnordered<BoxFuture<'static, Woken>>,
    of: HashMap<Key, AbortHandle>,
}

impl Watches {
    fn wait(&mut self, mut watch: Watch) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        let next = async move {
            let got = watch.next().await;
            (watch, got)
        };
        self.waiting.push(Abortable::new(next, registration).boxed());
        handle
    }

    /// Watches one thing, from what it is at `revision` on.
    fn add(&mut self, store: &Store, key: &Key, revision: u64) -> Result<(), Error> {
        let scope = Scope { namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), ..Scope::resource(key.resource.clone()) };
        let handle = self.wait(store.watch(scope, revision)?);
        self.of.insert(key.clone(), handle);
        Ok(())
    }

    fn drop_of(&mut self, key: &Key) {
        if let Some(handle) = self.of.remove(key) {
            handle.abort();
        }
    }

    /// What woke it, and the watch waits again.
    fn take(&mut self, woken: Woken, changed: &mut Changed) -> Result<(), Error> {
        let Ok((watch, changes)) = woken else { return Ok(()) };
        for change in changes? {
            if let Some(key) = change.key() {
                let newest = changed.entry(key.clone()).or_default();
                *newest = change.revision.max(*newest);
            }
        }
        let scope = watch.scope();
        let named = match (&scope.resource, &scope.namespace, &scope.name) {
            (Some(r), Some(ns), Some(name)) => Some(Key::new(r.clone(), ns.clone(), name.clone())),
            _ => None,
        };
        match named {
            // it was given up while it was on its way here
            Some(key) if !self.of.contains_key(&key) => {}
            Some(key) => {
                let handle = self.wait(watch);
                // Given up and wanted again in between: the newer watch is one too many.
                if let Some(other) = self.of.insert(key, handle) {
                    other.abort();
                }
            }
            None => {
                self.wait(watch);
            }
        }
        Ok(())
    }
}

/// Runs one subscription until the link or the store ends. `epoch` is the store's; `from` is what the node has.
///
/// # Errors
/// The link's.
pub async fn run(store: &Store, epoch: u64, node: &str, from: (u64, u64), out: &mut dyn SendHalf) -> Result<(), LinkError> {
    let mut slice = Slice::new(node);
    let resumed = (from.0 == epoch).then(|| store.snapshot_at(from.1).ok()).flatten();
    match resumed {
        Some(old) => slice.assume(&old),
        None => out.send(Feed::Reset { epoch }.encode()).await?,
    }
    loop {
        match follow(store, epoch, &mut slice, out).await? {
            Error::Gone { .. } => tracing::info!(node, "the feed fell behind and catches up"),
            Error::Closed => return Ok(()),
            error => {
                tracing::warn!(node, %error, "the feed ended");
                return Ok(());
            }
        }
    }
}

/// Catches up with the present and follows, until a watch ends.
///
/// What the node has when it is told a revision is exactly its slice at that revision, since that is what it is taken to have when it resumes: had it
/// something newer, the removal of that would never be sent.
async fn follow(store: &Store, epoch: u64, slice: &mut Slice, out: &mut dyn SendHalf) -> Result<Error, LinkError> {
    let mut watches = Watches::default();
    // Watches before the snapshot, so that nothing falls between.
    for scope in slice.scopes() {
        watches.wait(store.list_watch(scope).1);
    }
    let mut now = store.snapshot();
    for key in slice.wanted() {
        if let Err(error) = watches.add(store, key, now.revision()) {
            return Ok(error);
        }
    }
    let mut changed: Changed = slice.everything(&now).into_iter().map(|key| (key, 0)).collect();
    let mut marked = None;
    loop {
        if !changed.is_empty()
            && let Err(error) = step(store, &now, slice, &mut watches, &changed, out).await?
        {
            return Ok(error);
        }
        let upto = now.revision();
        if marked != Some(upto) {
            out.send(Feed::Synced { epoch, revision: upto }.encode()).await?;
            marked = Some(upto);
        }
        changed.retain(|_, newest| *newest > upto);
        if changed.is_empty() {
            let woken = tokio::select! {
                woken = watches.waiting.next() => woken,
                () = tokio::time::sleep(MARK) => None,
            };
            if let Some(woken) = woken
                && let Err(error) = watches.take(woken, &mut changed)
            {
                return Ok(error);
            }
        }
        // Once a revision counts as applied its changes are in the inboxes, and once those are empty they have been taken from them.
        now = store.snapshot();
        if let Err(error) = store.applied(now.revision(), MARK).await {
            return Ok(error);
        }
        // without tokio's budget, which would say "pending" when there is more
        let drained = tokio::task::unconstrained(async {
            while let Some(Some(woken)) = watches.waiting.next().now_or_never() {
                watches.take(woken, &mut changed)?;
            }
            Ok::<_, Error>(())
        });
        if let Err(error) = drained.await {
            return Ok(error);
        }
    }
}

/// Tells the node what became of the changed keys, as of `now`. The inner error is the store's.
async fn step(
    store: &Store,
    now: &Snapshot,
    slice: &mut Slice,
    watches: &mut Watches,
    changed: &Changed,
    out: &mut dyn SendHalf,
) -> Result<Result<(), Error>, LinkError> {
    let named = slice.pods(now, changed.keys());
    for key in &named.added {
        if let Err(error) = watches.add(store, key, now.revision()) {
            return Ok(Err(error));
        }
    }
    for key in &named.gone {
        watches.drop_of(key);
    }
    let keys = changed.keys().cloned().chain(named.added).chain(named.gone);
    for message in slice.tell(now, keys) {
        out.send(message.encode()).await?;
    }
    Ok(Ok(()))
}
