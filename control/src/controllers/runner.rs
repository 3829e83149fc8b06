//! Runs all controllers: one watch over everything feeds their queues, one task a controller works its queue off.
//!
//! There are no informer caches: the store's snapshot is the cache, and it is never behind this process' own writes, so the
//! expectations of client-go's controllers (which bridge a stale cache) are not needed: a key runs once at a time and sees all that
//! its last run wrote. A watch per controller and resource was rejected: one watch for all is one wake-up a write, and the garbage
//! collector needs every resource anyway.

use super::queue::{Next, Queue};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{Tasks, telemetry};
use coracle_store::{Error, Key, Object, Scope, Snapshot, Store};
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long runs in progress may go on after cancellation.
const DRAIN: Duration = Duration::from_secs(2);

/// A key that gathers changes rests no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// One changed object, and the state after it.
pub struct Event<'a> {
    /// Resource id of the object.
    pub resource: &'a str,
    /// The object before; None when it was created.
    pub prev: Option<&'a Arc<Object>>,
    /// The object now; None when it was deleted.
    pub new: Option<&'a Arc<Object>>,
    /// A state that contains this change.
    pub snapshot: &'a Snapshot,
}

impl Event<'_> {
    /// The key of the object.
    pub fn key(&self) -> Option<&Key> {
        self.new.or(self.prev).map(|object| &object.key)
    }

    /// Both versions, where there are two; only the new one where labels and owners, by which objects find each other, are the same.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Object>> {
        let moved = |prev: &&Arc<Object>| self.new.is_none_or(|new| prev.meta.labels != new.meta.labels || prev.meta.owners != new.meta.owners);
        self.prev.filter(moved).into_iter().chain(self.new)
    }
}

/// A controller: which keys a change concerns, and what is to be done about a key.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Kubernetes' name of it, such as `deployment-controller`.
    fn name(&self) -> &'static str;

    /// How many keys are worked on at once.
    fn concurrency(&self) -> usize {
        16
    }

    /// Adds the keys that a change concerns. Called for every change in the cluster, so it must first look at the resource.
    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>);

    /// Adds every key there is, at the start and after a gap in the watch.
    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>);

    /// Brings one key closer to what it should be.
    ///
    /// # Errors
    /// Any failure: the key is tried again, later each time.
    async fn reconcile(&self, key: &Key) -> Result<Next, Status>;
}

/// Adds the keys of all objects of a resource.
pub fn every(snapshot: &Snapshot, resource: &str, keys: &mut Vec<Key>) {
    keys.extend(snapshot.range(resource, None, None).map(|object| object.key.clone()));
}

struct Actor {
    controller: Box<dyn Controller>,
    queue: Mutex<Queue<Key>>,
    told: telemetry::Queue,
    wake: Notify,
}

impl Actor {
    fn add(&self, keys: &mut Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        let now = Instant::now();
        self.told.adds.inc_by(keys.len() as u64);
        let mut queue = self.queue.lock();
        for key in keys.drain(..) {
            queue.add(key, now);
        }
        self.told.depth.set(queue.ready() as i64);
        drop(queue);
        self.wake.notify_one();
    }
}

/// Starts the controllers; they end with the set of tasks.
pub fn start(store: &Store, told: &telemetry::Queues, controllers: Vec<Box<dyn Controller>>, tasks: &Tasks) {
    let actor = |controller: Box<dyn Controller>| {
        let told = told.of(controller.name());
        Actor { controller, queue: Mutex::new(Queue::default()), told, wake: Notify::new() }
    };
    let actors: Arc<[Actor]> = controllers.into_iter().map(actor).collect();
    tasks.spawn("controllers' watch", dispatch(store.clone(), Arc::clone(&actors)));
    for index in 0..actors.len() {
        let (actors, cancel) = (Arc::clone(&actors), tasks.token().clone());
        let Some(name) = actors.get(index).map(|actor| actor.controller.name()) else { continue };
        tasks.spawn_draining(name, async move {
            if let Some(actor) = actors.get(index) {
                work(actor, cancel).await;
            }
        });
    }
}

