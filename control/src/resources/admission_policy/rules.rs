//! Rules of the parts that policies, bindings and webhooks share: what requests they are about, conditions, parameters.

use crate::admission::policy::expression::Expression;
use crate::resources::rules::{At, Causes, labels};
use coracle_api::names;
use coracle_cel::{Env, Type};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Most conditions of one policy or webhook.
const MAX_CONDITIONS: usize = 64;

/// A name of a variable: no operator and no reserved word.
pub(super) fn is_identifier(name: &str) -> bool {
    let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    plain && coracle_cel::escape(name).is_some_and(|escaped| !escaped.starts_with(&format!("__{name}")))
}

/// `MatchResources`
pub(super) fn match_resources(at: &At<'_, '_>, causes: &mut Causes) {
    at.field("matchPolicy").required_one_of(causes, &["Equivalent", "Exact"]);
    for name in ["namespaceSelector", "objectSelector"] {
        let selector = at.field(name);
        if selector.is_set() {
            labels::selector(&selector, causes);
        } else {
            selector.missing(causes, "");
        }
    }
    for name in ["resourceRules", "excludeResourceRules"] {
        for rule in at.field(name).items() {
            let (names_at, mut known) = (rule.field("resourceNames"), Vec::new());
            for name in names_at.items() {
                name.syntax(causes, names::path_segment);
                if known.contains(&name.text()) {
                    name.duplicate(causes);
                }
                known.push(name.text());
            }
            rule_with_operations(&rule, causes);
        }
    }
}

/// `RuleWithOperations`, of policies and webhooks.
pub(super) fn rule_with_operations(rule: &At<'_, '_>, causes: &mut Causes) {
    let operations = rule.field("operations");
    wildcard_alone(&operations, "operations", causes);
    for operation in operations.items() {
        operation.one_of(causes, OPERATIONS);
    }
    wildcard_alone(&rule.field("apiGroups"), "API groups", causes);
    let versions = rule.field("apiVersions");
    wildcard_alone(&versions, "API versions", causes);
    versions.items().filter(At::is_empty).for_each(|version| version.missing(causes, ""));
    resources(&rule.field("resources"), causes);
    rule.field("scope").one_of(causes, &["*", "Cluster", "Namespaced"]);
}

/// There must be something, and `*` only for itself.
fn wildcard_alone(list: &At<'_, '_>, what: &str, causes: &mut Causes) {
    if list.is_empty() {
        list.missing(causes, "");
    }
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(causes, &format!("if '*' is present, must not specify other {what}"));
    }
}

fn resources(list: &At<'_, '_>, causes: &mut Causes) {
    if list.is_empty() {
        list.missing(causes, "");
    }
    let (mut all_subresources, mut all_resources, mut plain) = (Vec::new(), Vec::new(), false);
    for item in list.items() {
        let text = item.text();
        if text.is_empty() {
            item.missing(causes, "");
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_subresources.contains(&resource) {
            item.invalid(causes, &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if all_resources.contains(&subresource) {
            item.invalid(causes, &format!("if '*/{subresource}' is present, must not specify {text}"));
        }
        if subresource == "*" {
            all_subresources.push(resource);
        }
        if resource == "*" {
            all_resources.push(subresource);
        }
    }
    let has = |wanted: &str| list.items().any(|item| item.text() == wanted);
    if list.len() > 1 && has("*/*") {
        list.invalid(causes, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && plain {
        list.invalid(causes, "if '*' is present, must not specify other resources without subresources");
    }
}

/// Only what is created or updated can be mutated.
pub(super) fn only_mutable_operations(match_resources: &At<'_, '_>, causes: &mut Causes) {
    let operations = match_resources.field("resourceRules");
    let operations = operations.field("operations");
    for rule in match_resources.value["resourceRules"].as_array().into_iter().flatten() {
        for operation in rule["operations"].as_array().into_iter().flatten() {
            operations.with(operation).one_of(causes, &["CREATE", "UPDATE"]);
        }
    }
}

/// `matchConditions`, of policies and webhooks.
pub(super) fn match_conditions(list: &At<'_, '_>, env: &Env, causes: &mut Causes) {
    if list.len() > MAX_CONDITIONS {
        list.too_many(causes, MAX_CONDITIONS);
    }
    let mut known = Vec::new();
    for condition in list.items() {
        let (name, text) = (condition.field("name"), condition.field("expression"));
        if text.text().trim().is_empty() {
            text.missing(causes, "");
        } else if let Some(why) = Expression::of(env, text.text().trim()).unfit(&[Type::Bool]) {
            text.invalid(causes, &why);
        }
        if name.is_empty() {
            name.missing(causes, "");
            continue;
        }
        name.syntax(causes, names::qualified_name);
        if known.contains(&name.text()) {
            name.duplicate(causes);
        }
        known.push(name.text());
    }
}

/// `paramKind`
pub(super) fn param_kind(at: &At<'_, '_>, causes: &mut Causes) {
    let (version, kind) = (at.field("apiVersion"), at.field("kind"));
    if version.is_empty() {
        version.missing(causes, "");
    } else {
        let (group, name) = version.text().split_once('/').unwrap_or(("", version.text()));
        if name.contains('/') {
            version.invalid(causes, &format!("unexpected GroupVersion string: {}", version.text()));
        } else {
            let joined = |wrong: Vec<String>| (!wrong.is_empty()).then(|| wrong.join(","));
            if let Some(why) = joined(names::dns_subdomain(group)).filter(|_| !group.is_empty()) {
                version.invalid_value(causes, group, &why);
            }
            if name.is_empty() {
                version.invalid(causes, "version must be specified");
            } else if let Some(why) = joined(names::dns1035_label(name)) {
                version.invalid_value(causes, name, &why);
            }
        }
    }
    if kind.is_empty() {
        kind.missing(causes, "");
        return;
    }
    let wrong = names::dns1035_label(&kind.text().to_lowercase());
    if !wrong.is_empty() {
        kind.invalid(causes, &format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
    }
}

/// `paramRef`
pub(super) fn param_ref(at: &At<'_, '_>, causes: &mut Causes) {
    let (name, selector) = (at.field("name"), at.field("selector"));
    let both = !name.is_empty() && selector.is_set();
    if !name.is_empty() {
        name.syntax(causes, names::path_segment);
    }
    if both {
        name.forbidden(causes, "name and selector are mutually exclusive");
    }
    if selector.is_set() {
        labels::selector(&selector, causes);
    }
    if both {
        selector.forbidden(causes, "name and selector are mutually exclusive");
    }
    if name.is_empty() && !selector.is_set() {
        at.missing(causes, "one of name or selector must be specified");
    }
    at.field("parameterNotFoundAction").required_one_of(causes, &["Deny", "Allow"]);
}

/// `validationActions`
pub(super) fn actions(list: &At<'_, '_>, causes: &mut Causes) {
    let mut known = Vec::new();
    for action in list.items() {
        action.one_of(causes, &["Audit", "Deny", "Warn"]);
        if known.contains(&action.text()) {
            action.duplicate(causes);
        }
        known.push(action.text());
    }
    if known.contains(&"Deny") && known.contains(&"Warn") {
        list.invalid(causes, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if known.is_empty() {
        list.missing(causes, "at least one validation action is required");
    }
}
