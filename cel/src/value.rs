//! Values. JSON is borrowed and looked at lazily: a rule that reads one field of a large object touches that field.

use crate::eval::Error;
use crate::library::network::Cidr;
use crate::library::{authz, format, url};
use crate::types::{Decl, Field, ListKind, Shape};
use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Names of the types that libraries add.
pub(crate) const OPAQUE: [&str; 11] = [
    "net.IP",
    "net.CIDR",
    "kubernetes.URL",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

/// A value of CEL. Cheap to clone.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Val<'a>>>),
    /// The name of a type.
    Type(Rc<str>),
    /// A value of a library's type.
    Opaque(Rc<Opaque>),
    /// A constructed message.
    Message(Rc<Message<'a>>),
    /// The variables of a policy, each evaluated when it is first read.
    Variables,
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Of the input or of the expression.
    Borrowed(&'a str),
    /// Made on the way.
    Shared(Rc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A list: a part of the input, or made on the way. The declaration says what equality and `+` mean.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// JSON and what was declared of the list.
    Json(&'a [Value], Option<&'a Decl>),
    /// Elements, and the declaration they came with.
    Own(Rc<Vec<Val<'a>>>, Option<&'a Decl>),
}

/// A map or object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// JSON and what was declared of the object or map.
    Json(&'a serde_json::Map<String, Value>, Option<&'a Decl>),
    /// Made on the way.
    Own(Rc<BTreeMap<Key<'a>, Val<'a>>>),
    /// Maps by text; what is no key has an empty one.
    Nested(Rc<BTreeMap<Key<'a>, Val<'a>>>),
}

/// A key of a map; numbers are equal across their types.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

impl Key<'_> {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::String(text) => (2, 0, text),
        }
    }
}
impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}
impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Key<'_> {}

/// A value of a library's type.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Opaque {
    Url(url::Url),
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Semver(semver::Version),
    Format(&'static format::Format),
    Authz(authz::Step),
}

/// `Object.spec{field: value}`
#[derive(Debug)]
pub struct Message<'a> {
    /// Name of the type.
    pub name: &'a str,
    /// Fields that were set.
    pub fields: Vec<(&'a str, Val<'a>)>,
}

impl<'a> List<'a> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            List::Json(list, _) => list.len(),
            List::Own(list, _) => list.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub(crate) fn decl(&self) -> Option<&'a Decl> {
        match self {
            List::Json(_, decl) | List::Own(_, decl) => *decl,
        }
    }
    pub(crate) fn kind(&self) -> &'a ListKind {
        match self.decl().map(|decl| &decl.shape) {
            Some(Shape::List(_, kind)) => kind,
            _ => &ListKind::Atomic,
        }
    }
    /// One element.
    pub(crate) fn get(&self, at: usize) -> Option<Result<Val<'a>, Error>> {
        match self {
            List::Json(list, decl) => list.get(at).map(|value| Val::of(value, element(*decl))),
            List::Own(list, _) => list.get(at).cloned().map(Ok),
        }
    }
    /// All elements.
    pub fn elements(&self) -> impl Iterator<Item = Result<Val<'a>, Error>> + '_ {
        self.iter()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Val<'a>, Error>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

/// The declaration of the elements of a list or the values of a map.
fn element(decl: Option<&Decl>) -> Option<&Decl> {
    match &decl?.shape {
        Shape::List(of, _) | Shape::Map(of) => Some(of),
        _ => None,
    }
}

impl<'a> Map<'a> {
    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Own(map) | Map::Nested(map) => map.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The value of a text key; of a declared object, its escaped name.
    pub(crate) fn field(&self, name: &str) -> Option<Result<Val<'a>, Error>> {
        match self {
            Map::Json(map, Some(decl)) if matches!(decl.shape, Shape::Object(_)) => {
                let Field { json, decl } = decl.field(name)?;
                map.get(&**json).map(|value| Val::of(value, Some(decl)))
            }
            Map::Json(map, decl) => map.get(name).map(|value| Val::of(value, element(*decl))),
            Map::Own(map) => map.get(&Key::String(Text::Shared(name.into()))).cloned().map(Ok),
            Map::Nested(map) => {
                Some(Ok(map.get(&Key::String(Text::Shared(name.into()))).cloned().unwrap_or_else(|| Val::Map(Map::Own(Rc::default())))))
            }
        }
    }
    pub(crate) fn get(&self, key: &Key<'_>) -> Option<Result<Val<'a>, Error>> {
        match (self, key) {
            (_, Key::String(name)) => self.field(name),
            (Map::Json(..) | Map::Nested(_), _) => None,
            (Map::Own(map), Key::Bool(value)) => map.get(&Key::Bool(*value)).cloned().map(Ok),
            (Map::Own(map), Key::Int(value)) => map.get(&Key::Int(*value)).cloned().map(Ok),
            (Map::Own(map), Key::Uint(value)) => map.get(&Key::Uint(*value)).cloned().map(Ok),
        }
    }
    /// All values.
    pub fn values(&self) -> impl Iterator<Item = Result<Val<'a>, Error>> + '_ {
        self.keys().into_iter().filter_map(|key| self.get(&key.key()?))
    }
    pub(crate) fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Map::Json(map, _) => map.keys().map(|key| Val::String(Text::Borrowed(key))).collect(),
            Map::Own(map) | Map::Nested(map) => map.keys().map(Val::from).collect(),
        }
    }
}

