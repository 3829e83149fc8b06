//! Merging what is applied into what is there (structured-merge-diff's `Merge`): nothing is removed, what is applied wins.

use super::element;
use super::view::{Choice, ListRules, MapRules, Rules, View};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// The merged value.
///
/// # Errors
/// What makes a list impossible to merge, with its place.
pub(crate) fn merge(view: View<'_>, live: &Value, applied: &Value) -> Result<Value, String> {
    Ok(both(view, Some(live), Some(applied))?.unwrap_or(Value::Null))
}

/// None where there is nothing.
fn both(view: View<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, String> {
    let rules = view.rules();
    let choice = if applied.is_some() { rules.choose(applied) } else { rules.choose(live) };
    descend(&rules, choice, live, applied)
}

fn descend(rules: &Rules<'_>, choice: Choice, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, String> {
    match (choice, &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) => {
            let (was, is) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
            if rules.atomic || was.is_none_or(Map::is_empty) && is.is_none_or(Map::is_empty) {
                return Ok(leaf(live, applied));
            }
            maps(rules, was, is)
        }
        (Choice::List, _, Some(rules)) => {
            let (was, is) = (live.and_then(Value::as_array), applied.and_then(Value::as_array));
            if rules.atomic || was.is_none_or(Vec::is_empty) && is.is_none_or(Vec::is_empty) {
                return Ok(leaf(live, applied));
            }
            lists(rules, was.map_or(&[], Vec::as_slice), is.map_or(&[], Vec::as_slice))
        }
        _ => Ok(leaf(live, applied)),
    }
}

fn leaf(live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    applied.or(live).cloned()
}

fn maps(rules: &MapRules<'_>, live: Option<&Map<String, Value>>, applied: Option<&Map<String, Value>>) -> Result<Option<Value>, String> {
    let mut merged = live.cloned().unwrap_or_default();
    for (key, change) in applied.into_iter().flatten() {
        let view = rules.at(key).unwrap_or(View::Atomic);
        let out = both(view, live.and_then(|live| live.get(key)), Some(change)).map_err(|why| format!(".{key}{why}"))?;
        match out {
            Some(out) => merged.insert(key.clone(), out),
            None => merged.remove(key),
        };
    }
    Ok((!merged.is_empty()).then_some(Value::Object(merged)))
}

/// The items of a list by their path elements, duplicates included.
struct Items<'v> {
    order: Vec<(String, &'v Value)>,
    /// None for what stands there more than once.
    by_key: HashMap<String, Option<&'v Value>>,
}

impl<'v> Items<'v> {
    fn of(rules: &ListRules<'_>, list: &'v [Value]) -> Result<Items<'v>, String> {
        let mut items = Items { order: Vec::with_capacity(list.len()), by_key: HashMap::with_capacity(list.len()) };
        for (at, item) in list.iter().enumerate() {
            let key = element::of_item(rules, item).map_err(|why| format!(": element {at}: {why}"))?;
            items.by_key.entry(key.clone()).and_modify(|item| *item = None).or_insert(Some(item));
            items.order.push((key, item));
        }
        Ok(items)
    }

    fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'v Value> {
        self.by_key.get(key).copied().flatten()
    }
}

/// Items that both have follow the order of what is applied; items that only the live list has keep their places among them.
fn lists(rules: &ListRules<'_>, live: &[Value], applied: &[Value]) -> Result<Option<Value>, String> {
    let (live, applied) = (Items::of(rules, live)?, Items::of(rules, applied)?);
    let mut shared = applied.order.iter().map(|(key, _)| key.as_str()).filter(|key| live.has(key));
    let mut next_shared = shared.next();
    let mut merged: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.order.len().max(applied.order.len()));
    let (mut l, mut r) = (0, 0);
    loop {
        match (live.order.get(l), applied.order.get(r)) {
            (None, None) => break,
            (Some((mine, _)), Some((theirs, item))) if mine == theirs => {
                merged.insert(mine);
                out.extend(both(rules.element, live.get(mine), Some(item))?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            // Shared, but another one's turn.
            (Some((mine, _)), Some(_)) if applied.has(mine) && next_shared.is_some_and(|next| next != mine) => {
                l += 1;
                continue;
            }
            (Some((mine, item)), _) if !applied.has(mine) => {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            (Some((mine, _)), _) if merged.contains(mine.as_str()) => l += 1,
            _ => {}
        }
        if let Some((theirs, item)) = applied.order.get(r) {
            merged.insert(theirs);
            out.extend(both(rules.element, live.get(theirs), Some(item))?);
            r += 1;
            if next_shared == Some(theirs.as_str()) {
                next_shared = shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}
