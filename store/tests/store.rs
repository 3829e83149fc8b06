//! The store as its users see it.

mod support;

use coracle_store::{Error, Expect, Key, Op, Scope, Store, Txn};
use std::time::Duration;
use support::{delete, draft, key, open, put, text};

#[tokio::test]
async fn writes_are_read_listed_and_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.snapshot().revision(), 0);
    let created = store.commit(put("pods", "a", "one", Expect::Absent)).await.unwrap();
    assert_eq!(created.revision, 1);
    let object = created.objects[0].clone().unwrap();
    assert_eq!(object.revision, 1);
    assert_eq!(&object.json[..], br#"{"metadata":{"resourceVersion":"1"},"v":"one"}"#);
    store.commit(put("pods", "b", "two", Expect::Absent)).await.unwrap();
    let updated = store.commit(put("pods", "a", "three", Expect::Revision(1))).await.unwrap();
    assert_eq!(updated.revision, 3);
    store.barrier().await.unwrap();
    store.shutdown().await;
    drop(store);

    let store = open(dir.path()).await;
    let now = store.snapshot();
    assert_eq!(now.revision(), 3);
    assert_eq!(now.range("pods", None, None).map(|o| (o.key.name.to_string(), o.revision)).collect::<Vec<_>>(), [("a".into(), 3), ("b".into(), 2)]);
    assert_eq!(text(&now.get(&key("pods", "a")).unwrap()), "three");
    // What was replayed is history again.
    assert_eq!(text(&store.snapshot_at(2).unwrap().get(&key("pods", "a")).unwrap()), "one");
    let mut watch = store.watch(Scope::resource("pods"), 1).unwrap();
    assert_eq!(watch.next().await.unwrap().iter().map(|c| c.revision).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(store.commit(put("pods", "c", "x", Expect::Absent)).await.unwrap().revision, 4);
    store.shutdown().await;
}

#[tokio::test]
async fn preconditions_hold_for_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(put("pods", "a", "one", Expect::Absent)).await.unwrap();
    let again = store.commit(put("pods", "a", "two", Expect::Absent)).await.unwrap_err();
    assert!(matches!(again, Error::Precondition { op: 0, current: Some(ref o) } if o.revision == 1), "{again:?}");
    let mut both = put("pods", "b", "x", Expect::Absent);
    both.ops.push(Op::Check { key: key("pods", "a"), expect: Expect::Revision(9) });
    assert!(matches!(store.commit(both).await.unwrap_err(), Error::Precondition { op: 1, .. }));
    assert!(store.snapshot().get(&key("pods", "b")).is_none());
    assert_eq!(store.snapshot().revision(), 1);

    // Two objects in one transaction carry one revision; a check gives no object; a deleted object carries the new revision.
    let mut both = put("pods", "b", "x", Expect::Absent);
    both.ops.extend(delete("pods", "a", Expect::Revision(1)).ops);
    both.ops.push(Op::Check { key: key("pods", "zz"), expect: Expect::Absent });
    let done = store.commit(both).await.unwrap();
    assert_eq!(done.revision, 2);
    let revisions: Vec<_> = done.objects.iter().map(|o| o.as_ref().map(|o| o.revision)).collect();
    assert_eq!(revisions, [Some(2), Some(2), None]);
    assert_eq!(store.snapshot().range("pods", None, None).count(), 1);
    store.shutdown().await;
}

#[tokio::test]
async fn the_same_bytes_are_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(put("pods", "a", "one", Expect::Any)).await.unwrap();
    let before = store.stats();
    let same = store.commit(put("pods", "a", "one", Expect::Revision(1))).await.unwrap();
    assert_eq!((same.revision, same.objects[0].as_ref().unwrap().revision), (1, 1));
    assert_eq!(store.commit(delete("pods", "none", Expect::Any)).await.unwrap().revision, 1);
    assert_eq!(store.stats(), before, "neither reached the log");
    store.shutdown().await;
}

#[tokio::test]
async fn bad_transactions_are_refused_before_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let twice = Txn { ops: [put("p", "a", "1", Expect::Any).ops, put("p", "a", "2", Expect::Any).ops].concat() };
    assert!(matches!(store.commit(twice).await, Err(Error::Failed(m)) if m.contains("twice")));
    let many = Txn { ops: (0..129).flat_map(|i| put("p", &i.to_string(), "1", Expect::Any).ops).collect() };
    assert!(matches!(store.commit(many).await, Err(Error::TooLarge(_))));
    assert!(matches!(store.commit(put("p", "big", &"x".repeat(9 << 20), Expect::Any)).await, Err(Error::TooLarge(_))));
    assert!(store.commit(put("p", "nul\0", "1", Expect::Any)).await.is_err());
    let mut hole = draft("x", Default::default());
    hole.hole = 10_000;
    let hole = Txn { ops: vec![Op::Put { key: key("p", "h"), expect: Expect::Any, draft: hole }] };
    assert!(store.commit(hole).await.is_err());
    assert_eq!(store.snapshot().revision(), 0);
    store.shutdown().await;
}

