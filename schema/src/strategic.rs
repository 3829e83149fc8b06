//! Strategic merge patch: a merge patch that knows which lists are maps in disguise.
//!
//! Follows upstream's `strategicpatch`, directive by directive: `$patch: replace|delete|merge`, `$retainKeys`,
//! `$deleteFromPrimitiveList/F`, `$setElementOrder/F`. Merge keys and strategies come from the facts table (Go's `patchStrategy`
//! tags), which are not the keys server-side apply uses: container ports merge by `containerPort` alone here.
//! Patches and objects are walked by reference; only what ends in the result is copied. Lists are matched by hash, so that a patch of
//! many elements costs no more than its length.

use crate::types::{Field, Shape, Type};
use coracle_api::Status;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// What the schema says about a field that is patched.
struct Target<'a> {
    /// Type of the struct, or of the list's elements, if they are structs.
    inner: Option<&'a Arc<Type>>,
    merge_lists: bool,
    replace_maps: bool,
    key: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(ty: Option<&'a Arc<Type>>, name: &str) -> Target<'a> {
        let field = ty.and_then(|t| t.field(name));
        let none = Target { inner: None, merge_lists: false, replace_maps: false, key: None };
        let Some(Field { shape, flags, merge_key, .. }) = field else { return none };
        let inner = match shape {
            Shape::Struct(link) => Some(link.get()),
            Shape::List(_, element) | Shape::Map(_, element) => match &**element {
                // A map's values are patched one by one under their keys, so its type is theirs only for lists.
                Shape::Struct(link) if matches!(shape, Shape::List(..)) => Some(link.get()),
                _ => None,
            },
            _ => None,
        };
        Target { inner, merge_lists: flags.patch_merge, replace_maps: flags.patch_replace, key: merge_key.as_deref() }
    }
}

/// Applies a strategic merge patch to an object of type `ty`.
///
/// # Errors
/// 400 for directives that cannot be followed.
pub(crate) fn merge(ty: &Arc<Type>, current: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(bad("the patch is no JSON object: send a map of the fields to change"));
    };
    let mut result = current.as_object().cloned().unwrap_or_default();
    merge_map(&mut result, patch, Some(ty))?;
    Ok(Value::Object(result))
}

fn bad(message: impl Into<String>) -> Status {
    Status::bad_request(message)
}

fn merge_map(original: &mut Object, patch: &Object, ty: Option<&Arc<Type>>) -> Result<(), Status> {
    match patch.get(PATCH).map(|d| d.as_str()) {
        None => {}
        Some(Some("replace")) => {
            *original = patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some(Some("delete")) => {
            original.clear();
            return Ok(());
        }
        Some(_) => return Err(bad(format!("unknown patch type: {} in map: {}", patch[PATCH], shown(patch)))),
    }
    retain_keys(original, patch)?;
    let ordered = merge_ordered(original, patch, ty)?;
    for (key, change) in patch {
        if key == RETAIN_KEYS || directive(key, ORDER_PREFIX).is_some() || ordered.contains(key.as_str()) {
            continue;
        }
        let deleting = directive(key, DELETE_PREFIX);
        let key = match deleting {
            Some(rest) => field_of(rest, "invalid patch format of primitive list")?,
            None => key,
        };
        if change.is_null() {
            original.remove(key);
            continue;
        }
        let Some(old) = original.get_mut(key) else {
            if deleting.is_none() {
                insert_clean(original, key, change);
            }
            continue;
        };
        let target = Target::of(ty, key);
        match (old, change) {
            (Value::Object(old), Value::Object(_)) if target.replace_maps => *old = change.as_object().cloned().unwrap_or_default(),
            (Value::Object(old), Value::Object(change)) => merge_map(old, change, target.inner)?,
            (Value::Array(old), Value::Array(change)) => {
                if target.merge_lists || deleting.is_some() {
                    *old = merge_list(std::mem::take(old), change, &target, deleting.is_some())?;
                } else {
                    old.clone_from(change);
                }
            }
            _ if deleting.is_some() => {}
            _ => {
                original.remove(key);
                insert_clean(original, key, change);
            }
        }
    }
    Ok(())
}

/// Inserts what a patch adds: without nulls and directives. A value that is itself a directive is no value.
fn insert_clean(original: &mut Object, key: &str, change: &Value) {
    if let Some(value) = without_directives(change) {
        original.insert(key.to_owned(), value);
    }
}

fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| {
                !value.is_null() && *key != RETAIN_KEYS && directive(key, DELETE_PREFIX).is_none() && directive(key, ORDER_PREFIX).is_none()
            });
            Some(Value::Object(kept.filter_map(|(k, v)| Some((k.clone(), without_directives(v)?))).collect()))
        }
        Value::Array(list) => Some(Value::Array(list.iter().filter_map(without_directives).collect())),
        other => Some(other.clone()),
    }
}

/// The rest behind a directive's prefix.
fn directive<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)
}

fn field_of<'a>(rest: &'a str, otherwise: &str) -> Result<&'a str, Status> {
    rest.strip_prefix('/').ok_or_else(|| bad(otherwise))
}

fn retain_keys(original: &mut Object, patch: &Object) -> Result<(), Status> {
    let Some(list) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || bad("invalid patch format of retainKeys");
    let keep: HashSet<&str> = list.as_array().ok_or_else(wrong)?.iter().filter_map(Value::as_str).collect();
    let stray = patch.iter().any(|(key, value)| !value.is_null() && !key.starts_with('$') && !keep.contains(key.as_str()));
    if stray {
        return Err(wrong());
    }
    original.retain(|key, _| keep.contains(key.as_str()));
    Ok(())
}

