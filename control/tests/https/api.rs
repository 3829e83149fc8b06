//! The API as clients see it: a whole control plane in this process, real TLS, HTTP/2 and HTTP/1.1. One cluster for all cases.

use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};
use std::time::Duration;

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn namespace(peer: &mut Peer, name: &str) {
    let made = peer.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    writes(&mut admin).await;
    patches(&mut admin).await;
    deletes(&mut admin).await;
    lists(&mut admin).await;
    shapes(&mut admin).await;
    watches(&cluster, &mut admin).await;
    subresources(&mut admin).await;
    refusals(&cluster, &mut admin).await;
    bad_input(&mut admin).await;
    discovery(&mut admin).await;
    races(&cluster).await;
    many_watches(&cluster).await;
    crate::sockets::all(&cluster).await;
    crate::wire::all(&cluster).await;
    drop(admin);
    restart(cluster).await;
}

/// Everything is there again, and a watch goes on where it was: with what it missed, or with a 410.
async fn restart(cluster: Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "restart").await;
    let path = "/api/v1/namespaces/restart/secrets";
    let before = admin.post(path, json!({"metadata": {"name": "a"}})).await.body;
    let after = admin.post(path, json!({"metadata": {"name": "b"}})).await.body;
    drop(admin);
    let cluster = cluster.restart().await;
    let mut admin = cluster.admin().await;
    assert_eq!(admin.get(&format!("{path}/a")).await.body, before);
    let list = admin.get(path).await;
    assert_eq!(names(&list.body), ["a", "b"]);
    let revision = before["metadata"]["resourceVersion"].as_str().expect("a revision");
    let mut events = admin.watch(&format!("{path}?watch=true&resourceVersion={revision}&timeoutSeconds=30")).await;
    let event = events.next().await.expect("an event");
    match event["type"].as_str() {
        Some("ADDED") => assert_eq!(event["object"], after),
        _ => assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)), "{event}"),
    }
}

async fn writes(admin: &mut Peer) {
    namespace(admin, "writes").await;
    let path = "/api/v1/namespaces/writes/configmaps";
    let made = admin.post(path, map("a")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["metadata"]["namespace"], "writes");
    assert!(made.body["metadata"]["uid"].is_string() && made.body["metadata"]["creationTimestamp"].is_string());
    let again = admin.post(path, map("a")).await;
    assert_eq!((again.code, again.reason()), (409, "AlreadyExists"));
    assert_eq!(again.body["message"], "configmaps \"a\" already exists");
    assert_eq!(again.body["details"], json!({"name": "a", "kind": "configmaps"}));

    let generated = admin.post(path, json!({"metadata": {"generateName": "g-"}})).await;
    let name = generated.body["metadata"]["name"].as_str().expect("a name");
    assert!(name.len() == 7 && name.starts_with("g-"), "{name}");

    let mut changed = made.body.clone();
    changed["data"]["k"] = "w".into();
    let put = admin.send("PUT", &format!("{path}/a"), "application/json", changed.to_string()).await;
    assert_eq!(put.code, 200, "{}", put.body);
    assert_ne!(put.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let stale = admin.send("PUT", &format!("{path}/a"), "application/json", changed.to_string()).await;
    assert_eq!((stale.code, stale.reason()), (409, "Conflict"));
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = admin.send("PUT", &format!("{path}/a"), "application/json", put.body.to_string()).await;
    assert_eq!(same.body, put.body, "a write that changes nothing is none");

    let dry = admin.post(&format!("{path}?dryRun=All"), map("dry")).await;
    assert_eq!((dry.code, dry.body["metadata"]["name"].as_str()), (201, Some("dry")));
    assert_eq!(admin.get(&format!("{path}/dry")).await.code, 404);

    let yaml = admin.send("POST", path, "application/yaml", "metadata: {name: yaml}\ndata: {k: v}\n".into()).await;
    assert_eq!(yaml.code, 201, "{}", yaml.body);

    let unknown = json!({"metadata": {"name": "warned"}, "dta": {}});
    let strict = admin.post(&format!("{path}?fieldValidation=Strict"), unknown.clone()).await;
    assert_eq!(strict.code, 400);
    assert!(strict.message().contains("unknown field \"dta\""), "{}", strict.body);
    let warned = admin.post(path, unknown).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.header("warning"), "299 - \"unknown field \\\"dta\\\"\"");

    let elsewhere = admin.post(path, json!({"metadata": {"name": "x", "namespace": "other"}})).await;
    assert_eq!(elsewhere.code, 400, "{}", elsewhere.body);
    let nowhere = admin.post("/api/v1/namespaces/nowhere/configmaps", map("x")).await;
    assert_eq!((nowhere.code, nowhere.message()), (404, "namespaces \"nowhere\" not found"));
}

