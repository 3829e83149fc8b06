//! Kinds of several versions: `crd_conversion_webhook.go`, `crd_selectable_fields.go`; and field managers that know different ones.

use super::{DEFINITIONS, items, made, name, namespace, ok, patched, put, reached, settled};
use crate::{
    cluster::{Answer, Cluster, Events, Peer},
    server::Server,
};
use serde_json::{Value, json};

/// The versions of upstream's specs: one field in the first, two in the second.
fn versions(storage: &str, selectable: bool) -> Value {
    let text = json!({"type": "string"});
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<_, _> = fields.iter().map(|field| ((*field).to_owned(), text.clone())).collect();
        let paths: Vec<Value> = fields.iter().filter(|_| selectable).map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": properties}});
        json!({"name": name, "served": true, "storage": name == storage, "schema": schema, "selectableFields": paths})
    };
    json!([version("v1", &["hostPort"]), version("v2", &["host", "port"])])
}

/// A kind of a group of its own; the path of its objects in a version.
async fn kind(admin: &mut Peer, server: &Server, group: &str, selectable: bool) -> impl Fn(&str) -> String + use<> {
    let conversion =
        json!({"strategy": "Webhook", "webhook": {"clientConfig": server.config("/crdconvert"), "conversionReviewVersions": ["v1", "v1beta1"]}});
    let spec = json!({
        "group": group, "scope": "Namespaced", "names": {"plural": "routes", "singular": "route", "kind": "Route", "listKind": "RouteList"},
        "versions": versions("v1", selectable), "conversion": conversion,
    });
    made(admin, DEFINITIONS, json!({"metadata": {"name": format!("routes.{group}")}, "spec": spec})).await;
    reached(admin, DEFINITIONS, &format!("routes.{group}"), "it is established", |definition| {
        definition["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
    })
    .await;
    let space = group.split('.').next().unwrap_or_default().to_owned();
    namespace(admin, &space).await;
    let group = group.to_owned();
    move |version: &str| format!("/apis/{group}/{version}/namespaces/{space}/routes")
}

fn route(name: &str, fields: Value) -> Value {
    let mut route = fields;
    route["kind"] = "Route".into();
    route["metadata"] = json!({"name": name});
    route
}

async fn add(admin: &mut Peer, path: &str, name: &str, fields: Value) -> Value {
    let mut route = route(name, fields);
    route["apiVersion"] = path.trim_start_matches("/apis/").split("/namespaces").next().unwrap_or_default().into();
    made(admin, path, route).await
}

/// Its fields, as one version shows them.
fn fields(object: &Value) -> [&str; 3] {
    ["hostPort", "host", "port"].map(|field| object[field].as_str().unwrap_or_default())
}

pub async fn all(cluster: &Cluster) {
    let server = Server::start().await;
    let mut admin = cluster.admin().await;
    one_object(&mut admin, &server).await;
    lists_of_both(&mut admin, &server).await;
    managers_of_both(&mut admin, &server).await;
    selected(&mut admin, &server).await;
    selected_by_one_version(&mut admin).await;
    broken(&mut admin, &server).await;
}

/// "should be able to convert from CR v1 to CR v2"
async fn one_object(admin: &mut Peer, server: &Server) {
    let path = kind(admin, server, "one.example.com", false).await;
    let v1 = add(admin, &path("v1"), "a", json!({"hostPort": "localhost:8080"})).await;
    let one = |version: &str| format!("{}/a", path(version));
    let v2 = admin.get(&one("v2")).await;
    ok(&v2);
    let mut v2 = v2.body;
    assert_eq!((v2["apiVersion"].as_str(), fields(&v2)), (Some("one.example.com/v2"), ["", "localhost", "8080"]));
    assert_eq!(v2["metadata"]["uid"], v1["metadata"]["uid"]);
    // The way back: what is written in the one is read in the other.
    v2["port"] = "9090".into();
    let written = put(admin, &one("v2"), &v2).await;
    assert_eq!(fields(&written), ["", "localhost", "9090"]);
    let merged = patched(admin, &one("v2"), "merge", json!({"host": "elsewhere"})).await;
    assert_eq!(fields(&merged), ["", "elsewhere", "9090"]);
    let read = admin.get(&one("v1")).await.body;
    assert_eq!((fields(&read), &read["metadata"]["generation"]), (["elsewhere:9090", "", ""], &json!(3)));
}

/// "should be able to convert a non homogeneous list of CRs"
async fn lists_of_both(admin: &mut Peer, server: &Server) {
    let path = kind(admin, server, "lists.example.com", false).await;
    add(admin, &path("v1"), "cr-instance-1", json!({"hostPort": "localhost:8080"})).await;
    let definition = format!("{DEFINITIONS}/routes.lists.example.com");
    patched(admin, &definition, "merge", json!({"spec": {"versions": versions("v2", false)}})).await;
    reached(admin, DEFINITIONS, "routes.lists.example.com", "both versions are stored", |definition| {
        definition["status"]["storedVersions"] == json!(["v1", "v2"])
    })
    .await;
    add(admin, &path("v1"), "cr-instance-2", json!({"hostPort": "localhost:8080"})).await;
    for (version, expected) in [("v1", ["localhost:8080", "", ""]), ("v2", ["", "localhost", "8080"])] {
        let list = items(admin, &path(version)).await;
        assert_eq!(list.iter().map(name).collect::<Vec<_>>(), ["cr-instance-1", "cr-instance-2"]);
        for object in &list {
            assert_eq!((object["apiVersion"].as_str(), fields(object)), (Some(&*format!("lists.example.com/{version}")), expected));
        }
    }
}

/// Who manages a field in one version manages what it becomes in the other.
async fn managers_of_both(admin: &mut Peer, server: &Server) {
    let path = kind(admin, server, "managers.example.com", false).await;
    let apply = async |admin: &mut Peer, version: &str, manager: &str, query: &str, given: Value| {
        let mut route = route("a", given);
        route["apiVersion"] = format!("managers.example.com/{version}").into();
        admin.send("PATCH", &format!("{}/a?fieldManager={manager}{query}", path(version)), "application/apply-patch+yaml", route.to_string()).await
    };
    ok(&apply(admin, "v1", "first", "", json!({"hostPort": "localhost:8080"})).await);
    let same = apply(admin, "v2", "second", "", json!({"host": "localhost"})).await;
    ok(&same);
    assert_eq!(fields(&same.body), ["", "localhost", "8080"], "the same value is no conflict");
    let refused = apply(admin, "v2", "second", "", json!({"host": "elsewhere"})).await;
    assert_eq!((refused.code, refused.reason()), (409, "Conflict"), "{}", refused.body);
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"first\": .hostPort", "told in the manager's own version");
    let taken = apply(admin, "v2", "second", "&force=true", json!({"host": "elsewhere"})).await;
    ok(&taken);
    assert_eq!(fields(&taken.body), ["", "elsewhere", "8080"]);
    let owners: Vec<&str> = taken.body["metadata"]["managedFields"]
        .as_array()
        .expect("managers")
        .iter()
        .filter(|entry| entry["fieldsV1"]["f:hostPort"].is_object() || entry["fieldsV1"]["f:host"].is_object())
        .filter_map(|entry| entry["manager"].as_str())
        .collect();
    assert_eq!(owners, ["second"], "what was taken is the first's no more: {}", taken.body["metadata"]["managedFields"]);
}

