//! Rules of a definition's schemas: what of OpenAPI is allowed, and what Kubernetes' extensions ask for.

use super::{
    defaults,
    expressions::{self, Costs, Scope},
    structural,
};
use crate::resources::rules::{At, Causes};
use coracle_schema::structural::{META_FIELDS, Structural};
use serde_json::Value;

/// Types of OpenAPI.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What is fine at the root of a schema whose status has a subresource, as upstream lists it in its internal form.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// One `CustomResourceValidation`; `status`: it has a subresource.
///
/// `unchanged`: the schema was accepted before, what its rules cost is not held against it now.
pub(super) fn validation(validation: &At<'_, '_>, status: bool, unchanged: bool, causes: &mut Causes) {
    let schema = validation.field("openAPIV3Schema");
    if !schema.is_set() {
        return;
    }
    let before = causes.len();
    if status {
        at_root(&schema, causes);
    }
    if schema.field("nullable").is_true() {
        schema.field("nullable").forbidden(causes, "nullable cannot be true at the root");
    }
    let parsed = Structural::parse(schema.value);
    let mut sound = None;
    if let Ok(parsed) = &parsed {
        let so_far = causes.len();
        structural::validate(&schema, causes);
        if causes.len() == so_far {
            defaults::validate(&schema, parsed, causes);
        }
        if causes.len() == so_far {
            sound = Some(Scope::whole(parsed.root()));
        }
    }
    let walk = Walk { defaults: Ok(()), inside_meta: false, uncorrelated: None };
    let mut costs = Costs::new(unchanged);
    check(&schema, walk, sound, true, &mut costs, causes);
    costs.report(&schema, causes);
    if causes.len() == before
        && let Err(why) = &parsed
    {
        schema.invalid_value(causes, "", why);
    }
}

fn at_root(schema: &At<'_, '_>, causes: &mut Causes) {
    let Some(map) = schema.value.as_object() else { return };
    let kind = schema.field("type");
    if !kind.text().is_empty() && kind.text() != "object" {
        kind.invalid(causes, "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled");
        return;
    }
    if map.keys().any(|field| !AT_ROOT.iter().any(|(known, _)| known == field)) {
        let words: Vec<&str> = AT_ROOT.iter().map(|(_, word)| *word).collect();
        let why = format!("only [{}] fields are allowed at the root of the schema if the status subresource is enabled", words.join(" "));
        schema.invalid(causes, &why);
    }
}

/// What is known of the place of a schema.
#[derive(Clone, Copy)]
struct Walk<'w> {
    /// Whether defaults are allowed here, or why not.
    defaults: Result<(), &'w str>,
    /// Within type or metadata of an object.
    inside_meta: bool,
    /// The outermost list around it whose elements cannot be told apart.
    uncorrelated: Option<&'w At<'w, 'w>>,
}

/// One schema and all below it (`ValidateCustomResourceDefinitionOpenAPISchema`).
fn check(schema: &At<'_, '_>, walk: Walk<'_>, scope: Option<Scope<'_>>, root: bool, costs: &mut Costs, causes: &mut Causes) {
    if !schema.is_set() {
        return;
    }
    let so_far = causes.len();
    standard(schema, walk, causes);
    let embedded = schema.field("x-kubernetes-embedded-resource").is_true();
    if schema.field("uniqueItems").is_true() {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        schema.field("uniqueItems").forbidden(causes, why);
    }
    let (additional, properties) = (schema.field("additionalProperties"), schema.field("properties"));
    if additional.is_set() {
        if !properties.is_empty() && *additional.value != Value::Bool(true) {
            additional.forbidden(causes, "additionalProperties and properties are mutual exclusive");
        }
        if additional.value.is_object() {
            let below = match walk.inside_meta {
                true => Walk { defaults: Err("inside additionalProperties applying to object metadata"), ..walk },
                false => walk,
            };
            check(&additional, below, scope.as_ref().and_then(|scope| scope.entry(schema)), false, costs, causes);
        }
    }
    for (name, property) in properties.entries() {
        let why = format!("in top-level {name}");
        let mut below = walk;
        if (root || embedded) && META_FIELDS.contains(&name) {
            below.inside_meta = true;
            if root {
                below.defaults = Err(&why);
            }
        }
        check(&property, below, scope.as_ref().and_then(|scope| scope.property(schema, name)), false, costs, causes);
    }
    check(&schema.field("not"), walk, None, false, costs, causes);
    for field in ["allOf", "oneOf", "anyOf"] {
        let list = schema.field(field);
        list.items().for_each(|schema| check(&schema, walk, None, false, costs, causes));
    }
    let definitions = schema.field("definitions");
    definitions.entries().for_each(|(_, schema)| check(&schema, walk, None, false, costs, causes));
    let items = schema.field("items");
    let of_items = match schema.field("x-kubernetes-list-type").text() {
        "map" => walk,
        _ => Walk { uncorrelated: walk.uncorrelated.or(Some(schema)), ..walk },
    };
    match items.value {
        Value::Array(_) => items.items().for_each(|schema| check(&schema, of_items, None, false, costs, causes)),
        _ => check(&items, of_items, scope.as_ref().and_then(|scope| scope.items(schema)), false, costs, causes),
    }
    let dependencies = schema.field("dependencies");
    dependencies.entries().filter(|(_, schema)| schema.value.is_object()).for_each(|(_, schema)| check(&schema, walk, None, false, costs, causes));
    let preserve = schema.field("x-kubernetes-preserve-unknown-fields");
    if *preserve.value == Value::Bool(false) {
        preserve.invalid(causes, "must be true or undefined");
    }
    map_type(schema, causes);
    list_type(schema, causes);
    expressions::written(schema, causes);
    if causes.len() == so_far
        && let Some(scope) = &scope
    {
        expressions::compile(schema, scope, walk.uncorrelated, costs);
    }
}

