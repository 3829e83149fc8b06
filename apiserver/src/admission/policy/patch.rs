//! What a mutation does to an object: an apply configuration is merged into it, a JSON patch is carried out.

use super::Mutation;
use coracle_cel::{Activation, Budget, Val};
use coracle_schema::{FieldValidation, Schema};
use serde_json::{Value, json};

/// The object after one mutation.
///
/// # Errors
/// Why it could not be made, in upstream's words.
pub(super) fn mutate<'a>(
    mutation: &'a Mutation,
    activation: &Activation<'a>,
    object: &Value,
    schema: &Schema,
    budget: &mut Budget,
) -> Result<Value, String> {
    let mut new = match mutation {
        Mutation::Apply(expression) => {
            let value = expression.evaluate(activation, budget).map_err(super::expression::Failure::message)?;
            names_match(&value, "Object").map_err(|why| format!("type mismatch: {why}"))?;
            let config = value.to_json().map_err(|why| format!("error applying patch: {why}"))?;
            schema.overlay(object, &config).map_err(|why| format!("error applying patch: {why}"))?
        }
        Mutation::Json(expression) => {
            let value = expression.evaluate(activation, budget).map_err(super::expression::Failure::message)?;
            let operations = operations(&value)?;
            match carried_out(object, &operations)? {
                Some(new) => new,
                // A test that fails means that the patch is not for this object.
                None => return Ok(object.clone()),
            }
        }
    };
    for name in ["apiVersion", "kind"] {
        new[name] = object[name].clone();
    }
    schema.canonicalize(&mut new, FieldValidation::Strict).map_err(|why| why.message)?;
    schema.default(&mut new);
    Ok(new)
}

/// An initializer stands where its name says: `Object.spec` in the field `spec`.
fn names_match(value: &Val<'_>, expected: &str) -> Result<(), String> {
    match value {
        Val::Message(message) => {
            if message.name != expected {
                return Err(format!(
                    "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
                    message.name
                ));
            }
            message.fields.iter().try_for_each(|(field, value)| names_match(value, &format!("{expected}.{field}")))
        }
        Val::List(list) => list.elements().try_for_each(|element| names_match(&element.map_err(|why| why.to_string())?, expected)),
        Val::Map(map) => map.values().try_for_each(|value| names_match(&value.map_err(|why| why.to_string())?, expected)),
        Val::Optional(Some(value)) => names_match(value, expected),
        _ => Ok(()),
    }
}

fn operations(value: &Val<'_>) -> Result<Vec<Value>, String> {
    let Val::List(list) = value else { return Err("type mismatch: JSONPatchType.expression should evaluate to array".into()) };
    let operation = |element: Val<'_>| {
        let Val::Message(message) = &element else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_string());
        };
        let mut operation = json!({});
        for (name, value) in &message.fields {
            if let (&"value", Val::Message(inner)) = (name, value) {
                names_match(value, inner.name).map_err(|why| format!("type mismatch: {why}"))?;
            }
            let json =
                value.to_json().map_err(|why| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}"))?;
            // An empty `from` is none.
            if *name != "from" || json != "" {
                operation[*name] = json;
            }
        }
        Ok(operation)
    };
    list.elements().map(|element| operation(element.map_err(|why| why.to_string())?)).collect()
}

/// None when one of its tests fails.
fn carried_out(object: &Value, operations: &[Value]) -> Result<Option<Value>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("JSON Patch: {why}");
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations.to_vec())).map_err(|why| wrong(&why))?;
    let mut new = object.clone();
    match json_patch::patch(&mut new, &patch) {
        Ok(()) => Ok(Some(new)),
        Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => Ok(None),
        Err(error) => Err(wrong(&error)),
    }
}
