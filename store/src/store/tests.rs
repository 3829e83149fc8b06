use super::*;
use crate::raft::TypeConfig;
use crate::record::Applied;
use crate::root::Root;
use crate::{Draft, Expect, Key};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

fn put(name: &str) -> Txn {
    let draft = Draft { json: bytes::Bytes::from_static(b"{\"rv\":\"\"}"), hole: 7, meta: Default::default() };
    Txn { ops: vec![Op::Put { key: Key::new("r", "n", name.to_owned()), expect: Expect::Any, draft }] }
}

struct InDirectory;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for InDirectory {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new(dir.path());
        let Opened { log, writer, state, applied, root } = open_files(&options, &Seams::default()).expect("an empty directory opens");
        tokio::spawn(writer.run());
        assert_eq!(applied, Applied::default());
        let hub = Hub::new(Arc::new(Root::default()), options.history_age, options.history_bytes);
        let flush = Flush::new(state, applied.clone(), Fatal::default());
        let machine = Machine::new(0, root, applied, options, hub, flush, log.clone());
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite() {
    Suite::test_all(InDirectory).await.unwrap();
}

#[tokio::test]
async fn reads_can_go_through_raft() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).await.unwrap();
    assert!(store.leads_alone());
    store.commit(put("a")).await.unwrap();
    store.read_index().await.unwrap();
    store.shutdown().await;
    assert!(matches!(store.barrier().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_state_file_of_another_time_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).await.unwrap();
    store.commit(put("a")).await.unwrap();
    // Flush and cut by hand, then lose the state.
    assert!(store.inner.flush.flush(true).unwrap());
    store.inner.raft.trigger().snapshot().await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while store.inner.log.purged().is_none() {
        assert!(std::time::Instant::now() < end, "the log was not cut");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    store.shutdown().await;
    std::fs::remove_file(dir.path().join("state.redb")).unwrap();
    let refused = Store::open(Options::new(dir.path())).await.err().unwrap().to_string();
    assert!(refused.contains("backup") && refused.contains(&dir.path().display().to_string()), "{refused}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_then_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let seams = Seams {
        free: Some({
            let free = free.clone();
            Arc::new(move |_| Ok(free.load(Ordering::Relaxed)))
        }),
        ..Seams::default()
    };
    let store = Store::open_with(Options::new(dir.path()), seams).await.unwrap();
    store.commit(put("a")).await.unwrap();
    store.commit(put("b")).await.unwrap();
    free.store(disk::RESERVE - 1, Ordering::Relaxed);
    let full = store.commit(put("c")).await.unwrap_err();
    assert!(matches!(&full, Error::DiskFull(m) if m.contains(&dir.path().display().to_string())), "{full:?}");
    let delete = |name: &str| Txn { ops: vec![Op::Delete { key: Key::new("r", "n", name.to_owned()), expect: Expect::Any }] };
    store.commit(delete("a")).await.unwrap();
    free.store(disk::RESERVE / 2 - 1, Ordering::Relaxed);
    assert!(matches!(store.commit(delete("b")).await, Err(Error::DiskFull(_))));
    free.store(u64::MAX, Ordering::Relaxed);
    store.commit(put("c")).await.unwrap();
    store.shutdown().await;
}

#[tokio::test]
async fn patient_writes_go_to_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).await.unwrap();
    let before = store.stats().log_commits;
    let names: Vec<String> = (0..100).map(|n| format!("lease-{n}")).collect();
    let patient = futures::future::join_all(names.iter().map(|name| store.commit_patiently(put(name))));
    assert!(patient.await.iter().all(Result::is_ok));
    let alone = store.stats().log_commits - before;
    assert!((1..=10).contains(&alone), "{alone} commits for 100 patient writes");
    // Somebody who does not wait takes them along: none is left for the second's end.
    let (patient, other) = tokio::join!(store.commit_patiently(put("late")), store.commit(put("now")));
    assert!(patient.is_ok() && other.is_ok());
    store.shutdown().await;
}

/// Memory that refuses to sync when told to.
#[derive(Debug, Default)]
struct Failing {
    memory: redb::backends::InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        if self.broken.load(Ordering::Relaxed) { Err(std::io::Error::other("the disk is gone")) } else { self.memory.sync_data() }
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        // As a file does.
        self.memory.set_len(self.memory.len()?.max(offset + data.len() as u64))?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let died = Arc::new(parking_lot::Mutex::new(Vec::<String>::new()));
    let log: Arc<dyn StorageBackend> = Arc::new(Failing { broken: broken.clone(), ..Failing::default() });
    let fatal = Fatal::new({
        let died = died.clone();
        move |reason| died.lock().push(reason.to_owned())
    });
    let store = Store::open_with(Options::new(dir.path()), Seams { log: Some(log), fatal, ..Seams::default() }).await.unwrap();
    store.commit(put("a")).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let answer = tokio::time::timeout(Duration::from_millis(300), store.commit(put("b"))).await;
    assert!(!matches!(answer, Ok(Ok(_))), "acknowledged without being on disk: {answer:?}");
    assert!(died.lock().iter().any(|reason| reason.contains("the disk is gone")), "{:?}", died.lock());
    assert_eq!(store.snapshot().revision(), 1, "nor is it visible");
}

#[tokio::test]
async fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path());
    let store = Store::open(options.clone()).await.unwrap();
    store.commit(put("a")).await.unwrap();
    store.commit(put("b")).await.unwrap();
    store.shutdown().await;
    let path = dir.path().join("log.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    let entry = bytes.windows(6).position(|w| w == b"{\"rv\":").unwrap();
    bytes[entry] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(options).await.err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("at byte") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn a_log_that_lacks_what_the_state_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path())).await.unwrap();
    store.commit(put("a")).await.unwrap();
    assert!(store.inner.flush.flush(true).unwrap());
    store.shutdown().await;
    std::fs::remove_file(dir.path().join("log.bin")).unwrap();
    let refused = Store::open(Options::new(dir.path())).await.err().unwrap().to_string();
    assert!(refused.contains("ahead") && refused.contains("backup"), "{refused}");
}

#[tokio::test]
async fn a_log_of_an_earlier_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log.redb"), b"").unwrap();
    let refused = Store::open(Options::new(dir.path())).await.err().unwrap().to_string();
    assert!(refused.contains("log.redb") && refused.contains("earlier version"), "{refused}");
}

#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Store::open(Options::new(&data)).await.unwrap().shutdown().await;
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(data.clone()), mode(data.join("log.bin")), mode(data.join("state.redb"))), (0o700, 0o600, 0o600));
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.redb"), b"not a database, but long enough to have a header".repeat(100)).unwrap();
    let error = Store::open(Options::new(dir.path())).await.err().unwrap().to_string();
    assert!(error.contains("state.redb"), "{error}");
    std::fs::remove_file(dir.path().join("state.redb")).unwrap();
    std::fs::write(dir.path().join("log.bin"), b"not a log").unwrap();
    let error = Store::open(Options::new(dir.path())).await.err().unwrap().to_string();
    assert!(error.contains("log.bin") && error.contains("no segment"), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Store::open(Options::new(&file)).await.err().unwrap().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}
