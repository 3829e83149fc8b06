//! The API in the encodings client libraries ask for: protobuf both ways, gzip, documents with an ETag. One cluster for all cases.

use crate::cluster::{Cluster, Peer};
use bytes::Bytes;
use coracle_schema::{FieldValidation, Schemas, protobuf};
use serde_json::{Value, json};
use std::io::Read;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What client-go's typed clients send.
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encodings() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    objects(&mut admin).await;
    lists(&mut admin).await;
    watches(&cluster, &mut admin).await;
    metadata(&mut admin).await;
    errors(&cluster, &mut admin).await;
    discovery(&mut admin).await;
    documents(&mut admin).await;
    compression(&mut admin).await;
}

/// A body in its envelope.
fn proto(value: &Value) -> Bytes {
    protobuf::of_value(value).expect("a kind with an encoding")
}

/// What an envelope holds.
fn read(group: &str, version: &str, kind: &str, bytes: &[u8]) -> Value {
    let schema = Schemas::builtin().get(group, version, kind).expect("a schema");
    schema.decode_protobuf(bytes, FieldValidation::Strict).unwrap_or_else(|status| panic!("{}: {}", status.message, bytes.escape_ascii())).0
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"serviceAccountName": "mine",
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"port": "web", "path": "/"}}, "ports": [{"name": "web", "containerPort": 80}]}],
        "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "x"}}], "defaultMode": 0}}]}})
}

async fn objects(admin: &mut Peer) {
    let path = "/api/v1/namespaces/default/pods";
    // The default one may not be there yet.
    admin.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "mine"}})).await;
    let made = admin.ask("POST", path, PROTOBUF, TYPED, proto(&pod("p"))).await;
    assert_eq!((made.code, made.header("content-type")), (201, PROTOBUF), "{}", made.bytes.escape_ascii());
    let read_back = read("", "v1", "Pod", &admin.accept(&format!("{path}/p"), TYPED).await.bytes);
    let plain = admin.get(&format!("{path}/p")).await.body;
    assert_eq!((&read_back["spec"], &read_back["metadata"]["uid"]), (&plain["spec"], &plain["metadata"]["uid"]));
    assert_eq!(plain["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"], "web");
    assert_eq!(plain["spec"]["volumes"][0]["projected"]["defaultMode"], 0, "a zero behind a pointer stays");
    assert_eq!(plain["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));

    // Update, patch and subresources answer in it, whatever the body was.
    let mut changed = plain.clone();
    changed["metadata"]["labels"]["a"] = "c".into();
    // The scheduler may have written in between.
    changed["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    let put = admin.ask("PUT", &format!("{path}/p"), PROTOBUF, PROTOBUF, proto(&changed)).await;
    assert_eq!((put.code, &read("", "v1", "Pod", &put.bytes)["metadata"]["labels"]), (200, &json!({"a": "c"})));
    let patch = json!({"metadata": {"labels": {"a": "d"}}}).to_string();
    let patched = admin.ask("PATCH", &format!("{path}/p"), "application/merge-patch+json", PROTOBUF, patch).await;
    assert_eq!((patched.code, &read("", "v1", "Pod", &patched.bytes)["metadata"]["labels"]), (200, &json!({"a": "d"})));
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}}});
    let made = admin.ask("POST", "/apis/apps/v1/namespaces/default/deployments", PROTOBUF, PROTOBUF, proto(&deployment)).await;
    assert_eq!(made.code, 201);
    let scale = admin.accept("/apis/apps/v1/namespaces/default/deployments/d/scale", PROTOBUF).await;
    let mut scale = read("autoscaling", "v1", "Scale", &scale.bytes);
    assert_eq!(scale["status"]["selector"], "a=b");
    scale["spec"]["replicas"] = 3.into();
    scale["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    let scaled = admin.ask("PUT", "/apis/apps/v1/namespaces/default/deployments/d/scale", PROTOBUF, PROTOBUF, proto(&scale)).await;
    assert_eq!(read("autoscaling", "v1", "Scale", &scaled.bytes)["spec"]["replicas"], 3);

    // Reviews, which nobody stores.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "jane", "extra": {"k": ["a", "b"]},
        "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let asked = admin.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", PROTOBUF, PROTOBUF, proto(&review)).await;
    let answer = read("authorization.k8s.io", "v1", "SubjectAccessReview", &asked.bytes);
    assert_eq!((asked.code, &answer["spec"]["extra"], &answer["status"]["allowed"]), (201, &json!({"k": ["a", "b"]}), &json!(false)));

    // Options of a delete, and its answer.
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "another"}});
    let refused = admin.ask("DELETE", &format!("{path}/p"), PROTOBUF, PROTOBUF, proto(&options)).await;
    assert_eq!((refused.code, &read("", "v1", "Status", &refused.bytes)["reason"]), (409, &json!("Conflict")));
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let gone = admin.ask("DELETE", &format!("{path}/p"), PROTOBUF, PROTOBUF, proto(&options)).await;
    assert_eq!(gone.code, 200);
}