async fn patches(admin: &mut Peer) {
    namespace(admin, "patches").await;
    let path = "/api/v1/namespaces/patches/configmaps/a";
    admin.post("/api/v1/namespaces/patches/configmaps", map("a")).await;
    let patch = |kind: &str| format!("application/{kind}+json");
    let merged = admin.send("PATCH", path, &patch("merge-patch"), json!({"data": {"k": null, "l": "1"}}).to_string()).await;
    assert_eq!((merged.code, &merged.body["data"]), (200, &json!({"l": "1"})));
    let ops = json!([{"op": "add", "path": "/data/m", "value": "2"}]);
    let patched = admin.send("PATCH", path, &patch("json-patch"), ops.to_string()).await;
    assert_eq!(patched.body["data"], json!({"l": "1", "m": "2"}));
    let absent = json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "add", "path": "/metadata/finalizers", "value": []}]);
    let absent = admin.send("PATCH", path, &patch("json-patch"), absent.to_string()).await;
    assert_eq!(absent.code, 200, "what is not there tests as null: {}", absent.body);
    for (place, expected) in [("/data/l", "null"), ("/nothing/l", "null"), ("/data/n", "1")] {
        let ops = format!(r#"[{{"op": "test", "path": "{place}", "value": {expected}}}]"#);
        let refused = admin.send("PATCH", path, &patch("json-patch"), ops).await;
        assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{place} is not {expected}");
    }
    let strategic = admin.send("PATCH", path, &patch("strategic-merge-patch"), json!({"data": {"m": null}}).to_string()).await;
    assert_eq!(strategic.body["data"], json!({"l": "1"}));
    let nothing = admin.send("PATCH", path, &patch("merge-patch"), json!({"data": {"l": "1"}}).to_string()).await;
    assert_eq!(nothing.body["metadata"]["resourceVersion"], strategic.body["metadata"]["resourceVersion"]);
    let uid = admin.send("PATCH", path, &patch("merge-patch"), json!({"metadata": {"uid": "other"}}).to_string()).await;
    assert_eq!((uid.code, uid.reason()), (409, "Conflict"), "{}", uid.body);
    for kind in ["merge-patch", "json-patch", "strategic-merge-patch"] {
        let nothing = admin.send("PATCH", &format!("{path}-not-there"), &patch(kind), "{".into()).await;
        assert_eq!((nothing.code, nothing.reason()), (404, "NotFound"), "{kind}: {}", nothing.body);
        assert_eq!(admin.send("PATCH", path, &patch(kind), "{".into()).await.code, 400, "{kind}");
    }
    for (kind, shown) in [("strategic-merge-patch", "map[data:map[l:[1]]]"), ("merge-patch", r#"{\"apiVersion\":\"v1\",\"data\":{\"l\":[1]},"#)] {
        let refused = admin.send("PATCH", path, &patch(kind), json!({"data": {"l": [1]}}).to_string()).await;
        let begins = format!(" \"\" is invalid: patch: Invalid value: \"{shown}");
        assert!(refused.code == 422 && refused.message().starts_with(&begins), "{kind}: {}", refused.body);
    }
    let renamed = admin.send("PATCH", path, &patch("merge-patch"), json!({"metadata": {"name": "b"}}).to_string()).await;
    assert_eq!(renamed.code, 400, "{}", renamed.body);
    let many: Vec<Value> = (0..=10_000).map(|_| json!({"op": "test", "path": "/data/l", "value": "1"})).collect();
    let refused = admin.send("PATCH", path, &patch("json-patch"), Value::Array(many).to_string()).await;
    assert_eq!((refused.code, refused.reason()), (413, "RequestEntityTooLarge"), "{}", refused.body);
}

async fn deletes(admin: &mut Peer) {
    namespace(admin, "deletes").await;
    let path = "/api/v1/namespaces/deletes/configmaps";
    let made = admin.post(path, map("a")).await;
    let other = json!({"preconditions": {"uid": "other"}});
    let refused = admin.send("DELETE", &format!("{path}/a"), "application/json", other.to_string()).await;
    assert_eq!((refused.code, refused.reason()), (409, "Conflict"), "{}", refused.body);
    let uid = made.body["metadata"]["uid"].as_str().expect("a uid");
    let words =
        format!("Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in precondition: other, UID in object meta: {uid}");
    assert_eq!(refused.message(), words);
    let changed = admin.send("PATCH", &format!("{path}/a"), "application/merge-patch+json", json!({"data": {"k": "changed"}}).to_string()).await;
    let revision = |answer: &Answer| answer.body["metadata"]["resourceVersion"].as_str().expect("a revision").to_string();
    let (old, new) = (revision(&made), revision(&changed));
    let stale = json!({"preconditions": {"uid": uid, "resourceVersion": old}});
    let refused = admin.send("DELETE", &format!("{path}/a"), "application/json", stale.to_string()).await;
    let words = format!(
        "Operation cannot be fulfilled on configmaps \"a\": Precondition failed: ResourceVersion in precondition: {old}, ResourceVersion in object meta: {new}"
    );
    assert_eq!((refused.code, refused.reason(), refused.message()), (409, "Conflict", words.as_str()));
    let right = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid, "resourceVersion": new}});
    let gone = admin.send("DELETE", &format!("{path}/a"), "application/json", right.to_string()).await;
    assert_eq!((gone.code, gone.body["status"].as_str()), (200, Some("Success")));
    assert_eq!(admin.get(&format!("{path}/a")).await.code, 404);

    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(path, held).await;
    let marked = admin.send("DELETE", &format!("{path}/held"), "application/json", String::new()).await;
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string(), "{}", marked.body);
    let added = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let refused = admin.send("PATCH", &format!("{path}/held"), "application/merge-patch+json", added.to_string()).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
    let freed =
        admin.send("PATCH", &format!("{path}/held"), "application/merge-patch+json", json!({"metadata": {"finalizers": null}}).to_string()).await;
    assert_eq!(freed.code, 200, "{}", freed.body);
    assert_eq!(admin.get(&format!("{path}/held")).await.code, 404);

    admin.post(path, map("o")).await;
    let bad = admin.send("DELETE", &format!("{path}/o?propagationPolicy=Sideways"), "application/json", String::new()).await;
    let why = "Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
    let cause = json!({"field": "propagationPolicy", "reason": "FieldValueNotSupported", "message": why});
    assert_eq!((bad.code, bad.reason(), &bad.body["details"]["causes"]), (422, "Invalid", &json!([cause])));

    for name in ["v", "w", "x", "y", "z"] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"in": if name == "z" { "no" } else { "yes" }});
        admin.post(path, object).await;
    }
    // As upstream does, a collection that is deleted is listed as it was, and a limit is one.
    let some = admin.send("DELETE", &format!("{path}?labelSelector=in%3Dyes&limit=2"), "application/json", String::new()).await;
    assert_eq!((some.code, names(&some.body)), (200, vec!["v", "w"]), "{}", some.body);
    assert!(some.body["metadata"]["continue"].is_string(), "{}", some.body);
    let all = admin.send("DELETE", &format!("{path}?labelSelector=in%3Dyes"), "application/json", String::new()).await;
    assert_eq!((all.code, &all.body["kind"], names(&all.body)), (200, &json!("ConfigMapList"), vec!["x", "y"]), "{}", all.body);
    let left = admin.get(&format!("{path}?labelSelector=in")).await;
    assert_eq!(names(&left.body), ["z"]);
}

