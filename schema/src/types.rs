//! The shape of types: structs of fields, lists, maps and the scalars with forms of their own. One vocabulary for built-in kinds
//! and, later, custom ones; strings are borrowed from the embedded table where there is one.

use crate::protobuf::Layout;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Borrowed from the table, or owned by a custom resource's schema.
pub(crate) type Text = Cow<'static, str>;

/// A struct type.
#[derive(Debug)]
pub(crate) struct Type {
    /// Name in the table, such as `core.v1.PodSpec`.
    pub key: Text,
    /// Go name, such as `PodSpec`.
    pub go: Text,
    /// Name of its OpenAPI definition.
    pub openapi: Text,
    /// Group, version and kind, when it is a kind.
    pub kind: Option<(Text, Text, Text)>,
    /// Applied as one value (`+structType=atomic`).
    pub atomic: bool,
    /// `x-kubernetes-unions`, as JSON.
    pub unions: Option<Text>,
    /// What conversion through upstream's internal version does to it.
    pub fold: Option<fn(&mut Map<String, Value>)>,
    /// What `SetDefaults_*` does to it.
    pub default: crate::defaults::Defaults,
    /// Fields sorted by JSON name, embedded ones included.
    pub fields: Box<[Field]>,
    /// The structs embedded in it, outermost first.
    pub embeds: Box<[Embed]>,
    /// Its fields in the order of protobuf, worked out when first needed.
    pub layout: OnceLock<Layout>,
}

/// An embedded struct.
#[derive(Clone, Debug)]
pub(crate) struct Embed {
    /// Go name of the embedded field.
    pub go: Text,
    /// Protobuf number; 0 where it is not on the wire.
    pub number: u16,
    /// 0, or the number (from 1) of the embedded struct it is embedded in.
    pub parent: u8,
}

/// One field.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Name in JSON.
    pub json: Text,
    /// Protobuf number within the struct that declares it.
    pub number: u16,
    /// What it holds.
    pub shape: Shape,
    /// Yes or no facts.
    pub flags: Flags,
    /// 0 for an own field, else the number (from 1) of the embedded struct that declares it.
    pub embed: u8,
    /// How a list is merged by apply.
    pub list: ListKind,
    /// Keys of a list map.
    pub keys: Box<[Text]>,
    /// Key of a strategic merge of lists of structs.
    pub merge_key: Option<Text>,
    /// `+default`, as JSON.
    pub default: Option<Text>,
    /// Allowed values, separated by commas.
    pub choices: Option<Text>,
}

/// Yes or no facts about a field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// A Go pointer: a zero that is set stays.
    pub pointer: bool,
    /// No `omitempty`: a zero is written.
    pub always: bool,
    /// `omitzero`.
    pub omit_zero: bool,
    /// Required by OpenAPI.
    pub required: bool,
    /// A map or struct applied as one value.
    pub atomic: bool,
    /// A struct applied field by field, although its type is atomic.
    pub granular: bool,
    /// Strategic merge: lists are merged.
    pub patch_merge: bool,
    /// Strategic merge: maps are replaced.
    pub patch_replace: bool,
    /// Strategic merge: `$retainKeys` may be sent.
    pub patch_retain_keys: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    None,
    Atomic,
    Set,
    Map,
}

impl ListKind {
    pub(crate) fn of(word: &str) -> ListKind {
        match word {
            "atomic" => ListKind::Atomic,
            "set" => ListKind::Set,
            "map" => ListKind::Map,
            _ => ListKind::None,
        }
    }

    pub(crate) fn word(self) -> Option<&'static str> {
        Some(match self {
            ListKind::None => return None,
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map => "map",
        })
    }
}

/// What a value looks like. The texts are Go names (empty for Go's own), as error messages show them.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Bool(Text),
    Int {
        bits: u8,
        signed: bool,
        go: Text,
    },
    Float,
    String(Text),
    /// Base64 in JSON.
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Duration,
    IntOrString,
    /// Kept as it is; the text says which of upstream's untyped types it is.
    Any(Text),
    Struct(Link),
    List(Text, Box<Shape>),
    Map(Text, Box<Shape>),
}

/// A reference to a struct type, resolved when first followed (types refer to themselves: JSONSchemaProps).
#[derive(Clone)]
pub(crate) struct Link {
    name: Arc<str>,
    cell: OnceLock<Arc<Type>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "→{}", self.name)
    }
}

impl Link {
    pub(crate) fn new(name: String) -> Link {
        Link { name: name.into(), cell: OnceLock::new() }
    }