async fn lists(admin: &mut Peer) {
    let path = "/api/v1/namespaces/default/secrets";
    for at in 0..7 {
        let secret = json!({"metadata": {"name": format!("s{at}")}, "data": {"k": "AAEC/w=="}});
        assert_eq!(admin.post(path, secret).await.code, 201);
    }
    for query in ["", "?limit=3", "?labelSelector=none"] {
        let plain = admin.get(&format!("{path}{query}")).await.body;
        let answer = admin.accept(&format!("{path}{query}"), TYPED).await;
        assert_eq!(answer.header("content-type"), PROTOBUF);
        let mut list = read("", "v1", "SecretList", &answer.bytes);
        // Within a list the items do not name their kind.
        let mut expected = plain.clone();
        for item in expected["items"].as_array_mut().expect("items") {
            item.as_object_mut().expect("an object").retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
        }
        if list["items"].is_null() {
            list["items"] = json!([]);
        }
        for metadata in [&mut list, &mut expected].map(|list| &mut list["metadata"]) {
            metadata.as_object_mut().expect("metadata").remove("continue");
        }
        assert_eq!(list, expected, "{query}");
    }
    // Larger than what goes out at once.
    let large = "x".repeat(50_000);
    for at in 0..5 {
        let map = json!({"metadata": {"name": format!("large{at}")}, "data": {"k": large}});
        assert_eq!(admin.post("/api/v1/namespaces/default/configmaps", map).await.code, 201);
    }
    let answer = admin.accept("/api/v1/namespaces/default/configmaps", PROTOBUF).await;
    let list = read("", "v1", "ConfigMapList", &answer.bytes);
    let sizes: Vec<usize> = list["items"].as_array().expect("items").iter().filter_map(|item| item["data"]["k"].as_str()).map(str::len).collect();
    assert_eq!(sizes, [50_000; 5]);
}

/// The word and object of a watch event in protobuf; the event itself has no envelope.
fn event(frame: &[u8]) -> (String, Bytes) {
    let (tag, length) = (frame[0], usize::from(frame[1]));
    assert_eq!(tag, 0x0a, "the type comes first");
    let word = String::from_utf8(frame[2..2 + length].to_vec()).expect("a word");
    let at = frame.windows(4).position(|four| four == protobuf::envelope::MAGIC).expect("an envelope in the event");
    (word, Bytes::copy_from_slice(&frame[at..]))
}

