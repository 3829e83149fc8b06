//! Custom resources as clients see them: definitions, and objects of the kinds they make. One control plane for all cases; each case has a group of its own.

use crate::cluster::{Answer, Cluster, Peer};
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
    rules(&mut admin).await;
    old_mistakes_may_stay(&mut admin).await;
    definitions_with_bad_rules(&mut admin).await;
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
    assert_eq!(
        strategic.body["message"],
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    );
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

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

/// Rules in CEL judge objects and changes of them, whichever way they come.
async fn rules(admin: &mut Peer) {
    let group = "rules.example.com";
    let schema = json!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('x')", "message": "names begin with x", "reason": "FieldValueForbidden"}],
        "properties": {"spec": {
            "type": "object",
            "x-kubernetes-validations": [{
                "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
                "messageExpression": "'min is above max, being ' + (has(self.phase) ? self.phase : 'new')", "fieldPath": ".min",
            }],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "phase": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [{"rule": "oldSelf != 'done' || self == 'done'", "message": "done is done"}]},
                "first": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
                    {"rule": "oldSelf.hasValue() || self.startsWith('a')", "optionalOldSelf": true, "message": "begins with a at first"}]},
                "parts": {
                    "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "x-kubernetes-validations": [{"rule": "self.all(part, part.size < 10)"}],
                    "items": {"type": "object", "required": ["name", "size"], "properties": {"name": {"type": "string", "maxLength": 20},
                        "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "parts grow"}]}}},
                },
            },
        }},
    });
    define(admin, definition(group, schema)).await;
    let part = |name: &str, size: u32| json!({"name": name, "size": size});
    let spec = json!({"min": 1, "max": 2, "phase": "new", "first": "ab", "parts": [part("a", 1), part("b", 5)]});
    let made = admin.post(&path(group), foo(group, "xa", spec)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let one = format!("{}/xa", path(group));
    let wrong = |name: &str, why: &str| format!("Foo.rules.example.com \"{name}\" is invalid: {why}");
    refused(&admin.post(&path(group), foo(group, "b", json!({}))).await, 422, &wrong("b", "<nil>: Forbidden: names begin with x"));
    let above = merge(admin, &one, json!({"spec": {"min": 3}})).await;
    refused(&above, 422, &wrong("xa", "spec.min: Invalid value: min is above max, being new"));
    assert_eq!(above.body["details"]["causes"][0]["reason"], "FieldValueInvalid");
    let large = merge(admin, &one, json!({"spec": {"parts": [part("a", 10)]}})).await;
    refused(&large, 422, &wrong("xa", "spec.parts: Invalid value: failed rule: self.all(part, part.size < 10)"));

    // What was before, by the keys of the list and not by the place in it.
    let grown = merge(admin, &one, json!({"spec": {"phase": "done", "first": "zz", "parts": [part("b", 5), part("a", 2), part("c", 1)]}})).await;
    assert_eq!(grown.code, 200, "{}", grown.body);
    let shrunk = merge(admin, &one, json!({"spec": {"parts": [part("c", 1), part("b", 4)]}})).await;
    refused(&shrunk, 422, &wrong("xa", "spec.parts[1].size: Invalid value: 4: parts grow"));
    let again = merge(admin, &one, json!({"spec": {"phase": "new"}})).await;
    refused(&again, 422, &wrong("xa", "spec.phase: Invalid value: \"new\": done is done"));
    assert_eq!(merge(admin, &one, json!({"spec": {"first": null}})).await.code, 200);
    let anew = merge(admin, &one, json!({"spec": {"first": "zz"}})).await;
    refused(&anew, 422, &wrong("xa", "spec.first: Invalid value: \"zz\": begins with a at first"));
    let config = foo(group, "xa", json!({"min": 9})).to_string();
    let applied = admin.send("PATCH", &format!("{one}?fieldManager=me&force=true"), "application/apply-patch+yaml", config).await;
    refused(&applied, 422, &wrong("xa", "spec.min: Invalid value: min is above max, being done"));
    // Other mistakes come first.
    let both = admin.post(&path(group), foo(group, "xb", json!({"min": "1", "max": 0}))).await;
    assert!(
        both.code == 422 && both.message().contains("spec.min: Invalid value: \"string\": spec.min in body must be of type integer"),
        "{}",
        both.body
    );
    assert!(both.message().contains("some validation rules were not checked because the object was invalid"), "{}", both.body);
}

