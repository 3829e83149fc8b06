//! [`super::Auth`] against a store with the objects of a first start; above it, the parts that need neither.
use super::*;
use crate::bootstrap;
use coracle_store::{Expect, Key, Op, Txn};
use serde_json::{Value, json};
use sha2::Digest;

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
    let fingerprint = user.extra.iter().find(|(key, _)| key == "authentication.kubernetes.io/credential-id").map(|(_, values)| values[0].as_str());
    let fingerprint = fingerprint.and_then(|id| id.strip_prefix("X509SHA256=")).unwrap();
    assert_eq!(fingerprint.len(), 64);
    // What `openssl x509 -fingerprint -sha256` shows.
    let shown = sha2::Sha256::digest(&der[0]);
    assert!(
        (0..32).all(|at| u8::from_str_radix(&fingerprint[2 * at..2 * at + 2], 16).unwrap() == shown[at]) && fingerprint == fingerprint.to_lowercase()
    );
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

/// A server's auth over a store, after a first start.
struct World {
    dir: tempfile::TempDir,
    core: crate::pipeline::Core,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(coracle_store::Options::new(dir.path())).await.unwrap();
        let core = bootstrap::tests::core(&store, dir.path(), "127.0.0.1:6443").await;
        bootstrap::run(&core).await.unwrap();
        core.auth.reload();
        Self { dir, core }
    }
    fn auth(&self) -> &Auth {
        &self.core.auth
    }
    async fn put(&self, id: &str, object: Value) {
        let row = self.core.registry.by_id(id).unwrap();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(id, text("namespace"), text("name"));
        let draft = crate::pipeline::object::draft(&row, &object);
        self.core.store.commit(Txn { ops: vec![Op::Put { key, expect: Expect::Any, draft }] }).await.unwrap();
    }
    async fn delete(&self, id: &str, namespace: &str, name: &str) {
        let key = Key::new(id, namespace, name);
        self.core.store.commit(Txn { ops: vec![Op::Delete { key, expect: Expect::Any }] }).await.unwrap();
    }
    async fn account(&self, name: &str, uid: &str) {
        self.put("serviceaccounts", json!({"metadata": {"namespace": "default", "name": name, "uid": uid}})).await;
    }
    async fn pod(&self, name: &str, uid: &str, node: &str, account: &str) {
        let spec = json!({"nodeName": node, "serviceAccountName": account, "volumes": [{"name": "v", "secret": {"secretName": "its-secret"}}]});
        self.put("pods", json!({"metadata": {"namespace": "default", "name": name, "uid": uid}, "spec": spec})).await;
    }
    fn request(&self, user: &User, account: &str, spec: Value) -> Result<Value, Status> {
        self.auth().token_request(user, "default", account, &json!({"spec": spec}))
    }
    async fn who(&self, token: &str) -> Result<Arc<User>, u16> {
        self.auth().authenticate(None, Some(&format!("Bearer {token}"))).await.map_err(|e| e.code)
    }
}

fn token(answer: &Value) -> &str {
    answer["status"]["token"].as_str().unwrap()
}

fn bound(kind: &str, name: &str, uid: &str) -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}})
}

#[tokio::test]
async fn a_token_lives_as_long_as_what_it_is_bound_to() {
    let world = World::new().await;
    let admin = User::masters();
    world.account("bot", "a1").await;
    world.pod("p", "p1", "n1", "bot").await;
    world.put("nodes", json!({"metadata": {"name": "n1", "uid": "n-uid"}})).await;
    world.put("secrets", json!({"metadata": {"namespace": "default", "name": "s", "uid": "s1"}})).await;

    let plain = world.request(&admin, "bot", json!({})).unwrap();
    let of_pod = world.request(&admin, "bot", bound("Pod", "p", "p1")).unwrap();
    let of_secret = world.request(&admin, "bot", bound("Secret", "s", "")).unwrap();
    let of_node = world.request(&admin, "bot", bound("Node", "n1", "")).unwrap();
    assert_eq!(plain["spec"]["expirationSeconds"], 3600);
    let user = world.who(token(&of_pod)).await.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:default:bot", "a1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    let extra = |key: &str| user.extra.iter().find(|(k, _)| k.ends_with(key)).map(|(_, v)| v[0].as_str());
    assert_eq!((extra("/pod-name"), extra("/pod-uid"), extra("/node-name"), extra("/node-uid")), (Some("p"), Some("p1"), Some("n1"), Some("n-uid")));

    // each dies with its own
    world.delete("secrets", "default", "s").await;
    assert_eq!(world.who(token(&of_secret)).await.unwrap_err(), 401);
    world.delete("nodes", "", "n1").await;
    assert_eq!(world.who(token(&of_node)).await.unwrap_err(), 401);
    assert!(world.who(token(&of_pod)).await.is_ok(), "the node of a pod is only noted");
    // the same name made anew is another pod
    world.pod("p", "p2", "n1", "bot").await;
    assert_eq!(world.who(token(&of_pod)).await.unwrap_err(), 401);
    assert!(world.who(token(&plain)).await.is_ok());
    // deleted and waiting for its finalizer: good for a minute yet
    let deleting =
        |at: jiff::Timestamp| json!({"metadata": {"namespace": "default", "name": "bot", "uid": "a1", "deletionTimestamp": at.to_string()}});
    world.put("serviceaccounts", deleting(jiff::Timestamp::now())).await;
    assert!(world.who(token(&plain)).await.is_ok());
    world.put("serviceaccounts", deleting(jiff::Timestamp::UNIX_EPOCH)).await;
    assert_eq!(world.who(token(&plain)).await.unwrap_err(), 401);
    world.delete("serviceaccounts", "default", "bot").await;
    assert_eq!(world.who(token(&plain)).await.unwrap_err(), 401);
}

