//! What calls cost when they run: upstream's figures, which limits are given in.

use crate::value::{List, Map, Opaque, Val};

/// Cost of looking at one character or byte.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// Cost of one character of a pattern, per unit of text.
pub(crate) const PATTERN: f64 = 0.25;
/// Cost of one authorization check: two fit into an expression.
pub(crate) const AUTHORIZATION: u64 = 350_000;

fn traverse(size: u64) -> u64 {
    (size as f64 * TRAVERSAL).ceil() as u64
}

fn size(args: &[Val<'_>], at: usize) -> u64 {
    args.get(at).map_or(1, Val::size)
}

/// Cost of applying a pattern of a length to a text.
fn matching(text: u64, pattern: u64) -> u64 {
    let text = ((1.0 + text as f64) * TRAVERSAL).ceil() as u64;
    text.saturating_mul((pattern as f64 * PATTERN).ceil() as u64)
}

/// Cost of comparing all elements of a list with each other.
fn pairs(list: Option<&Val<'_>>) -> u64 {
    let Some(Val::List(list)) = list else { return 1 };
    let count = list.len() as u64;
    let text = matches!(list.get(0), Some(Ok(Val::String(_) | Val::Bytes(_))));
    let factor = if text { 2.0 + TRAVERSAL } else { 2.0 };
    (count.saturating_mul(count) as f64 * factor) as u64 + 11
}

/// Cost of looking at everything in a value.
fn deep(value: &Val<'_>) -> u64 {
    match value {
        Val::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Val::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Val::List(List::Own(list, _)) => list.iter().map(deep).sum(),
        Val::List(List::Json(list, _)) => list.iter().map(deep_json).sum(),
        Val::Map(Map::Own(map) | Map::Nested(map)) => map.values().map(|value| deep(value) + 1).sum(),
        Val::Map(Map::Json(map, _)) => map.values().map(|value| deep_json(value) + 1).sum(),
        _ => 1,
    }
}

fn deep_json(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        serde_json::Value::Array(list) => list.iter().map(deep_json).sum(),
        serde_json::Value::Object(map) => map.values().map(|value| deep_json(value) + 1).sum(),
        _ => 1,
    }
}

/// Cost of a call, beside that of its arguments. `overload` is the signature that was taken; `result` is None when it failed.
pub(crate) fn call(name: &str, overload: &str, args: &[Val<'_>], result: Option<&Val<'_>>) -> u64 {
    match name {
        "check" => AUTHORIZATION,
        "fieldSelector" | "labelSelector" => {
            let length = size(args, 1);
            10 + traverse(length) + ((length as f64 * 0.5).ceil() * 50.0) as u64
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, deep),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => traverse(size(args, 0)),
        "ip" if !overload.starts_with('(') => traverse(size(args, 0)),
        "replace" | "split" | "ip.isCanonical" => (size(args, 0) as f64 * 2.0 * TRAVERSAL).ceil() as u64,
        "join" => result.map_or(0, |result| (result.size() as f64 * 2.0 * TRAVERSAL).ceil() as u64),
        "find" | "findAll" | "matches" => matching(size(args, 0), size(args, 1)),
        "containsIP" | "containsCIDR" => {
            let network = size(args, 0);
            let parsing = if matches!(args.get(1), Some(Val::String(_))) { traverse(size(args, 1)) } else { 0 };
            let mask = if name == "containsCIDR" { traverse(network) + 1 } else { 0 };
            traverse(network + network) + mask + parsing
        }
        "validate" => match args.first() {
            Some(Val::Opaque(opaque)) => match &**opaque {
                Opaque::Format(format) => matching(size(args, 1), format.pattern_size),
                _ => 1,
            },
            _ => 1,
        },
        "startsWith" | "endsWith" | "format" | "strings.quote" => traverse(size(args, 0)),
        "string" if matches!(args.first(), Some(Val::Bytes(_))) => traverse(size(args, 0)),
        "bytes" if matches!(args.first(), Some(Val::String(_))) => traverse(size(args, 0)),
        "@in" if matches!(args.get(1), Some(Val::List(_))) => size(args, 1),
        "_==_" | "_!=_" if matches!(args.first(), Some(Val::Opaque(_))) => 1,
        "_==_" | "_!=_" => traverse(size(args, 0).min(size(args, 1))),
        "_<_" | "_>_" | "_<=_" | "_>=_" if matches!(args.first(), Some(Val::String(_) | Val::Bytes(_))) => traverse(size(args, 0).min(size(args, 1))),
        "_+_" if matches!(args.first(), Some(Val::String(_) | Val::Bytes(_))) => traverse(size(args, 0).saturating_add(size(args, 1))),
        "contains" if matches!(args.first(), Some(Val::String(_))) => traverse(size(args, 0)).saturating_mul(traverse(size(args, 1))),
        "slice" | "lists.range" | "reverse" => result.map_or(0, Val::size) + 11,
        "flatten" => {
            let depth = match args.get(1) {
                Some(Val::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            (size(args, 0) as f64 * depth) as u64 + 11
        }
        "distinct" | "sort" => pairs(args.first()),
        "@sortByAssociatedKeys" => pairs(args.get(1)),
        "sets.contains" | "sets.intersects" => size(args, 0).saturating_mul(size(args, 1)) + 1,
        "sets.equivalent" => size(args, 0).saturating_mul(size(args, 1)).saturating_mul(2) + 1,
        _ => 1,
    }
}