async fn watches(cluster: &Cluster, admin: &mut Peer) {
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let mut watcher = cluster.admin().await;
    let query = "?watch=true&fieldSelector=metadata.name!%3Ddefault&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=60";
    let stream = watcher.raw("GET", &format!("{path}{query}"), "", "application/vnd.kubernetes.protobuf;stream=watch", "").await;
    assert_eq!(stream.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    drop(stream);
    let mut events = watcher.watch_as(&format!("{path}{query}"), TYPED).await;
    let (word, object) = event(&events.next_frame().await.expect("the account that is there"));
    assert_eq!((word.as_str(), &read("", "v1", "ServiceAccount", &object)["metadata"]["name"]), ("ADDED", &json!("mine")));
    let (word, object) = event(&events.next_frame().await.expect("a bookmark"));
    let bookmark = read("", "v1", "ServiceAccount", &object);
    assert_eq!((word.as_str(), &bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
    let made = admin.post(path, json!({"metadata": {"name": "w"}})).await.body;
    let (word, object) = event(&events.next_frame().await.expect("the new account"));
    assert_eq!((word.as_str(), read("", "v1", "ServiceAccount", &object)), ("ADDED", made));
    admin.send("DELETE", &format!("{path}/w"), "", String::new()).await;
    let (word, _) = event(&events.next_frame().await.expect("its end"));
    assert_eq!(word, "DELETED");

    let mut future = watcher.watch_as(&format!("{path}?watch=true&resourceVersion=99999999"), PROTOBUF).await;
    let (word, object) = event(&future.next_frame().await.expect("an error"));
    assert_eq!((word.as_str(), &read("", "v1", "Status", &object)["code"]), ("ERROR", &json!(504)));
    let yaml = admin.accept(&format!("{path}?watch=true"), "application/yaml").await;
    assert_eq!((yaml.code, yaml.header("content-type")), (406, "application/yaml"));
}

async fn metadata(admin: &mut Peer) {
    let path = "/api/v1/namespaces/default/secrets";
    let list = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let answer = admin.accept(path, list).await;
    assert_eq!(answer.header("content-type"), PROTOBUF);
    let partial = read("meta.k8s.io", "v1", "PartialObjectMetadataList", &answer.bytes);
    let plain = admin.get(path).await.body;
    let names = |list: &Value| list["items"].as_array().expect("items").iter().map(|item| item["metadata"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&partial), names(&plain));
    assert!(partial["items"][0].get("data").is_none());
    let one = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let answer = admin.accept(&format!("{path}/s1"), one).await;
    assert_eq!(read("meta.k8s.io", "v1", "PartialObjectMetadata", &answer.bytes)["metadata"]["name"], "s1");
    let mut events = admin.watch_as(&format!("{path}?watch=true&fieldSelector=metadata.name%3Ds1&timeoutSeconds=60"), one).await;
    let (word, object) = event(&events.next_frame().await.expect("the secret"));
    let object = read("meta.k8s.io", "v1", "PartialObjectMetadata", &object);
    assert_eq!((word.as_str(), &object["metadata"]["name"]), ("ADDED", &json!("s1")));
    drop(events);
    // A table has no protobuf: the next thing in the list is sent.
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(admin.accept(path, &format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1")).await.body["kind"], "Table");
    assert_eq!(admin.accept(path, table).await.code, 406);
}

async fn errors(cluster: &Cluster, admin: &mut Peer) {
    let missing = admin.accept("/api/v1/namespaces/default/pods/none", PROTOBUF).await;
    let status = read("", "v1", "Status", &missing.bytes);
    assert_eq!((missing.code, missing.header("content-type"), &status["reason"]), (404, PROTOBUF, &json!("NotFound")));
    assert_eq!(status["details"], json!({"name": "none", "kind": "pods"}));
    let unacceptable = admin.accept("/api/v1/namespaces/default/pods", "image/png").await;
    assert_eq!((unacceptable.code, unacceptable.header("content-type"), unacceptable.reason()), (406, "application/json", "NotAcceptable"));
    assert_eq!(
        unacceptable.message(),
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let unauthorized = cluster.nobody().await.accept("/api/v1/pods", PROTOBUF).await;
    assert_eq!((unauthorized.code, &read("", "v1", "Status", &unauthorized.bytes)["reason"]), (403, &json!("Forbidden")));
    for (body, why) in [
        (&b"{}"[..], "the object provided is unrecognized (must be of type Pod): provided data does not appear to be a protobuf message"),
        (b"k8s\0", "empty body"),
        (b"k8s\0\x0a\xff", "unexpected EOF"),
    ] {
        let refused = admin.ask("POST", "/api/v1/namespaces/default/pods", PROTOBUF, "", body).await;
        assert_eq!(refused.code, 400);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    admin.headers.push(("content-encoding".into(), "gzip".into()));
    assert_eq!(admin.ask("POST", "/api/v1/namespaces/default/pods", PROTOBUF, "", &b"\x1f\x8b"[..]).await.code, 415);
    admin.headers.clear();
    let other = proto(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}));
    let refused = admin.ask("POST", "/api/v1/namespaces/default/pods", PROTOBUF, "", other).await;
    assert_eq!((refused.code, refused.reason()), (400, "BadRequest"), "{}", refused.body);
}

async fn discovery(admin: &mut Peer) {
    for (path, kind) in [("/apis", "APIGroupList"), ("/apis/apps", "APIGroup"), ("/apis/apps/v1", "APIResourceList"), ("/api", "APIVersions")] {
        let plain = admin.get(path).await.body;
        let answer = admin.accept(path, TYPED).await;
        assert_eq!((answer.code, answer.header("content-type")), (200, PROTOBUF), "{path}");
        let mut found = read("", "v1", kind, &answer.bytes);
        if plain.get("apiVersion").is_none() {
            found.as_object_mut().expect("an object").remove("apiVersion");
        }
        assert_eq!(found, plain, "{path}");
    }
    let media = "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = admin.accept("/apis", media).await;
    assert_eq!((answer.code, answer.header("content-type")), (200, media));
    assert!(answer.bytes.starts_with(protobuf::envelope::MAGIC));
    let plain = admin.accept("/apis", &media.replace("vnd.kubernetes.protobuf", "json")).await.body;
    let found = read("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList", &answer.bytes);
    let names = |list: &Value| list["items"].as_array().expect("groups").iter().map(|group| group["versions"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&plain));
}

async fn documents(admin: &mut Peer) {
    let index = admin.get("/openapi/v3").await;
    let url = index.body["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a document").to_string();
    let (path, hash) = url.split_once("?hash=").expect("a hash");
    let document = admin.get(&url).await;
    assert_eq!((document.code, document.header("cache-control"), document.header("etag")), (200, "public, immutable", &*format!("\"{hash}\"")));
    assert!(document.header("expires").ends_with("GMT"), "{}", document.header("expires"));
    let moved = admin.get(&format!("{path}?hash=0")).await;
    assert_eq!((moved.code, moved.header("location")), (301, &*url));
    let v2 = admin.get("/openapi/v2").await;
    assert!(v2.body["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    for (path, tag) in [(path, document.header("etag")), ("/openapi/v3", index.header("etag")), ("/openapi/v2", v2.header("etag"))] {
        assert!(tag.len() > 10, "{path}: {tag}");
        admin.headers.push(("if-none-match".into(), tag.into()));
        let unchanged = admin.get(path).await;
        assert_eq!((unchanged.code, unchanged.header("etag"), unchanged.bytes.len()), (304, tag, 0), "{path}");
        admin.headers.clear();
    }
    assert_eq!(admin.accept("/openapi/v3/apis/apps/v1", "text/html").await.code, 406);
}

async fn compression(admin: &mut Peer) {
    let unzipped = |bytes: &[u8]| {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
        plain
    };
    let path = "/api/v1/namespaces/default/configmaps";
    let plain = admin.get(path).await;
    assert!(plain.bytes.len() > 200_000 && plain.header("content-encoding").is_empty());
    admin.headers.push(("accept-encoding".into(), "gzip".into()));
    let zipped = admin.get(path).await;
    assert_eq!((zipped.header("content-encoding"), zipped.header("vary")), ("gzip", "Accept-Encoding"));
    assert!(zipped.bytes.len() < plain.bytes.len() / 10 && unzipped(&zipped.bytes) == plain.bytes);
    let proto = admin.accept(path, PROTOBUF).await;
    assert_eq!(proto.header("content-encoding"), "gzip");
    assert_eq!(
        read("", "v1", "ConfigMapList", &unzipped(&proto.bytes))["items"].as_array().map(Vec::len),
        plain.body["items"].as_array().map(Vec::len)
    );
    assert_eq!(admin.get(&format!("{path}/large0")).await.header("content-encoding"), "", "small answers go as they are");
    assert_eq!(admin.get("/openapi/v2").await.header("content-encoding"), "gzip");
    let mut events = admin.watch(&format!("{path}?watch=true&timeoutSeconds=60")).await;
    assert_eq!(events.next().await.expect("an event that can be read")["type"], "ADDED");
    drop(events);
    admin.headers.clear();
}