#[tokio::test]
async fn requests_for_tokens_are_checked() {
    let world = World::new().await;
    let admin = User::masters();
    world.account("bot", "a1").await;
    world.pod("p", "p1", "n1", "bot").await;
    world.pod("other", "p2", "n1", "default").await;
    let code = |spec: Value| world.request(&admin, "bot", spec).map(|_| 201).unwrap_or_else(|e| e.code);
    assert_eq!(code(json!({"expirationSeconds": 599})), 422);
    assert_eq!(code(json!({"expirationSeconds": (1i64 << 32) + 1})), 422);
    assert_eq!(code(json!({"expirationSeconds": 600})), 201);
    assert_eq!(code(json!({"expirationSeconds": "x"})), 400);
    assert_eq!(code(bound("Pod", "p", "wrong")), 409);
    assert_eq!(code(bound("Pod", "nowhere", "")), 404);
    assert_eq!(code(bound("Pod", "other", "")), 400);
    assert_eq!(code(bound("Deployment", "p", "")), 400);
    assert_eq!(world.request(&admin, "nobody", json!({})).unwrap_err().code, 404);
    // a node: only for pods that run on it
    let (mine, other) = (User::node("n1"), User::node("n2"));
    assert!(world.request(&mine, "bot", bound("Pod", "p", "p1")).is_ok());
    assert_eq!(world.request(&other, "bot", bound("Pod", "p", "p1")).unwrap_err().code, 403);
    assert_eq!(world.request(&mine, "bot", json!({})).unwrap_err().code, 403);
}

#[tokio::test]
async fn who_shows_no_or_bad_credentials() {
    let world = World::new().await;
    let auth = world.auth();
    assert_eq!(auth.authenticate(None, None).await.unwrap().name, "system:anonymous");
    for bad in ["Bearer x", "Bearer ", "Basic dTpw", "junk", ""] {
        assert_eq!(auth.authenticate(None, Some(bad)).await.unwrap_err().code, 401, "{bad}");
    }
    // for another audience
    world.account("bot", "a1").await;
    let elsewhere = world.request(&User::masters(), "bot", json!({"audiences": ["vault"]})).unwrap();
    assert_eq!(world.who(token(&elsewhere)).await.unwrap_err(), 401);
    let review = |body: Value| auth.review(&User::masters(), "TokenReview", "", &body).unwrap().unwrap()["status"].clone();
    let good = review(json!({"spec": {"token": token(&elsewhere), "audiences": ["vault", "x"]}}));
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:bot");
    let bad = review(json!({"spec": {"token": token(&elsewhere)}}));
    assert_eq!(bad["authenticated"], Value::Null);
    assert!(bad["error"].as_str().unwrap().contains("audiences"));
    // an Auth opened on the same directory verifies what was signed before
    let plain = world.request(&User::masters(), "bot", json!({})).unwrap();
    let again = bootstrap::tests::core(&world.core.store, world.dir.path(), "127.0.0.1:6443").await.auth;
    assert!(again.authenticate(None, Some(&format!("bearer {}", token(&plain)))).await.is_ok());
}