impl<'a> From<&Key<'a>> for Val<'a> {
    fn from(key: &Key<'a>) -> Self {
        match key {
            Key::Bool(value) => Val::Bool(*value),
            Key::Int(value) => Val::Int(*value),
            Key::Uint(value) => Val::Uint(*value),
            Key::String(text) => Val::String(text.clone()),
        }
    }
}

impl<'a> Val<'a> {
    /// A semantic version, as `semver(text)` makes it.
    ///
    /// # Errors
    /// Why the text is none.
    pub fn semver(text: &str) -> Result<Val<'a>, String> {
        let version: semver::Version = text.parse().map_err(|error: semver::Error| error.to_string())?;
        Ok(Val::Opaque(Rc::new(Opaque::Semver(version))))
    }
    /// The view of JSON; without a declaration its types are those that it shows.
    pub(crate) fn of(value: &'a Value, decl: Option<&'a Decl>) -> Result<Val<'a>, Error> {
        let shape = decl.map_or(&Shape::Dyn, |decl| &decl.shape);
        let wrong = |expected: &str| Err(Error::Cel(format!("invalid data, expected {expected}, got {}", json_type(value))));
        Ok(match (value, shape) {
            (Value::Null, _) => Val::Null,
            (Value::Bool(value), Shape::Dyn | Shape::Bool) => Val::Bool(*value),
            (Value::Number(number), Shape::Double) => Val::Double(number.as_f64().unwrap_or_default()),
            (Value::Number(number), Shape::Dyn | Shape::Int) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Val::Int(int),
                (None, Some(double)) if matches!(shape, Shape::Dyn) => Val::Double(double),
                _ => return wrong("int"),
            },
            (Value::String(text), Shape::Dyn | Shape::String) => Val::String(Text::Borrowed(text)),
            (Value::String(text), Shape::Bytes) => match crate::library::encoding::decode(text) {
                Some(bytes) => Val::Bytes(bytes.into()),
                None => return Err(Error::Cel(format!("Invalid byte formatted string {text}"))),
            },
            (Value::String(text), Shape::Duration) => match coracle_api::duration::parse(text) {
                Ok(nanos) => Val::Duration(nanos),
                Err(_) => return Err(Error::Cel(format!("Invalid duration {text}"))),
            },
            (Value::String(text), Shape::Date) => match crate::library::time::parse_date(text) {
                Some(time) => Val::Timestamp(time),
                None => return Err(Error::Cel(format!("Invalid date formatted string {text}"))),
            },
            (Value::String(text), Shape::DateTime) => match crate::library::time::parse_timestamp(text) {
                Some(time) => Val::Timestamp(time),
                None => return Err(Error::Cel(format!("Invalid date-time formatted string {text}"))),
            },
            (Value::Array(list), Shape::Dyn | Shape::List(..)) => Val::List(List::Json(list, decl)),
            (Value::Object(map), Shape::Dyn | Shape::Map(_) | Shape::Object(_)) => Val::Map(Map::Json(map, decl)),
            (_, Shape::Bool) => return wrong("bool"),
            (_, Shape::Int) => return wrong("int"),
            (_, Shape::Double) => return wrong("float"),
            (_, Shape::List(..)) => return wrong("an array"),
            (_, Shape::Map(_) | Shape::Object(_)) => return wrong("a map"),
            (_, _) => return wrong("string"),
        })
    }

    /// Text made on the way.
    pub fn text(text: impl Into<Rc<str>>) -> Val<'a> {
        Val::String(Text::Shared(text.into()))
    }
    pub(crate) fn list(elements: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Own(Rc::new(elements), None))
    }
    pub(crate) fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Rc::new(value)))
    }
    pub(crate) fn opaque(value: Opaque) -> Val<'a> {
        Val::Opaque(Rc::new(value))
    }

    /// The name of its type.
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::String(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Timestamp(_) => "google.protobuf.Timestamp",
            Val::List(_) => "list",
            Val::Map(_) | Val::Variables => "map",
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Opaque(opaque) => opaque.type_name(),
            Val::Message(message) => message.name,
        }
    }

    /// As the key of a map, if it can be one.
    pub(crate) fn key(&self) -> Option<Key<'a>> {
        Some(match self {
            Val::Bool(value) => Key::Bool(*value),
            Val::Int(value) => Key::Int(*value),
            Val::Uint(value) => Key::Uint(*value),
            // 2^63 is the first that no int holds.
            Val::Double(value) if value.fract() == 0.0 && (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(value) => {
                Key::Int(*value as i64)
            }
            Val::String(text) => Key::String(text.clone()),
            _ => return None,
        })
    }

    /// Elements of a collection, characters of text, bytes of bytes; 1 for everything else. What costs are reckoned by.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Val::String(text) => text.chars().count() as u64,
            Val::Bytes(bytes) => bytes.len() as u64,
            Val::List(list) => list.len() as u64,
            Val::Map(map) => map.len() as u64,
            Val::Optional(Some(value)) => value.size(),
            Val::Opaque(opaque) => match &**opaque {
                Opaque::Ip(IpAddr::V4(_)) | Opaque::Cidr(Cidr { addr: IpAddr::V4(_), .. }) => 4,
                Opaque::Ip(IpAddr::V6(_)) | Opaque::Cidr(_) => 16,
                _ => 1,
            },
            _ => 1,
        }
    }

    /// As JSON, where there is a form: bytes are base64, times RFC 3339. Messages are objects of the fields that were set.
    ///
    /// # Errors
    /// What has no form: optionals, types, values of libraries.
    pub fn to_json(&self) -> Result<Value, String> {
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Int(value) => (*value).into(),
            Val::Uint(value) => (*value).into(),
            Val::Double(value) => serde_json::Number::from_f64(*value).map(Value::Number).ok_or("a double that is no number has no JSON form")?,
            Val::String(text) => Value::String(text.to_string()),
            Val::Bytes(bytes) => Value::String(crate::library::encoding::encode(bytes)),
            Val::Duration(nanos) => Value::String(crate::library::time::format_duration(*nanos)),
            Val::Timestamp(time) => Value::String(crate::library::time::format_timestamp(*time)),
            Val::List(List::Json(list, _)) => Value::Array(list.to_vec()),
            Val::List(List::Own(list, _)) => Value::Array(list.iter().map(Val::to_json).collect::<Result<_, _>>()?),
            Val::Map(Map::Json(map, _)) => Value::Object((*map).clone()),
            Val::Map(Map::Own(map) | Map::Nested(map)) => {
                let entry = |(key, value): (&Key<'a>, &Val<'a>)| match key {
                    Key::String(text) => Ok((text.to_string(), value.to_json()?)),
                    _ => Err("a map whose keys are no strings has no JSON form".to_string()),
                };
                Value::Object(map.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Val::Message(message) => {
                Value::Object(message.fields.iter().map(|(name, value)| Ok(((*name).to_string(), value.to_json()?))).collect::<Result<_, String>>()?)
            }
            Val::Optional(_) | Val::Type(_) | Val::Opaque(_) | Val::Variables => return Err(format!("{} has no JSON form", self.type_name())),
        })
    }

    /// `-1`, `0`, `1` between values of comparable types.
    pub(crate) fn compare(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::String(a), Val::String(b)) => Some((**a).cmp(&**b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            _ => compare_numbers(self, other),
        }
    }
}

impl Opaque {
    fn type_name(&self) -> &'static str {
        match self {
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Authz(step) => step.type_name(),
        }
    }
    pub(crate) fn equal(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
            (Opaque::Format(a), Opaque::Format(b)) => std::ptr::eq(*a, *b),
            _ => false,
        }
    }
}

/// Compares numbers of any types by value; None for NaN and for what is no number.
fn compare_numbers(one: &Val<'_>, other: &Val<'_>) -> Option<Ordering> {
    match (one, other) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Double(a), Val::Int(b)) => compare_double(*a, i128::from(*b)),
        (Val::Double(a), Val::Uint(b)) => compare_double(*a, i128::from(*b)),
        (Val::Int(a), Val::Double(b)) => compare_double(*b, i128::from(*a)).map(Ordering::reverse),
        (Val::Uint(a), Val::Double(b)) => compare_double(*b, i128::from(*a)).map(Ordering::reverse),
        _ => None,
    }
}

fn compare_double(double: f64, int: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Saturates at the ends, which no 64-bit integer reaches.
    let whole = double.trunc() as i128;
    Some(whole.cmp(&int).then_with(|| double.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
