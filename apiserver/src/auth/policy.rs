//! The roles and bindings every cluster begins with, as upstream names them (`bootstrap` writes them at first start).
//!
//! A table of short texts instead of objects: `verbs | groups | resources`, words apart by spaces, `core` for the core group. What is
//! left out of upstream's list is for things this server does not have: the `extensions` group, metrics adapters, heapster. The
//! controllers may `patch` what upstream's `update`, since ours write by patch.

mod controllers;
mod roles;

use serde_json::{Value, json};

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const EVENTS: R = R::On("create patch update", "core events.k8s.io", "events");

/// One rule in short.
#[derive(Clone, Copy)]
enum R {
    /// verbs, groups, resources
    On(&'static str, &'static str, &'static str),
    /// verbs, groups, resources, names
    Named(&'static str, &'static str, &'static str, &'static str),
    /// verbs, URLs
    Urls(&'static str, &'static str),
}

struct Role {
    name: &'static str,
    /// `rbac.authorization.k8s.io/aggregate-to-X: "true"`
    aggregate_to: &'static [&'static str],
    /// Unites the roles with `aggregate-to-NAME`.
    aggregates: bool,
    rules: &'static [R],
}

const fn role(name: &'static str, rules: &'static [R]) -> Role {
    Role { name, aggregate_to: &[], aggregates: false, rules }
}

const GROUP: &str = "rbac.authorization.k8s.io";

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().map(|w| if w == "core" { "" } else { w }).collect()
}

fn rules(list: &[R]) -> Vec<Value> {
    let rule = |r: &R| match *r {
        R::On(verbs, groups, resources) => json!({"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources)}),
        R::Named(verbs, groups, resources, names) => {
            json!({"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources), "resourceNames": words(names)})
        }
        R::Urls(verbs, urls) => json!({"verbs": words(verbs), "nonResourceURLs": words(urls)}),
    };
    list.iter().map(rule).collect()
}

/// Marks an object as one that a newer version may add to.
fn metadata(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn cluster_role(role: &Role) -> Value {
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(role.name, "")});
    for to in role.aggregate_to {
        object["metadata"]["labels"][format!("{GROUP}/aggregate-to-{to}")] = "true".into();
    }
    if role.aggregates {
        let label = format!("{GROUP}/aggregate-to-{}", role.name);
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        // Its rules are written by the controller that looks at the selectors.
        object["rules"] = json!([]);
    } else {
        object["rules"] = rules(role.rules).into();
    }
    object
}

/// `ClusterRole` objects.
pub fn cluster_roles() -> Vec<Value> {
    let controllers = controllers::ROLES.iter().map(|(name, rules)| (format!("system:controller:{name}"), rules));
    let controllers = controllers.map(|(name, list)| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(&name, ""), "rules": rules(list)})
    });
    roles::CLUSTER.iter().map(cluster_role).chain(controllers).collect()
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("user", name)) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        Some(("group", name)) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        _ => json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": text}),
    }
}

/// `ClusterRoleBinding` objects.
pub fn cluster_role_bindings() -> Vec<Value> {
    let binding = |name: &str, subjects: Vec<Value>| {
        let mut object = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata(name, ""),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        });
        if !subjects.is_empty() {
            object["subjects"] = subjects.into();
        }
        object
    };
    let plain = roles::CLUSTER_BINDINGS.iter().map(|(name, subjects)| binding(name, subjects.iter().map(|s| subject(s)).collect()));
    let controllers = controllers::ROLES.iter().map(|(name, _)| binding(&format!("system:controller:{name}"), vec![subject(name)]));
    plain.chain(controllers).collect()
}

/// `Role` objects of the system namespaces.
pub fn roles() -> Vec<Value> {
    let role = |&(namespace, name, list): &(&str, &str, &[R])| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata(name, namespace), "rules": rules(list)});
    roles::NAMESPACED.iter().map(role).collect()
}

/// `RoleBinding` objects of the system namespaces.
pub fn role_bindings() -> Vec<Value> {
    let binding = |&(namespace, name, role, subjects): &(&str, &str, &str, &[&str])| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata(name, namespace),
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role},
            "subjects": subjects.iter().map(|s| subject(s)).collect::<Vec<_>>(),
        })
    };
    roles::NAMESPACED_BINDINGS.iter().map(binding).collect()
}

/// What a default object that is there lacks (`autoupdate`): the object with the missing rules or subjects added; `None` when it
/// lacks nothing or is marked as not to be updated.
pub fn updated(stored: &Value, wanted: &Value) -> Option<Value> {
    if stored.pointer("/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate").and_then(Value::as_str) != Some("true") {
        return None;
    }
    let list = |object: &Value, field: &str| object.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut missing: Vec<Value> = Vec::new();
    let field = if wanted.get("roleRef").is_some() { "subjects" } else { "rules" };
    // the rules of an aggregated role are not its own
    if wanted.get("aggregationRule").is_none() {
        let have = list(stored, field);
        missing = list(wanted, field).into_iter().filter(|w| !have.contains(w)).collect();
    }
    if field == "rules" && !missing.is_empty() {
        let have = super::rbac::rules_of(stored);
        missing.retain(|w| {
            let wanted = super::rbac::rules_of(&json!({"rules": [w]}));
            !wanted.iter().flat_map(|r| r.atoms()).all(|atom| have.iter().any(|h| h.covers(&atom)))
        });
    }
    if missing.is_empty() {
        return None;
    }
    let mut object = stored.clone();
    let mut all = list(stored, field);
    all.extend(missing);
    object[field] = all.into();
    Some(object)
}

#[cfg(test)]
mod tests;
