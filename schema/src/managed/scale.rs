//! Managed fields of the `scale` subresource: those of the object that have its count, and back (apimachinery's `ScaleHandler`).

use super::element;
use super::entries::{self, Entry};
use super::fields::FieldSet;
use super::list_of;
use serde_json::Value;

const SCALE: &str = "autoscaling/v1";
const COUNT: [&str; 2] = ["f:spec", "f:replicas"];

fn keys(path: &str) -> Vec<String> {
    path.split('.').map(element::field).collect()
}

fn has(entry: &Entry, path: &[String]) -> bool {
    entry.fields.has(&path.iter().map(String::as_str).collect::<Vec<_>>())
}

fn only(path: &[&str]) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(path);
    set
}

/// `metadata.managedFields` of the scale of an object whose count is at the dotted `path`; None when nobody manages it.
pub fn to_scale(object: &Value, path: &str) -> Option<Value> {
    let path = keys(path);
    let entries = entries::stored(list_of(object)?.clone());
    let entries = entries.into_iter().filter(|entry| has(entry, &path));
    entries::write(entries.map(|entry| Entry { api_version: SCALE.into(), fields: only(&COUNT), ..entry }).collect())
}

/// `metadata.managedFields` of an object after a write of its scale: the count goes from who lost it to who has it now.
pub fn from_scale(object: &Value, scale: &Value, api_version: &str, path: &str) -> Option<Value> {
    let path = keys(path);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut scaled = list_of(scale).cloned().map(entries::stored).unwrap_or_default();
    let mut entries = list_of(object).cloned().map(entries::stored).unwrap_or_default();
    entries.retain_mut(|entry| {
        if !entry.fields.has(&path) {
            return true;
        }
        // The same manager in the scale's own version: an update's entry changes its name on the way, an apply's does not.
        let own = scaled.iter().position(|its| its.apply == entry.apply && its.manager == entry.manager && its.subresource == entry.subresource);
        match own {
            Some(at) => drop(scaled.remove(at)),
            None => entry.fields.drop_one(&path),
        }
        !entry.fields.is_empty()
    });
    for entry in scaled {
        if entry.fields.has(&COUNT) {
            entries.push(Entry { api_version: api_version.into(), time: None, fields: only(&path), ..entry });
        }
    }
    entries::write(entries)
}
