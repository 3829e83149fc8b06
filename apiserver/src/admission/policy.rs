//! Admission policies: CEL that is evaluated about writes (`ValidatingAdmissionPolicy`, `MutatingAdmissionPolicy` and their bindings, KEP-3488, KEP-3962).
//!
//! What is stored is compiled once per uid and generation and kept beside the snapshot's revisions; a write looks at the revisions of the few policies there
//! are and takes what is compiled. A cluster without policies pays one look at an empty range.

pub mod conditions;
pub(super) mod context;
pub mod environment;
pub mod expression;
mod mutating;
mod params;
mod patch;
mod set;
mod validating;

pub use mutating::MutatingAdmissionPolicy;
pub use validating::ValidatingAdmissionPolicy;

use conditions::Conditions;
use environment::Scope;
use expression::Expression;
use serde_json::Value;

use super::constraints::Constraints;
use params::{ParamKind, ParamRef};

/// Resource ids.
pub const VALIDATING: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
/// See [`VALIDATING`].
pub const VALIDATING_BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
/// See [`VALIDATING`].
pub const MUTATING: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
/// See [`VALIDATING`].
pub const MUTATING_BINDINGS: &str = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";

/// A compiled policy of either kind.
struct Policy {
    name: String,
    constraints: Result<Constraints, String>,
    params: Option<ParamKind>,
    /// `failurePolicy: Ignore`
    lenient: bool,
    conditions: Conditions,
    variables: Vec<(String, Expression)>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    again: bool,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: &'static str,
    code: u16,
}

enum Mutation {
    Apply(Expression),
    Json(Expression),
}

/// A binding of either kind.
struct Binding {
    name: String,
    policy: String,
    constraints: Result<Constraints, String>,
    params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`
    actions: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

impl Policy {
    fn of(object: &Value) -> Policy {
        let spec = &object["spec"];
        let list = |field: &'static str| spec[field].as_array().into_iter().flatten();
        let mut scope = Scope::new(!spec["paramKind"].is_null());
        let mut variables = Vec::new();
        for variable in list("variables") {
            let (name, expression) = (text(&variable["name"]), Expression::of(&scope.environment(true), &text(&variable["expression"])));
            scope.define(&name, &expression);
            variables.push((name, expression));
        }
        let (with_authorizer, without) = (scope.environment(true), scope.environment(false));
        let mutations = scope.environment(true).with_mutations();
        let validation = |value: &Value| {
            let (reason, code) = match value["reason"].as_str() {
                Some("Unauthorized") => ("Unauthorized", 401),
                Some("Forbidden") => ("Forbidden", 403),
                Some("RequestEntityTooLarge") => ("RequestEntityTooLarge", 413),
                _ => ("Invalid", 422),
            };
            let message_expression = value["messageExpression"].as_str().filter(|text| !text.is_empty()).map(|text| Expression::of(&without, text));
            Validation {
                expression: Expression::of(&with_authorizer, &text(&value["expression"])),
                message: text(&value["message"]),
                message_expression,
                reason,
                code,
            }
        };
        let mutation = |value: &Value| match value["patchType"].as_str() {
            Some("JSONPatch") => Mutation::Json(Expression::of(&mutations, &text(&value["jsonPatch"]["expression"]))),
            _ => Mutation::Apply(Expression::of(&mutations, &text(&value["applyConfiguration"]["expression"]))),
        };
        Policy {
            name: text(&object["metadata"]["name"]),
            constraints: Constraints::of(&spec["matchConstraints"]),
            params: ParamKind::of(&spec["paramKind"]),
            lenient: spec["failurePolicy"] == "Ignore",
            conditions: Conditions::of(&with_authorizer, &spec["matchConditions"]),
            validations: list("validations").map(validation).collect(),
            annotations: list("auditAnnotations")
                .map(|value| (text(&value["key"]), Expression::of(&with_authorizer, &text(&value["valueExpression"]))))
                .collect(),
            mutations: list("mutations").map(mutation).collect(),
            again: spec["reinvocationPolicy"] == "IfNeeded",
            variables,
        }
    }
}

impl Binding {
    fn of(object: &Value) -> Binding {
        let spec = &object["spec"];
        Binding {
            name: text(&object["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            constraints: Constraints::of(&spec["matchResources"]),
            params: ParamRef::of(&spec["paramRef"]),
            actions: spec["validationActions"].as_array().into_iter().flatten().map(text).collect(),
        }
    }
}
