//! What the walks see of a schema: at every place, how a map, a list or a scalar there is merged.
//!
//! One view for every kind of schema, after upstream's conversion of OpenAPI (`kube-openapi/pkg/schemaconv`): built-in types, custom resources, and no schema
//! at all ([`View::Deduced`], upstream's deduced type: maps are merged, lists are one value).

use crate::structural::{self, Additional, Kind, META_FIELDS, Node};
use crate::types::{Field, ListKind, Shape, Type};
use serde_json::Value;

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// A struct of the table; as one value where it, or the field that holds it, says so.
    Struct(&'a Type, Option<&'a Field>),
    /// Another shape of the table. The field says how its own list or map is merged, not those deeper in it.
    Shape(&'a Shape, Option<&'a Field>),
    /// A place in the schema of a custom resource.
    Custom(Spot<'a>),
    /// Nothing is known: maps are merged field by field, lists are one value.
    Deduced,
    /// Nothing is known, and everything is one value.
    Atomic,
}

/// A place in the schema of a custom resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'a> {
    node: &'a Node,
    /// Here or above, unknown fields are kept.
    preserve: bool,
    /// Values are whole objects.
    whole: bool,
    /// The type that whole objects have their metadata from.
    meta: &'a Type,
}

/// What may be at a place. More than one is set where the schema leaves it open.
pub(crate) struct Rules<'a> {
    pub map: Option<MapRules<'a>>,
    pub scalar: Option<Scalar>,
    pub list: Option<ListRules<'a>>,
}

/// Kinds of scalars that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// How a map or struct is merged.
#[derive(Clone, Copy)]
pub(crate) struct MapRules<'a> {
    /// As one value.
    pub atomic: bool,
    fields: Fields<'a>,
    /// What is under keys that are no field's name.
    element: Option<View<'a>>,
}

#[derive(Clone, Copy)]
enum Fields<'a> {
    None,
    Type(&'a Type),
    Custom(Spot<'a>),
}

/// How a list is merged.
#[derive(Clone, Copy)]
pub(crate) struct ListRules<'a> {
    /// As one value.
    pub atomic: bool,
    pub element: View<'a>,
    keys: Keys<'a>,
}

#[derive(Clone, Copy)]
enum Keys<'a> {
    None,
    One(&'a str),
    Field(&'a Field),
    Node(&'a Node),
}

const NULL: Value = Value::Null;

impl<'a> View<'a> {
    /// What a value of a shape is, in a field or deeper in it.
    fn of(shape: &'a Shape, field: Option<&'a Field>) -> View<'a> {
        match shape {
            Shape::Struct(link) => View::Struct(link.get(), field),
            Shape::Any(of) if of == "RawExtension" => View::Atomic,
            Shape::Any(_) => View::Deduced,
            other => View::Shape(other, field),
        }
    }

    pub(crate) fn rules(self) -> Rules<'a> {
        let map = |rules| Rules { map: Some(rules), scalar: None, list: None };
        let untyped = |atomic: bool, element: View<'a>| Rules {
            map: Some(MapRules { atomic, fields: Fields::None, element: Some(element) }),
            scalar: Some(Scalar::Untyped),
            list: Some(ListRules { atomic: true, element: View::Atomic, keys: Keys::None }),
        };
        match self {
            View::Struct(ty, field) => {
                let atomic = field.is_some_and(|f| f.flags.atomic) || ty.atomic && !field.is_some_and(|f| f.flags.granular);
                // A struct without fields takes any.
                map(MapRules { atomic, fields: Fields::Type(ty), element: ty.fields.is_empty().then_some(View::Deduced) })
            }
            View::Shape(Shape::Map(_, element), field) => {
                map(MapRules { atomic: field.is_some_and(|f| f.flags.atomic), fields: Fields::None, element: Some(View::of(element, None)) })
            }
            View::Shape(Shape::List(_, element), field) => {
                let (atomic, keys) = field.map_or((true, Keys::None), list_kind);
                Rules { map: None, scalar: None, list: Some(ListRules { atomic, element: View::of(element, None), keys }) }
            }
            View::Shape(shape, _) => Rules { map: None, scalar: Some(scalar(shape)), list: None },
            View::Custom(spot) => spot.rules(),
            View::Deduced => untyped(false, View::Deduced),
            View::Atomic => untyped(true, View::Atomic),
        }
    }
}

impl<'a> Spot<'a> {
    /// A whole object of a custom kind; `meta` is the type it has its metadata from.
    pub(crate) fn root(node: &'a Node, meta: &'a Type) -> Spot<'a> {
        Spot { node, preserve: node.preserve, whole: true, meta }
    }

    fn below(self, node: &'a Node) -> View<'a> {
        View::Custom(Spot { node, preserve: self.preserve || node.preserve, whole: node.embedded, meta: self.meta })
    }

    fn field(self, name: &str) -> Option<View<'a>> {
        if self.whole && META_FIELDS.contains(&name) {
            return self.meta.field(name).map(|field| View::of(&field.shape, Some(field)));
        }
        self.node.property(name).map(|node| self.below(node))
    }

    fn has_fields(self) -> bool {
        self.whole || !self.node.properties.is_empty()
    }

    fn rules(self) -> Rules<'a> {
        let (map, list) = (|| Some(self.map()), || Some(self.list()));
        match self.node.kind {
            None => Rules { map: map(), scalar: Some(Scalar::Untyped), list: list() },
            Some(Kind::Object) => Rules { map: map(), scalar: None, list: None },
            Some(Kind::Array) => Rules { map: None, scalar: None, list: list() },
            Some(kind) => Rules { map: None, scalar: Some(self.scalar(kind)), list: None },
        }
    }

    fn map(self) -> MapRules<'a> {
        let element = match self.node.additional.as_deref() {
            // An object of which nothing is said takes any field.
            None => (self.preserve || !self.has_fields()).then_some(View::Deduced),
            Some(Additional::Allowed(allowed)) => allowed.then_some(View::Deduced),
            Some(Additional::Schema(node)) => Some(self.below(node)),
        };
        MapRules { atomic: self.node.atomic, fields: Fields::Custom(self), element }
    }

    fn list(self) -> ListRules<'a> {
        let (atomic, keys) = match self.node.list {
            structural::ListType::None | structural::ListType::Atomic => (true, Keys::None),
            structural::ListType::Set => (false, Keys::None),
            structural::ListType::Map => (false, Keys::Node(self.node)),
        };
        ListRules { atomic, element: self.node.items().map_or(View::Atomic, |items| self.below(items)), keys }
    }

    fn scalar(self, kind: Kind) -> Scalar {
        let format = self.node.checks.as_ref().and_then(|checks| checks.format.as_deref());
        match (kind, format) {
            (Kind::Integer | Kind::Number, _) => Scalar::Numeric,
            (Kind::String, None | Some("byte")) => Scalar::String,
            (Kind::Boolean, _) => Scalar::Boolean,
            _ => Scalar::Untyped,
        }
    }
}