#[tokio::test]
async fn watches_match_and_do_not_miss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(put("pods", "a", "0", Expect::Any)).await.unwrap();
    let (snapshot, mut all) = store.list_watch(Scope::default());
    assert_eq!(snapshot.revision(), 1);
    let on_node = |node: &str| Scope { field: Some(("spec.nodeName".into(), node.into())), ..Scope::resource("pods") };
    let (_, mut n1) = store.list_watch(on_node("n1"));
    let (_, mut n2) = store.list_watch(on_node("n2"));
    let (_, mut one) = store.list_watch(Scope { namespace: Some("default".into()), name: Some("b".into()), ..Scope::resource("pods") });
    let (_, mut elsewhere) = store.list_watch(Scope { namespace: Some("other".into()), ..Scope::resource("pods") });

    let placed = |name: &str, node: &str| Txn {
        ops: vec![Op::Put { key: key("pods", name), expect: Expect::Any, draft: draft(name, vec![("spec.nodeName", node)]) }],
    };
    store.commit(placed("b", "n1")).await.unwrap();
    store.commit(placed("b", "n2")).await.unwrap();
    store.commit(put("configmaps", "c", "1", Expect::Any)).await.unwrap();
    store.commit(delete("pods", "b", Expect::Any)).await.unwrap();

    let revisions = |batch: Vec<std::sync::Arc<coracle_store::Change>>| batch.iter().map(|c| c.revision).collect::<Vec<_>>();
    assert_eq!(revisions(all.next().await.unwrap()), [2, 3, 4, 5]);
    assert_eq!(revisions(n1.next().await.unwrap()), [2, 3], "the second takes the pod away from n1");
    assert_eq!(revisions(n2.next().await.unwrap()), [3, 5]);
    let changes = one.next().await.unwrap();
    assert!(changes[0].prev.is_none() && changes[1].prev.is_some() && changes[2].new.is_none());
    assert!(elsewhere.take().unwrap().is_none());
    assert_eq!(elsewhere.progress(), 5, "nothing for it up to here");
    assert!(tokio::time::timeout(Duration::from_millis(20), elsewhere.next()).await.is_err());
    assert_eq!(store.stats().watchers, 5);
    drop((all, n1, n2, one));
    assert_eq!(store.stats().watchers, 1);
    store.shutdown().await;
    assert!(matches!(elsewhere.next().await, Err(Error::Closed)));
    assert!(matches!(store.commit(placed("x", "n1")).await, Err(Error::Closed)));
}

#[tokio::test]
async fn too_old_or_too_slow_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = support::options(dir.path());
    options.history_bytes = 64 << 10;
    let store = Store::open(options).await.unwrap();
    store.commit(put("pods", "a", "first", Expect::Any)).await.unwrap();
    let (_, mut slow) = store.list_watch(Scope::resource("pods"));
    let (_, quiet) = store.list_watch(Scope::resource("nodes"));
    for i in 0..300 {
        store.commit(put("pods", "a", &format!("{i}{}", "x".repeat(1000)), Expect::Any)).await.unwrap();
    }
    assert!(matches!(slow.next().await, Err(Error::Gone { .. })));
    assert!(matches!(slow.next().await, Err(Error::Gone { .. })), "and stays so");
    assert!(matches!(store.watch(Scope::resource("pods"), 1), Err(Error::Gone { wanted: 1, .. })));
    assert!(matches!(store.snapshot_at(1), Err(Error::Gone { wanted: 1, .. })));
    assert!(matches!(store.snapshot_at(9999), Err(Error::Gone { .. })));
    assert!(matches!(store.watch(Scope::resource("pods"), 9999), Err(Error::Gone { .. })));
    assert!(store.watch(Scope::resource("nodes"), 0).is_ok(), "nothing was forgotten of a resource that never changed");
    assert_eq!(quiet.progress(), 301);
    let recent = store.stats().oldest;
    assert!(recent > 1 && store.snapshot_at(recent).is_ok() && store.watch(Scope::resource("pods"), recent).is_ok());
    store.shutdown().await;
}

#[tokio::test]
async fn waiting_for_a_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.applied(2, Duration::from_secs(30)).await.map(|s| s.revision()) }
    });
    store.commit(put("pods", "a", "1", Expect::Any)).await.unwrap();
    store.commit(put("pods", "a", "2", Expect::Any)).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    assert!(matches!(store.applied(3, Duration::from_millis(5)).await, Err(Error::Gone { wanted: 3, .. })));
    store.shutdown().await;
}

