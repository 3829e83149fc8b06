//! Stored objects for tests, made from JSON as the proposer would.

use coracle_store::{Draft, Key, Meta, Object};
use serde_json::Value;
use std::sync::Arc;

/// A stored object; namespace, name, uid, labels and owners are read from its metadata.
pub fn object(resource: &str, revision: u64, mut json: Value) -> Arc<Object> {
    let text = |json: &Value, path: &str| json.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let key = Key::new(resource, text(&json, "/metadata/namespace"), text(&json, "/metadata/name"));
    let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (name, value) in json.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        labels.push((name.as_str().into(), value.as_str().unwrap_or_default().into()));
    }
    labels.sort();
    let owners = json.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut owners: Vec<Box<str>> = owners.map(|owner| text(owner, "/uid").into()).collect();
    owners.sort();
    let meta = Meta { uid: text(&json, "/metadata/uid").into(), labels, owners, ..Meta::default() };
    json["metadata"]["resourceVersion"] = Value::from("@hole@");
    let text = json.to_string();
    let hole = text.find("@hole@").expect("the mark");
    let draft = Draft { json: text.replace("@hole@", "").into(), hole: hole as u32, meta: Arc::new(meta) };
    Object::from_draft(key, &draft, revision)
}
