//! The vocabulary in which validation rules are written: a place in an object, and what can be wrong with it, in upstream's words.
//!
//! [`At`] walks an object and knows its path; nothing is allocated until something is wrong. Rules append one [`Cause`] a mistake and go on, so that a
//! user sees everything at once. (Rules as data, interpreted, were rejected: half of upstream's rules look at two fields at once, and then the data is a
//! second programming language.)

pub mod admission;
pub mod conditions;
pub mod labels;
pub mod percent;
pub mod quantities;
pub mod syntax;

use coracle_api::{
    cause::{self, Mistake, Path},
    status::Cause,
};
use serde_json::Value;

pub use coracle_api::names::quote;

/// What is wrong so far.
pub type Causes = Vec<Cause>;

/// A place in an object while it is checked: the value there (null if absent) and the path to it.
#[derive(Clone, Copy)]
pub struct At<'p, 'v> {
    /// What is there; null if nothing.
    pub value: &'v Value,
    path: Path<'p>,
}

static NULL: Value = Value::Null;

impl<'v> At<'_, 'v> {
    /// The whole object.
    pub fn root(value: &'v Value) -> Self {
        At { value, path: Path::Root }
    }
}

impl<'p, 'v> At<'p, 'v> {
    /// A value that lies at a path.
    pub fn new(value: &'v Value, path: Path<'p>) -> Self {
        At { value, path }
    }

    /// A field of this object.
    pub fn field<'q>(&'q self, name: &'q str) -> At<'q, 'v> {
        At { value: self.value.get(name).unwrap_or(&NULL), path: Path::Field(&self.path, name) }
    }

    /// An element of this list.
    pub fn index(&self, index: usize) -> At<'_, 'v> {
        At { value: self.value.get(index).unwrap_or(&NULL), path: Path::Index(&self.path, index) }
    }

    /// An entry of this map.
    pub fn key<'q>(&'q self, key: &'q str) -> At<'q, 'v> {
        At { value: self.value.get(key).unwrap_or(&NULL), path: Path::Key(&self.path, key) }
    }

    /// The same path with another value, for rules that compare or replace.
    pub fn with<'w>(&self, value: &'w Value) -> At<'p, 'w> {
        At { value, path: self.path }
    }

    /// The elements of this list, none if it is absent.
    pub fn items(&self) -> impl Iterator<Item = At<'_, 'v>> {
        self.value.as_array().into_iter().flatten().enumerate().map(|(index, value)| At { value, path: Path::Index(&self.path, index) })
    }

    /// The entries of this map with their keys, none if it is absent.
    pub fn entries(&self) -> impl Iterator<Item = (&'v str, At<'_, 'v>)> {
        self.value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), At { value, path: Path::Key(&self.path, key) }))
    }

    /// How many elements or entries.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Something is there.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text there, empty if none.
    pub fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number there.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// The path as Kubernetes writes it: `spec.containers[0].image`.
    pub fn path(&self) -> String {
        self.path.to_string()
    }

    fn report(&self, causes: &mut Causes, mistake: Mistake, bad: Option<&Value>, detail: &str) {
        causes.push(Cause::of(mistake, self.path, bad, detail));
    }

    /// `Required value`
    pub fn missing(&self, causes: &mut Causes, detail: &str) {
        self.report(causes, Mistake::Required, None, detail);
    }
    /// `Invalid value: "x": why`
    pub fn invalid(&self, causes: &mut Causes, detail: &str) {
        self.report(causes, Mistake::Invalid, Some(&zero_if_null(self.value)), detail);
    }
    /// `Invalid value: why`, where the value is too large to be shown.
    pub fn wrong(&self, causes: &mut Causes, detail: &str) {
        self.report(causes, Mistake::Invalid, None, detail);
    }
    /// `Invalid value` about a value that is not the one at this place.
    pub fn invalid_value(&self, causes: &mut Causes, bad: impl Into<Value>, detail: &str) {
        self.report(causes, Mistake::Invalid, Some(&bad.into()), detail);
    }
    /// `Unsupported value: "x": supported values: "A", "B"`
    pub fn unsupported(&self, causes: &mut Causes, supported: &[&str]) {
        self.report(causes, Mistake::NotSupported, Some(&zero_if_null(self.value)), &cause::supported(supported));
    }
    /// `Duplicate value: "x"`
    pub fn duplicate(&self, causes: &mut Causes) {
        self.report(causes, Mistake::Duplicate, Some(self.value), "");
    }
    /// `Duplicate value: "x": why`
    pub fn duplicate_because(&self, causes: &mut Causes, why: &str) {
        self.report(causes, Mistake::Duplicate, Some(self.value), why);
    }
    /// `Duplicate value` about a value that is not the one at this place.
    pub fn duplicate_value(&self, causes: &mut Causes, bad: impl Into<Value>) {
        self.report(causes, Mistake::Duplicate, Some(&bad.into()), "");
    }
    /// `Forbidden: why`
    pub fn forbidden(&self, causes: &mut Causes, detail: &str) {
        self.report(causes, Mistake::Forbidden, None, detail);
    }
    /// `Not found: "x"`
    pub fn not_found(&self, causes: &mut Causes) {
        self.report(causes, Mistake::NotFound, Some(self.value), "");
    }
    /// `Too long: may not be more than N bytes`
    pub fn too_long(&self, causes: &mut Causes, max: usize) {
        self.report(causes, Mistake::TooLong, None, &cause::most_bytes(max as i64));
    }
    /// `Too many: 12: must have at most 10 items`
    pub fn too_many(&self, causes: &mut Causes, max: usize) {
        self.report(causes, Mistake::TooMany, Some(&self.len().into()), &cause::most_items(max as i64));
    }

    /// Reports nothing-there (absent, empty text or list); true if something is there.
    pub fn required(&self, causes: &mut Causes, detail: &str) -> bool {
        let there = match self.value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if !there {
            self.missing(causes, detail);
        }
        there
    }
    /// Text must pass `rule`, which says what is wrong.
    pub fn syntax(&self, causes: &mut Causes, rule: impl Fn(&str) -> Vec<String>) {
        for why in rule(self.text()) {
            self.invalid(causes, &why);
        }
    }
    /// As [`At::syntax`], where absent or empty is fine.
    pub fn optional_syntax(&self, causes: &mut Causes, rule: impl Fn(&str) -> Vec<String>) {
        if !self.text().is_empty() {
            self.syntax(causes, rule);
        }
    }
    /// One of a set; absent is fine.
    pub fn one_of(&self, causes: &mut Causes, supported: &[&str]) {
        if self.is_set() && !supported.contains(&self.text()) {
            self.unsupported(causes, supported);
        }
    }
    /// One of a set; absent is a missing value.
    pub fn required_one_of(&self, causes: &mut Causes, supported: &[&str]) {
        if self.text().is_empty() {
            self.missing(causes, "");
        } else {
            self.one_of(causes, supported);
        }
    }
    /// A number of 0 or more; absent is fine.
    pub fn non_negative(&self, causes: &mut Causes) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid(causes, "must be greater than or equal to 0");
        }
    }
    /// A number of 1 or more; absent is fine.
    pub fn positive(&self, causes: &mut Causes) {
        if self.int().is_some_and(|n| n <= 0) {
            self.invalid(causes, "must be greater than 0");
        }
    }
    /// A number in a range; absent is fine.
    pub fn range(&self, causes: &mut Causes, lo: i64, hi: i64) {
        if self.int().is_some_and(|n| n < lo || n > hi) {
            self.invalid(causes, &format!("must be between {lo} and {hi}, inclusive"));
        }
    }
    /// A port number; absent counts as 0.
    pub fn port(&self, causes: &mut Causes) {
        if !matches!(self.int(), Some(1..=65535)) {
            self.invalid_value(causes, self.int().unwrap_or_default(), "must be between 1 and 65535, inclusive");
        }
    }
    /// A port by number or by name.
    pub fn port_or_name(&self, causes: &mut Causes) {
        match self.value {
            Value::String(_) => self.syntax(causes, syntax::port_name),
            _ => self.port(causes),
        }
    }
    /// The same as in the old object (`field is immutable`).
    pub fn immutable(&self, causes: &mut Causes, old: &Value) {
        if self.value == old {
            return;
        }
        // Text that is gone is empty text; anything else that is gone is null.
        let bad = if old.is_string() { zero_if_null(self.value).into_owned() } else { self.value.clone() };
        self.invalid_value(causes, bad, "field is immutable");
    }
}

