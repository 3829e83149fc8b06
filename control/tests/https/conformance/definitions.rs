//! apimachinery/custom_resource_definition, crd_watch and field_validation: definitions, and strict writers of what they define.

use super::{DEFINITIONS, items, made, ok, patched, put, settled};
use crate::cluster::Peer;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub async fn all(admin: &mut Peer) {
    labelled_definitions_are_listed_and_deleted(admin).await;
    the_status_is_a_resource_of_its_own(admin).await;
    definitions_are_discovered(admin).await;
    defaults_come_with_reads_and_writes(admin).await;
    watches_of_custom_objects(admin).await;
    unknown_fields_of_custom_objects(admin).await;
    unknown_metadata_of_embedded_objects(admin).await;
    appliers_are_told_as_well(admin).await;
    custom_kinds_are_in_every_document(admin).await;
}

/// A definition of cluster-wide `tests.GROUP`.
pub fn definition(group: &str, schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("tests.{group}")},
        "spec": {
            "group": group, "scope": "Cluster", "names": {"plural": "tests", "singular": "test", "kind": "Test", "listKind": "TestList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

pub async fn define(admin: &mut Peer, definition: Value) -> Value {
    let key = super::name(&definition).to_owned();
    made(admin, DEFINITIONS, definition).await;
    let established = |list: &[Value]| {
        let conditions = list[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True")
    };
    settled(admin, &format!("{DEFINITIONS}?fieldSelector=metadata.name%3D{key}"), "it is established", established).await.remove(0)
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

async fn labelled_definitions_are_listed_and_deleted(admin: &mut Peer) {
    for at in 0..10 {
        let mut one = definition(&format!("list{at}.example.com"), &anything());
        one["metadata"]["labels"] = json!({"e2e-list-test-uuid": "x"});
        define(admin, one).await;
    }
    define(admin, definition("other.example.com", &anything())).await;
    let labelled = format!("{DEFINITIONS}?labelSelector=e2e-list-test-uuid%3Dx");
    assert_eq!(items(admin, &labelled).await.len(), 10);
    ok(&admin.send("DELETE", &labelled, "application/json", String::new()).await);
    settled(admin, &labelled, "they go", |list| list.is_empty()).await;
    assert_eq!(admin.get(&format!("{DEFINITIONS}/tests.other.example.com")).await.code, 200);
}

async fn the_status_is_a_resource_of_its_own(admin: &mut Peer) {
    define(admin, definition("status.example.com", &anything())).await;
    let path = format!("{DEFINITIONS}/tests.status.example.com/status");
    let mut updated = admin.get(&path).await.body;
    // The sequence of upstream, with the fields that a condition must have.
    let condition =
        |message: &str| json!({"type": "Mine", "status": "True", "reason": "Test", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    updated["status"]["conditions"].as_array_mut().expect("conditions").push(condition("updated"));
    let updated = put(admin, &path, &updated).await;
    assert!(updated["status"]["conditions"].as_array().is_some_and(|list| list.iter().any(|one| one["message"] == "updated")));
    let patch = json!([{"op": "add", "path": "/status/conditions", "value": [condition("patched")]}]);
    let patched = patched_json(admin, &path, patch).await;
    assert!(patched["status"]["conditions"].as_array().is_some_and(|list| list.iter().any(|one| one["message"] == "patched")));
}

async fn patched_json(admin: &mut Peer, path: &str, patch: Value) -> Value {
    patched(admin, path, "json", patch).await
}

async fn definitions_are_discovered(admin: &mut Peer) {
    let groups = admin.get("/apis").await.body;
    let group = groups["groups"].as_array().and_then(|list| list.iter().find(|group| group["name"] == "apiextensions.k8s.io")).expect("the group");
    assert_eq!(group["preferredVersion"]["groupVersion"], "apiextensions.k8s.io/v1");
    let list = admin.get("/apis/apiextensions.k8s.io/v1").await.body;
    let names: Vec<&str> = list["resources"].as_array().into_iter().flatten().filter_map(|resource| resource["name"].as_str()).collect();
    assert!(names.contains(&"customresourcedefinitions") && names.contains(&"customresourcedefinitions/status"), "{names:?}");
}

/// A default that comes later is seen in what is stored; one that goes stays where it was written.
async fn defaults_come_with_reads_and_writes(admin: &mut Peer) {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    define(admin, definition("defaults.example.com", &schema)).await;
    let (path, crd) = ("/apis/defaults.example.com/v1/tests", format!("{DEFINITIONS}/tests.defaults.example.com"));
    let object = |name: &str| json!({"apiVersion": "defaults.example.com/v1", "kind": "Test", "metadata": {"name": name}});
    assert!(made(admin, path, object("one")).await.get("a").is_none());
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties";
    patched_json(admin, &crd, json!([{"op": "add", "path": format!("{properties}/a/default"), "value": "A"}])).await;
    until(admin, &format!("{path}/one"), |one| one["a"] == "A").await;
    assert_eq!(made(admin, path, object("two")).await["a"], "A");
    let swap =
        json!([{"op": "remove", "path": format!("{properties}/a/default")}, {"op": "add", "path": format!("{properties}/b/default"), "value": "B"}]);
    patched_json(admin, &crd, swap).await;
    let two = until(admin, &format!("{path}/two"), |two| two["b"] == "B").await;
    assert_eq!(two["a"], "A", "what was written with a default keeps it");
    let one = admin.get(&format!("{path}/one")).await.body;
    assert!(one.get("a").is_none() && one["b"] == "B", "{one}");
}

/// Reads until an object is as wanted: a definition's change reaches readers a moment after its writer.
async fn until(admin: &mut Peer, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1_000 {
        let object = admin.get(path).await.body;
        if wanted(&object) {
            return object;
        }
        tokio::task::yield_now().await;
    }
    panic!("{path} does not become as wanted")
}

async fn watches_of_custom_objects(admin: &mut Peer) {
    define(admin, definition("watched.example.com", &anything())).await;
    let path = "/apis/watched.example.com/v1/tests";
    let mut a = admin.watch(&format!("{path}?watch=true&fieldSelector=metadata.name%3Da")).await;
    let mut b = admin.watch(&format!("{path}?watch=true&fieldSelector=metadata.name%3Db")).await;
    for name in ["a", "b"] {
        made(admin, path, json!({"apiVersion": "watched.example.com/v1", "kind": "Test", "metadata": {"name": name}})).await;
        patched(admin, &format!("{path}/{name}"), "merge", json!({"num": {"num1": 10}})).await;
        ok(&admin.send("DELETE", &format!("{path}/{name}"), "application/json", String::new()).await);
    }
    for (events, name) in [(&mut a, "a"), (&mut b, "b")] {
        for kind in ["ADDED", "MODIFIED", "DELETED"] {
            let event = events.next().await.expect("an event");
            assert_eq!((event["type"].as_str(), super::name(&event["object"])), (Some(kind), name));
        }
    }
}

async fn strict(admin: &mut Peer, path: &str, body: &str) -> (u16, String) {
    let answer = admin.send("POST", &format!("{path}?fieldValidation=Strict&dryRun=All"), "application/json", body.into()).await;
    (answer.code, answer.message().to_owned())
}

/// With a schema, without one, and with one that keeps what it does not know.
async fn unknown_fields_of_custom_objects(admin: &mut Peer) {
    let ports = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "items": {
        "type": "object", "required": ["containerPort", "protocol"],
        "properties": {"containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"}, "protocol": {"type": "string"}}}});
    let spec = json!({"type": "object", "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"}, "ports": ports, "foo": {"type": "string"}}});
    define(admin, definition("strict.example.com", &json!({"type": "object", "properties": {"spec": spec.clone()}}))).await;
    let path = "/apis/strict.example.com/v1/tests";
    let body = |group: &str, extra: &str, fields: &str| {
        format!(
            r#"{{"apiVersion":"{group}/v1","kind":"Test",{extra}"metadata":{{"name":"mytest"}},"spec":{{{fields}"cronSpec":"* * * * */5","ports":[{{"containerPort":80,"protocol":"TCP"}}]}}}}"#
        )
    };
    assert_eq!(strict(admin, path, &body("strict.example.com", "", "")).await.0, 201);
    let (code, why) = strict(admin, path, &body("strict.example.com", "", r#""extraProperty":"arbitrary-value","#)).await;
    assert!(code == 400 && why.contains(r#"strict decoding error: unknown field "spec.extraProperty""#), "{why}");
    define(admin, definition("free.example.com", &anything())).await;
    assert_eq!(strict(admin, "/apis/free.example.com/v1/tests", &body("free.example.com", "", r#""unknown":"uk1","#)).await.0, 201);

    let mut kept = spec;
    kept["x-kubernetes-preserve-unknown-fields"] = true.into();
    define(admin, definition("kept.example.com", &json!({"type": "object", "properties": {"spec": kept}}))).await;
    let path = "/apis/kept.example.com/v1/tests";
    let (code, why) =
        strict(admin, path, &body("kept.example.com", r#""unknown":"uk0","#, r#""unknown":"uk1","unknown":"uk2","foo":"a","foo":"b","#)).await;
    assert_eq!(code, 400, "{why}");
    assert!(why.contains(r#"duplicate field "spec.unknown", duplicate field "spec.foo", unknown field "unknown""#), "{why}");
}

async fn unknown_metadata_of_embedded_objects(admin: &mut Peer) {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"template": {
        "type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}}}});
    define(admin, definition("embedded.example.com", &schema)).await;
    let body = r#"{"apiVersion":"embedded.example.com/v1","kind":"Test","metadata":{"name":"x","unknownMeta":"u"},
        "spec":{"template":{"apiVersion":"foo/v1","kind":"Sub","metadata":{"name":"my-sub","unknownSubMeta":"u"}}}}"#;
    let (code, why) = strict(admin, "/apis/embedded.example.com/v1/tests", body).await;
    assert_eq!(code, 400, "{why}");
    for field in ["metadata.unknownMeta", "spec.template.metadata.unknownSubMeta"] {
        assert!(why.contains(&format!(r#"unknown field "{field}""#)), "{why}");
    }
}

/// The same kinds again, as upstream's specs write to them: by an apply in YAML.
async fn appliers_are_told_as_well(admin: &mut Peer) {
    let mut apply = async |kind: &str, extra: &str, spec: &str| {
        let group = format!("{kind}.example.com/v1");
        let path = format!("/apis/{group}/tests/applied?fieldManager=field_validation_mgr&fieldValidation=Strict");
        let body = format!("\napiVersion: {group}\nkind: Test\nmetadata:\n  name: applied\n{extra}spec:\n{spec}");
        let answer = admin.send("PATCH", &path, "application/apply-patch+yaml", body).await;
        (answer.code, answer.message().to_owned())
    };
    let spec = "  cronSpec: \"* * * * */5\"\n  ports:\n  - containerPort: 80\n    protocol: TCP\n";
    assert_eq!(apply("strict", "", spec).await.0, 201);
    assert_eq!(apply("free", "", &format!("  unknownField: unknown\n{spec}")).await.0, 201);
    for (kind, extra, spec, why) in [
        ("strict", "", format!("  unknownField: unknown\n{spec}"), ".spec.unknownField: field not declared in schema"),
        ("strict", "unknownField: unknown\n", spec.to_owned(), ".unknownField: field not declared in schema"),
        (
            "embedded",
            "  unknownMeta: unknown\n",
            "  template:\n    apiVersion: foo/v1\n    kind: Sub\n    metadata:\n      name: my-sub\n      unknownSubMeta: unknown\n".into(),
            ".metadata.unknownMeta: field not declared in schema",
        ),
        ("kept", "", format!("  unknown: uk1\n  foo: foo1\n  foo: foo2\n{spec}"), "line 9: key \"foo\" already set in map"),
    ] {
        let (code, told) = apply(kind, extra, &spec).await;
        assert!(code >= 400 && told.contains(why), "{kind}: {code} {told}");
    }
}

/// "should support aggregated discovery … for CRDs": whoever asks finds the new kind, in the old documents with the hash of what is stored.
async fn custom_kinds_are_in_every_document(admin: &mut Peer) {
    define(admin, definition("found.example.com", &anything())).await;
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let find = |document: &Value| {
        let group = document["items"].as_array()?.iter().find(|group| group["metadata"]["name"] == "found.example.com")?;
        let version = group["versions"].as_array()?.iter().find(|version| version["version"] == "v1")?;
        version["resources"].as_array()?.iter().find(|resource| resource["resource"] == "tests").cloned()
    };
    let mut found = None;
    for _ in 0..1_000 {
        found = find(&admin.accept("/apis", media).await.body);
        if found.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let found = found.expect("the kind is discovered");
    let response = json!({"group": "found.example.com", "version": "v1", "kind": "Test"});
    assert_eq!((&found["responseKind"], &found["scope"], &found["singularResource"]), (&response, &json!("Cluster"), &json!("test")));
    let list = admin.get("/apis/found.example.com/v1").await.body;
    let hash = STANDARD.encode(&Sha256::digest(b"found.example.com/v1/Test")[..8]);
    assert_eq!(list["resources"][0]["storageVersionHash"], hash, "{list}");
}