#[tokio::test]
async fn ranges_counts_and_dependents() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (namespace, name) in [("a", "x"), ("a", "y"), ("a-b", "x"), ("b", "w"), ("b", "z")] {
        let mut d = draft(name, vec![]);
        d.meta = std::sync::Arc::new(coracle_store::Meta { owners: vec![format!("uid-{namespace}").into()], ..(*d.meta).clone() });
        let op = Op::Put { key: Key::new("pods", namespace, name), expect: Expect::Absent, draft: d };
        store.commit(Txn { ops: vec![op] }).await.unwrap();
    }
    let now = store.snapshot();
    let list = |namespace: Option<&str>, after: Option<(&str, &str)>| {
        now.range("pods", namespace, after).map(|o| format!("{}/{}", o.key.namespace, o.key.name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(None, None), "a/x a/y a-b/x b/w b/z");
    assert_eq!(list(Some("a"), None), "a/x a/y");
    assert_eq!(list(Some("a-b"), None), "a-b/x");
    assert_eq!(list(Some("none"), None), "");
    assert_eq!(list(None, Some(("a", "y"))), "a-b/x b/w b/z");
    assert_eq!(list(None, Some(("a", "xx"))), "a/y a-b/x b/w b/z");
    assert_eq!(list(Some("b"), Some(("b", "w"))), "b/z");
    assert_eq!(list(Some("b"), Some(("a", "w"))), "b/w b/z");
    assert_eq!(list(Some("a"), Some(("b", "w"))), "");
    assert_eq!((now.count("pods", None), now.count("pods", Some("b")), now.count("pods", Some("c")), now.count("x", None)), (5, 2, 0, 0));
    assert_eq!(now.dependents("uid-b").iter().map(|o| &*o.key.name).collect::<Vec<_>>(), ["w", "z"]);
    assert_eq!(now.dependents("uid-").len(), 0);
    store.commit(Txn { ops: vec![Op::Delete { key: Key::new("pods", "b", "w"), expect: Expect::Any }] }).await.unwrap();
    assert_eq!(store.snapshot().dependents("uid-b").len(), 1);
    assert_eq!(store.snapshot().count("pods", Some("b")), 1);
    assert_eq!(now.dependents("uid-b").len(), 2, "an older snapshot does not move");
    store.shutdown().await;
}

#[tokio::test]
async fn a_second_open_is_refused_with_the_directory_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = Store::open(support::options(dir.path())).await.err().unwrap().to_string();
    assert!(second.contains(&dir.path().display().to_string()) && second.contains("--data-dir"), "{second}");
    store.commit(put("pods", "a", "1", Expect::Any)).await.unwrap();
    store.shutdown().await;
    open(dir.path()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_share_fsyncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let before = store.stats();
    let tasks: Vec<_> = (0..32)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    store.commit(put("pods", &format!("c{client}"), &i.to_string(), Expect::Any)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.revision, 1600);
    assert_eq!(after.log_entries - before.log_entries, 1600);
    let commits = after.log_commits - before.log_commits;
    assert!(commits < 800, "{commits} fsyncs for 1600 writes of 32 clients");
    store.shutdown().await;
}

#[tokio::test]
async fn the_state_follows_and_the_log_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for i in 0..40 {
        store.commit(put("pods", &format!("p{}", i % 10), &format!("{i}{}", "x".repeat(300_000)), Expect::Any)).await.unwrap();
    }
    support::until(|| store.stats().state_commits >= 2).await;
    let last = store.snapshot();
    store.shutdown().await;
    let store = open(dir.path()).await;
    let now = store.snapshot();
    assert_eq!(now.revision(), 40);
    for i in 0..10 {
        let name = key("pods", &format!("p{i}"));
        assert_eq!(now.get(&name).unwrap().json, last.get(&name).unwrap().json);
    }
    assert!(store.stats().oldest > 0, "the beginning was cut");
    assert!(matches!(store.watch(Scope::resource("pods"), 0), Err(Error::Gone { .. })));
    let oldest = store.stats().oldest;
    let mut watch = store.watch(Scope::resource("pods"), oldest).unwrap();
    assert_eq!(watch.next().await.unwrap().iter().map(|c| c.revision).collect::<Vec<_>>(), (oldest + 1..=40).collect::<Vec<_>>());
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_answers_what_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let writers: Vec<_> = (0..8)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for value in 1.. {
                    match store.commit(put("pods", &format!("c{client}"), &value.to_string(), Expect::Any)).await {
                        Ok(_) => {}
                        Err(Error::Closed) => return value - 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                unreachable!()
            })
        })
        .collect();
    support::until(|| store.stats().revision > 100).await;
    store.shutdown().await;
    let store = open(dir.path()).await;
    for (client, writer) in writers.into_iter().enumerate() {
        let answered: u64 = writer.await.unwrap();
        let object = store.snapshot().get(&key("pods", &format!("c{client}"))).unwrap();
        assert_eq!(text(&object), answered.to_string(), "all that was written was answered, and the other way round");
    }
    store.shutdown().await;
}
