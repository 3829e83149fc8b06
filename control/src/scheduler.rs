//! The scheduler: binds pods to nodes (Kubernetes' kube-scheduler with its default plugins).
//!
//! [`engine`] is pure: changes of pods and nodes go in, decisions come out. This file is its one task: it feeds the engine from
//! watches and has its decisions carried out, many at a time, so that they share the log's fsync. Nothing is polled: a
//! pod is looked at in the moment it appears, and again when something changes that may let it fit.

pub mod args;
pub mod cluster;
pub mod devices;
pub mod engine;
mod perform;
pub mod plugins;
pub mod pod;
pub mod preempt;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod select;
pub mod term;
pub mod volumes;

use self::{
    engine::{Decision, Engine},
    perform::{Ended, perform},
    pod::Pod,
    profile::Profile,
};
use crate::controllers::{Clock, identity};
use coracle_apiserver::{Tasks, client::Client, telemetry, view::parse};
use coracle_store::{Change, Error, Object, Scope, Store, Watch};
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll, select_all, unfold},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Decisions that are carried out at once.
const PARALLEL: usize = 128;

/// Starts the scheduler in this set of tasks, with a profile for every `schedulerName` that it serves.
pub fn start(client: &Client, clock: Clock, profiles: Vec<Profile>, tasks: &Tasks) {
    let client = client.as_user(identity::scheduler());
    tasks.spawn("scheduler", run(client, clock, profiles.into()));
}

/// What a watch tells the engine.
type Feed = fn(&mut Engine, Option<&Arc<Object>>, Option<&Arc<Object>>, Instant);

/// What is watched. Pods come last, so that nodes and rules are known before them.
const WATCHED: [(&str, Feed); 12] = [
    ("namespaces", |engine, prev, new, _| engine.namespace(prev, new)),
    ("services", |engine, prev, new, _| engine.service(prev, new)),
    ("persistentvolumeclaims", Engine::volume),
    ("persistentvolumes", Engine::volume),
    ("storageclasses.storage.k8s.io", Engine::volume),
    (volumes::limits::CSI_NODES, Engine::volume),
    (volumes::limits::ATTACHMENTS, Engine::volume),
    (devices::CLASSES, Engine::devices),
    (devices::SLICES, Engine::devices),
    (devices::CLAIMS, Engine::devices),
    ("nodes", Engine::node),
    ("pods", Engine::pod),
];

type Changes = SelectAll<BoxStream<'static, (Feed, Result<Vec<Arc<Change>>, Error>)>>;

/// Tells the engine what there is, and opens the watches for what comes.
fn watch(store: &Store, engine: &mut Engine) -> Changes {
    engine.reset();
    let now = Instant::now();
    select_all(WATCHED.map(|(resource, feed)| {
        let (snapshot, watch) = store.list_watch(Scope::resource(resource));
        snapshot.range(resource, None, None).for_each(|object| feed(engine, None, Some(object), now));
        let next = move |mut watch: Watch| async move {
            let changes = watch.next().await;
            Some(((feed, changes), watch))
        };
        unfold(watch, next).boxed()
    }))
}

/// Counts what was decided. A pod that waits for something that is being done for it was not placed yet, and did not fail.
fn tell(told: &telemetry::Scheduler, decision: &Decision, took: Duration) {
    let (pod, result) = match decision {
        Decision::Bind { pod, .. } => (pod, telemetry::Placing::Scheduled),
        Decision::Unschedulable { pod, .. } => (pod, telemetry::Placing::Unschedulable),
        Decision::Preempt { pod, .. } => {
            told.preemptions.inc();
            (pod, telemetry::Placing::Unschedulable)
        }
        Decision::Prepare { .. } | Decision::Claim { .. } => return,
    };
    if let Ok(pod) = parse::<Pod<'_>>(pod) {
        told.placed(pod.scheduler(), result, took);
    }
}

async fn run(client: Client, clock: Clock, profiles: Arc<[Profile]>) {
    let store = client.store().clone();
    let told = &client.core().telemetry.scheduler;
    let mut engine = Engine::new(profiles);
    let mut watches = watch(&store, &mut engine);
    let mut running: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
    loop {
        let snapshot = store.snapshot();
        while running.len() < PARALLEL {
            let began = Instant::now();
            let Some(decision) = engine.decide(&snapshot, began) else { break };
            tell(told, &decision, began.elapsed());
            running.push(Box::pin(perform(&client, &clock, decision)));
        }
        drop(snapshot);
        told.pending(engine.pending());
        let due = if running.len() < PARALLEL { engine.next_due() } else { None };
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            Some((feed, changes)) = watches.next() => changes.map(|changes| {
                let now = Instant::now();
                changes.iter().for_each(|change| feed(&mut engine, change.prev.as_ref(), change.new.as_ref(), now));
            }),
            Some(ended) = running.next(), if !running.is_empty() => {
                ended.tell(&mut engine, Instant::now());
                Ok(())
            }
            () = timer => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "scheduler: a watch broke off; looking at everything again");
                // What is under way ends first: a new picture must not be mixed with old promises.
                while running.next().await.is_some() {}
                watches = watch(&store, &mut engine);
            }
        }
    }
}
