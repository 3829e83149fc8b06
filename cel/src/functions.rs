//! The table of functions: what there is to call, of which types, and what it does.
//!
//! A library is a list of signatures with a Rust function each. `name(args) -> result` is called as it stands, `(target).name(args) -> result` on a value.
//! Capital letters are type parameters. Among the overloads of a name the checker takes those that fit what is known, and running takes the first that fits
//! the values.

use crate::eval::{Error, Run};
use crate::library;
use crate::types::Type;
use crate::value::Val;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a function does with values that fit its signature; the target comes first.
pub(crate) type Body = for<'r, 'a> fn(&mut Run<'r, 'a>, &[Val<'a>]) -> Result<Val<'a>, Error>;

/// One library: signatures and bodies.
pub(crate) type Library = &'static [(&'static str, Body)];

/// All overloads of a name in one style of call.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
}

#[derive(Debug)]
pub(crate) struct Overload {
    /// The signature's text, by which costs tell overloads apart.
    pub id: &'static str,
    pub args: Vec<Type>,
    pub result: Type,
    pub body: Body,
}

/// The function of a name; `member` when it is called on a value.
pub(crate) fn find(name: &str, member: bool) -> Option<&'static Function> {
    /// By name: the one that is called as it stands, and the one that is called on a value.
    static TABLE: LazyLock<BTreeMap<&'static str, [Option<Function>; 2]>> = LazyLock::new(|| {
        let mut table: BTreeMap<&'static str, [Option<Function>; 2]> = BTreeMap::new();
        for (text, body) in library::ALL.iter().flat_map(|library| library.iter()) {
            let (name, member, args, result) = signature(text);
            let [plain, on_value] = table.entry(name).or_default();
            let place = if member { on_value } else { plain };
            let function = place.get_or_insert_with(|| Function { name, overloads: Vec::new() });
            function.overloads.push(Overload { id: text, args, result, body: *body });
        }
        table
    });
    let [plain, on_value] = TABLE.get(name)?;
    if member { on_value.as_ref() } else { plain.as_ref() }
}

/// Whether a value is of a type, as far as dispatch looks: what is in collections is not looked at.
pub(crate) fn fits(ty: &Type, value: &Val<'_>) -> bool {
    match ty {
        Type::Null => matches!(value, Val::Null),
        Type::Bool => matches!(value, Val::Bool(_)),
        Type::Int => matches!(value, Val::Int(_)),
        Type::Uint => matches!(value, Val::Uint(_)),
        Type::Double => matches!(value, Val::Double(_)),
        Type::String => matches!(value, Val::String(_)),
        Type::Bytes => matches!(value, Val::Bytes(_)),
        Type::Duration => matches!(value, Val::Duration(_)),
        Type::Timestamp => matches!(value, Val::Timestamp(_)),
        Type::List(_) => matches!(value, Val::List(_)),
        Type::Map(..) => matches!(value, Val::Map(_)),
        Type::Optional(_) => matches!(value, Val::Optional(_)),
        Type::Type(_) => matches!(value, Val::Type(_)),
        Type::Opaque(name) => value.type_name() == *name,
        _ => true,
    }
}

/// Reads a signature. The table is ours: a part that cannot be read is of type `dyn`, and a test reads them all.
fn signature(text: &'static str) -> (&'static str, bool, Vec<Type>, Type) {
    let (head, result) = text.split_once(" -> ").unwrap_or((text, "dyn"));
    let (target, call) = match head.strip_prefix('(') {
        Some(rest) => {
            let end = closing(rest);
            (rest.get(..end), rest.get(end + 2..).unwrap_or_default())
        }
        None => (None, head),
    };
    let (name, args) = call.split_once('(').unwrap_or((call, ")"));
    let mut types: Vec<Type> = target.into_iter().map(read_type).collect();
    types.extend(split(args.strip_suffix(')').unwrap_or(args)).into_iter().map(read_type));
    (name, target.is_some(), types, read_type(result))
}

/// Where the bracket closes that was opened just before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The parts between commas outside brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..).filter(|last| !last.is_empty()));
    parts
}

fn read_type(text: &'static str) -> Type {
    let text = text.trim();
    let (head, inner) = match text.split_once('(') {
        Some((head, inner)) => (head, split(inner.strip_suffix(')').unwrap_or(inner))),
        None => (text, Vec::new()),
    };
    let mut inner = inner.into_iter().map(read_type);
    match head {
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "dyn" => Type::Dyn,
        "list" => Type::list(inner.next().unwrap_or(Type::Dyn)),
        "map" => Type::map(inner.next().unwrap_or(Type::Dyn), inner.next().unwrap_or(Type::Dyn)),
        "optional" => Type::optional(inner.next().unwrap_or(Type::Dyn)),
        "type" => Type::Type(inner.next().map(std::sync::Arc::new)),
        param if param.len() == 1 => Type::Param(param.chars().next().unwrap_or('T')),
        opaque => Type::Opaque(opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        let (name, member, args, result) = signature("(list(map(string, T))).a.b(optional(T), int) -> list(T)");
        assert_eq!((name, member), ("a.b", true));
        assert_eq!(format!("{args:?} {result}"), "[List(Map(String, Param('T'))), Optional(Param('T')), Int] list(T)");
    }

    #[test]
    fn every_signature_has_known_types() {
        fn known(ty: &Type) -> bool {
            match ty {
                Type::List(of) | Type::Optional(of) => known(of),
                Type::Map(key, value) => known(key) && known(value),
                Type::Opaque(name) => crate::value::OPAQUE.contains(name),
                _ => true,
            }
        }
        for (text, _) in library::ALL.iter().flat_map(|library| library.iter()) {
            let (name, _, args, result) = signature(text);
            assert!(!name.is_empty() && args.iter().chain([&result]).all(known), "{text}");
            assert!(text.contains(" -> "), "{text}");
        }
    }
}