/// A definition may become stricter: what an update leaves as it was is not held against it (KEP-4008).
async fn old_mistakes_may_stay(admin: &mut Peer) {
    let group = "ratchet.example.com";
    let schema = |more: Value| {
        let mut name = json!({"type": "string", "maxLength": 50});
        name.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
        let list = |kind: &str| json!({"type": "array", "maxItems": 5, "x-kubernetes-list-type": kind, "items": name});
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"name": name, "other": {"type": "string"}, "set": list("set"), "atomic": list("atomic")}}}})
    };
    define(admin, definition(group, schema(json!({})))).await;
    let spec = json!({"name": "bad", "other": "a", "atomic": ["bad"]});
    assert_eq!(admin.post(&path(group), foo(group, "a", spec)).await.code, 201);
    let strict = schema(json!({"x-kubernetes-validations": [{"rule": "self.startsWith('good')", "message": "be good"}], "minLength": 4}));
    let crd = format!("{DEFINITIONS}/foos.{group}");
    let changed =
        merge(admin, &crd, json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": strict}}]}}))
            .await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    let one = format!("{}/a", path(group));
    // The new schema is in force once it refuses what it should.
    let bad = foo(group, "b", json!({"name": "bad and long"}));
    while admin.post(&format!("{}?dryRun=All", path(group)), bad.clone()).await.code != 422 {}
    let same = merge(admin, &one, json!({"spec": {"other": "b"}})).await;
    assert_eq!((same.code, &same.body["spec"]["other"]), (200, &json!("b")), "{}", same.body);
    let worse = merge(admin, &one, json!({"spec": {"name": "worse"}})).await;
    refused(&worse, 422, "Foo.ratchet.example.com \"a\" is invalid: spec.name: Invalid value: \"worse\": be good");
    let short = merge(admin, &one, json!({"spec": {"name": "g"}})).await;
    assert!(short.code == 422 && short.message().contains("spec.name in body should be at least 4 chars long"), "{}", short.body);
    let uncorrelated = merge(admin, &one, json!({"spec": {"atomic": ["bad", "good"]}})).await;
    assert_eq!(uncorrelated.code, 422, "elements of an atomic list cannot be told: {}", uncorrelated.body);
    assert_eq!(merge(admin, &one, json!({"spec": {"name": "goods", "atomic": null}})).await.code, 200);
}

/// Rules that do not compile or cost too much are found when the kind is defined.
async fn definitions_with_bad_rules(admin: &mut Peer) {
    let group = "badrules.example.com";
    let mut define = async |rule: &str, limits: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": rule}]});
        list.as_object_mut().expect("a map").extend(limits.as_object().cloned().unwrap_or_default());
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"list": list}}}});
        let answer = admin.post(&format!("{DEFINITIONS}?dryRun=All"), definition(group, schema)).await;
        (answer.code, answer.message().to_owned())
    };
    let place = "spec.validation.openAPIV3Schema.properties[spec].properties[list].x-kubernetes-validations[0].rule: ";
    for (rule, why) in [
        ("self.all(x, y > 1)", "undeclared reference to 'y'"),
        ("self.size() > 'a'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("self.size() +", "Syntax error"),
        ("self.size()", "cel expression must evaluate to a bool"),
    ] {
        let (code, message) = define(rule, json!({"maxItems": 3})).await;
        assert!(code == 422 && message.contains(place) && message.contains(why), "{message}");
    }
    let dear = "self.all(x, self.all(y, x == y || x != y))";
    let (code, message) = define(dear, json!({})).await;
    let why = "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert!(code == 422 && message.contains(place) && message.contains(why), "{message}");
    assert!(message.contains("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"), "{message}");
    let (code, message) = define(dear, json!({"maxItems": 5, "items": {"type": "string", "maxLength": 10}})).await;
    assert_eq!(code, 201, "{message}");
}
