//! The mirror's file and the one thread that writes it.
//!
//! A record is `version 1 | crc32c of the JSON, big endian | JSON`, its key `resource \0 namespace \0 name`. A record that does not
//! check is dropped and the position with it, so that the feed sends everything again.

use super::{Change, Key, Map, Position};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{os::unix::fs::PermissionsExt, path::Path, thread::JoinHandle};
use tokio::sync::{mpsc, oneshot};

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const POSITION: TableDefinition<&str, (u64, u64)> = TableDefinition::new("position");
const VERSION: u8 = 1;
/// redb's cache, bytes.
const CACHE: usize = 256 << 10;
/// Batches that may wait for the writer.
const QUEUE: usize = 64;

enum Job {
    Write(Vec<Change>, Option<Position>),
    Flush(oneshot::Sender<()>),
}

pub struct Disk {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Disk {
    pub fn open(path: &Path) -> Result<(Self, Map, Position), String> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
        }
        // Made with its mode before redb writes into it: secrets are in there.
        if !path.exists() {
            std::fs::File::create(path).map_err(|e| e.to_string())?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|e| e.to_string())?;
        let database = Database::builder().set_cache_size(CACHE).create(path).map_err(|e| e.to_string())?;
        let (objects, position) = load(&database).map_err(|e| e.to_string())?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer =
            std::thread::Builder::new().name("mirror".into()).spawn(move || write(&database, queue)).map_err(|e| format!("start the writer: {e}"))?;
        Ok((Self { jobs: Some(jobs), writer: Some(writer) }, objects, position))
    }

    pub async fn write(&self, changes: Vec<Change>, position: Option<Position>) {
        if let Some(jobs) = &self.jobs {
            // The writer only ends with this value; a closed channel means that it failed and said so.
            let _ = jobs.send(Job::Write(changes, position)).await;
        }
    }

    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if let Some(jobs) = &self.jobs
            && jobs.send(Job::Flush(done)).await.is_ok()
        {
            let _ = wait.await;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn encode_key(key: &Key) -> String {
    format!("{}\0{}\0{}", key.resource, key.namespace, key.name)
}

fn decode_key(text: &str) -> Option<Key> {
    let mut parts = text.split('\0');
    let key = Key { resource: parts.next()?.into(), namespace: parts.next()?.into(), name: parts.next()?.into() };
    parts.next().is_none().then_some(key)
}

fn encode(json: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(json.len() + 5);
    record.push(VERSION);
    record.extend_from_slice(&crc32c::crc32c(json).to_be_bytes());
    record.extend_from_slice(json);
    record
}

fn decode(record: &[u8]) -> Option<Bytes> {
    let (version, rest) = record.split_first()?;
    let (sum, json) = rest.split_at_checked(4)?;
    let matches = *version == VERSION && crc32c::crc32c(json).to_be_bytes() == *sum;
    matches.then(|| Bytes::copy_from_slice(json))
}

fn load(database: &Database) -> Result<(Map, Position), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(OBJECTS)?;
    transaction.open_table(POSITION)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let table = transaction.open_table(OBJECTS)?;
    let mut objects = Map::new();
    let mut damaged = 0_usize;
    for row in table.iter()? {
        let (key, record) = row?;
        match (decode_key(key.value()), decode(record.value())) {
            (Some(key), Some(json)) => {
                objects.insert(key, json);
            }
            _ => damaged += 1,
        }
    }
    let position = transaction.open_table(POSITION)?.get("feed")?.map(|p| p.value()).unwrap_or_default();
    let position = Position { epoch: position.0, revision: position.1 };
    if damaged > 0 {
        tracing::warn!(damaged, "records of the node's mirror do not check; everything is asked for again");
        return Ok((objects, Position::default()));
    }
    Ok((objects, position))
}

/// Commits what waits, as much at once as there is.
fn write(database: &Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut waiting = Vec::new();
        let mut batch = Vec::new();
        let mut position = None;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Write(changes, at) => {
                    batch.extend(changes);
                    position = at.or(position);
                }
                Job::Flush(done) => waiting.push(done),
            }
            next = queue.try_recv().ok();
        }
        if let Err(why) = commit(database, &batch, position) {
            // What is in memory is right; what is on disk is older but whole, and the feed resumes from there.
            tracing::error!(%why, "write the node's mirror: this node goes on, but after a restart it must hear everything again");
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn commit(database: &Database, batch: &[Change], position: Option<Position>) -> Result<(), redb::Error> {
    if batch.is_empty() && position.is_none() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(OBJECTS)?;
        for (key, json) in batch {
            let key = encode_key(key);
            match json {
                Some(json) => table.insert(key.as_str(), encode(json).as_slice())?,
                None => table.remove(key.as_str())?,
            };
        }
        if let Some(position) = position {
            transaction.open_table(POSITION)?.insert("feed", (position.epoch, position.revision))?;
        }
    }
    transaction.commit()?;
    Ok(())
}
