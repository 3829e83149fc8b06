//! Nobody may give away what they do not have: the checks on writes of roles and bindings.
//!
//! Upstream: `rbacregistryvalidation.ConfirmNoEscalation`, with the verbs `escalate` (on a role) and `bind` (on the role referred to)
//! as the ways around it.

use super::{
    index::Index,
    parse,
    rule::{Rule, Shown},
};
use crate::auth::{Attributes, MASTERS, User};
use coracle_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// See [`crate::auth::Auth::check_escalation`].
///
/// # Errors
/// 403 naming what is missing; 404-like words when a bound role does not exist and the user may not bind it.
pub fn check(index: &Index, user: &User, resource: &str, object: &Value) -> Result<(), Status> {
    if user.in_group(MASTERS) {
        return Ok(());
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    match resource {
        "roles" | "clusterroles" => {
            let verb = Attributes { verb: "escalate", group: GROUP, version: "v1", resource, namespace, name, ..Attributes::default() };
            if index.authorize(user, &verb).allowed() {
                return Ok(());
            }
            let mut rules = parse::rules_of(object);
            // An aggregated role takes in what its selectors find: only who has everything may write one.
            if object.get("aggregationRule").is_some_and(|a| !a.is_null()) {
                rules.extend(everything());
            }
            missing(index, user, namespace, rules.iter(), resource, name)
        }
        "rolebindings" | "clusterrolebindings" => {
            let (kind, role) = (text("/roleRef/kind"), text("/roleRef/name"));
            let plural = if kind == "Role" { "roles" } else { "clusterroles" };
            let verb = Attributes { verb: "bind", group: GROUP, version: "v1", resource: plural, namespace, name: role, ..Attributes::default() };
            if index.authorize(user, &verb).allowed() {
                return Ok(());
            }
            let rules = if kind == "Role" { index.role(namespace, role) } else { index.cluster_role(role) };
            let Some(rules) = rules else {
                return Err(Status::not_found(GROUP, plural, role));
            };
            missing(index, user, namespace, rules.into_iter(), resource, name)
        }
        _ => Ok(()),
    }
}

/// Do the two states of an object grant the same to the same?
pub fn same_grant(old: &Value, new: &Value) -> bool {
    ["rules", "aggregationRule", "roleRef", "subjects"].iter().all(|field| old.get(field) == new.get(field))
}

fn everything() -> Vec<Rule> {
    let all = serde_json::json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    Vec::<Rule>::deserialize(all).unwrap_or_default()
}

fn missing<'a>(
    index: &Index,
    user: &User,
    namespace: &str,
    wanted: impl Iterator<Item = &'a Rule>,
    resource: &str,
    name: &str,
) -> Result<(), Status> {
    let have = index.rules_for(user, namespace);
    let missing: Vec<String> = wanted
        .flat_map(Rule::atoms)
        .filter(|atom| !have.iter().any(|rule| rule.covers(atom)))
        .take(64)
        .map(|atom| Shown(&atom).to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        missing.join("\n")
    );
    Err(Status::forbidden(GROUP, resource, name, &why))
}