/// What OpenAPI has and definitions may not use.
fn standard(schema: &At<'_, '_>, walk: Walk<'_>, causes: &mut Causes) {
    let kind = schema.field("type");
    if !kind.text().is_empty() && !TYPES.contains(&kind.text()) {
        kind.unsupported(causes, &TYPES);
    }
    if let Err(why) = walk.defaults
        && schema.field("default").is_set()
    {
        schema.field("default").forbidden(causes, format!("must not be set {why}").trim_end());
    }
    if !schema.field("id").text().is_empty() {
        schema.field("id").forbidden(causes, "id is not supported");
    }
    for (field, word) in [
        ("additionalItems", "additionalItems"),
        ("patternProperties", "patternProperties"),
        ("definitions", "definitions"),
        ("dependencies", "dependencies"),
        ("$ref", "$ref"),
    ] {
        if schema.field(field).is_set() {
            schema.field(field).forbidden(causes, &format!("{word} is not supported"));
        }
    }
    if kind.text() == "null" {
        kind.forbidden(causes, "type cannot be set to null, use nullable as an alternative");
    }
    if schema.field("items").value.as_array().is_some_and(|list| !list.is_empty()) {
        schema.field("items").forbidden(causes, "items must be a schema object and not an array");
    }
    let embedded = schema.field("x-kubernetes-embedded-resource");
    if walk.inside_meta && embedded.is_true() {
        embedded.forbidden(causes, "must not be used inside of resource meta");
    }
}

/// `type` must be what an extension needs.
fn must_be(schema: &At<'_, '_>, wanted: &str, extension: &str, causes: &mut Causes) {
    let kind = schema.field("type");
    let why = format!("must be {wanted} if {extension} is specified");
    match kind.text() {
        text if text == wanted => {}
        "" => kind.missing(causes, &why),
        _ => kind.invalid(causes, &why),
    }
}

fn map_type(schema: &At<'_, '_>, causes: &mut Causes) {
    let map = schema.field("x-kubernetes-map-type");
    if map.is_set() {
        must_be(schema, "object", "x-kubernetes-map-type", causes);
        map.one_of(causes, &["atomic", "granular"]);
    }
}

fn list_type(schema: &At<'_, '_>, causes: &mut Causes) {
    let (list, keys, items) = (schema.field("x-kubernetes-list-type"), schema.field("x-kubernetes-list-map-keys"), schema.field("items"));
    if list.is_set() {
        let so_far = causes.len();
        must_be(schema, "array", "x-kubernetes-list-type", causes);
        if causes.len() == so_far && list.text() == "set" {
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let (of_list, of_map) = (items.field("x-kubernetes-list-type"), items.field("x-kubernetes-map-type"));
            match items.field("type").text() {
                "array" if of_list.is_set() && of_list.text() != "atomic" => of_list.invalid(causes, why),
                "object" if of_map.text() != "atomic" => of_map.invalid_value(causes, of_list.value.clone(), why),
                _ => {}
            }
        }
        list.one_of(causes, &["atomic", "set", "map"]);
    }
    if !keys.is_empty() && list.text() != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if list.is_set() { list.invalid(causes, why) } else { list.missing(causes, why) }
    }
    if list.text() == "map" {
        map_keys(&keys, &items, causes);
    }
    if matches!(list.text(), "set" | "map") && items.value.is_object() {
        if items.field("nullable").is_true() {
            items.field("nullable").forbidden(causes, &format!("cannot be nullable when x-kubernetes-list-type is {}", list.text()));
        }
        if list.text() == "map" {
            let (properties, required) = (items.field("properties"), items.field("required"));
            for key in keys.items() {
                let property = properties.key(key.text());
                if !property.is_set() {
                    continue;
                }
                if !required.items().any(|name| name.text() == key.text()) && !property.field("default").is_set() {
                    let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    property.field("default").missing(causes, why);
                }
                if property.field("nullable").is_true() {
                    property.field("nullable").forbidden(causes, "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
                }
            }
        }
    }
}

fn map_keys(keys: &At<'_, '_>, items: &At<'_, '_>, causes: &mut Causes) {
    keys.required(causes, "must not be empty if x-kubernetes-list-type is map");
    if !items.is_set() {
        items.missing(causes, "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    if items.value.is_array() {
        items.invalid(causes, "must only have a single schema if x-kubernetes-list-type is map");
        return;
    }
    let kind = items.field("type");
    if kind.text() != "object" {
        kind.invalid(causes, "must be object if parent array's x-kubernetes-list-type is map");
        return;
    }
    let properties = items.field("properties");
    let mut seen = Vec::new();
    for key in keys.items() {
        let property = properties.key(key.text());
        match property.field("type").text() {
            _ if !property.is_set() => keys.invalid(causes, "entries must all be names of item properties"),
            "array" | "object" => {
                property.field("type").invalid_value(causes, kind.text(), "must be a scalar type if parent array's x-kubernetes-list-type is map");
            }
            _ => {}
        }
        if seen.contains(&key.text()) {
            keys.invalid(causes, "must not contain duplicate entries");
        }
        seen.push(key.text());
    }
}