#[tokio::test]
async fn what_a_node_may() {
    let world = World::new().await;
    world.pod("mine", "p1", "n1", "bot").await;
    world.pod("theirs", "p2", "n2", "default").await;
    let ask = |verb: &'static str, group: &'static str, resource: &'static str, namespace: &'static str, name: &'static str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        world
            .auth()
            .authorize(&User::node("n1"), &Attributes { verb, group, resource, subresource, namespace, name, ..Attributes::default() })
            .allowed()
    };
    let (lease, node_lease) = ("coordination.k8s.io", "kube-node-lease");
    let table = [
        (ask("create", "", "nodes", "", ""), true),
        (ask("get", "", "nodes", "", "n1"), true),
        (ask("get", "", "nodes", "", "n2"), false),
        (ask("patch", "", "nodes/status", "", "n1"), true),
        (ask("patch", "", "nodes/status", "", "n2"), false),
        (ask("delete", "", "nodes", "", "n1"), false),
        (ask("get", "", "pods", "default", "mine"), true),
        (ask("get", "", "pods", "default", "theirs"), false),
        (ask("list", "", "pods", "", ""), false),
        (ask("patch", "", "pods/status", "default", "mine"), true),
        (ask("patch", "", "pods/status", "default", "theirs"), false),
        (ask("delete", "", "pods", "default", "mine"), true),
        (ask("delete", "", "pods", "default", "theirs"), false),
        // gone: the pipeline's 404 says so
        (ask("delete", "", "pods", "default", "gone"), true),
        // Mirrors; admission looks whether it is one.
        (ask("create", "", "pods", "default", ""), true),
        (ask("update", "", "pods", "default", "gone"), false),
        (ask("patch", "", "pods", "default", "gone"), false),
        (ask("get", "", "secrets", "default", "its-secret"), true),
        (ask("get", "", "secrets", "default", "another"), false),
        (ask("get", "", "secrets", "kube-system", "its-secret"), false),
        (ask("list", "", "secrets", "default", ""), false),
        (ask("update", "", "secrets", "default", "its-secret"), false),
        (ask("create", "", "serviceaccounts/token", "default", "bot"), true),
        (ask("create", "", "serviceaccounts/token", "default", "default"), false),
        (ask("update", lease, "leases", node_lease, "n1"), true),
        (ask("update", lease, "leases", node_lease, "n2"), false),
        (ask("update", lease, "leases", "kube-system", "n1"), false),
        (ask("create", "", "events", "default", ""), true),
        (ask("list", "node.k8s.io", "runtimeclasses", "", ""), true),
        (ask("list", "apps", "deployments", "default", ""), false),
    ];
    for (at, (is, want)) in table.into_iter().enumerate() {
        assert_eq!(is, want, "row {at}");
    }
}

