use super::journal::{Found, Journal};
use crate::raft::{Entry, LogId, Proposal, Vote};
use crate::record::{self, BLOCK, BatchWriter, FILE_HEAD, Head, SLOT};
use crate::{Draft, Expect, Key, Op, Txn};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Event {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
}

/// A disk in memory that remembers what was done to it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<Event>)>>);

impl Disk {
    fn of(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new((bytes, Vec::new()))))
    }
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().0.clone()
    }
    fn events(&self) -> Vec<Event> {
        self.0.lock().1.clone()
    }
    fn open(&self) -> io::Result<(Journal, Found)> {
        Journal::open(Arc::new(self.clone()))
    }
}

fn write_at(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    file.resize(file.len().max(offset + data.len()), 0);
    file[offset..offset + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().0.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock();
        let from = disk.0.get(offset as usize..offset as usize + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut disk = self.0.lock();
        disk.0.resize(len as usize, 0);
        disk.1.push(Event::SetLen(len as usize));
        Ok(())
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.lock().1.push(Event::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut disk = self.0.lock();
        write_at(&mut disk.0, offset as usize, data);
        disk.1.push(Event::Write(offset as usize, data.to_vec()));
        Ok(())
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

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

/// Its document is made of what would be heads and batches if their beginning could be guessed.
fn entry(term: u64, index: u64, size: usize) -> Entry {
    let mut fake = BatchWriter::new();
    fake.truncate(0);
    let fakes = [Head { number: 99, slots: 1 }.encode(1), fake.finish(1, 0, 99, &Default::default()).to_vec()].concat();
    let json = fakes.iter().copied().cycle().take(size).collect::<Vec<u8>>().into();
    let op = Op::Put { key: Key::new("r", "n", "x"), expect: Expect::Any, draft: Draft { json, hole: 0, meta: Default::default() } };
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Proposal(Arc::new(Txn { ops: vec![op] }))) }
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().copied().max(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }
}

/// What it holds, every entry read back.
fn held(disk: &Disk, found: &Found) -> Model {
    let entries = found.places.range(0..u64::MAX).map(|(index, place)| {
        let mut bytes = vec![0; place.len as usize];
        disk.read(place.at, &mut bytes).unwrap();
        let entry = record::decode_entry(&bytes).unwrap();
        assert_eq!(entry.log_id.index, index);
        entry.log_id
    });
    let model = Model { vote: found.state.vote, purged: found.state.purged, entries: entries.collect() };
    assert_eq!(found.last, model.last());
    model
}

enum Act {
    Append { term: u64, sizes: Vec<usize> },
    Vote(u64),
    Truncate(u64),
    Purge(u64),
}

fn act(journal: &mut Journal, model: &mut Model, act: Act) {
    let mut batch = BatchWriter::new();
    let mut purges = false;
    match act {
        Act::Append { term, sizes } => {
            for size in sizes {
                let entry = entry(term, model.next(), size);
                batch.entry(&entry);
                model.entries.push(entry.log_id);
            }
        }
        Act::Vote(term) => {
            model.vote = Some(Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true });
            journal.state.vote = model.vote;
        }
        Act::Truncate(from) => {
            batch.truncate(from);
            model.entries.retain(|id| id.index < from);
        }
        Act::Purge(upto) => {
            let known = model.entries.iter().find(|id| id.index == upto).copied();
            let term = model.last().map_or(1, |id| id.leader_id.term);
            model.purged = model.purged.max(Some(known.unwrap_or(id(term, upto))));
            model.entries.retain(|id| id.index > upto);
            journal.state.purged = model.purged;
            purges = true;
        }
    }
    journal.append(&mut batch).unwrap();
    if purges {
        journal.release().unwrap();
    }
}

fn some_act(dice: &mut Dice, model: &Model) -> Act {
    let (next, first) = (model.next(), model.entries.first().map_or(model.next(), |id| id.index));
    let term = model.last().map_or(1, |id| id.leader_id.term);
    match dice.roll(10) {
        0 => Act::Vote(dice.roll(100) as u64),
        1 if next > first => Act::Truncate(next - dice.roll((next - first) as usize) as u64),
        2 if next > first => Act::Purge(first + dice.roll((next - first) as usize) as u64),
        // A snapshot from elsewhere.
        3 if dice.roll(4) == 0 => Act::Purge(next + 5),
        4 => Act::Append { term: term + 1, sizes: vec![dice.roll(4 * SLOT)] },
        _ => Act::Append { term, sizes: (0..1 + dice.roll(4)).map(|_| dice.roll(SLOT / 3)).collect() },
    }
}

#[test]
fn what_was_written_is_found() {
    for seed in 0..20 {
        let (mut dice, disk, mut model) = (Dice(seed), Disk::default(), Model::default());
        for _ in 0..15 {
            let (mut journal, found) = disk.open().unwrap();
            assert_eq!(held(&disk, &found), model);
            for _ in 0..dice.roll(12) {
                let next = some_act(&mut dice, &model);
                act(&mut journal, &mut model, next);
            }
        }
    }
}

/// What a write under way leaves of its sectors when the power goes.
fn torn(dice: &mut Dice, image: &mut Vec<u8>, offset: usize, data: &[u8], sector: usize) {
    let mut at = offset;
    while at < offset + data.len() {
        let next = ((at / sector + 1) * sector).min(offset + data.len());
        match dice.roll(3) {
            0 => {}
            1 => write_at(image, at, &data[at - offset..next - offset]),
            // Neither the old nor the new, and all of the sector.
            _ => write_at(image, at / sector * sector, &vec![0xa5; sector]),
        }
        at = next;
    }
}

/// The power goes after any write: of what was not synced, any sectors may be on the disk, and any may be spoilt, whether they have 512 or 4,096 bytes.
#[test]
fn power_loss_takes_nothing_that_was_synced() {
    for seed in 0..12 {
        let (mut dice, disk, mut model) = (Dice(seed), Disk::default(), Model::default());
        // How many events there were when each state was reached.
        let mut states = vec![(0, model.clone())];
        let (mut journal, _) = disk.open().unwrap();
        for _ in 0..25 {
            let next = some_act(&mut dice, &model);
            act(&mut journal, &mut model, next);
            states.push((disk.events().len(), model.clone()));
        }
        let events = disk.events();
        let sector = if seed % 2 == 0 { 512 } else { 4096 };
        let (mut durable, mut loose): (Vec<u8>, Vec<&Event>) = Default::default();
        // Until the first segment is there, a file that holds anything else is refused, and nothing has been acknowledged.
        let begun = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Sync)).nth(2).map_or(0, |(at, _)| at);
        for (at, event) in events.iter().enumerate() {
            loose.push(event);
            if matches!(event, Event::Sync) {
                for event in loose.drain(..) {
                    match event {
                        Event::Write(offset, data) => write_at(&mut durable, *offset, data),
                        Event::SetLen(len) => durable.resize(*len, 0),
                        Event::Sync => {}
                    }
                }
            }
            for _ in 0..4 {
                let mut image = durable.clone();
                for event in &loose {
                    match event {
                        Event::Write(offset, data) if at > begun => torn(&mut dice, &mut image, *offset, data, sector),
                        Event::Write(offset, data) => {
                            for (n, part) in data.chunks(sector).enumerate() {
                                if dice.roll(2) == 0 {
                                    write_at(&mut image, offset + n * sector, part);
                                }
                            }
                        }
                        Event::SetLen(len) if dice.roll(2) == 0 => image.resize(*len, 0),
                        Event::SetLen(_) | Event::Sync => {}
                    }
                }
                let disk = Disk::of(image);
                let (mut journal, found) = disk.open().unwrap_or_else(|error| panic!("seed {seed} event {at}: {error}"));
                let reached = states.iter().rposition(|(events, _)| *events <= at + 1).unwrap();
                let mut now = held(&disk, &found);
                let expected = &states[reached..states.len().min(reached + 2)];
                assert!(expected.iter().any(|(_, model)| *model == now), "seed {seed} event {at}: {now:?} and not one of {expected:?}");
                // And it goes on from there.
                act(&mut journal, &mut now, Act::Append { term: 1000, sizes: vec![10] });
                assert_eq!(held(&disk, &disk.open().unwrap().1), now);
            }
        }
    }
}

