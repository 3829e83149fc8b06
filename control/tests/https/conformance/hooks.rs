//! apimachinery/webhook: what webhooks refuse and change, and their configurations as objects. What they are asked and what becomes of bad answers is told by
//! `webhooks`.

use super::{DEFINITIONS, items, made, name, namespace, ok, patched, put};
use crate::{
    cluster::{Answer, Cluster, Peer},
    server::Server,
};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MARK: &str = "webhook-e2e-test";

pub async fn all(cluster: &Cluster) {
    let server = Server::start().await;
    let mut admin = cluster.admin().await;
    pods_and_config_maps_are_refused(&mut admin, &server).await;
    attaching_is_refused(&mut admin, &server).await;
    custom_objects_are_refused(&mut admin, &server).await;
    definitions_are_refused(&mut admin, &server).await;
    nobody_to_ask_is_a_refusal(&mut admin).await;
    objects_are_changed_in_order(&mut admin, &server).await;
    what_is_added_is_pruned(&mut admin, &server).await;
    changes_go_on_in_another_version(&mut admin, &server).await;
    patience_is_what_was_asked(cluster, &server).await;
    configurations_change(&mut admin, &server).await;
    collections_of_configurations_go(&mut admin, &server).await;
    conditions_are_kept_and_checked(&mut admin, &server).await;
    everything_but_what_is_to_be_skipped(&mut admin, &server).await;
}

fn maps(place: &str) -> String {
    format!("/api/v1/namespaces/{place}/configmaps")
}