/// Names by event, until so many came.
async fn told(events: &mut Events, count: usize) -> Vec<(String, String)> {
    let mut told = Vec::new();
    while told.len() < count {
        let event = events.next().await.expect("an event");
        if event["type"] != "BOOKMARK" {
            told.push((event["type"].as_str().unwrap_or_default().to_owned(), name(&event["object"]).to_owned()));
        }
    }
    told.sort();
    told
}

/// "MUST list and watch custom resources matching the field selector"
async fn selected(admin: &mut Peer, server: &Server) {
    let path = kind(admin, server, "selected.example.com", true).await;
    let (host, both) = (format!("{}?fieldSelector=host%3Dhost1", path("v2")), format!("{}?fieldSelector=host%3Dhost1%2Cport%3D80", path("v2")));
    let joined = |port: &str| format!("{}?fieldSelector=hostPort%3Dhost1%3A{port}", path("v1"));
    let mut by_host = admin.watch(&format!("{host}&watch=true")).await;
    let mut by_both = admin.watch(&format!("{both}&watch=true")).await;
    let mut by_joined = admin.watch(&format!("{}&watch=true", joined("80"))).await;
    for (name, given) in
        [("a", json!({"host": "host1", "port": "80"})), ("b", json!({"host": "host1", "port": "8080"})), ("c", json!({"host": "host2"}))]
    {
        add(admin, &path("v2"), name, given).await;
    }
    for (list, expected) in [(host.clone(), &["a", "b"][..]), (both.clone(), &["a"]), (joined("80"), &["a"]), (joined("8080"), &["b"])] {
        assert_eq!(items(admin, &list).await.iter().map(name).collect::<Vec<_>>(), expected, "{list}");
    }
    let event = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(told(&mut by_host, 2).await, [event("ADDED", "a"), event("ADDED", "b")]);
    assert_eq!(told(&mut by_both, 1).await, [event("ADDED", "a")]);
    assert_eq!(told(&mut by_joined, 1).await, [event("ADDED", "a")]);
    let unknown = admin.get(&format!("{}?fieldSelector=host%3Dhost1", path("v1"))).await;
    assert_eq!((unknown.code, unknown.message()), (400, "field label not supported: host"), "fields are those of the version");

    ok(&admin.send("DELETE", &format!("{both}&gracePeriodSeconds=0"), "application/json", String::new()).await);
    let mut b = admin.get(&format!("{}/b", path("v2"))).await.body;
    b["host"] = "host2".into();
    put(admin, &format!("{}/b", path("v2")), &b).await;
    for list in [host, both] {
        settled(admin, &list, "nothing is selected any more", |left| left.is_empty()).await;
    }
    assert_eq!(told(&mut by_host, 2).await, [event("DELETED", "a"), event("DELETED", "b")]);
    assert_eq!(told(&mut by_both, 1).await, [event("DELETED", "a")]);
    assert_eq!(told(&mut by_joined, 1).await, [event("DELETED", "a")]);
}