fn scalar(shape: &Shape) -> Scalar {
    match shape {
        Shape::Bool(_) => Scalar::Boolean,
        Shape::Int { .. } | Shape::Float => Scalar::Numeric,
        Shape::String(_) | Shape::Bytes | Shape::Duration => Scalar::String,
        _ => Scalar::Untyped,
    }
}

/// Whether a field's list is one value, and by what its items are known. Where apply has no word of its own, strategic merge's counts.
fn list_kind(field: &Field) -> (bool, Keys<'_>) {
    match field.list {
        ListKind::Atomic => (true, Keys::None),
        ListKind::Set => (false, Keys::None),
        ListKind::Map => (false, Keys::Field(field)),
        ListKind::None if field.flags.patch_merge => (false, field.merge_key.as_deref().map_or(Keys::None, Keys::One)),
        ListKind::None => (true, Keys::None),
    }
}

/// Go writes a null in fields without `omitempty`, and for times that nobody set.
fn is_unsaid(field: &Field) -> bool {
    field.flags.always || field.is_written_when_zero()
}

impl<'a> MapRules<'a> {
    /// The place of a struct's own field.
    pub(crate) fn field(&self, name: &str) -> Option<View<'a>> {
        match self.fields {
            Fields::Type(ty) => ty.field(name).map(|field| View::of(&field.shape, Some(field))),
            Fields::Custom(spot) => spot.field(name),
            Fields::None => None,
        }
    }

    /// The place under a key; None where the schema knows none.
    pub(crate) fn at(&self, name: &str) -> Option<View<'a>> {
        self.field(name).or(self.element)
    }

    /// What a struct that is there holds where JSON says nothing.
    pub(crate) fn unsaid(&self, name: &str) -> Option<&'static Value> {
        match self.fields {
            Fields::Type(ty) => ty.field(name).filter(|field| is_unsaid(field)).map(|_| &NULL),
            Fields::Custom(_) | Fields::None => None,
        }
    }

    /// The fields that hold something even where JSON says nothing.
    pub(crate) fn unsaid_names(&self) -> impl Iterator<Item = &'a str> {
        let fields: &'a [Field] = match self.fields {
            Fields::Type(ty) => &ty.fields,
            Fields::Custom(_) | Fields::None => &[],
        };
        fields.iter().filter(|field| is_unsaid(field)).map(|field| &*field.json)
    }

    /// Whether nothing is known of what is in it.
    pub(crate) fn is_deduced(&self) -> bool {
        let without_fields = match self.fields {
            Fields::None => true,
            Fields::Custom(spot) => !spot.has_fields(),
            Fields::Type(_) => false,
        };
        without_fields && matches!(self.element, Some(View::Deduced | View::Atomic))
    }
}

impl<'a> ListRules<'a> {
    pub(crate) fn has_keys(&self) -> bool {
        !matches!(self.keys, Keys::None)
    }

    /// The fields that tell items apart.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        let (one, many, custom): (Option<&'a str>, &'a [crate::types::Text], &'a [Box<str>]) = match self.keys {
            Keys::None => (None, &[], &[]),
            Keys::One(key) => (Some(key), &[], &[]),
            Keys::Field(field) => (None, &field.keys, &[]),
            Keys::Node(node) => (None, &[], &node.keys),
        };
        one.into_iter().chain(many.iter().map(|key| &**key)).chain(custom.iter().map(|key| &**key))
    }

    /// What an item that lacks a key counts as having.
    pub(crate) fn default(&self, key: &str) -> Option<Value> {
        match self.element {
            View::Struct(ty, _) => ty.field(key)?.default.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            View::Custom(spot) => spot.node.property(key)?.default.as_deref().cloned(),
            _ => None,
        }
    }
}

impl Rules<'_> {
    /// Which of the rules goes for a value: its own kind's where there is one, else the first there is, as upstream tries them.
    pub(crate) fn choose(&self, value: Option<&Value>) -> Choice {
        match value {
            Some(Value::Object(_)) if self.map.is_some() => Choice::Map,
            Some(Value::Array(_)) if self.list.is_some() => Choice::List,
            Some(Value::String(_) | Value::Number(_) | Value::Bool(_)) if self.scalar.is_some() => Choice::Scalar,
            _ if self.map.is_some() => Choice::Map,
            _ if self.scalar.is_some() => Choice::Scalar,
            _ => Choice::List,
        }
    }
}

/// The rule that goes for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Map,
    Scalar,
    List,
}