fn rules(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!([{"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations}])
}

/// A webhook about what is in one namespace.
fn hook(server: &Server, place: &str, key: &str, path: &str, rules: Value) -> Value {
    json!({"name": format!("{key}.example.com"), "admissionReviewVersions": ["v1", "v1beta1"], "sideEffects": "None", "rules": rules,
        "clientConfig": server.config(path), "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place}}})
}

/// Configures webhooks under the namespace's name.
async fn configure(admin: &mut Peer, kind: &str, key: &str, hooks: Value) -> Value {
    made(admin, &format!("{GROUP}/{kind}webhookconfigurations"), json!({"metadata": {"name": key}, "webhooks": hooks})).await
}

#[track_caller]
fn refused(answer: &Answer, hook: &str, why: &str) {
    assert_eq!(answer.message(), format!("admission webhook \"{hook}.example.com\" denied the request: {why}"), "{}", answer.body);
}

/// A definition of `hooked.KEY.example.com` with these versions; the path of objects in one of them.
async fn kind(admin: &mut Peer, key: &str, schema: &Value, versions: &[&str]) -> impl Fn(&str) -> String + use<> {
    let group = format!("{key}.example.com");
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(at, version)| json!({"name": version, "served": true, "storage": at == 0, "schema": {"openAPIV3Schema": schema}}))
        .collect();
    let definition = json!({"metadata": {"name": format!("hooked.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": "hooked", "singular": "hook", "kind": "Hook", "listKind": "HookList"}, "versions": versions}});
    super::definitions::define(admin, definition).await;
    let place = key.to_owned();
    move |version: &str| format!("/apis/{group}/{version}/namespaces/{place}/hooked")
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn custom(path: &str, name: &str, data: Value) -> Value {
    let version = path.trim_start_matches("/apis/").split("/namespaces").next().unwrap_or_default();
    json!({"apiVersion": version, "kind": "Hook", "metadata": {"name": name}, "data": data})
}

/// "should be able to deny pod and configmap creation"
async fn pods_and_config_maps_are_refused(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-deny";
    for place in [PLACE, "hooks-deny-exempt"] {
        namespace(admin, place).await;
    }
    let mut pods = hook(server, PLACE, "deny-unwanted-pod", "/unwanted", rules("", "pods", &["CREATE"]));
    pods["timeoutSeconds"] = 1.into();
    let about = hook(server, PLACE, "deny-unwanted-configmap", "/unwanted", rules("", "configmaps", &["CREATE", "UPDATE", "DELETE"]));
    configure(admin, "validating", PLACE, json!([pods, about])).await;
    let path = format!("/api/v1/namespaces/{PLACE}/pods");
    let pod = |name: &str, label: &str, container: &str| json!({"metadata": {"name": name, "labels": {MARK: label}}, "spec": {"schedulerName": "nobody", "containers": [{"name": container, "image": "i"}]}});
    let answer = admin.post(&path, pod("disallowed-pod", "webhook-disallow", "webhook-disallow")).await;
    refused(&answer, "deny-unwanted-pod", "the pod contains unwanted container name; the pod contains unwanted label; ");
    assert_eq!(answer.code, 400);
    let hangs = admin.post(&path, pod("hanging-pod", "wait", "pause")).await;
    assert!(hangs.message().contains("failed calling webhook") && hangs.message().contains("deadline"), "{}", hangs.message());
    assert_eq!(admin.get(&format!("{path}/hanging-pod")).await.code, 404);

    let map = |name: &str, data: Value| json!({"metadata": {"name": name}, "data": data});
    let (bad, why) = (json!({MARK: "webhook-disallow"}), "the configmap contains unwanted key and value");
    refused(&admin.post(&maps(PLACE), map("disallowed", bad.clone())).await, "deny-unwanted-configmap", why);
    let mut admitted = made(admin, &maps(PLACE), map("allowed", json!({"admit": "this"}))).await;
    admitted["data"] = bad.clone();
    let one = format!("{}/allowed", maps(PLACE));
    refused(&admin.send("PUT", &one, "application/json", admitted.to_string()).await, "deny-unwanted-configmap", why);
    let patch = json!({"data": bad}).to_string();
    refused(&admin.send("PATCH", &one, "application/strategic-merge-patch+json", patch).await, "deny-unwanted-configmap", why);
    assert_eq!(admin.get(&one).await.body["data"], json!({"admit": "this"}));
    made(admin, &maps("hooks-deny-exempt"), map("disallowed", bad)).await;
}

/// "should be able to deny attaching pod"
async fn attaching_is_refused(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-attach";
    namespace(admin, PLACE).await;
    configure(admin, "validating", PLACE, json!([hook(server, PLACE, "deny-attaching-pod", "/unwanted", rules("", "pods/attach", &["CONNECT"]))]))
        .await;
    let path = format!("/api/v1/namespaces/{PLACE}/pods");
    let pod = json!({"metadata": {"name": "to-be-attached-pod"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "container1", "image": "i"}]}});
    made(admin, &path, pod).await;
    let answer = admin.send("POST", &format!("{path}/to-be-attached-pod/attach?container=container1&stdin=true"), "", String::new()).await;
    refused(&answer, "deny-attaching-pod", "attaching to pod 'to-be-attached-pod' is not allowed");
}

/// "should be able to deny custom resource creation, update and deletion"
async fn custom_objects_are_refused(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-custom";
    namespace(admin, PLACE).await;
    let path = kind(admin, PLACE, &anything(), &["v1"]).await("v1");
    let about = rules(&format!("{PLACE}.example.com"), "hooked", &["CREATE", "UPDATE", "DELETE"]);
    configure(admin, "validating", PLACE, json!([hook(server, PLACE, "deny-unwanted-custom-resource", "/unwanted", about)])).await;
    let why = "the custom resource contains unwanted data";
    let answer = admin.post(&path, custom(&path, "cr-instance-1", json!({MARK: "webhook-disallow"}))).await;
    refused(&answer, "deny-unwanted-custom-resource", why);
    let mut object = made(admin, &path, custom(&path, "cr-instance-2", json!({MARK: "webhook-nondeletable"}))).await;
    let one = format!("{path}/cr-instance-2");
    object["data"][MARK] = "webhook-disallow".into();
    refused(&admin.send("PUT", &one, "application/json", object.to_string()).await, "deny-unwanted-custom-resource", why);
    let stays = "the custom resource cannot be deleted because it contains unwanted key and value";
    refused(&admin.send("DELETE", &one, "", String::new()).await, "deny-unwanted-custom-resource", stays);
    object["data"][MARK] = "webhook-allow".into();
    put(admin, &one, &object).await;
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(admin.get(&one).await.code, 404);
}

/// "should deny crd creation"
async fn definitions_are_refused(admin: &mut Peer, server: &Server) {
    let mut about = hook(server, "", "deny-crd", "/unwanted", rules("apiextensions.k8s.io", "customresourcedefinitions", &["CREATE"]));
    // Cluster-wide objects are in no namespace: their own labels select them.
    about["namespaceSelector"] = json!({});
    about["objectSelector"] = json!({"matchLabels": {"hooks": "deny"}});
    configure(admin, "validating", "hooks-definitions", json!([about])).await;
    let mut definition = super::definitions::definition("hooks-denied.example.com", &anything());
    definition["metadata"]["labels"] = json!({"hooks": "deny", MARK: "webhook-disallow"});
    refused(&admin.post(DEFINITIONS, definition).await, "deny-crd", "the crd contains unwanted label");
    assert_eq!(admin.get(&format!("{DEFINITIONS}/tests.hooks-denied.example.com")).await.code, 404);
}

/// "should unconditionally reject operations on fail closed webhook"
async fn nobody_to_ask_is_a_refusal(admin: &mut Peer) {
    const PLACE: &str = "hooks-closed";
    namespace(admin, PLACE).await;
    let closed = json!({"name": "fail-closed.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
        "rules": rules("", "configmaps", &["CREATE"]), "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": PLACE}},
        "clientConfig": {"service": {"namespace": PLACE, "name": "e2e-test-webhook", "path": "/configmaps", "port": 8443}}});
    configure(admin, "validating", PLACE, json!([closed])).await;
    let answer = admin.post(&maps(PLACE), json!({"metadata": {"name": "foo"}})).await;
    assert_eq!((answer.code, answer.reason()), (500, "InternalError"), "{}", answer.body);
    let why = "Internal error occurred: failed calling webhook \"fail-closed.example.com\": failed to call webhook: ";
    assert!(answer.message().starts_with(why), "{}", answer.message());
}

/// Two webhooks of which the second adds something only after the first did.
fn stages(server: &Server, place: &str, about: &Value) -> Value {
    json!([hook(server, place, "stage-1", "/stage-1", about.clone()), hook(server, place, "stage-2", "/stage-2", about.clone())])
}

fn both() -> Value {
    json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"})
}

/// "should mutate configmap", "should mutate custom resource"
async fn objects_are_changed_in_order(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-stages";
    namespace(admin, PLACE).await;
    let path = kind(admin, PLACE, &anything(), &["v1"]).await("v1");
    let mut about = rules("", "configmaps", &["CREATE"]);
    about
        .as_array_mut()
        .expect("rules")
        .extend(rules(&format!("{PLACE}.example.com"), "hooked", &["CREATE", "UPDATE"]).as_array().cloned().unwrap_or_default());
    configure(admin, "mutating", PLACE, stages(server, PLACE, &about)).await;
    let start = json!({"mutation-start": "yes"});
    assert_eq!(made(admin, &maps(PLACE), json!({"metadata": {"name": "to-be-mutated"}, "data": start})).await["data"], both());
    assert_eq!(made(admin, &path, custom(&path, "cr-instance-1", start)).await["data"], both());
}

/// "should mutate custom resource with pruning"
async fn what_is_added_is_pruned(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-pruned";
    namespace(admin, PLACE).await;
    let known = json!({"type": "object", "properties": {"mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"}}});
    let path = kind(admin, PLACE, &json!({"type": "object", "properties": {"data": known}}), &["v1"]).await("v1");
    configure(admin, "mutating", PLACE, stages(server, PLACE, &rules(&format!("{PLACE}.example.com"), "hooked", &["CREATE", "UPDATE"]))).await;
    let stored = made(admin, &path, custom(&path, "cr-instance-1", json!({"mutation-start": "yes"}))).await;
    assert_eq!(stored["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}), "what no schema knows is left out");
}

/// "should mutate custom resource with different stored version"
async fn changes_go_on_in_another_version(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-versions";
    namespace(admin, PLACE).await;
    let path = kind(admin, PLACE, &anything(), &["v1", "v2"]).await;
    configure(admin, "mutating", PLACE, stages(server, PLACE, &rules(&format!("{PLACE}.example.com"), "hooked", &["CREATE", "UPDATE"]))).await;
    let (v1, v2) = (path("v1"), path("v2"));
    made(admin, &v1, custom(&v1, "cr-instance-1", json!({"mutation-start": "yes"}))).await;
    let version = |name: &str| json!({"name": name, "served": true, "storage": name == "v2", "schema": {"openAPIV3Schema": anything()}});
    let definition = format!("{DEFINITIONS}/hooked.{PLACE}.example.com");
    // As upstream does, by a strategic merge: the list of versions is replaced.
    patched(admin, &definition, "strategic-merge", json!({"spec": {"versions": [version("v1"), version("v2")]}})).await;
    super::reached(admin, DEFINITIONS, &format!("hooked.{PLACE}.example.com"), "both are stored", |definition| {
        definition["status"]["storedVersions"] == json!(["v1", "v2"])
    })
    .await;
    let changed = patched(admin, &format!("{v2}/cr-instance-1"), "json", json!([{"op": "add", "path": "/dummy", "value": "test"}])).await;
    assert_eq!((&changed["data"], &changed["dummy"]), (&both(), &json!("test")));
    assert_eq!(changed["apiVersion"], format!("{PLACE}.example.com/v2"));
}

/// "should honor timeout"
async fn patience_is_what_was_asked(cluster: &Cluster, server: &Server) {
    let case = async |place: &str, timeout: Option<u32>, policy: &str| {
        let mut admin = cluster.admin().await;
        namespace(&mut admin, place).await;
        let mut slow = hook(server, place, "allow-slowly", "/slow", rules("", "configmaps", &["CREATE"]));
        slow["failurePolicy"] = policy.into();
        slow["timeoutSeconds"] = json!(timeout);
        let configuration = configure(&mut admin, "validating", place, json!([slow])).await;
        assert_eq!(configuration["webhooks"][0]["timeoutSeconds"], timeout.unwrap_or(10));
        admin.post(&maps(place), json!({"metadata": {"name": "slow"}})).await
    };
    let (fails, ignored, waits, default) = tokio::join!(
        case("hooks-slow-fail", Some(1), "Fail"),
        case("hooks-slow-ignore", Some(1), "Ignore"),
        case("hooks-slow-wait", Some(10), "Fail"),
        case("hooks-slow-default", None, "Fail")
    );
    assert!(fails.message().contains("/slow?timeout=1s") && fails.message().contains("context deadline exceeded"), "{}", fails.message());
    for (answer, why) in [(ignored, "nobody cares"), (waits, "there was time"), (default, "there was time")] {
        assert_eq!(answer.code, 201, "{why}: {}", answer.body);
    }
}

/// "patching/updating a validating webhook should work", "… a mutating webhook …"
async fn configurations_change(admin: &mut Peer, server: &Server) {
    for (kind, path) in [("validating", "/unwanted"), ("mutating", "/stage-1")] {
        let place = &format!("hooks-change-{kind}");
        namespace(admin, place).await;
        let mut configuration =
            configure(admin, kind, place, json!([hook(server, place, "changes", path, rules("", "configmaps", &["CREATE"]))])).await;
        let one = format!("{GROUP}/{kind}webhookconfigurations/{place}");
        let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a revision");
        let map = json!({"metadata": {"generateName": "map-"}, "data": {MARK: "webhook-disallow", "mutation-start": "yes"}});
        let acts = |answer: &Answer| answer.message().contains("denied") || answer.body["data"]["mutation-stage-1"] == "yes";
        assert!(acts(&admin.post(&maps(place), map.clone()).await), "{kind}");
        configuration["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        let updated = put(admin, &one, &configuration).await;
        let idle = admin.post(&maps(place), map.clone()).await;
        assert!(idle.code == 201 && !acts(&idle), "{kind}: {}", idle.body);
        let back = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "CREATE"}]);
        let changed = patched(admin, &one, "json", back).await;
        assert!(revision(&changed) > revision(&updated));
        assert!(acts(&admin.post(&maps(place), map).await), "{kind}");
    }
}

