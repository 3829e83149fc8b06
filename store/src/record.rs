//! Records on disk: a version byte, length-prefixed fields, and a crc32c over all of it at the end. Integers are little-endian.
//!
//! Our own, so that no library's change of serde types can make yesterday's data unreadable. A record that does not check out is an error that says where; it is
//! never skipped.

use crate::{Draft, Expect, Key, Meta, Object, Op, Txn};
use bytes::Bytes;
use std::sync::Arc;

mod log;
mod raft;
pub use log::segment_read_twice;
pub(crate) use log::{BLOCK, BatchWriter, Contents, FILE_HEAD, Head, Place, Record, SLOT, State, decode_file_head, encode_file_head, read_segment};
pub(crate) use raft::{Applied, decode_applied, decode_entry, encode_applied, encode_entry};

/// The version every record of this build is written with.
pub const VERSION: u8 = 1;

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The bytes end inside a field.
    #[error("the record ends inside {0}")]
    Short(&'static str),
    /// The checksum does not match.
    #[error("checksum {found:08x} where {want:08x} was written")]
    Checksum {
        /// What the record says.
        want: u32,
        /// What its bytes give.
        found: u32,
    },
    /// A newer (or no) Coracle wrote it.
    #[error("record version {0}, but this build reads version {VERSION}; use the version of Coracle that wrote it")]
    Version(u8),
    /// A layout that is not read any more.
    #[error("an earlier version of Coracle wrote it, and this one does not read it; use that version, or another data directory")]
    Older,
    /// A field has a value that it cannot have.
    #[error("{0} has a value that it cannot have")]
    Value(&'static str),
    /// A batch of the log that does not check out, although a later one was written.
    #[error("a batch of the log is damaged, and later ones follow it")]
    Followed,
}

/// Builds a record.
struct Writer(Vec<u8>);

impl Writer {
    fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 16);
        bytes.push(VERSION);
        Writer(bytes)
    }
    fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.0.extend_from_slice(v);
    }
    fn str(&mut self, v: &str) {
        self.bytes(v.as_bytes());
    }
    fn key(&mut self, key: &Key) {
        self.str(&key.resource);
        self.str(&key.namespace);
        self.str(&key.name);
    }
    fn meta(&mut self, meta: &Meta) {
        self.str(&meta.uid);
        for pairs in [&meta.labels, &meta.fields] {
            self.u32(pairs.len() as u32);
            for (k, v) in pairs {
                self.str(k);
                self.str(v);
            }
        }
        self.u32(meta.owners.len() as u32);
        meta.owners.iter().for_each(|owner| self.str(owner));
    }
    /// A record within this one, behind its length; says where it stands.
    fn nested(&mut self, write: impl FnOnce(&mut Writer)) -> std::ops::Range<usize> {
        let start = self.0.len() + 4;
        self.u32(0);
        self.u8(VERSION);
        write(self);
        self.u32(crc32c::crc32c(&self.0[start..]));
        let end = self.0.len();
        self.0[start - 4..start].copy_from_slice(&((end - start) as u32).to_le_bytes());
        start..end
    }
    fn finish(mut self) -> Vec<u8> {
        let sum = crc32c::crc32c(&self.0);
        self.u32(sum);
        self.0
    }
}

