//! Admission policies and their bindings: what may be in them (`pkg/apis/admissionregistration/validation`), and what is known of their types.

mod rules;
mod typecheck;

use super::{
    Cx, Hooks,
    cells::{self, AGE, NAME, text_or},
    rules::{At, Causes, admission},
};
use crate::admission::policy::environment::Scope;
use crate::admission::policy::expression::Expression;
use coracle_api::{names, registry::Column, status::Cause, status::Status};
use coracle_cel::{Env, Type};
use rules::FAILURE_POLICIES;
use serde_json::Value;

/// Hooks of `validatingadmissionpolicies`.
pub struct Validating;
/// Hooks of `mutatingadmissionpolicies`.
pub struct Mutating;
/// Hooks of the bindings of either.
pub struct Binding {
    /// Whether it binds a mutating policy.
    pub mutating: bool,
}

impl Hooks for Validating {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        new["status"] = typecheck::status(cx, new, 1);
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource().is_empty() && old["spec"] != new["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            new["status"] = typecheck::status(cx, new, generation);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        // What is stored stays writable; only what changes is looked at anew.
        if cx.subresource().is_empty() && old.is_none_or(|old| old["spec"] != new["spec"]) {
            validating(new, causes);
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("Validations", "How many validations it has."), ("ParamKind", "The kind of its parameters."), AGE]))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let count = object["spec"]["validations"].as_array().map_or(0, Vec::len);
        vec![cells::name(object), count.into(), param_kind(object).into(), super::age::of(object)]
    }
}

impl Hooks for Mutating {
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if old.is_none_or(|old| old["spec"] != new["spec"]) {
            mutating(new, causes);
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("Mutations", "How many mutations it has."), ("ParamKind", "The kind of its parameters."), AGE]))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let count = object["spec"]["mutations"].as_array().map_or(0, Vec::len);
        vec![cells::name(object), count.into(), param_kind(object).into(), super::age::of(object)]
    }
}

impl Hooks for Binding {
    fn validate(&self, _cx: &Cx<'_>, _old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        binding(new, self.mutating, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("PolicyName", "The policy it binds."), ("ParamRef", "The parameters it binds it with."), AGE]))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let spec = &object["spec"];
        let (namespace, name) = (spec["paramRef"]["namespace"].as_str().unwrap_or("*"), &spec["paramRef"]["name"]);
        let params = match name.as_str() {
            Some(name) => format!("{namespace}/{name}"),
            None if spec["paramRef"].is_null() => "<unset>".into(),
            None => format!("{namespace}:{}", spec["paramRef"]["selector"]),
        };
        vec![cells::name(object), text_or(&spec["policyName"], "").into(), params.into(), super::age::of(object)]
    }
}

fn param_kind(object: &Value) -> String {
    let kind = &object["spec"]["paramKind"];
    match (kind["apiVersion"].as_str(), kind["kind"].as_str()) {
        (Some(version), Some(kind)) => format!("{version}/{kind}"),
        _ => "<unset>".into(),
    }
}

/// One expression must compile, and be of one of these types.
fn expression(at: &At<'_, '_>, env: &Env, wanted: &[Type], causes: &mut Causes) -> Expression {
    let compiled = Expression::of(env, at.text());
    if let Some(why) = compiled.unfit(wanted) {
        at.invalid(causes, &why);
    }
    compiled
}

/// What both kinds of policies have in common; the environment of their expressions comes out.
fn policy(spec: &At<'_, '_>, causes: &mut Causes) -> Scope {
    spec.field("failurePolicy").required_one_of(causes, FAILURE_POLICIES);
    let kind = spec.field("paramKind");
    if kind.is_set() {
        rules::param_kind(&kind, causes);
    }
    let constraints = spec.field("matchConstraints");
    if constraints.is_set() {
        rules::match_resources(&constraints, causes);
        let resources = constraints.field("resourceRules");
        if resources.is_empty() {
            resources.missing(causes, "");
        }
    } else {
        constraints.missing(causes, "");
    }
    let mut scope = Scope::new(kind.is_set());
    admission::match_conditions(&spec.field("matchConditions"), &scope.environment(true), causes);
    for variable in spec.field("variables").items() {
        let (name, text) = (variable.field("name"), variable.field("expression"));
        if name.text().trim().is_empty() {
            name.missing(causes, "name is not specified");
        } else if !rules::is_identifier(name.text()) {
            name.invalid(causes, "must be a valid CEL identifier");
        }
        if text.text().trim().is_empty() {
            text.missing(causes, "expression is not specified");
            continue;
        }
        let compiled = Expression::of(&scope.environment(true), text.text());
        if let Some(why) = compiled.error() {
            text.invalid(causes, why);
        }
        scope.define(name.text(), &compiled);
    }
    scope
}