/// Lists whose order is given: merged with their patch, then put in that order. Returns the keys that need no further merging.
fn merge_ordered<'p>(original: &mut Object, patch: &'p Object, ty: Option<&Arc<Type>>) -> Result<HashSet<&'p str>, Status> {
    let mut done = HashSet::new();
    for (directive_key, order) in patch {
        let Some(rest) = directive(directive_key, ORDER_PREFIX) else { continue };
        let wrong = || bad("invalid patch format of setElementOrder list");
        let key = field_of(rest, "invalid patch format of setElementOrder list")?;
        let order = order.as_array().ok_or_else(wrong)?;
        let target = Target::of(ty, key);
        let change = match patch.get(key) {
            None => None,
            Some(change) => Some(change.as_array().ok_or_else(wrong)?),
        };
        let live = match original.get(key) {
            None => None,
            Some(live) => Some(live.as_array().ok_or_else(wrong)?.clone()),
        };
        check_order(change.map(Vec::as_slice).unwrap_or_default(), order, target.key)?;
        let merged = match (&live, change) {
            (None, None) => continue,
            (Some(live), None) => live.clone(),
            (None, Some(change)) => change.iter().filter_map(without_directives).collect(),
            (Some(live), Some(change)) if target.merge_lists => merge_list(live.clone(), change, &target, false)?,
            (Some(_), Some(change)) => change.clone(),
        };
        let live = live.unwrap_or_default();
        original.insert(key.to_owned(), Value::Array(in_order(merged, order, &live, target.key)?));
        done.insert(key);
    }
    Ok(done)
}

/// The patch's items must come in the order that is asked for.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Status> {
    if order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in change.iter().filter(|item| item.get(PATCH).is_none()) {
        if !wanted.any(|w| same(w, item, key)) {
            let (change, order) = (Value::from(change.to_vec()), Value::from(order.to_vec()));
            return Err(bad(format!("The order in patch list:\n{change}\n doesn't match $setElementOrder list:\n{order}\n")));
        }
    }
    Ok(())
}

fn identity<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    identity(a, key) == identity(b, key)
}

fn merge_list(mut original: Vec<Value>, patch: &[Value], target: &Target<'_>, deleting: bool) -> Result<Vec<Value>, Status> {
    let Some(first) = original.first().or(patch.first()) else { return Ok(original) };
    if first.is_array() {
        return Err(bad("lists of lists are not supported"));
    }
    let maps = first.is_object();
    if original.iter().chain(patch).any(|item| item.is_object() != maps) {
        return Err(bad("list element types are not identical"));
    }
    if !maps {
        if deleting {
            let gone: HashSet<&Value> = patch.iter().collect();
            original.retain(|item| !gone.contains(item));
            return Ok(original);
        }
        let mut seen = HashSet::with_capacity(original.len() + patch.len());
        let merged = original.iter().chain(patch).filter(|item| seen.insert(*item)).cloned().collect();
        return in_order(merged, patch, &original, None);
    }
    let key = target.key.ok_or_else(|| bad("cannot merge lists without merge key"))?;
    let mut additions: Vec<&Value> = Vec::new();
    let mut gone: HashSet<&Value> = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH) {
            None => additions.push(item),
            Some(Value::String(word)) if word == "delete" => drop(gone.insert(item.get(key).ok_or_else(|| no_key(item, key))?)),
            Some(Value::String(word)) if word == "replace" => replace = true,
            Some(Value::String(word)) if word == "merge" => return Err(bad("merging lists cannot yet be specified in the patch")),
            Some(other) => return Err(bad(format!("unknown patch type: {other} in map: {item}"))),
        }
    }
    if replace {
        return Ok(additions.into_iter().cloned().collect());
    }
    original.retain(|old| old.get(key).is_none_or(|k| !gone.contains(k)));
    let live = original.clone();
    let mut places = places(&live, Some(key));
    for item in &additions {
        let wanted = item.get(key).ok_or_else(|| no_key(item, key))?;
        let found = places.get(wanted).and_then(|at| original.get_mut(*at));
        match (found, item) {
            (Some(Value::Object(old)), Value::Object(change)) => merge_map(old, change, target.inner)?,
            // Upstream appends a new item as it is; directives in it would be pruned as unknown fields.
            _ => {
                places.insert(wanted, original.len());
                original.extend(without_directives(item));
            }
        }
    }
    let order: Vec<Value> = additions.into_iter().cloned().collect();
    in_order(original, &order, &live, Some(key))
}

/// Where each identity stands first in a list.
fn places<'v>(list: &'v [Value], key: Option<&str>) -> HashMap<&'v Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            places.entry(identity).or_insert(at);
        }
    }
    places
}

fn no_key(item: &Value, key: &str) -> Status {
    bad(format!("map: {item} does not contain declared merge key: {key}"))
}

/// Puts a merged list in order: items that `order` names stand in that order, the rest keep their places among them as in `live`.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Result<Vec<Value>, Status> {
    if let Some(key) = key
        && let Some(item) = merged.iter().chain(order).find(|item| item.get(key).is_none())
    {
        return Err(no_key(item, key));
    }
    let (order, live) = (places(order, key), places(live, key));
    let place = |list: &HashMap<&Value, usize>, item: &Value| identity(item, key).and_then(|i| list.get(i).copied());
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|item| place(&order, item).is_some());
    named.sort_by_key(|item| place(&order, item));
    rest.sort_by_key(|item| place(&live, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let take_rest = match (rest.peek(), named.peek()) {
            (None, None) => return Ok(result),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => matches!((place(&live, left), place(&live, right)), (Some(l), Some(r)) if l < r),
        };
        result.extend(if take_rest { rest.next() } else { named.next() });
    }
}

fn shown(map: &Object) -> String {
    Value::Object(map.clone()).to_string()
}
