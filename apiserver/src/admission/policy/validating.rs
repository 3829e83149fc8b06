//! `ValidatingAdmissionPolicy`: refuses, warns or notes.

use super::context::Subject;
use super::expression::Failure;
use super::set::{Cache, Set};
use super::{Binding, Policy, VALIDATING, VALIDATING_BINDINGS, params};
use crate::admission::attributes::{self, Attributes};
use crate::admission::{Plugin, audit, lookup};
use crate::resources::Cx;
use coracle_api::status::{Cause, Details, Status};
use coracle_cel::{Activation, Budget, Val, message_of};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The plugin.
pub struct ValidatingAdmissionPolicy {
    cache: Cache,
}

impl ValidatingAdmissionPolicy {
    /// Nothing is compiled yet.
    pub fn new() -> Self {
        Self { cache: Cache::new(&[VALIDATING, VALIDATING_BINDINGS]) }
    }
}

impl Default for ValidatingAdmissionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Longest value of an audit annotation, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;

/// One expression that does not hold, or could not be evaluated.
struct Denial {
    message: String,
    reason: &'static str,
    code: u16,
}

impl Denial {
    fn invalid(message: String) -> Denial {
        Denial { message, reason: "Invalid", code: 422 }
    }
}

/// What a policy says about a request with one set of parameters.
#[derive(Default)]
struct Judgement {
    /// The validation's number and what is wrong.
    denials: Vec<(usize, Denial)>,
    annotations: Vec<(String, String)>,
    /// Refused whatever the binding's actions are: an annotation failed.
    broken: Vec<Denial>,
}

impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn connects(&self) -> bool {
        true
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let set = self.cache.of(cx.snapshot, |known| Set::of(cx.snapshot, VALIDATING, VALIDATING_BINDINGS, known));
        if set.hooks.is_empty() {
            return Ok(());
        }
        let Some(a) = Attributes::of(cx, old, new) else { return Ok(()) };
        let namespace = attributes::namespace_object(cx)?;
        if !set.concerns(&a, &namespace, &cx.core.registry) {
            return Ok(());
        }
        let request = a.request();
        let subject = Subject { attributes: &a, request: &request, namespace: &namespace, core: cx.core, snapshot: cx.snapshot };
        match judge(cx, &subject, &set) {
            None => Ok(()),
            Some((denial, message)) => Err(refusal(cx, new.or(old).unwrap_or(&Value::Null), &denial, message)),
        }
    }
}

/// The first denial and its message; warnings and annotations go to the context.
fn judge(cx: &Cx<'_>, subject: &Subject<'_>, set: &Set) -> Option<(Denial, String)> {
    let mut first: Option<(Denial, String)> = None;
    let mut deny = |denial: Denial, policy: &Policy, binding: Option<&Binding>| {
        let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", policy.name, denial.message);
        first.get_or_insert((denial, message));
    };
    for (policy, bindings) in &set.hooks {
        let mut noted = Noted::default();
        match &policy.constraints {
            Ok(constraints) if !constraints.matches(subject.attributes, subject.namespace, subject.registry()) => continue,
            Ok(_) => {}
            Err(_) if policy.lenient => continue,
            Err(why) => {
                deny(Denial::invalid(format!("failed to configure policy: {why}")), policy, None);
                continue;
            }
        }
        for binding in bindings {
            let params = match &binding.constraints {
                Ok(constraints) if !constraints.matches(subject.attributes, subject.namespace, subject.registry()) => continue,
                Ok(_) => {
                    params::collect(policy.params.as_ref(), binding.params.as_ref(), subject.core, subject.snapshot, subject.attributes.namespace)
                }
                Err(why) => Err(why.clone()),
            };
            match params {
                Ok(list) => {
                    for params in &list {
                        let judgement = evaluate(subject, policy, params);
                        for (at, denial) in judgement.denials {
                            act(cx, policy, binding, at, denial, &mut deny);
                        }
                        for denial in judgement.broken {
                            deny(denial, policy, Some(binding));
                        }
                        noted.add(judgement.annotations);
                    }
                }
                Err(_) if policy.lenient => {}
                Err(why) => deny(Denial::invalid(format!("failed to configure binding: {why}")), policy, Some(binding)),
            }
        }
        for (key, values) in noted.0 {
            audit(cx, &format!("{}/{key}", policy.name), &values.join(", "));
        }
    }
    first
}

