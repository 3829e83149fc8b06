//! What changed from one object to another, as sets of fields (structured-merge-diff's `Compare`).

use super::element;
use super::fields::{FieldSet, Node, Part};
use super::view::{Choice, ListRules, MapRules, Rules, View};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The difference between two objects.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Places that only the first has.
    pub removed: FieldSet,
    /// Places that only the second has, or that differ.
    pub touched: FieldSet,
}

impl Delta {
    pub(crate) fn between(view: View<'_>, before: &Value, after: &Value) -> Delta {
        let found = compare(view, Some(before), Some(after));
        Delta { removed: found.removed.into_set(), touched: found.touched.into_set() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.touched.is_empty()
    }

    /// Every place that changed is taken out of a set.
    pub(crate) fn take_from(&self, set: &mut FieldSet) {
        set.subtract(&self.touched);
        set.subtract(&self.removed);
    }
}

#[derive(Default)]
struct Found {
    removed: Part,
    touched: Part,
}

impl Found {
    fn put(&mut self, key: impl FnOnce() -> String, below: Found) {
        if below.removed.is_empty() && below.touched.is_empty() {
            return;
        }
        let key = key();
        self.removed.put(key.clone(), below.removed);
        self.touched.put(key, below.touched);
    }

    fn unite(&mut self, more: Found) {
        self.removed.unite(more.removed);
        self.touched.unite(more.touched);
    }
}

/// Whether two values are the same; whole numbers are, however they are written.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b))),
        (a, b) => a == b,
    }
}

fn compare(view: View<'_>, before: Option<&Value>, after: Option<&Value>) -> Found {
    let mut found = Found::default();
    if let (Some(before), Some(after)) = (before, after)
        && before == after
    {
        return found;
    }
    let rules = view.rules();
    let (was, is) = (rules.choose(before), rules.choose(after));
    let leaf = match (before, after) {
        (_, None) => descend(&rules, was, before, after, &mut found),
        (None, _) => descend(&rules, is, before, after, &mut found),
        _ if was == is => descend(&rules, is, before, after, &mut found),
        _ => {
            let mut more = Found::default();
            descend(&rules, was, before, after, &mut found);
            let leaf = descend(&rules, is, before, after, &mut more);
            found.unite(more);
            leaf
        }
    };
    if !leaf {
        found.touched.member |= before.is_none();
        found.removed.member |= after.is_none();
    }
    found
}

/// True where the place is compared as one value.
fn descend(rules: &Rules<'_>, choice: Choice, before: Option<&Value>, after: Option<&Value>, found: &mut Found) -> bool {
    match (choice, &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) => {
            let (was, is) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
            // Empty and missing are told apart, so an empty map is a value.
            if rules.atomic || was.is_none_or(Map::is_empty) && is.is_none_or(Map::is_empty) {
                return leaf(before, after, found);
            }
            maps(rules, was, is, found);
            false
        }
        (Choice::List, _, Some(rules)) => {
            let (was, is) = (before.and_then(Value::as_array), after.and_then(Value::as_array));
            if rules.atomic || was.is_none_or(Vec::is_empty) && is.is_none_or(Vec::is_empty) {
                return leaf(before, after, found);
            }
            lists(rules, was.map_or(&[], Vec::as_slice), is.map_or(&[], Vec::as_slice), found);
            false
        }
        _ => leaf(before, after, found),
    }
}

fn leaf(before: Option<&Value>, after: Option<&Value>, found: &mut Found) -> bool {
    match (before, after) {
        (None, _) => found.touched.member = true,
        (_, None) => found.removed.member = true,
        (Some(before), Some(after)) => found.touched.member |= !same(before, after),
    }
    true
}

fn maps(rules: &MapRules<'_>, was: Option<&Map<String, Value>>, is: Option<&Map<String, Value>>, found: &mut Found) {
    let mut visit = |key: &str, before: Option<&Value>, after: Option<&Value>| {
        if before == after {
            return;
        }
        let before = before.or_else(|| was.and_then(|_| rules.unsaid(key)));
        let after = after.or_else(|| is.and_then(|_| rules.unsaid(key)));
        let below = compare(rules.at(key).unwrap_or(View::Atomic), before, after);
        found.put(|| element::field(key), below);
    };
    for (key, before) in was.into_iter().flatten() {
        visit(key, Some(before), is.and_then(|is| is.get(key)));
    }
    for (key, after) in is.into_iter().flatten() {
        if was.is_none_or(|was| !was.contains_key(key)) {
            visit(key, None, Some(after));
        }
    }
    if let (Some(only), None) | (None, Some(only)) = (was, is) {
        for name in rules.unsaid_names().filter(|name| !only.contains_key(*name)) {
            let mut below = Found::default();
            leaf(was.map(|_| &Value::Null), is.map(|_| &Value::Null), &mut below);
            found.put(|| element::field(name), below);
        }
    }
}

fn lists(rules: &ListRules<'_>, was: &[Value], is: &[Value], found: &mut Found) {
    let mut items: BTreeMap<String, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, list) in [was, is].into_iter().enumerate() {
        for item in list {
            // An item that cannot be told from others is nobody's.
            if let Ok(key) = element::of_item(rules, item) {
                items.entry(key).or_default()[side].push(item);
            }
        }
    }
    for (key, [was, is]) in items {
        let mut below = Found::default();
        match (was.as_slice(), is.as_slice()) {
            ([], [after]) => below = compare(rules.element, None, Some(after)),
            ([before], []) => below = compare(rules.element, Some(before), None),
            ([before], [after]) => below = compare(rules.element, Some(before), Some(after)),
            // Items with the same key are one value together.
            ([_, _, ..], [_, _, ..]) => below.touched.member = was.len() != is.len() || !was.iter().zip(&is).all(|(a, b)| same(a, b)),
            ([_, _, ..], rest) => {
                if let Some(after) = rest.first() {
                    below = compare(rules.element, None, Some(after));
                }
                below.removed.member = true;
            }
            (rest, [_, _, ..]) => {
                if let Some(before) = rest.first() {
                    below = compare(rules.element, Some(before), None);
                }
                below.touched.member = true;
            }
            ([], []) => {}
        }
        found.put(|| key, below);
    }
}

/// Every place that a value mentions (structured-merge-diff's `ToFieldSet`).
pub(crate) fn places(view: View<'_>, value: &Value) -> FieldSet {
    collect(view, value).into_set()
}

fn collect(view: View<'_>, value: &Value) -> Part {
    let rules = view.rules();
    let mut part = Part::default();
    match (rules.choose(Some(value)), &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) if !rules.atomic => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut below = collect(rules.at(key).unwrap_or(View::Atomic), value);
                // A struct's field is what is in it; an entry of a map, and what is empty, is something itself.
                below.member |= value.is_null() || value.as_object().is_some_and(Map::is_empty) || rules.field(key).is_none();
                part.put(element::field(key), below);
            }
        }
        (Choice::List, _, Some(rules)) if !rules.atomic => {
            let mut seen: BTreeMap<String, Option<&Value>> = BTreeMap::new();
            for item in value.as_array().into_iter().flatten() {
                if let Ok(key) = element::of_item(rules, item) {
                    seen.entry(key).and_modify(|item| *item = None).or_insert(Some(item));
                }
            }
            for (key, item) in seen {
                let below = item.map_or_else(Node::new, |item| collect(rules.element, item).below);
                part.put(key, Part { member: true, below });
            }
        }
        _ => part.member = true,
    }
    part
}
