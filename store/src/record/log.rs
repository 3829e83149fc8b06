//! What stands in the log's file: a head, then slots of segments of batches of records.
//!
//! A segment takes a run of slots ([`SLOT`] bytes each): its own head in the first block, then batches, each from the beginning of a block ([`BLOCK`] bytes), so
//! that no write touches a block in which something acknowledged stands. A batch is what one sync made durable. It says of which segment it is, and its number
//! there. That tells it from what the slots held before, and tells a torn end from damage: a batch is written when the one before it is durable, so a bad batch
//! with a later one behind it was damaged, and a bad one with nothing behind it never was durable.
//!
//! Clients choose what stands in documents, and must not be able to make one look like a head or a batch: both begin with a random number of this file, which
//! nobody outside sees.

use super::raft::{read_log_id, write_entry, write_log_id};
use super::{Corrupt, Reader, VERSION, Writer};
use crate::raft::{Entry, LogId, Vote};
use openraft::impls::leader_id_adv::LeaderId;

/// Where heads and batches may begin. No smaller than what a disk writes whole, 4,096 bytes on many: a sector that is torn takes everything in it along. The
/// kernel writes pages of that size anyway, and must not read one first to write a whole one.
pub(crate) const BLOCK: usize = 4096;
/// What the file grows by and segments are made of. (Small in this crate's own tests, so that they see many.)
pub(crate) const SLOT: usize = if cfg!(test) { 4 * BLOCK } else { 1 << 20 };

/// Bytes before the first slot.
pub(crate) const FILE_HEAD: usize = BLOCK;

const MAGIC: &[u8; 8] = b"coralog2";
/// Blocks had 512 bytes.
const OLDER: &[u8; 8] = b"coralog\n";

/// The file's first bytes: version, magic, secret, checksum.
pub(crate) fn encode_file_head(secret: u64) -> Vec<u8> {
    let mut w = Writer::new(FILE_HEAD);
    w.0.extend_from_slice(MAGIC);
    w.u64(secret);
    let mut head = w.finish();
    head.resize(FILE_HEAD, 0);
    head
}

/// The secret; None where no file head stands, an error where one of another version or layout does.
pub(crate) fn decode_file_head(head: &[u8]) -> Result<Option<u64>, Corrupt> {
    match head.split_first_chunk::<9>() {
        Some(([VERSION, magic @ ..], _)) if magic == MAGIC => {}
        Some(([version, magic @ ..], _)) if magic == MAGIC => return Err(Corrupt::Version(*version)),
        Some(([_, magic @ ..], _)) if magic == OLDER => return Err(Corrupt::Older),
        _ => return Ok(None),
    }
    let Some(mut r) = head.get(..1 + 8 + 8 + 4).and_then(|record| Reader::new(record).ok()) else { return Ok(None) };
    r.take::<8>("the magic")?;
    r.u64("the secret").map(Some)
}

/// The beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// One more than that of the segment before.
    pub number: u64,
    /// How many slots it takes, this one included.
    pub slots: u32,
}

/// Version, secret, number, slots, checksum.
const HEAD: usize = 1 + 8 + 8 + 4 + 4;

impl Head {
    /// Its block.
    pub fn encode(&self, secret: u64) -> Vec<u8> {
        let mut w = Writer::new(BLOCK);
        w.u64(secret);
        w.u64(self.number);
        w.u32(self.slots);
        let mut block = w.finish();
        block.resize(BLOCK, 0);
        block
    }

    /// None where no segment of this file begins.
    pub fn decode(block: &[u8], secret: u64) -> Option<Head> {
        let mut r = Reader::new(block.get(..HEAD)?).ok()?;
        let ours = r.u64("the secret").ok()? == secret;
        let head = Head { number: r.u64("the number").ok()?, slots: r.u32("the slots").ok()? };
        (ours && head.slots > 0).then_some(head)
    }
}

/// What Raft keeps beside entries. Every batch carries it whole, so the newest batch says all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// The number of the oldest segment that is needed.
    pub oldest: u64,
}

/// Version, secret, segment, number, length, and a checksum of these.
const FRONT: usize = 1 + 8 + 8 + 4 + 4 + 4;
/// `State`, always of one size: vote, purged, oldest.
const STATE: usize = (1 + 17) + (1 + 24) + 8;

fn write_state(w: &mut Writer, state: &State) {
    w.u8(state.vote.is_some() as u8);
    match &state.vote {
        Some(vote) => {
            w.u64(vote.leader_id.term);
            w.u64(vote.leader_id.node_id);
            w.u8(vote.committed as u8);
        }
        None => w.0.extend_from_slice(&[0; 17]),
    }
    w.u8(state.purged.is_some() as u8);
    match &state.purged {
        Some(id) => write_log_id(w, id),
        None => w.0.extend_from_slice(&[0; 24]),
    }
    w.u64(state.oldest);
}

fn read_state(r: &mut Reader<'_>) -> Result<State, Corrupt> {
    let voted = r.flag("the vote")?;
    let leader_id = LeaderId { term: r.u64("the term")?, node_id: r.u64("the candidate")? };
    let vote = Vote { leader_id, committed: r.flag("the vote")? };
    let purged = r.flag("the purged log id")?;
    let id = read_log_id(r)?;
    Ok(State { vote: voted.then_some(vote), purged: purged.then_some(id), oldest: r.u64("the oldest segment")? })
}

/// Where an entry's record stands: in a batch or a segment, or (as the log uses it) in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub at: u64,
    pub len: u32,
}

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A log entry.
    Entry { id: LogId, place: Place },
    /// Entries from this index on are gone.
    Truncate { from: u64 },
    /// Nothing follows in this segment; the next one is there.
    Sealed,
}

