//! Validation rules of a definition's schemas: they must compile, and cost no more than a request may.

use crate::resources::rules::{At, Causes};
use coracle_api::{cause::Mistake, status::Cause};
use coracle_cel::{Decl, ESTIMATE_LIMIT, ESTIMATE_TOTAL_LIMIT, RuleError};
use coracle_schema::structural::{Node, Structural, field_path};
use serde_json::Value;
use std::sync::Arc;

/// How many of the most expensive rules are named when all together cost too much.
const NAMED: usize = 4;

/// What is known of a node when its rules are compiled.
pub(super) struct Scope<'n> {
    node: &'n Node,
    /// Only where this node or one around it has rules.
    decl: Option<Arc<Decl>>,
    /// How often it can occur in an object; None if nothing bounds it.
    times: Option<u64>,
}

impl<'n> Scope<'n> {
    /// Of a whole object.
    pub fn whole(node: &'n Node) -> Self {
        Self::new(node, None, true, Some(1))
    }

    fn new(node: &'n Node, around: Option<Arc<Decl>>, whole: bool, times: Option<u64>) -> Self {
        let decl = around.or_else(|| if node.has_rules() { node.declaration(whole) } else { None });
        Scope { node, decl, times }
    }

    fn below(&self, schema: &At<'_, '_>, node: Option<&'n Node>, name: Option<&str>) -> Option<Scope<'n>> {
        let node = node?;
        let around = self.decl.as_ref().and_then(|decl| Node::below(decl, name));
        let limit = |field: &str| schema.field(field).int().map(|limit| u64::try_from(limit).unwrap_or_default());
        let most = match schema.field("type").text() {
            "object" if schema.field("additionalProperties").is_set() => limit("maxProperties"),
            "array" => limit("maxItems"),
            _ => Some(1),
        };
        Some(Scope::new(node, around, node.is_embedded(), self.times.zip(most).map(|(times, most)| times.saturating_mul(most))))
    }

    /// Of a property.
    pub fn property(&self, schema: &At<'_, '_>, name: &str) -> Option<Scope<'n>> {
        self.below(schema, self.node.property(name), Some(name))
    }

    /// Of a list's elements.
    pub fn items(&self, schema: &At<'_, '_>) -> Option<Scope<'n>> {
        self.below(schema, self.node.items(), None)
    }

    /// Of a map's entries.
    pub fn entry(&self, schema: &At<'_, '_>) -> Option<Scope<'n>> {
        self.below(schema, self.node.additional_schema(), None)
    }
}

/// What all rules of a version may cost, and what is wrong with them: told after what is wrong with the schema.
pub(super) struct Costs {
    total: u64,
    most: Vec<(String, u64)>,
    unchanged: bool,
    causes: Causes,
}

impl Costs {
    /// Of a version; `unchanged`: single rules may cost what they did.
    pub fn new(unchanged: bool) -> Self {
        Costs { total: 0, most: Vec::new(), unchanged, causes: Causes::new() }
    }

