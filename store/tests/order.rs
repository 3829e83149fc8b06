//! Who is woken by a change finds it in the snapshot taken after: what every level-triggered reader stands on.

use coracle_store::{Draft, Expect, Key, Op, Options, Scope, Store, Txn};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_the_snapshot_taken_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(Options::new(dir.path())).await.expect("a store");
    const WRITES: u64 = 2_000;
    // On its own thread, looking as fast as it can: the gap to be found is a few hundred nanoseconds.
    let (_, mut watch) = store.list_watch(Scope::resource("r"));
    let reader = store.clone();
    let looking = std::thread::spawn(move || {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let mut seen = 0;
        while seen < WRITES && std::time::Instant::now() < until {
            for change in watch.take().expect("changes").into_iter().flatten() {
                let revision = reader.snapshot().revision();
                assert!(revision >= change.revision, "change {} came before its snapshot ({revision})", change.revision);
                seen += 1;
            }
        }
        seen
    });
    let json = "{\"metadata\":{\"resourceVersion\":\"\"}}";
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..WRITES / 8 {
                let draft = Draft { json: format!("{{\"n\":{n},{}", &json[1..]).into(), hole: 0, meta: Default::default() };
                let hole = draft.json.windows(3).position(|w| w == b":\"\"").expect("the hole") as u32 + 2;
                let key = Key::new("r", "", format!("{writer}"));
                let txn = Txn { ops: vec![Op::Put { key, expect: Expect::Any, draft: Draft { hole, ..draft } }] };
                store.commit(txn).await.expect("written");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    assert_eq!(looking.join().expect("the reader"), WRITES);
    store.shutdown().await;
}
