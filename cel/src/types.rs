//! Types: what the checker knows about a value, and declarations ([`Decl`]), the schemas that typed JSON comes with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Type {
    /// Anything: checked when it runs.
    Dyn,
    /// What a mistake has; agrees with everything, so that one mistake is reported once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// An object with declared fields.
    Object(Arc<Decl>),
    /// A message that a policy may construct (`Object.spec`, `JSONPatch`).
    Message(Arc<str>),
    /// A type of a library, such as `net.IP`.
    Opaque(&'static str),
    /// A parameter of a signature, such as `T`.
    Param(char),
    /// A variable of inference.
    Var(u32),
}

impl Type {
    /// `list(element)`
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }
    /// `map(key, value)`
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }
    /// `optional_type(of)`
    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }
    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }
    /// Whether values of it have one size whatever they hold.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            Type::Optional(of) => of.is_scalar(),
            _ => false,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a == b,
            (Type::Map(a, b), Type::Map(c, d)) => a == c && b == d,
            (Type::Type(a), Type::Type(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b) || (!a.name.is_empty() && a.name == b.name),
            (Type::Message(a), Type::Message(b)) => a == b,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Param(a), Type::Param(b)) => a == b,
            (Type::Var(a), Type::Var(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Type(None) => f.write_str("type"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Object(decl) if decl.name.is_empty() => f.write_str("object"),
            Type::Object(decl) => f.write_str(&decl.name),
            Type::Message(name) => f.write_str(name),
            Type::Opaque(name) => f.write_str(name),
            Type::Param(name) => write!(f, "{name}"),
            Type::Var(number) => write!(f, "_var{number}"),
        }
    }
}

/// How elements of a list are told apart (`x-kubernetes-list-type`): it decides what `==` and `+` mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// By their place.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// What a declaration is of.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Shape {
    Dyn,
    Bool,
    Int,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    /// `2006-01-02`
    Date,
    /// RFC 3339.
    DateTime,
    /// `1h30m`
    Duration,
    List(Arc<Decl>, ListKind),
    /// From string to this.
    Map(Arc<Decl>),
    /// Fields by their escaped name (see [`escape`]).
    Object(BTreeMap<Box<str>, Field>),
    /// Of a type that JSON has not.
    Typed(Type),
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub json: Box<str>,
    /// What it holds.
    pub decl: Arc<Decl>,
}

/// A declaration: the CEL view of a schema node. Sizes bound the static cost estimate.
#[derive(Clone, Debug)]
pub struct Decl {
    /// Name in messages; empty where the type has none.
    pub name: Box<str>,
    /// What it is of.
    pub shape: Shape,
    /// Most elements, entries or bytes a value may have; 0 for what has none.
    pub max_elements: u64,
    /// Fewest bytes a value takes in JSON.
    pub min_size: u64,
}

/// Largest request that the estimates reckon with, in bytes.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;