    fn add(&mut self, place: &At<'_, '_>, cost: u64, what: &str) {
        if !self.unchanged && cost > ESTIMATE_LIMIT {
            place.forbidden(&mut self.causes, &too_much(what, cost, ESTIMATE_LIMIT));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= ESTIMATE_TOTAL_LIMIT / 100 {
            self.most.push((place.path(), cost));
            self.most.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.most.truncate(NAMED);
        }
    }

    /// Says what was found.
    pub fn report(self, schema: &At<'_, '_>, causes: &mut Causes) {
        causes.extend(self.causes);
        if self.total <= ESTIMATE_TOTAL_LIMIT {
            return;
        }
        for (place, _) in self.most {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            causes.push(Cause::of(Mistake::Forbidden, place, None, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        schema.forbidden(causes, &too_much(what, self.total, ESTIMATE_TOTAL_LIMIT));
    }
}

fn too_much(what: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = match times {
        times if times > 100.0 => "more than 100x".to_owned(),
        times if times < 1.5 => format!("{times:.6}x"),
        times => format!("{times:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Compiles the rules of one node.
pub(super) fn compile(schema: &At<'_, '_>, scope: &Scope<'_>, uncorrelated: Option<&At<'_, '_>>, costs: &mut Costs) {
    let rules = schema.field("x-kubernetes-validations");
    if rules.is_empty() {
        return;
    }
    let Some(decl) = &scope.decl else {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        costs.causes.push(Cause::of(Mistake::Internal, rules.path(), None, why));
        return;
    };
    let times = scope.times.unwrap_or_else(|| decl.max_cardinality());
    for (rule, compiled) in rules.items().zip(scope.node.compile(decl)) {
        let (place, message) = (rule.field("rule"), rule.field("messageExpression"));
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                let (place, why) = match error {
                    RuleError::Rule(why) => (place, why),
                    RuleError::MessageExpression(why) => (message, why),
                };
                let message = format!("Invalid value: {}: {why}", internal(rule.value));
                costs.causes.push(Cause { reason: Mistake::Invalid.reason().into(), message, field: place.path() });
                continue;
            }
        };
        costs.add(&place, compiled.cost().saturating_mul(times), "estimated rule cost");
        if !message.text().is_empty() {
            costs.add(&message, compiled.message_cost(), "estimated messageExpression cost");
        }
        let optional = rule.field("optionalOldSelf");
        match (compiled.uses_old_self(), uncorrelated) {
            (true, Some(list)) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {}", list.path());
                place.invalid(&mut costs.causes, &why);
            }
            (false, _) if optional.is_set() => optional.invalid(&mut costs.causes, "may not be set if oldSelf is not used in rule"),
            _ => {}
        }
    }
}

/// A rule as upstream's internal form is shown.
fn internal(rule: &Value) -> String {
    let text = |field: &str| Value::from(rule[field].as_str().unwrap_or_default());
    let fields = [
        ("Rule", text("rule")),
        ("Message", text("message")),
        ("MessageExpression", text("messageExpression")),
        ("Reason", rule["reason"].clone()),
        ("FieldPath", text("fieldPath")),
        ("OptionalOldSelf", rule["optionalOldSelf"].clone()),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(",")).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// `x-kubernetes-validations`, as far as that can be told without compiling them.
pub(super) fn written(schema: &At<'_, '_>, causes: &mut Causes) {
    const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let rules = schema.field("x-kubernetes-validations");
    for rule in rules.items() {
        let (expression, message) = (rule.field("rule"), rule.field("message"));
        let (trimmed_rule, trimmed) = (expression.text().trim(), message.text().trim());
        if trimmed_rule.is_empty() {
            expression.missing(causes, "rule is not specified");
        } else if !message.text().is_empty() && trimmed.is_empty() {
            message.invalid(causes, "must be non-empty if specified");
        } else if breaks(trimmed) {
            message.invalid(causes, "must not contain line breaks");
        } else if breaks(trimmed_rule) && trimmed.is_empty() {
            message.missing(causes, "message must be specified if rule contains line breaks");
        }
        let by_expression = rule.field("messageExpression");
        if !by_expression.text().is_empty() && by_expression.text().trim().is_empty() {
            by_expression.missing(causes, "messageExpression must be non-empty if specified");
        }
        rule.field("reason").one_of(causes, &REASONS);
        let path = rule.field("fieldPath");
        if path.text().is_empty() {
            continue;
        }
        if path.text().trim().is_empty() {
            path.invalid(causes, "must be non-empty if specified");
        }
        if breaks(path.text()) {
            path.invalid(causes, "must not contain line breaks");
        }
        if Structural::parse(schema.value).is_ok_and(|structural| field_path(path.text(), structural.root(), true).is_err()) {
            path.invalid(causes, "must be a valid path");
        }
    }
}
