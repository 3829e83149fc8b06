//! Creates, updates and patches: what changed belongs to who changed it.

use super::entries::{self, Entry};
use super::{Deltas, STRIPPED, Writer, list_of};
use crate::Schema;
use serde_json::Value;

impl Schema {
    /// The `metadata.managedFields` of an object that is about to be written. `live` is what is stored; None when the object is new.
    ///
    /// The list in `new` counts if it is a good one (clients may edit it), an empty one or one empty entry (`[{}]`) forgets everything; a
    /// write of a subresource cannot change it. Objects without a list stay without one until they are applied.
    pub fn track(&self, live: Option<&Value>, new: &Value, writer: &Writer<'_>) -> Option<Value> {
        let stored = live.and_then(list_of);
        let sent = list_of(new).filter(|_| writer.subresource.is_empty());
        if sent.is_some_and(entries::is_reset) && live.is_some() {
            return None;
        }
        // Most clients send back what they got.
        let edited = sent.filter(|sent| Some(*sent) != stored).cloned().and_then(entries::sent).filter(|entries| !entries.is_empty());
        if edited.is_none() && stored.is_none() && live.is_some() {
            return None;
        }
        let nothing;
        let before = match live {
            Some(live) => live,
            None => {
                nothing = self.nothing();
                &nothing
            }
        };
        let delta = writer.delta(self, before, new);
        if delta.is_empty() && edited.is_none() {
            return stored.cloned();
        }
        let mut entries = edited.unwrap_or_else(|| stored.cloned().map(entries::stored).unwrap_or_default());
        let mut deltas = Deltas::new(writer, before, new, self.api_version(), delta);
        self.note(&mut entries, &mut deltas, writer);
        entries::write(entries)
    }

    /// Takes what changed from everybody and gives it to the writer.
    pub(super) fn note(&self, entries: &mut Vec<Entry>, deltas: &mut Deltas<'_>, writer: &Writer<'_>) {
        entries.retain_mut(|entry| {
            if entry.api_version == self.api_version() {
                super::reconcile::reconcile(self.view(), entry.fields.root_mut());
            }
            match deltas.at(&entry.api_version) {
                Some(delta) => delta.take_from(&mut entry.fields),
                None => return false,
            }
            !entry.fields.is_empty()
        });
        let mut mine = writer.entry(false, self.api_version());
        if let Some(delta) = deltas.at(&mine.api_version) {
            mine.fields = delta.touched.clone();
        }
        mine.strip();
        if mine.fields.is_empty() {
            return;
        }
        let at = match entries.iter().position(|entry| entry.is_of(&mine)) {
            Some(at) => {
                if let Some(entry) = entries.get_mut(at) {
                    entry.fields.unite(std::mem::take(&mut mine.fields));
                }
                at
            }
            None => {
                entries.push(mine);
                entries.len() - 1
            }
        };
        if let Some(entry) = entries.get_mut(at) {
            entry.time = Some(writer.now.into());
        }
        entries::cap(entries);
    }
}

impl Entry {
    /// Drops what is nobody's.
    pub(super) fn strip(&mut self) {
        for path in STRIPPED {
            self.fields.drop_one(path);
        }
    }
}
