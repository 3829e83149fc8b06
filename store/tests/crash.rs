//! kill -9 at any moment loses no acknowledged write; a disk that fails ends the process.
//!
//! The test runs itself as a child that writes and prints what was acknowledged, kills it, reopens the directory and compares.

mod support;

use coracle_store::{Expect, Options, Seams, Store};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{key, put, resume, text};

const CHILD: &str = "CORACLE_STORE_CRASH_DIR";
const CLIENTS: usize = 4;

/// Not a test of its own: what the child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = Store::open(Options::new(&dir)).await.unwrap();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let name = format!("c{client}");
                let from = store.snapshot().get(&key("pods", &name)).map_or(0, |o| text(&o).split('x').next().unwrap().parse::<u64>().unwrap());
                // Now and then a big one, so that the state is flushed and the log cut under fire.
                for value in from + 1.. {
                    let filler = "x".repeat(if value % 16 == 0 { 200_000 } else { 1 });
                    let done = store.commit(put("pods", &name, &format!("{value}{filler}"), Expect::Any)).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {name} {value} {}", done.revision).unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Lets a child write until it has acknowledged `count` writes, kills it, and gives what it acknowledged.
fn write_and_kill(dir: &Path, count: usize) -> Vec<(String, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    let mut killed = false;
    while lines.read_line(&mut line).unwrap() > 0 {
        // A line cut off by the kill acknowledged nothing.
        if let Some(rest) = line.strip_suffix('\n').and_then(|l| l.split_once("ack ")).map(|(_, rest)| rest.split(' ').collect::<Vec<_>>())
            && let [name, value, revision] = rest[..]
        {
            acknowledged.push((name.to_owned(), value.parse().unwrap(), revision.parse().unwrap()));
        }
        line.clear();
        if acknowledged.len() >= count && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    let _ = lines.read_to_string(&mut line);
    let status = child.wait().unwrap();
    assert!(killed, "the child ended by itself: {status}");
    acknowledged
}

#[tokio::test]
async fn no_acknowledged_write_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let (mut resumed, mut cut) = (0, 0);
    for round in 0..12 {
        for (name, value, revision) in write_and_kill(dir.path(), 40 + 37 * round) {
            let before = newest.insert(name, (value, revision));
            assert!(before.is_none_or(|(v, r)| v < value && r < revision));
        }
        let store = Store::open(Options::new(dir.path())).await.unwrap();
        let now = store.snapshot();
        for (name, (value, revision)) in &newest {
            let object = now.get(&key("pods", name)).unwrap_or_else(|| panic!("{name} is gone"));
            let found: u64 = text(&object).split('x').next().unwrap().parse().unwrap();
            // One write may have been on disk without its answer having been seen.
            assert!(found == *value || found == value + 1, "{name}: {value} was acknowledged, {found} found");
            assert!(object.revision >= *revision && object.revision <= now.revision());
            if found == *value {
                assert_eq!(object.revision, *revision, "the same write at the same revision");
            }
        }
        // What can be resumed is complete: every revision once, ending now.
        let oldest = store.stats().oldest;
        resumed += resume(&store, oldest, now.revision());
        cut = cut.max(oldest);
        store.shutdown().await;
    }
    assert!(resumed > 0, "no restart could resume a watch");
    assert!(cut > 0, "the log was never cut, so cutting it was not tested");
}

const FAILING: &str = "CORACLE_STORE_FAILING_DISK";

/// Memory whose syncs fail once it is broken.
#[derive(Debug, Default)]
struct Failing {
    memory: redb::backends::InMemoryBackend,
    broken: AtomicBool,
}

impl StorageBackend for Failing {
    fn len(&self) -> Result<u64, io::Error> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        if self.broken.load(Ordering::Relaxed) { Err(io::Error::other("no such luck")) } else { self.memory.sync_data() }
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        // As a file does.
        self.memory.set_len(self.memory.len()?.max(offset + data.len() as u64))?;
        self.memory.write(offset, data)
    }
}

/// Not a test of its own: what the other child process runs.
#[tokio::test]
async fn child_with_a_failing_disk() {
    if std::env::var(FAILING).is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let seams = Seams { log: Some(disk.clone()), ..Seams::default() };
    let store = Store::open_with(Options::new(dir.path()), seams).await.unwrap();
    store.commit(put("pods", "a", "1", Expect::Any)).await.unwrap();
    println!("ack 1");
    disk.broken.store(true, Ordering::Relaxed);
    let answer = store.commit(put("pods", "a", "2", Expect::Any)).await;
    println!("ack 2 {answer:?}");
}

#[test]
fn a_failed_sync_ends_the_process() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_a_failing_disk", "--nocapture", "--test-threads=1"])
        .env(FAILING, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(74), "{out}\n{err}");
    assert!(out.contains("ack 1") && !out.contains("ack 2"), "{out}");
    assert!(err.contains("no such luck") && err.contains("start again"), "{err}");
}
