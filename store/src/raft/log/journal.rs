//! The log's file: segments in slots, written at one end, let go at the other, and read back at a start.
//!
//! It grows by zeros, which are synced before they are used, and from then on is written over in place: such a write changes nothing but data, so its sync is
//! the cheapest there is, and no disk that fills in the meantime can stop it.

use crate::raft::LogId;
use crate::record::{BLOCK, BatchWriter, Contents, FILE_HEAD, Head, Place, Record, SLOT, State, decode_file_head, encode_file_head, read_segment};
use redb::StorageBackend;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Slots the file grows by at least: a new log does not stop for each of its first.
const GROWTH: u32 = 4;

/// Slots at the file's end that stay when nothing stands in them.
const SPARE: u32 = 16;

/// A segment that is needed.
struct Segment {
    head: Head,
    /// Its first slot.
    slot: u32,
    /// Batches in it.
    batches: u32,
    /// Where the next one goes, in the file.
    end: u64,
    /// The greatest index of an entry that was written to it.
    top: Option<u64>,
}

impl Segment {
    fn new(head: Head, slot: u32) -> Segment {
        Segment { head, slot, batches: 0, end: start(slot) + BLOCK as u64, top: None }
    }

    fn slots(&self) -> Range<u32> {
        self.slot..self.slot + self.head.slots
    }

    /// Whether a batch of that size goes in, and the seal after it.
    fn has_room(&self, size: usize) -> bool {
        self.end + (size + BLOCK) as u64 <= start(self.slots().end)
    }
}

/// Where a slot begins in the file.
fn start(slot: u32) -> u64 {
    FILE_HEAD as u64 + u64::from(slot) * SLOT as u64
}

/// Where each entry stands in the file, by index and without a gap.
#[derive(Default)]
pub(super) struct Places {
    first: u64,
    places: VecDeque<Place>,
}

impl Places {
    pub fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Entry `index` stands there. It follows the last one, or (after a snapshot took the place of the log) begins anew.
    pub fn put(&mut self, index: u64, place: Place) {
        if index != self.end() {
            self.places.clear();
            self.first = index;
        }
        self.places.push_back(place);
    }

    /// Forgets those from `index` on.
    pub fn cut(&mut self, index: u64) {
        self.places.truncate(usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX));
    }

    /// Forgets those below `index`.
    pub fn drop_below(&mut self, index: u64) {
        let gone = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.places.len());
        self.places.drain(..gone);
        self.places.shrink_to(2 * self.places.len() + 64);
        self.first += gone as u64;
    }

    /// Those in a range, as far as they are known.
    pub fn range(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Place)> {
        let indices = range.start.max(self.first)..range.end.min(self.end());
        indices.filter_map(|index| Some((index, *self.places.get((index - self.first) as usize)?)))
    }
}

/// What a start finds.
#[derive(Default)]
pub(super) struct Found {
    pub state: State,
    pub last: Option<LogId>,
    pub places: Places,
}

/// The file, and what is true of it.
pub(super) struct Journal {
    file: Arc<dyn StorageBackend>,
    secret: u64,
    /// Oldest first; the last is written to. Never empty.
    live: VecDeque<Segment>,
    /// How many the file has.
    slots: u32,
    /// What the next batch says; its `oldest` is found when it is written.
    pub state: State,
}

fn damaged(what: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged: {what}; restore the data directory from a backup"))
}

impl Journal {
    /// Reads the file, cuts off a torn end (by writing over it, later), and begins a file that is new.
    pub fn open(file: Arc<dyn StorageBackend>) -> io::Result<(Journal, Found)> {
        let len = file.len()?;
        let mut head = vec![0; len.min(FILE_HEAD as u64) as usize];
        file.read(0, &mut head)?;
        let secret = decode_file_head(&head).map_err(io::Error::other)?;
        let slots = u32::try_from(len.saturating_sub(FILE_HEAD as u64) / SLOT as u64).map_err(|_| damaged("it is larger than any log"))?;
        let mut journal = Journal { file, secret: secret.unwrap_or_default(), live: VecDeque::new(), slots, state: State::default() };
        let heads = if secret.is_some() { journal.heads()? } else { BTreeMap::new() };
        if let Some((&newest, _)) = heads.last_key_value() {
            let found = journal.replay(&heads, newest)?;
            return Ok((journal, found));
        }
        // Without a segment it is ours to begin if nothing ever was in it: the first head is written when the zeros under it are durable.
        journal.refuse_content(if secret.is_some() { FILE_HEAD as u64 } else { 0 }..len)?;
        if secret.is_none() {
            journal.secret = rand::random();
            journal.file.set_len(len.max(FILE_HEAD as u64))?;
            journal.file.write(0, &encode_file_head(journal.secret))?;
            journal.file.sync_data()?;
        }
        journal.begin(0, 1)?;
        Ok((journal, Found::default()))
    }