/// Every byte of a log would be billions of bytes read: so many apart, and no power of two.
const STEP: usize = 11;

/// A log over several segments, its first ones let go; what it is without its last batch, and where that is.
fn some_log() -> (Disk, Model, Model, Range<usize>) {
    let (disk, mut model) = (Disk::default(), Model::default());
    let (mut journal, _) = disk.open().unwrap();
    act(&mut journal, &mut model, Act::Vote(3));
    for n in 0..12 {
        act(&mut journal, &mut model, Act::Append { term: 3, sizes: vec![SLOT / 4, 1] });
        if n == 7 {
            act(&mut journal, &mut model, Act::Purge(9));
        }
    }
    let before = model.clone();
    act(&mut journal, &mut model, Act::Append { term: 3, sizes: vec![2 * BLOCK] });
    let last = disk.events().iter().rev().find_map(|event| if let Event::Write(at, data) = event { Some(*at..at + data.len()) } else { None });
    (disk, model, before, last.unwrap())
}

#[test]
fn a_torn_end_is_cut_wherever_it_is_torn() {
    let (disk, model, before, last) = some_log();
    let bytes = disk.bytes();
    for old in [0u8, 0xff] {
        let mut taken = 0;
        for cut in (last.start..=last.end).step_by(STEP) {
            let mut torn = bytes.clone();
            torn[cut..last.end].fill(old);
            let disk = Disk::of(torn);
            let found = held(&disk, &disk.open().unwrap().1);
            if found == model {
                taken += 1;
            } else {
                assert_eq!((found, taken), (before.clone(), 0), "cut at {cut}");
            }
        }
        assert!(taken > 0 && taken * STEP <= BLOCK, "whole without its last {} bytes", taken * STEP);
        // The other way round: the end is there and the beginning is not.
        for cut in (last.start + 1..last.end - BLOCK).step_by(STEP) {
            let mut torn = bytes.clone();
            torn[last.start..cut].fill(old);
            let disk = Disk::of(torn);
            assert_eq!(held(&disk, &disk.open().unwrap().1), before);
        }
    }
}

