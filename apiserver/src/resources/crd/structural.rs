//! What makes a schema structural: a skeleton of types that says of every field where it is and what it is, with conditions that only narrow it (KEP-2337,
//! `schema.ValidateStructural`).

use crate::resources::rules::{At, Causes};
use coracle_schema::structural::check_pattern;
use serde_json::{Value, json};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All rules, the mistakes sorted.
pub(super) fn validate(schema: &At<'_, '_>, causes: &mut Causes) {
    let mut found = Causes::new();
    skeleton(schema, Level::Root, &mut found);
    conditions_complete(schema, schema, schema, &mut found);
    found.sort_by_cached_key(|cause| cause.line());
    causes.extend(found);
}

fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == json!([{"type": "integer"}, {"type": "string"}])
}

fn skeleton(schema: &At<'_, '_>, level: Level, causes: &mut Causes) {
    if !schema.is_set() {
        return;
    }
    let (kind, items, properties) = (schema.field("type"), schema.field("items"), schema.field("properties"));
    let additional = schema.field("additionalProperties");
    let flag = |name: &str| schema.value[name] == true;
    let (embedded, preserve, either) =
        (flag("x-kubernetes-embedded-resource"), flag("x-kubernetes-preserve-unknown-fields"), flag("x-kubernetes-int-or-string"));
    if kind.text() == "array" && !items.is_set() {
        items.missing(causes, "must be specified");
    }
    skeleton(&items, Level::Item, causes);
    properties.entries().for_each(|(_, property)| skeleton(&property, Level::Field, causes));
    if additional.is_set() {
        if level == Level::Root {
            additional.forbidden(causes, "must not be used at the root");
        }
        if additional.value.is_object() {
            skeleton(&additional, Level::Field, causes);
        }
    }
    if either && preserve {
        schema.field("x-kubernetes-preserve-unknown-fields").invalid(causes, "must be false if x-kubernetes-int-or-string is true");
    }
    if either && embedded {
        schema.field("x-kubernetes-embedded-resource").invalid(causes, "must be false if x-kubernetes-int-or-string is true");
    }
    let first_all = &schema.value["allOf"][0]["anyOf"];
    conditions(schema, is_int_or_string(&schema.value["anyOf"]), is_int_or_string(first_all), causes);

    let whole = level == Level::Root || embedded;
    if embedded && kind.text() != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.text().is_empty() { kind.missing(causes, why) } else { kind.invalid(causes, why) }
    } else if kind.text().is_empty() && !either && !preserve {
        kind.missing(
            causes,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && additional.is_set() {
        additional.forbidden(causes, "must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && !kind.text().is_empty() && kind.text() != "object" {
        kind.invalid(causes, "must be object at the root");
    }
    for name in ["kind", "apiVersion"] {
        let property = properties.key(name);
        if whole && property.is_set() && property.field("type").text() != "string" {
            property.field("type").invalid(causes, "must be string");
        }
    }
    let metadata = properties.key("metadata");
    if metadata.is_set() {
        if whole && metadata.field("type").text() != "object" {
            metadata.field("type").invalid(causes, "must be object");
        }
        if level == Level::Root && !only_names(metadata.value) {
            metadata.forbidden(causes, "must not specify anything other than name and generateName, but metadata is implicitly specified");
        }
    }
    if embedded && !preserve && properties.is_empty() {
        properties.missing(causes, "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
    }
}

/// Whether the schema of the object's own metadata restricts nothing but its name.
fn only_names(metadata: &Value) -> bool {
    metadata.as_object().is_none_or(|map| {
        map.iter().all(|(field, value)| match field.as_str() {
            "type" | "default" => true,
            "properties" => value.as_object().is_some_and(|map| map.keys().all(|name| name == "name" || name == "generateName")),
            _ => false,
        })
    })
}

/// Conditions of a schema, which may be combined but say nothing about types.
fn conditions(schema: &At<'_, '_>, skip_any: bool, skip_first_all: bool, causes: &mut Causes) {
    let (any, all, one) = (schema.field("anyOf"), schema.field("allOf"), schema.field("oneOf"));
    if !skip_any {
        any.items().for_each(|nested| narrowing(&nested, false, causes));
    }
    all.items().enumerate().for_each(|(at, nested)| narrowing(&nested, skip_first_all && at == 0, causes));
    one.items().for_each(|nested| narrowing(&nested, false, causes));
    narrowing(&schema.field("not"), false, causes);
    let pattern = schema.field("pattern");
    if !pattern.text().is_empty()
        && let Err(why) = check_pattern(pattern.text())
    {
        pattern.invalid(causes, &format!("must be a valid regular expression, but isn't: {why}"));
    }
}

/// A schema within a condition.
fn narrowing(schema: &At<'_, '_>, skip_any: bool, causes: &mut Causes) {
    if !schema.is_set() {
        return;
    }
    conditions(schema, skip_any, false, causes);
    narrowing(&schema.field("items"), false, causes);
    let properties = schema.field("properties");
    properties.entries().for_each(|(_, property)| narrowing(&property, false, causes));
    for (field, must) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let place = schema.field(field);
        let set = match place.value {
            Value::Null => false,
            // `additionalProperties: false` adds nothing.
            Value::Bool(flag) => *flag,
            _ => true,
        };
        if set {
            place.forbidden(causes, must);
        }
    }
    let metadata = properties.key("metadata");
    if metadata.is_set() {
        metadata.forbidden(causes, "must not be specified in a nested context");
    }
}

/// What conditions speak of must stand in the skeleton. `schema` holds the conditions, `bones` is the skeleton at that place, `place` its path.
fn conditions_complete(schema: &At<'_, '_>, bones: &At<'_, '_>, place: &At<'_, '_>, causes: &mut Causes) {
    if !schema.is_set() {
        return;
    }
    if !bones.is_set() {
        place.missing(causes, &format!("because it is defined in {}", schema.path()));
        return;
    }
    complete(&schema.field("not"), bones, place, causes);
    for field in ["allOf", "anyOf", "oneOf"] {
        let list = schema.field(field);
        list.items().for_each(|nested| complete(&nested, bones, place, causes));
    }
}

fn complete(nested: &At<'_, '_>, bones: &At<'_, '_>, place: &At<'_, '_>, causes: &mut Causes) {
    if !nested.is_set() {
        return;
    }
    if !bones.is_set() {
        place.missing(causes, &format!("because it is defined in {}", nested.path()));
        return;
    }
    conditions_complete(nested, bones, place, causes);
    complete(&nested.field("items"), &bones.field("items"), &place.field("items"), causes);
    let (of_nested, of_bones, of_place) = (nested.field("properties"), bones.field("properties"), place.field("properties"));
    for (name, property) in of_nested.entries() {
        complete(&property, &of_bones.key(name), &of_place.key(name), causes);
    }
}
