//! What can be wrong with a field, in the words of Kubernetes' `field.Error`: kinds of mistakes, paths, and how values are shown.

use crate::{names::quote, status::Cause};
use serde_json::Value;
use std::fmt::{self, Display};

/// A path into an object while it is walked: a chain of borrowed steps, written out only when something is wrong.
#[derive(Clone, Copy, Debug)]
pub enum Path<'p> {
    /// The object itself.
    Root,
    /// A field: `parent.name`.
    Field(&'p Path<'p>, &'p str),
    /// An element of a list: `parent[3]`.
    Index(&'p Path<'p>, usize),
    /// An entry of a map: `parent[key]`.
    Key(&'p Path<'p>, &'p str),
}

impl<'p> Path<'p> {
    /// A field below.
    pub fn field(&'p self, name: &'p str) -> Path<'p> {
        Path::Field(self, name)
    }

    /// An element below.
    pub fn index(&'p self, at: usize) -> Path<'p> {
        Path::Index(self, at)
    }

    /// A map entry below.
    pub fn key(&'p self, key: &'p str) -> Path<'p> {
        Path::Key(self, key)
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// The kinds of mistakes (`field.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Mistake {
    Required,
    Duplicate,
    Invalid,
    TypeInvalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    Internal,
}

impl Mistake {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Mistake::Required => ("FieldValueRequired", "Required value"),
            Mistake::Duplicate => ("FieldValueDuplicate", "Duplicate value"),
            Mistake::Invalid => ("FieldValueInvalid", "Invalid value"),
            Mistake::TypeInvalid => ("FieldValueTypeInvalid", "Invalid value"),
            Mistake::NotSupported => ("FieldValueNotSupported", "Unsupported value"),
            Mistake::Forbidden => ("FieldValueForbidden", "Forbidden"),
            Mistake::TooLong => ("FieldValueTooLong", "Too long"),
            Mistake::TooMany => ("FieldValueTooMany", "Too many"),
            Mistake::NotFound => ("FieldValueNotFound", "Not found"),
            Mistake::Internal => ("InternalError", "Internal error"),
        }
    }

    /// The machine-readable word, such as `FieldValueInvalid`.
    pub fn reason(self) -> &'static str {
        self.words().0
    }
}

impl Cause {
    /// `Invalid value: "x": why`; without `bad` the value is left out, without `detail` the reason for it.
    pub fn of(mistake: Mistake, field: impl Display, bad: Option<&Value>, detail: &str) -> Cause {
        let (reason, words) = mistake.words();
        let mut message = String::from(words);
        if let Some(bad) = bad {
            message.push_str(": ");
            message.push_str(&shown(bad));
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        Cause { reason: reason.into(), message, field: field.to_string() }
    }

    /// `field: message`, as lists of mistakes show it.
    pub fn line(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

/// `supported values: "A", "B"`; empty without any.
pub fn supported<T: AsRef<str>>(values: &[T]) -> String {
    match values {
        [] => String::new(),
        list => format!("supported values: {}", list.iter().map(|s| quote(s.as_ref())).collect::<Vec<_>>().join(", ")),
    }
}

/// `may not be more than 5 bytes`
pub fn most_bytes(max: i64) -> String {
    format!("may not be more than {max} {}", if max == 1 { "byte" } else { "bytes" })
}

/// `must have at most 5 items`
pub fn most_items(max: i64) -> String {
    format!("must have at most {max} {}", if max == 1 { "item" } else { "items" })
}

/// A value as messages show it: text quoted, everything else as Go's JSON encoder writes it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(_) | Value::Object(_) => value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn causes_read_as_upstreams() {
        let root = Path::Root;
        let spec = root.field("spec");
        let list = spec.field("list");
        let element = list.index(2);
        let place = element.key("k");
        assert_eq!(place.to_string(), "spec.list[2][k]");
        let cause = Cause::of(Mistake::Invalid, place, Some(&json!({"a": "<b>"})), "no");
        assert_eq!(cause.line(), "spec.list[2][k]: Invalid value: {\"a\":\"\\u003cb\\u003e\"}: no");
        assert_eq!(Cause::of(Mistake::TypeInvalid, spec, Some(&json!("x\n")), "").message, "Invalid value: \"x\\n\"");
        assert_eq!(supported(&["A", "b"]), "supported values: \"A\", \"b\"");
    }
}