/// A batch in the making.
pub(crate) struct BatchWriter {
    w: Writer,
    /// The entries in it; places count from its beginning.
    pub entries: Vec<(LogId, Place)>,
}

impl BatchWriter {
    pub fn new() -> BatchWriter {
        let mut batch = BatchWriter { w: Writer(Vec::new()), entries: Vec::new() };
        batch.clear();
        batch
    }

    /// Empty again, with the memory it has unless that is much.
    pub fn clear(&mut self) {
        self.w.0.clear();
        self.w.0.shrink_to(SLOT);
        self.w.0.resize(FRONT + STATE, 0);
        self.entries.clear();
    }

    pub fn entry(&mut self, entry: &Entry) {
        self.w.u8(0);
        let at = self.w.nested(|w| write_entry(w, entry));
        self.entries.push((entry.log_id, Place { at: at.start as u64, len: at.len() as u32 }));
    }

    pub fn truncate(&mut self, from: u64) {
        self.w.u8(1);
        self.w.u64(from);
    }

    pub fn seal(&mut self) {
        self.w.u8(2);
    }

    /// Bytes it takes in the file: whole blocks.
    pub fn size(&self) -> usize {
        (self.w.0.len() + 4).next_multiple_of(BLOCK)
    }

    /// The batch as it is written. To be called once.
    pub fn finish(&mut self, secret: u64, segment: u64, number: u32, state: &State) -> &[u8] {
        let mut front = Writer::new(FRONT + STATE);
        front.u64(secret);
        front.u64(segment);
        front.u32(number);
        front.u32((self.w.0.len() + 4) as u32);
        front.u32(crc32c::crc32c(&front.0));
        write_state(&mut front, state);
        self.w.0[..FRONT + STATE].copy_from_slice(&front.0);
        let (size, sum) = (self.size(), crc32c::crc32c(&self.w.0));
        self.w.u32(sum);
        self.w.0.resize(size, 0);
        &self.w.0
    }
}

/// What was read of one batch; places count from the segment's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub state: State,
    pub records: Vec<Record>,
}

/// What was read of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub batches: Vec<Batch>,
    /// Where the next batch goes, from the segment's beginning.
    pub end: usize,
}

/// Reads the batches of a segment (`bytes`: all of it, head included) up to its end, torn or not. Damage is an error, with where it is.
pub(crate) fn read_segment(bytes: &[u8], secret: u64, segment: u64) -> Result<Contents, (usize, Corrupt)> {
    let mut read = Contents { batches: Vec::new(), end: BLOCK };
    let front = |at: usize| front(bytes.get(at..)?, secret, segment);
    loop {
        let number = read.batches.len() as u32;
        let Some((_, len)) = front(read.end).filter(|(found, _)| *found == number) else { break };
        let Some(record) = bytes.get(read.end..).and_then(|rest| rest.get(..len)).filter(|record| Reader::new(record).is_ok()) else { break };
        read.batches.push(read_batch(record, read.end).map_err(|error| (read.end, error))?);
        read.end += len.next_multiple_of(BLOCK);
    }
    let later = |at: &usize| front(*at).is_some_and(|(number, _)| number as usize > read.batches.len());
    match (read.end..bytes.len()).step_by(BLOCK).find(later) {
        None => Ok(read),
        Some(_) => Err((read.end, Corrupt::Followed)),
    }
}

/// Number and length of the batch of this segment that begins here.
fn front(bytes: &[u8], secret: u64, segment: u64) -> Option<(u32, usize)> {
    let (front, _) = bytes.split_first_chunk::<FRONT>()?;
    let mut r = Reader::new(front).ok()?;
    let ours = r.u64("the secret").ok()? == secret && r.u64("the segment").ok()? == segment;
    ours.then_some(())?;
    Some((r.u32("the number").ok()?, r.u32("the length").ok()? as usize))
}

fn read_batch(record: &[u8], base: usize) -> Result<Batch, Corrupt> {
    let mut r = Reader::new(record)?;
    r.take::<{ FRONT - 1 }>("the front")?;
    let state = read_state(&mut r)?;
    let mut records = Vec::new();
    while !r.0.is_empty() {
        records.push(match r.u8("the record")? {
            0 => {
                let entry = r.bytes("the entry")?;
                // Behind it are what is left and the checksum.
                let at = record.len() - 4 - r.0.len() - entry.len();
                Record::Entry { id: read_log_id(&mut Reader::new(entry)?)?, place: Place { at: (base + at) as u64, len: entry.len() as u32 } }
            }
            1 => Record::Truncate { from: r.u64("the cut")? },
            2 => Record::Sealed,
            _ => return Err(Corrupt::Value("the record")),
        });
    }
    Ok(Batch { state, records })
}

/// Whether what these bytes say, written again, says the same; None when they are damaged. For fuzz targets: they are the batches of a segment 7 in a file with
/// the secret 0, so that a program that looks for trouble can make them.
pub fn segment_read_twice(bytes: &[u8]) -> Option<bool> {
    let segment = [&[0; BLOCK], bytes].concat();
    let read = read_segment(&segment, 0, 7).ok()?;
    let mut again = vec![0; BLOCK];
    for (number, batch) in read.batches.iter().enumerate() {
        let mut writer = BatchWriter::new();
        for record in &batch.records {
            match record {
                Record::Entry { place, .. } => {
                    writer.w.u8(0);
                    writer.w.bytes(&segment[place.at as usize..][..place.len as usize]);
                }
                Record::Truncate { from } => writer.truncate(*from),
                Record::Sealed => writer.seal(),
            }
        }
        again.extend_from_slice(writer.finish(0, 7, number as u32, &batch.state));
    }
    Some(read_segment(&again, 0, 7).as_ref() == Ok(&read))
}