    /// Every head in the file, of segments that are needed and of others, by number.
    fn heads(&self) -> io::Result<BTreeMap<u64, (Head, u32)>> {
        let mut heads = BTreeMap::new();
        let mut block = [0; BLOCK];
        for slot in 0..self.slots {
            self.file.read(start(slot), &mut block)?;
            let Some(head) = Head::decode(&block, self.secret) else { continue };
            if heads.insert(head.number, (head, slot)).is_some() {
                return Err(damaged(format_args!("two segments have the number {}", head.number)));
            }
        }
        Ok(heads)
    }

    fn refuse_content(&self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let mut bytes = vec![0; (range.end - at).min(SLOT as u64) as usize];
            self.file.read(at, &mut bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(damaged("it holds no segment of a log"));
            }
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Reads the segments that are needed, oldest first.
    fn replay(&mut self, heads: &BTreeMap<u64, (Head, u32)>, newest: u64) -> io::Result<Found> {
        let mut found = Found::default();
        // What the newest batch says: in the newest segment, or in the one before when it has none yet.
        for number in (newest.saturating_sub(1)..=newest).rev() {
            if let Some(batch) = self.read(heads, number)?.1.batches.last() {
                found.state = batch.state;
                break;
            }
        }
        self.state = found.state;
        let mut ids: VecDeque<(LogId, Place)> = VecDeque::new();
        let mut sealed = false;
        for number in found.state.oldest..=newest {
            let (mut segment, contents) = self.read(heads, number)?;
            let here = start(segment.slot);
            let sealed_before = std::mem::take(&mut sealed);
            for batch in &contents.batches {
                let purged = batch.state.purged.map_or(0, |id| id.index + 1);
                for record in &batch.records {
                    match record {
                        Record::Entry { id, place } => {
                            let next = ids.back().map_or(id.index, |(last, _)| last.index + 1);
                            if id.index != next && id.index != purged {
                                return Err(damaged(format_args!("entry {} stands where entry {next} should", id.index)));
                            }
                            if id.index != next {
                                ids.clear();
                            }
                            ids.push_back((*id, Place { at: here + place.at, ..*place }));
                            segment.top = segment.top.max(Some(id.index));
                        }
                        Record::Truncate { from } => {
                            while ids.back().is_some_and(|(id, _)| id.index >= *from) {
                                ids.pop_back();
                            }
                        }
                        Record::Sealed if number == newest => {
                            return Err(damaged(format_args!("segment {} is missing", number + 1)));
                        }
                        Record::Sealed => sealed = true,
                    }
                }
            }
            segment.batches = contents.batches.len() as u32;
            segment.end = here + contents.end as u64;
            self.live.push_back(segment);
            if number == newest && !sealed_before {
                // The power went before the seal was durable.
                self.seal()?;
            }
        }
        let purged = found.state.purged.map_or(0, |id| id.index + 1);
        match ids.front() {
            Some((first, _)) if first.index > purged => {
                return Err(damaged(format_args!("entries {purged} to {} are missing", first.index - 1)));
            }
            _ => {}
        }
        found.last = ids.back().map(|(id, _)| *id).max(found.state.purged);
        ids.into_iter().for_each(|(id, place)| found.places.put(id.index, place));
        found.places.drop_below(purged);
        Ok(found)
    }

    /// Reads a segment that must be there.
    fn read(&self, heads: &BTreeMap<u64, (Head, u32)>, number: u64) -> io::Result<(Segment, Contents)> {
        let &(head, slot) = heads.get(&number).ok_or_else(|| damaged(format_args!("segment {number} is missing")))?;
        if head.slots > self.slots - slot {
            return Err(damaged(format_args!("it ends inside segment {number}")));
        }
        let mut bytes = vec![0; head.slots as usize * SLOT];
        self.file.read(start(slot), &mut bytes)?;
        let contents =
            read_segment(&bytes, self.secret, number).map_err(|(at, error)| damaged(format_args!("at byte {}: {error}", start(slot) + at as u64)))?;
        Ok((Segment::new(head, slot), contents))
    }

    /// Writes a batch and syncs. Says where in the file it stands.
    pub fn append(&mut self, batch: &mut BatchWriter) -> io::Result<u64> {
        let purged = self.state.purged.map(|id| id.index);
        let needed = |segment: &&Segment| segment.top > purged;
        self.state.oldest = self.live.iter().find(needed).or(self.live.back()).map_or(0, |segment| segment.head.number);
        let size = batch.size();
        if !self.live.back().is_some_and(|segment| segment.has_room(size)) {
            self.roll(size)?;
        }
        let (state, file) = (self.state, self.file.clone());
        let segment = self.live.back_mut().ok_or_else(|| io::Error::other("the log has no segment"))?;
        let at = segment.end;
        file.write(at, batch.finish(self.secret, segment.head.number, segment.batches, &state))?;
        file.sync_data()?;
        segment.batches += 1;
        segment.end += size as u64;
        segment.top = segment.top.max(batch.entries.last().map(|(id, _)| id.index));
        Ok(at)
    }

    /// Lets go of the segments that the last batch declared to be needed no more.
    pub fn release(&mut self) -> io::Result<()> {
        while self.live.front().is_some_and(|segment| segment.head.number < self.state.oldest) {
            self.live.pop_front();
        }
        let used = self.live.iter().map(|segment| segment.slots().end).max().unwrap_or(0);
        if used + SPARE < self.slots {
            self.slots = used + SPARE;
            self.file.set_len(start(self.slots))?;
        }
        Ok(())
    }

    /// Begins the next segment, with room for a batch of that size. Its head is durable before the seal that speaks of it is written.
    fn roll(&mut self, size: usize) -> io::Result<()> {
        let number = self.live.back().map_or(0, |segment| segment.head.number + 1);
        self.begin(number, (size + 2 * BLOCK).div_ceil(SLOT) as u32)?;
        self.seal()
    }

    /// Says in the segment before the last that there is another. The next sync makes it durable: before anything in that other one is acknowledged.
    fn seal(&mut self) -> io::Result<()> {
        let Some(segment) = self.live.len().checked_sub(2).and_then(|at| self.live.get(at)) else { return Ok(()) };
        let mut seal = BatchWriter::new();
        seal.seal();
        self.file.write(segment.end, seal.finish(self.secret, segment.head.number, segment.batches, &self.state))
    }

    fn begin(&mut self, number: u64, slots: u32) -> io::Result<()> {
        let slot = self.room(slots)?;
        let head = Head { number, slots };
        self.file.write(start(slot), &head.encode(self.secret))?;
        self.file.sync_data()?;
        self.live.push_back(Segment::new(head, slot));
        Ok(())
    }

    /// The first of so many free slots in a row, after growing the file when there are none.
    fn room(&mut self, slots: u32) -> io::Result<u32> {
        let mut taken: Vec<_> = self.live.iter().map(Segment::slots).collect();
        taken.sort_by_key(|taken| taken.start);
        let mut slot = 0;
        for taken in taken {
            if taken.start >= slot + slots {
                break;
            }
            slot = slot.max(taken.end);
        }
        if slot + slots > self.slots {
            let zeros = vec![0; SLOT];
            let grown = (slot + slots).max(self.slots + GROWTH);
            // Grown by the zeros themselves: a length that was set first would stand for slots without room on the disk.
            let filled = (self.slots..grown).try_for_each(|new| self.file.write(start(new), &zeros)).and_then(|()| self.file.sync_data());
            if let Err(error) = filled {
                _ = self.file.set_len(start(self.slots));
                return Err(error);
            }
            self.slots = grown;
        }
        Ok(slot)
    }
}
