//! Path elements: the keys of a set of fields. `f:NAME` a field, `k:{…}` the item of a list with these keys, `v:…` the item of a set, `i:N` an index.

use super::view::ListRules;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt;

/// `f:NAME`
pub(crate) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The name of a field's element.
pub(crate) fn field_name(key: &str) -> Option<&str> {
    key.strip_prefix("f:")
}

/// A value as Go's encoder writes it within a path element: what HTML minds is escaped.
fn text(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let mut out = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn keyed(mut fields: Vec<(&str, String)>) -> String {
    fields.sort_unstable_by_key(|(name, _)| *name);
    let mut out = String::from("k:{");
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(*name).to_string());
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// The element of an item of a list that is a set or a map in disguise.
///
/// # Errors
/// What is wrong with the item, in upstream's words.
pub(crate) fn of_item(rules: &ListRules<'_>, item: &Value) -> Result<String, String> {
    if !rules.has_keys() {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(format!("v:{}", text(scalar))),
        };
    }
    let item = match item {
        Value::Object(item) => item,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut fields = Vec::with_capacity(2);
    for key in rules.keys() {
        if let Some(value) = item.get(key) {
            fields.push((key, text(value)));
        } else if let Some(default) = rules.default(key) {
            fields.push((key, text(&default)));
        }
    }
    if fields.is_empty() {
        let keys: Vec<String> = rules.keys().map(|key| format!("{key:?}")).collect();
        let keys = keys.join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{keys}] (and doesn't have default values for any key fields)"
        ));
    }
    Ok(keyed(fields))
}

/// What a key in a set that was sent is.
pub(crate) enum Known {
    /// An element, in our own spelling.
    Element(String),
    /// A kind of element that nobody knows yet.
    Stranger,
    /// No element at all.
    Nonsense,
}

/// Brings a key that somebody sent into our own spelling.
pub(crate) fn normal(key: &str) -> Known {
    let element = match key.split_at_checked(2) {
        None => None,
        Some(("f:", _)) => Some(key.to_owned()),
        Some(("k:", rest)) => serde_json::from_str::<Map<String, Value>>(rest)
            .ok()
            .map(|fields| keyed(fields.iter().map(|(name, value)| (name.as_str(), text(value))).collect())),
        Some(("v:", rest)) => serde_json::from_str::<Value>(rest).ok().map(|value| format!("v:{}", text(&value))),
        Some(("i:", rest)) => rest.parse::<i64>().ok().map(|index| format!("i:{index}")),
        Some((kind, _)) if kind.ends_with(':') => return Known::Stranger,
        Some(_) => None,
    };
    element.map_or(Known::Nonsense, Known::Element)
}

/// An element that can be put in order and shown to people.
#[derive(Debug)]
pub(crate) enum Element<'k> {
    Field(&'k str),
    Key(Map<String, Value>),
    Value(Value),
    Index(i64),
}

impl<'k> Element<'k> {
    pub(crate) fn parse(key: &'k str) -> Option<Element<'k>> {
        Some(match key.split_at_checked(2)? {
            ("f:", name) => Element::Field(name),
            ("k:", fields) => Element::Key(serde_json::from_str(fields).ok()?),
            ("v:", value) => Element::Value(serde_json::from_str(value).ok()?),
            ("i:", index) => Element::Index(index.parse().ok()?),
            _ => return None,
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }

    /// Fields first, then keys, values and indices, each in their own order.
    pub(crate) fn order(&self, other: &Element<'_>) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let pairs = a.iter().zip(b).map(|((name, value), (other, its))| name.cmp(other).then_with(|| order(value, its)));
                pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Element::Value(a), Element::Value(b)) => order(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

/// Numbers, then texts, then everything else.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
        },
        (Value::Number(_), _) => Ordering::Less,
        (_, Value::Number(_)) => Ordering::Greater,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::String(_), _) => Ordering::Less,
        (_, Value::String(_)) => Ordering::Greater,
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Element::Value(value) => write!(f, "[={}]", shown(value)),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}
