//! test/integration/apiserver/apply: what several managers of one object find, case by case.

use super::{made, namespace, ok, patched, put};
use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "applying").await;
    what_changes_nothing_writes_nothing(&mut admin).await;
    items_of_lists_go_when_nobody_applies_them(&mut admin).await;
    shared_fields_stay_while_somebody_applies_them(&mut admin).await;
    ownership_is_handed_over(&mut admin).await;
    managed_fields_can_be_cleared(&mut admin).await;
    wrong_managed_fields_do_no_harm(&mut admin).await;
    many_updates_are_one_entry(&mut admin).await;
    objects_have_a_size(&mut admin).await;
}

const SETS: &str = "/apis/apps/v1/namespaces/applying/replicasets";
const MAPS: &str = "/api/v1/namespaces/applying/configmaps";

async fn apply(admin: &mut Peer, path: &str, manager: &str, config: &Value) -> Answer {
    admin
        .send(
            "PATCH",
            &format!("{path}{}fieldManager={manager}", if path.contains('?') { "&" } else { "?" }),
            "application/apply-patch+yaml",
            config.to_string(),
        )
        .await
}

async fn applied(admin: &mut Peer, path: &str, manager: &str, config: &Value) -> Value {
    let answer = apply(admin, path, manager, config).await;
    ok(&answer);
    answer.body
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a revision")
}

/// A ReplicaSet without a pod, so that no controller writes to its spec.
fn set(key: &str, container: Value) -> Value {
    let mut one = json!({"name": "c", "image": "i"});
    for (field, value) in container.as_object().into_iter().flatten() {
        one[field] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": key}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": key}},
        "template": {"metadata": {"labels": {"app": key}}, "spec": {"containers": [one]}}}})
}

fn map(key: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key}, "data": data})
}

async fn what_changes_nothing_writes_nothing(admin: &mut Peer) {
    for (path, config) in [
        (format!("{MAPS}/noop"), map("noop", json!({"k": "v"}))),
        (
            format!("{MAPS}/empty"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "empty", "annotations": {}, "labels": {}}, "data": {}}),
        ),
        (
            "/api/v1/namespaces/applying/pods/noop".to_owned(),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "noop", "labels": {"app": "noop"}},
            "spec": {"schedulerName": "nobody", "securityContext": {}, "containers": [{"name": "c", "image": "i", "resources": {}}]}}),
        ),
    ] {
        let first = applied(admin, &path, "me", &config).await;
        let again = applied(admin, &path, "me", &config).await;
        assert_eq!(again, first, "{path}");
        assert_eq!(revision(&put(admin, &path, &first).await), revision(&first), "{path}");
    }
    // An object whose spec is written otherwise but means the same.
    let strict = applied(admin, &format!("{SETS}/same"), "me", &set("same", json!({"resources": {"limits": {"cpu": "1000m"}}}))).await;
    let same = applied(admin, &format!("{SETS}/same"), "me", &set("same", json!({"resources": {"limits": {"cpu": "1"}}}))).await;
    let limit = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"].clone();
    assert_eq!((limit(&strict), limit(&same), &strict["metadata"]["generation"]), (json!("1"), json!("1"), &same["metadata"]["generation"]));
}

