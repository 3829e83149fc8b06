//! The feed against a real store.

use super::*;
use crate::nodes::feed;
use bytes::Bytes;
use coracle_link::{Error, SendHalf, protocol::Feed};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// A subscription's far end: messages in a bounded channel.
struct Pipe(mpsc::Sender<Feed>);

#[async_trait]
impl SendHalf for Pipe {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        let message = Feed::decode(&frame)?;
        self.0.send(message).await.map_err(|_| Error::Closed("the reader is gone".into()))
    }
    async fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A node's mirror: what was synced, and what came since.
#[derive(Default)]
struct Mirror {
    synced: (u64, u64),
    held: BTreeMap<String, Bytes>,
    pending: Vec<Feed>,
}

impl Mirror {
    fn take(&mut self, message: Feed) {
        match message {
            Feed::Synced { epoch, revision } => {
                for message in std::mem::take(&mut self.pending) {
                    match message {
                        Feed::Reset { .. } => self.held.clear(),
                        Feed::Upsert { resource, namespace, name, json } => {
                            let old = self.held.insert(format!("{resource}/{namespace}/{name}"), json.clone());
                            assert_ne!(old, Some(json), "{resource}/{namespace}/{name} came twice");
                        }
                        Feed::Remove { resource, namespace, name } => {
                            let key = format!("{resource}/{namespace}/{name}");
                            assert!(self.held.remove(&key).is_some(), "{key} was removed and never there");
                        }
                        Feed::Synced { .. } => unreachable!(),
                    }
                }
                self.synced = (epoch, revision);
            }
            other => self.pending.push(other),
        }
    }
    fn keys(&self) -> Vec<&str> {
        self.held.keys().map(String::as_str).collect()
    }
}