async fn dispatch(store: Store, actors: Arc<[Actor]>) {
    let scope = Scope { resource: None, namespace: None, name: None, field: None };
    let mut keys = Vec::new();
    loop {
        let (snapshot, mut watch) = store.list_watch(scope.clone());
        for actor in actors.iter() {
            actor.controller.all(&snapshot, &mut keys);
            actor.add(&mut keys);
        }
        drop(snapshot);
        loop {
            let changes = match watch.next().await {
                Ok(changes) => changes,
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "controllers: the watch broke off; looking at everything again");
                    break;
                }
            };
            let snapshot = store.snapshot();
            for actor in actors.iter() {
                for change in &changes {
                    let (prev, new) = (change.prev.as_ref(), change.new.as_ref());
                    if let Some(object) = new.or(prev) {
                        let event = Event { resource: &object.key.resource, prev, new, snapshot: &snapshot };
                        actor.controller.route(&event, &mut keys);
                    }
                }
                actor.add(&mut keys);
            }
        }
    }
}

async fn work(actor: &Actor, cancel: CancellationToken) {
    let name = actor.controller.name();
    let mut running = FuturesUnordered::new();
    loop {
        let due = {
            let mut queue = actor.queue.lock();
            while running.len() < actor.controller.concurrency() {
                let Some(key) = queue.take(Instant::now()) else { break };
                running.push(async move {
                    let began = Instant::now();
                    let result = actor.controller.reconcile(&key).await;
                    (key, result, began.elapsed())
                });
            }
            actor.told.depth.set(queue.ready() as i64);
            if running.len() < actor.controller.concurrency() { queue.next_due() } else { None }
        };
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some((key, result, took)) = running.next(), if !running.is_empty() => finish(actor, &key, result, took),
            () = actor.wake.notified() => {}
            () = timer => {}
        }
    }
    let drained = tokio::time::timeout(DRAIN, async { while running.next().await.is_some() {} }).await;
    if drained.is_err() {
        let late: Vec<String> = actor.queue.lock().running().map(|key| format!("{}/{}", key.namespace, key.name)).collect();
        tracing::warn!(controller = name, ?late, "still at work when its time to end was over");
    }
}

/// Whether a write was refused because its namespace is being deleted: nothing is left to be done there.
pub fn namespace_ends(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

/// Whether a failure is the normal way to learn of a newer object, or of one that is gone. What goes on is not.
fn expected(status: &Status, failures: u32) -> bool {
    (status.is_conflict() || status.is_not_found()) && failures < 6
}

fn finish(actor: &Actor, key: &Key, result: Result<Next, Status>, took: Duration) {
    let result = match result {
        Err(status) if namespace_ends(&status) => Ok(Next::Idle),
        result => result,
    };
    // A key that gathers changes is at work for a third of the time at most.
    let longer = |rest: Duration| rest.max(took * 2).min(LONGEST_REST);
    let next = match &result {
        Ok(Next::NotBefore(rest)) => Next::NotBefore(longer(*rest)),
        Ok(Next::Between(rest, latest)) => Next::Between(longer(*rest), *latest),
        Ok(next) => *next,
        Err(_) => Next::Retry,
    };
    let failures = actor.queue.lock().done(key, next, Instant::now());
    actor.told.work.observe(took.as_secs_f64());
    let Err(status) = result else { return };
    actor.told.retries.inc();
    if expected(&status, failures) {
        tracing::debug!(controller = actor.controller.name(), namespace = %key.namespace, name = %key.name, error = %status.message, "lost a race");
    } else {
        tracing::warn!(controller = actor.controller.name(), namespace = %key.namespace, name = %key.name, failures, error = %status.message, "failed; will try again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_are_lost_in_silence_but_not_for_ever() {
        let gone = Status::not_found("apps", "deployments", "web");
        let refused = Status::forbidden("apps", "deployments", "web", "no");
        let newer = Status::new(409, "Conflict", "the object has been modified");
        assert!(expected(&gone, 1) && expected(&newer, 5) && !expected(&refused, 1));
        assert!(!expected(&gone, 6) && !expected(&newer, 6));
    }
}
