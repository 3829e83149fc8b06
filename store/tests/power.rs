//! The power goes at any moment: of what was written since the last sync, any sectors may be on the disk. Every acknowledged write must be there.

mod support;

use coracle_store::{Expect, Options, Seams, Store};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use support::{key, put, resume, text};

const SECTOR: usize = 512;

enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Default)]
struct File {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

fn write_at(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
    file[offset..offset + data.len()].copy_from_slice(data);
}

/// Two files on one machine, so that the power goes for both at once.
#[derive(Default)]
struct Machine(Mutex<[File; 2]>);

struct Disk {
    machine: Arc<Machine>,
    file: usize,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk {}", self.file)
    }
}

impl Disk {
    fn with<T>(&self, act: impl FnOnce(&mut File) -> T) -> Result<T, io::Error> {
        Ok(act(&mut self.machine.0.lock().unwrap()[self.file]))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.with(|f| f.live.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.with(|f| {
            let from = f.live.get(offset as usize..offset as usize + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(from);
            Ok(())
        })?
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.with(|f| {
            f.live.resize(len as usize, 0);
            f.unsynced.push(Unsynced::SetLen(len as usize));
        })
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.with(|f| {
            for change in std::mem::take(&mut f.unsynced) {
                match change {
                    Unsynced::Write(offset, data) => write_at(&mut f.synced, offset, &data),
                    Unsynced::SetLen(len) => f.synced.resize(len, 0),
                }
            }
        })
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.with(|f| {
            write_at(&mut f.live, offset as usize, data);
            f.unsynced.push(Unsynced::Write(offset as usize, data.to_vec()));
        })
    }
}

/// A small generator: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }
}

impl Machine {
    fn disks(self: &Arc<Self>) -> Seams {
        let disk = |file| -> Option<Arc<dyn StorageBackend>> { Some(Arc::new(Disk { machine: self.clone(), file })) };
        Seams { log: disk(0), state: disk(1), free: Some(Arc::new(|_| Ok(u64::MAX))), ..Seams::default() }
    }

    /// What is found when the power comes back.
    fn after_power_loss(&self, dice: &mut Dice) -> Machine {
        let files = self.0.lock().unwrap();
        let found = [0, 1].map(|i| {
            let mut bytes = files[i].synced.clone();
            for change in &files[i].unsynced {
                match (change, dice.roll(3)) {
                    (_, 0) => {}
                    (Unsynced::SetLen(len), _) if *len > bytes.len() => bytes.resize(*len, 0),
                    (Unsynced::SetLen(_), _) => {}
                    (Unsynced::Write(offset, data), 1) => write_at(&mut bytes, *offset, data),
                    (Unsynced::Write(offset, data), _) => {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if dice.roll(2) == 0 {
                                write_at(&mut bytes, *offset + n * SECTOR, sector);
                            }
                        }
                    }
                }
            }
            File { live: bytes.clone(), synced: bytes, unsynced: Vec::new() }
        });
        Machine(Mutex::new(found))
    }
}

/// Name → (value, revision), as acknowledged.
type Acknowledged = BTreeMap<String, (u64, u64)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_with_the_power() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(42);
    let mut machine = Arc::new(Machine::default());
    let acknowledged: Arc<Mutex<Acknowledged>> = Arc::default();
    let mut flushed = 0;
    for _ in 0..40 {
        let store = Store::open_with(Options::new(dir.path()), machine.disks()).await.unwrap();
        let now = store.snapshot();
        for (name, (value, revision)) in acknowledged.lock().unwrap().iter() {
            let object = now.get(&key("pods", name)).unwrap_or_else(|| panic!("{name} is gone"));
            let found: u64 = text(&object).split('x').next().unwrap().parse().unwrap();
            assert!(found >= *value, "{name}: {value} was acknowledged, {found} found");
            assert!(found != *value || object.revision == *revision, "the same write at the same revision");
        }
        resume(&store, store.stats().oldest, now.revision());

        let target = now.revision() + 1 + dice.roll(120) as u64;
        let writers: Vec<_> = (0..4)
            .map(|client| {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let name = format!("c{client}");
                    let from = store.snapshot().get(&key("pods", &name)).map_or(0, |o| text(&o).split('x').next().unwrap().parse::<u64>().unwrap());
                    for value in from + 1.. {
                        let filler = "x".repeat(if value % 8 == 0 { 150_000 } else { 1 });
                        let Ok(done) = store.commit(put("pods", &name, &format!("{value}{filler}"), Expect::Any)).await else { return };
                        acknowledged.lock().unwrap().insert(name.clone(), (value, done.revision));
                    }
                })
            })
            .collect();
        // Neither waiting for a quiet moment nor asking anyone: the writers are in the middle of something.
        while store.snapshot().revision() < target {
            tokio::task::yield_now().await;
        }
        // What was acknowledged is looked at before the loss, never after.
        let before = acknowledged.lock().unwrap().clone();
        let found = machine.after_power_loss(&mut dice);
        flushed += store.stats().state_commits;
        store.shutdown().await;
        for writer in writers {
            writer.await.unwrap();
        }
        // What the abandoned machine acknowledged after the loss never happened.
        *acknowledged.lock().unwrap() = before;
        machine = Arc::new(found);
    }
    assert!(flushed > 3, "the state was flushed under fire ({flushed} times)");
}