impl Decl {
    /// A declaration without a bound of its own.
    pub fn new(shape: Shape) -> Arc<Decl> {
        let (max_elements, min_size) = match &shape {
            Shape::Dyn => (MAX_REQUEST - 2, 1),
            Shape::Bool => (0, 4),
            Shape::Int | Shape::Double => (0, 1),
            Shape::String | Shape::Bytes => (MAX_REQUEST - 2, 2),
            Shape::Date => (12, 12),
            Shape::DateTime => (32, 21),
            Shape::Duration => (32, 3),
            Shape::List(of, _) => ((MAX_REQUEST - 2) / (of.min_size + 1), 2),
            Shape::Map(of) => ((MAX_REQUEST - 2) / (of.min_size + 6), 2),
            Shape::Object(_) | Shape::Typed(_) => (0, 2),
        };
        Arc::new(Decl { name: Box::default(), shape, max_elements, min_size })
    }
    /// With at most this many elements, entries or bytes.
    pub fn bounded(self: Arc<Decl>, max_elements: u64) -> Arc<Decl> {
        let mut decl = Arc::unwrap_or_clone(self);
        decl.max_elements = max_elements;
        Arc::new(decl)
    }
    /// An object of fields: name in JSON, declaration, and whether every value brings it (required, and without a default). Fields whose name has no
    /// escape cannot be reached.
    pub fn object<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Arc<Decl>, bool)>) -> Arc<Decl> {
        Self::of_fields(name, fields, escape)
    }
    /// As [`Decl::object`] for a type of ours, whose fields have the names that they have (`request.namespace`).
    pub fn record<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Arc<Decl>)>) -> Arc<Decl> {
        Self::of_fields(name, fields.into_iter().map(|(name, decl)| (name, decl, false)), |name| Some(name.to_string()))
    }
    fn of_fields<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Arc<Decl>, bool)>, named: impl Fn(&str) -> Option<String>) -> Arc<Decl> {
        let (mut known, mut min_size) = (BTreeMap::new(), 2);
        for (json, decl, required) in fields {
            if required {
                min_size += json.len() as u64 + decl.min_size + 4;
            }
            if let Some(name) = named(json) {
                known.insert(name.into(), Field { json: json.into(), decl });
            }
        }
        Arc::new(Decl { name: name.into(), shape: Shape::Object(known), max_elements: 0, min_size })
    }
    /// The type that values of it have.
    pub fn ty(self: &Arc<Decl>) -> Type {
        match &self.shape {
            Shape::Dyn => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Date | Shape::DateTime => Type::Timestamp,
            Shape::Duration => Type::Duration,
            Shape::List(of, _) => Type::list(of.ty()),
            Shape::Map(of) => Type::map(Type::String, of.ty()),
            Shape::Object(_) => Type::Object(self.clone()),
            Shape::Typed(ty) => ty.clone(),
        }
    }
    /// The field of an object, by its escaped name.
    pub fn field(&self, escaped: &str) -> Option<&Field> {
        match &self.shape {
            Shape::Object(fields) => fields.get(escaped),
            _ => None,
        }
    }
    /// How often a value of this size could occur in one request, when it is somewhere below unbounded lists or maps.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST / (self.min_size + 1)
    }
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The identifier by which a property is reached in expressions (`x-prop` → `x__dash__prop`, `namespace` → `__namespace__`); None if there is none.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '_' if rest.peek() == Some(&'_') => {
                rest.next();
                out.push_str("__underscores__");
            }
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

/// What a policy or rule may refer to.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(Box<str>, Type)>,
    /// Whether `Object{}` and `JSONPatch{}` may be constructed.
    mutation: bool,
}

impl Env {
    /// Nothing but the libraries.
    pub fn new() -> Env {
        Env::default()
    }
    /// With a variable; a later one of the same name hides an earlier one. The name may have dots.
    pub fn with(mut self, name: &str, ty: Type) -> Env {
        self.variables.push((name.into(), ty));
        self
    }
    /// With the messages of mutations, `Object{}` and `JSONPatch{}`, and `jsonpatch.escapeKey`.
    pub fn with_mutations(mut self) -> Env {
        self.mutation = true;
        self
    }
    pub(crate) fn mutation(&self) -> bool {
        self.mutation
    }
    pub(crate) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.iter().rev().find(|(known, _)| &**known == name).map(|(_, ty)| ty)
    }
    /// The type that a name stands for, such as `int` or `net.IP`.
    pub(crate) fn named(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "dyn" => Type::Dyn,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "string" => Type::String,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "JSONPatch" if self.mutation => Type::Message("JSONPatch".into()),
            "Object" if self.mutation => Type::Message("Object".into()),
            _ if self.mutation && name.starts_with("Object.") => Type::Message(name.into()),
            _ => Type::Opaque(crate::value::OPAQUE.iter().find(|known| **known == name)?),
        })
    }
    /// The type of a message's field.
    pub(crate) fn message_field(&self, message: &str, field: &str) -> Option<Type> {
        match (message, field) {
            ("JSONPatch", "op" | "path" | "from") => Some(Type::String),
            ("JSONPatch", "value") => Some(Type::Dyn),
            ("JSONPatch", _) => None,
            _ => Some(Type::Dyn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_upstream() {
        for (name, escaped) in [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("a___b", Some("a__underscores___b")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
