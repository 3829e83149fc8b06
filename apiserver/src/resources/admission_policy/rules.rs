//! Rules of the parts that policies and their bindings share: what requests they are about, parameters, actions.

use crate::resources::rules::{At, Causes, admission, labels};
use coracle_api::names;

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];

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
            admission::rule(&rule, admission::OPERATIONS, causes);
        }
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