/// Go shows an absent text as an empty one.
fn zero_if_null(value: &Value) -> std::borrow::Cow<'_, Value> {
    match value {
        Value::Null => std::borrow::Cow::Owned(Value::String(String::new())),
        value => std::borrow::Cow::Borrowed(value),
    }
}

/// `path: message` of every cause, for test tables.
#[cfg(test)]
pub fn lines(causes: &Causes) -> Vec<String> {
    causes.iter().map(Cause::line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_know_their_path_and_mistakes_their_words() {
        let object = json!({"spec": {"containers": [{"name": "A\"b"}], "n": -1, "map": {"k": 1}}});
        let mut causes = Vec::new();
        let root = At::root(&object);
        let spec = root.field("spec");
        let containers = spec.field("containers");
        for container in containers.items() {
            container.field("image").required(&mut causes, "");
            container.field("name").invalid(&mut causes, "why");
            container.field("name").duplicate(&mut causes);
            container.field("name").one_of(&mut causes, &["x", "y"]);
        }
        spec.field("n").non_negative(&mut causes);
        spec.field("n").port(&mut causes);
        spec.field("map").key("k").forbidden(&mut causes, "no");
        assert_eq!(
            lines(&causes),
            [
                "spec.containers[0].image: Required value",
                "spec.containers[0].name: Invalid value: \"A\\\"b\": why",
                "spec.containers[0].name: Duplicate value: \"A\\\"b\"",
                "spec.containers[0].name: Unsupported value: \"A\\\"b\": supported values: \"x\", \"y\"",
                "spec.n: Invalid value: -1: must be greater than or equal to 0",
                "spec.n: Invalid value: -1: must be between 1 and 65535, inclusive",
                "spec.map[k]: Forbidden: no",
            ]
        );
        assert_eq!(causes[0].reason, "FieldValueRequired");
    }
}