async fn lists(admin: &mut Peer) {
    namespace(admin, "lists").await;
    let path = "/api/v1/namespaces/lists/secrets";
    for at in 0..5 {
        let secret = json!({"metadata": {"name": format!("s{at}"), "labels": {"odd": (at % 2 == 1).to_string()}}, "type": if at == 0 { "kind/zero" } else { "Opaque" }});
        assert_eq!(admin.post(path, secret).await.code, 201);
    }
    let first = admin.get(&format!("{path}?limit=2")).await;
    assert_eq!(names(&first.body), ["s0", "s1"]);
    assert_eq!(first.body["kind"], "SecretList");
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    admin.post(path, json!({"metadata": {"name": "s11"}})).await;
    let next = first.body["metadata"]["continue"].as_str().expect("a token").to_string();
    let second = admin.get(&format!("{path}?limit=2&continue={next}")).await;
    assert_eq!(names(&second.body), ["s2", "s3"], "a page is of the first one's revision");
    assert_eq!(second.body["metadata"]["resourceVersion"], first.body["metadata"]["resourceVersion"]);
    let next = second.body["metadata"]["continue"].as_str().expect("a token").to_string();
    let last = admin.get(&format!("{path}?limit=2&continue={next}")).await;
    assert_eq!(names(&last.body), ["s4"]);
    assert!(last.body["metadata"].get("continue").is_none());

    let revision = first.body["metadata"]["resourceVersion"].as_str().expect("a revision");
    let exact = admin.get(&format!("{path}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact.body).len(), 5);
    let future = admin.get(&format!("{path}?resourceVersion=99999999")).await;
    assert_eq!((future.code, future.reason()), (504, "Timeout"), "{}", future.body);

    assert_eq!(names(&admin.get(&format!("{path}?labelSelector=odd%3Dtrue")).await.body), ["s1", "s3"]);
    assert_eq!(names(&admin.get(&format!("{path}?labelSelector=!odd")).await.body), ["s11"]);
    assert_eq!(names(&admin.get(&format!("{path}?fieldSelector=type%3Dkind/zero")).await.body), ["s0"]);
    assert_eq!(names(&admin.get(&format!("{path}?fieldSelector=metadata.name%3Ds2")).await.body), ["s2"]);
    assert_eq!(
        names(&admin.get("/api/v1/secrets?labelSelector=odd%3Dfalse&fieldSelector=metadata.namespace%3Dlists").await.body),
        ["s0", "s2", "s4"]
    );
}

async fn shapes(admin: &mut Peer) {
    namespace(admin, "shapes").await;
    let path = "/api/v1/namespaces/shapes/configmaps";
    admin.post(path, map("a")).await;
    let table = admin.accept(&format!("{path}?fieldSelector=metadata.name%3Da"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table.body["kind"], "Table");
    let headings: Vec<&str> = table.body["columnDefinitions"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(headings, ["Name", "Data", "Age"]);
    let row = &table.body["rows"][0];
    assert_eq!((&row["cells"][0], &row["cells"][1]), (&json!("a"), &json!(1)));
    assert!(row["cells"][2].as_str().is_some_and(|age| age.ends_with('s')), "{row}");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    let partial = admin.accept(path, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(partial.body["kind"], "PartialObjectMetadataList");
    assert!(partial.body["items"][0].get("data").is_none());
    let beta = admin.accept(&format!("{path}/a"), "application/json;as=Table;v=v1beta1;g=meta.k8s.io").await;
    assert_eq!(
        (&beta.body["apiVersion"], &beta.body["rows"][0]["object"]["apiVersion"]),
        (&json!("meta.k8s.io/v1beta1"), &json!("meta.k8s.io/v1beta1"))
    );
    let bare = admin.accept(&format!("{path}/a?includeObject=None"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(bare.body["rows"][0]["object"], Value::Null);
    let wrong = admin.accept(&format!("{path}/a?includeObject=Half"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(wrong.code, 400, "{}", wrong.body);
    // A list is no object and the other way round.
    for (path, name) in [(path.to_string(), "PartialObjectMetadata"), (format!("{path}/a"), "PartialObjectMetadataList")] {
        let refused = admin.accept(&path, &format!("application/json;as={name};v=v1;g=meta.k8s.io")).await;
        assert_eq!((refused.code, refused.reason()), (406, "NotAcceptable"), "{path} as {name}: {}", refused.body);
    }
    let only = admin.accept(path, "text/html").await;
    assert_eq!((only.code, only.reason()), (406, "NotAcceptable"));
    // Reviews are no tables, and what a dry run would have made is one.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let review = admin.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", table, review).await;
    assert_eq!((review.code, review.reason()), (406, "NotAcceptable"));
    let dry = admin.ask("POST", &format!("{path}?dryRun=All"), "application/json", table, map("dry").to_string()).await;
    assert_eq!((dry.code, &dry.body["kind"], &dry.body["rows"][0]["cells"][0]), (201, &json!("Table"), &json!("dry")));
    let yaml = admin.text(&format!("{path}/a"), "application/yaml").await;
    assert!(yaml.contains("kind: ConfigMap"), "{yaml}");
}

async fn watches(cluster: &Cluster, admin: &mut Peer) {
    namespace(admin, "watches").await;
    let path = "/api/v1/namespaces/watches/secrets";
    let list = admin.get(path).await;
    let revision = list.body["metadata"]["resourceVersion"].as_str().expect("a revision").to_string();
    let mut watcher = cluster.admin().await;
    let mut events = watcher.watch(&format!("{path}?watch=true&resourceVersion={revision}&labelSelector=on%3Dyes&timeoutSeconds=60")).await;
    let secret = |on: &str| json!({"metadata": {"name": "s", "labels": {"on": on}}});
    admin.post(path, secret("no")).await;
    for on in ["yes", "yes2", "yes"] {
        admin.send("PATCH", &format!("{path}/s"), "application/merge-patch+json", secret(on).to_string()).await;
    }
    admin.send("DELETE", &format!("{path}/s"), "application/json", String::new()).await;
    let mut revisions = Vec::new();
    for expected in ["ADDED", "DELETED", "ADDED", "DELETED"] {
        let event = events.next().await.expect("an event");
        assert_eq!(event["type"], expected, "{event}");
        revisions.push(event["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a revision"));
    }
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");

    admin.post(path, secret("x")).await;
    let mut initial = watcher
        .watch(&format!("{path}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"))
        .await;
    assert_eq!(initial.next().await.expect("the object")["type"], "ADDED");
    let bookmark = initial.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(initial.next().await.expect("a bookmark before the end")["type"], "BOOKMARK");
    assert!(initial.next().await.is_none(), "timeoutSeconds ends it");

    let mut future = watcher.watch(&format!("{path}?watch=true&resourceVersion=99999999")).await;
    let error = future.next().await.expect("an error");
    assert_eq!((error["type"].as_str(), error["object"]["code"].as_u64()), (Some("ERROR"), Some(504)), "{error}");
    assert!(future.next().await.is_none());
}

async fn subresources(admin: &mut Peer) {
    namespace(admin, "subs").await;
    let path = "/apis/apps/v1/namespaces/subs/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "status": {"replicas": 7}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = admin.post(path, deployment).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body["status"], json!({}), "the status is not the client's on create, but it is there");
    let status = json!({"spec": {"replicas": 9}, "status": {"collisionCount": 3}});
    let written = admin.send("PATCH", &format!("{path}/d/status"), "application/merge-patch+json", status.to_string()).await;
    assert_eq!((written.code, written.body["spec"]["replicas"].as_u64()), (200, Some(0)), "{}", written.body);
    assert_eq!(written.body["status"]["collisionCount"], 3);
    assert_eq!(written.body["metadata"]["generation"], 1);
    let scale = admin.get(&format!("{path}/d/scale")).await;
    assert_eq!((&scale.body["kind"], &scale.body["spec"]["replicas"]), (&json!("Scale"), &json!(0)));
    let scaled = admin.send("PATCH", &format!("{path}/d/scale"), "application/merge-patch+json", json!({"spec": {"replicas": 2}}).to_string()).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(2)), "{}", scaled.body);
    let now = admin.get(&format!("{path}/d")).await;
    assert_eq!((&now.body["spec"]["replicas"], &now.body["metadata"]["generation"]), (&json!(2), &json!(2)));
    let token = admin.post("/api/v1/namespaces/subs/serviceaccounts/default/token", json!({"spec": {}})).await;
    assert_eq!(token.code, 201, "the default account is there at once: {}", token.body);
    assert!(token.body["status"]["token"].is_string());
    assert_eq!(admin.get(&format!("{path}/d/nothing")).await.code, 404);

    // Who asks for the headers alone is told them, and of how long the rest would be.
    for (path, code) in [("/api/v1/namespaces/subs", 200), ("/readyz", 200), ("/api/v1/namespaces/none", 404)] {
        let head = admin.raw("HEAD", path, "", "", "").await;
        let length = head.headers().get("content-length").and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u32>().ok());
        assert!(head.status() == code && length.is_some_and(|length| length > 1), "{path}: {head:?}");
        assert!(http_body_util::BodyExt::collect(head.into_body()).await.expect("no body breaks the stream").to_bytes().is_empty());
    }

    // The older way to bind a pod: it is named in the body.
    let pods = "/api/v1/namespaces/subs/pods";
    let pod = json!({"metadata": {"name": "waits"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(admin.post(pods, pod).await.code, 201);
    let binding = |name: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    let bindings = "/api/v1/namespaces/subs/bindings";
    let bound = admin.post(bindings, binding("waits")).await;
    assert_eq!((bound.code, &bound.body["status"]), (201, &json!("Success")), "{}", bound.body);
    assert_eq!(admin.get(&format!("{pods}/waits")).await.body["spec"]["nodeName"], "n1");
    for (name, code, why) in [
        ("waits", 409, "Operation cannot be fulfilled on pods/binding \"waits\": pod waits is already assigned to node \"n1\""),
        ("none", 404, "pods \"none\" not found"),
        ("", 400, "Name parameter required."),
    ] {
        let refused = admin.post(bindings, binding(name)).await;
        assert_eq!((refused.code, refused.message()), (code, why), "{}", refused.body);
    }
    assert_eq!(admin.get(bindings).await.code, 405);
}

async fn refusals(cluster: &Cluster, admin: &mut Peer) {
    let token = admin.post("/api/v1/namespaces/subs/serviceaccounts/default/token", json!({"spec": {}})).await.body["status"]["token"].clone();
    let token = token.as_str().expect("a token").to_string();
    let mut account = cluster.nobody().await;
    account.bearer = Some(token);
    let refused = account.get("/api/v1/namespaces/default/pods").await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"));
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"system:serviceaccount:subs:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(account.get("/apis/unknown.example/v1/things").await.code, 403, "who may not ask does not learn that it does not exist");
    assert_eq!(admin.get("/apis/unknown.example/v1/things").await.code, 404);
    let who = account.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "system:serviceaccount:subs:default");
    account.bearer = Some("nonsense".into());
    assert_eq!(account.get("/api").await.code, 401);

    let mut anonymous = cluster.nobody().await;
    assert_eq!(anonymous.get("/version").await.body["minor"], "36");
    assert_eq!(anonymous.text("/readyz", "*/*").await, "ok");
    assert_eq!(anonymous.get("/api/v1/pods").await.code, 403);
    let mut stranger = cluster.stranger().await;
    assert_eq!((stranger.get("/api/v1/pods").await.code, stranger.get("/api/v1/pods").await.reason()), (401, "Unauthorized"));

    let mut boss = cluster.admin().await;
    boss.headers.push(("impersonate-user".into(), "jane".into()));
    let jane = boss.get("/api/v1/namespaces").await;
    assert!(jane.message().contains("User \"jane\" cannot list resource \"namespaces\""), "{}", jane.body);
}

async fn bad_input(admin: &mut Peer) {
    let path = "/api/v1/namespaces/default/configmaps";
    let large = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(3 << 20)}});
    let refused = admin.post(path, large).await;
    assert_eq!((refused.code, refused.reason()), (413, "RequestEntityTooLarge"), "{}", refused.body);
    for (kind, body, code) in [
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", "", 400),
        ("application/json", "{\"kind\":\"Secret\"}", 400),
        ("application/json", "{\"apiVersion\":\"v2\"}", 400),
        ("application/json", "{\"metadata\":{\"name\":\"A_\"}}", 422),
        ("application/json", "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":1}}", 400),
        ("application/json", "{}", 422),
        ("text/html", "{}", 415),
        ("application/yaml", "metadata: {name: a", 400),
        ("application/yaml", "metadata: {name: A_}", 422),
        ("application/vnd.kubernetes.protobuf", "k8s", 400),
    ] {
        let answer = admin.send("POST", path, kind, body.into()).await;
        assert_eq!(answer.code, code, "{body}: {}", answer.body);
        assert_eq!(answer.body["kind"], "Status", "{body}");
    }
    let html = admin.send("POST", path, "text/html", "{}".into()).await;
    assert_eq!(
        html.message(),
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let twice = "metadata: {name: twice}\ndata:\n  a: \"1\"\n  a: \"2\"\ndta: {}\n";
    let strict = admin.send("POST", &format!("{path}?fieldValidation=Strict"), "application/yaml", twice.into()).await;
    let why = "strict decoding error: yaml: unmarshal errors:\n  line 4: key \"a\" already set in map, unknown field \"dta\"";
    assert!(strict.code == 400 && strict.message().ends_with(why), "{}", strict.body);
    let warned = admin.send("POST", &format!("{path}?dryRun=All"), "application/yaml", twice.into()).await;
    assert_eq!((warned.code, &warned.body["data"]["a"]), (201, &json!("2")));
    let deep = format!("{{\"metadata\":{{\"name\":\"deep\",\"annotations\":{}1{}}}}}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(admin.send("POST", path, "application/json", deep).await.code, 400);
    let unmatched = admin.get(&format!("{path}?resourceVersionMatch=Exact")).await;
    assert_eq!((unmatched.code, unmatched.reason()), (422, "Invalid"), "{}", unmatched.body);
    for query in
        ["labelSelector=a%20b", "labelSelector=%3D", "fieldSelector=spec.x%3Dy", "limit=x", "resourceVersion=x", "continue=x", "timeout=invalid"]
    {
        let answer = admin.get(&format!("{path}?{query}")).await;
        assert_eq!((answer.code, answer.reason()), (400, "BadRequest"), "{query}: {}", answer.body);
    }
    for (name, why) in [("..", "\"..\": may not be '..'"), ("%2F", "\"/\": may not contain '/'"), ("a%25b", "\"a%b\": may not contain '%'")] {
        let answer = admin.get(&format!("{path}/{name}")).await;
        assert_eq!((answer.code, answer.message()), (400, &*format!("Name parameter invalid: {why}")), "{}", answer.body);
    }
    let absurd = format!("labelSelector={}", vec!["a%3Db"; 5_000].join(","));
    assert_eq!(admin.get(&format!("{path}?{absurd}")).await.code, 400);
    assert_eq!(admin.get("/api/v1/%zz").await.code, 400);
    for query in ["watch=%ff", "dryRun=%", "fieldSelector=%4"] {
        let answer = admin.get(&format!("{path}?{query}")).await;
        assert_eq!((answer.code, answer.reason()), (400, "BadRequest"), "{query} is not left out: {}", answer.body);
    }
    assert_eq!(admin.send("TRACE", path, "", String::new()).await.code, 405);
    assert_eq!(admin.send("DELETE", "/api/v1/namespaces", "application/json", String::new()).await.code, 405);
}

async fn discovery(admin: &mut Peer) {
    let groups = admin.get("/apis").await;
    assert!(groups.body["groups"].as_array().is_some_and(|list| list.iter().any(|g| g["name"] == "apps")));
    let apps = admin.get("/apis/apps/v1").await;
    assert!(apps.body["resources"].as_array().is_some_and(|list| list.iter().any(|r| r["name"] == "deployments/scale")));
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = admin.accept("/apis", media).await;
    assert_eq!(aggregated.body["kind"], "APIGroupDiscoveryList");
    admin.headers.push(("if-none-match".into(), aggregated.header("etag").into()));
    assert_eq!(admin.accept("/apis", media).await.code, 304);
    admin.headers.clear();
    let index = admin.get("/openapi/v3").await;
    let url = index.body["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a document").to_string();
    let document = admin.get(&url).await;
    assert!(document.body["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert_eq!(admin.get("/openapi/v3/apis/none/v1").await.code, 404);
    assert!(admin.get("/openid/v1/jwks").await.body["keys"].is_array());
}

/// Many clients change one object at once: every patch holds, none is lost.
async fn races(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "races").await;
    admin.post("/api/v1/namespaces/races/configmaps", map("a")).await;
    let clients: Vec<_> = (0..8)
        .map(|client| async move {
            let mut peer = cluster.admin().await;
            for at in 0..10 {
                let patch = json!({"data": {format!("c{client}-{at}"): "1"}}).to_string();
                let answer: Answer = peer.send("PATCH", "/api/v1/namespaces/races/configmaps/a", "application/merge-patch+json", patch).await;
                assert_eq!(answer.code, 200, "{}", answer.body);
            }
        })
        .collect();
    tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(clients)).await.expect("no patch hangs");
    let data = admin.get("/api/v1/namespaces/races/configmaps/a").await.body["data"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(data, 81);
}

/// One connection carries as many streams as a busy controller manager opens, and every watch is told.
async fn many_watches(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "many").await;
    let mut watcher = cluster.admin().await;
    let mut all = Vec::new();
    for _ in 0..250 {
        all.push(watcher.watch("/api/v1/namespaces/many/secrets?watch=true&resourceVersion=0&timeoutSeconds=60").await);
    }
    admin.post("/api/v1/namespaces/many/secrets", json!({"metadata": {"name": "s"}})).await;
    let told = futures::future::join_all(all.iter_mut().map(crate::cluster::Events::next)).await;
    assert!(told.iter().flatten().filter(|event| event["type"] == "ADDED" && event["object"]["metadata"]["name"] == "s").count() == 250);
}
