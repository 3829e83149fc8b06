//! The CEL view of a schema (`apiserver/pkg/cel/common`, `SchemaDeclType`).

use super::{Additional, Checks, Kind, ListType, Node};
use coracle_cel::{Decl, ListKind, Shape};
use std::sync::Arc;

/// What a character takes at most.
const CHARACTER: u64 = 4;

impl Node {
    /// What expressions see of values; None for what no schema describes. `whole`: values are whole objects, whose name and type can always be seen.
    pub fn declaration(&self, whole: bool) -> Option<Arc<Decl>> {
        let empty = Checks::default();
        let checks = self.checks.as_deref().unwrap_or(&empty);
        let count = |limit: i64| u64::try_from(limit).unwrap_or_default();
        let longest = checks.max_length.map(count);
        if self.int_or_string {
            let decl = Decl::new(Shape::Dyn);
            return Some(match longest {
                Some(longest) => decl.bounded(longest.saturating_mul(CHARACTER)),
                None => decl,
            });
        }
        let bounded = |decl: Arc<Decl>, limit: Option<u64>| if let Some(limit) = limit { decl.bounded(limit) } else { decl };
        Some(match self.kind? {
            Kind::Array => {
                let items = self.items()?;
                let kind = match self.list {
                    ListType::None | ListType::Atomic => ListKind::Atomic,
                    ListType::Set => ListKind::Set,
                    ListType::Map => ListKind::Map(self.keys.iter().map(|key| key.to_string()).collect()),
                };
                bounded(Decl::new(Shape::List(items.declaration(items.embedded)?, kind)), checks.max_items.map(count))
            }
            Kind::Object => match self.additional.as_deref() {
                Some(Additional::Schema(entry)) => {
                    bounded(Decl::new(Shape::Map(entry.declaration(entry.embedded)?)), checks.max_properties.map(count))
                }
                _ => self.object(whole, &checks.required),
            },
            Kind::String => match checks.format.as_deref() {
                Some("byte") => bounded(Decl::new(Shape::Bytes), longest),
                Some("duration") => Decl::new(Shape::Duration),
                Some("date") => Decl::new(Shape::Date),
                Some("date-time") => Decl::new(Shape::DateTime),
                _ => {
                    let choices = checks.choices.iter().filter_map(|choice| choice.as_str()).map(|choice| choice.len() as u64).max();
                    let of_choices = (!checks.choices.is_empty()).then(|| choices.unwrap_or_default());
                    bounded(Decl::new(Shape::String), longest.map(|longest| longest.saturating_mul(CHARACTER)).or(of_choices))
                }
            },
            Kind::Boolean => Decl::new(Shape::Bool),
            Kind::Number => Decl::new(Shape::Double),
            Kind::Integer => Decl::new(Shape::Int),
            Kind::Other => return None,
        })
    }

    /// What expressions see of an object's properties, and whether they are always there.
    pub(crate) fn declared(&self) -> Vec<(&str, Arc<Decl>, bool)> {
        let required = self.checks.as_ref().map_or(&[][..], |checks| &checks.required);
        let declared = self.properties.iter().filter_map(|(name, property)| {
            let always = required.contains(name) && property.default.is_none();
            Some((&**name, property.declaration(property.embedded)?, always))
        });
        declared.collect()
    }

    fn object(&self, whole: bool, required: &[Box<str>]) -> Arc<Decl> {
        let mut fields = self.declared();
        if whole && !self.names_itself() {
            fields.retain(|(name, ..)| !super::META_FIELDS.contains(name));
            let text = Decl::new(Shape::String);
            let names = [("name", text.clone(), false), ("generateName", text.clone(), false)];
            let must = |name: &str| required.iter().any(|required| **required == *name);
            fields.extend(["apiVersion", "kind"].map(|name| (name, text.clone(), must(name))));
            fields.push(("metadata", Decl::object("", names), must("metadata")));
        }
        Decl::object("", fields)
    }

    /// Whether the schema itself says how objects are named.
    fn names_itself(&self) -> bool {
        let is = |node: Option<&Node>, kind: Kind| node.is_some_and(|node| node.kind == Some(kind));
        let metadata = self.property("metadata");
        is(metadata, Kind::Object)
            && ["apiVersion", "kind"].iter().all(|name| is(self.property(name), Kind::String))
            && ["name", "generateName"].iter().all(|name| is(metadata.and_then(|metadata| metadata.property(name)), Kind::String))
    }
}
