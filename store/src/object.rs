//! What the store keeps: keys, the metadata it indexes, drafts with a hole, and stored objects that carry their exact bytes.
//!
//! The serializer runs once, at the proposer. A draft is canonical JSON in which the place of `metadata.resourceVersion` is left open; applying a log entry
//! only fills in the decimal revision. Rejected: parsing and printing at apply (slower, and a library's output must then never change between versions), and a
//! revision kept beside the bytes (every reader would have to patch them).

use bytes::Bytes;
use std::cmp::Ordering;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Where an object lives. Order is (resource, namespace, name), which is also list order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Resource id as `coracle_api::Resource::id()` gives it: `pods`, `deployments.apps`; internal ones begin with `~`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped.
    pub namespace: Arc<str>,
    /// The object's name; unique in its resource and namespace.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its three parts.
    pub fn new(resource: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.resource, self.name)
        } else {
            write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}

/// What the store indexes and what watchers match on; fixed by the proposer. All lists sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// uids of `metadata.ownerReferences`.
    pub owners: Vec<Box<str>>,
    /// Selectable fields: dotted path → value (`spec.nodeName` → `n1`).
    pub fields: Vec<(Box<str>, Box<str>)>,
}

impl Meta {
    /// The value of an indexed field.
    pub fn field(&self, path: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| &**k == path).map(|(_, v)| &**v)
    }

    /// Bytes of heap it takes, roughly.
    pub(crate) fn weight(&self) -> usize {
        let pair = |(k, v): &(Box<str>, Box<str>)| k.len() + v.len() + 48;
        96 + self.uid.len()
            + self.labels.iter().map(pair).sum::<usize>()
            + self.fields.iter().map(pair).sum::<usize>()
            + self.owners.iter().map(|o| o.len() + 32).sum::<usize>()
    }
}

/// Canonical JSON with a hole: the decimal revision is inserted at `hole` when the entry is applied.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The document, without the digits of its resourceVersion (`… "resourceVersion":"" …`, the hole between the quotes).
    pub json: Bytes,
    /// Byte offset in `json` where the digits go.
    pub hole: u32,
    /// Parsed metadata of the same document.
    pub meta: Arc<Meta>,
}

/// How many other encodings of an object are remembered.
const ENCODINGS: usize = 4;
/// Most bytes of other encodings that the objects of a process keep; what is asked for beyond is made for that reader alone.
const KEPT_MOST: usize = 64 << 20;
/// Bytes of other encodings that are kept.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A stored object: its exact bytes (what GET, LIST and WATCH send), shared.
pub struct Object {
    /// Where it lives.
    pub key: Key,
    /// The revision of its last write, which is its `metadata.resourceVersion`.
    pub revision: u64,
    /// The document as sent to clients.
    pub json: Bytes,
    /// Its indexed metadata.
    pub meta: Arc<Meta>,
    hole: u32,
    encodings: OnceLock<Box<[OnceLock<Bytes>; ENCODINGS]>>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.key, self.revision, self.json.len())
    }
}

impl Object {
    /// The object a draft becomes at a revision. A hole past the end is clamped (the proposer's check refuses it before it gets here).
    pub fn from_draft(key: Key, draft: &Draft, revision: u64) -> Arc<Object> {
        let hole = (draft.hole as usize).min(draft.json.len());
        let json = splice(&draft.json[..hole], revision, &draft.json[hole..]);
        Arc::new(Object { key, revision, json, meta: draft.meta.clone(), hole: hole as u32, encodings: OnceLock::new() })
    }

    /// An object read back from disk; `None` when the parts do not fit together.
    pub(crate) fn from_stored(key: Key, revision: u64, json: Bytes, meta: Meta, hole: u32) -> Option<Arc<Object>> {
        let object = Object { key, revision, json, meta: Arc::new(meta), hole, encodings: OnceLock::new() };
        let digits = object.json.get(hole as usize..object.tail_start())?;
        (digits == revision.to_string().as_bytes()).then(|| Arc::new(object))
    }

    pub(crate) fn hole(&self) -> u32 {
        self.hole
    }

    fn tail_start(&self) -> usize {
        self.hole as usize + decimal_len(self.revision)
    }

    /// Whether writing this draft would change nothing: same bytes around the hole, same metadata.
    pub(crate) fn same_as(&self, draft: &Draft) -> bool {
        let hole = self.hole as usize;
        draft.hole == self.hole
            && draft.json.len() + decimal_len(self.revision) == self.json.len()
            && draft.json[..hole] == self.json[..hole]
            && draft.json[hole..] == self.json[self.tail_start()..]
            && *draft.meta == *self.meta
    }

    /// The same object carrying another resourceVersion (DELETED events; objects that leave a selector).
    pub fn at_revision(&self, revision: u64) -> Arc<Object> {
        let json = splice(&self.json[..self.hole as usize], revision, &self.json[self.tail_start()..]);
        Arc::new(Object { key: self.key.clone(), revision, json, meta: self.meta.clone(), hole: self.hole, encodings: OnceLock::new() })
    }

