//! `status.typeChecking`: a policy's expressions checked against the types of the kinds that it names. Only warnings come of it, since kinds change under a
//! policy. It is done when the policy is written: a controller that looked at every policy once (upstream) would come to the same, later.

use crate::admission::constraints::Rule;
use crate::admission::policy::environment::Scope;
use crate::admission::policy::expression::Expression;
use crate::resources::Cx;
use coracle_cel::{Decl, Type};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most kinds that a policy is checked against.
const MAX_KINDS: usize = 10;

/// The status of a policy of this generation.
pub(super) fn status(cx: &Cx<'_>, policy: &Value, generation: i64) -> Value {
    let warnings = warnings(cx, &policy["spec"]);
    let checked = if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) };
    json!({"observedGeneration": generation, "typeChecking": checked})
}

fn warnings(cx: &Cx<'_>, spec: &Value) -> Vec<Value> {
    let kinds: Vec<((String, String, String), Arc<Decl>)> =
        kinds(cx, spec).into_iter().filter_map(|kind| Some((kind.clone(), decl(cx, &kind)?))).collect();
    let params = (!spec["paramKind"].is_null()).then(|| {
        let version = spec["paramKind"]["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = (group.to_string(), version.to_string(), spec["paramKind"]["kind"].as_str().unwrap_or_default().to_string());
        decl(cx, &kind).map_or(Type::Dyn, |decl| decl.ty())
    });
    let mut found = Vec::new();
    for (at, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let warning = |((group, version, kind), decl): &((String, String, String), Arc<Decl>)| {
                let mut scope = Scope::typed(decl.ty(), params.clone());
                for variable in spec["variables"].as_array().into_iter().flatten() {
                    let compiled = Expression::of(&scope.environment(true), variable["expression"].as_str().unwrap_or_default());
                    scope.define(variable["name"].as_str().unwrap_or_default(), &compiled);
                }
                let compiled = Expression::of(&scope.environment(true), text);
                let group_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
                compiled.error().map(|why| format!("{group_version}, Kind={kind}: {why}\n"))
            };
            let lines: Vec<String> = kinds.iter().filter_map(warning).collect();
            if !lines.is_empty() {
                found.push(json!({"fieldRef": format!("spec.validations[{at}].{field}"), "warning": lines.join("\n")}));
            }
        }
    }
    found
}

/// The kinds that the rules name one by one.
fn kinds(cx: &Cx<'_>, spec: &Value) -> BTreeSet<(String, String, String)> {
    let rules = spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten().map(Rule::of);
    let mut kinds = BTreeSet::new();
    for rule in rules {
        for (group, version, resource) in rule.named().unwrap_or_default() {
            if let Some(row) = cx.core.registry.by_path(group, version, resource)
                && kinds.len() < MAX_KINDS
            {
                kinds.insert((group.to_string(), version.to_string(), row.kind.to_string()));
            }
        }
    }
    kinds
}

fn decl(cx: &Cx<'_>, (group, version, kind): &(String, String, String)) -> Option<Arc<Decl>> {
    let row = cx.core.registry.by_kind(group, version, kind)?;
    cx.core.schema_of(&row).map(|schema| schema.declaration())
}