/// Fields that the stored version does not select by, and fields of objects that were there before anybody could.
async fn selected_by_one_version(admin: &mut Peer) {
    let text = json!({"type": "string"});
    // What two versions have alike stands for both to upstream: fields of one version need a schema of that version.
    let schema = |name: &str| {
        let spec = json!({"type": "object", "properties": {"nodeName": text, (format!("of{name}")): text}});
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}})
    };
    let (fields, more) = (json!([{"jsonPath": ".spec.nodeName"}]), json!([{"jsonPath": ".spec.nodeName"}, {"jsonPath": ".spec.ofv1"}]));
    let version = |name: &str, fields: &Value| json!({"name": name, "served": true, "storage": name == "v1", "schema": schema(name), "selectableFields": fields});
    let names = json!({"plural": "routes", "singular": "route", "kind": "Route", "listKind": "RouteList"});
    let spec = json!({"group": "placed.example.com", "scope": "Namespaced", "names": names, "versions": [version("v1", &json!([])), version("v2", &fields)]});
    made(admin, DEFINITIONS, json!({"metadata": {"name": "routes.placed.example.com"}, "spec": spec})).await;
    let established = |definition: &Value| {
        definition["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
    };
    reached(admin, DEFINITIONS, "routes.placed.example.com", "it is established", established).await;
    namespace(admin, "placed").await;
    let path = |version: &str| format!("/apis/placed.example.com/{version}/namespaces/placed/routes");
    let there = |version: &str| format!("{}?fieldSelector=spec.nodeName%3Dn1", path(version));
    let mut events = admin.watch(&format!("{}&watch=true", there("v2"))).await;
    add(admin, &path("v1"), "elsewhere", json!({"spec": {"nodeName": "n2"}})).await;
    add(admin, &path("v1"), "here", json!({"spec": {"nodeName": "n1"}})).await;
    let event = |kind: &str| [(kind.to_owned(), "here".to_owned())];
    assert_eq!(told(&mut events, 1).await, event("ADDED"));
    patched(admin, &format!("{}/here", path("v1")), "merge", json!({"spec": {"nodeName": "n2"}})).await;
    assert_eq!(told(&mut events, 1).await, event("DELETED"));

    patched(admin, &format!("{}/here", path("v1")), "merge", json!({"spec": {"nodeName": "n1"}})).await;
    assert_eq!(admin.get(&there("v1")).await.code, 400);
    patched(
        admin,
        &format!("{DEFINITIONS}/routes.placed.example.com"),
        "merge",
        json!({"spec": {"versions": [version("v1", &more), version("v2", &fields)]}}),
    )
    .await;
    let list = once(admin, &there("v1"), "it can be selected", |answer| answer.code != 400).await;
    assert_eq!(list.body["items"].as_array().expect("items").iter().map(name).collect::<Vec<_>>(), ["here"], "what was there before");
}

/// A webhook that fails keeps nobody from what is stored in the version that is asked for.
async fn broken(admin: &mut Peer, server: &Server) {
    let path = kind(admin, server, "broken.example.com", false).await;
    add(admin, &path("v1"), "a", json!({"hostPort": "localhost:8080"})).await;
    let definition = format!("{DEFINITIONS}/routes.broken.example.com");
    for hook in ["/garbage", "/broken", "/closed", "/empty"] {
        patched(admin, &definition, "merge", json!({"spec": {"conversion": {"webhook": {"clientConfig": server.config(hook)}}}})).await;
        let failed = once(admin, &format!("{}/a", path("v2")), &format!("{hook} is asked"), |_| server.count(hook) > 0).await;
        assert_eq!(failed.code, 500, "{hook}: {}", failed.body);
        let why = "conversion webhook for broken.example.com/v1, Kind=Route failed: ";
        assert!(failed.message().contains(why), "{hook}: {}", failed.message());
        assert_eq!(admin.get(&path("v2")).await.code, 500, "{hook}");
        assert_eq!(fields(&admin.get(&format!("{}/a", path("v1"))).await.body), ["localhost:8080", "", ""]);
    }
    patched(admin, &definition, "merge", json!({"spec": {"conversion": {"webhook": {"clientConfig": server.config("/crdconvert")}}}})).await;
    let well = once(admin, &format!("{}/a", path("v2")), "the webhook that works is asked", |answer| answer.code == 200).await;
    assert_eq!(fields(&well.body), ["", "localhost", "8080"]);
}

/// Asks until the answer is as it has to be soon: a changed definition is served a moment after it was written.
async fn once(admin: &mut Peer, path: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..10_000 {
        let answer = admin.get(path).await;
        if wanted(&answer) {
            return answer;
        }
    }
    let last = admin.get(path).await;
    panic!("{what}: {} {}", last.code, last.body)
}
