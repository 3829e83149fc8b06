//! Component schemas: every type that a document's paths refer to, and what those refer to in turn.

use super::descriptions::Descriptions;
use super::{CustomSchemas, Dialect, custom, member};
use crate::facts;
use crate::types::{Field, Shape, Type};
use coracle_api::registry::Resource;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A component: a struct of the table, one of the types with a form of their own, or a custom kind.
enum Component {
    Struct(Arc<Type>),
    Special(Value),
    /// Of a definition.
    Custom(Value),
}

/// The components that were referred to so far.
pub(super) struct Components<'c> {
    pub(super) dialect: Dialect,
    custom: CustomSchemas<'c>,
    wanted: BTreeMap<String, Component>,
}

impl<'c> Components<'c> {
    pub(super) fn new(dialect: Dialect, custom: CustomSchemas<'c>) -> Self {
        Components { dialect, custom, wanted: BTreeMap::new() }
    }

    /// A reference to a resource's kind.
    pub(super) fn object_of(&mut self, resource: &Resource) -> Value {
        self.of(resource, &resource.kind, custom::object)
    }

    /// A reference to the kind of a resource's lists.
    pub(super) fn list_of(&mut self, resource: &Resource) -> Value {
        self.of(resource, &resource.list_kind, |resource, _, dialect| custom::list(resource, dialect))
    }

    fn of(&mut self, resource: &Resource, kind: &str, make: impl FnOnce(&Resource, Value, Dialect) -> Value) -> Value {
        if resource.custom.is_none() {
            return self.kind(&resource.group, &resource.version, kind);
        }
        let name = custom::name(resource, kind);
        if !self.wanted.contains_key(&name) {
            let schema = (self.custom)(resource).unwrap_or_else(|| json!({ "type": "object" }));
            self.wanted.insert(name.clone(), Component::Custom(make(resource, schema, self.dialect)));
            for meta in ["meta.v1.ObjectMeta", "meta.v1.ListMeta"] {
                facts::named(meta).map(|ty| self.reference(&ty));
            }
        }
        self.dialect.reference(&name)
    }

