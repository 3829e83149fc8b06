//! auth/service_accounts and auth/subjectreviews: who may be what, as the API tells it.

use super::{gone, items, made, namespace, ok, patched, put};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "accounts").await;
    tokens_are_mounted_unless_not_wanted(&mut admin).await;
    accounts_have_a_life(&mut admin).await;
    tokens_are_reviewed(&mut admin).await;
    the_issuer_can_be_discovered(&mut admin).await;
    reviews_say_what_requests_find(&mut admin).await;
}

const ACCOUNTS: &str = "/api/v1/namespaces/accounts/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/accounts/pods";

async fn tokens_are_mounted_unless_not_wanted(admin: &mut Peer) {
    for (key, mount) in [("mount", true), ("nomount", false)] {
        made(admin, ACCOUNTS, json!({"metadata": {"name": key}, "automountServiceAccountToken": mount})).await;
    }
    for (account, spec, wanted) in [
        ("default", None, true),
        ("mount", None, true),
        ("nomount", None, false),
        ("default", Some(true), true),
        ("mount", Some(true), true),
        ("nomount", Some(true), true),
        ("default", Some(false), false),
        ("mount", Some(false), false),
        ("nomount", Some(false), false),
    ] {
        let pod = json!({"metadata": {"generateName": "p-"}, "spec": {"schedulerName": "nobody", "serviceAccountName": account,
            "automountServiceAccountToken": spec, "containers": [{"name": "token-test", "image": "i"}]}});
        let pod = made(admin, PODS, pod).await;
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
        let mounted = mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(mounted, wanted, "{account} {spec:?}");
    }
}

async fn accounts_have_a_life(admin: &mut Peer) {
    let mut events = admin.watch(&format!("{ACCOUNTS}?watch=true&labelSelector=static%3Dtrue")).await;
    let mut account =
        made(admin, ACCOUNTS, json!({"metadata": {"name": "life", "labels": {"static": "true"}}, "automountServiceAccountToken": true})).await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    patched(admin, &format!("{ACCOUNTS}/life"), "strategic-merge", json!({"automountServiceAccountToken": false})).await;
    assert_eq!(events.next().await.expect("an event")["type"], "MODIFIED");
    let found = items(admin, "/api/v1/serviceaccounts?labelSelector=static%3Dtrue").await;
    assert_eq!((found.len(), &found[0]["automountServiceAccountToken"]), (1, &json!(false)));
    account["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(put(admin, &format!("{ACCOUNTS}/life"), &account).await["automountServiceAccountToken"], true);
    ok(&admin.send("DELETE", &format!("{ACCOUNTS}?labelSelector=static%3Dtrue"), "", String::new()).await);
    gone(&mut events, "life").await;
}

async fn tokens_are_reviewed(admin: &mut Peer) {
    made(admin, ACCOUNTS, json!({"metadata": {"name": "reviewed"}})).await;
    let spec = json!({"schedulerName": "nobody", "serviceAccountName": "reviewed", "containers": [{"name": "c", "image": "i"}]});
    let pod = made(admin, PODS, json!({"metadata": {"name": "bound"}, "spec": spec})).await;
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "bound", "uid": pod["metadata"]["uid"]}}});
    for (request, pods) in [(json!({}), false), (bound, true)] {
        let token = made(admin, &format!("{ACCOUNTS}/reviewed/token"), request).await["status"]["token"].clone();
        assert!(token.as_str().is_some_and(|token| !token.is_empty()));
        let status = made(admin, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await["status"].clone();
        let user = &status["user"];
        assert_eq!((&status["authenticated"], &status["error"]), (&json!(true), &Value::Null), "{status}");
        assert_eq!(user["username"], "system:serviceaccount:accounts:reviewed");
        for group in ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:accounts"] {
            assert!(user["groups"].as_array().is_some_and(|all| all.iter().any(|one| one == group)), "{group}: {user}");
        }
        let extra = &user["extra"];
        assert!(extra["authentication.kubernetes.io/credential-id"][0].as_str().is_some_and(|id| id.starts_with("JTI=")), "{extra}");
        let wanted = if pods { (json!(["bound"]), json!([pod["metadata"]["uid"]])) } else { (Value::Null, Value::Null) };
        assert_eq!((&extra["authentication.kubernetes.io/pod-name"], &extra["authentication.kubernetes.io/pod-uid"]), (&wanted.0, &wanted.1));
    }
}

async fn the_issuer_can_be_discovered(admin: &mut Peer) {
    let document = admin.get("/.well-known/openid-configuration").await;
    ok(&document);
    let keys = admin.get("/openid/v1/jwks").await;
    assert_eq!((keys.code, keys.header("content-type")), (200, "application/jwk-set+json"));
    assert!(document.body["issuer"].is_string() && document.body["jwks_uri"].as_str().is_some_and(|uri| uri.ends_with("/openid/v1/jwks")));
    assert!(keys.body["keys"].as_array().is_some_and(|keys| !keys.is_empty() && keys.iter().all(|key| key["kid"].is_string() && key["d"].is_null())));
}

async fn reviews_say_what_requests_find(admin: &mut Peer) {
    let account = made(admin, ACCOUNTS, json!({"metadata": {"name": "e2e"}})).await;
    let user = "system:serviceaccount:accounts:e2e";
    let groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:accounts"];
    let attributes = json!({"verb": "list", "resource": "configmaps", "namespace": "accounts", "version": "v1"});
    let spec = json!({"resourceAttributes": attributes, "user": user, "groups": groups, "uid": account["metadata"]["uid"]});
    for bound in [false, true] {
        if bound {
            let binding = json!({"metadata": {"name": "e2e"}, "subjects": [{"kind": "ServiceAccount", "name": "e2e", "namespace": "accounts"}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
            made(admin, "/apis/rbac.authorization.k8s.io/v1/namespaces/accounts/rolebindings", binding).await;
        }
        let group = "/apis/authorization.k8s.io/v1";
        let review = made(admin, &format!("{group}/subjectaccessreviews"), json!({"spec": spec})).await;
        let local = made(
            admin,
            &format!("{group}/namespaces/accounts/localsubjectaccessreviews"),
            json!({"metadata": {"namespace": "accounts"}, "spec": spec}),
        )
        .await;
        admin.headers = vec![("Impersonate-User".into(), user.into())];
        admin.headers.extend(groups.map(|group| ("Impersonate-Group".to_owned(), group.to_owned())));
        let listed = admin.get("/api/v1/namespaces/accounts/configmaps").await;
        admin.headers.clear();
        assert_eq!(listed.code, if bound { 200 } else { 403 });
        assert_eq!((&review["status"]["allowed"], &local["status"]["allowed"]), (&json!(bound), &json!(bound)), "{review} {local}");
    }
}
