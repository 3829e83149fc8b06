//! Admission webhooks: a TLS server in this process is asked about writes, and answers well or badly.

use crate::cluster::{Answer, Cluster, Peer};
use crate::server::Server;
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

async fn delete(admin: &mut Peer, path: &str) -> Answer {
    admin.send("DELETE", path, "", String::new()).await
}

/// Waits for the account that pods run as.
async fn account(admin: &mut Peer, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts?watch=true&fieldSelector=metadata.name=default");
    admin.watch(&path).await.next().await.expect("an account");
}

fn maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

/// A webhook about config maps of one namespace, with more fields.
fn hook(server: &Server, namespace: &str, name: &str, path: &str, more: Value) -> Value {
    let mut hook = json!({"name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": server.config(path), "namespaceSelector": {"matchLabels": {"test": namespace}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        hook[field] = value.clone();
    }
    hook
}

/// A namespace, and a configuration of the same name that is about it.
async fn configured(admin: &mut Peer, kind: &str, namespace: &str, hooks: Value) {
    made(admin, "/api/v1/namespaces", json!({"metadata": {"name": namespace, "labels": {"test": namespace}}})).await;
    made(admin, &format!("{GROUP}/{kind}webhookconfigurations"), json!({"metadata": {"name": namespace}, "webhooks": hooks})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks() {
    let cluster = Cluster::start().await;
    let server = Server::start().await;
    let mut admin = cluster.admin().await;
    denials(&mut admin, &server).await;
    questions(&mut admin, &server).await;
    bad_answers(&mut admin, &server).await;
    patches(&mut admin, &server).await;
    invocations(&mut admin, &server).await;
    conditions(&mut admin, &server).await;
    versions(&mut admin, &server).await;
    services(&mut admin, &server).await;
    exempt(&mut admin, &server).await;
}

async fn denials(admin: &mut Peer, server: &Server) {
    let deny = hook(
        server,
        "denials",
        "deny",
        "/deny",
        json!({"rules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "DELETE"]},
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"], "operations": ["UPDATE"]}]}),
    );
    configured(admin, "validating", "denials", json!([deny])).await;
    let path = maps("denials");
    let refused = admin.post(&path, map("denied")).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
    assert_eq!(refused.message(), "admission webhook \"deny.example.com\" denied the request: this name is denied");
    assert_eq!(refused.header("warning"), "299 - \"no name like this\"");
    // So does what was noticed before a refusal of the server's own.
    let unknown = json!({"metadata": {"name": "no_name"}, "data": {}, "unheard": 1});
    let refused = admin.post(&format!("{path}?fieldValidation=Warn"), unknown).await;
    assert_eq!((refused.code, refused.header("warning")), (422, "299 - \"unknown field \\\"unheard\\\"\""), "{}", refused.body);
    let allowed = admin.post(&path, map("fine")).await;
    assert_eq!(allowed.code, 201, "{}", allowed.body);
    assert_eq!(allowed.header("warning"), "299 - \"think twice\"");
    // What is not in the rules is not asked about.
    assert_eq!(merge(admin, &format!("{path}/fine"), json!({"data": {"k": "w"}})).await.code, 200);
    made(admin, &path, json!({"metadata": {"generateName": "gen-"}})).await;

    made(admin, &path, map("kept")).await;
    assert_eq!(
        delete(admin, &format!("{path}/kept")).await.message(),
        "admission webhook \"deny.example.com\" denied the request without explanation"
    );
    let asked = server.last("/deny", "kept");
    assert_eq!((&asked["operation"], &asked["object"], &asked["oldObject"]["metadata"]["name"]), (&json!("DELETE"), &Value::Null, &json!("kept")));
    let all = delete(admin, &path).await;
    assert_eq!(all.code, 400, "a collection with an object that must stay: {}", all.body);

    let deployment = json!({"metadata": {"name": "denied"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/denials/deployments";
    made(admin, deployments, deployment).await;
    let scaled = merge(admin, &format!("{deployments}/denied/scale"), json!({"spec": {"replicas": 2}})).await;
    assert_eq!(scaled.code, 403, "{}", scaled.body);
    let asked = server.last("/deny", "denied");
    assert_eq!((&asked["subResource"], &asked["kind"]["kind"], &asked["object"]["kind"]), (&json!("scale"), &json!("Scale"), &json!("Scale")));
    assert_eq!((&asked["oldObject"]["spec"]["replicas"], &asked["object"]["spec"]["replicas"]), (&json!(1), &json!(2)));
}

/// The exact form of a question.
async fn questions(admin: &mut Peer, server: &Server) {
    configured(admin, "validating", "questions", json!([hook(server, "questions", "q", "/allow/questions", json!({}))])).await;
    let path = maps("questions");
    let stored = made(admin, &format!("{path}?fieldManager=me&fieldValidation=Strict"), map("a")).await;
    let review = server.review("/allow/questions", "a");
    assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let mut asked = review["request"].clone();
    assert_eq!(asked["object"]["data"], stored["data"]);
    assert!(asked["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    assert!(asked["userInfo"]["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:masters"))));
    for field in ["object", "uid", "userInfo"] {
        asked[field] = Value::Null;
    }
    let (kind, resource) =
        (json!({"group": "", "version": "v1", "kind": "ConfigMap"}), json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        asked,
        json!({"uid": null, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource, "name": "a", "namespace": "questions",
            "operation": "CREATE", "userInfo": null, "object": null, "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Strict"}})
    );
    merge(admin, &format!("{path}/a?dryRun=All"), json!({"data": {"k": "w"}})).await;
    let asked = server.last("/allow/questions", "a");
    assert_eq!((&asked["operation"], &asked["dryRun"], &asked["options"]["kind"]), (&json!("UPDATE"), &json!(true), &json!("UpdateOptions")));
    assert_eq!((&asked["oldObject"]["data"]["k"], &asked["object"]["data"]["k"]), (&json!("v"), &json!("w")));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 7}).to_string();
    assert_eq!(admin.send("DELETE", &format!("{path}/a"), "application/json", options).await.code, 200);
    let asked = server.last("/allow/questions", "a");
    assert_eq!((&asked["options"]["gracePeriodSeconds"], &asked["options"]["kind"]), (&json!(7), &json!("DeleteOptions")));

    // A connection is asked about as well.
    let connect = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services/proxy"], "operations": ["CONNECT"]}]});
    configured(admin, "validating", "connects", json!([hook(server, "connects", "c", "/deny", connect)])).await;
    let refused = admin.get("/api/v1/namespaces/connects/services/denied/proxy/some/path").await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    let asked = server.last("/deny", "denied");
    assert_eq!(
        (&asked["operation"], &asked["object"]["kind"], &asked["object"]["path"]),
        (&json!("CONNECT"), &json!("ServiceProxyOptions"), &json!("/some/path"))
    );
}

/// Webhooks that do not do what they should.
async fn bad_answers(admin: &mut Peer, server: &Server) {
    let validating = format!("{GROUP}/validatingwebhookconfigurations/bad");
    configured(admin, "validating", "bad", json!([hook(server, "bad", "bad", "/garbage", json!({}))])).await;
    let path = maps("bad");
    for (behaviour, why) in [
        ("/garbage", "failed to call webhook: couldn't get version/kind; json parse error: "),
        ("/wrong-uid", "received invalid webhook response: expected response.uid="),
        (
            "/wrong-version",
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v7, Kind=AdmissionReview",
        ),
        ("/empty", "received invalid webhook response: webhook response was absent"),
        ("/huge", "the answer is longer than 4194304 bytes"),
        ("/broken", "failed to call webhook: an error on the server (\"out of order\") has prevented the request from succeeding"),
        ("/closed", "failed to call webhook: Post \""),
        ("/patch", "received invalid webhook response: validating webhook may not return response.patch"),
    ] {
        let changed = hook(server, "bad", "bad", behaviour, json!({}));
        assert_eq!(merge(admin, &validating, json!({"webhooks": [changed]})).await.code, 200);
        let refused = admin.post(&path, map("a")).await;
        assert_eq!((refused.code, refused.reason()), (500, "InternalError"), "{behaviour}: {}", refused.body);
        assert!(refused.message().starts_with("Internal error occurred: failed calling webhook \"bad.example.com\": "), "{}", refused.message());
        assert!(refused.message().contains(why), "{behaviour}: {}", refused.message());
        let forgiven = hook(server, "bad", "bad", behaviour, json!({"failurePolicy": "Ignore"}));
        assert_eq!(merge(admin, &validating, json!({"webhooks": [forgiven]})).await.code, 200);
        assert_eq!(admin.post(&format!("{path}?dryRun=All"), map("a")).await.code, 201, "{behaviour}");
    }
    let hangs = hook(server, "bad", "bad", "/hang", json!({"timeoutSeconds": 1}));
    assert_eq!(merge(admin, &validating, json!({"webhooks": [hangs]})).await.code, 200);
    let refused = admin.post(&path, map("a")).await;
    assert_eq!(refused.code, 500);
    assert!(refused.message().contains("/hang?timeout=1s\": context deadline exceeded"), "{}", refused.message());
    // Nobody listens; nobody is trusted.
    let mut nowhere = hook(server, "bad", "bad", "/allow", json!({}));
    nowhere["clientConfig"]["url"] = json!("https://127.0.0.1:1/");
    assert_eq!(merge(admin, &validating, json!({"webhooks": [nowhere]})).await.code, 200);
    assert!(admin.post(&path, map("a")).await.message().contains("dial tcp 127.0.0.1:1: "));
    let mut strange = hook(server, "bad", "bad", "/allow", json!({}));
    strange["clientConfig"]["caBundle"] = Server::another_authority();
    assert_eq!(merge(admin, &validating, json!({"webhooks": [strange]})).await.code, 200);
    assert!(admin.post(&path, map("a")).await.message().contains("tls: "));
    // Several are asked at once, and the first by its place counts.
    let several = json!([hook(server, "bad", "z", "/deny", json!({})), hook(server, "bad", "a", "/garbage", json!({"failurePolicy": "Ignore"}))]);
    assert_eq!(merge(admin, &validating, json!({"webhooks": several})).await.code, 200);
    assert!(admin.post(&path, map("denied")).await.message().starts_with("admission webhook \"z.example.com\" denied"));
}

async fn patches(admin: &mut Peer, server: &Server) {
    let pods = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "configmaps"], "operations": ["CREATE", "UPDATE", "DELETE"]}]});
    configured(admin, "mutating", "patches", json!([hook(server, "patches", "m", "/mutate", pods)])).await;
    let path = maps("patches");
    let stored = made(admin, &path, map("a")).await;
    assert_eq!(stored["data"], json!({"k": "v", "mutated": "CREATE"}));
    let changed = merge(admin, &format!("{path}/a"), json!({"data": {"k": "w"}})).await;
    assert_eq!(changed.body["data"], json!({"k": "w", "mutated": "UPDATE"}));
    // What a webhook adds gets its defaults and is validated like everything else.
    account(admin, "patches").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let stored = made(admin, "/api/v1/namespaces/patches/pods", pod).await;
    let added = &stored["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
    assert_eq!(admin.post(&path, map("invalid")).await.code, 422, "a patch that leaves a wrong object");
    // What only the server may say stays the server's.
    let stored = made(admin, &path, map("forged")).await;
    assert_ne!(stored["metadata"]["uid"], "forged");
    let moved = admin.post(&path, map("moved")).await;
    assert_eq!(moved.code, 400, "{}", moved.body);
    // A failing test and a patch of what is deleted are the webhook's mistakes.
    let refused = admin.post(&path, map("untestable")).await;
    assert_eq!((refused.code, refused.reason()), (500, "InternalError"), "{}", refused.body);
    assert!(refused.message().starts_with("Internal error occurred: operation on /data/k: "), "{}", refused.message());
    let refused = admin.post(&path, map("mistyped")).await;
    assert_eq!(
        refused.message(),
        "Internal error occurred: json: cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string"
    );
    let refused = delete(admin, &format!("{path}/a")).await;
    assert_eq!(
        refused.message(),
        "Internal error occurred: admission webhook \"m.example.com\" attempted to modify the object, which is not supported for this operation"
    );
}

/// Who is asked when, and who again.
async fn invocations(admin: &mut Peer, server: &Server) {
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = json!([hook(server, "order", "first", "/step/first", again), hook(server, "order", "second", "/step/second", json!({}))]);
    configured(admin, "mutating", "order", hooks).await;
    let stored = made(admin, &maps("order"), map("a")).await;
    assert_eq!(stored["data"]["steps"], "first second first", "the first is asked again, since the second changed what it saw");
    let once = format!("{GROUP}/mutatingwebhookconfigurations/order");
    let hooks = json!([hook(server, "order", "first", "/step/first", json!({})), hook(server, "order", "second", "/step/second", json!({}))]);
    assert_eq!(merge(admin, &once, json!({"webhooks": hooks})).await.code, 200);
    assert_eq!(made(admin, &maps("order"), map("b")).await["data"]["steps"], "first second");

    // A webhook of an older kind may say so; one with side effects is not asked in a dry run.
    let older = json!({"admissionReviewVersions": ["v0", "v1beta1"]});
    configured(admin, "validating", "older", json!([hook(server, "older", "o", "/allow/older", older)])).await;
    made(admin, &maps("older"), map("a")).await;
    assert_eq!(server.review("/allow/older", "a")["apiVersion"], "admission.k8s.io/v1beta1");
}

async fn conditions(admin: &mut Peer, server: &Server) {
    let only = json!({"matchConditions": [{"name": "names", "expression": "!object.metadata.name.startsWith('skip')"},
        {"name": "who", "expression": "authorizer.group('').resource('pods').check('list').allowed() && request.operation == 'CREATE'"}]});
    configured(admin, "validating", "conditions", json!([hook(server, "conditions", "c", "/never", only)])).await;
    made(admin, &maps("conditions"), map("skip-me")).await;
    assert_eq!(admin.post(&maps("conditions"), map("me")).await.code, 400);
    let configuration = format!("{GROUP}/validatingwebhookconfigurations/conditions");
    let fails = hook(server, "conditions", "c", "/never", json!({"matchConditions": [{"name": "fails", "expression": "object.nope.field == 1"}]}));
    assert_eq!(merge(admin, &configuration, json!({"webhooks": [fails]})).await.code, 200);
    let refused = admin.post(&maps("conditions"), map("me")).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
    assert!(
        refused.message().starts_with("configmaps \"me\" is forbidden: expression 'object.nope.field == 1' resulted in error: "),
        "{}",
        refused.body
    );
    let wrong = hook(server, "conditions", "c", "/never", json!({"matchConditions": [{"name": "wrong", "expression": "object.x +"}]}));
    let refused = merge(admin, &configuration, json!({"webhooks": [wrong]})).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message().contains("webhooks[0].matchConditions[0].expression: Invalid value: \"object.x +\": compilation failed"),
        "{}",
        refused.body
    );
    let selected = hook(server, "conditions", "c", "/never", json!({"objectSelector": {"matchLabels": {"look": "here"}}}));
    assert_eq!(merge(admin, &configuration, json!({"webhooks": [selected]})).await.code, 200);
    made(admin, &maps("conditions"), map("unlabelled")).await;
    let labelled = json!({"metadata": {"name": "labelled", "labels": {"look": "here"}}});
    assert_eq!(admin.post(&maps("conditions"), labelled).await.code, 400);
}

/// A rule that names one version is also about another, and is shown the one that it names.
async fn versions(admin: &mut Peer, server: &Server) {
    let schema =
        json!({"openAPIV3Schema": {"type": "object", "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}}}});
    let definition = json!({"metadata": {"name": "foos.hook.example.com"}, "spec": {"group": "hook.example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema}, {"name": "v2", "served": true, "storage": false, "schema": schema}]}});
    made(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let mut events = admin.watch("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?watch=true").await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            break;
        }
    }
    let rules = json!({"rules": [{"apiGroups": ["hook.example.com"], "apiVersions": ["v1"], "resources": ["foos"], "operations": ["CREATE"]}]});
    configured(admin, "mutating", "versions", json!([hook(server, "versions", "v", "/mutate", rules.clone())])).await;
    let foos = "/apis/hook.example.com/v2/namespaces/versions/foos";
    let stored = made(admin, foos, json!({"apiVersion": "hook.example.com/v2", "kind": "Foo", "metadata": {"name": "a"}, "data": {}})).await;
    assert_eq!((&stored["apiVersion"], &stored["data"]), (&json!("hook.example.com/v2"), &json!({"mutated": "CREATE"})));
    assert_eq!(stored["pruned"], Value::Null, "what the schema does not know a webhook cannot add");
    let asked = server.last("/mutate", "a");
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!((&asked["resource"]["version"], &asked["object"]["apiVersion"]), (&json!("v1"), &json!("hook.example.com/v1")));
    // A built-in kind in two versions, of which one is stored.
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
    for (version, path) in [("v1", "/allow/older-form"), ("v2", "/allow/newer-form")] {
        let about = json!({"rules": [{"apiGroups": ["autoscaling"], "apiVersions": [version], "resources": ["horizontalpodautoscalers"], "operations": ["CREATE"]}]});
        let name = format!("form-{version}");
        configured(admin, "validating", &name, json!([hook(server, &name, "f", path, about)])).await;
        made(admin, &format!("/apis/autoscaling/v1/namespaces/{name}/horizontalpodautoscalers"), scaler.clone()).await;
        let asked = server.last(path, "h");
        assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!(version), &json!("v1")));
        assert_eq!(asked["object"]["apiVersion"], format!("autoscaling/{version}"));
        assert_eq!(asked["object"]["spec"]["targetCPUUtilizationPercentage"] == 50, version == "v1", "{}", asked["object"]);
    }
    let mut exact = rules;
    exact["matchPolicy"] = json!("Exact");
    let configuration = format!("{GROUP}/mutatingwebhookconfigurations/versions");
    assert_eq!(merge(admin, &configuration, json!({"webhooks": [hook(server, "versions", "v", "/mutate", exact)]})).await.code, 200);
    let stored = made(admin, foos, json!({"apiVersion": "hook.example.com/v2", "kind": "Foo", "metadata": {"name": "b"}, "data": {}})).await;
    assert_eq!(stored["data"], json!({}));
}

/// A webhook that is a Service of the cluster.
async fn services(admin: &mut Peer, server: &Server) {
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    made(admin, "/api/v1/namespaces/default/services", service).await;
    let mut configured_hook = hook(server, "services", "s", "/", json!({}));
    configured_hook["clientConfig"] = json!({"service": {"namespace": "default", "name": "hook", "path": "/deny"}, "caBundle": server.bundle()});
    configured(admin, "validating", "services", json!([configured_hook])).await;
    let refused = admin.post(&maps("services"), map("denied")).await;
    assert_eq!(refused.code, 500, "{}", refused.body);
    assert!(
        refused.message().contains("Post \"https://hook.default.svc:443/deny?timeout=10s\": no endpoints available for service"),
        "{}",
        refused.message()
    );
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [server.address().ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": server.address().port()}]});
    let answer = admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    // Loopback addresses are no endpoints; the server has another one where the host has one.
    if !server.address().ip().is_loopback() {
        assert_eq!(answer.code, 201, "{}", answer.body);
        assert_eq!(admin.post(&maps("services"), map("denied")).await.code, 403);
    }
}

/// Configurations can always be taken away.
async fn exempt(admin: &mut Peer, server: &Server) {
    let everything = json!({"namespaceSelector": {}, "rules": [{"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}]});
    configured(admin, "validating", "exempt", json!([hook(server, "exempt", "x", "/never", everything.clone())])).await;
    made(
        admin,
        &format!("{GROUP}/mutatingwebhookconfigurations"),
        json!({"metadata": {"name": "exempt"}, "webhooks": [hook(server, "exempt", "x", "/never", everything)]}),
    )
    .await;
    let before = server.count("/never");
    for kind in ["mutating", "validating"] {
        let path = format!("{GROUP}/{kind}webhookconfigurations/exempt");
        assert_eq!(merge(admin, &path, json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
        assert_eq!(delete(admin, &path).await.code, 200);
    }
    assert_eq!(server.count("/never"), before);
}