    /// Another encoding of this object, made once and shared by all readers while there is room (64 MiB over all objects of the process). `slot` 0..4 is chosen by
    /// the caller (0 = table row cells, 1 = protobuf, …); a larger slot is made anew at every call.
    pub fn encoding(&self, slot: usize, make: impl FnOnce() -> Bytes) -> Bytes {
        let Some(cell) = self.encodings.get_or_init(Default::default).get(slot) else { return make() };
        if let Some(known) = cell.get() {
            return known.clone();
        }
        let made = make();
        let room = |kept: usize| kept.checked_add(made.len()).filter(|sum| *sum <= KEPT_MOST);
        if KEPT.fetch_update(Relaxed, Relaxed, room).is_ok() && cell.set(made.clone()).is_err() {
            // Somebody else was faster.
            KEPT.fetch_sub(made.len(), Relaxed);
        }
        made
    }

    /// Bytes of heap it takes, roughly; what history is charged with.
    pub(crate) fn weight(&self) -> usize {
        self.json.len() + self.meta.weight() + self.key.name.len() + 256
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let kept = self.encodings.get().into_iter().flat_map(|slots| slots.iter()).filter_map(OnceLock::get);
        KEPT.fetch_sub(kept.map(Bytes::len).sum(), Relaxed);
    }
}

fn splice(head: &[u8], revision: u64, tail: &[u8]) -> Bytes {
    let digits = revision.to_string();
    let mut json = Vec::with_capacity(head.len() + digits.len() + tail.len());
    json.extend_from_slice(head);
    json.extend_from_slice(digits.as_bytes());
    json.extend_from_slice(tail);
    Bytes::from(json)
}

fn decimal_len(n: u64) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

/// One change: create (prev None), update (both), delete (new None; send prev at the change's revision, see [`Object::at_revision`]).
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision that made it.
    pub revision: u64,
    /// What was there before.
    pub prev: Option<Arc<Object>>,
    /// What is there now.
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The changed key. (A change has at least one side.)
    pub fn key(&self) -> Option<&Key> {
        self.new.as_ref().or(self.prev.as_ref()).map(|o| &o.key)
    }
}

/// An object's place in its resource's table, which is ordered by (namespace, name). The strings are shared with the object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl Place {
    pub fn of(key: &Key) -> Place {
        Place { namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// A position to look for: a name in a namespace, or (`name` None) the end of that namespace.
#[derive(Clone, Copy)]
pub(crate) struct Position<'a> {
    pub namespace: &'a str,
    pub name: Option<&'a str>,
}

impl<'a> Position<'a> {
    pub fn of(key: &'a Key) -> Position<'a> {
        Position { namespace: &key.namespace, name: Some(&key.name) }
    }
}

impl equivalent::Equivalent<Place> for Position<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.name == Some(&place.name) && self.namespace == &*place.namespace
    }
}

impl equivalent::Comparable<Place> for Position<'_> {
    fn compare(&self, place: &Place) -> Ordering {
        self.namespace.cmp(&place.namespace).then_with(|| self.name.map_or(Ordering::Greater, |name| name.cmp(&place.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_filled_and_refilled() {
        let draft = Draft { json: Bytes::from_static(b"{\"rv\":\"\",\"a\":1}"), hole: 7, meta: Default::default() };
        let nine = Object::from_draft(Key::new("r", "", "n"), &draft, 9);
        assert_eq!(&nine.json[..], b"{\"rv\":\"9\",\"a\":1}");
        assert!(nine.same_as(&draft));
        let ten = nine.at_revision(10);
        assert_eq!(&ten.json[..], b"{\"rv\":\"10\",\"a\":1}");
        assert!(ten.same_as(&draft));
        assert_eq!(&ten.at_revision(0).json[..], b"{\"rv\":\"0\",\"a\":1}");
        let other = Draft { json: Bytes::from_static(b"{\"rv\":\"\",\"a\":2}"), ..draft };
        assert!(!ten.same_as(&other));
    }

    #[test]
    fn encodings_are_made_once() {
        let draft = Draft { json: Bytes::from_static(b"{}"), hole: 1, meta: Default::default() };
        let object = Object::from_draft(Key::new("r", "", "n"), &draft, 1);
        assert_eq!(object.encoding(1, || Bytes::from_static(b"x")), "x");
        assert_eq!(object.encoding(1, || unreachable!()), "x");
        assert_eq!(object.encoding(0, || Bytes::from_static(b"y")), "y");
        let large = || Bytes::from(vec![0; KEPT_MOST + 1]);
        assert_eq!(object.encoding(2, large).len(), KEPT_MOST + 1);
        assert_eq!(object.encoding(2, Bytes::new).len(), 0, "what is too large is not kept");
    }

    #[test]
    fn stored_parts_must_fit() {
        let make = |rev, hole| Object::from_stored(Key::new("r", "", "n"), rev, Bytes::from_static(b"{12}"), Meta::default(), hole);
        assert!(make(12, 1).is_some());
        assert!(make(13, 1).is_none());
        assert!(make(12, 9).is_none());
    }
}
