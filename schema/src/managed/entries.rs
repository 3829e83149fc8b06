//! `metadata.managedFields` as a list of entries: read, put in order, capped, written.

use super::fields::FieldSet;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most entries of updates that are kept apart, as upstream; the oldest are put together then.
const MAX_UPDATES: usize = 10;
/// The manager whose changes nobody can be asked about any more.
const ANCIENT: &str = "ancient-changes";

/// One manager's fields.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub manager: String,
    /// `Apply`, or else `Update`.
    pub apply: bool,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339, whole seconds.
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both are the same manager's: what is applied counts for every version of the kind.
    pub(crate) fn is_of(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.apply == other.apply
            && self.subresource == other.subresource
            && (self.apply || self.api_version == other.api_version)
    }

    /// `"kubectl" with subresource "status" using apps/v1`, as messages about conflicts show it.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.apply {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    fn read(value: Value, fields: fn(Value) -> Option<FieldSet>) -> Option<Entry> {
        let Value::Object(mut entry) = value else { return None };
        let mut text = |key: &str| match entry.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let apply = match text("operation").as_str() {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let (api_version, kind) = (text("apiVersion"), text("fieldsType"));
        if api_version.is_empty() || kind != "FieldsV1" {
            return None;
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), Some(text("time")).filter(|time| !time.is_empty()));
        let fields = match entry.remove("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(value) => fields(value)?,
        };
        Some(Entry { manager, apply, api_version, subresource, time, fields })
    }

    fn write(self) -> Value {
        let mut entry = Map::new();
        let mut put = |key: &str, text: String| {
            if !text.is_empty() {
                entry.insert(key.into(), Value::String(text));
            }
        };
        put("manager", self.manager);
        put("operation", if self.apply { "Apply" } else { "Update" }.into());
        put("apiVersion", self.api_version);
        put("time", self.time.unwrap_or_default());
        put("fieldsType", "FieldsV1".into());
        put("subresource", self.subresource);
        entry.insert("fieldsV1".into(), self.fields.into_value());
        Value::Object(entry)
    }
}

/// The entries of a list that the server wrote.
pub(crate) fn stored(list: Value) -> Vec<Entry> {
    let Value::Array(list) = list else { return Vec::new() };
    list.into_iter().filter_map(|entry| Entry::read(entry, |fields| Some(FieldSet::stored(fields)))).collect()
}

/// The entries of a list that a client sent; None if one of them is none.
pub(crate) fn sent(list: Value) -> Option<Vec<Entry>> {
    let Value::Array(list) = list else { return None };
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    for entry in list {
        let entry = Entry::read(entry, FieldSet::parse)?;
        // Of two entries of one manager the last counts.
        entries.retain(|other| !other.is_of(&entry));
        entries.push(entry);
    }
    Some(entries)
}

/// Whether a client asks for the list to be forgotten: an empty list, or one empty entry.
pub(crate) fn is_reset(list: &Value) -> bool {
    match list {
        Value::Array(list) => match list.as_slice() {
            [] => true,
            [Value::Object(entry)] => entry.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

/// The list to store; None when nobody manages anything. Those who applied come first, then the oldest.
pub(crate) fn write(mut entries: Vec<Entry>) -> Option<Value> {
    let order = |a: &Entry, b: &Entry| {
        (!a.apply, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(!b.apply, &b.time, &b.manager, &b.api_version, &b.subresource))
    };
    entries.sort_by(order);
    (!entries.is_empty()).then(|| Value::Array(entries.into_iter().map(Entry::write).collect()))
}

/// Puts the oldest updates of a version together until there are few enough.
pub(crate) fn cap(entries: &mut Vec<Entry>) {
    let mut updates = entries.iter().filter(|entry| !entry.apply).count();
    if updates <= MAX_UPDATES {
        return;
    }
    let (applied, mut old): (Vec<Entry>, Vec<Entry>) = std::mem::take(entries).into_iter().partition(|entry| entry.apply);
    *entries = applied;
    let key =
        |entry: &Entry| (entry.time.clone(), entry.manager != ANCIENT, entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone());
    old.sort_by_cached_key(key);
    // The first of a version waits for a second one before it gives up its name.
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Entry> = Vec::with_capacity(MAX_UPDATES);
    for entry in old {
        match first.get(&entry.api_version).copied() {
            Some(at) if updates > MAX_UPDATES => {
                if let Some(bucket) = kept.get_mut(at) {
                    bucket.manager = ANCIENT.into();
                    bucket.subresource = String::new();
                    bucket.time = entry.time;
                    bucket.fields.unite(entry.fields);
                    updates -= 1;
                }
            }
            None => {
                first.insert(entry.api_version.clone(), kept.len());
                kept.push(entry);
            }
            Some(_) => kept.push(entry),
        }
    }
    entries.append(&mut kept);
}

/// Whether two objects differ in nothing but the times of their managed fields.
pub(super) fn only_times(a: &Value, b: &Value) -> bool {
    fn alike(a: &Value, b: &Value, path: &[&str]) -> bool {
        let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
        let [special, rest @ ..] = path else { return a == b };
        a.len() == b.len()
            && a.iter().all(|(key, a)| match b.get(key) {
                None => false,
                Some(b) if key == special && rest.is_empty() => timeless(a, b),
                Some(b) if key == special => alike(a, b, rest),
                Some(b) => a == b,
            })
    }
    alike(a, b, &["metadata", super::MANAGED_FIELDS])
}

/// Whether two lists of entries are the same but for their times.
fn timeless(a: &Value, b: &Value) -> bool {
    let same = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let rest = |entry: &Map<String, Value>| entry.len() - usize::from(entry.contains_key("time"));
            rest(a) == rest(b) && a.iter().all(|(key, value)| key == "time" || b.get(key) == Some(value))
        }
        (a, b) => a == b,
    };
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(same),
        (a, b) => a == b,
    }
}
