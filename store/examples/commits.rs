//! Commits a second with 1 and 32 clients: `cargo run --release -p coracle-store --example commits [DIRECTORY]` (an empty one; default: a temporary one).
#![allow(clippy::unwrap_used, reason = "a measurement that fails may stop")]

use bytes::Bytes;
use coracle_store::{Draft, Expect, Key, Meta, Op, Options, Store, Txn};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn put(client: usize, i: usize) -> Txn {
    let json = format!(r#"{{"metadata":{{"resourceVersion":""}},"data":"{}{i}"}}"#, "x".repeat(900));
    let meta = Meta { uid: "6d1b4e0c-3c8e-4b58-9f5e-000000000000".into(), ..Meta::default() };
    let draft = Draft { json: Bytes::from(json), hole: 32, meta: Arc::new(meta) };
    Txn { ops: vec![Op::Put { key: Key::new("configmaps", "default", format!("c{client}-{}", i % 500)), expect: Expect::Any, draft }] }
}

async fn measure(store: &Store, clients: usize) {
    let before = store.stats();
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                let mut i = 0;
                while start.elapsed() < Duration::from_secs(3) {
                    let one = Instant::now();
                    store.commit(put(client, i)).await.unwrap();
                    slowest = slowest.max(one.elapsed());
                    i += 1;
                }
                (i, slowest)
            })
        })
        .collect();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for task in tasks {
        let (i, slow) = task.await.unwrap();
        count += i;
        slowest = slowest.max(slow);
    }
    let took = start.elapsed();
    let after = store.stats();
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "{clients:3} clients: {rate:8.0} commits/s, mean {:?}, slowest {slowest:?}, {:.1} entries an fsync, {} state commits",
        took.mul_f64(clients as f64 / count as f64),
        (after.log_entries - before.log_entries) as f64 / (after.log_commits - before.log_commits) as f64,
        after.state_commits - before.state_commits
    );
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::args().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    let store = Store::open(Options::new(dir)).await.unwrap();
    for clients in [1, 8, 32, 256] {
        measure(&store, clients).await;
    }
    store.shutdown().await;
}
