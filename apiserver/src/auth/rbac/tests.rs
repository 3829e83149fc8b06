//! Decision tables.
use super::{
    escalation,
    index::Index,
    rule::{Rule, Shown},
};
use crate::auth::{Attributes, Decision, MASTERS, User};
use serde_json::{Value, json};

fn rule(v: Value) -> Rule {
    serde_json::from_value(v).unwrap()
}

fn ask<'a>(verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes { verb, group, version: "v1", resource, subresource, namespace, name, ..Attributes::default() }
}

#[test]
fn what_a_rule_matches() {
    let table = [
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), ask("get", "", "pods", "d", "a"), true),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), ask("list", "", "pods", "d", ""), false),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), ask("get", "apps", "pods", "d", "a"), false),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), ask("get", "", "pods/log", "d", "a"), false),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}), ask("get", "", "pods/log", "d", "a"), true),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}), ask("get", "", "pods", "d", "a"), false),
        (json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}), ask("get", "apps", "deployments/scale", "d", "a"), true),
        (json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}), ask("get", "apps", "deployments", "d", "a"), false),
        (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), ask("patch", "x", "y/z", "d", "a"), true),
        (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), Attributes { verb: "get", path: "/x", ..Attributes::default() }, false),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}), ask("get", "", "pods", "d", "a"), true),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}), ask("get", "", "pods", "d", "b"), false),
        (json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}), ask("list", "", "pods", "d", ""), false),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}), Attributes { verb: "get", path: "/a/b", ..Attributes::default() }, true),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}), Attributes { verb: "get", path: "/a", ..Attributes::default() }, false),
        (json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), Attributes { verb: "get", path: "/z", ..Attributes::default() }, true),
        (json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), ask("get", "", "pods", "d", "a"), false),
        (json!({"verbs": null, "apiGroups": null, "resources": null}), ask("get", "", "pods", "d", "a"), false),
    ];
    for (given, asked, want) in table {
        assert_eq!(rule(given.clone()).allows(&asked), want, "{given} {asked:?}");
    }
}

#[test]
fn what_a_rule_covers() {
    let table = [
        (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), true),
        (json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"]}), json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), false),
        (
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}),
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
            false,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*/log"]}),
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
            true,
        ),
        (
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods/log"]}),
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}),
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            false,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
            true,
        ),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/a*"]}), json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}), true),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}), json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), false),
    ];
    for (have, want, covered) in table {
        let (have, want) = (rule(have), rule(want));
        assert_eq!(want.atoms().iter().all(|a| have.covers(a)), covered, "{have:?} {want:?}");
    }
}

#[test]
fn rules_are_shown_as_upstream_shows_them() {
    let shown = Shown(&rule(json!({"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments"]}))).to_string();
    assert_eq!(shown, r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get", "list"]}"#);
}

impl Index {
    fn put_value(&mut self, object: &Value) {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let labels: Vec<(Box<str>, Box<str>)> = labels.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap().into())).collect();
        self.set(&key(object), &labels, object.to_string().as_bytes());
    }
}

fn key(object: &Value) -> coracle_store::Key {
    let resource = match object["kind"].as_str().unwrap() {
        "Role" => super::ROLES,
        "ClusterRole" => super::CLUSTER_ROLES,
        "RoleBinding" => super::ROLE_BINDINGS,
        _ => super::CLUSTER_ROLE_BINDINGS,
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    coracle_store::Key::new(resource, text("namespace"), text("name"))
}

/// An index of objects given as values.
pub(in crate::auth) fn index(objects: &[Value]) -> Index {
    let mut index = Index::default();
    for object in objects {
        index.put_value(object);
    }
    index.aggregate();
    index
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|g| g.to_string()).collect(), ..User::default() }
}

fn world() -> Vec<Value> {
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    let reader = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    vec![
        json!({"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": all}),
        json!({"kind": "ClusterRole", "metadata": {"name": "reader", "labels": {"to-view": "true"}}, "rules": reader}),
        json!({"kind": "ClusterRole", "metadata": {"name": "view", "labels": {"to-edit": "true"}}, "rules": all,
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}),
        json!({"kind": "ClusterRole", "metadata": {"name": "edit"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [{"key": "to-edit", "operator": "In", "values": ["true"]}]}]}}),
        json!({"kind": "Role", "metadata": {"name": "writer", "namespace": "a"}, "rules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}]}),
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": "admins"}, "roleRef": {"kind": "ClusterRole", "name": "all"},
            "subjects": [{"kind": "Group", "name": "admins"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "w", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "writer"},
            "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "bot", "namespace": "b"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "e", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": "jane"}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "dangling", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "none"},
            "subjects": [{"kind": "User", "name": "joe"}]}),
    ]
}

