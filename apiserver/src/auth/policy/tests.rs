//! What the default roles give, asked of an index made from them.
use super::*;
use crate::auth::{
    Attributes, User,
    rbac::{Index, tests::index},
};

fn defaults() -> Index {
    let all = [cluster_roles(), cluster_role_bindings(), roles(), role_bindings()].concat();
    let mut names: Vec<String> = all.iter().map(|o| format!("{}/{}/{}", o["kind"], o["metadata"]["namespace"], o["metadata"]["name"])).collect();
    names.sort();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
    let bind = |name: &str| {
        json!({"kind": "RoleBinding", "metadata": {"name": name, "namespace": "d"}, "roleRef": {"kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": name}]})
    };
    index(&[all, vec![bind("view"), bind("edit"), bind("admin")]].concat())
}

fn may(index: &Index, user: &User, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    index.authorize(user, &Attributes { verb, group, resource, subresource, namespace, name: "x", ..Attributes::default() }).allowed()
}

fn may_see(index: &Index, user: &User, path: &str) -> bool {
    index.authorize(user, &Attributes { verb: "get", path, ..Attributes::default() }).allowed()
}

#[test]
fn strangers_see_health_and_version_only() {
    let (index, nobody) = (defaults(), User::anonymous());
    for path in ["/livez", "/readyz", "/version"] {
        assert!(may_see(&index, &nobody, path), "{path}");
    }
    for path in ["/healthz", "/api", "/apis", "/openapi/v3", "/metrics", "/", "/openid/v1/jwks"] {
        assert!(!may_see(&index, &nobody, path), "{path}");
    }
    assert!(!may(&index, &nobody, "list", "", "pods", "d"));
    assert!(!may(&index, &nobody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", ""));
}

#[test]
fn everybody_else_can_discover_and_ask_about_themselves() {
    let (index, sa) = (defaults(), User::service_account("d", "default"));
    for path in ["/api", "/apis/apps/v1", "/openapi/v3", "/healthz", "/version", "/openid/v1/jwks"] {
        assert!(may_see(&index, &sa, path), "{path}");
    }
    assert!(!may_see(&index, &sa, "/metrics"));
    assert!(may(&index, &sa, "create", "authorization.k8s.io", "selfsubjectaccessreviews", ""));
    assert!(!may(&index, &sa, "list", "", "pods", "d"));
}

#[test]
fn view_edit_and_admin_are_what_they_say() {
    let index = defaults();
    let user = |name: &str| User { name: name.into(), ..User::default() };
    let table = [
        // verb, group, resource, view, edit, admin
        ("list", "", "pods", true, true, true),
        ("get", "", "pods/log", true, true, true),
        ("get", "", "secrets", false, true, true),
        ("create", "apps", "deployments", false, true, true),
        ("update", "apps", "deployments/scale", false, true, true),
        ("update", "apps", "deployments/status", false, false, false),
        ("get", "", "pods/exec", false, true, true),
        ("create", "rbac.authorization.k8s.io", "rolebindings", false, false, true),
        ("create", "", "resourcequotas", false, false, false),
        ("create", "", "serviceaccounts/token", false, true, true),
        ("get", "", "nodes", false, false, false),
    ];
    for (verb, group, resource, view, edit, admin) in table {
        for (name, want) in [("view", view), ("edit", edit), ("admin", admin)] {
            assert_eq!(may(&index, &user(name), verb, group, resource, "d"), want, "{name} {verb} {resource}");
            assert!(!may(&index, &user(name), verb, group, resource, "other"));
        }
    }
}

#[test]
fn controllers_do_their_own_work_only() {
    let index = defaults();
    let deployment = User::service_account("kube-system", "deployment-controller");
    assert!(may(&index, &deployment, "patch", "apps", "deployments/status", "d"));
    assert!(may(&index, &deployment, "create", "apps", "replicasets", "d"));
    assert!(!may(&index, &deployment, "delete", "", "pods", "d"));
    assert!(!may(&index, &User::service_account("d", "deployment-controller"), "create", "apps", "replicasets", "d"));
    let scheduler = User { name: "system:kube-scheduler".into(), ..User::default() };
    assert!(may(&index, &scheduler, "create", "", "pods/binding", "d"));
}

#[test]
fn a_newer_version_adds_what_is_missing() {
    let wanted = json!({"metadata": metadata("r", ""), "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
    ]});
    let stored = |rules: Value| json!({"metadata": metadata("r", ""), "rules": rules});
    assert_eq!(updated(&wanted, &wanted), None);
    // covered by what somebody added
    assert_eq!(updated(&stored(json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}])), &wanted), None);
    let added = updated(&stored(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])), &wanted).unwrap();
    assert_eq!(added["rules"], wanted["rules"]);
    let mut left_alone = stored(json!([]));
    left_alone["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    assert_eq!(updated(&left_alone, &wanted), None);
    let binding = |subjects: Value| json!({"metadata": metadata("b", ""), "roleRef": {}, "subjects": subjects});
    let (mine, theirs) = (subject("group:a"), subject("user:b"));
    let added = updated(&binding(json!([theirs])), &binding(json!([mine]))).unwrap();
    assert_eq!(added["subjects"], json!([theirs, mine]));
}
