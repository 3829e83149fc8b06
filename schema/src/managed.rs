//! Who manages which fields: `metadata.managedFields` and server-side apply (KEP-555). Pure.
//!
//! Follows structured-merge-diff and apimachinery's `managedfields`, on JSON values: [`Schema::track`] notes what a create, update or patch changed,
//! [`Schema::apply`] merges what a manager wants into what is there. Sets of fields are kept in the form in which they are stored, objects
//! are compared once a write, and a write that changes nothing touches nothing.
//! What is compared is what the writer sent, before admission and defaults that depend on the cluster: those are nobody's.

mod apply;
mod check;
mod compare;
mod element;
mod entries;
mod fields;
mod last_applied;
mod merge;
mod reconcile;
mod remove;
mod scale;
#[cfg(test)]
mod tests;
mod track;
mod view;

pub use check::go;
pub use scale::{from_scale, to_scale};

pub(crate) use check::check;
pub(crate) use merge::merge;
pub(crate) use view::{Spot, View};

use crate::Schema;
use compare::Delta;
use entries::Entry;
use fields::FieldSet;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A write, as far as managers of fields go.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Who writes: `kubectl`.
    pub manager: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// RFC 3339, whole seconds.
    pub now: &'a str,
    /// What this write can change at all.
    pub reach: Reach<'a>,
    /// Other versions of the kind.
    pub versions: &'a dyn Versions,
}

/// What a write through a path can change, as dotted paths.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// Everything but these: `status`, of the main resource.
    Without(&'a [&'a str]),
    /// Nothing but these; `*` is any element. `spec.containers.*.resources`, of a resize.
    Only(&'a [&'a str]),
}

/// The versions in which a kind is known besides the one that is written.
pub trait Versions: Sync {
    /// The schema of another version, and the object in it. None where there is no such version any more: what was managed in it is forgotten.
    fn at(&self, api_version: &str, object: &Value) -> Option<(Arc<Schema>, Value)>;
}

/// A kind with one version.
#[derive(Clone, Copy, Debug)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn at(&self, _: &str, _: &Value) -> Option<(Arc<Schema>, Value)> {
        None
    }
}

const MANAGED_FIELDS: &str = "managedFields";

/// What is nobody's, since the server says it.
const STRIPPED: [&[&str]; 12] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// The list of an object.
fn list_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get(MANAGED_FIELDS)
}

/// Takes the list out of an object.
pub fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(MANAGED_FIELDS)
}

/// Gives an object this list, or none.
pub fn put(object: &mut Value, list: Option<Value>) {
    let Some(list) = list else {
        take(object);
        return;
    };
    if let Some(object) = object.as_object_mut()
        && let Value::Object(metadata) = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()))
    {
        metadata.insert(MANAGED_FIELDS.into(), list);
    }
}

impl Writer<'_> {
    /// What this writer's writes are kept under.
    fn entry(&self, apply: bool, api_version: String) -> Entry {
        Entry {
            manager: if self.manager.is_empty() { "unknown".into() } else { self.manager.into() },
            apply,
            api_version,
            subresource: self.subresource.into(),
            time: None,
            fields: FieldSet::default(),
        }
    }

    /// Leaves out of a set what the writer cannot change.
    fn limit(&self, set: &mut FieldSet) {
        let keys = |path: &str| -> Vec<String> { path.split('.').map(element::field).collect() };
        match self.reach {
            Reach::Without(paths) => {
                for path in paths {
                    set.forget(&keys(path).iter().map(String::as_str).collect::<Vec<_>>());
                }
            }
            Reach::Only(paths) => set.keep(&paths.iter().map(|path| keys(path)).collect::<Vec<_>>()),
        }
        set.forget(&["f:metadata", "f:managedFields"]);
    }

    /// What changed, without what the writer cannot change.
    fn delta(&self, schema: &Schema, before: &Value, after: &Value) -> Delta {
        let mut delta = Delta::between(schema.view(), before, after);
        if !delta.is_empty() {
            self.limit(&mut delta.removed);
            self.limit(&mut delta.touched);
        }
        delta
    }
}

/// What changed in the version that is written, and in those that entries were written in.
struct Deltas<'a> {
    writer: &'a Writer<'a>,
    before: &'a Value,
    after: &'a Value,
    known: Vec<(String, Option<Delta>)>,
}

impl<'a> Deltas<'a> {
    fn new(writer: &'a Writer<'a>, before: &'a Value, after: &'a Value, own: String, delta: Delta) -> Self {
        Deltas { writer, before, after, known: vec![(own, Some(delta))] }
    }

    /// None where the version is gone.
    fn at(&mut self, api_version: &str) -> Option<&Delta> {
        let at = match self.known.iter().position(|(version, _)| version == api_version) {
            Some(at) => at,
            None => {
                let versions = self.writer.versions;
                let delta = versions.at(api_version, self.before).zip(versions.at(api_version, self.after));
                let delta = delta.map(|((schema, before), (_, after))| self.writer.delta(&schema, &before, &after));
                self.known.push((api_version.into(), delta));
                self.known.len() - 1
            }
        };
        self.known.get(at)?.1.as_ref()
    }
}

impl Schema {
    /// An object of the kind that says nothing, as Go has it: with the structs and zeros that are always written.
    fn nothing(&self) -> Value {
        let mut object = self.zero();
        object.insert("apiVersion".into(), self.api_version().into());
        object.insert("kind".into(), self.kind().into());
        Value::Object(object)
    }
}

/// An object that is about to be written and differs from the stored one in nothing but the times of its managed fields gets the stored ones: then it
/// is not written.
pub fn keep_times(stored: &Value, new: &mut Value) {
    if entries::only_times(stored, new) {
        put(new, list_of(stored).cloned());
    }
}