#[tokio::test]
async fn rules_follow_the_store() {
    let world = World::new().await;
    let auth = world.auth().clone();
    let following = tokio::spawn(async move { auth.run().await });
    let jane = User { name: "jane".into(), ..User::default() };
    let may =
        || world.auth().authorize(&jane, &Attributes { verb: "list", resource: "pods", namespace: "default", ..Attributes::default() }).allowed();
    let until = |want: bool| async move {
        let wait = async {
            while may() != want {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never {want}"));
    };
    let binding = json!({"metadata": {"namespace": "default", "name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "jane"}]});
    assert!(!may());
    world.put(rbac::ROLE_BINDINGS, binding).await;
    until(true).await;
    world.delete(rbac::ROLE_BINDINGS, "default", "b").await;
    until(false).await;
    world.core.store.shutdown().await;
    tokio::time::timeout(std::time::Duration::from_secs(10), following).await.unwrap().unwrap();
}

#[tokio::test]
async fn reviews_answer_as_upstreams() {
    let world = World::new().await;
    let (auth, account) = (world.auth(), User::service_account("default", "default"));
    let status = |kind: &str, namespace: &str, spec: Value| {
        auth.review(&account, kind, namespace, &json!({"spec": spec})).unwrap().map(|v| v["status"].clone()).map_err(|e| e.code)
    };
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    assert_eq!(status("SelfSubjectAccessReview", "", json!({"resourceAttributes": pods})).unwrap(), json!({"allowed": false}));
    let allowed = status("SelfSubjectAccessReview", "", json!({"nonResourceAttributes": {"verb": "get", "path": "/api"}})).unwrap();
    assert_eq!(allowed["allowed"], true);
    assert!(allowed["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding \"system:discovery\""));
    let master = status("SubjectAccessReview", "", json!({"resourceAttributes": pods, "groups": [MASTERS], "user": "x"})).unwrap();
    assert_eq!(master, json!({"allowed": true}));
    let both = json!({"resourceAttributes": pods, "nonResourceAttributes": {"verb": "get", "path": "/"}});
    assert_eq!(status("SelfSubjectAccessReview", "", both).unwrap_err(), 422);
    assert_eq!(status("SelfSubjectAccessReview", "", json!({})).unwrap_err(), 422);
    assert_eq!(status("SubjectAccessReview", "", json!({"resourceAttributes": pods})).unwrap_err(), 422);
    let local = json!({"resourceAttributes": pods, "user": "x"});
    assert!(status("LocalSubjectAccessReview", "default", local.clone()).is_ok());
    assert_eq!(status("LocalSubjectAccessReview", "other", local).unwrap_err(), 422);
    assert_eq!(status("SelfSubjectRulesReview", "", json!({})).unwrap_err(), 400);
    let rules = status("SelfSubjectRulesReview", "", json!({"namespace": "default"})).unwrap();
    assert!(rules["resourceRules"].as_array().unwrap().iter().any(|r| r["resources"] == json!(["selfsubjectreviews"])));
    let me = status("SelfSubjectReview", "", json!({})).unwrap();
    assert_eq!(me["userInfo"]["username"], account.name);
    assert!(auth.review(&account, "Pod", "", &json!({})).is_none());
}

#[tokio::test]
async fn acting_as_somebody_else_needs_the_right_for_each_part() {
    let world = World::new().await;
    let rule = |resources: &[&str], names: &[&str], group: &str| json!({"verbs": ["impersonate"], "apiGroups": [group], "resources": resources, "resourceNames": names});
    let role = json!({"metadata": {"name": "imp"}, "rules": [
        rule(&["users"], &["jane"], ""), rule(&["groups"], &["devs"], ""), rule(&["userextras/team"], &["a"], "authentication.k8s.io")]});
    world.put(rbac::CLUSTER_ROLES, role).await;
    let binding =
        json!({"metadata": {"name": "imp"}, "roleRef": {"kind": "ClusterRole", "name": "imp"}, "subjects": [{"kind": "User", "name": "joe"}]});
    world.put(rbac::CLUSTER_ROLE_BINDINGS, binding).await;
    world.auth().reload();
    let joe = Arc::new(User { name: "joe".into(), ..User::default() });
    let wanted = |name: &str, groups: &[&str]| impersonate::Wanted {
        name: name.into(),
        groups: groups.iter().map(|g| g.to_string()).collect(),
        ..Default::default()
    };
    let go = |wanted| world.auth().impersonate(&joe, wanted).map_err(|e| e.code);
    assert!(Arc::ptr_eq(&go(impersonate::Wanted::default()).unwrap(), &joe));
    assert_eq!(go(wanted("jane", &["devs"])).unwrap().groups, ["devs", AUTHENTICATED]);
    assert_eq!(go(wanted("jane", &[MASTERS])).unwrap_err(), 403);
    assert_eq!(go(wanted("admin", &[])).unwrap_err(), 403);
    assert_eq!(go(wanted("system:serviceaccount:default:default", &[])).unwrap_err(), 403);
    assert_eq!(go(wanted("", &["devs"])).unwrap_err(), 400);
    let extra = |value: &str| impersonate::Wanted { extra: vec![("team".into(), vec![value.into()])], ..wanted("jane", &[]) };
    assert!(go(extra("a")).is_ok());
    assert_eq!(go(extra("b")).unwrap_err(), 403);
    let master = Arc::new(User::masters());
    let account = world.auth().impersonate(&master, wanted("system:serviceaccount:default:bot", &[])).unwrap();
    assert_eq!(account.groups, User::service_account("default", "bot").groups);
}

#[tokio::test]
async fn who_may_write_a_role_may_label_it_but_not_widen_it() {
    let world = World::new().await;
    let (joe, auth) = (User { name: "joe".into(), ..User::default() }, world.auth());
    let role = |label: &str, verbs: &[&str]| json!({"metadata": {"namespace": "default", "name": "r", "labels": {"l": label}}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(auth.check_escalation(&joe, "roles", None, &role("a", &["get"])).unwrap_err().code, 403);
    assert!(auth.check_escalation(&joe, "roles", Some(&role("a", &["get"])), &role("b", &["get"])).is_ok());
    assert_eq!(auth.check_escalation(&joe, "roles", Some(&role("a", &["get"])), &role("a", &["get", "list"])).unwrap_err().code, 403);
    let binding = |subject: &str| json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": subject}]});
    assert!(auth.check_escalation(&joe, "clusterrolebindings", Some(&binding("x")), &binding("x")).is_ok());
    assert_eq!(auth.check_escalation(&joe, "clusterrolebindings", Some(&binding("x")), &binding("joe")).unwrap_err().code, 403);
}