/// Annotations of one policy under all its bindings, each value once.
#[derive(Default)]
struct Noted(BTreeMap<String, Vec<String>>);

impl Noted {
    fn add(&mut self, annotations: Vec<(String, String)>) {
        for (key, value) in annotations {
            let values = self.0.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
}

/// The value of the annotation of a validation that does not hold.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Broken<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

/// Does what the binding wants done about a denial.
fn act(cx: &Cx<'_>, policy: &Policy, binding: &Binding, at: usize, denial: Denial, deny: &mut impl FnMut(Denial, &Policy, Option<&Binding>)) {
    let has = |wanted: &str| binding.actions.iter().any(|action| action == wanted);
    if has("Warn") {
        let (policy, binding) = (&policy.name, &binding.name);
        cx.request.warnings.add(format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}", denial.message));
    }
    if has("Audit") {
        let broken = Broken {
            message: &denial.message,
            policy: &policy.name,
            binding: &binding.name,
            expression_index: at,
            validation_actions: &binding.actions,
        };
        audit(cx, "validation.policy.admission.k8s.io/validation_failure", &json!([broken]).to_string());
    }
    if has("Deny") {
        deny(denial, policy, Some(binding));
    }
}

fn evaluate(subject: &Subject<'_>, policy: &Policy, params: &Value) -> Judgement {
    let mut judgement = Judgement::default();
    let failed = |judgement: &mut Judgement, why: String| {
        if !policy.lenient {
            judgement.denials.push((0, Denial::invalid(why)));
        }
    };
    let activation = match subject.activation(&policy.variables, params, subject.attributes.new) {
        Ok(activation) => activation,
        Err(why) => {
            failed(&mut judgement, why);
            return judgement;
        }
    };
    match policy.conditions.hold(&activation, policy.lenient) {
        Ok(true) => {}
        Ok(false) => return judgement,
        Err(why) => {
            failed(&mut judgement, why);
            return judgement;
        }
    }
    let mut budget = Budget::default();
    for (at, validation) in policy.validations.iter().enumerate() {
        match validation.expression.evaluate(&activation, &mut budget) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let denial = Denial { message: message(validation, &activation, &mut budget), reason: validation.reason, code: validation.code };
                judgement.denials.push((at, denial));
            }
            Err(_) if policy.lenient => {}
            Err(Failure::Expression(why)) => judgement.denials.push((at, Denial::invalid(why))),
            Err(Failure::Budget(why)) => {
                judgement.denials = vec![(at, Denial::invalid(why))];
                return judgement;
            }
        }
    }
    let mut budget = Budget::default();
    for (key, expression) in &policy.annotations {
        match expression.evaluate(&activation, &mut budget) {
            Ok(Val::String(text)) if !text.trim().is_empty() => {
                let value = text.trim();
                let end = (0..=value.len().min(MAX_ANNOTATION)).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
                judgement.annotations.push((key.clone(), value.get(..end).unwrap_or_default().to_string()));
            }
            Ok(_) => {}
            Err(_) if policy.lenient => {}
            Err(why) => judgement.broken.push(Denial::invalid(why.message())),
        }
    }
    judgement
}

/// What the user is told: made by the expression if that works, else as written, else the expression that failed.
fn message<'a>(validation: &'a super::Validation, activation: &Activation<'a>, budget: &mut Budget) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| {
        let value = expression.evaluate(activation, budget).ok()?;
        message_of(Ok(value)).ok()
    });
    made.unwrap_or_else(|| match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.text().trim()),
        written => written.to_string(),
    })
}

/// 422 (or as the validation says) in the form of a 403, as upstream makes it.
fn refusal(cx: &Cx<'_>, object: &Value, denial: &Denial, message: String) -> Status {
    let mut status = lookup::forbidden(cx, object, &message);
    (status.code, status.reason) = (denial.code, denial.reason);
    let details = status.details.get_or_insert_with(|| Box::new(Details::default()));
    details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    status
}
