//! Custom resources as clients see them: definitions, and objects of the kinds they make. One control plane for all cases; each case has a group of its own.

#[path = "api/cluster.rs"]
mod cluster;

use cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of `foos.GROUP` in v1 with this schema.
fn definition(group: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("foos.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo", "shortNames": ["fo"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Makes a definition and waits until it is established.
async fn define(admin: &mut Peer, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
    let made = admin.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.body);
    condition(admin, &name, "Established", "True").await
}

/// Waits until a definition has a condition; the definition.
async fn condition(admin: &mut Peer, name: &str, kind: &str, status: &str) -> Value {
    let mut events = admin.watch(&format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name={name}")).await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == kind && c["status"] == status) {
            return event["object"].clone();
        }
    }
}

fn path(group: &str) -> String {
    format!("/apis/{group}/v1/namespaces/default/foos")
}

fn foo(group: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}/v1"), "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

#[track_caller]
fn refused(answer: &Answer, code: u16, message: &str) {
    assert_eq!((answer.code, answer.message()), (code, message));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    thread(&mut admin).await;
}

/// From a definition to its objects and back to nothing.
async fn thread(admin: &mut Peer) {
    let group = "thread.example.com";
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
    }});
    assert_eq!(admin.get(&path(group)).await.code, 404);
    let defined = define(admin, definition(group, schema)).await;
    assert_eq!(defined["status"]["acceptedNames"]["listKind"], "FooList");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));

    let groups = admin.get("/apis").await.body;
    assert!(groups["groups"].as_array().expect("groups").iter().any(|g| g["name"] == group));
    let resources = admin.get(&format!("/apis/{group}/v1")).await.body;
    assert_eq!((&resources["resources"][0]["name"], &resources["resources"][0]["shortNames"]), (&json!("foos"), &json!(["fo"])));

    let mut events = admin.watch(&format!("{}?watch=true", path(group))).await;
    let made = admin.post(&path(group), foo(group, "a", json!({"size": 2, "unknown": 1, "free": {"x": {"y": 1}}}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"], json!({"size": 2, "colour": "red", "free": {"x": {"y": 1}}}));
    assert_eq!(made.header("warning"), r#"299 - "unknown field \"spec.unknown\"""#);
    assert_eq!(made.body["metadata"]["generation"], 1);
    let got = admin.get(&format!("{}/a", path(group))).await;
    assert_eq!(got.body, made.body);
    let list = admin.get(&format!("/apis/{group}/v1/foos")).await.body;
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("FooList"), &made.body));
    let table = admin.accept(&path(group), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!(table["columnDefinitions"][1]["type"], "date");
    assert_eq!(table["rows"][0]["cells"][0], "a");

    let bad = admin.post(&path(group), foo(group, "b", json!({"size": 0, "colour": "green"}))).await;
    refused(
        &bad,
        422,
        "Foo.thread.example.com \"b\" is invalid: [spec.colour: Unsupported value: \"green\": supported values: \"red\", \"blue\", spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]",
    );
    let strict = admin.post(&format!("{}?fieldValidation=Strict", path(group)), foo(group, "b", json!({"size": 1, "more": 1}))).await;
    refused(&strict, 400, "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: unknown field \"spec.more\"");

    let patch = json!({"spec": {"size": 3}}).to_string();
    let strategic = admin.send("PATCH", &format!("{}/a", path(group)), "application/strategic-merge-patch+json", patch.clone()).await;
    assert_eq!(strategic.code, 415, "custom kinds have no merge strategies");
    let patched = admin.send("PATCH", &format!("{}/a", path(group)), "application/merge-patch+json", patch).await;
    assert_eq!((patched.code, &patched.body["metadata"]["generation"]), (200, &json!(2)), "{}", patched.body);

    let name = format!("{DEFINITIONS}/foos.{group}");
    let going = admin.send("DELETE", &name, "", String::new()).await;
    assert_eq!((going.code, &going.body["metadata"]["finalizers"]), (200, &json!(["customresourcecleanup.apiextensions.k8s.io"])));
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push((event["type"].as_str().expect("a type").to_owned(), event["object"]["spec"]["size"].as_i64()));
    }
    let events = seen.iter().map(|(kind, size)| (kind.as_str(), *size)).collect::<Vec<_>>();
    assert_eq!(events, [("ADDED", Some(2)), ("MODIFIED", Some(3)), ("DELETED", Some(3))], "the watch ends with the kind");
    assert_eq!(admin.get(&path(group)).await.code, 404);
    assert_eq!(admin.get(&name).await.code, 404);
    assert_eq!(admin.get(&format!("/apis/{group}")).await.code, 404);
}