async fn items_of_lists_go_when_nobody_applies_them(admin: &mut Peer) {
    let path = format!("{SETS}/ports");
    let with = set("ports", json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}));
    let first = applied(admin, &path, "me", &with).await;
    let ports = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["ports"].clone();
    assert_eq!(
        ports(&first),
        json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]),
        "a key that is left out has its default"
    );
    let fewer = applied(admin, &path, "me", &set("ports", json!({"ports": [{"containerPort": 80}]}))).await;
    assert_eq!(ports(&fewer), json!([{"containerPort": 80, "protocol": "TCP"}]));
    let none = applied(admin, &path, "me", &set("ports", json!({}))).await;
    assert_eq!(ports(&none), Value::Null);
    // What a controller added to an item that goes does not keep the item.
    let env = set("ports", json!({"env": [{"name": "A", "value": "1"}]}));
    applied(admin, &path, "me", &env).await;
    let mut whole = env.clone();
    whole["spec"]["template"]["spec"]["containers"] = json!([env["spec"]["template"]["spec"]["containers"][0], {"name": "side", "image": "s"}]);
    applied(admin, &path, "me", &whole).await;
    let touch = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "command": ["x"]}]}}}});
    patched(admin, &format!("{path}?fieldManager=controller"), "strategic-merge", touch).await;
    let left = applied(admin, &path, "me", &env).await;
    assert_eq!(left["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1), "{}", left["spec"]);
}

async fn shared_fields_stay_while_somebody_applies_them(admin: &mut Peer) {
    let path = format!("{MAPS}/shared");
    applied(admin, &path, "one", &map("shared", json!({"both": "v", "mine": "1"}))).await;
    applied(admin, &path, "two", &map("shared", json!({"both": "v", "theirs": "2"}))).await;
    let left = applied(admin, &path, "one", &map("shared", json!({}))).await;
    assert_eq!(left["data"], json!({"both": "v", "theirs": "2"}));
    let left = applied(admin, &path, "two", &map("shared", json!({"theirs": "2"}))).await;
    assert_eq!(left["data"], json!({"theirs": "2"}));
}

async fn ownership_is_handed_over(admin: &mut Peer) {
    let path = format!("{SETS}/handed");
    let mut config = set("handed", json!({}));
    let mut current = applied(admin, &path, "applier", &config).await;
    // The status is written meanwhile: the update is unconditional.
    current["metadata"]["resourceVersion"] = Value::Null;
    current["spec"]["minReadySeconds"] = 4.into();
    config["spec"]["minReadySeconds"] = 3.into();
    put(admin, &format!("{path}?fieldManager=updater"), &current).await;
    let conflict = apply(admin, &path, "applier", &config).await;
    assert_eq!((conflict.code, &conflict.body["details"]["causes"][0]["field"]), (409, &json!(".spec.minReadySeconds")), "{}", conflict.body);
    let forced = applied(admin, &format!("{path}?force=true"), "applier", &config).await;
    assert_eq!(forced["spec"]["minReadySeconds"], 3);
    let mut current = forced;
    current["metadata"]["resourceVersion"] = Value::Null;
    current["spec"]["minReadySeconds"] = 5.into();
    put(admin, &format!("{path}?fieldManager=updater"), &current).await;
    let without = applied(admin, &path, "applier", &set("handed", json!({}))).await;
    assert_eq!(without["spec"]["minReadySeconds"], 5, "what somebody else has set since stays");
}

async fn managed_fields_can_be_cleared(admin: &mut Peer) {
    let path = format!("{MAPS}/cleared");
    let config = map("cleared", json!({"k": "v"}));
    for (kind, patch) in [
        ("merge", json!({"metadata": {"managedFields": [{}]}})),
        ("strategic-merge", json!({"metadata": {"managedFields": [{}]}})),
        ("json", json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])),
        ("put", Value::Null),
    ] {
        let before = applied(admin, &path, "me", &config).await;
        assert!(before["metadata"]["managedFields"].is_array(), "{kind}");
        let after = if kind == "put" {
            let mut config = config.clone();
            config["metadata"]["managedFields"] = json!([{}]);
            put(admin, &path, &config).await
        } else {
            patched(admin, &path, kind, patch).await
        };
        assert_eq!(after["metadata"]["managedFields"], Value::Null, "{kind}");
    }
    // An empty list clears as well.
    applied(admin, &path, "me", &config).await;
    let mut emptied = config;
    emptied["metadata"]["managedFields"] = json!([]);
    let after = put(admin, &path, &emptied).await;
    assert_eq!(after["metadata"]["managedFields"], Value::Null);
}

async fn wrong_managed_fields_do_no_harm(admin: &mut Peer) {
    let mut one = map("wrong", json!({"k": "v"}));
    one["metadata"]["managedFields"] = json!([{"manager": "apply", "operation": "Apply", "apiVersion": "v1", "time": "2019-07-08T09:31:18Z", "fieldsType": "FieldsV1", "fieldsV1": {"f": {}}}]);
    let made = made(admin, MAPS, one.clone()).await;
    assert_eq!(made["data"]["k"], "v");
    one["data"]["k"] = "w".into();
    assert_eq!(put(admin, &format!("{MAPS}/wrong"), &one).await["data"]["k"], "w");
}

async fn many_updates_are_one_entry(admin: &mut Peer) {
    let path = format!("{MAPS}/many");
    let mut current = applied(admin, &path, "applier", &map("many", json!({"k": "v"}))).await;
    for at in 0..20 {
        current["metadata"]["labels"][format!("l{at}")] = "v".into();
        current = put(admin, &format!("{path}?fieldManager=updater{at}"), &current).await;
    }
    let entries = current["metadata"]["managedFields"].as_array().expect("entries");
    let updates: Vec<_> = entries.iter().filter(|entry| entry["operation"] == "Update").filter_map(|entry| entry["manager"].as_str()).collect();
    assert_eq!((entries.len(), updates.len(), updates.contains(&"ancient-changes")), (11, 10, true), "{updates:?}");
}

async fn objects_have_a_size(admin: &mut Peer) {
    let large = map("large", json!({"k": "x".repeat(4 << 20)}));
    let refused = apply(admin, &format!("{MAPS}/large"), "me", &large).await;
    assert_eq!((refused.code, refused.reason()), (413, "RequestEntityTooLarge"));
    let refused = apply(admin, &format!("{MAPS}/large"), "me", &map("large", json!({"k": "x".repeat((1 << 20) + 1)}))).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
    assert_eq!(admin.get(&format!("{MAPS}/large")).await.code, 404);
}
