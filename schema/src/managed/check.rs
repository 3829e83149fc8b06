//! Whether a value fits its schema, in structured-merge-diff's words: what is applied must, field by field.

use super::element::{self, Element};
use super::view::{Choice, Rules, Scalar, View};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt::Write as _;

/// More mistakes than this are not listed.
const MAX: usize = 100;

/// What is wrong, as one text; None when nothing is.
pub(crate) fn check(view: View<'_>, value: &Value) -> Option<String> {
    let mut found = Vec::new();
    visit(view, value, &mut String::new(), &mut found);
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(many.iter().fold("errors:".to_owned(), |text, one| text + "\n  " + one)),
    }
}

fn say(found: &mut Vec<String>, path: &str, why: &str) {
    if found.len() < MAX {
        found.push(if path.is_empty() { why.to_owned() } else { format!("{path}: {why}") });
    }
}

fn visit(view: View<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let rules = view.rules();
    let length = path.len();
    match (rules.choose(Some(value)), &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) => {
            let map = match value {
                Value::Object(map) => map,
                Value::Null => return,
                other => return say(found, path, &format!("expected map, got &{{{}}}", go(other))),
            };
            for (key, value) in map {
                path.push('.');
                path.push_str(key);
                match rules.at(key) {
                    Some(view) => visit(view, value, path, found),
                    None => say(found, path, "field not declared in schema"),
                }
                path.truncate(length);
            }
        }
        (Choice::List, _, Some(rules)) => {
            let list = match value {
                Value::Array(list) => list,
                Value::Null => return,
                other => return say(found, path, &format!("expected list, got &{{{}}}", go(other))),
            };
            let mut seen = HashSet::new();
            for (at, item) in list.iter().enumerate() {
                if rules.atomic && !rules.has_keys() {
                    let _ = write!(path, "[{at}]");
                } else {
                    let key = match element::of_item(rules, item) {
                        Ok(key) => key,
                        Err(why) => return say(found, path, &format!("element {at}: {why}")),
                    };
                    let shown = Element::parse(&key).map(|element| element.to_string()).unwrap_or_default();
                    if !seen.insert(key) {
                        say(found, path, &format!("duplicate entries for key {shown}"));
                    }
                    path.push_str(&shown);
                }
                visit(rules.element, item, path, found);
                path.truncate(length);
            }
        }
        _ => {
            if let Some(why) = scalar(&rules, value) {
                say(found, path, &why);
            }
        }
    }
}

fn scalar(rules: &Rules<'_>, value: &Value) -> Option<String> {
    let wanted = rules.scalar?;
    match (wanted, value) {
        (_, Value::Null) | (Scalar::Numeric, Value::Number(_)) | (Scalar::String, Value::String(_)) | (Scalar::Boolean, Value::Bool(_)) => None,
        (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Numeric, other) => Some(format!("expected numeric (int or float), got {}", go_type(other))),
        (Scalar::String, other) => Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_source(other))),
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", go(other))),
        (Scalar::Untyped, other) => Some(format!("expected any scalar, got &{{{}}}", go(other))),
    }
}

/// As Go's `%T` names it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As Go's `%v` shows it.
pub fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(key, value)| format!("{key}:{}", go(value))).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// As Go's `%#v` shows it.
fn go_source(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(list) => format!("[]interface {{}}{{{}}}", list.iter().map(go_source).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(key, value)| format!("{key:?}:{}", go_source(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