/// "listing validating webhooks should work", "listing mutating webhooks should work"
async fn collections_of_configurations_go(admin: &mut Peer, server: &Server) {
    for (kind, path) in [("validating", "/unwanted"), ("mutating", "/stage-1")] {
        let place = &format!("hooks-list-{kind}");
        namespace(admin, place).await;
        let all = format!("{GROUP}/{kind}webhookconfigurations");
        for at in 0..10 {
            let hooks = json!([hook(server, place, "listed", path, rules("", "configmaps", &["CREATE"]))]);
            made(admin, &all, json!({"metadata": {"name": format!("{place}-{at}"), "labels": {"e2e-list-test-uuid": place}}, "webhooks": hooks}))
                .await;
        }
        let listed = format!("{all}?labelSelector=e2e-list-test-uuid%3D{place}");
        assert_eq!(items(admin, &listed).await.len(), 10);
        let map = json!({"metadata": {"generateName": "map-"}, "data": {MARK: "webhook-disallow", "mutation-start": "yes"}});
        let acts = |answer: &Answer| answer.message().contains("denied") || answer.body["data"]["mutation-stage-1"] == "yes";
        assert!(acts(&admin.post(&maps(place), map.clone()).await), "{kind}");
        ok(&admin.send("DELETE", &listed, "application/json", String::new()).await);
        let idle = admin.post(&maps(place), map).await;
        assert!(idle.code == 201 && !acts(&idle), "{kind}: {}", idle.body);
        assert!(items(admin, &listed).await.is_empty());
    }
}