    /// A reference to a kind, which is then part of the document; a plain object where the table has no such kind.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Value {
        match facts::of_kind(group, version, kind) {
            Some((ty, _)) => self.reference(&ty),
            None => json!({ "type": "object" }),
        }
    }

    fn reference(&mut self, ty: &Arc<Type>) -> Value {
        if !self.wanted.contains_key(&*ty.openapi) {
            self.wanted.insert(ty.openapi.to_string(), Component::Struct(ty.clone()));
            for field in &ty.fields {
                self.reach(&field.shape);
            }
        }
        self.dialect.reference(&ty.openapi)
    }

    /// Adds what a shape refers to.
    fn reach(&mut self, shape: &Shape) {
        match shape {
            Shape::Struct(link) => drop(self.reference(link.get())),
            Shape::List(_, element) | Shape::Map(_, element) => self.reach(element),
            other => {
                if let Some((name, form)) = special(other, self.dialect) {
                    self.wanted.entry(name).or_insert(Component::Special(form));
                }
            }
        }
    }

    /// Writes all components as members of an object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let descriptions = Descriptions::of(self.wanted.keys().map(String::as_str));
        let mut first = true;
        for (name, component) in &self.wanted {
            let mut value = match component {
                Component::Struct(ty) => self.structure(ty, &descriptions),
                Component::Special(form) => form.clone(),
                Component::Custom(form) => custom::in_words(form, |field| shared_description(field, &descriptions)),
            };
            if let Some(text) = descriptions.of_type(name) {
                value["description"] = text.into();
            } else if let Some(kind) = list_of(component) {
                value["description"] = format!("{kind}List is a list of {kind} objects.").into();
            }
            member(out, &mut first, name, &value);
        }
    }

    fn structure(&self, ty: &Type, descriptions: &Descriptions) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &ty.fields {
            let described = descriptions.of_field(&ty.openapi, &field.json).or_else(|| match &*field.json {
                "items" if ty.go.ends_with("List") => Some("The objects."),
                shared => shared_description(shared, descriptions),
            });
            properties.insert(field.json.to_string(), self.property(field, described));
            if field.flags.required {
                required.push(&*field.json);
            }
        }
        let mut value = json!({ "type": "object" });
        if !properties.is_empty() {
            value["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            value["required"] = required.into();
        }
        if let Some((group, version, kind)) = &ty.kind {
            value["x-kubernetes-group-version-kind"] = json!([{ "group": group, "version": version, "kind": kind }]);
        } else if &*ty.key == "meta.v1.DeleteOptions" {
            value["x-kubernetes-group-version-kind"] = json!([{ "group": "", "version": "v1", "kind": "DeleteOptions" }]);
        }
        if ty.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(unions) = ty.unions.as_ref().and_then(|u| serde_json::from_str::<Value>(u).ok()) {
            value["x-kubernetes-unions"] = unions;
        }
        value
    }

    fn property(&self, field: &Field, description: Option<&str>) -> Value {
        let mut value = self.shape(&field.shape);
        let plain = !field.flags.pointer;
        let default = match &field.default {
            Some(default) => serde_json::from_str(default).ok(),
            None if plain && matches!(field.shape, Shape::Struct(_)) => Some(json!({})),
            None if plain && field.flags.always && !field.shape.is_go_struct() => field.shape.zero(),
            None => None,
        };
        let v3 = self.dialect == Dialect::V3;
        if v3 && value.get("$ref").is_some() && (description.is_some() || default.is_some()) {
            // Siblings of `$ref` mean nothing in OpenAPI 3.0.
            value = json!({ "allOf": [value] });
        }
        if let Some(description) = description {
            value["description"] = description.into();
        }
        if let (true, Some(default)) = (v3, default) {
            value["default"] = default;
        }
        if let Some(choices) = &field.choices {
            // Of a list or map they are the elements' values.
            let place = match &field.shape {
                Shape::List(..) => value.get_mut("items"),
                Shape::Map(..) => value.get_mut("additionalProperties"),
                _ => Some(&mut value),
            };
            if let Some(Value::Object(place)) = place {
                place.insert("enum".into(), choices.split(',').collect());
            }
        }
        if let Some(kind) = field.list.word() {
            value["x-kubernetes-list-type"] = kind.into();
        }
        if !field.keys.is_empty() {
            value["x-kubernetes-list-map-keys"] = field.keys.iter().map(|k| Value::from(&**k)).collect();
        }
        if field.flags.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        } else if field.flags.granular {
            value["x-kubernetes-map-type"] = "granular".into();
        }
        let strategies = [(field.flags.patch_merge, "merge"), (field.flags.patch_replace, "replace"), (field.flags.patch_retain_keys, "retainKeys")];
        let strategies: Vec<&str> = strategies.iter().filter(|s| s.0).map(|s| s.1).collect();
        if !strategies.is_empty() {
            value["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        if let Some(key) = &field.merge_key {
            value["x-kubernetes-patch-merge-key"] = (**key).into();
        }
        value
    }

    fn shape(&self, shape: &Shape) -> Value {
        match shape {
            Shape::Bool(_) => json!({ "type": "boolean" }),
            // OpenAPI knows two sizes, and a byte is an int32 to upstream's generator.
            Shape::Int { bits: 64, .. } => json!({ "type": "integer", "format": "int64" }),
            Shape::Int { .. } => json!({ "type": "integer", "format": "int32" }),
            Shape::Float => json!({ "type": "number", "format": "double" }),
            Shape::String(_) => json!({ "type": "string" }),
            Shape::Bytes => json!({ "type": "string", "format": "byte" }),
            Shape::Struct(link) => self.dialect.reference(&link.get().openapi),
            Shape::List(_, element) => json!({ "type": "array", "items": self.shape(element) }),
            Shape::Map(_, element) => json!({ "type": "object", "additionalProperties": self.shape(element) }),
            other => special(other, self.dialect).map_or(json!({ "type": "object" }), |(name, _)| self.dialect.reference(&name)),
        }
    }
}

/// Fields that every kind has, where k8s-openapi's types leave them out.
fn shared_description<'a>(field: &str, descriptions: &'a Descriptions) -> Option<&'a str> {
    match field {
        "apiVersion" | "kind" => descriptions.of_field("io.k8s.apimachinery.pkg.apis.meta.v1.Status", field),
        "metadata" => descriptions.of_field("io.k8s.api.core.v1.ConfigMap", field),
        _ => None,
    }
}

/// The kind of whose objects a component is the list type.
fn list_of(component: &Component) -> Option<&str> {
    let Component::Struct(ty) = component else { return None };
    ty.kind.as_ref()?.2.strip_suffix("List")
}

/// OpenAPI name and form of a type that is no struct.
fn special(shape: &Shape, dialect: Dialect) -> Option<(String, Value)> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let text = |format: &str| json!({ "type": "string", "format": format });
    Some(match shape {
        Shape::Quantity if dialect == Dialect::V2 => ("io.k8s.apimachinery.pkg.api.resource.Quantity".into(), json!({ "type": "string" })),
        Shape::Quantity => ("io.k8s.apimachinery.pkg.api.resource.Quantity".into(), json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })),
        Shape::IntOrString if dialect == Dialect::V2 => ("io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(), text("int-or-string")),
        Shape::IntOrString => (
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
        ),
        Shape::Time => (format!("{META}.Time"), text("date-time")),
        Shape::MicroTime => (format!("{META}.MicroTime"), text("date-time")),
        Shape::Duration => (format!("{META}.Duration"), json!({ "type": "string" })),
        Shape::Any(of) => match &**of {
            "RawExtension" => ("io.k8s.apimachinery.pkg.runtime.RawExtension".into(), json!({ "type": "object" })),
            "FieldsV1" => (format!("{META}.FieldsV1"), json!({ "type": "object" })),
            "Object" => return None,
            name => (format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}"), json!({})),
        },
        _ => return None,
    })
}
