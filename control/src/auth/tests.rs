//! The whole of [`super::Auth`] against a store is tested in `rbac/tests.rs`, `tokens/tests.rs` and below; here are the parts
//! that need neither.
use super::*;

#[test]
fn refusals_read_as_upstreams() {
    let jane = User { name: "jane".into(), ..User::default() };
    let list = Attributes { verb: "list", resource: "pods", namespace: "default", ..Attributes::default() };
    assert_eq!(refusal(&jane, &list), r#"User "jane" cannot list resource "pods" in API group "" in the namespace "default""#);
    let scale = Attributes { verb: "update", group: "apps", resource: "deployments", subresource: "scale", ..Attributes::default() };
    assert_eq!(refusal(&jane, &scale), r#"User "jane" cannot update resource "deployments/scale" in API group "apps" at the cluster scope"#);
    let path = Attributes { verb: "get", path: "/metrics", ..Attributes::default() };
    assert_eq!(refusal(&jane, &path), r#"User "jane" cannot get path "/metrics""#);
}

#[test]
fn node_names() {
    assert_eq!(User::node("n1").node_name(), Some("n1"));
    let no_group = User { name: "system:node:n1".into(), ..User::default() };
    assert_eq!(no_group.node_name(), None);
    let nameless = User::node("");
    assert_eq!(nameless.node_name(), None);
}

#[test]
fn certificates_name_users_until_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let ca = coracle_link::pki::Authority::open(dir.path()).unwrap();
    let pair = ca.client("jane", &["devs".into()], std::time::Duration::from_secs(600)).unwrap();
    let der = coracle_link::pki::certificates(&pair.cert_pem).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let user = certificate::user(&der[0], now).unwrap();
    assert_eq!((user.name.as_str(), &user.groups[..]), ("jane", &["devs".to_string(), AUTHENTICATED.into()][..]));
    assert_eq!(certificate::user(&der[0], now + 601).unwrap_err().code, 401);
    assert_eq!(certificate::user(b"junk", now).unwrap_err().code, 401);
    let nameless = ca.client("", &[MASTERS.into()], std::time::Duration::from_secs(600)).unwrap();
    let der = coracle_link::pki::certificates(&nameless.cert_pem).unwrap();
    assert_eq!(certificate::user(&der[0], now).unwrap_err().code, 401);
}

#[test]
fn what_a_pod_names() {
    let pod = serde_json::json!({"spec": {
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "cm-from"}}, {"secretRef": {"name": "s-from"}}]}],
        "containers": [{"name": "c", "env": [
            {"name": "A", "value": "x"},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-env", "key": "k"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "k"}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]}],
        "volumes": [
            {"name": "e", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "s-vol", "defaultMode": 420}},
            {"name": "m", "configMap": {"name": "cm-vol"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "cm-proj"}}, {"secret": {"name": "s-proj"}}]}},
        ],
    }});
    let mut found = std::collections::BTreeSet::new();
    node::names(pod.to_string().as_bytes(), &mut |r, n| {
        found.insert(format!("{r}/{n}"));
    });
    let want = [
        "configmaps/cm-env",
        "configmaps/cm-from",
        "configmaps/cm-proj",
        "configmaps/cm-vol",
        "secrets/pull",
        "secrets/s-env",
        "secrets/s-from",
        "secrets/s-proj",
        "secrets/s-vol",
        "serviceaccounts/sa",
    ];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), want);
    node::names(b"junk", &mut |_, _| panic!("nothing"));
}

#[test]
fn a_node_writes_only_its_own() {
    let (node, jane) = (User::node("n1"), User { name: "jane".into(), ..User::default() });
    let named = |n: &str| serde_json::json!({"metadata": {"name": n}, "spec": {"nodeName": n}});
    assert!(node::admit(&node, "nodes", "", &named("n1")).is_ok());
    assert_eq!(node::admit(&node, "nodes", "status", &named("n2")).unwrap_err().code, 403);
    assert_eq!(node::admit(&node, "leases", "", &named("n2")).unwrap_err().code, 403);
    assert!(node::admit(&node, "pods", "status", &named("n1")).is_ok());
    assert_eq!(node::admit(&node, "pods", "status", &named("n2")).unwrap_err().code, 403);
    assert_eq!(node::admit(&node, "pods", "", &named("n1")).unwrap_err().code, 403);
    assert!(node::admit(&jane, "nodes", "", &named("n2")).is_ok());
}
