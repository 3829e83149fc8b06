//! Pruning: what the schema does not know goes (`schema/pruning`).

use super::{Additional, META_FIELDS, Node};
use serde_json::Value;
use std::fmt::Write as _;

/// No more lost fields than this are named, as upstream.
const MAX_NAMED: usize = 100;

/// What went, and where the walk is.
#[derive(Default)]
pub(super) struct Gone {
    at: String,
    paths: Vec<String>,
}

impl Gone {
    fn lost(&mut self, name: &str) {
        if self.paths.len() < MAX_NAMED {
            self.paths.push(if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) });
        }
    }

    /// Runs `walk` one step further down.
    fn within(&mut self, step: impl FnOnce(&mut String), walk: impl FnOnce(&mut Self)) {
        let length = self.at.len();
        step(&mut self.at);
        walk(self);
        self.at.truncate(length);
    }

    fn field(&mut self, name: &str, walk: impl FnOnce(&mut Self)) {
        self.within(
            |at| {
                if !at.is_empty() {
                    at.push('.');
                }
                at.push_str(name);
            },
            walk,
        );
    }

    fn index(&mut self, index: usize, walk: impl FnOnce(&mut Self)) {
        self.within(
            |at| {
                // Writing to a string cannot fail.
                let _ = write!(at, "[{index}]");
            },
            walk,
        );
    }

    pub(super) fn into_paths(mut self) -> Vec<String> {
        self.paths.sort();
        self.paths
    }
}

/// Prunes a value; `whole` says that it is an object with type and metadata of its own.
pub(super) fn object(node: &Node, value: &mut Value, whole: bool, gone: &mut Gone) {
    walk(Some(node), value, Place { whole, keep: false }, gone);
}

#[derive(Clone, Copy)]
struct Place {
    whole: bool,
    /// In a list that preserves what is unknown.
    keep: bool,
}

fn walk(node: Option<&Node>, value: &mut Value, place: Place, gone: &mut Gone) {
    let whole = place.whole || node.is_some_and(|node| node.embedded);
    let keep = place.keep || node.is_some_and(|node| node.preserve);
    let below = Place { whole: false, keep: false };
    match value {
        Value::Object(map) => map.retain(|name, value| {
            if whole && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let known = match node.and_then(|node| node.property(name)) {
                Some(property) => Some(Some(property)),
                None => match node.and_then(|node| node.additional.as_deref()) {
                    Some(Additional::Schema(schema)) => Some(Some(schema)),
                    Some(Additional::Allowed(_)) => Some(None),
                    None => None,
                },
            };
            match known {
                Some(schema) => gone.field(name, |gone| walk(schema, value, below, gone)),
                None if keep => {}
                None => {
                    if !META_FIELDS.contains(&name.as_str()) || !gone.at.is_empty() {
                        gone.lost(name);
                    }
                    return false;
                }
            }
            true
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            if keep && items.is_none() {
                return;
            }
            for (index, value) in list.iter_mut().enumerate() {
                gone.index(index, |gone| walk(items, value, Place { keep, ..below }, gone));
            }
        }
        _ => {}
    }
}
