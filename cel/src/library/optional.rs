//! Optional values.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::Val;

pub(super) const LIBRARY: Library = &[
    ("optional.of(T) -> optional(T)", of),
    ("optional.ofNonZeroValue(T) -> optional(T)", of_non_zero),
    ("optional.none() -> optional(T)", none),
    ("(optional(T)).value() -> T", value),
    ("(optional(T)).hasValue() -> bool", has_value),
    // These two are evaluated in place.
    ("(optional(T)).or(optional(T)) -> optional(T)", none),
    ("(optional(T)).orValue(T) -> T", none),
    ("(list(T)).first() -> optional(T)", first),
    ("(list(T)).last() -> optional(T)", last),
    ("optional.unwrap(list(optional(T))) -> list(T)", unwrap),
    ("(list(optional(T))).unwrapOpt() -> list(T)", unwrap),
];

fn of<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    args.first().cloned().map_or_else(no_overload, |value| Ok(Val::some(value)))
}

fn of_non_zero<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [value] = args else { return no_overload() };
    let zero = match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) | Val::Optional(None) => true,
        Val::Double(value) => *value == 0.0,
        Val::String(text) => text.is_empty(),
        Val::Bytes(bytes) => bytes.is_empty(),
        Val::List(list) => list.is_empty(),
        Val::Map(map) => map.is_empty(),
        Val::Message(message) => message.fields.is_empty(),
        _ => false,
    };
    Ok(if zero { Val::Optional(None) } else { Val::some(value.clone()) })
}

fn none<'a>(_: &mut Run<'_, 'a>, _: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Optional(None))
}

fn value<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Optional(Some(value))] => Ok((**value).clone()),
        [Val::Optional(None)] => error("optional.none() dereference"),
        _ => no_overload(),
    }
}

fn has_value<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Optional(value)] => Ok(Val::Bool(value.is_some())),
        _ => no_overload(),
    }
}

fn first<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::List(list)] => Ok(list.get(0).transpose()?.map_or(Val::Optional(None), Val::some)),
        _ => no_overload(),
    }
}

fn last<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::List(list)] => {
            let last = list.len().checked_sub(1).and_then(|at| list.get(at));
            Ok(last.transpose()?.map_or(Val::Optional(None), Val::some))
        }
        _ => no_overload(),
    }
}

fn unwrap<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    run.elements(list.len())?;
    let mut values = Vec::new();
    for element in list.iter() {
        match element? {
            Val::Optional(Some(value)) => values.push((*value).clone()),
            Val::Optional(None) => {}
            other => return error(format!("value not an optional type: {}", other.type_name())),
        }
    }
    Ok(Val::list(values))
}
