//! The state in `state.redb`: every object at some revision behind the log, written in steps.
//!
//! It is never read for requests; memory has everything. It exists so that the log can be cut and a start need not replay all of history.

use crate::record::{self, Applied};
use crate::root::Root;
use crate::{Key, Object};
use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const APPLIED: &str = "applied";

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn damaged(error: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("state.redb is damaged: {error}; restore the data directory from a backup"))
}

/// What a step writes: the last state of each key it touched, None where it is gone.
pub(crate) type Writes = BTreeMap<Key, Option<Arc<Object>>>;

/// The file.
pub(crate) struct StateFile {
    db: Mutex<Option<Arc<Database>>>,
}

impl StateFile {
    pub fn new(db: Database) -> StateFile {
        StateFile { db: Mutex::new(Some(Arc::new(db))) }
    }

    fn database(&self) -> io::Result<Arc<Database>> {
        self.db.lock().clone().ok_or_else(|| io::Error::other("the state file is closed"))
    }

    /// The whole file as it is now; later writes do not show in it.
    pub fn image(&self) -> io::Result<Image> {
        let txn = self.database()?.begin_read().map_err(other)?;
        let applied = match txn.open_table(META) {
            Ok(meta) => {
                let record = meta.get(APPLIED).map_err(other)?;
                record.map(|v| record::decode_applied(v.value())).transpose().map_err(damaged)?.unwrap_or_default()
            }
            Err(TableError::TableDoesNotExist(_)) => Applied::default(),
            Err(error) => return Err(other(error)),
        };
        Ok(Image { applied, txn })
    }

    /// Writes a step, durably.
    pub fn write(&self, writes: &Writes, applied: &Applied) -> io::Result<()> {
        let db = self.database()?;
        let mut txn = db.begin_write().map_err(other)?;
        // A start after kill -9 must not walk the whole file.
        txn.set_quick_repair(true);
        {
            let mut objects = txn.open_table(OBJECTS).map_err(other)?;
            for (key, object) in writes {
                let key = record::disk_key(key);
                match object {
                    Some(object) => drop(objects.insert(&*key, &*record::encode_object(object)).map_err(other)?),
                    None => drop(objects.remove(&*key).map_err(other)?),
                }
            }
            txn.open_table(META).map_err(other)?.insert(APPLIED, &*record::encode_applied(applied)).map_err(other)?;
        }
        txn.commit().map_err(other)
    }

    /// Puts a whole other state in the place of this one, durably.
    pub fn replace(&self, root: &Root, applied: &Applied) -> io::Result<()> {
        let db = self.database()?;
        let mut txn = db.begin_write().map_err(other)?;
        txn.set_quick_repair(true);
        txn.delete_table(OBJECTS).map_err(other)?;
        {
            let mut objects = txn.open_table(OBJECTS).map_err(other)?;
            for object in root.objects() {
                objects.insert(&*record::disk_key(&object.key), &*record::encode_object(object)).map_err(other)?;
            }
            txn.open_table(META).map_err(other)?.insert(APPLIED, &*record::encode_applied(applied)).map_err(other)?;
        }
        txn.commit().map_err(other)
    }

    pub fn close(&self) {
        self.db.lock().take();
    }
}

/// The file at one moment; what Raft calls a snapshot.
pub(crate) struct Image {
    pub applied: Applied,
    txn: ReadTransaction,
}

impl Image {
    /// Reads all of it into memory.
    pub fn load(&self) -> io::Result<Root> {
        let mut root = Root::default();
        root.revision = self.applied.revision;
        let table = match self.txn.open_table(OBJECTS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(root),
            Err(error) => return Err(other(error)),
        };
        for item in table.iter().map_err(other)? {
            let (key, record) = item.map_err(other)?;
            let object = record::decode_object(record.value())
                .map_err(|error| damaged(format_args!("{}: {error}", String::from_utf8_lossy(key.value()).replace('\0', "/"))))?;
            root.put(object);
        }
        Ok(root)
    }
}
