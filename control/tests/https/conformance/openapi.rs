//! apimachinery/crd_publish_openapi: what the documents say of kinds that definitions make, and when they stop saying it.

use super::{DEFINITIONS, ok, patched};
use crate::cluster::Peer;
use serde_json::{Value, json};

pub async fn all(admin: &mut Peer) {
    schemas_are_published(admin).await;
    kinds_without_fields_are_objects(admin).await;
    versions_come_and_go(admin).await;
    kinds_of_one_version_stand_together(admin).await;
}

fn schema() -> Value {
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": {
            "type": "array", "description": "List of Bars and their specs.", "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "description": "Name of Bar."},
                "age": {"type": "string", "description": "Age of Bar."},
                "feeling": {"type": "string", "description": "Whether Bar is feeling great.", "enum": ["Great", "Down"]},
                "bazs": {"type": "array", "description": "List of Bazs.", "items": {"type": "string"}}}}}}},
        "status": {"type": "object", "description": "Status of Foo", "properties": {"bars": {"type": "array", "items": {"type": "object", "properties": {
            "available": {"type": "boolean"}, "quxType": {"type": "string"}}}}}}}})
}

/// A definition of namespaced `KINDs.crd-publish-openapi-test-SUFFIX.example.com` in these versions.
fn definition(suffix: &str, kind: &str, versions: &[&str], schema: &Value) -> Value {
    let (group, plural) = (group(suffix), format!("{}s", kind.to_lowercase()));
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(at, version)| json!({"name": version, "served": true, "storage": at == 0, "schema": {"openAPIV3Schema": schema}}))
        .collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": versions}})
}

fn group(suffix: &str) -> String {
    format!("crd-publish-openapi-test-{suffix}.example.com")
}

/// The name of a kind's schema in the documents.
fn published(suffix: &str, version: &str, kind: &str) -> String {
    format!("com.example.crd-publish-openapi-test-{suffix}.{version}.{kind}")
}

/// The definition of a kind in the document of version 2, once it is there or not there as wanted; without the fields that every kind has.
async fn settled(admin: &mut Peer, name: &str, there: bool) -> Option<Value> {
    let (mut etag, mut document) = (String::new(), Value::Null);
    for _ in 0..1_000 {
        admin.headers = if etag.is_empty() { Vec::new() } else { vec![("if-none-match".into(), etag.clone())] };
        let answer = admin.get("/openapi/v2").await;
        admin.headers.clear();
        if answer.code != 304 {
            ok(&answer);
            (etag, document) = (answer.header("etag").to_owned(), answer.body);
            assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        }
        let mut found = document["definitions"].get(name).cloned();
        if found.is_some() == there {
            if let Some(Value::Object(found)) = &mut found {
                found.remove("x-kubernetes-group-version-kind");
                if let Some(Value::Object(properties)) = found.get_mut("properties") {
                    properties.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
                }
            }
            return found;
        }
        tokio::task::yield_now().await;
    }
    panic!("{name} is{} to be in the document", if there { "" } else { " not" })
}

async fn schemas_are_published(admin: &mut Peer) {
    super::definitions::define(admin, definition("foo", "Foo", &["v1"], &schema())).await;
    super::definitions::define(admin, definition("waldo", "Waldo", &["v1beta1"], &schema())).await;
    assert_eq!(settled(admin, &published("foo", "v1", "Foo"), true).await, Some(schema()));
    assert_eq!(settled(admin, &published("waldo", "v1beta1", "Waldo"), true).await, Some(schema()));
    let index = admin.get("/openapi/v3").await.body;
    let url = index["paths"][format!("apis/{}/v1", group("foo"))]["serverRelativeURL"].as_str().expect("a document").to_owned();
    let document = admin.get(&url).await.body;
    let spec = &document["components"]["schemas"][published("foo", "v1", "Foo")]["properties"]["spec"];
    assert_eq!(spec, &schema()["properties"]["spec"]);
    for name in ["foos", "waldos"] {
        let crd = format!("{DEFINITIONS}/{name}.{}", group(name.trim_end_matches('s')));
        ok(&admin.send("DELETE", &crd, "application/json", String::new()).await);
    }
    settled(admin, &published("foo", "v1", "Foo"), false).await;
    settled(admin, &published("waldo", "v1beta1", "Waldo"), false).await;
}

/// A kind that keeps unknown fields at its root is an object of anything.
async fn kinds_without_fields_are_objects(admin: &mut Peer) {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    super::definitions::define(admin, definition("empty", "Empty", &["v1"], &anything)).await;
    assert_eq!(settled(admin, &published("empty", "v1", "Empty"), true).await, Some(json!({"type": "object"})));
}

/// Two versions of one kind; one is renamed, and one is no longer served.
async fn versions_come_and_go(admin: &mut Peer) {
    super::definitions::define(admin, definition("multi-ver", "Multi", &["v2", "v3"], &schema())).await;
    let crd = format!("{DEFINITIONS}/multis.{}", group("multi-ver"));
    for version in ["v2", "v3"] {
        assert_eq!(settled(admin, &published("multi-ver", version, "Multi"), true).await, Some(schema()));
    }
    let rename =
        json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"}, {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    patched(admin, &crd, "json", rename).await;
    assert_eq!(settled(admin, &published("multi-ver", "v4", "Multi"), true).await, Some(schema()));
    settled(admin, &published("multi-ver", "v3", "Multi"), false).await;
    patched(admin, &crd, "json", json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}])).await;
    settled(admin, &published("multi-ver", "v4", "Multi"), false).await;
    assert_eq!(settled(admin, &published("multi-ver", "v2", "Multi"), true).await, Some(schema()));
}

async fn kinds_of_one_version_stand_together(admin: &mut Peer) {
    for kind in ["Left", "Right"] {
        super::definitions::define(admin, definition("common-group", kind, &["v6"], &schema())).await;
    }
    for kind in ["Left", "Right"] {
        assert_eq!(settled(admin, &published("common-group", "v6", kind), true).await, Some(schema()));
    }
}
