#![allow(dead_code, reason = "each test file uses its part")]
//! What the store's tests share.

use bytes::Bytes;
use coracle_store::{Draft, Expect, Key, Meta, Object, Op, Options, Scope, Store, Txn};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn options(dir: &Path) -> Options {
    Options::new(dir)
}

pub async fn open(dir: &Path) -> Store {
    Store::open(options(dir)).await.unwrap()
}

pub fn key(resource: &str, name: &str) -> Key {
    Key::new(resource, "default", name)
}

const HEAD: &str = r#"{"metadata":{"resourceVersion":""#;

pub fn draft(value: &str, fields: Vec<(&str, &str)>) -> Draft {
    let fields = fields.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    let meta = Meta { uid: "uid".into(), fields, ..Meta::default() };
    Draft { json: Bytes::from(format!(r#"{HEAD}"}},"v":"{value}"}}"#)), hole: HEAD.len() as u32, meta: Arc::new(meta) }
}

pub fn put(resource: &str, name: &str, value: &str, expect: Expect) -> Txn {
    Txn { ops: vec![Op::Put { key: key(resource, name), expect, draft: draft(value, vec![]) }] }
}

pub fn delete(resource: &str, name: &str, expect: Expect) -> Txn {
    Txn { ops: vec![Op::Delete { key: key(resource, name), expect }] }
}

/// The value `draft` was given.
pub fn text(object: &Object) -> String {
    let json = std::str::from_utf8(&object.json).unwrap();
    json.split_once(r#""v":""#).unwrap().1.trim_end_matches("\"}").to_owned()
}

/// What a watch that is resumed at `oldest` is told is complete: every revision once, up to `now`. How many they are.
pub fn resume(store: &Store, oldest: u64, now: u64) -> usize {
    let mut watch = store.watch(Scope::default(), oldest).unwrap();
    let mut revisions = Vec::new();
    while let Some(batch) = watch.take().unwrap() {
        revisions.extend(batch.iter().map(|change| change.revision));
    }
    assert_eq!(revisions, (oldest + 1..=now).collect::<Vec<_>>());
    revisions.len()
}

/// Waits for a condition, thirty seconds at most.
pub async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "the condition did not come true in thirty seconds");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