fn validating(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let scope = policy(&spec, causes);
    let (env, without) = (scope.environment(true), scope.environment(false));
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for at in [&validations, &annotations] {
            at.missing(causes, "validations or auditAnnotations must contain at least one item");
        }
        return;
    }
    for validation in validations.items() {
        let (text, made, message) = (validation.field("expression"), validation.field("messageExpression"), validation.field("message"));
        if text.text().trim().is_empty() {
            text.missing(causes, "expression is not specified");
        } else {
            expression(&text, &env, &[Type::Bool], causes);
        }
        if !made.is_empty() && made.text().trim().is_empty() {
            made.invalid(causes, "must be non-empty if specified");
        } else if !made.is_empty() {
            expression(&made, &without, &[Type::String], causes);
        }
        if !message.is_empty() && message.text().trim().is_empty() {
            message.invalid(causes, "must be non-empty if specified");
        } else if message.text().trim().contains(['\n', '\r']) {
            message.invalid(causes, "must not contain line breaks");
        }
        validation.field("reason").one_of(causes, &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"]);
    }
    if annotations.len() > 20 {
        annotations.invalid(causes, "must not have more than 20 auditAnnotations");
    }
    let (name, mut keys) = (new["metadata"]["name"].as_str().unwrap_or_default(), Vec::new());
    for annotation in annotations.items() {
        let (key, value) = (annotation.field("key"), annotation.field("valueExpression"));
        let whole = format!("{name}/{}", key.text());
        for why in names::qualified_name(&whole) {
            key.invalid_value(causes, whole.as_str(), &why);
        }
        match value.text().trim() {
            "" => value.missing(causes, "valueExpression is not specified"),
            long if long.len() > 5 * 1024 => value.missing(causes, "must not exceed 5120 bytes in length"),
            _ => _ = expression(&value, &env, &[Type::String, Type::Null], causes),
        }
        if keys.contains(&key.text()) {
            key.duplicate(causes);
        }
        keys.push(key.text());
    }
}

fn mutating(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let scope = policy(&spec, causes);
    rules::only_mutable_operations(&spec.field("matchConstraints"), causes);
    let env = scope.environment(true).with_mutations();
    let mutations = spec.field("mutations");
    if mutations.is_empty() {
        mutations.missing(causes, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        let (apply, patch) = (mutation.field("applyConfiguration"), mutation.field("jsonPatch"));
        let (wanted, other, name, ty) = match mutation.field("patchType").text() {
            "" => {
                mutation.field("patchType").missing(causes, "");
                continue;
            }
            "JSONPatch" => (&patch, &apply, "JSONPatch", Type::list(Type::Message("JSONPatch".into()))),
            "ApplyConfiguration" => (&apply, &patch, "ApplyConfiguration", Type::Message("Object".into())),
            _ => {
                mutation.field("patchType").unsupported(causes, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        if !wanted.is_set() {
            wanted.missing(causes, &format!("must be specified when patchType is {name}"));
        } else if wanted.field("expression").text().trim().is_empty() {
            wanted.field("expression").missing(causes, "");
        } else {
            expression(&wanted.field("expression"), &env, &[ty], causes);
        }
        if other.is_set() {
            let shown = if name == "JSONPatch" { "{applyConfiguration}" } else { "{jsonPatch}" };
            other.invalid_value(causes, shown, &format!("must not be specified when patchType is {name}"));
        }
    }
    spec.field("reinvocationPolicy").required_one_of(causes, &["IfNeeded", "Never"]);
}

fn binding(new: &Value, mutating: bool, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let policy = spec.field("policyName");
    if policy.is_empty() {
        policy.missing(causes, "");
    } else {
        policy.syntax(causes, names::dns_subdomain);
    }
    let params = spec.field("paramRef");
    if params.is_set() {
        rules::param_ref(&params, causes);
    }
    let resources = spec.field("matchResources");
    if resources.is_set() {
        rules::match_resources(&resources, causes);
    }
    if mutating {
        rules::only_mutable_operations(&resources, causes);
    } else {
        rules::actions(&spec.field("validationActions"), causes);
    }
}

#[cfg(test)]
mod tests;
