//! The value that was there before, followed down as far as it can be told which one that was (`apiserver/pkg/cel/common`, `CorrelatedObject`).
//!
//! What has not changed is not held against a request (ratcheting, KEP-4008): a schema may become stricter without blocking every write of objects
//! that were stored before.

use super::{ListType, Node};
use serde_json::Value;

/// A value before and now, at one place of a schema.
#[derive(Clone, Copy)]
pub(super) struct Was<'a> {
    node: &'a Node,
    old: &'a Value,
    new: &'a Value,
}

impl<'a> Was<'a> {
    pub fn new(node: &'a Node, old: &'a Value, new: &'a Value) -> Self {
        Self { node, old, new }
    }

    /// The same for a field; None where there was none, or the schema does not know it.
    pub fn field(self, name: &str) -> Option<Was<'a>> {
        Some(Was { node: self.node.field(name)?, old: self.old.as_object()?.get(name)?, new: self.new.as_object()?.get(name)? })
    }

    /// The same for an element: only those of map lists can be recognised.
    pub fn index(self, at: usize) -> Option<Was<'a>> {
        if self.node.list != ListType::Map {
            return None;
        }
        let new = self.new.as_array()?.get(at)?;
        let key = |element: &'a Value| self.node.keys.iter().map(|name| element.get(&**name)).collect::<Vec<_>>();
        let wanted = key(new);
        let old = self.old.as_array()?.iter().find(|element| element.is_object() && key(element) == wanted)?;
        Some(Was { node: self.node.items.as_deref()?, old, new })
    }

    /// What was before.
    pub fn old(self) -> &'a Value {
        self.old
    }

    /// Whether nothing changed; map lists may have been reordered.
    pub fn same(self) -> bool {
        match (self.old, self.new) {
            (Value::Array(old), Value::Array(new)) if self.node.list == ListType::Map => {
                old.len() == new.len() && (0..new.len()).all(|at| self.index(at).is_some_and(Was::same))
            }
            (Value::Object(old), Value::Object(new)) => old.len() == new.len() && new.keys().all(|name| self.field(name).is_some_and(Was::same)),
            (old, new) => old == new,
        }
    }
}
