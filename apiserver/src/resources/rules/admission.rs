//! What webhooks and policies of admission share: which requests they are about.

use super::{At, Causes, quote};
use crate::admission::policy::expression::Expression;
use coracle_api::names;
use coracle_cel::{Env, Type};
use serde_json::Value;
use std::collections::BTreeSet;

/// What rules may name.
pub const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Most conditions of one policy or webhook.
const MAX_CONDITIONS: usize = 64;

/// One rule: operations (of those `supported`), groups, versions, resources, scope.
pub fn rule(rule: &At<'_, '_>, supported: &[&str], causes: &mut Causes) {
    let operations = rule.field("operations");
    operations.required(causes, "");
    alone(&operations, "operations", causes);
    for operation in operations.items().filter(|operation| !supported.contains(&operation.text())) {
        operation.unsupported(causes, supported);
    }
    let (groups, versions) = (rule.field("apiGroups"), rule.field("apiVersions"));
    // An empty group is the core group.
    groups.required(causes, "");
    alone(&groups, "API groups", causes);
    versions.required(causes, "");
    alone(&versions, "API versions", causes);
    for version in versions.items() {
        version.required(causes, "");
    }
    resources(&rule.field("resources"), causes);
    rule.field("scope").one_of(causes, &["*", "Cluster", "Namespaced"]);
}

/// `*` stands by itself.
fn alone(list: &At<'_, '_>, what: &str, causes: &mut Causes) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(causes, &format!("if '*' is present, must not specify other {what}"));
    }
}

fn resources(list: &At<'_, '_>, causes: &mut Causes) {
    list.required(causes, "");
    let (mut every_sub, mut every_resource) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for item in list.items() {
        if !item.required(causes, "") {
            continue;
        }
        let Some((resource, sub)) = item.text().split_once('/') else {
            // As upstream: the last one without a subresource decides.
            plain = item.text() != "*";
            continue;
        };
        if every_sub.contains(resource) {
            item.invalid(causes, &format!("if '{resource}/*' is present, must not specify {}", item.text()));
        }
        if every_resource.contains(sub) {
            item.invalid(causes, &format!("if '*/{sub}' is present, must not specify {}", item.text()));
        }
        if sub == "*" {
            every_sub.insert(resource);
        }
        if resource == "*" {
            every_resource.insert(sub);
        }
    }
    let has = |wanted: &str| list.items().any(|item| item.text() == wanted);
    if list.len() > 1 && has("*/*") {
        list.invalid(causes, "if '*/*' is present, must not specify other resources");
    }
    if plain && has("*") {
        list.invalid(causes, "if '*' is present, must not specify other resources without subresources");
    }
}

/// `matchConditions`: named expressions that are true or false.
pub fn match_conditions(list: &At<'_, '_>, env: &Env, causes: &mut Causes) {
    if list.len() > MAX_CONDITIONS {
        list.too_many(causes, MAX_CONDITIONS);
    }
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let (expression, name) = (condition.field("expression"), condition.field("name"));
        let text = expression.text().trim();
        if text.is_empty() {
            expression.missing(causes, "");
        } else if let Some(why) = Expression::of(env, text).unfit(&[Type::Bool]) {
            expression.invalid_value(causes, text, &why);
        }
        if name.required(causes, "") {
            name.syntax(causes, names::qualified_name);
            if !seen.insert(name.text()) {
                name.duplicate(causes);
            }
        }
    }
}

/// Where a webhook is called: by URL or as a Service.
pub fn client_config(config: &At<'_, '_>, causes: &mut Causes) {
    let (url, service) = (config.field("url"), config.field("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, causes),
        (false, true) => webhook_service(&service, causes),
        _ => config.missing(causes, "exactly one of url or service is required"),
    }
}

/// `https://host[/path]`
fn webhook_url(url: &At<'_, '_>, causes: &mut Causes) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    if let Some(bad) = text.chars().find(|c| c.is_ascii_control() || *c == ' ') {
        return url.missing(causes, &format!("url must be a valid URL: parse {}: invalid character {bad:?} in URL{FORM}", quote(text)));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        url.invalid_value(causes, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        url.invalid_value(causes, host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        url.invalid_value(causes, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        url.invalid_value(causes, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        url.invalid_value(causes, query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(service: &At<'_, '_>, causes: &mut Causes) {
    service.field("name").required(causes, "");
    service.field("namespace").required(causes, "");
    let port = service.field("port");
    let number = port.int().unwrap_or_default();
    if !(1..=65535).contains(&number) {
        port.invalid_value(causes, number, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let path = service.field("path");
    let text = path.text();
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        return path.invalid(causes, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        path.invalid(causes, "must start with a '/'");
    }
    // What comes before the first slash is not looked at, as upstream has it.
    for (place, step) in text.strip_suffix('/').unwrap_or(text).split('/').skip(1).enumerate() {
        if step.is_empty() {
            path.invalid(causes, &format!("segment[{place}] may not be empty"));
            continue;
        }
        for why in names::dns_subdomain(step) {
            path.invalid(causes, &format!("segment[{place}]: {why}"));
        }
    }
}

/// Names that upstream keeps for what is read from files.
pub fn static_name(object: &Value) -> Vec<String> {
    let reserved = object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(".static.k8s.io"));
    let warning =
        "metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API";
    Vec::from_iter(reserved.then(|| warning.to_string()))
}
