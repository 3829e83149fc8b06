//! Defaults must be values that could be sent: cut to the schema, and valid (`schema/defaulting`).

use crate::{
    pipeline::metadata,
    resources::rules::{At, Causes},
};
use coracle_api::cause::Path;
use coracle_cel::Budget;
use coracle_schema::structural::{META_FIELDS, Malformed, Node, Rules, Structural, Trial, Validation, coerce, embedded};
use serde_json::{Map, Value, json};

/// Checks all defaults of a schema.
pub(super) fn validate(schema: &At<'_, '_>, structural: &Structural, causes: &mut Causes) {
    walk(schema, structural.root(), Around::whole(structural.root()), &mut Budget::default(), causes);
}

/// The object that a place is in, so that a default in its metadata can be seen in it.
#[derive(Clone, Copy)]
struct Around<'a> {
    root: &'a Node,
    /// Steps from that object to the place; None for an element of a list.
    steps: Steps<'a>,
    inside_meta: bool,
}

#[derive(Clone, Copy)]
enum Steps<'a> {
    Here,
    Field(&'a Steps<'a>, &'a str),
    Item(&'a Steps<'a>),
}

impl<'a> Around<'a> {
    fn whole(root: &'a Node) -> Self {
        Around { root, steps: Steps::Here, inside_meta: false }
    }
}

impl Steps<'_> {
    /// The value within as little of an object as it takes.
    fn around(&self, value: Value) -> Value {
        match self {
            Steps::Here => value,
            Steps::Field(outer, name) => outer.around(Value::Object(Map::from_iter([((*name).to_owned(), value)]))),
            Steps::Item(outer) => outer.around(json!([value])),
        }
    }
}

fn walk(schema: &At<'_, '_>, node: &Node, around: Around<'_>, budget: &mut Budget, causes: &mut Causes) {
    let around = if node.is_embedded() { Around::whole(node) } else { around };
    let default = schema.field("default");
    if default.is_set() {
        check(&default, node, around, budget, causes);
    }
    let items = schema.field("items");
    if let Some(below) = node.items() {
        walk(&items, below, Around { steps: Steps::Item(&around.steps), ..around }, budget, causes);
    }
    let properties = schema.field("properties");
    let whole = std::ptr::eq(node, around.root);
    for (name, property) in properties.entries() {
        let Some(below) = node.property(name) else { continue };
        let inside_meta = around.inside_meta || (whole && META_FIELDS.contains(&name));
        walk(&property, below, Around { steps: Steps::Field(&around.steps, name), inside_meta, ..around }, budget, causes);
    }
}

fn check(default: &At<'_, '_>, node: &Node, around: Around<'_>, budget: &mut Budget, causes: &mut Causes) {
    let place = default.path();
    let mut value = default.value.clone();
    if around.inside_meta {
        let mut object = around.steps.around(value.clone());
        object["apiVersion"] = object.get("apiVersion").cloned().unwrap_or_else(|| "validation/v1".into());
        object["kind"] = object.get("kind").cloned().unwrap_or_else(|| "Validation".into());
        if let Err(cause) = coerce(around.root, &mut object, true, Malformed::Refuse) {
            default.invalid(causes, &format!("must result in valid metadata: {}", cause.line()));
            return;
        }
        let mut wrong = Causes::new();
        embedded(&around.root.clone().embedding(), &object, Path::Root, &metadata::check_embedded, &mut wrong);
        if !wrong.is_empty() {
            let lines: Vec<String> = wrong.iter().map(|cause| cause.line()).collect();
            let all = if lines.len() == 1 { lines.join("") } else { format!("[{}]", lines.join(", ")) };
            default.invalid(causes, &format!("must result in valid metadata: {all}"));
            return;
        }
    } else {
        if !node.prune(&mut value).is_empty() || value != *default.value {
            default.invalid(causes, "must not have unknown fields");
            value.clone_from(default.value);
        }
        if let Err(cause) = coerce(node, &mut value, node.is_embedded(), Malformed::Refuse) {
            causes.push(within(&place, cause));
            return;
        }
        let mut wrong = Causes::new();
        embedded(node, &value, Path::Root, &metadata::check_embedded, &mut wrong);
        if !wrong.is_empty() {
            causes.extend(wrong.into_iter().map(|cause| within(&place, cause)));
            return;
        }
    }
    let wrong = Validation { value: default.value, old: None, base: &place }.run(node);
    if !wrong.is_empty() {
        causes.extend(wrong);
        return;
    }
    let whole = std::ptr::eq(node, around.root);
    let Some(rules) = Rules::compile(node, whole).filter(|_| budget.left() > 0) else { return };
    // As a value that stays, and as one that comes to be.
    let mut spent = *budget;
    for old in [Some(default.value), None] {
        let mut left = *budget;
        let (broken, _) = rules.check(node, Trial { value: default.value, old, ratchet: false, base: &place }, &mut left);
        if left.left() < spent.left() {
            spent = left;
        }
        if !broken.is_empty() {
            causes.extend(broken);
            break;
        }
    }
    *budget = spent;
}

/// A mistake within a default, at the default's own place.
fn within(place: &str, cause: coracle_api::status::Cause) -> coracle_api::status::Cause {
    let field = if cause.field.is_empty() { place.to_owned() } else { format!("{place}.{}", cause.field) };
    coracle_api::status::Cause { field, ..cause }
}
