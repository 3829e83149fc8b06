//! Lists that are sets or maps hold nothing twice (`schema/listtype`).

use super::{ListType, Node};
use coracle_api::{
    cause::{Mistake, Path},
    status::Cause,
};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// One cause for everything that is in a set or map list twice.
pub fn unique(node: &Node, value: &Value, path: Path<'_>, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(schema) = node.additional_schema() {
                    unique(schema, value, path.key(name), causes);
                }
                if let Some(property) = node.property(name) {
                    unique(property, value, path.field(name), causes);
                }
            }
        }
        Value::Array(list) => {
            match node.list {
                ListType::Set => {
                    for at in repeated(list.iter()) {
                        causes.push(Cause::of(Mistake::Duplicate, path.index(at), list.get(at), ""));
                    }
                }
                ListType::Map => keyed(node, list, path, causes),
                ListType::None | ListType::Atomic => {}
            }
            if let Some(items) = node.items.as_deref() {
                for (at, value) in list.iter().enumerate() {
                    unique(items, value, path.index(at), causes);
                }
            }
        }
        _ => {}
    }
}

/// The second of all occurrences of each value.
fn repeated<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<usize> {
    let mut seen: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut found = Vec::new();
    for (at, value) in values.enumerate() {
        let times = seen.entry(crate::to_bytes(value).to_vec()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(at);
        }
    }
    found
}

fn keyed(node: &Node, list: &[Value], path: Path<'_>, causes: &mut Vec<Cause>) {
    if let Some((at, value)) = list.iter().enumerate().find(|(_, value)| !value.is_object() && !value.is_null()) {
        causes.push(Cause::of(Mistake::Invalid, path.index(at), Some(value), "must be an object for an array of list-type map"));
        return;
    }
    if list.len() < 2 {
        return;
    }
    let key = |value: &Value| {
        let fields = node.keys.iter().filter_map(|name| Some((name.to_string(), value.get(&**name)?.clone())));
        Value::Object(fields.collect::<Map<String, Value>>())
    };
    let keys: Vec<Value> = list.iter().map(key).collect();
    for at in repeated(keys.iter()) {
        causes.push(Cause::of(Mistake::Duplicate, path.index(at), keys.get(at), ""));
    }
}
