//! Between values and stored objects: drafts with their index data, and back.

use coracle_api::{registry::Resource, status::Status};
use coracle_store::{Draft, Key, Meta, Object};
use serde_json::Value;
use std::sync::Arc;

/// Label and path of one `selectable` entry of a row (`a.b`, or `a.b|c` for the first that has text), with the value an absent field counts as.
pub fn selectable(entry: &str) -> (&str, &str, &str) {
    let (label, rest) = entry.split_once('=').unwrap_or((entry, entry));
    let (path, absent) = rest.split_once('?').unwrap_or((rest, ""));
    (label, path, absent)
}

/// The value at a dotted path; null when there is none.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, part| &value[part])
}

/// Sets the value at a dotted path, making objects on the way.
pub fn set(value: &mut Value, path: &str, new: Value) {
    let mut place = value;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Default::default());
        }
        place = &mut place[part];
    }
    *place = new;
}

fn pairs(map: &Value) -> Vec<(Box<str>, Box<str>)> {
    let mut pairs: Vec<(Box<str>, Box<str>)> =
        map.as_object().into_iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect();
    pairs.sort();
    pairs
}

fn index(selectable_by: &[Box<str>], object: &Value) -> Meta {
    let metadata = &object["metadata"];
    let mut owners: Vec<Box<str>> =
        metadata["ownerReferences"].as_array().into_iter().flatten().filter_map(|owner| owner["uid"].as_str()).map(Box::from).collect();
    owners.sort();
    owners.dedup();
    let mut fields: Vec<(Box<str>, Box<str>)> = selectable_by
        .iter()
        .filter_map(|entry| {
            let (label, path, absent) = selectable(entry);
            let text = |path| match at(object, path) {
                Value::String(text) => text.clone(),
                Value::Null => absent.to_owned(),
                other => other.to_string(),
            };
            let text: Box<str> = path.split('|').map(text).find(|text| !text.is_empty()).unwrap_or_default().into();
            (!text.is_empty()).then(|| (label.into(), text))
        })
        .collect();
    fields.sort();
    Meta { uid: metadata["uid"].as_str().unwrap_or_default().into(), labels: pairs(&metadata["labels"]), owners, fields }
}

/// What the store keeps of a value.
pub fn draft(row: &Resource, object: &Value) -> Draft {
    draft_by(&row.selectable, object)
}

/// The same for a value that can be selected by these fields.
pub fn draft_by(selectable: &[Box<str>], object: &Value) -> Draft {
    let (json, hole) = coracle_schema::to_draft(object);
    Draft { json, hole, meta: Arc::new(index(selectable, object)) }
}

/// Whether writing this draft would change nothing but the revision.
pub fn unchanged(stored: &Object, draft: &Draft) -> bool {
    let (stored, revision, hole) = (&stored.json, stored.revision.to_string(), draft.hole as usize);
    let (Some(head), Some(tail)) = (draft.json.get(..hole), draft.json.get(hole..)) else { return false };
    stored.len() == draft.json.len() + revision.len() && stored.starts_with(head) && stored.ends_with(tail)
}

/// The stored bytes as a value.
pub fn parse(object: &Object) -> Result<Value, Status> {
    serde_json::from_slice(&object.json).map_err(|error| {
        let Key { resource, namespace, name } = &object.key;
        Status::internal(format_args!("stored {resource} {namespace}/{name} cannot be read: {error}"))
    })
}

/// A value as it will read once stored at a revision (dry-run answers).
pub fn with_revision(mut object: Value, revision: u64) -> Value {
    if object["metadata"].is_object() {
        object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn index_data_is_sorted_and_knows_absent_values() {
        let row = coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == "pods").expect("pods");
        let pod = json!({"metadata": {"uid": "u", "labels": {"b": "2", "a": "1"}, "ownerReferences": [{"uid": "z"}, {"uid": "y"}]},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let meta = index(&row.selectable, &pod);
        assert_eq!(meta.labels, vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert_eq!(meta.owners, vec!["y".into(), "z".into()]);
        assert_eq!(
            meta.fields,
            vec![("spec.hostNetwork".into(), "false".into()), ("spec.nodeName".into(), "n1".into()), ("status.phase".into(), "Running".into())]
        );
    }

    #[test]
    fn paths_are_read_and_set() {
        let mut value = json!({"a": {"b": 1}});
        set(&mut value, "a.c.d", json!(2));
        assert_eq!(value, json!({"a": {"b": 1, "c": {"d": 2}}}));
        assert_eq!(at(&value, "a.c.d"), &json!(2));
        assert_eq!(at(&value, "x.y"), &Value::Null);
        assert_eq!(selectable("source=source.component"), ("source", "source.component", ""));
        assert_eq!(selectable("a.b=a.b?false"), ("a.b", "a.b", "false"));
        assert_eq!(selectable("a.b"), ("a.b", "a.b", ""));
    }
}
