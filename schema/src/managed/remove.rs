//! Taking fields out of a value (structured-merge-diff's `RemoveItems`).

use super::element;
use super::fields::{Node, is_member};
use super::view::{Choice, View};
use serde_json::{Map, Value};

/// The value without the places of a set: a place that is in it goes with everything below it.
pub(crate) fn remove(view: View<'_>, value: &Value, gone: &Node) -> Value {
    rest(view, value, gone).unwrap_or(Value::Null)
}

/// None where nothing is left: an atomic value with something to remove in it goes whole, and so does what was empty.
fn rest(view: View<'_>, value: &Value, gone: &Node) -> Option<Value> {
    let rules = view.rules();
    match (rules.choose(Some(value)), &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) => {
            let map = value.as_object().filter(|map| !map.is_empty() && !rules.atomic)?;
            let mut out = Map::new();
            let mut matched = false;
            for (key, value) in map {
                let Some(gone) = below(gone, &element::field(key)) else {
                    out.insert(key.clone(), value.clone());
                    continue;
                };
                if !is_member(gone) {
                    matched = true;
                    out.insert(key.clone(), within(rules.at(key).unwrap_or(View::Atomic), value, gone));
                }
            }
            (matched || !out.is_empty()).then_some(Value::Object(out))
        }
        (Choice::List, _, Some(rules)) => {
            let list = value.as_array().filter(|list| !list.is_empty() && !rules.atomic)?;
            let mut out = Vec::with_capacity(list.len());
            let mut matched = false;
            for item in list {
                let key = element::of_item(rules, item).unwrap_or_default();
                match below(gone, &key) {
                    None => out.push(item.clone()),
                    Some(gone) if is_member(gone) => {}
                    Some(gone) => {
                        matched = true;
                        out.push(within(rules.element, item, gone));
                    }
                }
            }
            (matched || !out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(value.clone()),
    }
}

/// What is left of a value that itself stays: a container stays one, even when it is empty.
fn within(view: View<'_>, value: &Value, gone: &Node) -> Value {
    rest(view, value, gone).unwrap_or_else(|| match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}

fn below<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    node.get(key).and_then(Value::as_object)
}

/// Adds the structs' fields on the way to every place of a set: they go and stay with what is in them (`EnsureNamedFieldsAreMembers`).
pub(crate) fn with_named(view: View<'_>, node: &Node) -> Node {
    let rules = view.rules();
    let mut out = Node::new();
    for (key, below) in super::fields::below(node) {
        let (named, view) = match (element::field_name(key), &rules.map, &rules.list) {
            (Some(name), Some(rules), _) => (rules.field(name).is_some(), rules.at(name)),
            (None, _, Some(rules)) if key.starts_with("k:") => (false, Some(rules.element)),
            _ => (false, None),
        };
        let mut new = view.map_or_else(|| below.clone(), |view| with_named(view, below));
        if !new.is_empty() && (named || is_member(below)) {
            new.insert(".".into(), Value::Object(Node::new()));
        }
        out.insert(key.to_owned(), Value::Object(new));
    }
    out
}
