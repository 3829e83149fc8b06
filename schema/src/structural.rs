//! Structural schemas: the shape of custom resources, as their CustomResourceDefinition gives it in OpenAPI (KEP-2337, `apiextensions-apiserver/pkg/apiserver/schema`).
//!
//! A schema is one tree of [`Node`]s. Pruning, defaults, embedded metadata, list uniqueness and validation are walks over tree and object together, each in a
//! file of its own. (Turning these schemas into the types of built-in kinds was rejected: what is unknown may be kept, a number
//! may be a string, null may mean something, and conditions hang on any node.)

mod compare;
mod declaration;
mod defaults;
mod field_path;
mod formats;
mod lists;
pub(crate) mod metadata;
mod parse;
mod pattern;
mod prune;
mod read;
mod rules;
mod validate;

pub use field_path::field_path;
pub use formats::known as known_format;
pub use lists::unique;
pub use metadata::{Malformed, coerce, embedded};
pub use pattern::check as check_pattern;
pub(crate) use read::read;
pub use read::read_json;
pub use rules::{Rules, Trial};
pub use validate::Validation;

use pattern::Pattern;
use serde_json::{Number, Value};
use std::sync::OnceLock;

/// Fields that every object has, whatever its schema says.
pub const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// A whole schema.
#[derive(Debug, Default)]
pub struct Structural {
    pub(crate) root: Node,
    rules: OnceLock<Option<Box<Rules>>>,
}

/// One place in a schema.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub(crate) kind: Option<Kind>,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Box<Value>>,
    /// Sorted by name.
    pub(crate) properties: Box<[(Box<str>, Node)]>,
    pub(crate) additional: Option<Box<Additional>>,
    pub(crate) items: Option<Box<Node>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub(crate) preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub(crate) embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub(crate) int_or_string: bool,
    pub(crate) list: ListType,
    /// `x-kubernetes-map-type: atomic`
    pub(crate) atomic: bool,
    /// `x-kubernetes-list-map-keys`
    pub(crate) keys: Box<[Box<str>]>,
    pub(crate) checks: Option<Box<Checks>>,
    /// `x-kubernetes-validations`
    pub(crate) rules: Box<[rules::Text]>,
}

/// `additionalProperties`
#[derive(Clone, Debug)]
pub(crate) enum Additional {
    Allowed(bool),
    Schema(Node),
}

/// `x-kubernetes-list-type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    None,
    Atomic,
    Set,
    Map,
}

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
    /// A word that is no type; no value has it.
    Other,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Array => "array",
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Object => "object",
            Kind::String => "string",
            Kind::Other => "",
        }
    }

    /// The type a value has.
    pub(crate) fn of(value: &Value) -> Option<Kind> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) if number.is_i64() => Kind::Integer,
            Value::Number(_) => Kind::Number,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
        })
    }
}

/// What a value must be beyond its type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    pub format: Option<Box<str>>,
    pub maximum: Option<Bound>,
    pub minimum: Option<Bound>,
    pub multiple_of: Option<Number>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Box<[Box<str>]>,
    pub choices: Box<[Value]>,
    pub all_of: Box<[Node]>,
    pub any_of: Box<[Node]>,
    pub one_of: Box<[Node]>,
    pub not: Option<Box<Node>>,
}

/// A limit, the value itself excluded or not.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub limit: f64,
    pub exclusive: bool,
}

impl Structural {
    /// Reads a schema (`openAPIV3Schema`). Defaults are cut to what the schema knows.
    ///
    /// # Errors
    /// A sentence about what no structural schema can hold (`$ref`, `definitions`, …).
    pub fn parse(schema: &Value) -> Result<Structural, String> {
        let mut root = parse::node(schema)?;
        root.prune_defaults();
        Ok(Structural { root, rules: OnceLock::new() })
    }

    /// Removes what the schema does not know; the paths of what went, sorted. `apiVersion`, `kind` and `metadata` of the object stay as they are.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut gone = prune::Gone::default();
        prune::object(&self.root, object, true, &mut gone);
        gone.into_paths()
    }

    /// Removes nulls where null means nothing and no default stands in for it.
    pub fn drop_nulls(&self, object: &mut Value) {
        defaults::drop_nulls(Some(&self.root), object);
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        defaults::fill(&self.root, object);
    }

    /// The rules of the schema, if it has some; compiled when they are first asked for.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::compile(&self.root, true).map(Box::new)).as_deref()
    }

    /// The schema of the whole object.
    pub fn root(&self) -> &Node {
        &self.root
    }
}

impl Node {
    /// A property's schema.
    pub fn property(&self, name: &str) -> Option<&Node> {
        self.properties.binary_search_by(|(its, _)| (**its).cmp(name)).ok().and_then(|at| self.properties.get(at)).map(|(_, node)| node)
    }

    /// `type`, empty if it has none.
    pub fn kind(&self) -> &'static str {
        self.kind.map_or("", Kind::word)
    }

    /// The schema of a list's elements.
    pub fn items(&self) -> Option<&Node> {
        self.items.as_deref()
    }

    /// Whether values are whole objects (`x-kubernetes-embedded-resource`).
    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// The same schema for values that are whole objects.
    pub fn embedding(self) -> Node {
        Node { embedded: true, ..self }
    }

    /// One step of a path: a property, or in a map any entry.
    pub fn step(&self, name: &str) -> Option<&Node> {
        if self.properties.is_empty() { self.additional_schema() } else { self.property(name) }
    }

    /// Removes what this schema does not know; the paths of what went, sorted.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut gone = prune::Gone::default();
        prune::object(self, value, self.embedded, &mut gone);
        gone.into_paths()
    }

    /// The schema of what is in a map, where it has one.
    pub fn additional_schema(&self) -> Option<&Node> {
        match self.additional.as_deref() {
            Some(Additional::Schema(node)) => Some(node),
            _ => None,
        }
    }

    /// The schema of a field: a property's, or that of any map entry.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.property(name).or_else(|| self.additional_schema())
    }

    /// Cuts every default to what its own schema knows.
    fn prune_defaults(&mut self) {
        if let Some(mut default) = self.default.take() {
            // A schema whose defaults cannot be coerced is not accepted; one that is stored keeps them.
            let _ = metadata::coerce(self, &mut default, false, Malformed::Drop);
            prune::object(self, &mut default, self.embedded, &mut prune::Gone::default());
            self.default = Some(default);
        }
        for (_, property) in &mut self.properties {
            property.prune_defaults();
        }
        if let Some(Additional::Schema(node)) = self.additional.as_deref_mut() {
            node.prune_defaults();
        }
        if let Some(items) = &mut self.items {
            items.prune_defaults();
        }
    }
}

/// A value's type as Go's `%T` names it.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests;
