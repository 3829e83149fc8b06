//! Defaults, and nulls that mean nothing (`schema/defaulting`).

use super::{Additional, Node};
use serde_json::Value;

fn meaningless(node: Option<&Node>, value: &Value) -> bool {
    value.is_null() && node.is_some_and(|node| !node.nullable)
}

/// Removes nulls from maps where the schema neither allows null nor has a default to put there.
pub(super) fn drop_nulls(node: Option<&Node>, value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let below = node.and_then(|node| node.field(name));
            if meaningless(below, value) && below.is_some_and(|node| node.default.is_none()) {
                return false;
            }
            drop_nulls(below, value);
            true
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            list.iter_mut().for_each(|value| drop_nulls(items, value));
        }
        _ => {}
    }
}

/// Fills in what is missing, and what is null without being allowed to.
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && map.get(&**name).is_none_or(|value| meaningless(Some(property), value))
                {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for (name, value) in map.iter_mut() {
                match (node.property(name), node.additional.as_deref()) {
                    (Some(property), _) => fill(property, value),
                    (None, Some(Additional::Schema(schema))) => {
                        replace_null(schema, value);
                        fill(schema, value);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else { return };
            for value in list {
                replace_null(items, value);
                fill(items, value);
            }
        }
        _ => {}
    }
}

fn replace_null(node: &Node, value: &mut Value) {
    if meaningless(Some(node), value)
        && let Some(default) = &node.default
    {
        *value = (**default).clone();
    }
}