    /// The type; one without fields if the table lacks it, which a test rules out.
    pub(crate) fn get(&self) -> &Arc<Type> {
        self.cell.get_or_init(|| {
            crate::facts::named(&self.name).unwrap_or_else(|| {
                Arc::new(Type {
                    key: Cow::Owned(self.name.to_string()),
                    go: Cow::Borrowed(""),
                    openapi: Cow::Borrowed(""),
                    kind: None,
                    atomic: false,
                    unions: None,
                    fold: None,
                    default: crate::defaults::Defaults::default(),
                    fields: Box::default(),
                    embeds: Box::default(),
                    layout: OnceLock::new(),
                })
            })
        })
    }
}

impl Type {
    pub(crate) fn field(&self, json: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| (*f.json).cmp(json)).ok().and_then(|at| self.fields.get(at))
    }

    pub(crate) fn is_kind(&self, group: &str, version: &str, kind: &str) -> bool {
        self.kind.as_ref().is_some_and(|k| k.0 == group && k.1 == version && k.2 == kind)
    }

    /// Go names of the embedded structs on the way to a field, outermost first.
    pub(crate) fn embed_path(&self, field: &Field) -> Vec<&str> {
        let mut path = Vec::new();
        let mut at = field.embed;
        while let Some(embed) = usize::from(at).checked_sub(1).and_then(|i| self.embeds.get(i)) {
            path.push(&*embed.go);
            at = embed.parent;
        }
        path.reverse();
        path
    }

    /// Its fields in the order of protobuf.
    pub(crate) fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::of(self))
    }

    /// The value of a Go struct nobody set: fields without `omitempty`, and structs, which `omitempty` never drops.
    pub(crate) fn zero(&self) -> Map<String, Value> {
        let mut map = Map::new();
        self.fill_zeros(&mut map);
        map
    }

    /// Adds the zeros that Go writes and `map` lacks.
    pub(crate) fn fill_zeros(&self, map: &mut Map<String, Value>) {
        for field in &self.fields {
            if field.is_written_when_zero()
                && !map.contains_key(&*field.json)
                && let Some(zero) = field.shape.zero()
            {
                map.insert(field.json.to_string(), zero);
            }
        }
    }
}

impl Field {
    /// Whether Go's encoder writes the field when it is zero.
    pub(crate) fn is_written_when_zero(&self) -> bool {
        !self.flags.pointer && !self.flags.omit_zero && (self.flags.always || self.shape.is_go_struct())
    }
}

impl Shape {
    /// True where Go has a struct, which `omitempty` does not drop.
    pub(crate) fn is_go_struct(&self) -> bool {
        match self {
            Shape::Struct(_) | Shape::Quantity | Shape::Time | Shape::MicroTime | Shape::Duration | Shape::IntOrString => true,
            Shape::Any(of) => of == "RawExtension",
            _ => false,
        }
    }

    /// The zero as Go writes it; `None` for null, which canonical objects never hold.
    pub(crate) fn zero(&self) -> Option<Value> {
        Some(match self {
            Shape::Bool(_) => Value::Bool(false),
            Shape::Int { .. } | Shape::Float | Shape::IntOrString => Value::from(0),
            Shape::String(_) => Value::String(String::new()),
            Shape::Quantity => Value::String("0".into()),
            Shape::Duration => Value::String("0s".into()),
            Shape::Struct(link) => Value::Object(link.get().zero()),
            Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Any(_) | Shape::List(..) | Shape::Map(..) => return None,
        })
    }

    /// The type as Go's error messages name it.
    pub(crate) fn go_name(&self) -> String {
        let named = |go: &Text, plain: &str| match &**go {
            "" => plain.to_owned(),
            go if go.contains('.') => go.to_owned(),
            go => format!("v1.{go}"),
        };
        match self {
            Shape::Bool(go) => named(go, "bool"),
            Shape::Int { bits, signed, go } => named(go, &format!("{}int{bits}", if *signed { "" } else { "u" })),
            Shape::Float => "float64".into(),
            Shape::String(go) => named(go, "string"),
            Shape::Bytes => "[]uint8".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Duration => "v1.Duration".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Any(of) => format!("v1.{of}"),
            Shape::Struct(link) => {
                let ty = link.get();
                let package = ty.key.rsplit('.').nth(1).unwrap_or("v1");
                format!("{package}.{}", ty.go)
            }
            Shape::List(go, element) => named(go, &format!("[]{}", element.go_name())),
            Shape::Map(go, element) => named(go, &format!("map[string]{}", element.go_name())),
        }
    }
}