/// "should be able to create and update … webhook configurations with match conditions", "should reject … with invalid match conditions"
async fn conditions_are_kept_and_checked(admin: &mut Peer, server: &Server) {
    for kind in ["validating", "mutating"] {
        let place = &format!("hooks-match-{kind}");
        let (first, second) = (
            json!([{"name": "expression-1", "expression": "1 == 1"}]),
            json!([{"name": "expression-1", "expression": "1 == 1"}, {"name": "expression-2", "expression": "true"}]),
        );
        let mut about = hook(server, place, "match", "/never", rules("", "configmaps", &["CREATE"]));
        about["matchConditions"] = first.clone();
        let mut configuration = configure(admin, kind, place, json!([about])).await;
        assert_eq!(configuration["webhooks"][0]["matchConditions"], first);
        configuration["webhooks"][0]["matchConditions"] = second.clone();
        let one = format!("{GROUP}/{kind}webhookconfigurations/{place}");
        assert_eq!(put(admin, &one, &configuration).await["webhooks"][0]["matchConditions"], second);
        assert_eq!(admin.get(&one).await.body["webhooks"][0]["matchConditions"], second);
        about = hook(server, place, "match", "/never", rules("", "configmaps", &["CREATE"]));
        about["matchConditions"] = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
        let bad = json!({"metadata": {"name": format!("{place}-bad")}, "webhooks": [about]});
        let answer = admin.post(&format!("{GROUP}/{kind}webhookconfigurations"), bad).await;
        assert_eq!((answer.code, answer.reason()), (422, "Invalid"), "{}", answer.body);
        let why = "webhooks[0].matchConditions[0].expression: Invalid value: \"... [] bad expression\": compilation failed: ERROR: <input>:1:";
        assert!(answer.message().contains(why), "{}", answer.message());
    }
}

/// "should mutate everything except 'skip-me' configmaps"
async fn everything_but_what_is_to_be_skipped(admin: &mut Peer, server: &Server) {
    const PLACE: &str = "hooks-skip";
    namespace(admin, PLACE).await;
    let mut about = hook(server, PLACE, "skips", "/stage-1", rules("", "configmaps", &["CREATE", "UPDATE"]));
    about["matchConditions"] = json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    configure(admin, "mutating", PLACE, json!([about])).await;
    for (key, wanted) in [("skip-me", Value::Null), ("other", json!("yes"))] {
        let map = made(admin, &maps(PLACE), json!({"metadata": {"name": key}, "data": {"mutation-start": "yes"}})).await;
        assert_eq!((name(&map), &map["data"]["mutation-stage-1"]), (key, &wanted));
    }
}