#[test]
fn a_flipped_bit_changes_nothing_or_is_refused() {
    let (disk, model, before, last) = some_log();
    let bytes = disk.bytes();
    let (mut refused, mut cut) = (0, 0);
    for at in (0..bytes.len()).step_by(STEP) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let disk = Disk::of(flipped);
        match disk.open() {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("backup") || error.contains("version"), "{error}");
                refused += 1;
            }
            Ok((_, found)) if last.contains(&at) && held(&disk, &found) == before => cut += 1,
            Ok((_, found)) => assert_eq!(held(&disk, &found), model, "byte {at}"),
        }
    }
    assert!(refused * STEP > SLOT && cut * STEP > 2 * BLOCK, "{refused} refused, {cut} cut");
}

#[test]
fn a_missing_segment_is_named() {
    let (disk, model, _, last) = some_log();
    let (bytes, end) = (disk.bytes(), last.end);
    let mut missing = Vec::new();
    for slot in (FILE_HEAD..bytes.len()).step_by(SLOT) {
        let mut gone = bytes.clone();
        gone[slot..slot + SLOT].fill(0);
        let disk = Disk::of(gone);
        match disk.open() {
            Err(error) => missing.push(error.to_string()),
            Ok((_, found)) => assert_eq!(held(&disk, &found), model, "a slot that is not needed"),
        }
        // Nor is a file accepted that ends before what is needed. (One that ends with its head is as a new one; the state file then tells.)
        let disk = Disk::of(bytes[..slot].to_vec());
        match disk.open() {
            Err(error) => assert!(error.to_string().contains("backup"), "{error}"),
            Ok((_, found)) => assert!(slot == FILE_HEAD || slot >= end && held(&disk, &found) == model, "cut at {slot}"),
        }
    }
    assert!(missing.len() >= 4 && missing.iter().all(|error| error.contains("missing") && error.contains("backup")), "{missing:?}");
}

#[test]
fn slots_are_used_again() {
    let (disk, mut model) = (Disk::default(), Model::default());
    let (mut journal, _) = disk.open().unwrap();
    // A big one makes the file grow, and it shrinks again.
    act(&mut journal, &mut model, Act::Append { term: 1, sizes: vec![40 * SLOT] });
    assert!(disk.len().unwrap() as usize > 40 * SLOT);
    for _ in 0..400 {
        act(&mut journal, &mut model, Act::Append { term: 1, sizes: vec![SLOT / 2] });
        let old = model.next().saturating_sub(3);
        act(&mut journal, &mut model, Act::Purge(old));
    }
    assert!(disk.len().unwrap() as usize <= FILE_HEAD + 24 * SLOT, "{}", disk.len().unwrap());
    assert_eq!(held(&disk, &disk.open().unwrap().1), model);
}

#[test]
fn a_file_that_is_no_log_is_refused_and_an_empty_one_begun() {
    for empty in [vec![], vec![0; 10], vec![0; FILE_HEAD], vec![0; FILE_HEAD + 3 * SLOT + 5]] {
        assert_eq!(Disk::of(empty).open().unwrap().1.last, None);
    }
    for strange in [b"text".to_vec(), [vec![0; FILE_HEAD + 2 * SLOT], vec![1]].concat()] {
        assert!(Disk::of(strange).open().err().unwrap().to_string().contains("no segment"));
    }
    let error = Disk::of([b"\x01coralog\n".to_vec(), vec![1; 2 * FILE_HEAD]].concat()).open().err().unwrap().to_string();
    assert!(error.contains("earlier version"), "{error}");
    let (disk, ..) = some_log();
    let mut newer = disk.bytes();
    newer[0] += 1;
    let error = Disk::of(newer).open().err().unwrap().to_string();
    assert!(error.contains("version 2") && error.contains("reads version 1"), "{error}");
}
