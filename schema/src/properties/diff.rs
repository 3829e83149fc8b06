//! The model for patches: what a client sends to get from one object to another (kubectl's two-way diff, in short).

use crate::types::{Field, Shape, Type};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A JSON merge patch.
pub(super) fn plain(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old) => drop(patch.insert(key.clone(), plain(old, new))),
            None => drop(patch.insert(key.clone(), new.clone())),
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// A strategic merge patch.
pub(super) fn strategic(ty: &Arc<Type>, from: &Value, to: &Value) -> Value {
    Value::Object(maps(Some(ty), from.as_object().unwrap(), to.as_object().unwrap()))
}

fn maps(ty: Option<&Arc<Type>>, from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, new) in to {
        let field = ty.and_then(|t| t.field(key));
        match (from.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) if !field.is_some_and(|f| f.flags.patch_replace) => {
                let inner = field.and_then(|f| if let Shape::Struct(link) = &f.shape { Some(link.get()) } else { None });
                let mut change = maps(inner, old, new);
                if field.is_some_and(|f| f.flags.patch_retain_keys) {
                    change.insert("$retainKeys".into(), new.keys().cloned().collect());
                }
                patch.insert(key.clone(), Value::Object(change));
            }
            (Some(Value::Array(old)), Value::Array(new)) if field.is_some_and(|f| f.flags.patch_merge) => lists(field.unwrap(), old, new, &mut patch),
            _ => drop(patch.insert(key.clone(), new.clone())),
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

fn lists(field: &Field, old: &[Value], new: &[Value], patch: &mut Map<String, Value>) {
    let name = &field.json;
    let Some(key) = field.merge_key.as_deref() else {
        let gone: Vec<Value> = old.iter().filter(|v| !new.contains(v)).cloned().collect();
        let added: Vec<Value> = new.iter().filter(|v| !old.contains(v)).cloned().collect();
        patch.insert(format!("$setElementOrder/{name}"), new.into());
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
        patch.insert(name.to_string(), added.into());
        return;
    };
    let inner = match &field.shape {
        Shape::List(_, element) => match &**element {
            Shape::Struct(link) => Some(link.get()),
            _ => None,
        },
        _ => None,
    };
    let mut changes = Vec::new();
    for item in new {
        match old.iter().find(|o| o[key] == item[key]) {
            Some(before) if before == item => {}
            Some(before) => {
                let mut change = maps(inner, before.as_object().unwrap(), item.as_object().unwrap());
                change.insert(key.into(), item[key].clone());
                if field.flags.patch_retain_keys {
                    change.insert("$retainKeys".into(), item.as_object().unwrap().keys().cloned().collect());
                }
                changes.push(Value::Object(change));
            }
            None => changes.push(item.clone()),
        }
    }
    for item in old.iter().filter(|o| !new.iter().any(|n| n[key] == o[key])) {
        changes.push(json!({ "$patch": "delete", key: item[key] }));
    }
    patch.insert(format!("$setElementOrder/{name}"), new.iter().map(|item| json!({ key: item[key] })).collect());
    patch.insert(name.to_string(), changes.into());
}