/// Reads a record whose checksum held.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(record: &'a [u8]) -> Result<Self, Corrupt> {
        let (body, sum) = record.split_last_chunk::<4>().ok_or(Corrupt::Short("the checksum"))?;
        let (want, found) = (u32::from_le_bytes(*sum), crc32c::crc32c(body));
        if want != found {
            return Err(Corrupt::Checksum { want, found });
        }
        match body.split_first() {
            Some((&VERSION, rest)) => Ok(Reader(rest)),
            Some((&other, _)) => Err(Corrupt::Version(other)),
            None => Err(Corrupt::Short("the version")),
        }
    }
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Corrupt> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Corrupt::Short(what))?;
        self.0 = tail;
        Ok(*head)
    }
    fn u8(&mut self, what: &'static str) -> Result<u8, Corrupt> {
        Ok(self.take::<1>(what)?[0])
    }
    fn flag(&mut self, what: &'static str) -> Result<bool, Corrupt> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt::Value(what)),
        }
    }
    fn u32(&mut self, what: &'static str) -> Result<u32, Corrupt> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }
    fn u64(&mut self, what: &'static str) -> Result<u64, Corrupt> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }
    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Corrupt> {
        let len = self.u32(what)? as usize;
        let (head, tail) = self.0.split_at_checked(len).ok_or(Corrupt::Short(what))?;
        self.0 = tail;
        Ok(head)
    }
    fn str(&mut self, what: &'static str) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Corrupt::Value(what))
    }
    /// A count of things that take at least four bytes each, so that a wrong count cannot ask for much memory.
    fn count(&mut self, what: &'static str) -> Result<usize, Corrupt> {
        let count = self.u32(what)? as usize;
        if count > self.0.len() / 4 { Err(Corrupt::Short(what)) } else { Ok(count) }
    }
    fn key(&mut self) -> Result<Key, Corrupt> {
        Ok(Key::new(self.str("the key's resource")?, self.str("the key's namespace")?, self.str("the key's name")?))
    }
    fn meta(&mut self) -> Result<Meta, Corrupt> {
        let uid = self.str("the uid")?.into();
        let mut pairs =
            |what| -> Result<Vec<_>, Corrupt> { (0..self.count(what)?).map(|_| Ok((self.str(what)?.into(), self.str(what)?.into()))).collect() };
        let labels = pairs("the labels")?;
        let fields = pairs("the fields")?;
        let owners = (0..self.count("the owners")?).map(|_| Ok(self.str("the owners")?.into())).collect::<Result<_, _>>()?;
        Ok(Meta { uid, labels, owners, fields })
    }
    fn end(self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { Err(Corrupt::Value("the end of the record")) }
    }
}

fn write_txn(w: &mut Writer, txn: &Txn) {
    w.u32(txn.ops.len() as u32);
    for op in &txn.ops {
        w.u8(match op {
            Op::Put { .. } => 0,
            Op::Delete { .. } => 1,
            Op::Check { .. } => 2,
        });
        w.key(op.key());
        match op.expect() {
            Expect::Absent => w.u8(0),
            Expect::Any => w.u8(1),
            Expect::Revision(revision) => {
                w.u8(2);
                w.u64(*revision);
            }
        }
        if let Op::Put { draft, .. } = op {
            w.u32(draft.hole);
            w.bytes(&draft.json);
            w.meta(&draft.meta);
        }
    }
}

fn read_txn(r: &mut Reader<'_>) -> Result<Txn, Corrupt> {
    let ops = (0..r.count("the operations")?).map(|_| {
        let kind = r.u8("the operation")?;
        let key = r.key()?;
        let expect = match r.u8("the precondition")? {
            0 => Expect::Absent,
            1 => Expect::Any,
            2 => Expect::Revision(r.u64("the precondition")?),
            _ => return Err(Corrupt::Value("the precondition")),
        };
        Ok(match kind {
            0 => {
                let hole = r.u32("the hole")?;
                let json = Bytes::copy_from_slice(r.bytes("the document")?);
                if hole as usize > json.len() {
                    return Err(Corrupt::Value("the hole"));
                }
                Op::Put { key, expect, draft: Draft { json, hole, meta: Arc::new(r.meta()?) } }
            }
            1 => Op::Delete { key, expect },
            2 => Op::Check { key, expect },
            _ => return Err(Corrupt::Value("the operation")),
        })
    });
    Ok(Txn { ops: ops.collect::<Result<_, _>>()? })
}

/// An object as the state file keeps it.
pub(crate) fn encode_object(object: &Object) -> Vec<u8> {
    let mut w = Writer::new(object.json.len() + object.meta.weight());
    w.key(&object.key);
    w.u64(object.revision);
    w.u32(object.hole());
    w.bytes(&object.json);
    w.meta(&object.meta);
    w.finish()
}

pub(crate) fn decode_object(record: &[u8]) -> Result<Arc<Object>, Corrupt> {
    let mut r = Reader::new(record)?;
    let key = r.key()?;
    let revision = r.u64("the revision")?;
    let hole = r.u32("the hole")?;
    let json = Bytes::copy_from_slice(r.bytes("the document")?);
    let meta = r.meta()?;
    r.end()?;
    Object::from_stored(key, revision, json, meta, hole).ok_or(Corrupt::Value("the hole"))
}

/// What each kind of record reads out of these bytes, written again; for fuzz targets.
pub fn rewritten(record: &[u8]) -> [Option<Vec<u8>>; 3] {
    [
        decode_object(record).ok().map(|object| encode_object(&object)),
        decode_entry(record).ok().map(|entry| encode_entry(&entry)),
        decode_applied(record).ok().map(|applied| encode_applied(&applied)),
    ]
}

/// The state file's key of an object: its three parts with NUL between them (no part holds one), so that order on disk is order in memory.
pub(crate) fn disk_key(key: &Key) -> Vec<u8> {
    [key.resource.as_bytes(), key.namespace.as_bytes(), key.name.as_bytes()].join(&0)
}

#[cfg(test)]
mod tests;
