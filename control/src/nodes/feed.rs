//! The feed of one subscription: store watches in, [`Feed`] messages out.

use super::slice::Slice;
use coracle_link::{Error as LinkError, SendHalf, protocol::Feed};
use coracle_store::{Change, Error, Key, Scope, Store, Watch};
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
    stream::FuturesUnordered,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// A node whose slice is quiet is told the revision this often, so that what it would resume from is still held.
const MARK: Duration = Duration::from_secs(120);

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

    fn add(&mut self, store: &Store, key: &Key) {
        let scope = Scope { namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), ..Scope::resource(key.resource.clone()) };
        let handle = self.wait(store.list_watch(scope).1);
        self.of.insert(key.clone(), handle);
    }

    fn drop_of(&mut self, key: &Key) {
        if let Some(handle) = self.of.remove(key) {
            handle.abort();
        }
    }

    /// What woke it, and the watch waits again.
    fn take(&mut self, woken: Woken, changed: &mut BTreeSet<Key>) -> Result<(), Error> {
        let Ok((watch, changes)) = woken else { return Ok(()) };
        changed.extend(changes?.iter().filter_map(|c| c.key().cloned()));
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
async fn follow(store: &Store, epoch: u64, slice: &mut Slice, out: &mut dyn SendHalf) -> Result<Error, LinkError> {
    let mut watches = Watches::default();
    // Watches before the snapshot, so that nothing falls between.
    for scope in slice.scopes() {
        watches.wait(store.list_watch(scope).1);
    }
    let before: Vec<Key> = slice.wanted().cloned().collect();
    for key in &before {
        watches.add(store, key);
    }
    let now = store.snapshot();
    let mut changed = slice.everything(&now);
    let mut upto = now.revision();
    let mut marked = None;
    loop {
        step(store, slice, &mut watches, &changed, out).await?;
        if marked != Some(upto) {
            out.send(Feed::Synced { epoch, revision: upto }.encode()).await?;
            marked = Some(upto);
        }
        changed.clear();
        let woken = tokio::select! {
            woken = watches.waiting.next() => woken,
            () = tokio::time::sleep(MARK) => None,
        };
        // Once a revision counts as applied its changes are in the inboxes, and once those are empty they have been taken from them.
        upto = store.snapshot().revision();
        if let Err(error) = store.applied(upto, MARK).await {
            return Ok(error);
        }
        if let Some(woken) = woken
            && let Err(error) = watches.take(woken, &mut changed)
        {
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

/// Tells the node what became of the changed keys.
async fn step(store: &Store, slice: &mut Slice, watches: &mut Watches, changed: &BTreeSet<Key>, out: &mut dyn SendHalf) -> Result<(), LinkError> {
    if changed.is_empty() {
        return Ok(());
    }
    let named = slice.pods(&store.snapshot(), changed);
    for key in &named.added {
        watches.add(store, key);
    }
    for key in &named.gone {
        watches.drop_of(key);
    }
    // Newly named things are looked at only now that they are watched.
    let snapshot = store.snapshot();
    let keys = changed.iter().cloned().chain(named.added).chain(named.gone);
    for message in slice.tell(&snapshot, keys) {
        out.send(message.encode()).await?;
    }
    Ok(())
}