struct Subscription {
    messages: mpsc::Receiver<Feed>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscription {
    fn start(store: &Store, node: &'static str, from: (u64, u64)) -> Self {
        let (to, messages) = mpsc::channel(8);
        let store = store.clone();
        let task = tokio::spawn(async move {
            let _ = feed::run(&store, 7, node, from, &mut Pipe(to)).await;
        });
        Self { messages, task }
    }
    /// Reads until what the mirror has synced is at least `revision`.
    async fn upto(&mut self, mirror: &mut Mirror, revision: u64) {
        let read = async {
            while mirror.synced.1 < revision {
                mirror.take(self.messages.recv().await.expect("the feed ended"));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the feed never got there");
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_node_sees_its_slice_and_no_more() {
    let world = World::new().await;
    let plain = || json!({"metadata": {}});
    for (resource, namespace, name) in [
        ("nodes", "", "n1"),
        ("nodes", "", "n2"),
        ("services", "a", "s"),
        ("endpointslices.discovery.k8s.io", "a", "s-1"),
        ("runtimeclasses.node.k8s.io", "", "wasm"),
        ("namespaces", "", "a"),
        ("secrets", "a", "mine"),
        ("secrets", "a", "later"),
        ("secrets", "a", "others"),
        ("secrets", "b", "mine"),
        ("serviceaccounts", "a", "default"),
        ("serviceaccounts", "b", "default"),
        ("configmaps", "a", "unused"),
    ] {
        world.put(resource, namespace, name, plain()).await;
    }
    world.put("pods", "a", "p1", pod("n1", &["mine", "missing"])).await;
    let revision = world.put("pods", "a", "p2", pod("n2", &["others"])).await;
    let (mut mirror, mut feed) = (Mirror::default(), Subscription::start(&world.store, "n1", (0, 0)));
    feed.upto(&mut mirror, revision).await;
    let shared = ["endpointslices.discovery.k8s.io/a/s-1", "nodes//n1", "pods/a/p1", "runtimeclasses.node.k8s.io//wasm"];
    let mut want: Vec<&str> = [&shared[..], &["secrets/a/mine", "serviceaccounts/a/default", "services/a/s"]].concat();
    assert_eq!(mirror.keys(), want);
    let json: Value = serde_json::from_slice(&mirror.held["pods/a/p1"]).unwrap();
    assert_eq!(json["metadata"]["resourceVersion"], (revision - 1).to_string());

    // a named secret that appears, and a pod that names another
    world.put("secrets", "a", "missing", plain()).await;
    let revision = world.put("pods", "a", "p1", pod("n1", &["missing", "later"])).await;
    feed.upto(&mut mirror, revision).await;
    want = [&shared[..], &["secrets/a/later", "secrets/a/missing", "serviceaccounts/a/default", "services/a/s"]].concat();
    assert_eq!(mirror.keys(), want);

    // no longer named: changes of it are not seen; the pod goes, and all it named with it
    world.put("secrets", "a", "mine", json!({"metadata": {}, "data": {"a": "b"}})).await;
    let revision = world.delete("pods", "a", "p1").await;
    feed.upto(&mut mirror, revision).await;
    want = ["endpointslices.discovery.k8s.io/a/s-1", "nodes//n1", "runtimeclasses.node.k8s.io//wasm", "services/a/s"].into();
    assert_eq!(mirror.keys(), want);
}

#[tokio::test]
async fn resuming_sends_the_difference_and_an_old_mirror_begins_anew() {
    let world = World::new().await;
    world.put("services", "a", "kept", json!({"metadata": {}})).await;
    world.put("services", "a", "gone", json!({"metadata": {}})).await;
    let revision = world.put("pods", "a", "p", pod("n1", &["s"])).await;
    let mut mirror = Mirror::default();
    Subscription::start(&world.store, "n1", (0, 0)).upto(&mut mirror, revision).await;
    assert_eq!(mirror.synced.0, 7);

    world.delete("services", "a", "gone").await;
    world.put("secrets", "a", "s", json!({"metadata": {}})).await;
    let revision = world.put("pods", "a", "moved", pod("n1", &[])).await;
    let mut feed = Subscription::start(&world.store, "n1", mirror.synced);
    let mut seen = Vec::new();
    while mirror.synced.1 < revision {
        let message = tokio::time::timeout(Duration::from_secs(10), feed.messages.recv()).await.unwrap().unwrap();
        if let Feed::Upsert { resource, name, .. } | Feed::Remove { resource, name, .. } = &message {
            seen.push(format!("{resource}/{name}"));
        }
        assert!(!matches!(message, Feed::Reset { .. }));
        mirror.take(message);
    }
    seen.sort();
    assert_eq!(seen, ["pods/moved", "secrets/s", "services/gone"]);

    for stale in [(8, mirror.synced.1), (7, 1_000_000)] {
        let mut feed = Subscription::start(&world.store, "n1", stale);
        assert_eq!(feed.messages.recv().await, Some(Feed::Reset { epoch: 7 }));
    }
}

/// Writers at full speed, a mirror that loses its connection at any moment: at the end it holds exactly its slice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_over_broken_connections() {
    for seed in 0..4 {
        let world = std::sync::Arc::new(World::new().await);
        let writer = {
            let world = world.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let secret = |n: u32| ["s0", "s1", "s2", "s3", "s4"][n as usize];
                for _ in 0..400 {
                    let name = format!("o{}", random.random_range(0..6));
                    match random.random_range(0..10) {
                        0..4 => {
                            let node = ["n1", "n2"][random.random_range(0..2)];
                            let named = [secret(random.random_range(0..5)), secret(random.random_range(0..5))];
                            world.put("pods", "a", &name, pod(node, &named)).await;
                        }
                        4 => drop(world.delete("pods", "a", &name).await),
                        5..8 => {
                            let value: u32 = random.random();
                            world.put("secrets", "a", secret(random.random_range(0..5)), json!({"metadata": {}, "data": value})).await;
                        }
                        8 => drop(world.delete("secrets", "a", secret(random.random_range(0..5))).await),
                        _ => drop(world.put("services", "a", &name, json!({"metadata": {}, "n": random.random::<u32>()})).await),
                    }
                }
            })
        };
        // one subscription that is never broken, in parallel
        let steady = {
            let (world, mut feed) = (world.clone(), Subscription::start(&world.store, "n1", (0, 0)));
            let (end, mut ended) = tokio::sync::watch::channel(0);
            let task = tokio::spawn(async move {
                let mut mirror = Mirror::default();
                loop {
                    let upto = *ended.borrow();
                    if upto > 0 {
                        feed.upto(&mut mirror, upto).await;
                        drop(world);
                        return mirror.held;
                    }
                    tokio::select! {
                        message = feed.messages.recv() => mirror.take(message.expect("the feed ended")),
                        _ = ended.changed() => {}
                    }
                }
            });
            (end, task)
        };
        let mut random = StdRng::seed_from_u64(seed + 100);
        let mut mirror = Mirror::default();
        while !writer.is_finished() {
            mirror.pending.clear();
            let mut feed = Subscription::start(&world.store, "n1", mirror.synced);
            for _ in 0..random.random_range(1..60) {
                match tokio::time::timeout(Duration::from_millis(50), feed.messages.recv()).await {
                    Ok(Some(message)) => mirror.take(message),
                    _ => break,
                }
            }
        }
        writer.await.unwrap();
        // something that concerns the node: a quiet feed says its revision only every other minute
        world.put("services", "a", "last", json!({"metadata": {}})).await;
        mirror.pending.clear();
        let end = world.store.snapshot();
        Subscription::start(&world.store, "n1", mirror.synced).upto(&mut mirror, end.revision()).await;
        let mut fresh = Mirror::default();
        Subscription::start(&world.store, "n1", (0, 0)).upto(&mut fresh, end.revision()).await;
        assert_eq!(mirror.held, fresh.held, "seed {seed}");
        steady.0.send(end.revision()).unwrap();
        assert_eq!(steady.1.await.unwrap(), fresh.held, "seed {seed}, unbroken");
        for (key, json) in &mirror.held {
            let parts: Vec<&str> = key.split('/').collect();
            assert_eq!(end.get(&Key::new(parts[0], parts[1], parts[2])).unwrap().json, json);
        }
    }
}