#[test]
fn bindings_reach_their_subjects_and_no_others() {
    let index = index(&world());
    let (jane, joe, admin, bot) = (user("jane", &[]), user("joe", &[]), user("x", &["admins"]), User::service_account("b", "bot"));
    let table = [
        (&jane, ask("create", "", "pods", "a", ""), true),
        (&jane, ask("create", "", "pods", "b", ""), false),
        (&jane, ask("create", "", "pods", "", ""), false),
        // through edit → view → reader; the rules stored in an aggregated role grant nothing
        (&jane, ask("list", "", "pods", "a", ""), true),
        (&jane, ask("delete", "", "pods", "a", "p"), false),
        (&joe, ask("get", "", "pods", "a", "p"), false),
        (&admin, ask("delete", "apps", "deployments", "z", "p"), true),
        (&admin, Attributes { verb: "get", path: "/metrics", ..Attributes::default() }, false),
        (&bot, ask("create", "", "pods", "a", ""), true),
        (&bot, ask("list", "", "pods", "a", ""), false),
    ];
    for (user, asked, want) in table {
        assert_eq!(index.authorize(user, &asked).allowed(), want, "{} {asked:?}", user.name);
    }
    let Decision::Allow { reason } = index.authorize(&jane, &ask("create", "", "pods", "a", "")) else { panic!() };
    assert_eq!(reason, r#"RBAC: allowed by RoleBinding "w/a" of Role "writer" to User "jane""#);
}

#[test]
fn changes_are_taken_in() {
    let mut index = index(&world());
    let jane = user("jane", &[]);
    let asked = ask("list", "", "pods", "a", "");
    // a label that goes: the role leaves the aggregate
    index.put_value(
        &json!({"kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]}),
    );
    index.aggregate();
    assert!(!index.authorize(&jane, &asked).allowed());
    // a binding whose subjects change
    let create = ask("create", "", "pods", "a", "");
    index.put_value(&json!({"kind": "RoleBinding", "metadata": {"name": "w", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "writer"},
        "subjects": [{"kind": "User", "name": "joe"}]}));
    assert!(!index.authorize(&jane, &create).allowed());
    assert!(index.authorize(&user("joe", &[]), &create).allowed());
    index.remove(&key(&json!({"kind": "Role", "metadata": {"name": "writer", "namespace": "a"}})));
    assert!(!index.authorize(&user("joe", &[]), &create).allowed());
}

#[test]
fn an_aggregate_may_select_itself_and_circles() {
    let selects = |key: &str| json!({"clusterRoleSelectors": [{"matchLabels": {key: "1"}}]});
    let index = index(&[
        json!({"kind": "ClusterRole", "metadata": {"name": "a", "labels": {"x": "1"}}, "aggregationRule": selects("x")}),
        json!({"kind": "ClusterRole", "metadata": {"name": "b", "labels": {"x": "1"}}, "aggregationRule": selects("x")}),
        json!({"kind": "ClusterRole", "metadata": {"name": "c", "labels": {"x": "1"}}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    ]);
    assert_eq!(index.cluster_role("a").unwrap().len(), 1);
    assert_eq!(index.cluster_role("b").unwrap().len(), 1);
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let mut objects = world();
    let rbac = |verb: &str, resource: &str| json!([{"verbs": [verb], "apiGroups": ["rbac.authorization.k8s.io"], "resources": [resource]}]);
    for (user, role, rules) in [("esc", "escalates", rbac("escalate", "clusterroles")), ("bind", "binds", rbac("bind", "clusterroles"))] {
        objects.push(json!({"kind": "ClusterRole", "metadata": {"name": role}, "rules": rules}));
        objects.push(json!({"kind": "ClusterRoleBinding", "metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]}));
    }
    let index = index(&objects);
    let (jane, admin, master) = (user("jane", &[]), user("x", &["admins"]), user("m", &[MASTERS]));
    let role = |rules: Value| json!({"metadata": {"name": "new", "namespace": "a"}, "rules": rules});
    let list = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    let delete = json!([{"verbs": ["list", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
    assert!(escalation::check(&index, &jane, "roles", &role(list.clone())).is_ok());
    let refused = escalation::check(&index, &jane, "roles", &role(delete.clone())).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.ends_with("not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"), "{}", refused.message);
    for who in [&admin, &master, &user("esc", &[])] {
        let name = if who.name == "esc" { "clusterroles" } else { "roles" };
        assert!(escalation::check(&index, who, name, &role(delete.clone())).is_ok(), "{}", who.name);
    }
    // an aggregated role may come to hold anything
    let aggregated = json!({"metadata": {"name": "new"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    assert!(escalation::check(&index, &jane, "clusterroles", &aggregated).is_err());

    let binding = |kind: &str, name: &str| json!({"metadata": {"name": "new", "namespace": "a"}, "roleRef": {"kind": kind, "name": name}});
    assert!(escalation::check(&index, &jane, "rolebindings", &binding("ClusterRole", "reader")).is_ok());
    assert!(escalation::check(&index, &jane, "rolebindings", &binding("Role", "writer")).is_ok());
    assert_eq!(escalation::check(&index, &jane, "rolebindings", &binding("ClusterRole", "all")).unwrap_err().code, 403);
    assert_eq!(escalation::check(&index, &jane, "rolebindings", &binding("ClusterRole", "nowhere")).unwrap_err().code, 404);
    assert!(escalation::check(&index, &user("bind", &[]), "rolebindings", &binding("ClusterRole", "all")).is_ok());
}
