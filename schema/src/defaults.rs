//! Defaults: what Kubernetes fills in when a field is not set (`SetDefaults_*` and `+default`).
//!
//! Upstream's functions are written per Go type, and run wherever that type occurs; ours are the same. Most only set a constant:
//! those are a table ([`constants`]); the few that look at other fields are functions ([`conditional`]). Defaults marked in upstream's
//! types come from the facts table. A type's function runs before its fields are visited, as upstream's generated code does.

mod conditional;
mod constants;

use crate::types::{Field, Shape, Type};
use serde_json::{Map, Value};

/// A constant default.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    /// An empty struct.
    Empty,
}

impl Plain {
    pub(crate) fn value(self) -> Value {
        match self {
            Plain::Text(text) => text.into(),
            Plain::Number(number) => number.into(),
            Plain::Flag(flag) => flag.into(),
            Plain::Empty => Value::Object(Map::new()),
        }
    }
}

/// The defaults of one type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    /// Field → constant.
    constants: &'static [(&'static str, Plain)],
    /// What depends on other fields.
    function: Option<fn(&mut Map<String, Value>)>,
}

/// The defaults of a type of the table.
pub(crate) fn of(name: &str) -> Defaults {
    Defaults { constants: constants::of(name), function: conditional::of(name) }
}

/// Fills in the defaults of an object of type `ty`, nested ones included.
pub(crate) fn fill(ty: &Type, map: &mut Map<String, Value>) {
    for (name, plain) in ty.default.constants {
        if let Some(field) = ty.field(name)
            && is_unset(field, map)
        {
            map.insert((*name).to_owned(), plain.value());
        }
    }
    if let Some(function) = ty.default.function {
        function(map);
    }
    for field in &ty.fields {
        if let Some(default) = &field.default
            && is_unset(field, map)
            && let Ok(value) = serde_json::from_str(default)
            // A zero default of a plain field shows in documents only: Go would not write it.
            && field.keeps(&value)
        {
            map.insert(field.json.to_string(), value);
        }
        if let Some(value) = map.get_mut(&*field.json) {
            descend(&field.shape, value);
        }
    }
}

fn descend(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(link), Value::Object(map)) => {
            let ty = link.get();
            // A default may have made the struct: then Go would write its zeros.
            ty.fill_zeros(map);
            fill(ty, map);
        }
        (Shape::List(_, element), Value::Array(list)) if holds_struct(element) => list.iter_mut().for_each(|v| descend(element, v)),
        (Shape::Map(_, element), Value::Object(map)) if holds_struct(element) => map.values_mut().for_each(|v| descend(element, v)),
        _ => {}
    }
}

fn holds_struct(shape: &Shape) -> bool {
    match shape {
        Shape::Struct(_) => true,
        Shape::List(_, element) | Shape::Map(_, element) => holds_struct(element),
        _ => false,
    }
}

/// Not given; a plain Go value also counts as not given when it is zero.
fn is_unset(field: &Field, map: &Map<String, Value>) -> bool {
    match map.get(&*field.json) {
        None | Some(Value::Null) => true,
        Some(_) if field.flags.pointer => false,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::Bool(flag)) => !flag,
        Some(_) => false,
    }
}
