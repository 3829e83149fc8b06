//! Managed fields and server-side apply over HTTPS: a whole control plane in this process. One cluster for all cases.

use crate::cluster::{Answer, Cluster, Peer, eventually};
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_fields() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    for name in ["managers", "applies", "scales", "refusals", "customs"] {
        assert_eq!(admin.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await.code, 201);
    }
    managers(&mut admin).await;
    applies(&mut admin).await;
    scales(&mut admin).await;
    refusals(&cluster, &mut admin).await;
    customs(&mut admin).await;
}

async fn apply(peer: &mut Peer, path: &str, query: &str, config: &Value) -> Answer {
    peer.send("PATCH", &format!("{path}?{query}"), APPLY, config.to_string()).await
}

/// `manager operation[subresource]` → fields.
fn managed(object: &Value) -> Value {
    let mut all = json!({});
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let subresource = if text("subresource").is_empty() { String::new() } else { format!("[{}]", text("subresource")) };
        all[format!("{} {}{subresource}", text("manager"), text("operation"))] = entry["fieldsV1"].clone();
    }
    all
}

fn revision(answer: &Answer) -> &str {
    answer.body["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// Every kind of write is somebody's.
async fn managers(admin: &mut Peer) {
    let path = "/api/v1/namespaces/managers/configmaps";
    let one = &format!("{path}/a");
    admin.headers.push(("user-agent".into(), "curl/8 (x)".into()));
    let made = admin.post(path, map(json!({"a": "1", "b": "1"}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(managed(&made.body), json!({"curl Update": {"f:data": {".": {}, "f:a": {}, "f:b": {}}}}));
    let entry = &made.body["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    assert_eq!(entry["time"], made.body["metadata"]["creationTimestamp"]);

    let merged = admin.send("PATCH", &format!("{one}?fieldManager=me"), MERGE, json!({"data": {"b": "2"}}).to_string()).await;
    assert_eq!(managed(&merged.body), json!({"curl Update": {"f:data": {".": {}, "f:a": {}}}, "me Update": {"f:data": {"f:b": {}}}}));
    let strategic = json!({"metadata": {"labels": {"l": "v"}}}).to_string();
    let merged = admin.send("PATCH", &format!("{one}?fieldManager=s"), "application/strategic-merge-patch+json", strategic).await;
    assert_eq!(managed(&merged.body)["s Update"], json!({"f:metadata": {"f:labels": {".": {}, "f:l": {}}}}));
    let json_patch = json!([{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/b"}]).to_string();
    let patched = admin.send("PATCH", &format!("{one}?fieldManager=j"), "application/json-patch+json", json_patch).await;
    assert_eq!(managed(&patched.body)["j Update"], json!({"f:data": {"f:a": {}}}));
    assert_eq!(managed(&patched.body)["me Update"], Value::Null);
    assert_eq!(managed(&patched.body)["curl Update"], json!({"f:data": {}}));

    // Nothing changes: no write, no new time.
    let same = admin.send("PUT", &format!("{one}?fieldManager=other"), "application/json", patched.body.to_string()).await;
    assert_eq!((same.code, &same.body), (200, &patched.body));

    let reset = admin.send("PATCH", one, MERGE, json!({"metadata": {"managedFields": [{}]}}).to_string()).await;
    assert_eq!(reset.body["metadata"]["managedFields"], Value::Null);
    let applied = apply(admin, one, "fieldManager=applier", &map(json!({"n": "1"}))).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    assert_eq!(managed(&applied.body)["applier Apply"], json!({"f:data": {"f:n": {}}}));
    assert_eq!(managed(&applied.body)["before-first-apply Update"]["f:data"], json!({".": {}, "f:a": {}}));
    let list = admin.accept(path, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    assert_eq!(managed(&list.body["items"][0]).as_object().map(|all| all.len()), Some(2), "{}", list.body);

    // The server's own components have their usual names.
    let namespace = admin.get("/api/v1/namespaces/managers").await;
    assert!(managed(&namespace.body).as_object().is_some_and(|all| !all.is_empty()));
    let ca = admin.get("/api/v1/namespaces/managers/configmaps/kube-root-ca.crt").await;
    assert_eq!(managed(&ca.body)["kube-controller-manager Update"]["f:data"], json!({".": {}, "f:ca.crt": {}}), "{}", ca.body);
    let role = admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:discovery").await;
    assert!(managed(&role.body)["kube-apiserver Update"]["f:rules"].is_object(), "{}", role.body);
    admin.headers.clear();
}

async fn applies(admin: &mut Peer) {
    let path = "/apis/apps/v1/namespaces/applies/deployments/d";
    let made = apply(admin, path, "fieldManager=me", &deployment(3)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(managed(&made.body).as_object().map(|all| all.len()), Some(1), "defaults are nobody's");
    assert_eq!(made.body["metadata"]["generation"], 1);
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 3\n  selector: {matchLabels: {app: x}}\n  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i}]}}\n";
    let again = admin.send("PATCH", &format!("{path}?fieldManager=me"), APPLY, yaml.into()).await;
    assert_eq!(again.code, 200, "{}", again.body);
    assert_eq!(managed(&again.body)["me Apply"], managed(&made.body)["me Apply"]);

    let scaled = admin.send("PATCH", &format!("{path}?fieldManager=hpa"), MERGE, json!({"spec": {"replicas": 5}}).to_string()).await;
    assert_eq!(scaled.body["spec"]["replicas"], 5);
    let conflict = apply(admin, path, "fieldManager=me", &deployment(3)).await;
    assert_eq!((conflict.code, conflict.reason()), (409, "Conflict"));
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas");
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"hpa\" using apps/v1", "field": ".spec.replicas"}]);
    assert_eq!(conflict.body["details"]["causes"], cause);
    let dry = apply(admin, path, "fieldManager=me&force=true&dryRun=All", &deployment(4)).await;
    assert_eq!((dry.code, &dry.body["spec"]["replicas"]), (200, &json!(4)));
    assert_eq!(managed(&dry.body)["hpa Update"], Value::Null);
    assert_eq!(admin.get(path).await.body["spec"]["replicas"], 5, "a dry run stores nothing");
    let forced = apply(admin, path, "fieldManager=me&force=true", &deployment(4)).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"], &forced.body["metadata"]["generation"]), (200, &json!(4), &json!(3)));

    // Status through its own path only.
    let mut status = deployment(9);
    status["status"] = json!({"observedGeneration": 1});
    let applied = apply(admin, &format!("{path}/status"), "fieldManager=reporter&force=true", &status).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    assert_eq!((&applied.body["spec"]["replicas"], &applied.body["status"]["observedGeneration"]), (&json!(4), &json!(1)));
    assert_eq!(managed(&applied.body)["reporter Apply[status]"], json!({"f:status": {"f:observedGeneration": {}}}));

    // Preconditions.
    let mut old = deployment(4);
    old["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(apply(admin, path, "fieldManager=me", &old).await.code, 409);
    old["metadata"]["resourceVersion"] = applied.body["metadata"]["resourceVersion"].clone();
    let now = admin.get(path).await;
    old["metadata"]["resourceVersion"] = now.body["metadata"]["resourceVersion"].clone();
    let fits = apply(admin, path, "fieldManager=me", &old).await;
    assert!(fits.code == 200 || fits.code == 409, "controllers write too: {}", fits.body);
    let missing = "/api/v1/namespaces/applies/configmaps/a";
    for (field, value) in [("uid", "88e00824-7f0e-11e8-94a1-c8d3ffb15800"), ("resourceVersion", "7")] {
        let mut config = map(json!({}));
        config["metadata"][field] = json!(value);
        let refused = apply(admin, missing, "fieldManager=me", &config).await;
        assert_eq!((refused.code, refused.reason()), (409, "Conflict"), "{}", refused.body);
    }
    assert_eq!(admin.get(missing).await.code, 404);
    let dry = apply(admin, missing, "fieldManager=me&dryRun=All", &map(json!({"k": "v"}))).await;
    assert_eq!((dry.code, admin.get(missing).await.code), (201, 404));
    assert_eq!(apply(admin, &format!("{path}x/status"), "fieldManager=me", &deployment(1)).await.code, 404, "a status is of something");
}

async fn scales(admin: &mut Peer) {
    let path = "/apis/apps/v1/namespaces/scales/deployments/d";
    let owners = |object: &Value| -> Vec<String> {
        let all = managed(object);
        all.as_object().unwrap().iter().filter(|(_, fields)| fields["f:spec"].get("f:replicas").is_some()).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(apply(admin, path, "fieldManager=me", &deployment(1)).await.code, 201);
    let scale = |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let seen = admin.get(&format!("{path}/scale")).await;
    assert_eq!(managed(&seen.body), json!({"me Apply": {"f:spec": {"f:replicas": {}}}}));
    assert_eq!(seen.body["metadata"]["managedFields"][0]["apiVersion"], "autoscaling/v1");

    let scaled = admin.send("PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, json!({"spec": {"replicas": 5}}).to_string()).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(5)), "{}", scaled.body);
    assert_eq!(owners(&admin.get(path).await.body), ["hpa Update[scale]"]);
    assert_eq!(apply(admin, path, "fieldManager=me", &deployment(1)).await.code, 409);
    let conflict = apply(admin, &format!("{path}/scale"), "fieldManager=applier", &scale(17)).await;
    assert_eq!(
        conflict.message(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    let forced = apply(admin, &format!("{path}/scale"), "fieldManager=applier&force=true", &scale(17)).await;
    assert_eq!(forced.code, 200, "{}", forced.body);
    assert_eq!(owners(&admin.get(path).await.body), ["applier Apply[scale]"]);
    let put = admin.send("PUT", &format!("{path}/scale?fieldManager=put"), "application/json", scale(7).to_string()).await;
    assert_eq!(put.code, 200, "{}", put.body);
    assert_eq!(owners(&admin.get(path).await.body), ["put Update[scale]"]);
    assert_eq!(apply(admin, &format!("{path}/scale"), "fieldManager=co", &scale(7)).await.code, 200);
    assert_eq!(owners(&admin.get(path).await.body), ["co Apply[scale]", "put Update[scale]"]);
    let status = admin.send("PATCH", &format!("{path}/scale?fieldManager=odd"), MERGE, json!({"status": {"replicas": 42}}).to_string()).await;
    assert_eq!(status.code, 200);
    assert_eq!(owners(&admin.get(path).await.body), ["co Apply[scale]", "put Update[scale]"]);
}

async fn refusals(cluster: &Cluster, admin: &mut Peer) {
    let path = "/api/v1/namespaces/refusals/configmaps/a";
    let unnamed = apply(admin, path, "", &map(json!({}))).await;
    assert_eq!((unnamed.code, unnamed.reason()), (422, "Invalid"));
    assert_eq!(unnamed.message(), "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
    let forced = admin.send("PATCH", &format!("{path}?force=true"), MERGE, "{}".into()).await;
    assert_eq!(forced.message(), "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch");
    let long = admin.post(&format!("/api/v1/namespaces/refusals/configmaps?fieldManager={}", "x".repeat(129)), map(json!({}))).await;
    assert_eq!(long.code, 422, "{}", long.body);

    for (config, code, message) in [
        (json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), 400, "invalid object type: /v1, Kind=Secret"),
        (json!({"kind": "ConfigMap", "metadata": {"name": "a"}}), 400, "invalid object type: /, Kind=ConfigMap"),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{}]}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "foo": 1}),
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
    ] {
        let refused = apply(admin, path, "fieldManager=me", &config).await;
        assert_eq!((refused.code, refused.message()), (code, message));
    }
    for bad in ["", "[]", "a: ["] {
        let refused = admin.send("PATCH", &format!("{path}?fieldManager=me"), APPLY, bad.into()).await;
        assert!(refused.code == 400 && refused.message().starts_with("error decoding YAML"), "{}", refused.body);
    }
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: v\n  k: w\n";
    let strict = admin.send("PATCH", &format!("{path}?fieldManager=me&fieldValidation=Strict"), APPLY, twice.into()).await;
    assert!(strict.code == 400 && strict.message().contains("line 6: key \"k\" already set in map"), "{}", strict.body);
    let warned = admin.send("PATCH", &format!("{path}?fieldManager=me"), APPLY, twice.into()).await;
    assert_eq!((warned.code, &warned.body["data"]["k"]), (201, &json!("w")));
    assert!(warned.header("warning").contains("already set in map"), "{}", warned.header("warning"));

    // The same for patches; more is wrong there with what the patch itself says.
    let twice = r#"{"data": {"k": "x", "k": "y"}, "more": 1}"#;
    let strict = admin.send("PATCH", &format!("{path}?fieldValidation=Strict"), MERGE, twice.into()).await;
    assert_eq!((strict.code, strict.reason()), (422, "Invalid"));
    assert!(strict.message().ends_with("strict decoding error: duplicate field \"data.k\", unknown field \"more\""), "{}", strict.body);
    let warned = admin.send("PATCH", path, MERGE, r#"{"data": {"k": "x", "k": "y"}}"#.into()).await;
    assert_eq!((warned.code, &warned.body["data"]["k"]), (200, &json!("y")));
    assert!(warned.header("warning").contains(r#"duplicate field \"data.k\""#), "{}", warned.header("warning"));
    let operations = r#"[{"op": "replace", "path": "/data/k", "value": "a", "value": "z", "foo": 1}]"#;
    let strict = admin.send("PATCH", &format!("{path}?fieldValidation=Strict"), "application/json-patch+json", operations.into()).await;
    let why = "strict decoding error: json patch unknown field \"[0].foo\", json patch duplicate field \"[0].value\"";
    assert!(strict.code == 422 && strict.message().ends_with(why), "{}", strict.body);

    // Creating by apply needs both verbs.
    let role = json!({"metadata": {"name": "patcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "get"]}]});
    assert_eq!(admin.post("/apis/rbac.authorization.k8s.io/v1/namespaces/refusals/roles", role).await.code, 201);
    let binding = json!({"metadata": {"name": "patcher"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "panda"}]});
    assert_eq!(admin.post("/apis/rbac.authorization.k8s.io/v1/namespaces/refusals/rolebindings", binding).await.code, 201);
    let mut panda = cluster.admin().await;
    panda.headers.push(("impersonate-user".into(), "panda".into()));
    let found = eventually(async || apply(&mut panda, path, "fieldManager=p", &map(json!({"p": "1"}))).await, |found| found.code != 403).await;
    assert_eq!(found.code, 200, "{}", found.body);
    let mut other = map(json!({}));
    other["metadata"]["name"] = json!("new");
    let refused = apply(&mut panda, "/api/v1/namespaces/refusals/configmaps/new", "fieldManager=p", &other).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            403,
            "configmaps \"new\" is forbidden: User \"panda\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"refusals\""
        )
    );
    assert!(!revision(&found).is_empty());
}

/// Custom kinds: their schema says how things are merged, version by version.
async fn customs(admin: &mut Peer) {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {
                "type": "object", "required": ["port", "protocol"],
                "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let version = |name: &str| {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.apply.example.com"},
        "spec": {"group": "apply.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": [version("v1"), version("v2")]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let made = apply(admin, &format!("{definitions}/things.apply.example.com"), "fieldManager=me", &definition).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let mut events = admin.watch(&format!("{definitions}?watch=true&fieldSelector=metadata.name=things.apply.example.com")).await;
    while !events.next().await.expect("events")["object"]["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
    {}

    let path = "/apis/apply.example.com/v1/namespaces/customs/things/t";
    let later = "/apis/apply.example.com/v2/namespaces/customs/things/t";
    let thing = |version: &str, spec: Value| json!({"apiVersion": format!("apply.example.com/{version}"), "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
    let one = thing(
        "v1",
        json!({"replicas": 1, "set": ["a"], "ports": [{"port": 80, "name": "web"}], "whole": {"a": "1"}, "plain": ["x"], "free": {"deep": {"x": 1}, "list": [1]}}),
    );
    let made = apply(admin, path, "fieldManager=one", &one).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(
        managed(&made.body),
        json!({"one Apply": {"f:spec": {
            "f:free": {"f:deep": {".": {}, "f:x": {}}, "f:list": {}}, "f:plain": {}, "f:replicas": {}, "f:set": {"v:\"a\"": {}}, "f:whole": {},
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}}}})
    );
    assert_eq!(made.body["spec"]["ports"][0]["protocol"], "TCP");
    let again = apply(admin, path, "fieldManager=one", &one).await;
    assert_eq!((again.code, &again.body), (200, &made.body), "nothing changes, nothing is written");

    // Lists and maps are shared as the schema says, whatever the version.
    let two = thing("v2", json!({"set": ["b"], "ports": [{"port": 80, "protocol": "UDP"}], "free": {"deep": {"y": 2}}}));
    let merged = apply(admin, later, "fieldManager=two", &two).await;
    assert_eq!(merged.code, 200, "{}", merged.body);
    let spec = &merged.body["spec"];
    assert_eq!((&spec["set"], &spec["free"]["deep"]), (&json!(["a", "b"]), &json!({"x": 1, "y": 2})));
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 80, "protocol": "UDP"}]));
    let versions: Vec<&Value> =
        merged.body["metadata"]["managedFields"].as_array().expect("entries").iter().map(|entry| &entry["apiVersion"]).collect();
    assert_eq!(versions, ["apply.example.com/v1", "apply.example.com/v2"]);
    for (field, value) in [("whole", json!({"b": "2"})), ("plain", json!(["x", "y"])), ("replicas", json!(2))] {
        let refused = apply(admin, later, "fieldManager=three", &thing("v2", json!({field: value}))).await;
        assert_eq!((refused.code, refused.message()), (409, &*format!("Apply failed with 1 conflict: conflict with \"one\": .spec.{field}")));
    }
    let refused = apply(admin, later, "fieldManager=three&force=false", &thing("v2", json!({"free": {"list": [2], "deep": {"y": 3}}}))).await;
    assert_eq!(
        refused.message(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.free.list\nconflicts with \"two\":\n- .spec.free.deep.y"
    );
    // What the first one no longer applies goes, in another version too; what others have stays.
    let less = apply(admin, later, "fieldManager=one", &thing("v2", json!({"replicas": 1, "free": {"deep": {"x": 1}}}))).await;
    assert_eq!(less.code, 200, "{}", less.body);
    assert_eq!(
        less.body["spec"],
        json!({"replicas": 1, "set": ["b"], "ports": [{"port": 80, "protocol": "UDP"}], "free": {"deep": {"x": 1, "y": 2}}})
    );
    let merge = admin.send("PATCH", &format!("{path}?fieldManager=m"), MERGE, json!({"spec": {"free": {"deep": {"y": 5}}}}).to_string()).await;
    assert_eq!(managed(&merge.body)["m Update"], json!({"f:spec": {"f:free": {"f:deep": {"f:y": {}}}}}), "{}", merge.body);
    let left = &managed(&merge.body)["two Apply"]["f:spec"]["f:free"];
    assert_eq!(left, &json!({"f:deep": {}}), "what was applied in v2 is lost in v1; the map it is in is not");

    // The status has nothing but itself.
    let mut status = thing("v1", json!({"replicas": 9}));
    status["metadata"]["labels"] = json!({"l": "v"});
    status["status"] = json!({"replicas": 1});
    let applied = apply(admin, &format!("{path}/status"), "fieldManager=reporter&force=true", &status).await;
    assert_eq!(
        (applied.code, &applied.body["spec"]["replicas"], &applied.body["metadata"]["labels"]),
        (200, &json!(1), &Value::Null),
        "{}",
        applied.body
    );
    assert_eq!(managed(&applied.body)["reporter Apply[status]"], json!({"f:status": {"f:replicas": {}}}));
    let scaled = admin.send("PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, json!({"spec": {"replicas": 5}}).to_string()).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(5)), "{}", scaled.body);
    let conflict = apply(admin, path, "fieldManager=one", &thing("v1", json!({"replicas": 1}))).await;
    let message = "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apply.example.com/v1: .spec.replicas";
    assert_eq!((conflict.code, conflict.message()), (409, message));

    for (config, code, message) in [
        (
            thing("v1", json!({"more": 1})),
            500,
            "failed to create typed patch object (/t; apply.example.com/v1, Kind=Thing): .spec.more: field not declared in schema",
        ),
        (
            thing("v1", json!({"set": ["a", "a"]})),
            500,
            "failed to create typed patch object (/t; apply.example.com/v1, Kind=Thing): .spec.set: duplicate entries for key [=\"a\"]",
        ),
        (thing("v2", json!({})), 400, "invalid object type: apply.example.com/v2, Kind=Thing"),
    ] {
        let refused = apply(admin, path, "fieldManager=me", &config).await;
        assert_eq!((refused.code, refused.message()), (code, message));
    }
    let defined = admin.get(&format!("{definitions}/things.apply.example.com")).await;
    assert!(managed(&defined.body)["me Apply"]["f:spec"].is_object(), "{}", defined.body);
}
